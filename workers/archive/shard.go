package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// readAhead is how many frames the reading goroutine may be ahead of the batch, beside what the bus reads ahead: while a
// pack is written the next frames come in.
const readAhead = 4

// errHandedOver is the cause with which an owner's own goroutines end.
var errHandedOver = errors.New("archive: owner ends")

// shard is one (class, shard) and, while this process owns it, its work.
type shard struct {
	*Archive
	name bus.Shard
	log  *slog.Logger

	// wake tells the owner that a flush waits; it holds one token.
	wake chan struct{}

	mu       sync.Mutex
	stats    ShardStats
	position bus.Position  // archived up to here; valid while owned
	moved    chan struct{} // closed when position moves or the owner ends
	wanted   bus.Position  // the furthest position that a flush waits for
	oldestUs int64         // insert time of the oldest frame read and not archived; 0 = none
}

func newShard(a *Archive, name bus.Shard) *shard {
	return &shard{
		Archive: a, name: name, log: a.log.With("shard", name.String()),
		wake: make(chan struct{}, 1), moved: make(chan struct{}), stats: ShardStats{Shard: name.String()},
	}
}

// before reports whether a is before b in the life of one shard.
func before(a, b bus.Position) bool {
	return a.Gen < b.Gen || a.Gen == b.Gen && a.Seq < b.Seq
}

// own archives the shard under a lease, until ctx is done or another owner took over.
func (s *shard) own(ctx context.Context, lease catalog.Lease) error {
	s.count(func(st *ShardStats) { st.Owned, st.Epoch = true, lease.Epoch })
	defer s.count(func(st *ShardStats) { st.Owned = false })
	o := &owner{shard: s, epoch: lease.Epoch}
	at, err := o.start(ctx)
	if err != nil {
		return err
	}
	s.setPosition(at)
	stop, err := s.bus.ServeFlush(bus.TargetArchive, s.name, s.flush)
	if err != nil {
		return err
	}
	defer stop()
	for {
		next, err := o.generation(ctx, at)
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		at = next
		s.setPosition(at)
	}
}

// flush answers when everything up to the wanted position is archived. A commit under way may serve many.
func (s *shard) flush(ctx context.Context, req bus.FlushRequest) bus.FlushReply {
	want := bus.Position{Shard: s.name, Gen: req.Gen, Seq: req.UpTo}
	if req.UpTo == 0 {
		head, err := s.bus.Head(ctx, s.name)
		if err != nil {
			return bus.FlushReply{Shard: s.name, Err: fmt.Sprintf("head of the shard: %v", err)}
		}
		want = head
	}
	for {
		at, moved := s.want(want)
		reply := bus.FlushReply{Shard: s.name, Gen: at.Gen, Seq: at.Seq}
		if !before(at, want) {
			return reply
		}
		select {
		case <-moved:
		case <-ctx.Done():
			reply.Err = fmt.Sprintf("archived to %d of %d when the time was over", at.Seq, want.Seq)
			return reply
		}
	}
}

// want notes a wanted position, wakes the owner when it is news, and returns the archived position and what is closed when
// that moves.
func (s *shard) want(p bus.Position) (at bus.Position, moved <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before(s.position, p) && before(s.wanted, p) {
		s.wanted = p
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return s.position, s.moved
}

// flushWanted reports whether a flush waits for what a batch up to p would archive, or for something before.
func (s *shard) flushWanted(p bus.Position) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return before(s.position, s.wanted) && !before(p, s.wanted)
}

func (s *shard) setPosition(p bus.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = p
	s.stats.Gen, s.stats.Seq = p.Gen, p.Seq
	s.stats.ReadSeq = max(s.stats.ReadSeq, p.Seq)
	close(s.moved)
	s.moved = make(chan struct{})
}

