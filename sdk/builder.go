package sdk

import (
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// builder makes the blocks of a stream. It is the recorder's goroutine's.
type builder struct {
	out    output
	class  Class
	stream telemetry.Stream
	limit  int // bytes of objects after which a block is cut
	age    int64
	start  int64 // of the process, ns

	registered   bool
	registration []byte // the body of insert_stream
	kept         journaled
	block        telemetry.Block // of the open block; End* are of the last event
	deps, objs   []byte
	first        int64 // when the open block got its first event

	// What the open block has: an id may be defined once.
	no     uint32            // of the block
	sites  []uint32          // by site: the last block that has its record
	ids    map[uint64]bool   // texts and sets
	texts  map[string]uint64 // of this block alone
	sets   map[setKey]uint64 // of this block alone
	traces map[traceID]bool
}

// output takes what a builder makes.
type output interface {
	register(b *builder)
	send(b *builder, body []byte)
}

// setKey names a set of properties that a block alone has: that of an entry inside a span, or with properties in its record.
type setKey struct {
	props  uint32 // number + 1
	trace  traceID
	span   uint64
	inline string // the properties of a record, as they stand there
}

func newBuilder(out output, class Class, tag telemetry.Tag, process *telemetry.Process, props []telemetry.Property, limit int, age time.Duration) *builder {
	b := &builder{
		out: out, class: class, limit: limit, age: int64(age), start: process.StartTime,
		stream: telemetry.Stream{ID: telemetry.NewID(), ProcessID: process.ID, Tags: []string{tag.String()}, Properties: props},
		ids:    map[uint64]bool{}, texts: map[string]uint64{}, sets: map[setKey]uint64{}, traces: map[traceID]bool{},
	}
	switch tag {
	case telemetry.TagLog:
		b.stream.Dependencies, b.stream.Objects = wire.LogTypes()
	case telemetry.TagMetrics:
		b.stream.Dependencies, b.stream.Objects = wire.MetricsTypes()
	case telemetry.TagImage:
		b.stream.Dependencies, b.stream.Objects = wire.ImageTypes()
	default:
		b.stream.Dependencies, b.stream.Objects = wire.SpanTypes()
	}
	b.registration = wire.AppendStream(nil, &b.stream)
	b.open()
	return b
}

// open begins a block where the last one ended.
func (b *builder) open() {
	b.no++
	b.block = telemetry.Block{
		ID: telemetry.NewID(), StreamID: b.stream.ID, ProcessID: b.stream.ProcessID,
		BeginTicks: b.block.EndTicks, EndTicks: b.block.EndTicks,
		ObjectOffset: b.block.ObjectOffset + int64(b.block.NbObjects),
	}
	b.deps, b.objs = b.deps[:0], b.objs[:0]
	b.kept = journaled{}
	clear(b.ids)
	clear(b.texts)
	clear(b.sets)
	clear(b.traces)
}

// added counts an event, whose bytes are in objs, and cuts a full block. A block ends with the last event that came, or later.
func (b *builder) added(ns int64) {
	if b.block.NbObjects == 0 {
		b.first = ns
	}
	b.block.NbObjects++
	b.block.EndTicks = max(b.block.EndTicks, ns)
	if len(b.objs) >= b.limit || len(b.deps) >= b.limit {
		b.cut(ns)
	}
}

// cutOld cuts a block that is old enough at a moment.
func (b *builder) cutOld(now int64) {
	if b.block.NbObjects > 0 && now-b.first >= b.age {
		b.cut(now)
	}
}

// cut ends the block, at now or at its last event, and sends it. An empty one stays open.
func (b *builder) cut(now int64) {
	if b.block.NbObjects == 0 {
		return
	}
	if !b.registered {
		b.out.register(b)
		b.registered = true
	}
	b.block.EndTicks = max(b.block.EndTicks, now)
	head, deps, objs := b.head(), wire.Compress(nil, b.deps), wire.Compress(nil, b.objs)
	b.out.send(b, wire.AppendBlockTraces(nil, &head, deps, objs, b.traceSet()))
	b.open()
}

// head returns the envelope of the block as it is.
func (b *builder) head() telemetry.Block {
	h := b.block
	h.BeginTime, h.EndTime = b.start+h.BeginTicks, b.start+h.EndTicks
	return h
}

// site returns the id of a site's record, which is in the block then.
func (b *builder) site(s *site) uint64 {
	if int(s.id) >= len(b.sites) {
		grown := make([]uint32, max(64, 2*int(s.id)+2))
		copy(grown, b.sites)
		b.sites = grown
	}
	if b.sites[s.id] == b.no {
		return s.depID
	}
	b.sites[s.id] = b.no
	for _, t := range s.texts {
		if t.s != "" || t.id != 0 {
			b.text(t)
		}
	}
	m := wire.Metadata{
		ID: s.depID, Message: s.texts[0].id, Name: s.texts[0].id, Unit: s.texts[1].id, Target: s.texts[2].id, Module: s.texts[3].id, File: s.texts[4].id,
		Line: s.line, Level: uint32(s.verbosity),
	}
	switch {
	case s.kind == siteLog:
		m.Level = uint32(s.level)
		b.deps = wire.AppendLogMetadata(b.deps, &m)
	case s.kind != siteSpan:
		b.deps = wire.AppendMetricMetadata(b.deps, &m)
	case s.text == "":
		b.deps = wire.AppendSpanLocation(b.deps, &m)
	default:
		b.deps = wire.AppendSpanRecord(b.deps, &m)
	}
	return s.depID
}

// text puts an interned text into the block.
func (b *builder) text(t text) wire.StaticRef {
	if !b.ids[t.id] {
		b.ids[t.id] = true
		b.appendText(t.id, t.s)
	}
	return t.ref()
}

func (b *builder) appendText(id uint64, s string) {
	index := uint8(wire.DepStaticString)
	if b.class == ClassSpans {
		index = wire.CPUDepStaticString
	}
	b.deps = wire.AppendStaticString(b.deps, index, id, s)
}

// ownText puts a text into the block that is not interned.
func (b *builder) ownText(s string) wire.StaticRef {
	if id, ok := b.texts[s]; ok {
		return wire.StaticRef{ID: id, Len: uint32(len(s))}
	}
	ref := b.newText(s)
	b.texts[strings.Clone(s)] = ref.ID // it may lie in a chunk
	return ref
}

// set returns the id of a set of properties, which is in the block then.
func (b *builder) set(p *Properties) uint64 {
	if b.ids[p.depID] {
		return p.depID
	}
	b.ids[p.depID] = true
	refs := make([][2]wire.StaticRef, len(p.props))
	for i, kv := range p.props {
		refs[i] = [2]wire.StaticRef{b.text(kv.key), b.text(kv.value)}
	}
	b.appendSet(p.depID, refs)
	return p.depID
}

func (b *builder) appendSet(id uint64, refs [][2]wire.StaticRef) {
	if b.class == ClassSpans {
		b.deps = wire.AppendSpanPropertySet(b.deps, id, refs...)
		return
	}
	b.deps = wire.AppendPropertySet(b.deps, id, refs...)
}

// newText puts a text into the block that nothing else refers to.
func (b *builder) newText(s string) wire.StaticRef {
	id := nextID()
	b.appendText(id, s)
	return wire.StaticRef{ID: id, Len: uint32(len(s))}
}

// newSet puts a set into the block that nothing else refers to: the keys are interned, the values are of their own.
func (b *builder) newSet(keys []text, values []string) uint64 {
	refs := make([][2]wire.StaticRef, len(keys))
	for i, k := range keys {
		refs[i] = [2]wire.StaticRef{b.text(k), b.newText(values[i])}
	}
	id := nextID()
	b.appendSet(id, refs)
	return id
}

// ownSet returns the id of a set that is not interned.
func (b *builder) ownSet(props []telemetry.Property) uint64 {
	refs := make([][2]wire.StaticRef, len(props))
	for i, p := range props {
		refs[i] = [2]wire.StaticRef{b.ownText(p.Key), b.ownText(p.Value)}
	}
	id := nextID()
	b.appendSet(id, refs)
	return id
}

// traceSet returns the trace ids of the block, see wire.AppendBlockTraces.
func (b *builder) traceSet() wire.TraceSet {
	if len(b.traces) == 0 {
		return wire.TraceSet{}
	}
	ids := make([][16]byte, 0, len(b.traces))
	for t := range b.traces {
		ids = append(ids, t.bytes())
	}
	return wire.NewTraceSet(ids)
}
