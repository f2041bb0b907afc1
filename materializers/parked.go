package materializers

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// reasonUnregistered begins the reason of a parked copy that counts as a dead letter only because of its age.
const reasonUnregistered = "not registered"

// parkedCopy is a parked copy of one shard, of any generation.
type parkedCopy struct {
	catalog.Parked
	begin, end int64 // of the block's events; the whole range where it is not known any more
	taken      bool  // in the current batch
}

// place returns the copy's place in its generation.
func (p *parkedCopy) place() place { return place{p.Seq, p.Rec} }

type parkedKey struct {
	gen int32
	place
}

// parkedSet is the parked copies of a shard that may still be built.
type parkedSet struct {
	copies    map[parkedKey]*parkedCopy
	byStream  map[telemetry.ID][]*parkedCopy
	byProcess map[telemetry.ID][]*parkedCopy
	limit     int
	partial   bool // the limit was reached: the catalog has more
}

func newParkedSet(limit int) *parkedSet {
	return &parkedSet{
		copies: map[parkedKey]*parkedCopy{}, byStream: map[telemetry.ID][]*parkedCopy{}, byProcess: map[telemetry.ID][]*parkedCopy{}, limit: limit,
	}
}

func (s *parkedSet) add(p *parkedCopy) {
	key := parkedKey{p.Shard.Gen, p.place()}
	if _, ok := s.copies[key]; ok {
		return
	}
	if len(s.copies) >= s.limit {
		s.partial = true
		return
	}
	s.copies[key] = p
	s.byStream[p.StreamID] = append(s.byStream[p.StreamID], p)
	s.byProcess[p.ProcessID] = append(s.byProcess[p.ProcessID], p)
}

func (s *parkedSet) remove(p *parkedCopy) {
	delete(s.copies, parkedKey{p.Shard.Gen, p.place()})
	for _, index := range []struct {
		m  map[telemetry.ID][]*parkedCopy
		id telemetry.ID
	}{{s.byStream, p.StreamID}, {s.byProcess, p.ProcessID}} {
		left := slices.DeleteFunc(index.m[index.id], func(q *parkedCopy) bool { return q == p })
		if len(left) == 0 {
			delete(index.m, index.id)
		} else {
			index.m[index.id] = left
		}
	}
}

// meeting returns how many copies may have events in [begin, end], of one process or of all.
func (s *parkedSet) meeting(begin, end int64, process telemetry.ID) int {
	n := 0
	for _, p := range s.copies {
		if p.begin <= end && p.end >= begin && (process.IsZero() || process == p.ProcessID) {
			n++
		}
	}
	return n
}

// loadParked reads the shard's parked copies, of all generations.
func (o *owner) loadParked(ctx context.Context) error {
	o.parked = newParkedSet(o.m.cfg.MaxParked)
	return o.adoptParked(ctx)
}

// adoptParked adds the parked copies that are not in the set: those that workers on the backlog left.
func (o *owner) adoptParked(ctx context.Context) error {
	for _, g := range o.generations {
		shard := o.shardID(g.Gen)
		for _, dead := range []bool{false, true} {
			rows, err := o.m.catalog.Parked(ctx, catalog.ConsumerViews, catalog.ParkedFilter{Shard: &shard, Dead: &dead, Limit: o.m.cfg.MaxParked})
			if err != nil {
				return fmt.Errorf("load parked copies: %w", err)
			}
			for _, row := range rows {
				if row.Dead && !strings.HasPrefix(row.Reason, reasonUnregistered) {
					continue
				}
				o.parked.add(&parkedCopy{Parked: row, begin: math.MinInt64, end: math.MaxInt64})
			}
		}
	}
	return nil
}

// registered builds what waited for a registration: blocks of this batch from memory, parked copies from packs.
func (o *owner) registered(ctx context.Context, streamID, processID telemetry.ID) error {
	if err := o.retryWaiting(ctx, streamID, processID); err != nil {
		return err
	}
	candidates := o.parked.byStream[streamID]
	if streamID.IsZero() {
		candidates = o.parked.byProcess[processID]
	}
	return o.unpark(ctx, slices.Clone(candidates))
}

// retryWaiting builds the blocks of this batch that waited in memory for a stream or process.
func (o *owner) retryWaiting(ctx context.Context, streamID, processID telemetry.ID) error {
	left := o.batch.waiting[:0]
	for i, w := range o.batch.waiting {
		mine := w.record.StreamID == streamID || streamID.IsZero() && w.record.ProcessID == processID
		if !mine || !w.kept {
			left = append(left, w)
			continue
		}
		done, err := o.build(ctx, &input{place: w.place, record: w.record})
		if err != nil {
			o.batch.waiting = append(left, o.batch.waiting[i:]...)
			return err
		}
		if !done {
			left = append(left, w)
			continue
		}
		o.batch.bytesWaiting -= len(w.record.Body)
	}
	clear(o.batch.waiting[len(left):])
	o.batch.waiting = left
	return nil
}