func (s *shard) count(f func(*ShardStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// setRead notes how far the batch reaches, and the insert time of its oldest record; 0 when there is none.
func (s *shard) setRead(seq uint64, oldestUs int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.ReadSeq, s.oldestUs = seq, oldestUs
}

func (s *shard) snapshot() ShardStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	if s.oldestUs != 0 && st.Owned {
		st.LagMs = max(0, (time.Now().UnixMicro()-s.oldestUs)/1000)
	}
	return st
}

// owner is the work on a shard under one lease. It is one goroutine's.
type owner struct {
	*shard
	epoch int64
	batch batch
}

// start returns the position from which to archive: the checkpoint of the newest generation that has one, or the beginning
// of the first generation.
func (o *owner) start(ctx context.Context) (bus.Position, error) {
	generations := o.bus.Generations(o.name)
	if len(generations) == 0 {
		return bus.Position{}, fmt.Errorf("shard %s has no generation", o.name)
	}
	at := bus.Position{Shard: o.name, Gen: generations[0].Gen, Seq: generations[0].FirstSeq - 1}
	for _, g := range generations {
		c, err := o.cat.Checkpoint(ctx, catalog.ConsumerArchive, shardID(o.name, g.Gen))
		if err != nil {
			return bus.Position{}, err
		}
		if c.Epoch != 0 {
			at.Gen, at.Seq = g.Gen, c.Seq
		}
	}
	return at, nil
}

// generation archives the frames of at's generation after at, and returns the beginning of the next one when it is closed.
func (o *owner) generation(ctx context.Context, at bus.Position) (bus.Position, error) {
	for {
		last, err := o.follow(ctx, at)
		at = last
		switch {
		case ctx.Err() != nil:
			return at, nil
		case errors.Is(err, io.EOF):
			for _, g := range o.bus.Generations(o.name) {
				if g.Gen > at.Gen {
					o.log.Info("archive goes on with the next generation", "closed", at.Gen, "archived", at.Seq, "next", g.Gen, "first_seq", g.FirstSeq)
					return bus.Position{Shard: o.name, Gen: g.Gen, Seq: g.FirstSeq - 1}, nil
				}
			}
			return at, fmt.Errorf("shard %s: generation %d is closed and there is no next: %w", o.name, at.Gen, err)
		case errors.Is(err, bus.ErrHole):
			if at, err = o.passHole(ctx, at, err); err != nil {
				return at, err
			}
		default:
			return at, err
		}
	}
}

// passHole moves the checkpoint past frames that the bus lost before anybody archived them. They cannot come back; what
// comes after them should not be lost too.
func (o *owner) passHole(ctx context.Context, at bus.Position, cause error) (bus.Position, error) {
	to := at.Seq + 1
	var stats []bus.ShardStats
	err := o.untilDone(ctx, fmt.Sprintf("pass a hole after %d", at.Seq), func() (err error) {
		stats, err = o.bus.Stats(ctx)
		return err
	})
	if err != nil {
		return at, err
	}
	for _, st := range stats {
		if st.Shard != o.name || st.Gen != at.Gen {
			continue
		}
		if st.LastSeq <= at.Seq { // nothing comes after it: not a hole to pass
			return at, cause
		}
		to = max(to, st.FirstSeq-1)
	}
	o.log.Error("frames were lost on the bus before they were archived: check its storage", "after", at.Seq, "up_to", to, "err", cause)
	c := contents{ArchiveCommit: catalog.ArchiveCommit{Shard: shardID(o.name, at.Gen), From: at.Seq, To: to, Epoch: o.epoch}}
	if err := o.commit(ctx, &c); err != nil {
		return at, err
	}
	at.Seq = to
	o.setPosition(at)
	o.count(func(st *ShardStats) { st.Holes++ })
	return at, nil
}

// follow reads frames after at and archives them in batches. It returns the position archived, and why it ended: io.EOF
// and bus.ErrHole come after everything before them is archived.
func (o *owner) follow(ctx context.Context, at bus.Position) (bus.Position, error) {
	// Packs are no source here: what the bus does not hold behind the checkpoint nobody archived.
	reader, err := o.bus.NewReader(ctx, at, nil)
	if err != nil {
		return at, err
	}
	frames := make(chan bus.Frame, readAhead)
	var readErr error // set before frames is closed
	readCtx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(frames)
		readErr = read(readCtx, reader, frames)
	})
	defer func() {
		cancel(errHandedOver)
		wg.Wait()
		if err := reader.Close(); err != nil {
			o.log.Warn("reader not closed", "err", err)
		}
	}()
	o.batch.reset(at)
	for {
		more := o.fill(ctx, frames)
		if ctx.Err() != nil {
			return o.batch.from, nil
		}
		if len(o.batch.frames) > 0 {
			if err := o.archive(ctx); err != nil {
				return o.batch.from, err
			}
			o.batch.reset(o.batch.to)
		}
		if !more {
			return o.batch.from, readErr
		}
	}
}

func read(ctx context.Context, r *bus.Reader, frames chan<- bus.Frame) error {
	for {
		f, err := r.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case frames <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fill collects frames until the batch is due: by size, by age, or because a flush waits for what it holds. It returns false
// when no more frames come.
func (o *owner) fill(ctx context.Context, frames <-chan bus.Frame) (more bool) {
	timer := time.NewTimer(time.Hour) // set by the first frame
	defer timer.Stop()
	for o.batch.bytes < o.cfg.PackBytes {
		if len(o.batch.frames) > 0 && o.flushWanted(o.batch.to) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case f, ok := <-frames:
			if !ok {
				return false
			}
			o.batch.add(f)
			o.setRead(f.Seq, o.batch.oldestUs)
			if len(o.batch.frames) == 1 || o.batch.bytes >= o.cfg.LazyBytes && o.batch.bytes-len(f.Data) < o.cfg.LazyBytes {
				timer.Reset(time.Until(o.batch.due(o.cfg)))
			}
		case <-o.wake:
		case <-timer.C:
			if len(o.batch.frames) > 0 {
				return true
			}
		}
	}
	return true
}

// batch is a run of frames that become one pack.
type batch struct {
	from, to bus.Position // (from, to]
	frames   []bus.Frame
	bytes    int
	begun    time.Time // when the first frame came
	oldestUs int64
}

func (b *batch) reset(at bus.Position) {
	clear(b.frames) // lets the buffers go
	*b = batch{from: at, to: at, frames: b.frames[:0]}
}

func (b *batch) add(f bus.Frame) {
	if len(b.frames) == 0 {
		b.begun = time.Now()
		for _, r := range f.Records() {
			b.oldestUs = r.InsertTimeUs
			break
		}
	}
	b.frames = append(b.frames, f)
	b.bytes += len(f.Data)
	b.to = f.Position
}

// due is when the batch is archived without a reason.
func (b *batch) due(cfg Config) time.Time {
	if b.bytes >= cfg.LazyBytes {
		return b.begun.Add(cfg.PackAge)
	}
	return b.begun.Add(cfg.LazyAge)
}
