package perfetto

import (
	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// trackKind is how the slices of a track are written.
type trackKind uint8

const (
	paired  trackKind = iota // each end behind its begin
	nested                   // in the order of time
	async                    // as paired, but only what has a duration
	laned                    // on lanes
	counted                  // a curve
)

// Track is a line of the viewer with the slices of a thread, of asynchronous operations, or of something else.
type Track struct {
	process *Process
	uuid    uint64
	kind    trackKind
	thread  bool
	written int
	open    []slice
	lanes   *lanes
}

// slice is one that has begun.
type slice struct {
	end   int64
	id    int64
	depth uint32
}

// Span writes a span as a slice; Depth counts on nested tracks, ID and Parent on lanes, and Hash nowhere.
//
// Spans of a thread come in the order of their begins, parents before children. On nested tracks a span that outlives the
// one around it is cut where that ends. Spans of the asynchronous track come in the order of their begins; those
// without a duration are left out and counted, as are those for which there is no lane.
func (t *Track) Span(s *telemetry.Span) error {
	return t.SpanWith(s, nil)
}

// SpanWith writes a span that has arguments.
func (t *Track) SpanWith(s *telemetry.Span, args []Arg) error {
	w := t.process.w
	if w.err != nil {
		return w.err
	}
	w.flushThreads()
	switch t.kind {
	case paired:
		t.pair(s, args)
	case nested:
		t.leave(s)
		t.enter(s, args)
	case async:
		if s.Begin >= s.End {
			w.stats.Skipped++
			return w.err
		}
		t.pair(s, args)
	case laned:
		lane := t.lanes.lane(s)
		if lane == nil {
			w.stats.Skipped++
			return w.err
		}
		lane.enter(s, args)
	}
	w.stats.Spans++
	if t.written++; t.written%spansPerFlush == 0 {
		w.flush()
	}
	return w.err
}

// pair writes begin and end of a span.
func (t *Track) pair(s *telemetry.Span, args []Arg) {
	w := t.process.w
	scope := t.begin(s, args)
	w.event.fill(tracepb.TrackEvent_TYPE_SLICE_END, t.uuid, s.End)
	w.event.scope(scope)
	w.writePacket(&w.event.packet)
}

// begin writes the begin of a span.
func (t *Track) begin(s *telemetry.Span, args []Arg) scope {
	w := t.process.w
	w.bound()
	scope := w.names.scope(s.Name, s.Target, s.Filename, s.Line)
	w.event.fill(tracepb.TrackEvent_TYPE_SLICE_BEGIN, t.uuid, s.Begin)
	w.event.scope(scope)
	w.writeEvent(args)
	return scope
}

// enter writes the begin of a span within those that are open.
func (t *Track) enter(s *telemetry.Span, args []Arg) {
	end := max(s.Begin, s.End)
	if n := len(t.open); n > 0 {
		end = min(end, t.open[n-1].end)
	}
	t.begin(s, args)
	t.open = append(t.open, slice{end: end, id: s.ID, depth: s.Depth})
}

// leave ends the slices that a span is not within.
func (t *Track) leave(s *telemetry.Span) {
	for n := len(t.open); n > 0; n = len(t.open) {
		if top := t.open[n-1]; top.depth < s.Depth && top.end >= s.Begin {
			return
		}
		t.endTop()
	}
}

// endTop ends the innermost open slice.
func (t *Track) endTop() slice {
	w, top := t.process.w, t.open[len(t.open)-1]
	t.open = t.open[:len(t.open)-1]
	w.event.fill(tracepb.TrackEvent_TYPE_SLICE_END, t.uuid, top.end)
	w.writePacket(&w.event.packet)
	return top
}

func (t *Track) endAll() {
	for len(t.open) > 0 {
		t.endTop()
	}
}

// writeEvent writes the event that has been filled in, with arguments and what it introduces.
func (w *Writer) writeEvent(args []Arg) {
	if len(args) > 0 {
		w.annotate(args)
	}
	if w.names.fresh != nil {
		w.event.packet.InternedData = w.names.fresh
	}
	w.writePacket(&w.event.packet)
	w.names.fresh = nil
	w.event.track.DebugAnnotations = nil
}

// bound forgets interned strings when there are too many. Only the begin of something that uses them may follow.
func (w *Writer) bound() {
	if w.names.full(w.opts.MaxInterned, w.opts.MaxInternedBytes) {
		w.names.forget()
		w.stats.Resets++
	}
}
