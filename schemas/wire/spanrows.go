package wire

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Edge is one end of a span: the number of its scope in its block, and which end it is.
type Edge uint32

const maxScope = math.MaxInt32 // the largest number of a scope, for which an Edge has room

// NewEdge returns the begin of a span of that scope, or its end.
func NewEdge(scope int, end bool) Edge {
	e := Edge(scope) << 1
	if end {
		e |= 1
	}
	return e
}

// Scope returns the index in SpanBlock.Scopes.
func (e Edge) Scope() int { return int(e >> 1) }

// IsEnd tells an end from a begin.
func (e Edge) IsEnd() bool { return e&1 != 0 }

// ThreadEvent is the begin or the end of a span that a thread runs. They nest.
type ThreadEvent struct {
	Ticks int64 // absolute
	Index int32 // in the block, where every event counts
	Edge  Edge
}

// AsyncEvent is the begin or the end of an asynchronous span.
type AsyncEvent struct {
	Ticks  int64 // absolute
	Span   uint64
	Parent uint64 // 0 = none
	Depth  uint32
	Index  int32 // in the block, where every event counts
	Edge   Edge
}

// SpanProperties are properties of a span, beside those of its other such events.
type SpanProperties struct {
	Ticks int64  // absolute
	Span  uint64 // of a span of a thread: the index of its begin in the stream; of an asynchronous one: its id
	Set   *telemetry.PropertySet
	Index int32 // in the block, where every event counts
	Async bool
}

// SpanBlock is what a block of spans holds, each list in the block's order. It may be used again: its lists are then overwritten, but no
// text or property set that they hold. The texts of a block share memory, so one that is kept keeps the texts of all its block.
type SpanBlock struct {
	Scopes     []Scope // of Threads and Asyncs; the same may be there again
	Threads    []ThreadEvent
	Asyncs     []AsyncEvent
	Properties []SpanProperties // only if WantProperties
	Objects    int              // events of all types

	// Set by the caller: what is skipped is only checked, and its scopes are not listed.
	SkipThreads, SkipAsyncs, WantProperties bool
}

func (s *SpanBlock) reset() {
	clear(s.Properties)
	s.Scopes, s.Threads, s.Asyncs, s.Properties, s.Objects = s.Scopes[:0], s.Threads[:0], s.Asyncs[:0], s.Properties[:0], 0
}

// spanKind says what an event type is to Spans.
type spanKind uint8

const (
	spanNone spanKind = iota
	spanThread
	spanAsync
	spanThreadProperties
	spanAsyncProperties
)

// spanType is how a type of events is known by its name.
type spanType struct {
	kind spanKind
	end  bool
	desc string // member that refers to the record, or to the property set
	name string // member that refers to the name, if the span brings it
}

func spanTypeOf(name string) spanType {
	switch name {
	case "BeginThreadSpanEvent", "EndThreadSpanEvent":
		return spanType{spanThread, name[0] == 'E', "thread_span_desc", ""}
	case "BeginThreadNamedSpanEvent", "EndThreadNamedSpanEvent":
		return spanType{spanThread, name[0] == 'E', "thread_span_location", "name"}
	case "BeginAsyncSpanEvent", "EndAsyncSpanEvent":
		return spanType{spanAsync, name[0] == 'E', "span_desc", ""}
	case "BeginAsyncNamedSpanEvent", "EndAsyncNamedSpanEvent":
		return spanType{spanAsync, name[0] == 'E', "span_location", "name"}
	case ThreadSpanPropertiesEvent:
		return spanType{spanThreadProperties, false, "properties", ""}
	case AsyncSpanPropertiesEvent:
		return spanType{spanAsyncProperties, false, "properties", ""}
	}
	return spanType{}
}

// spanPlan is where an event type keeps what Spans needs of it.
type spanPlan struct {
	kind   spanKind
	end    uint32 // 1 in an Edge
	named  bool
	more   bool // it has other references than those to desc and name
	size   uint32
	err    error // why no instance can be read
	desc   uint32
	name   uint32
	time   uint32
	span   uint32
	parent uint32
	depth  leaf
}

func newSpanPlan(pl *eventPlan) spanPlan {
	t := spanTypeOf(pl.name)
	if t.kind == spanNone || pl.size == 0 || pl.reference {
		return spanPlan{}
	}
	p := spanPlan{kind: t.kind, named: t.name != "", size: pl.size, err: pl.err}
	if t.end {
		p.end = 1
	}
	need := func(name string, kinds ...kind) leaf {
		l := pl.leaf(name)
		if p.err == nil && !slices.Contains(kinds, l.kind) {
			p.err = errNoRow
		}
		return l
	}
	p.desc, p.time = need(t.desc, kindRef).offset, need("time", kindU64, kindI64).offset
	if p.named {
		p.name = need(t.name, kindRef).offset
	}
	switch t.kind {
	case spanAsync:
		p.span, p.parent = need("span_id", kindU64, kindI64).offset, need("parent_span_id", kindU64, kindI64).offset
		p.depth = need("depth", kindU32, kindU8)
	case spanThreadProperties, spanAsyncProperties:
		p.span = need("span", kindU64, kindI64).offset
	}
	for _, off := range pl.refs {
		p.more = p.more || off != p.desc && (!p.named || off != p.name)
	}
	return p
}

