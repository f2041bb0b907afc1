package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/sdk"
)

// step names the moments of an archive commit between which a process may die.
type step string

// The steps, in order.
const (
	stepRead      step = "read"      // the batch is complete, nothing is written
	stepPut       step = "put"       // about to put the pack
	stepPutDone   step = "put done"  // the pack is durable
	stepCommit    step = "commit"    // about to commit
	stepCommitted step = "committed" // the rows are durable; the owner has not heard of it
	stepTrim      step = "trim"      // about to let the bus drop frames
	stepTrimmed   step = "trim done" // the bus dropped what may go
)

// maxSettles bounds how often one commit is repeated because of blocks that are archived already. Each time at least one
// more of them is known, from another shard, or days were frozen meanwhile; so many in a row is a contradiction of the catalog with
// itself.
const maxSettles = 100

var (
	archiveSpan = sdk.NewSpan("archive")
	packSpan    = sdk.NewSpan("put pack")
	commitSpan  = sdk.NewSpan("commit")
)

// archive writes the batch: pack, rows, trimming.
func (o *owner) archive(ctx context.Context) error {
	ctx, cancel := o.withGrace(ctx)
	defer cancel()
	ctx, span := archiveSpan.Start(ctx)
	defer span.End()
	if err := o.hook(stepRead); err != nil {
		return err
	}
	c, err := o.read(ctx)
	if err != nil {
		return err
	}
	if err := o.putPack(ctx, c); err != nil {
		return err
	}
	o.reportDead(ctx, c)
	if err := o.commit(ctx, c); err != nil {
		return err
	}
	o.countCommit(c)
	o.setRead(o.batch.to.Seq, 0)
	o.setPosition(o.batch.to)
	if err := o.hook(stepTrim); err != nil {
		return err
	}
	if err := o.bus.Trim(ctx, o.batch.to); err != nil && ctx.Err() == nil {
		o.log.Warn("bus not trimmed; the next commit tries again", "err", err)
	}
	return o.hook(stepTrimmed)
}

// withGrace returns a context that outlives ctx by the grace, for a commit under way.
func (o *owner) withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if o.cfg.Grace == 0 {
			cancel()
			return
		}
		timer := time.AfterFunc(o.cfg.Grace, cancel)
		context.AfterFunc(work, func() { timer.Stop() })
	})
	return work, func() {
		stop()
		cancel()
	}
}

// putPack puts the frames as a pack until it works, and points the blocks to it.
func (o *owner) putPack(ctx context.Context, c *contents) error {
	ctx, span := packSpan.Start(ctx)
	defer span.End()
	return o.untilDone(ctx, "put pack", func() error {
		if err := o.hook(stepPut); err != nil {
			return err
		}
		begun := time.Now()
		pack, offsets, err := o.lake.PutPack(ctx, c.Shard, o.batch.frames)
		if err != nil {
			return err
		}
		if err := o.hook(stepPutDone); err != nil {
			return err
		}
		c.point(&pack, offsets, begun.UnixNano())
		return nil
	})
}

// commit writes the rows until it is known that they stand, or that they cannot.
func (o *owner) commit(ctx context.Context, c *contents) error {
	ctx, span := commitSpan.Start(ctx)
	defer span.End()
	settles := 0
	return o.untilDone(ctx, "commit", func() error {
		for {
			err := o.hook(stepCommit)
			if err == nil {
				err = o.cat.CommitArchive(ctx, &c.ArchiveCommit)
			}
			if err == nil {
				err = o.hook(stepCommitted)
			}
			switch {
			case errors.Is(err, catalog.ErrDuplicateBlocks) && settles < maxSettles:
				settles++
				if err := o.settle(ctx, c); err != nil {
					return err
				}
			case errors.Is(err, catalog.ErrFrozen) && settles < maxSettles:
				settles++
				if err := o.settleFrozen(ctx, c); err != nil {
					return err
				}
			case errors.Is(err, catalog.ErrObjectsTooOld):
				if err := o.putPack(ctx, c); err != nil {
					return err
				}
			case err == nil:
				return nil
			default:
				return o.readBack(ctx, &c.ArchiveCommit, err)
			}
		}
	})
}

