package materializers

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// commit makes the batch exist, up to the last frame read, and starts a new one. After an error the owner must stop: whether the
// commit stands is for the checkpoint to say.
func (o *owner) commit(ctx context.Context) error {
	if o.read == o.committed && len(o.batch.segments)+len(o.batch.dead) == 0 {
		o.batch.reset()
		return nil
	}
	begun := time.Now()
	files, err := o.writeWhileArchiving(ctx)
	if err != nil {
		return err
	}
	if files, err = o.settle(ctx, files); err != nil {
		return err
	}
	if err := o.tellDead(ctx); err != nil {
		return err
	}
	if err := o.m.step("before commit"); err != nil {
		return err
	}
	c := o.viewCommit(files, begun)
	commitNo, err := o.m.catalog.CommitView(ctx, c)
	if err != nil {
		return fmt.Errorf("commit %s to %d: %w", o.shardID(o.gen), o.read, err)
	}
	if err := o.m.step("after commit"); err != nil {
		return err
	}
	o.commitNo = max(o.commitNo, commitNo)
	o.finish(c, time.Since(begun))
	return nil
}

// writeWhileArchiving makes the batch's files and asks archive to pass the batch, at the same time.
func (o *owner) writeWhileArchiving(ctx context.Context) ([]built, error) {
	var files []built
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.waitArchive(gctx) })
	g.Go(func() (err error) {
		files, err = o.writeFiles(gctx)
		return err
	})
	err := g.Wait()
	return files, err
}

