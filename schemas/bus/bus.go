package bus

import (
	"context"
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

var errSkeleton = errors.New("bus: under construction")

// Bus publishes and reads records.
type Bus struct{}

// Open makes or checks the streams.
func Open(ctx context.Context, nc *nats.Conn, store GenerationStore, objects ObjectStore, cfg Config, log *slog.Logger) (*Bus, error) {
	return nil, errSkeleton
}

// Close ends the Bus' goroutines; the connection is the caller's.
func (b *Bus) Close() error { return errSkeleton }

// Shards returns every shard of every class.
func (b *Bus) Shards() []Shard { return nil }

// ShardOf returns the shard of a process.
func (b *Bus) ShardOf(class Class, processID telemetry.ID) Shard { return Shard{} }

// Current returns the shard's open generation.
func (b *Bus) Current(s Shard) Generation { return Generation{} }

// Generations returns all generations of a shard, oldest first.
func (b *Bus) Generations(s Shard) []Generation { return nil }

// Publish returns nil after r is durable.
func (b *Bus) Publish(ctx context.Context, class Class, r *Record) error { return errSkeleton }

// LoadBody returns the record's body, from the object store when it is claimed.
func (b *Bus) LoadBody(ctx context.Context, r *Record) ([]byte, error) { return nil, errSkeleton }

// Head returns the last position.
func (b *Bus) Head(ctx context.Context, s Shard) (Position, error) { return Position{}, errSkeleton }

// Reader reads a generation's frames in order.
type Reader struct{}

// NewReader starts behind a position.
func (b *Bus) NewReader(ctx context.Context, after Position, packs PackSource) (*Reader, error) {
	return nil, errSkeleton
}

// Next returns the next frame.
func (r *Reader) Next(ctx context.Context) (Frame, error) { return Frame{}, errSkeleton }

// Close releases the reader.
func (r *Reader) Close() error { return errSkeleton }

// Trim purges what may go.
func (b *Bus) Trim(ctx context.Context, archived Position) error { return errSkeleton }

// Targets of Flush.
const (
	TargetArchive = "archive"
	TargetViews   = "views"
)

// FlushRequest asks the owner of a shard to bring its part up to date.
type FlushRequest struct {
	Target  string       `json:"target"`
	Views   []string     `json:"views,omitempty"` // views: which; empty = all
	Begin   int64        `json:"begin,omitempty"` // event time, nanoseconds; 0,0 = all
	End     int64        `json:"end,omitempty"`   //
	Process telemetry.ID `json:"process"`         // zero = all
	UpTo    uint64       `json:"up_to,omitempty"` // archive: wait for this sequence; 0 = the head
	Gen     int32        `json:"gen"`             // of UpTo
}

// FlushReply is the owner's answer.
type FlushReply struct {
	Shard
	Gen      int32
	Seq      uint64
	CommitNo int64
	Parked   int
	Backlog  bool
	Err      string
}

// Flush asks the owner of a shard.
func (b *Bus) Flush(ctx context.Context, s Shard, req FlushRequest) (FlushReply, error) {
	return FlushReply{}, errSkeleton
}

// ServeFlush answers Flush.
func (b *Bus) ServeFlush(target string, s Shard, h func(context.Context, FlushRequest) FlushReply) (stop func(), err error) {
	return nil, errSkeleton
}

// DeadLetter is a record that could not be used.
type DeadLetter struct {
	Copy
	BlockID, StreamID, ProcessID telemetry.ID
	View, Reason                 string
	Time                         int64
}

// DeadLetter publishes d.
func (b *Bus) DeadLetter(ctx context.Context, d DeadLetter) error { return errSkeleton }

// ReadDeadLetters returns the newest max.
func (b *Bus) ReadDeadLetters(ctx context.Context, max int) ([]DeadLetter, error) {
	return nil, errSkeleton
}

// DeadLetterCounts counts by reason.
func (b *Bus) DeadLetterCounts() map[string]int64 { return nil }

// ShardStats is one shard's figures.
type ShardStats struct {
	Shard
	Gen               int32
	Bytes, Messages   int64
	FirstSeq, LastSeq uint64
	Frames, Records   int64 // published by this process
	Errors            int64 // publishes that failed in this process
}

// Stats returns every shard's figures.
func (b *Bus) Stats(ctx context.Context) ([]ShardStats, error) { return nil, errSkeleton }
