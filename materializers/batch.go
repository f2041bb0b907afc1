package materializers

import (
	"errors"
	"slices"
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

// forget makes the block be new again.
func (s *seenBlocks) forget(k catalog.BlockKey) {
	delete(s.young, k)
	delete(s.old, k)
}