// writeFiles makes and puts the files of all views, a goroutine each.
func (o *owner) writeFiles(ctx context.Context) ([]built, error) {
	if err := o.m.step("before put"); err != nil {
		return nil, err
	}
	byView := make([][]built, len(o.files))
	g, gctx := errgroup.WithContext(ctx)
	for view, f := range o.files {
		if o.batch.rows[view].Len() == 0 {
			continue
		}
		g.Go(func() (err error) {
			if byView[view], err = f.make(o.batch.rows[view], view, o.batch.segments, o.m.cfg); err != nil {
				return err
			}
			return putFiles(gctx, o.m.objects, byView[view])
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := o.m.step("after put"); err != nil {
		return nil, err
	}
	var files []built
	for _, more := range byView {
		files = append(files, more...)
	}
	return files, nil
}

// Pauses between questions to an archive that has no owner or does not answer.
const (
	archivePauseMin = 20 * time.Millisecond
	archivePauseMax = time.Second
	archiveTimeout  = 5 * time.Second
)

// waitArchive returns when archive has passed the batch. M never passes A, so without archive the views wait.
func (o *owner) waitArchive(ctx context.Context) error {
	for pause := archivePauseMin; ; pause = min(2*pause, archivePauseMax) {
		askCtx, cancel := context.WithTimeout(ctx, archiveTimeout)
		reply, err := o.m.bus.Flush(askCtx, o.shard, bus.FlushRequest{Target: bus.TargetArchive, Gen: o.gen, UpTo: o.read})
		cancel()
		if err == nil && reply.Err == "" && (reply.Gen > o.gen || reply.Gen == o.gen && reply.Seq >= o.read) {
			return nil
		}
		at, err := o.m.catalog.Checkpoint(ctx, catalog.ConsumerArchive, o.shardID(o.gen))
		if err == nil && at.Seq >= o.read {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for archive: %w", ctx.Err())
		case <-timer.C:
		}
	}
}

// settle applies archive's verdicts, and writes the files anew where rows must go.
func (o *owner) settle(ctx context.Context, files []built) ([]built, error) {
	skips, err := o.m.catalog.Skips(ctx, o.shardID(o.gen), o.committed, o.read)
	if err != nil {
		return nil, fmt.Errorf("read skips: %w", err)
	}
	changed, err := o.batch.apply(skipsOf(skips))
	if err != nil {
		return nil, err
	}
	if !changed {
		return files, nil
	}
	o.log.Debug("duplicates left out of files that were written", "skips", len(skips))
	return o.writeFiles(ctx)
}

// tellDead sends the dead letters of the batch. A crash before the commit sends them again; the bus knows them by their place.
func (o *owner) tellDead(ctx context.Context) error {
	for i := range o.batch.dead {
		d := &o.batch.dead[i]
		if d.told {
			continue
		}
		gen := o.gen
		if d.parked != nil {
			gen = d.parked.Shard.Gen
		}
		err := o.m.bus.DeadLetter(ctx, bus.DeadLetter{
			Copy:    bus.Copy{Position: bus.Position{Shard: o.shard, Gen: gen, Seq: d.seq}, Rec: d.rec},
			BlockID: d.record.BlockID, StreamID: d.record.StreamID, ProcessID: d.record.ProcessID, View: d.view, Reason: d.reason,
		})
		if err != nil {
			return fmt.Errorf("send dead letter of block %s: %w", d.record.BlockID, err)
		}
		d.told = true
		o.log.Warn("block is dead", "block_id", d.record.BlockID.String(), "stream_id", d.record.StreamID.String(), "view", d.view, "reason", d.reason)
	}
	return nil
}

// viewCommit states what the batch changes.
func (o *owner) viewCommit(files []built, begun time.Time) *catalog.ViewCommit {
	shard := o.shardID(o.gen)
	c := &catalog.ViewCommit{
		Consumer: catalog.ConsumerViews, ObjectsSince: begun.UnixNano(),
		Moves: []catalog.Move{{Shard: shard, From: o.committed, To: o.read, Epoch: o.epoch}},
	}
	for i := range files {
		c.Added = append(c.Added, files[i].Partition)
	}
	now := time.Now().UnixNano()
	for i := range o.batch.waiting {
		w := &o.batch.waiting[i]
		c.ParkedAdded = append(c.ParkedAdded, catalog.Parked{
			Shard: shard, Seq: w.seq, Rec: w.rec, StreamID: w.record.StreamID, ProcessID: w.record.ProcessID, Since: now,
		})
	}
	for i := range o.batch.dead {
		d := &o.batch.dead[i]
		p := catalog.Parked{
			Shard: shard, Seq: d.seq, Rec: d.rec, StreamID: d.record.StreamID, ProcessID: d.record.ProcessID, Since: now,
		}
		if d.parked != nil {
			p = d.parked.Parked
		}
		p.Dead, p.Reason = true, d.reason
		c.ParkedAdded = append(c.ParkedAdded, p)
	}
	for i := range o.batch.segments {
		if p := o.batch.segments[i].parked; p != nil {
			c.ParkedDone = append(c.ParkedDone, p.Parked)
		}
	}
	return c
}

// finish takes over what the commit changed, and starts a new batch.
func (o *owner) finish(c *catalog.ViewCommit, took time.Duration) {
	for i := range o.batch.segments {
		if p := o.batch.segments[i].parked; p != nil {
			o.parked.remove(p)
		}
	}
	for i := range o.batch.dead {
		if p := o.batch.dead[i].parked; p != nil {
			o.parked.remove(p)
		}
	}
	for i := range o.batch.waiting {
		w := &o.batch.waiting[i]
		o.parked.add(&parkedCopy{Parked: c.ParkedAdded[i], begin: w.record.BeginTime, end: w.record.EndTime})
	}
	rows := o.batch.rowCount()
	lag := time.Duration(0)
	if !o.batch.since.IsZero() {
		lag = time.Since(o.batch.since)
	}
	o.log.Debug("views committed", "seq", o.read, "rows", rows, "files", len(c.Added), "parked", len(c.ParkedAdded), "took", took, "age", lag)
	o.m.stats.commit(o.shard, o.read, rows, len(o.parked.copies))
	o.committed = o.read
	o.lastCommit = time.Now()
	o.batch.reset()
	o.registry.trim()
	if len(c.Added) > 0 {
		o.m.nudgeMerger()
	}
}

// buryParked marks copies that wait for too long as dead letters; they are still built when their registration comes.
func (o *owner) buryParked(ctx context.Context, old []*parkedCopy) error {
	c := &catalog.ViewCommit{
		Consumer: catalog.ConsumerViews,
		Moves:    []catalog.Move{{Shard: o.shardID(o.gen), From: o.committed, To: o.committed, Epoch: o.epoch}},
	}
	for _, p := range old {
		missing := "stream"
		if s, err := o.registry.stream(ctx, p.StreamID); err != nil {
			return err
		} else if s != nil {
			missing = "process"
		}
		row := p.Parked
		row.Dead, row.Reason = true, fmt.Sprintf("%s: the %s of the block, for %s", reasonUnregistered, missing, o.m.cfg.ParkedDead)
		record, err := o.readParked(ctx, p)
		if err != nil {
			return err
		}
		letter := bus.DeadLetter{
			Copy:     bus.Copy{Position: bus.Position{Shard: o.shard, Gen: p.Shard.Gen, Seq: p.Seq}, Rec: p.Rec},
			StreamID: p.StreamID, ProcessID: p.ProcessID, Reason: row.Reason,
		}
		if record != nil {
			letter.BlockID = record.BlockID
		}
		if err := o.m.bus.DeadLetter(ctx, letter); err != nil {
			return fmt.Errorf("send dead letter of parked copy: %w", err)
		}
		c.ParkedAdded = append(c.ParkedAdded, row)
	}
	if _, err := o.m.catalog.CommitView(ctx, c); err != nil {
		return fmt.Errorf("bury parked copies: %w", err)
	}
	for i, p := range old {
		p.Parked = c.ParkedAdded[i]
	}
	return nil
}
