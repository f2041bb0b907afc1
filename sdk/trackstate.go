package sdk

import (
	"slices"
	"strconv"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// trackState is what the recorder knows of a track: its blocks, and the spans that are open in them. What a track wrote is checked against
// these, so that begins and ends match in the blocks whatever was lost.
type trackState struct {
	r    *recorder
	b    *builder
	open []recordedSpan
	last int64 // ns of the last event
}

// recordedSpan is an open span whose begin is in a block.
type recordedSpan struct {
	depth int
	site  *site
	name  string // of a span with a name of its own
	event int64  // id of its begin
}

// drainTracks takes what tracks wrote, and forgets those that are closed.
func (r *recorder) drainTracks(now int64, all bool) {
	tracks.Lock()
	queues := slices.Clone(tracks.all)
	tracks.Unlock()
	ended := map[*trackQueue]bool{}
	for _, q := range queues {
		if r.drainTrack(q, now, all) {
			ended[q] = true
		}
	}
	if len(ended) == 0 {
		return
	}
	tracks.Lock()
	defer tracks.Unlock()
	tracks.all = slices.DeleteFunc(tracks.all, func(q *trackQueue) bool { return ended[q] })
}

// drainTrack takes what a track wrote, and reports whether that was the last.
func (r *recorder) drainTrack(q *trackQueue, now int64, all bool) (ended bool) {
	closed := q.closed.Load() // before its words: what comes later is dropped
	if q.unread == nil {
		q.unread = q.first.Load()
	}
	if q.unread != nil {
		if q.state == nil || q.state.r != r {
			q.state = r.newTrackState(q)
		}
		q.unread = q.unread.drain(q.state.records)
	}
	t := q.state
	if closed && t != nil && t.r == r {
		t.endTo(-1, now)
		t.b.cut(now)
		if q.unread != nil {
			memory.leave(q.unread) // a track that is used after its end writes there
			q.unread = nil
		}
	}
	if closed || t == nil {
		return closed
	}
	if all {
		t.b.cut(now)
	} else {
		t.b.cutOld(now)
	}
	r.keep(t.b)
	return false
}

func (r *recorder) newTrackState(q *trackQueue) *trackState {
	props := []telemetry.Property{{Key: "thread-id", Value: strconv.Itoa(q.no)}, cleanProperty(telemetry.Property{Key: "thread-name", Value: q.name})}
	return &trackState{r: r, b: r.builder(ClassSpans, telemetry.TagCPU, r.cfg.SpanAge, props)}
}

// records takes records of the track.
func (t *trackState) records(w []uint64) {
	for len(w) >= 2 {
		n := trackWords(w)
		if n == 0 || n > len(w) {
			drops.add(dropInvalid, 1)
			return
		}
		t.record(w[:n])
		w = w[n:]
	}
}

// trackWords returns the length of the record at the begin of w, 0 = it is none.
func trackWords(w []uint64) int {
	words := func(n uint64) int { return int(min(n, maxRecord)+wordBytes-1) / wordBytes }
	switch k := head(w[0]).kind(); {
	case k == kindBegin || k == kindEnd:
		return 2
	case k == kindProps:
		return 3
	case k == kindBeginNamed && len(w) > 3:
		return 3 + words(w[2])
	case k == kindProp && len(w) > 4:
		return 4 + words(w[2]) + words(w[3])
	}
	return 0
}

func (t *trackState) record(w []uint64) {
	h := head(w[0])
	depth := h.words()
	ns := max(t.last, t.r.clock.ns(int64(w[1])))
	t.last = ns
	switch h.kind() {
	case kindBegin, kindBeginNamed:
		s := t.r.siteOf(h)
		if s == nil {
			drops.add(dropInvalid, 1)
			return
		}
		name := ""
		if h.kind() == kindBeginNamed {
			name = nameIn(w[3:], int(w[2]))
		}
		t.endTo(depth-1, ns)
		t.begin(recordedSpan{depth: depth, site: s, name: name}, ns)
	case kindEnd:
		t.endTo(depth, ns)
		if n := len(t.open); n > 0 && t.open[n-1].depth == depth {
			t.endTo(depth-1, ns)
		}
	case kindProps:
		if p := t.r.propsOf(w[2]); p != nil {
			t.properties(depth, t.b.set(p), ns)
		}
	case kindProp:
		if p, ok := propertyIn(w[2:]); ok {
			t.properties(depth, t.b.ownSet([]telemetry.Property{cleanProperty(p)}), ns)
		}
	}
}

func (t *trackState) begin(s recordedSpan, ns int64) {
	s.event = t.b.block.ObjectOffset + int64(t.b.block.NbObjects)
	t.open = append(t.open, s)
	t.edge(&s, wire.CPUBeginThreadSpan, wire.CPUBeginThreadNamedSpan, ns)
}

// endTo ends the open spans that are deeper than depth.
func (t *trackState) endTo(depth int, ns int64) {
	for n := len(t.open); n > 0 && t.open[n-1].depth > depth; n-- {
		s := t.open[n-1]
		t.open = t.open[:n-1]
		t.edge(&s, wire.CPUEndThreadSpan, wire.CPUEndThreadNamedSpan, ns)
	}
}

func (t *trackState) edge(s *recordedSpan, plain, named uint8, ns int64) {
	b := t.b
	desc := b.site(s.site)
	if s.site.text == "" {
		b.objs = wire.AppendThreadNamedSpan(b.objs, named, desc, b.ownText(s.name), ns)
	} else {
		b.objs = wire.AppendThreadSpan(b.objs, plain, desc, ns)
	}
	b.added(ns)
}

// properties appends properties of the open span at a depth.
func (t *trackState) properties(depth int, set uint64, ns int64) {
	for _, s := range slices.Backward(t.open) {
		if s.depth == depth {
			t.b.objs = wire.AppendSpanProperties(t.b.objs, wire.SpanThreadProperties, uint64(s.event), set, ns)
			t.b.added(ns)
			return
		}
	}
}
