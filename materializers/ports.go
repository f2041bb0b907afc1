package materializers

import (
	"context"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Bus is the part of bus.Bus that owners use.
type Bus interface {
	Shards() []bus.Shard
	Generations(s bus.Shard) []bus.Generation
	Head(ctx context.Context, s bus.Shard) (bus.Position, error)
	NewReader(ctx context.Context, after bus.Position, packs bus.PackSource) (*bus.Reader, error)
	LoadBody(ctx context.Context, r *bus.Record) ([]byte, error)
	Flush(ctx context.Context, s bus.Shard, req bus.FlushRequest) (bus.FlushReply, error)
	ServeFlush(target string, s bus.Shard, h func(context.Context, bus.FlushRequest) bus.FlushReply) (stop func(), err error)
	DeadLetter(ctx context.Context, d bus.DeadLetter) error
	Stats(ctx context.Context) ([]bus.ShardStats, error)
}

// Catalog is the part of catalog.Catalog that owners and the merger use.
type Catalog interface {
	ownership.Leases
	Checkpoint(ctx context.Context, consumer string, s catalog.ShardID) (catalog.Checkpoint, error)
	CommitView(ctx context.Context, c *catalog.ViewCommit) (commitNo int64, err error)
	Backlog(ctx context.Context, consumer string) ([]catalog.Backlog, error)
	ClaimBacklog(ctx context.Context, consumer, owner string, ttl time.Duration) (catalog.Backlog, bool, error)
	RenewBacklog(ctx context.Context, b catalog.Backlog, ttl time.Duration) (catalog.Backlog, error)
	ReleaseBacklog(ctx context.Context, b catalog.Backlog) error
	EventRange(ctx context.Context, s catalog.ShardID, after, to uint64) (begin, end int64, err error)
	Skips(ctx context.Context, s catalog.ShardID, after, to uint64) ([]catalog.Skip, error)
	Parked(ctx context.Context, consumer string, f catalog.ParkedFilter) ([]catalog.Parked, error)
	Processes(ctx context.Context, ids []telemetry.ID) ([]catalog.ProcessRow, error)
	Streams(ctx context.Context, ids []telemetry.ID) ([]catalog.StreamRow, error)
	CommitNo(ctx context.Context) (int64, error)
	Partitions(ctx context.Context, sinceCommit int64) (catalog.PartitionDelta, error)
	PacksAfter(ctx context.Context, s catalog.ShardID, seq uint64, limit int) ([]catalog.Pack, error)
}

// Objects is the part of lake.Lake that files go through.
type Objects interface {
	Put(ctx context.Context, key string, data []byte) error
	Get(ctx context.Context, key string) ([]byte, error)
}

var (
	_ Catalog = catalog.Catalog(nil)
	_ Objects = (*lake.Lake)(nil)
)
