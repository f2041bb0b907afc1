package materializers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// owner builds the views of one eager shard while it holds the shard's lease. Everything but the flush handlers runs in one goroutine.
type owner struct {
	builder
	epoch int64

	generations []bus.Generation // of the shard, oldest first
	committed   uint64           // M in the generation that is read
	read        uint64           // last sequence in the batch
	commitNo    int64            // that shows everything up to committed
	lastCommit  time.Time

	seen      seenBlocks
	parked    *parkedSet
	records   []bus.Record // of the frame that is being added
	flushes   chan *flushWait
	waits     []*flushWait
	recheckAt time.Time

	backlog   []catalog.Backlog // open ranges of the shard, of all generations, as of backlogAt
	backlogAt time.Time
	lagAt     time.Time // when the distance to the head may be asked for again
}

// run owns the shard until ctx ends or something fails. A failure loses nothing: the next owner starts from the checkpoint.
func (m *Materializers) run(ctx context.Context, shard bus.Shard, lease catalog.Lease) error {
	b, err := newBuilder(m)
	if err != nil {
		return err
	}
	b.shard, b.log = shard, m.log.With("shard", shard.String())
	o := &owner{builder: b, epoch: lease.Epoch, seen: seenBlocks{limit: m.cfg.SeenBlocks}, flushes: make(chan *flushWait)}
	defer m.stats.leave(shard)
	if err := o.start(ctx); err != nil {
		return err
	}
	stop, err := m.bus.ServeFlush(bus.TargetViews, shard, o.serveFlush)
	if err != nil {
		return fmt.Errorf("serve flush requests: %w", err)
	}
	// The handlers end by their own deadline; none may wait for a loop that is gone.
	gone := make(chan struct{})
	defer func() {
		close(gone)
		o.answerAll("the owner of the shard stopped")
		stop()
	}()
	go o.refuse(gone)
	for ctx.Err() == nil {
		if err := o.readGeneration(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start finds where to go on: the oldest generation that is not read to its end.
func (o *owner) start(ctx context.Context) error {
	o.generations = o.m.bus.Generations(o.shard)
	if len(o.generations) == 0 {
		return fmt.Errorf("shard %s has no generation", o.shard)
	}
	var err error
	if o.commitNo, err = o.m.catalog.CommitNo(ctx); err != nil {
		return fmt.Errorf("read commit number: %w", err)
	}
	if err := o.listBacklog(ctx); err != nil {
		return err
	}
	if err := o.loadParked(ctx); err != nil {
		return err
	}
	return o.enter(ctx, o.generations[0])
}

// enter makes g the generation that is read.
func (o *owner) enter(ctx context.Context, g bus.Generation) error {
	at, err := o.m.catalog.Checkpoint(ctx, catalog.ConsumerViews, o.shardID(g.Gen))
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	if at.Epoch > o.epoch {
		return fmt.Errorf("checkpoint has epoch %d, the lease %d: %w", at.Epoch, o.epoch, catalog.ErrConflict)
	}
	o.gen, o.committed = g.Gen, max(at.Seq, g.FirstSeq-1)
	o.read, o.lagAt = o.committed, time.Time{}
	return nil
}

// readAhead is how many frames, of 1 MiB at most, wait decoded by the reader for the owner.
const readAhead = 4

// pumped is what the reader's goroutine hands over.
type pumped struct {
	frame bus.Frame
	err   error
}

// event is what a step of the owner ended with.
type event int

const (
	handled event = iota
	ended         // the generation has no more frames
	leapt         // the position moved: the reader stands at the wrong place
)

// readGeneration reads the current generation until its end, and enters the next one. It returns early when the owner leapt.
func (o *owner) readGeneration(ctx context.Context) error {
	pumpCtx, cancel := context.WithCancel(ctx)
	reader, err := o.m.bus.NewReader(pumpCtx, bus.Position{Shard: o.shard, Gen: o.gen, Seq: o.committed}, o.m.packs)
	if err != nil {
		cancel()
		return fmt.Errorf("open reader: %w", err)
	}
	frames := make(chan pumped, readAhead)
	done := make(chan struct{})
	go func() {
		defer close(done)
		pump(pumpCtx, reader, frames)
	}()
	defer func() {
		cancel()
		<-done
		reader.Close() //nolint:errcheck // nothing was written
	}()
	for {
		e, err := o.step(ctx, frames)
		if err != nil || ctx.Err() != nil || e == leapt {
			return err
		}
		if e == ended {
			break
		}
	}
	if err := o.commit(ctx); err != nil {
		return err
	}
	return o.nextGeneration(ctx)
}

// pump moves frames from the reader to the channel until the first error, which is the last element.
func pump(ctx context.Context, reader *bus.Reader, frames chan<- pumped) {
	for {
		f, err := reader.Next(ctx)
		select {
		case frames <- pumped{f, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (o *owner) nextGeneration(ctx context.Context) error {
	o.generations = o.m.bus.Generations(o.shard)
	i := slices.IndexFunc(o.generations, func(g bus.Generation) bool { return g.Gen > o.gen })
	if i < 0 {
		return fmt.Errorf("generation %d of shard %s ended, and none follows", o.gen, o.shard)
	}
	return o.enter(ctx, o.generations[i])
}

// step handles one event: a frame, a flush request, or a time that has come.
func (o *owner) step(ctx context.Context, frames <-chan pumped) (event, error) {
	if o.due() {
		o.m.priority.enter()
		err := o.commit(ctx)
		o.m.priority.leave()
		if err != nil {
			return handled, err
		}
	}
	if len(o.waits) > 0 && len(o.backlog) > 0 && time.Since(o.backlogAt) >= o.m.cfg.FlushPause {
		if err := o.followBacklog(ctx); err != nil {
			return handled, err
		}
	}
	o.answerReady()
	timer := time.NewTimer(o.untilDue())
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case p := <-frames:
		o.m.priority.enter()
		defer o.m.priority.leave()
		return o.take(ctx, p)
	case w := <-o.flushes:
		o.waits = append(o.waits, w)
	case <-timer.C:
		if !time.Now().Before(o.recheckAt) {
			return handled, o.lookAfterParked(ctx)
		}
	}
	return handled, nil
}

// take handles what came from the reader.
func (o *owner) take(ctx context.Context, p pumped) (event, error) {
	switch {
	case errors.Is(p.err, io.EOF):
		return ended, nil
	case p.err != nil && ctx.Err() != nil:
		return handled, nil
	case errors.Is(p.err, bus.ErrHole):
		return leapt, o.passHole(ctx, p.err)
	case p.err != nil:
		return handled, fmt.Errorf("read frame: %w", p.err)
	}
	if to, err := o.behind(ctx, p.frame); err != nil {
		return handled, err
	} else if to > 0 {
		return leapt, o.leap(ctx, to)
	}
	return handled, o.add(ctx, p.frame)
}

// lookAfterParked builds parked copies whose registration is found, and buries those that are too old.
func (o *owner) lookAfterParked(ctx context.Context) error {
	if len(o.backlog) > 0 {
		if err := o.followBacklog(ctx); err != nil {
			return err
		}
	}
	if err := o.recheck(ctx); err != nil {
		return err
	}
	if old := o.ageParked(time.Now()); len(old) > 0 {
		return o.buryParked(ctx, old)
	}
	return nil
}

// due reports whether a commit must be made now.
func (o *owner) due() bool {
	return o.batch.full(o.m.cfg) || !o.batch.since.IsZero() && o.untilCommit() <= 0
}

// untilCommit is the time until the batch, which is not empty, must be committed.
func (o *owner) untilCommit() time.Duration {
	age := o.m.cfg.CommitAge
	if len(o.batch.dead) > 0 && o.batch.rowCount() == 0 {
		age = min(age, o.m.cfg.DeadAge) // no file is written for it
	}
	d := time.Until(o.batch.since.Add(age))
	for _, w := range o.waits {
		if o.reached(w) && o.pending(w) {
			return min(d, time.Until(o.lastCommit.Add(o.m.cfg.FlushPause)))
		}
	}
	return d
}

func (o *owner) untilDue() time.Duration {
	d := time.Until(o.recheckAt)
	if !o.batch.since.IsZero() {
		d = min(d, o.untilCommit())
	}
	return max(d, 0)
}

// add makes a frame's records part of the batch.
func (o *owner) add(ctx context.Context, f bus.Frame) error {
	o.batch.touch()
	o.batch.bytesRead += len(f.Data)
	o.records = o.records[:0]
	for _, record := range f.Records() {
		o.records = append(o.records, record)
	}
	defer clear(o.records)
	if err := o.registry.learn(ctx, o.records); err != nil {
		return err
	}
	for i, record := range o.records {
		if err := o.addRecord(ctx, place{f.Seq, int32(i)}, record); err != nil {
			return err
		}
	}
	o.read = f.Seq
	o.m.stats.read(o.shard, o.read, o.batch.rowCount())
	return nil
}

func (o *owner) addRecord(ctx context.Context, at place, record bus.Record) error {
	if record.Err != nil {
		o.bury(&input{place: at, record: record}, "", "unreadable: "+reasonOf(record.Err))
		return nil // archive skips it, and then it is not dead
	}
	if record.Kind == bus.KindBlock {
		return o.addBlock(ctx, at, record)
	}
	if err := o.load(ctx, &record); lost(err) {
		if !o.registry.knows(&record) { // else archive has kept what it says, and nobody needs the body any more
			o.buryLost(&input{place: at, record: record}, err)
		}
		return nil
	} else if err != nil {
		return err
	}
	switch record.Kind {
	case bus.KindProcess:
		p, err := wire.DecodeProcess(record.Body)
		if err != nil {
			o.bury(&input{place: at, record: record}, "", "registration: "+reasonOf(err))
			return nil
		}
		o.registry.addProcess(p)
		return o.registered(ctx, telemetry.ID{}, p.ID)
	case bus.KindStream:
		s, err := wire.DecodeStream(record.Body)
		if err != nil {
			o.bury(&input{place: at, record: record}, "", "registration: "+reasonOf(err))
			return nil
		}
		o.registry.addStream(s)
		return o.registered(ctx, s.ID, s.ProcessID)
	}
	return nil
}

func (o *owner) addBlock(ctx context.Context, at place, record bus.Record) error {
	if record.Tag != telemetry.TagUnknown && !record.Tag.Eager() {
		return nil
	}
	key := catalog.BlockKey{StreamID: record.StreamID, BeginTime: record.BeginTime, BlockID: record.BlockID}
	if o.seen.add(key) {
		o.batch.foreseen[at] = struct{}{}
		return nil
	}
	if err := o.load(ctx, &record); lost(err) {
		o.seen.forget(key) // archive skips this copy, as a duplicate or as unreadable; the next one may count
		o.buryLost(&input{place: at, record: record}, err)
		return nil
	} else if err != nil {
		return err
	}
	done, err := o.build(ctx, &input{place: at, record: record})
	if err != nil || done {
		return err
	}
	w := waiting{place: at, record: record}
	if o.batch.bytesWaiting+len(record.Body) <= o.m.cfg.MaxWaitingBytes {
		w.kept = true
		o.batch.bytesWaiting += len(record.Body)
	} else {
		w.record.Body = nil
	}
	o.batch.waiting = append(o.batch.waiting, w)
	return nil
}
