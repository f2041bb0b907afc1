package bus

import (
	"errors"
	"fmt"
	"time"
)

// Limits that are part of the format rather than of a configuration.
const (
	// MaxShards bounds the shards of a class.
	MaxShards = 256
	// payloadSlack is what a frame leaves of the server's max_payload, for headers.
	payloadSlack = 8 << 10
	// minFrame is the smallest MaxFrame that makes sense: one record with a claim key.
	minFrame = 4 << 10
)

// Config bounds what the bus holds and how long it waits.
type Config struct {
	ShardsPerClass int // streams of each class; the same in every process, and for good
	// Replicas is how many copies each stream has. 0: three where the servers can keep three, which takes a cluster of three
	// with JetStream, else one; a stream that has more keeps them. While one of the three was never heard from a stream that is
	// made gets two copies, and the third when the server comes.
	Replicas int

	// Catalog is the id of the catalog that positions are kept in. A stream is of one catalog; one of another is refused.
	// Empty: whose a stream is, is not looked at.
	Catalog string

	MaxFrame       int           // bytes of a frame; lowered to the server's max_payload − 8 KiB
	MaxWaiting     int           // records that wait for a shard's committer; more wait outside, without order
	PublishTimeout time.Duration // from a frame's first try to its synced acknowledgement, retries included

	MaxBytes          int64 // of all streams together; a full stream refuses, it never drops
	KeepArchivedBytes int64 // of all streams together: what Trim leaves for late readers
	ReadAhead         int   // bytes that a Reader may hold before they are asked for

	DeadLetterBytes int64 // of the dead-letter stream; the oldest go first
	DeadLetterMsgs  int64

	MaxFlushes      int // flush requests that one ServeFlush handles at once
	MaxMaterializes int // requests for just-in-time views that one ServeMaterialize handles at once
}

// DefaultConfig is right for one process, and but for ShardsPerClass for many.
func DefaultConfig() Config {
	return Config{
		ShardsPerClass:    1,
		MaxFrame:          1 << 20,
		MaxWaiting:        4096,
		PublishTimeout:    5 * time.Second,
		MaxBytes:          2 << 30,
		KeepArchivedBytes: 256 << 20,
		ReadAhead:         8 << 20,
		DeadLetterBytes:   64 << 20,
		DeadLetterMsgs:    100_000,
		MaxFlushes:        64,
		MaxMaterializes:   64,
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("bus: "+format, args...))
		}
	}
	check(c.ShardsPerClass >= 1 && c.ShardsPerClass <= MaxShards, "shards per class %d is not in 1..%d", c.ShardsPerClass, MaxShards)
	check(c.Replicas >= 0 && c.Replicas <= 5, "replicas %d is not in 0..5", c.Replicas)
	check(c.MaxFrame >= minFrame && c.MaxFrame <= 64<<20, "max frame %d is not in %d..%d", c.MaxFrame, minFrame, 64<<20)
	check(c.MaxWaiting >= 1, "max waiting %d is not positive", c.MaxWaiting)
	check(c.PublishTimeout >= 10*time.Millisecond, "publish timeout %v is below 10ms", c.PublishTimeout)
	check(c.MaxBytes >= int64(c.MaxFrame)*int64(len(classes)*max(c.ShardsPerClass, 1)), "max bytes %d holds less than a frame a stream", c.MaxBytes)
	check(c.KeepArchivedBytes >= 0 && c.KeepArchivedBytes < c.MaxBytes, "keep archived bytes %d is not in 0..max bytes", c.KeepArchivedBytes)
	check(c.ReadAhead >= 2*c.MaxFrame, "read ahead %d is below two frames", c.ReadAhead)
	check(c.DeadLetterBytes >= 1<<20, "dead letter bytes %d is below 1 MiB", c.DeadLetterBytes)
	check(c.DeadLetterMsgs >= 1, "dead letter messages %d is not positive", c.DeadLetterMsgs)
	check(c.MaxFlushes >= 1, "max flushes %d is not positive", c.MaxFlushes)
	check(c.MaxMaterializes >= 1, "max materializes %d is not positive", c.MaxMaterializes)
	return errors.Join(errs...)
}
