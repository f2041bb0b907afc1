package workers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
)

// batch is records of one frame on their way to a consumer, with their indices in the frame.
type batch struct {
	records []bus.Record
	index   []int32
	bytes   int64
}

func (b *batch) add(i int, r bus.Record) {
	b.records = append(b.records, r)
	b.index = append(b.index, int32(i))
	b.bytes += r.BodySize
}

func (b *batch) reset() {
	clear(b.records) // lets go of fetched bodies
	b.records, b.index, b.bytes = b.records[:0], b.index[:0], 0
}

// frame gives a frame's records to the consumer, in batches. It returns an error only when ctx is done.
func (r *runner) frame(ctx context.Context, f bus.Frame) error {
	var b batch
	for i, record := range f.Records() {
		if record.Err != nil { // archive notes it, for everybody
			r.counters.skipped.Add(1)
			continue
		}
		if r.sub.Want != nil && !r.sub.Want(&record) {
			continue
		}
		if len(b.records) > 0 && b.bytes+record.BodySize > int64(r.pool.cfg.BatchBytes) {
			if err := r.batch(ctx, f.Position, &b); err != nil {
				return err
			}
		}
		if b.add(i, record); len(b.records) == r.pool.cfg.BatchRecords {
			if err := r.batch(ctx, f.Position, &b); err != nil {
				return err
			}
		}
	}
	if len(b.records) == 0 {
		return nil
	}
	return r.batch(ctx, f.Position, &b)
}

// batch handles b's records together; if that fails, one by one. b is empty afterwards.
func (r *runner) batch(ctx context.Context, at bus.Position, b *batch) error {
	defer b.reset()
	if len(b.records) > 1 {
		err := r.untilItIsTime(ctx, b.records)
		if err == nil {
			r.counters.handled.Add(int64(len(b.records)))
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.log.Debug("batch failed, its records go one by one", "position", at.String(), "records", len(b.records), "error", err)
	}
	for i := range b.records {
		if err := r.single(ctx, bus.Copy{Position: at, Rec: b.index[i]}, b.records[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// single handles one record, with a bounded number of tries; then it becomes a dead letter.
func (r *runner) single(ctx context.Context, at bus.Copy, record []bus.Record) error {
	pause := r.pool.cfg.RetryMin
	for attempt := 1; ; attempt++ {
		err := r.untilItIsTime(ctx, record)
		if err == nil {
			r.counters.handled.Add(1)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if attempt >= r.pool.cfg.MaxAttempts {
			return r.bury(ctx, at, &record[0], err)
		}
		pause = r.pause(ctx, pause)
	}
}

// untilItIsTime calls Handle, again and again while it answers ErrNotNow.
func (r *runner) untilItIsTime(ctx context.Context, records []bus.Record) error {
	pause := r.pool.cfg.RetryMin
	for {
		err := r.call(ctx, records)
		if !errors.Is(err, ErrNotNow) || ctx.Err() != nil {
			return err
		}
		r.log.Warn("consumer is not ready", "error", err, "next_try_in", pause)
		pause = r.pause(ctx, pause)
	}
}

// bury makes a record a dead letter, which must be durable before the record is passed.
func (r *runner) bury(ctx context.Context, at bus.Copy, record *bus.Record, cause error) error {
	letter := bus.DeadLetter{
		Copy: at, BlockID: record.BlockID, StreamID: record.StreamID, ProcessID: record.ProcessID,
		View: r.consumer, Reason: "consumer failed: " + cause.Error(),
	}
	r.log.Warn("record becomes a dead letter", "position", at.String(), "record", at.Rec, "block_id", record.BlockID.String(), "error", cause)
	pause := r.pool.cfg.RetryMin
	for {
		err := r.pool.bus.DeadLetter(ctx, letter)
		if err == nil {
			r.counters.dead.Add(1)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause = r.pause(ctx, pause)
	}
}

// pause waits d or until ctx is done, and returns the next pause.
func (r *runner) pause(ctx context.Context, d time.Duration) time.Duration {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return min(2*d, r.pool.cfg.RetryMax)
}

// call calls Handle once, within the pool's bound of calls at once, after fetching claimed bodies.
func (r *runner) call(ctx context.Context, records []bus.Record) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case r.pool.handlers <- struct{}{}:
		defer func() { <-r.pool.handlers }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := r.callContext(ctx)
	defer cancel()
	if err := r.loadBodies(ctx, records); err != nil {
		return err
	}
	if err := handle(ctx, r.sub.Consumer, records); err != nil {
		r.counters.failed.Add(1)
		return err
	}
	return nil
}

// callContext ends at the call's timeout, at once when the lease is lost, and within Grace when the pool stops.
func (r *runner) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.pool.cfg.HandleTimeout)
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ownership.ErrLost) {
			cancel()
			return
		}
		timer := time.AfterFunc(r.pool.cfg.Grace, cancel)
		context.AfterFunc(call, func() { timer.Stop() })
	})
	return call, func() {
		stop()
		cancel()
	}
}

// loadBodies fetches claimed bodies.
func (r *runner) loadBodies(ctx context.Context, records []bus.Record) error {
	for i := range records {
		record := &records[i]
		if record.Claim == "" || record.Body != nil {
			continue
		}
		body, err := r.pool.bus.LoadBody(ctx, record)
		if err != nil {
			return err
		}
		record.Body = body
	}
	return nil
}

// handle calls the consumer; its panic is an error like any other.
func handle(ctx context.Context, c Consumer, records []bus.Record) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.Handle(ctx, records)
}
