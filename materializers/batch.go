package materializers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// ErrTooManyRows is what a view's Append fails with when a block has more rows than Source.MaxRows.
var ErrTooManyRows = errors.New("too many rows in one block")

// place is the place of a record in one generation of one shard.
type place struct {
	seq uint64
	rec int32
}

func (p place) compare(o place) int {
	switch {
	case p.seq != o.seq && p.seq < o.seq:
		return -1
	case p.seq != o.seq:
		return 1
	default:
		return int(p.rec) - int(o.rec)
	}
}

// segment is the rows of one block in a batch.
type segment struct {
	place
	view             int   // index of the view
	begin, end       int   // rows
	minTime, maxTime int64 // of the rows
	insertTime       int64
	process          telemetry.ID
	parked           *parkedCopy // the parked copy that these rows come from; nil for a block of this batch
	dropped          bool        // archive skips the copy
}

// waiting is a block of this batch whose registration has not come.
type waiting struct {
	place
	record bus.Record
	kept   bool // the record's body is in memory
}

// deadCopy is a block that cannot be built.
type deadCopy struct {
	place
	record bus.Record // without body
	view   string
	reason string
	parked *parkedCopy
	told   bool // the dead letter is sent
}

// batch is what an owner has read and not committed.
type batch struct {
	rows     []*columnar.Rows // by view
	segments []segment
	waiting  []waiting
	dead     []deadCopy
	foreseen map[place]struct{} // copies that archive is expected to skip, and that are left out

	bytesRead    int // of frames
	bytesWaiting int
	since        time.Time // when the first frame or parked copy was added; zero = empty
	dropped      wire.Counts
}

func newBatch(views []View) *batch {
	b := &batch{foreseen: map[place]struct{}{}}
	for _, v := range views {
		b.rows = append(b.rows, columnar.NewRows(v.Table))
	}
	return b
}

func (b *batch) reset() {
	for _, r := range b.rows {
		r.Reset()
	}
	clear(b.segments)
	clear(b.waiting)
	clear(b.dead)
	clear(b.foreseen)
	b.segments, b.waiting, b.dead = b.segments[:0], b.waiting[:0], b.dead[:0]
	b.bytesRead, b.bytesWaiting, b.since, b.dropped = 0, 0, time.Time{}, wire.Counts{}
}

// touch notes when the batch became one.
func (b *batch) touch() {
	if b.since.IsZero() {
		b.since = time.Now()
	}
}

func (b *batch) rowCount() int {
	n := 0
	for _, r := range b.rows {
		n += r.Len()
	}
	return n
}

// full reports whether the batch has reached a bound.
func (b *batch) full(cfg Config) bool {
	if b.bytesRead >= cfg.CommitBytes || b.rowCount() >= cfg.CommitRows {
		return true
	}
	n := 0
	for _, r := range b.rows {
		n += r.Bytes()
	}
	return n >= cfg.CommitBytes
}

// input is one block to build, from the bus or from a parked copy.
type input struct {
	place
	record bus.Record // with Body
	parked *parkedCopy
}

// build appends the rows of a block. It returns false when a registration is missing. Errors are trouble of the catalog, the batch
// cannot go on then; a block that cannot be built becomes dead.
func (o *owner) build(ctx context.Context, in *input) (bool, error) {
	known, err := o.registry.stream(ctx, in.record.StreamID)
	if err != nil || known == nil {
		return false, err
	}
	view := slices.IndexFunc(o.m.views, func(v View) bool { return v.Tag == known.tag })
	if view < 0 {
		if in.parked != nil {
			o.batch.segments = append(o.batch.segments, segment{place: in.place, view: -1, parked: in.parked})
		}
		return true, nil // a stream of another kind: archived, and that is all
	}
	process, err := o.registry.process(ctx, in.record.ProcessID)
	if err != nil || process == nil {
		return false, err
	}
	if err := o.appendRows(in, view, known, process); err != nil {
		o.bury(in, o.m.views[view].Table.Name, reasonOf(err))
	}
	return true, nil
}

// bury notes a block as dead.
func (o *owner) bury(in *input, view, reason string) {
	record := in.record
	record.Body = nil
	o.batch.dead = append(o.batch.dead, deadCopy{place: in.place, record: record, view: view, reason: reason, parked: in.parked})
}

// maxReasonBytes bounds the reason of a dead letter.
const maxReasonBytes = 500

// deadError is why a block is dead: a kind, by which dead letters are counted, and details.
type deadError struct {
	kind string
	err  error
}

func (e *deadError) Error() string { return e.kind + ": " + e.err.Error() }

