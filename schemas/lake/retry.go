package lake

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Bounds of an operation on a remote bucket. An attempt that does not end is cut and tried again, so that a connection which hangs
// does not hang the caller; each attempt may take twice as long as the one before, so that a store which is slow rather than
// gone is not asked over and over for what it is about to send.
const (
	// maxAttempts of one operation: where one in ten attempts fails, one operation in a million does.
	maxAttempts = 6
	// attemptTime is what the first attempt of an operation may take beyond the transfer of its bytes.
	attemptTime = 3 * time.Second
	// maxAttemptTime ends the doubling of attemptTime.
	maxAttemptTime = 30 * time.Second
	// slowestTransfer, in bytes a second, is the least that one transfer is expected to get.
	slowestTransfer = 512 << 10
	// retryTime is how long after its beginning, beyond the transfer of its bytes, an operation begins no further attempt.
	retryTime = 60 * time.Second
	// firstBackoff bounds the wait before the second attempt; the bound doubles up to maxBackoff. The waits are random below
	// it, so that many clients do not come back at once.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// RemoteStats counts what a remote bucket was asked, since the start.
type RemoteStats struct {
	Operations int64 `json:"operations"` // a part of a large object counts as one
	Retries    int64 `json:"retries"`    // attempts after an operation's first
	Failures   int64 `json:"failures"`   // operations that failed after all attempts
	// Attempts that failed and were worth trying again, by what was wrong.
	Timeouts    int64 `json:"timeouts"`    // cut by our own clock
	Refused     int64 `json:"refused"`     // 429 and 5xx
	Connections int64 `json:"connections"` // no reply, or half of one
}

// retrier does operations until they succeed, fail for good, or have taken too long. The zero value is ready to use.
type retrier struct {
	operations, retries, failures, timeouts, refused, connections atomic.Int64
}

func (r *retrier) stats() RemoteStats {
	return RemoteStats{
		Operations: r.operations.Load(), Retries: r.retries.Load(), Failures: r.failures.Load(),
		Timeouts: r.timeouts.Load(), Refused: r.refused.Load(), Connections: r.connections.Load(),
	}
}

// transferTime is what size bytes may take.
func transferTime(size int64) time.Duration {
	return time.Duration(float64(max(size, 0)) / slowestTransfer * float64(time.Second))
}

// errTimeout says that an attempt took too long.
var errTimeout = errors.New("no answer in time")

// do makes attempts at an operation that moves size bytes. Read says what the store answered in an error.
func (r *retrier) do(ctx context.Context, size int64, read func(error) reply, attempt func(context.Context) error) error {
	r.operations.Add(1)
	deadline := time.Now().Add(retryTime + transferTime(size))
	for n := 0; ; n++ {
		err := once(ctx, n, size, attempt)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		answer := read(err)
		v := judge(err, answer)
		if v != transient && v != skewed {
			return explain(err, v, answer)
		}
		r.count(err, answer)
		if n+1 == maxAttempts || time.Now().After(deadline) {
			r.failures.Add(1)
			return fmt.Errorf("%d attempts: %w", n+1, explain(err, v, answer))
		}
		r.retries.Add(1)
		if waitErr := pause(ctx, n); waitErr != nil {
			return fmt.Errorf("%w (%w)", waitErr, explain(err, v, answer))
		}
	}
}

// attemptClock cuts an attempt.
type attemptClock struct {
	timer *time.Timer
	begun time.Time
	limit time.Duration // without the transfer
}

type attemptClockKey struct{}

// allow gives the attempt whose context this is the time to move size bytes, once it is known how many they are.
func allow(ctx context.Context, size int64) {
	if c, ok := ctx.Value(attemptClockKey{}).(*attemptClock); ok {
		c.timer.Reset(time.Until(c.begun.Add(c.limit + transferTime(size))))
	}
}

// once makes one attempt, cut when it takes too long.
func once(ctx context.Context, n int, size int64, attempt func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &attemptClock{begun: time.Now(), limit: min(attemptTime<<n, maxAttemptTime)}
	c.timer = time.AfterFunc(c.limit+transferTime(size), func() { cancel(errTimeout) })
	defer c.timer.Stop()
	err := attempt(context.WithValue(ctx, attemptClockKey{}, c))
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("%w: cut after %s (%w)", errTimeout, time.Since(c.begun).Round(time.Millisecond), err)
	}
	return err
}

func (r *retrier) count(err error, answer reply) {
	switch {
	case errors.Is(err, errTimeout):
		r.timeouts.Add(1)
	case answer.status >= 300:
		r.refused.Add(1)
	default:
		r.connections.Add(1)
	}
}

// pause waits before the attempt after attempt n.
func pause(ctx context.Context, n int) error {
	timer := time.NewTimer(rand.N(min(firstBackoff<<n, maxBackoff)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
