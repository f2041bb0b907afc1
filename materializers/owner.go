package materializers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// owner builds the views of one eager shard while it holds the shard's lease. Everything but the flush handlers runs in one goroutine.
type owner struct {
	m     *Materializers
	shard bus.Shard
	epoch int64
	log   *slog.Logger

	generations []bus.Generation // of the shard, oldest first
	gen         int32            // being read
	committed   uint64           // M in gen
	read        uint64           // last sequence in the batch
	commitNo    int64            // that shows everything up to committed
	lastCommit  time.Time

	registry  *registry
	seen      seenBlocks
	parked    *parkedSet
	batch     *batch
	files     []*viewFiles // by view
	flushes   chan *flushWait
	waits     []*flushWait
	recheckAt time.Time
}

// run owns the shard until ctx ends or something fails. A failure loses nothing: the next owner starts from the checkpoint.
func (m *Materializers) run(ctx context.Context, shard bus.Shard, lease catalog.Lease) error {
	o := &owner{
		m: m, shard: shard, epoch: lease.Epoch, log: m.log.With("shard", shard.String()),
		registry: newRegistry(m.catalog, m.cfg), seen: seenBlocks{limit: m.cfg.SeenBlocks}, batch: newBatch(m.views),
		flushes: make(chan *flushWait),
	}
	defer m.stats.leave(shard)
	for i := range m.views {
		f, err := newViewFiles(&m.views[i])
		if err != nil {
			return err
		}
		o.files = append(o.files, f)
	}
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
	o.read = o.committed
	return nil
}

// shardID names a generation of the shard for the catalog.
func (o *owner) shardID(gen int32) catalog.ShardID {
	return catalog.ShardID{Class: byte(o.shard.Class), Gen: gen, Shard: o.shard.Shard}
}

// readAhead is how many frames, of 1 MiB at most, wait decoded by the reader for the owner.
const readAhead = 4

// pumped is what the reader's goroutine hands over.
type pumped struct {
	frame bus.Frame
	err   error
}

// readGeneration reads the current generation until its end, and enters the next one.
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
		ended, err := o.step(ctx, frames)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if ended {
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

// step handles one event: a frame, a flush request, or a time that has come. It reports whether the generation has ended.
func (o *owner) step(ctx context.Context, frames <-chan pumped) (ended bool, err error) {
	if o.due() {
		if err := o.commit(ctx); err != nil {
			return false, err
		}
	}
	o.answerReady()
	timer := time.NewTimer(o.untilDue())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, nil
	case p := <-frames:
		if errors.Is(p.err, io.EOF) {
			return true, nil
		}
		if p.err != nil {
			if ctx.Err() != nil {
				return false, nil
			}
			return false, fmt.Errorf("read frame: %w", p.err)
		}
		return false, o.add(ctx, p.frame)
	case w := <-o.flushes:
		o.waits = append(o.waits, w)
	case <-timer.C:
		if !time.Now().Before(o.recheckAt) {
			return false, o.lookAfterParked(ctx)
		}
	}
	return false, nil
}

// lookAfterParked builds parked copies whose registration is found, and buries those that are too old.
func (o *owner) lookAfterParked(ctx context.Context) error {
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
	d := time.Until(o.batch.since.Add(o.m.cfg.CommitAge))
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
	for i, record := range f.Records() {
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
	switch record.Kind {
	case bus.KindBlock:
		return o.addBlock(ctx, at, record)
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
	if o.seen.add(catalog.BlockKey{StreamID: record.StreamID, BeginTime: record.BeginTime, BlockID: record.BlockID}) {
		o.batch.foreseen[at] = struct{}{}
		return nil
	}
	if err := o.load(ctx, &record); err != nil {
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

// load reads the body of an oversize block from the lake.
func (o *owner) load(ctx context.Context, record *bus.Record) error {
	if record.Claim == "" {
		return nil
	}
	body, err := o.m.bus.LoadBody(ctx, record)
	if err != nil {
		return fmt.Errorf("load body of block %s: %w", record.BlockID, err)
	}
	record.Body = body
	return nil
}