// reasonOf returns the reason of a dead letter, with its kind before the first colon.
func reasonOf(err error) string {
	s := err.Error()
	var corrupt *wire.CorruptError
	switch {
	case errors.As(err, &corrupt):
		s = "corrupt: " + strings.TrimPrefix(s, "corrupt block "+corrupt.Block.String()+": ")
	case errors.Is(err, ErrTooManyRows):
		s = "too large: " + s
	}
	if len(s) > maxReasonBytes {
		s = strings.ToValidUTF8(s[:maxReasonBytes], "")
	}
	return s
}

// largeBlock is the compressed size of events from which a decoder is not kept: its buffers have grown.
const largeBlock = 2 << 20

// appendRows decodes a block into its view's rows, or leaves them as they were.
func (o *owner) appendRows(in *input, view int, known *stream, process *Process) (err error) {
	rows := o.batch.rows[view]
	before := rows.Len()
	defer func() {
		if r := recover(); r != nil { // a mistake of ours: one block must not stop the others
			err = &deadError{"panic", fmt.Errorf("%v", r)}
			o.log.Error("block decoder panicked", "block_id", in.record.BlockID.String(), "panic", r)
		}
		rows.Forget()
		if err != nil {
			rows.Truncate(before)
		}
	}()
	if known.format != telemetry.FormatTransit {
		return &deadError{"format", fmt.Errorf("%q is not known", known.format)}
	}
	body, err := wire.DecodeBlock(in.record.Body)
	if err != nil {
		return &deadError{"envelope", err}
	}
	clock, err := telemetry.NewClock(process.Process, body.Block)
	if err != nil {
		return &deadError{"clock", err}
	}
	decoder, err := o.registry.decoder(known)
	if err != nil {
		return &deadError{"layout", err}
	}
	if len(body.Dependencies)+len(body.Objects) > largeBlock {
		defer o.registry.dropDecoder(known)
	}
	insertTime := in.record.InsertTimeUs * 1000
	counts, err := o.m.views[view].Append(rows, &Source{
		Process: process, StreamID: in.record.StreamID.String(), BlockID: in.record.BlockID.String(), InsertTime: insertTime,
		Block: &body, Decoder: decoder, Clock: clock, MaxRows: o.m.cfg.MaxBlockRows,
	})
	if err != nil {
		return err
	}
	o.m.stats.count(counts)
	s := segment{place: in.place, view: view, begin: before, end: rows.Len(), insertTime: insertTime, process: in.record.ProcessID, parked: in.parked}
	if times := rows.Columns[ColumnTime].Ints[s.begin:s.end]; len(times) > 0 {
		s.minTime, s.maxTime = slices.Min(times), slices.Max(times)
	}
	if s.begin < s.end || s.parked != nil {
		o.batch.segments = append(o.batch.segments, s)
	}
	return nil
}

// skipSet is archive's verdicts on the copies of a batch.
type skipSet map[place]struct{}

func skipsOf(skips []catalog.Skip) skipSet {
	set := make(skipSet, len(skips))
	for _, s := range skips {
		set[place{s.Seq, s.Rec}] = struct{}{}
	}
	return set
}

// errForeseen: a copy was left out that archive counts. The batch must be read again.
var errForeseen = errors.New("a copy was taken for a duplicate that archive counts")

// apply drops what archive skips from the batch. It reports whether rows were dropped, and errForeseen when rows are missing.
func (b *batch) apply(skips skipSet) (changed bool, err error) {
	for p := range b.foreseen {
		if _, ok := skips[p]; !ok {
			return false, errForeseen
		}
	}
	if len(skips) == len(b.foreseen) {
		return false, nil
	}
	for i := range b.segments {
		s := &b.segments[i]
		if _, ok := skips[s.place]; ok && s.parked == nil && !s.dropped {
			s.dropped = true
			changed = true
		}
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(w waiting) bool { _, ok := skips[w.place]; return ok })
	b.dead = slices.DeleteFunc(b.dead, func(d deadCopy) bool {
		_, ok := skips[d.place]
		return ok && d.parked == nil
	})
	return changed, nil
}

// seenBlocks remembers the blocks that were seen last, to foresee which copies archive skips. It holds between limit and
// twice limit keys.
type seenBlocks struct {
	limit      int
	young, old map[catalog.BlockKey]struct{}
}

// add remembers a block and reports whether it was seen before.
func (s *seenBlocks) add(k catalog.BlockKey) bool {
	if _, ok := s.young[k]; ok {
		return true
	}
	if _, ok := s.old[k]; ok {
		return true
	}
	if s.young == nil || len(s.young) >= s.limit {
		s.young, s.old = make(map[catalog.BlockKey]struct{}, s.limit/8), s.young
	}
	s.young[k] = struct{}{}
	return false
}