// readBack finds out whether a commit stands whose answer was an error.
func (o *owner) readBack(ctx context.Context, c *catalog.ArchiveCommit, cause error) error {
	at, err := o.cat.Checkpoint(ctx, catalog.ConsumerArchive, c.Shard)
	switch {
	case err != nil:
		return errors.Join(cause, err)
	case at.Seq == c.To && at.Epoch == c.Epoch:
		return nil // it stands: nobody else has this epoch
	case at.Seq != c.From || at.Epoch > c.Epoch || errors.Is(cause, catalog.ErrConflict):
		o.count(func(st *ShardStats) { st.Lost++ })
		return permanent{fmt.Errorf("shard %s is at %d of epoch %d, commit from %d to %d with epoch %d: %w",
			c.Shard, at.Seq, at.Epoch, c.From, c.To, c.Epoch, catalog.ErrConflict)}
	case errors.Is(cause, catalog.ErrInvalid) || errors.Is(cause, catalog.ErrClosed) || errors.Is(cause, catalog.ErrDuplicateBlocks) || errors.Is(cause, catalog.ErrFrozen):
		return permanent{cause}
	default:
		return cause
	}
}

// settle puts skips in place of the blocks that are archived already.
func (o *owner) settle(ctx context.Context, c *contents) error {
	exist, err := o.cat.ExistingBlocks(ctx, c.keys())
	if err != nil {
		return err
	}
	c.dropExisting(exist)
	o.count(func(st *ShardStats) { st.Settled++ })
	return nil
}

// settleFrozen puts skips in place of the blocks that are in frozen files. What is left is committed under the version of these
// files. A file that cannot be read holds the shard up: to go on without it could archive a block twice.
func (o *owner) settleFrozen(ctx context.Context, c *contents) error {
	keys := c.keys()
	begin, end := keys[0].BeginTime, keys[0].BeginTime
	for i := range keys {
		begin, end = min(begin, keys[i].BeginTime), max(end, keys[i].BeginTime)
	}
	f, err := o.cat.Frozen(ctx, begin, end)
	if err != nil {
		return err
	}
	exist, err := o.frozen.Lookup(ctx, f.Files, keys)
	if err != nil {
		return fmt.Errorf("settle blocks of frozen days: %w", err)
	}
	c.dropExisting(exist)
	c.Frozen = f.Version
	o.count(func(st *ShardStats) { st.Settled++ })
	return nil
}

// permanent marks an error that trying again does not cure.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// untilDone runs f until it returns nil, ctx is done, or the error is permanent. The pauses between grow.
func (o *owner) untilDone(ctx context.Context, what string, f func() error) error {
	for pause := o.cfg.RetryMin; ; pause = min(2*pause, o.cfg.RetryMax) {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || errors.As(err, new(permanent)) {
			return fmt.Errorf("%s: %w", what, err)
		}
		o.count(func(st *ShardStats) { st.Retries++ })
		o.log.Warn("archive tries again", "step", what, "pause", pause, "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		case <-timer.C:
		}
	}
}

// maxLetters bounds the dead letters of one commit, each of which waits for its own fsync.
const maxLetters = 1000

// reportDead sends the records that cannot be read to the dead letters. The catalog's skips are the record of it; a letter
// that does not get through, or is one too many, is only logged.
func (o *owner) reportDead(ctx context.Context, c *contents) {
	if n := len(c.dead) - maxLetters; n > 0 {
		o.log.Warn("too many unreadable records for a letter each; the catalog's skips name all", "without_letter", n, "from", c.From, "to", c.To)
		c.dead = c.dead[:maxLetters]
	}
	for i := range c.dead {
		if err := o.bus.DeadLetter(ctx, c.dead[i]); err != nil {
			o.log.Warn("dead letter not sent", "seq", c.dead[i].Seq, "rec", c.dead[i].Rec, "reason", c.dead[i].Reason, "without_letter", len(c.dead)-i, "err", err)
			return // each of the others would wait as long, and the shard's blocks with it
		}
	}
}

func (o *owner) countCommit(c *contents) {
	o.count(func(st *ShardStats) {
		st.Packs++
		st.Bytes += c.Pack.Size
		st.Blocks += int64(len(c.Blocks))
		st.Adopted += int64(len(c.Adopted))
		st.Unindexed += c.unindexed
		st.Registrations += int64(len(c.Processes) + len(c.Streams))
		for _, s := range c.Skips {
			if s.Reason == catalog.SkipDuplicate {
				st.Duplicates++
			} else {
				st.Unreadable++
			}
		}
	})
	o.log.Debug("pack archived", "key", c.Pack.Key, "to", c.To, "bytes", c.Pack.Size, "blocks", len(c.Blocks), "skips", len(c.Skips))
}
