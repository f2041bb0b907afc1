package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Bounds of the service.
const (
	// DefaultTimeout is the longest that a query may run, from its arrival to its last batch.
	DefaultTimeout = 60 * time.Second
	// DefaultFreshenTimeout is how long a query waits for owners to commit; a silent one costs a warning. It is longer
	// than a lease lives without its owner (3 s, and 0.3 s until another looks), so that a query after the death of an owner
	// sees what was acknowledged before, and short enough that no query waits more than 5 s.
	DefaultFreshenTimeout = 4700 * time.Millisecond
	// DefaultStatements is the number of rewritten statements that are kept.
	DefaultStatements = 512
	// DefaultFleetBlocks is how many blocks a statement over the spans of many threads may have decoded: at some 10 000 events a block and
	// 5 million events a second, 8 s of one core.
	DefaultFleetBlocks = 4096
	// DefaultFleetStreams is how many threads such a statement may read: each costs some requests, and a file an hour.
	DefaultFleetStreams = 2000
)

// Config bounds the service.
type Config struct {
	// CacheDir is a folder of the service's own. What is in it from an earlier run is removed. The engine must be
	// allowed to read it.
	CacheDir string

	Timeout        time.Duration // of a query
	FreshenTimeout time.Duration // of asking owners to commit
	Statements     int           // rewritten statements kept

	FleetBlocks  int64 // decoded for one statement over the spans of many threads
	FleetStreams int   // threads that one such statement reads
}

// DefaultConfig bounds a service. The caller has to name a CacheDir.
func DefaultConfig() Config {
	return Config{
		Timeout:        DefaultTimeout,
		FreshenTimeout: DefaultFreshenTimeout,
		Statements:     DefaultStatements,
		FleetBlocks:    DefaultFleetBlocks,
		FleetStreams:   DefaultFleetStreams,
	}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.CacheDir) {
		errs = append(errs, fmt.Errorf("query: cache folder %q is not an absolute path", c.CacheDir))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("query: timeout %s is not positive", c.Timeout))
	}
	if c.FreshenTimeout <= 0 {
		errs = append(errs, fmt.Errorf("query: freshen timeout %s is not positive", c.FreshenTimeout))
	}
	if c.Statements < 0 {
		errs = append(errs, fmt.Errorf("query: %d kept statements is negative", c.Statements))
	}
	if c.FleetBlocks <= 0 || c.FleetStreams <= 0 {
		errs = append(errs, fmt.Errorf("query: %d blocks of %d threads for a statement over many threads must be positive", c.FleetBlocks, c.FleetStreams))
	}
	return errors.Join(errs...)
}

// Catalog is the part of the catalog that the service reads.
type Catalog interface {
	Processes(ctx context.Context, ids []telemetry.ID) ([]catalog.ProcessRow, error)
	Streams(ctx context.Context, ids []telemetry.ID) ([]catalog.StreamRow, error)
	ProcessesAfter(ctx context.Context, no int64, limit int) ([]catalog.ProcessRow, error)
	StreamsAfter(ctx context.Context, no int64, limit int) ([]catalog.StreamRow, error)
	ChangedProcesses(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error)
	ChangedStreams(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error)
	BlocksSince(ctx context.Context, after map[catalog.ShardID]uint64, limit int) ([]catalog.BlockRow, map[catalog.ShardID]uint64, error)
	ArchivePositions(ctx context.Context) (map[catalog.ShardID]uint64, error)
	Partitions(ctx context.Context, sinceCommit int64) (catalog.PartitionDelta, error)
	Freezes(ctx context.Context, after int64) ([]catalog.Freeze, error)
	ProcessStreams(ctx context.Context, processes []telemetry.ID) ([]catalog.StreamRow, error)
	AllInstancePartitions(ctx context.Context, limit int) ([]catalog.Partition, error)
	StreamBlocks(ctx context.Context, stream telemetry.ID, q catalog.BlockQuery) ([]catalog.BlockRow, error)
	Frozen(ctx context.Context, begin, end int64) (catalog.Frozen, error)
}

// Files is the part of the lake that the service reads.
type Files interface {
	// LocalPaths must return paths that the engine may open, in the order of the files, and that live as long as the partitions'
	// rows, or for longer than a query may run.
	LocalPaths(ctx context.Context, files []lake.Ref) ([]string, error)
	// GetRange must return n bytes of an object from off.
	GetRange(ctx context.Context, key string, off, n int64) ([]byte, error)
}

// Flusher is the part of the bus that the service asks: to commit, and to build just-in-time views.
type Flusher interface {
	Shards() []bus.Shard
	ShardOf(class bus.Class, processID telemetry.ID) bus.Shard
	Flush(ctx context.Context, s bus.Shard, req bus.FlushRequest) (bus.FlushReply, error)
	Materialize(ctx context.Context, req bus.MaterializeRequest, progress func(bus.MaterializeProgress)) (bus.MaterializeReply, error)
}

// Traces is the index of blocks by the traces that their envelopes name.
type Traces interface {
	// TraceBlocks returns the blocks that may have events of a trace and were under way in [begin, end]. mayHold says whether the filter of a
	// block, which stands for ids that are too many to name, may hold this one.
	TraceBlocks(ctx context.Context, id [16]byte, begin, end int64, mayHold func(filter []byte) bool) ([]catalog.BlockKey, error)
	// TraceSince returns since when the index is complete: no block is missing whose events all come then or later. 0 = since ever.
	TraceSince(ctx context.Context) (int64, error)
}

// Parts are the handles that a service works with. Bus may be nil: then nothing is asked to commit, and a query sees
// what the catalog has, but for just-in-time views, which nobody builds. Traces may be nil: then nobody finds the spans of a trace.
type Parts struct {
	Catalog Catalog
	Files   Files
	Bus     Flusher
	Traces  Traces
	Engine  *engine.Engine
	Log     *slog.Logger
}