// unpark makes parked copies part of the batch, if they can be built now. It stops when the batch is full; the rest comes after the
// commit, by recheck.
func (o *owner) unpark(ctx context.Context, copies []*parkedCopy) error {
	for _, p := range copies {
		if p.taken {
			continue
		}
		if o.batch.full(o.m.cfg) {
			o.recheckAt = time.Now()
			return nil
		}
		ready, err := o.ready(ctx, p)
		if err != nil {
			return err
		}
		if !ready {
			continue
		}
		record, err := o.readParked(ctx, p)
		if lost(err) {
			o.buryLost(&input{place: p.place(), record: bus.Record{StreamID: p.StreamID, ProcessID: p.ProcessID}, parked: p}, err)
			p.taken = true
			o.batch.touch()
			continue
		}
		if err != nil {
			return err
		}
		if record == nil {
			o.log.Warn("parked copy not found in packs", "shard", p.Shard.String(), "seq", p.Seq, "rec", p.Rec)
			continue
		}
		if _, err := o.build(ctx, &input{place: p.place(), record: *record, parked: p}); err != nil {
			return err
		}
		p.taken = true
		o.batch.touch()
	}
	return nil
}

// ready reports whether both registrations of a parked copy are there.
func (o *owner) ready(ctx context.Context, p *parkedCopy) (bool, error) {
	s, err := o.registry.stream(ctx, p.StreamID)
	if err != nil || s == nil {
		return false, err
	}
	process, err := o.registry.process(ctx, p.ProcessID)
	return process != nil, err
}

// readParked reads a parked copy's record from its pack; nil when it is not there.
func (o *owner) readParked(ctx context.Context, p *parkedCopy) (*bus.Record, error) {
	frames, err := o.m.packs.NextFrames(ctx, bus.Position{Shard: o.shard, Gen: p.Shard.Gen, Seq: p.Seq - 1})
	if err != nil {
		return nil, fmt.Errorf("read parked copy: %w", err)
	}
	for _, f := range frames {
		if f.Seq != p.Seq {
			continue
		}
		for i, record := range f.Records() {
			if int32(i) != p.Rec || record.Err != nil {
				continue
			}
			if err := o.load(ctx, &record); err != nil {
				return nil, err
			}
			return &record, nil
		}
	}
	return nil, nil
}

// recheck looks for registrations of parked copies in the catalog: those that came over another shard, or in another
// generation, or while nobody owned this shard.
func (o *owner) recheck(ctx context.Context) error {
	o.recheckAt = time.Now().Add(o.m.cfg.Recheck)
	if o.parked.partial && len(o.parked.copies) < o.parked.limit/2 && o.batch.since.IsZero() {
		if err := o.loadParked(ctx); err != nil {
			return err
		}
	}
	if len(o.parked.copies) == 0 {
		return nil
	}
	clear(o.registry.absent)
	if err := o.prefetch(ctx); err != nil {
		return err
	}
	copies := make([]*parkedCopy, 0, len(o.parked.copies))
	for _, p := range o.parked.copies {
		copies = append(copies, p)
	}
	slices.SortFunc(copies, func(a, b *parkedCopy) int {
		if a.Shard.Gen != b.Shard.Gen {
			return int(a.Shard.Gen) - int(b.Shard.Gen)
		}
		return a.place().compare(b.place())
	})
	return o.unpark(ctx, copies)
}

// prefetch asks the catalog about all streams and processes of parked copies at once, and notes those that are not registered.
func (o *owner) prefetch(ctx context.Context) error {
	streamIDs := make([]telemetry.ID, 0, len(o.parked.byStream))
	for id := range o.parked.byStream {
		streamIDs = append(streamIDs, id)
	}
	rows, err := o.m.catalog.Streams(ctx, streamIDs)
	if err != nil {
		return fmt.Errorf("look up streams of parked copies: %w", err)
	}
	found := map[telemetry.ID]bool{}
	for i := range rows {
		found[rows[i].ID] = rows[i].Registered != 0
	}
	for _, id := range streamIDs {
		if _, ok := o.registry.streams.get(id); !ok && !found[id] {
			o.registry.absent[id] = struct{}{}
		}
	}
	return nil
}

// ageParked notes copies that are parked for so long that they count as dead letters too.
func (o *owner) ageParked(now time.Time) []*parkedCopy {
	var old []*parkedCopy
	for _, p := range o.parked.copies {
		if !p.Dead && !p.taken && now.UnixNano()-p.Since > int64(o.m.cfg.ParkedDead) {
			old = append(old, p)
		}
	}
	return old
}
