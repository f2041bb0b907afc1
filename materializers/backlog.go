package materializers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// worker builds ranges of the backlog, one at a time, in chunks as large as an owner's commit. It reads packs, since archive has
// passed what it builds, and takes nothing from memory of before: a chunk needs its range's claim only.
type worker struct {
	builder
	owner string
}

// workBacklog claims and builds ranges of any shard until ctx ends.
func (m *Materializers) workBacklog(ctx context.Context, owner string) error {
	b, err := newBuilder(m)
	if err != nil {
		return err
	}
	b.at, b.writers, b.yield = "chunk ", 1, m.priority.yield
	for _, f := range b.files {
		f.yield = func() { m.priority.yield(ctx) }
	}
	w := &worker{builder: b, owner: owner}
	pause := m.ownership.RetryMin
	for ctx.Err() == nil {
		worked, err := w.round(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			m.stats.update(func(s *Stats) { s.BacklogFailures++ })
			m.log.Warn("backlog range not built, it is tried again", "worker", owner, "err", err)
			w.wait(ctx, nil, pause)
			pause = min(2*pause, m.ownership.RetryMax)
		case worked:
			pause = m.ownership.RetryMin
		default:
			w.wait(ctx, m.work, m.cfg.BacklogEvery)
		}
	}
	return nil
}

func (w *worker) wait(ctx context.Context, nudge <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-nudge:
	case <-timer.C:
	}
}

// nudgeWorkers tells the workers of this process that there are ranges to build.
func (m *Materializers) nudgeWorkers() {
	for range cap(m.work) {
		select {
		case m.work <- struct{}{}:
		default:
		}
	}
}

// round builds one range, if there is one to claim.
func (w *worker) round(ctx context.Context) (worked bool, err error) {
	open, err := w.m.catalog.Backlog(ctx, catalog.ConsumerViews) // reading is cheaper than a claim in vain
	if err != nil || len(open) == 0 {
		return false, err
	}
	claim, ok, err := w.m.catalog.ClaimBacklog(ctx, catalog.ConsumerViews, w.owner, w.m.ownership.Expiry)
	if err != nil || !ok {
		return false, err
	}
	if err := w.m.step("claimed"); err != nil {
		return true, err
	}
	w.shard, w.gen = bus.Shard{Class: bus.Class(claim.Shard.Class), Shard: claim.Shard.Shard}, claim.Shard.Gen
	w.log = w.m.log.With("shard", w.shard.String(), "range", claim.RangeNo)
	err = w.hold(ctx, claim)
	if ctx.Err() != nil {
		w.release(ctx, claim)
	}
	if errors.Is(err, catalog.ErrConflict) || errors.Is(err, ownership.ErrLost) {
		w.log.Info("backlog range went to another worker", "err", err)
		return true, nil
	}
	return true, err // the claim of a range that failed expires: other ranges come first
}

func (w *worker) release(ctx context.Context, claim catalog.Backlog) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.m.ownership.ReleaseTimeout)
	defer cancel()
	if err := w.m.catalog.ReleaseBacklog(ctx, claim); err != nil && !errors.Is(err, catalog.ErrLeaseLost) {
		w.log.Warn("backlog range not released; its claim expires", "err", err)
	}
}

// hold builds a range while its claim is renewed.
func (w *worker) hold(ctx context.Context, claim catalog.Backlog) error {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.renew(ctx, claim, cancel)
	}()
	defer func() {
		cancel(nil)
		<-done
	}()
	for first := claim.FirstSeq; first <= claim.LastSeq; {
		to, err := w.chunk(ctx, &claim, first)
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, ownership.ErrLost) {
				return cause
			}
			return err
		}
		first = to + 1
	}
	return nil
}

// renew keeps the claim until ctx ends. A worker without one could only lose: it stops.
func (w *worker) renew(ctx context.Context, claim catalog.Backlog, lose context.CancelCauseFunc) {
	ticker := time.NewTicker(w.m.ownership.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		_, err := w.m.catalog.RenewBacklog(ctx, claim, w.m.ownership.Expiry)
		if errors.Is(err, catalog.ErrLeaseLost) { // or the last chunk is committed
			lose(ownership.ErrLost)
			return
		}
	}
}