// Spans reads the spans of b into dst: the begins and ends of spans of a thread, those of asynchronous spans, and their properties, as
// far as dst wants them. Events that dst does not want are checked and not counted, those of other types skipped and counted as unknown.
// After an error, which is a *CorruptError, dst is empty.
func (d *Decoder) Spans(b *BlockBody, dst *SpanBlock) (Counts, error) {
	defer d.end()
	dst.reset()
	m := modeSpans
	if dst.WantProperties {
		m = modeSpanSets
	}
	buf, err := d.begin(b, m)
	if err != nil {
		return Counts{}, err
	}
	if d.spans == nil {
		d.spans = make([]spanPlan, len(d.evPlans))
		for i := range d.spans {
			d.spans[i] = newSpanPlan(&d.evPlans[i])
		}
	}
	d.named.reset()
	if at, err := d.spanEvents(b, buf, dst); err != nil {
		dst.reset()
		return Counts{}, corruptObject(b, at, err)
	}
	d.counts.Rows = len(dst.Threads) + len(dst.Asyncs) + len(dst.Properties)
	return d.counts, nil
}

// spanEvents reads all events. On an error it returns the offset of the event at fault.
func (d *Decoder) spanEvents(b *BlockBody, buf []byte, dst *SpanBlock) (int, error) {
	for p := 0; p < len(buf); dst.Objects++ {
		at := p
		i := int(buf[p])
		if i >= len(d.spans) {
			return at, errTypeIndex
		}
		pl := &d.spans[i]
		body, next, err := instance(buf, p+1, d.evPlans[i].size)
		if err != nil {
			return at, err
		}
		p = next
		switch {
		case pl.kind == spanNone:
			d.counts.Unknown++
			err = d.checkOther(&d.evPlans[i], body)
		case pl.err != nil:
			err = pl.err
		case pl.more:
			err = d.checkRefs(d.evPlans[i].refs, body)
		}
		if err != nil {
			return at, err
		}
		switch pl.kind {
		case spanThread:
			if dst.SkipThreads {
				err = d.checkRefs(d.evPlans[i].refs, body)
				break
			}
			if cap(dst.Threads) == 0 {
				dst.Threads = make([]ThreadEvent, 0, room(b, dst.Objects, len(buf)-at, pl.size))
			}
			err = d.threadEvent(pl, body, dst)
		case spanAsync:
			if dst.SkipAsyncs {
				err = d.checkRefs(d.evPlans[i].refs, body)
				break
			}
			if cap(dst.Asyncs) == 0 {
				dst.Asyncs = make([]AsyncEvent, 0, room(b, dst.Objects, len(buf)-at, pl.size))
			}
			err = d.asyncEvent(pl, body, dst)
		case spanThreadProperties, spanAsyncProperties:
			err = d.spanProperties(pl, body, dst)
		}
		if err != nil {
			return at, err
		}
	}
	return 0, nil
}

// room returns for how many events to make room at the first one: those that the block claims after index, as far as its bytes can
// hold them.
func room(b *BlockBody, index, bytes int, size uint32) int {
	return max(1, min(int(b.NbObjects)-index, bytes/int(1+size)))
}

func (d *Decoder) edge(pl *spanPlan, body []byte, dst *SpanBlock) (Edge, error) {
	var scope int32
	var err error
	id := binary.LittleEndian.Uint64(body[pl.desc:])
	if pl.named {
		scope, err = d.namedScopeOf(id, binary.LittleEndian.Uint64(body[pl.name:]), dst)
	} else {
		scope, err = d.scopeOf(id, dst)
	}
	return Edge(uint32(scope)<<1 | pl.end), err
}

func (d *Decoder) threadEvent(pl *spanPlan, body []byte, dst *SpanBlock) error {
	edge, err := d.edge(pl, body, dst)
	if err != nil {
		return err
	}
	dst.Threads = append(dst.Threads, ThreadEvent{
		Ticks: int64(binary.LittleEndian.Uint64(body[pl.time:])), Index: int32(dst.Objects), Edge: edge,
	})
	return nil
}

func (d *Decoder) asyncEvent(pl *spanPlan, body []byte, dst *SpanBlock) error {
	edge, err := d.edge(pl, body, dst)
	if err != nil {
		return err
	}
	depth, _ := levelAt(body, pl.depth)
	dst.Asyncs = append(dst.Asyncs, AsyncEvent{
		Ticks: int64(binary.LittleEndian.Uint64(body[pl.time:])), Index: int32(dst.Objects), Edge: edge,
		Span: binary.LittleEndian.Uint64(body[pl.span:]), Parent: binary.LittleEndian.Uint64(body[pl.parent:]), Depth: uint32(depth),
	})
	return nil
}

func (d *Decoder) spanProperties(pl *spanPlan, body []byte, dst *SpanBlock) error {
	i, err := d.indexOf(binary.LittleEndian.Uint64(body[pl.desc:]), depSet)
	if err != nil || !dst.WantProperties {
		return err
	}
	dst.Properties = append(dst.Properties, SpanProperties{
		Ticks: int64(binary.LittleEndian.Uint64(body[pl.time:])), Span: binary.LittleEndian.Uint64(body[pl.span:]),
		Set: d.sets[i].props, Index: int32(dst.Objects), Async: pl.kind == spanAsyncProperties,
	})
	return nil
}
