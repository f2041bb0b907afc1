package materializers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// How an owner that is far behind catches up. When the next frame is older than BacklogLag, and more than BacklogBytes wait
// behind it, it commits what it has read, and
// then moves its checkpoint close to the head in one transaction that opens what lies between as ranges of the backlog:
//
//	M=100, next frame 101 is 40 s old, head 9016 → M=9000, backlog 101..4196, 4197..8292, 8293..9000
//
// The last BacklogFrames are read in order after all, so that what was acknowledged a moment before the leap is visible too.
// It waits for archive to pass the head first, so M ≤ A stays true, and all that a range needs is settled: its frames are in packs,
// its registrations in the catalog, and skips say which of its copies count. What is fresh would wait for archive as well.

// lagPause is between two questions for the head while a shard has old frames but too few to be behind.
const lagPause = time.Second

// behind reports how far to leap when the frame, which is the next one, is so old that the shard is behind; 0 when it is not.
func (o *owner) behind(ctx context.Context, f bus.Frame) (to uint64, err error) {
	now := time.Now()
	if age := now.UnixNano() - insertTime(f); age < int64(o.m.cfg.BacklogLag) || now.Before(o.lagAt) {
		return 0, nil
	}
	last, err := o.lastSeq(ctx)
	if err != nil && ctx.Err() == nil { // servers of the bus elect a leader, say: reading goes on meanwhile
		o.log.Debug("shard may be behind, its head is not known", "err", err)
		o.lagAt = now.Add(lagPause)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if last < f.Seq+2*o.m.cfg.BacklogFrames || int64(last-f.Seq)*o.frameBytes(ctx, f) < o.m.cfg.BacklogBytes {
		o.lagAt = now.Add(lagPause)
		return 0, nil
	}
	return last - o.m.cfg.BacklogFrames, nil
}

// frameBytes estimates the size of a frame that is not read yet: the average of those on the bus, else the next one's.
func (o *owner) frameBytes(ctx context.Context, next bus.Frame) int64 {
	stats, err := o.m.bus.Stats(ctx)
	if err != nil {
		return int64(len(next.Data))
	}
	for _, s := range stats {
		if s.Shard == o.shard && s.Gen == next.Gen && s.Messages > 0 {
			return s.Bytes / s.Messages
		}
	}
	return int64(len(next.Data))
}

// insertTime returns the time of a frame's first readable record; now when it has none.
func insertTime(f bus.Frame) int64 {
	for _, record := range f.Records() {
		if record.Err == nil {
			return record.InsertTimeUs * 1000
		}
	}
	return time.Now().UnixNano()
}

// lastSeq returns the last sequence of the generation that is being read: the head of the bus, or what archive has of a closed one.
func (o *owner) lastSeq(ctx context.Context) (uint64, error) {
	generations := o.m.bus.Generations(o.shard)
	if generations[len(generations)-1].Gen == o.gen {
		head, err := o.m.bus.Head(ctx, o.shard)
		if err != nil {
			return 0, fmt.Errorf("head of the bus: %w", err)
		}
		if head.Gen == o.gen {
			return head.Seq, nil
		}
	}
	at, err := o.m.catalog.Checkpoint(ctx, catalog.ConsumerArchive, o.shardID(o.gen))
	if err != nil {
		return 0, fmt.Errorf("read checkpoint of archive: %w", err)
	}
	return at.Seq, nil
}

// leap opens everything after what was read, up to a sequence, as backlog, and goes on behind it.
func (o *owner) leap(ctx context.Context, to uint64) error {
	if err := o.commit(ctx); err != nil {
		return err
	}
	if err := o.waitArchive(ctx, to); err != nil {
		return err
	}
	shard := o.shardID(o.gen)
	c := &catalog.ViewCommit{
		Consumer: catalog.ConsumerViews,
		Moves:    []catalog.Move{{Shard: shard, From: o.committed, To: to, Epoch: o.epoch}},
		Backlog:  o.m.cfg.ranges(shard, o.committed, to),
	}
	for i := range c.Backlog {
		b := &c.Backlog[i]
		var err error
		if b.MinTime, b.MaxTime, err = o.m.catalog.EventRange(ctx, shard, b.FirstSeq-1, b.LastSeq); err != nil {
			return fmt.Errorf("open backlog: %w", err)
		}
	}
	if err := o.m.step("before leap"); err != nil {
		return err
	}
	if _, err := o.m.catalog.CommitView(ctx, c); err != nil {
		return fmt.Errorf("open backlog of %s from %d to %d: %w", shard, o.committed, to, err)
	}
	if err := o.m.step("after leap"); err != nil {
		return err
	}
	o.log.Warn("shard is behind, its unread frames are built beside fresh ones", "after", o.committed, "to", to, "ranges", len(c.Backlog))
	o.committed, o.read = to, to
	clear(o.registry.absent) // what was registered in the range is in the catalog
	o.recheckAt = time.Now()
	o.m.nudgeWorkers()
	return o.listBacklog(ctx)
}

// ranges cuts (after, to].
func (c *Config) ranges(shard catalog.ShardID, after, to uint64) []catalog.Backlog {
	length := max(c.BacklogRange, (to-after+c.BacklogRanges-1)/c.BacklogRanges)
	var all []catalog.Backlog
	for first := after + 1; first <= to; first += length {
		all = append(all, catalog.Backlog{Shard: shard, FirstSeq: first, LastSeq: min(first+length-1, to)})
	}
	return all
}

// passHole leaps over frames that the bus lost, if archive has passed them too. What archive has of them is built as backlog.
func (o *owner) passHole(ctx context.Context, cause error) error {
	at, err := o.m.catalog.Checkpoint(ctx, catalog.ConsumerArchive, o.shardID(o.gen))
	if err != nil || at.Seq <= o.read {
		return errors.Join(fmt.Errorf("read frame: %w", cause), err)
	}
	o.log.Error("frames were lost on the bus: check its storage", "after", o.read, "archived", at.Seq, "err", cause)
	return o.leap(ctx, at.Seq)
}

// listBacklog reads the shard's open ranges.
func (o *owner) listBacklog(ctx context.Context) error {
	all, err := o.m.catalog.Backlog(ctx, catalog.ConsumerViews)
	if err != nil {
		return fmt.Errorf("read backlog: %w", err)
	}
	frames := uint64(0)
	o.backlog = slices.DeleteFunc(all, func(b catalog.Backlog) bool {
		return b.Shard.Class != byte(o.shard.Class) || b.Shard.Shard != o.shard.Shard
	})
	for i := range o.backlog {
		frames += o.backlog[i].LastSeq - o.backlog[i].FirstSeq + 1
	}
	o.backlogAt = time.Now()
	o.m.stats.shard(o.shard, func(s *ShardStats) { s.Backlog, s.BacklogFrames = len(o.backlog), frames })
	return nil
}

// followBacklog takes over what workers did since the last look: ranges that they built, and copies that they parked, which are
// the owner's to build. Until then their ranges count as open.
func (o *owner) followBacklog(ctx context.Context) error {
	before := o.backlog
	if err := o.listBacklog(ctx); err != nil {
		return err
	}
	if slices.EqualFunc(before, o.backlog, func(a, b catalog.Backlog) bool { return a.RangeNo == b.RangeNo && a.FirstSeq == b.FirstSeq }) {
		return nil
	}
	commitNo, err := o.m.catalog.CommitNo(ctx)
	if err != nil {
		return fmt.Errorf("read commit number: %w", err)
	}
	o.commitNo = commitNo
	return o.adoptParked(ctx)
}

// inBacklog reports whether an open range may have events in [begin, end].
func (o *owner) inBacklog(begin, end int64) bool {
	return slices.ContainsFunc(o.backlog, func(b catalog.Backlog) bool { return b.MinTime <= end && b.MaxTime >= begin })
}
