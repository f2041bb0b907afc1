package materializers

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/sdk"
)

var (
	commitSpan = sdk.NewSpan("commit views")
	filesSpan  = sdk.NewSpan("write files")
)

// commit makes the batch exist, up to the last frame read, and starts a new one. After an error the owner must stop: whether the
// commit stands is for the checkpoint to say.
func (o *owner) commit(ctx context.Context) error {
	if o.read == o.committed && len(o.batch.segments)+len(o.batch.dead) == 0 {
		o.batch.reset()
		return nil
	}
	ctx, span := commitSpan.Start(ctx)
	defer span.End()
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
	commitCtx, cancel := lasting(ctx)
	commitNo, err := o.m.catalog.CommitView(commitCtx, c)
	cancel()
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

// commitGrace is how long a transaction under way may take after the end of the work. Cut in the middle its outcome would be
// unknown, and the next owner might read the checkpoint before it stands.
const commitGrace = time.Second

// lasting returns a context that outlives ctx by commitGrace.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(commitGrace, cancel) })
	return work, func() {
		stop()
		cancel()
	}
}

// writeWhileArchiving makes the batch's files and asks archive to pass the batch, at the same time.
func (o *owner) writeWhileArchiving(ctx context.Context) ([]built, error) {
	var files []built
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.waitArchive(gctx, o.read) })
	g.Go(func() (err error) {
		ctx, span := filesSpan.Start(gctx)
		defer span.End()
		files, err = o.writeFiles(ctx)
		return err
	})
	err := g.Wait()
	return files, err
}

// Pauses between questions to an archive that has no owner or does not answer.
const (
	archivePauseMin = 20 * time.Millisecond
	archivePauseMax = 200 * time.Millisecond
	// archiveTimeout bounds one question. An owner that died over it does not answer, so it is short; the next one is for the
	// same position.
	archiveTimeout = time.Second
)

// waitArchive returns when archive has passed a sequence. M never passes A, so without archive the views wait.
func (o *owner) waitArchive(ctx context.Context, to uint64) error {
	for pause := archivePauseMin; ; pause = min(2*pause, archivePauseMax) {
		askCtx, cancel := context.WithTimeout(ctx, archiveTimeout)
		reply, err := o.m.bus.Flush(askCtx, o.shard, bus.FlushRequest{Target: bus.TargetArchive, Gen: o.gen, UpTo: to})
		cancel()
		if err == nil && reply.Err == "" && (reply.Gen > o.gen || reply.Gen == o.gen && reply.Seq >= to) {
			return nil
		}
		at, err := o.m.catalog.Checkpoint(ctx, catalog.ConsumerArchive, o.shardID(o.gen))
		if err == nil && at.Seq >= to {
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
	o.rest(c)
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
		if err != nil && !lost(err) {
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