// chunk builds and commits the positions from first on until the batch is full, or the range ends, and returns the last one.
func (w *worker) chunk(ctx context.Context, claim *catalog.Backlog, first uint64) (to uint64, err error) {
	begun := time.Now()
	w.batch.reset()
	clear(w.registry.absent) // registered since
	if to, err = w.fill(ctx, claim, first); err != nil {
		return 0, err
	}
	files, err := w.writeFiles(ctx)
	if err != nil {
		return 0, err
	}
	if err := w.tellDead(ctx); err != nil {
		return 0, err
	}
	c := &catalog.ViewCommit{
		Consumer: catalog.ConsumerViews, ObjectsSince: begun.UnixNano(),
		Chunk: &catalog.Chunk{RangeNo: claim.RangeNo, From: first, To: to, Epoch: claim.Epoch},
	}
	for i := range files {
		c.Added = append(c.Added, files[i].Partition)
	}
	w.rest(c)
	if err := w.m.step("chunk before commit"); err != nil {
		return 0, err
	}
	if _, err := w.m.catalog.CommitView(ctx, c); err != nil {
		return 0, fmt.Errorf("commit chunk of %s from %d to %d: %w", claim.Shard, first, to, err)
	}
	if err := w.m.step("chunk after commit"); err != nil {
		return 0, err
	}
	rows := w.batch.rowCount()
	w.m.stats.update(func(s *Stats) {
		s.BacklogChunks++
		s.BacklogRows += int64(rows)
	})
	w.log.Debug("chunk of the backlog built", "from", first, "to", to, "rows", rows, "files", len(c.Added), "parked", len(c.ParkedAdded), "took", time.Since(begun))
	w.registry.trim()
	if len(c.Added) > 0 {
		w.m.nudgeMerger()
	}
	return to, nil
}

// fill reads packs into the batch, from first on, until it is full or the range ends. It returns the last position.
func (w *worker) fill(ctx context.Context, claim *catalog.Backlog, first uint64) (uint64, error) {
	for at := first - 1; ; {
		frames, err := w.m.packs.NextFrames(ctx, bus.Position{Shard: w.shard, Gen: w.gen, Seq: at})
		if err != nil {
			return 0, fmt.Errorf("read packs after %d: %w", at, err)
		}
		// Positions without a pack are lost: archive passed them without a frame, and said so.
		if len(frames) == 0 || frames[0].Seq > claim.LastSeq {
			return claim.LastSeq, nil
		}
		rows, err := w.m.catalog.Skips(ctx, claim.Shard, at, min(frames[len(frames)-1].Seq, claim.LastSeq))
		if err != nil {
			return 0, fmt.Errorf("read skips: %w", err)
		}
		skips := skipsOf(rows)
		for _, f := range frames {
			if f.Seq > claim.LastSeq {
				return claim.LastSeq, nil
			}
			if err := w.addFrame(ctx, f, skips); err != nil {
				return 0, err
			}
			at = f.Seq
			if at == claim.LastSeq || w.batch.full(w.m.cfg) {
				return at, nil
			}
		}
	}
}

// addFrame builds the blocks of a frame that count.
func (w *worker) addFrame(ctx context.Context, f bus.Frame, skips skipSet) error {
	w.batch.bytesRead += len(f.Data)
	for i, record := range f.Records() {
		at := place{f.Seq, int32(i)}
		if _, ok := skips[at]; ok {
			continue
		}
		w.yield(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.addRecord(ctx, at, record); err != nil {
			return err
		}
	}
	return nil
}

// addRecord builds a block. Registrations are in the catalog; here they only need to be sound.
func (w *worker) addRecord(ctx context.Context, at place, record bus.Record) error {
	in := &input{place: at, record: record}
	switch {
	case record.Err != nil:
		w.bury(in, "", "unreadable: "+reasonOf(record.Err))
		return nil
	case record.Kind != bus.KindBlock && record.Claim != "":
		return nil // archive has read it: there is no skip
	case record.Kind == bus.KindProcess:
		if _, err := wire.DecodeProcess(record.Body); err != nil {
			w.bury(in, "", "registration: "+reasonOf(err))
		}
		return nil
	case record.Kind == bus.KindStream:
		if _, err := wire.DecodeStream(record.Body); err != nil {
			w.bury(in, "", "registration: "+reasonOf(err))
		}
		return nil
	case record.Kind != bus.KindBlock || record.Tag != 0 && !record.Tag.Eager():
		return nil
	}
	if err := w.load(ctx, &in.record); lost(err) {
		w.buryLost(in, err)
		return nil
	} else if err != nil {
		return err
	}
	done, err := w.build(ctx, in)
	if err == nil && !done {
		in.record.Body = nil
		w.batch.waiting = append(w.batch.waiting, waiting{place: at, record: in.record})
	}
	return err
}
