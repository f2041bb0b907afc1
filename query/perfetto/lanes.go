package perfetto

import (
	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// lanes pack asynchronous spans, which come in the order of their begins, on tracks that lie side by side:
//
//	span 1         |-----------------|            lane 0
//	span 2, of 1     |-------|                    lane 0, within 1
//	span 3, of 1       |---------|                lane 1: 2 is still open on lane 0
//	span 4, of 2         |---------------|        lane 2: it outlives its parent
//	span 5                             |-----|    lane 0 … whichever is free and has the lowest number
//
// A span goes where its parent is, if that is the innermost slice there and outlasts it; else on the free lane of the
// lowest number; else on a new one. So slices of a lane nest, and nest only in their parents.
type lanes struct {
	track *Track
	all   []*Track
	free  laneHeap        // lanes whose outermost slice has ended, by number
	busy  laneHeap        // the others, by that end
	open  map[int64]int32 // lanes of open slices, by span
}

// newLanes makes lanes of which t, which has been introduced, is the first.
func newLanes(t *Track) *lanes {
	return &lanes{track: t, all: []*Track{t}, free: laneHeap{{}}, open: map[int64]int32{}}
}

// lane returns where a span begins, with what has ended before it ended; nil if there is no place for it.
func (l *lanes) lane(s *telemetry.Span) *Track {
	if s.Begin >= s.End {
		return nil
	}
	l.release(s.Begin)
	if lane, ok := l.parent(s); ok {
		l.open[s.ID] = lane
		return l.all[lane]
	}
	lane, ok := l.unused()
	if !ok {
		return nil
	}
	l.leave(l.all[lane], s.Begin)
	l.busy.push(laneKey{s.End, lane})
	l.open[s.ID] = lane
	return l.all[lane]
}

// release makes lanes free whose outermost slice has ended by t.
func (l *lanes) release(t int64) {
	for len(l.busy) > 0 && l.busy[0].key <= t {
		lane := l.busy.pop().lane
		l.free.push(laneKey{int64(lane), lane})
	}
}

// parent returns the lane of a span's parent if the span fits into it.
func (l *lanes) parent(s *telemetry.Span) (int32, bool) {
	lane, ok := l.open[s.Parent]
	if !ok || s.Parent == 0 {
		return 0, false
	}
	t := l.all[lane]
	l.leave(t, s.Begin)
	if n := len(t.open); n > 0 && t.open[n-1].id == s.Parent && t.open[n-1].end >= s.End {
		return lane, true
	}
	return 0, false
}

// unused returns a free lane, a new one if there is none.
func (l *lanes) unused() (int32, bool) {
	if len(l.free) > 0 {
		return l.free.pop().lane, true
	}
	if len(l.all) >= l.track.process.w.opts.MaxLanes {
		return 0, false
	}
	return l.add(), true
}

// add introduces another lane: a track of the same name and parent as the first, which viewers take for one group.
func (l *lanes) add() int32 {
	p, n := l.track.process, len(l.all)
	t, _ := p.track(l.track.uuid+uint64(n), nested) // as good as another hash: the first is one
	p.w.writeTrack(&tracepb.TrackDescriptor{Uuid: &t.uuid, Name: new(asyncName), ParentUuid: &p.uuid})
	l.all = append(l.all, t)
	return int32(n)
}

// leave ends the slices of a lane that have ended by t.
func (l *lanes) leave(t *Track, begin int64) {
	for n := len(t.open); n > 0 && t.open[n-1].end <= begin; n = len(t.open) {
		delete(l.open, t.endTop().id)
	}
}
