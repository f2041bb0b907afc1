package materializers

import (
	"errors"
	"fmt"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Config bounds what owners hold and how often they commit.
type Config struct {
	CommitRows  int           // rows of all views at which a batch is committed
	CommitBytes int           // memory of a batch, or bytes read for it, at which it is committed
	CommitAge   time.Duration // age of the oldest block of a batch at which it is committed
	DeadAge     time.Duration // age at which a batch with dead letters and no rows is committed
	FlushPause  time.Duration // from one commit to the next when queries wait

	RowGroupRows int // rows of a row group in files that a commit writes
	MaxBlockRows int // rows of one block; more make it a dead letter
	MaxBuckets   int // buckets of time in one commit and view; rows of further ones go to the overflow file

	MaxProcesses, MaxStreams, MaxDecoders int           // entries of the caches of registrations and layouts
	MaxLayoutBytes                        int           // layouts of the streams in the cache, encoded; streams that have the same count once
	MaxWaitingBytes                       int           // bodies of a batch that wait in memory for a registration; others are read from packs
	MaxParked                             int           // parked copies of a shard that are tracked in memory
	ParkedDead                            time.Duration // age at which a parked copy also counts as a dead letter
	Recheck                               time.Duration // between looks at the catalog for registrations of parked copies
	SeenBlocks                            int           // blocks remembered to foresee duplicates

	BacklogLag     time.Duration // age of the oldest unread record from which a shard is behind
	BacklogBytes   int64         // unread frames, by their average size, from which a shard is behind; less is read in order within a second or two
	BacklogFrames  uint64        // frames below the head that are read in order; a shard with less than two times so many unread is never behind
	BacklogRange   uint64        // frames of one range of the backlog, which one worker builds at a time
	BacklogRanges  uint64        // ranges opened at once; longer ones are made rather than more
	BacklogWorkers int           // workers of this process; each holds a batch, and leaves the other cores to fresh data
	BacklogEvery   time.Duration // between looks of an idle worker for ranges

	MergeFiles        int           // files of one level of a bucket that are merged
	MergeGrace        time.Duration // after a bucket's end until it counts as closed
	MergeEvery        time.Duration // between looks for closed buckets
	MergeRowGroupRows int           // rows of a row group in merged files
	MergeBytes        int64         // size of a file that is not merged any more, and at which a merged file ends
	MergeMemory       int           // memory of one row group while merging; each input and the output hold one

	Limits wire.Limits // of one block

	// Keeper holds the leases of all parts of this process. Nil: the materializers have one of their own, under the owner's
	// name.
	Keeper *ownership.Keeper
}

// DefaultConfig is right for one process.
func DefaultConfig() Config {
	return Config{
		CommitRows: 256 << 10, CommitBytes: 64 << 20, CommitAge: 10 * time.Second, DeadAge: 500 * time.Millisecond, FlushPause: 100 * time.Millisecond,
		RowGroupRows: 120_000, MaxBlockRows: 4 << 20, MaxBuckets: 96,
		MaxProcesses: 16 << 10, MaxStreams: 64 << 10, MaxDecoders: 64, MaxLayoutBytes: 32 << 20, MaxWaitingBytes: 8 << 20, MaxParked: 100_000,
		ParkedDead: time.Hour, Recheck: 10 * time.Second, SeenBlocks: 64 << 10,
		BacklogLag: 30 * time.Second, BacklogBytes: 32 << 20, BacklogFrames: 16, BacklogRange: 4096, BacklogRanges: 64, BacklogWorkers: 1, BacklogEvery: time.Second,
		MergeFiles: 8, MergeGrace: 2 * time.Minute, MergeEvery: 5 * time.Second, MergeRowGroupRows: 120_000,
		MergeBytes: 64 << 20, MergeMemory: 16 << 20,
		Limits: wire.DefaultLimits,
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"commit rows", int64(c.CommitRows)},
		{"commit bytes", int64(c.CommitBytes)},
		{"commit age", int64(c.CommitAge)},
		{"dead age", int64(c.DeadAge)},
		{"backlog lag", int64(c.BacklogLag)},
		{"backlog range", int64(c.BacklogRange)},
		{"backlog ranges", int64(c.BacklogRanges)},
		{"backlog workers", int64(c.BacklogWorkers)},
		{"backlog every", int64(c.BacklogEvery)},
		{"flush pause", int64(c.FlushPause)},
		{"row group rows", int64(c.RowGroupRows)},
		{"max block rows", int64(c.MaxBlockRows)},
		{"max buckets", int64(c.MaxBuckets)},
		{"max processes", int64(c.MaxProcesses)},
		{"max streams", int64(c.MaxStreams)},
		{"max decoders", int64(c.MaxDecoders)},
		{"max layout bytes", int64(c.MaxLayoutBytes)},
		{"max waiting bytes", int64(c.MaxWaitingBytes)},
		{"max parked", int64(c.MaxParked)},
		{"parked dead", int64(c.ParkedDead)},
		{"recheck", int64(c.Recheck)},
		{"seen blocks", int64(c.SeenBlocks)},
		{"merge every", int64(c.MergeEvery)},
		{"merge row group rows", int64(c.MergeRowGroupRows)},
		{"merge bytes", c.MergeBytes},
		{"merge memory", int64(c.MergeMemory)},
	} {
		if v.value <= 0 {
			errs = append(errs, fmt.Errorf("materializers: %s is %d, must be positive", v.name, v.value))
		}
	}
	if c.MergeFiles < 2 {
		errs = append(errs, fmt.Errorf("materializers: merge files is %d, must be 2 or more", c.MergeFiles))
	}
	return errors.Join(errs...)
}
