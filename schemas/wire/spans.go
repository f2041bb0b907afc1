package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// What this house's library adds to the format, see FORMAT.md §7: properties of spans, as events of their own that older readers skip,
// and the trace ids of a block in its envelope, as keys that older readers skip.

// Type indices of SpanTypes beyond those of CPUTypes.
const (
	SpanDepPropertySet = CPUDepStaticString + 1

	SpanThreadProperties = CPUEndAsyncNamedSpan + 2 // after StringId
	SpanAsyncProperties  = SpanThreadProperties + 1
)

// Names of the events that carry properties of spans.
const (
	ThreadSpanPropertiesEvent = "ThreadSpanProperties"
	AsyncSpanPropertiesEvent  = "AsyncSpanProperties"
)

// SpanTypes returns the layouts of a stream of spans with properties: those of CPUTypes and what properties need.
func SpanTypes() (deps, objs []telemetry.Type) {
	deps, objs = CPUTypes()
	rows := rowDependencies(telemetry.Type{})
	deps = append(deps, rows[DepPropertySet:]...) // the set, Property, StaticStringRef
	properties := func(name string) telemetry.Type {
		return static(name, 24, member("span", "u64", 0, 8), ref("properties", "& 'static PropertySet", 8), member("time", "i64", 16, 8))
	}
	return deps, append(objs, properties(ThreadSpanPropertiesEvent), properties(AsyncSpanPropertiesEvent))
}

// AppendSpanPropertySet is AppendPropertySet for a stream of SpanTypes.
func AppendSpanPropertySet(dst []byte, id uint64, props ...[2]StaticRef) []byte {
	return appendPropertySet(dst, SpanDepPropertySet, id, props)
}

// AppendSpanProperties appends properties of a span: index is SpanThreadProperties, and span the event id of the span's begin (its index
// in the stream); or index is SpanAsyncProperties, and span its id.
func AppendSpanProperties(dst []byte, index uint8, span, props uint64, ticks int64) []byte {
	dst = le.AppendUint64(append(dst, index), span)
	dst = le.AppendUint64(dst, props)
	return le.AppendUint64(dst, uint64(ticks))
}

// Bounds of a TraceSet.
const (
	MaxTraceIDs    = 256     // named one by one
	traceIDBytes   = 16      // of an id
	minFilterBytes = 1 << 10 // of a filter; always a power of two
	maxFilterBytes = 64 << 10
	filterProbes   = 7
	filterBits     = 10 // for each id: one of 100 absent ids is found, until the filter's bound
)

var errTraceSet = errors.New("trace ids are neither whole ids nor a filter")

// TraceSet is the trace ids of a block: IDs, 16 bytes each, ascending, at most MaxTraceIDs of them; or, of more, a Bloom filter. At most one
// of the two is there; the slices may alias the body.
type TraceSet struct {
	IDs    []byte
	Filter []byte
}

// NewTraceSet returns the set of ids, which are all different. It may reorder them.
func NewTraceSet(ids [][traceIDBytes]byte) TraceSet {
	if len(ids) <= MaxTraceIDs {
		slices.SortFunc(ids, func(a, b [traceIDBytes]byte) int { return bytes.Compare(a[:], b[:]) })
		var s TraceSet
		for i := range ids {
			s.IDs = append(s.IDs, ids[i][:]...)
		}
		return s
	}
	size := minFilterBytes
	for size < maxFilterBytes && size*8 < len(ids)*filterBits {
		size *= 2
	}
	s := TraceSet{Filter: make([]byte, size)}
	for i := range ids {
		for bit := range probes(ids[i], size) {
			s.Filter[bit>>3] |= 1 << (bit & 7)
		}
	}
	return s
}

// MayHold reports whether a trace id may be in the set. An answer of false is certain.
func (s TraceSet) MayHold(id [traceIDBytes]byte) bool {
	for i := 0; i < len(s.IDs); i += traceIDBytes {
		if [traceIDBytes]byte(s.IDs[i:i+traceIDBytes]) == id {
			return true
		}
	}
	if len(s.Filter) == 0 {
		return false
	}
	for bit := range probes(id, len(s.Filter)) {
		if s.Filter[bit>>3]&(1<<(bit&7)) == 0 {
			return false
		}
	}
	return true
}

// probes yields the bits of an id in a filter of size bytes, a power of two: double hashing (Kirsch and Mitzenmacher 2006) over both
// halves of the id, mixed since ids of other makers need not be random.
func probes(id [traceIDBytes]byte, size int) func(func(uint64) bool) {
	h1, h2 := mix(le.Uint64(id[:8])), mix(le.Uint64(id[8:])+0x9e3779b97f4a7c15)
	step := (h1^bits.RotateLeft64(h2, 32))*2 + 1 // odd: it reaches all bits
	at := h1 + h2
	return func(yield func(uint64) bool) {
		for range filterProbes {
			if !yield(at & (uint64(size)*8 - 1)) {
				return
			}
			at += step
		}
	}
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

var traceKeys = []string{"trace_ids", "trace_filter"}

// AppendBlockTraces is AppendBlock for a block with the trace ids of its events.
func AppendBlockTraces(dst []byte, b *telemetry.Block, deps, objs []byte, traces TraceSet) []byte {
	n := len(blockKeys)
	if len(traces.IDs) > 0 || len(traces.Filter) > 0 {
		n++
	}
	dst = appendBlockFields(appendHead(dst, majorMap, uint64(n)), b, deps, objs)
	switch {
	case len(traces.IDs) > 0:
		dst = append(appendHead(appendText(dst, traceKeys[0]), majorBytes, uint64(len(traces.IDs))), traces.IDs...)
	case len(traces.Filter) > 0:
		dst = append(appendHead(appendText(dst, traceKeys[1]), majorBytes, uint64(len(traces.Filter))), traces.Filter...)
	}
	return dst
}

// DecodeBlockTraces reads the trace ids of an insert_block body; a block without any has an empty set.
func DecodeBlockTraces(body []byte) (s TraceSet, err error) {
	r := reader{b: body}
	c, err := r.open(majorMap, errNotMap)
	if err != nil {
		return s, fmt.Errorf("decode trace ids: %w", err)
	}
	var seen uint32
	for {
		i, err := r.nextField(&c, traceKeys, &seen)
		if err == nil && i >= 0 {
			var data []byte
			if data, _, err = r.octets(true); err == nil {
				err = s.set(i, data)
			}
		}
		if err != nil {
			return TraceSet{}, fmt.Errorf("decode trace ids: %w", err)
		}
		if i < 0 {
			return s, nil
		}
	}
}

// set takes the value of a key.
func (s *TraceSet) set(key int, data []byte) error {
	if key == 0 {
		s.IDs = data
		if len(data)%traceIDBytes != 0 || len(data) > MaxTraceIDs*traceIDBytes {
			return errTraceSet
		}
		return nil
	}
	s.Filter = data
	if len(data) < minFilterBytes || len(data) > maxFilterBytes || len(data)&(len(data)-1) != 0 {
		return errTraceSet
	}
	return nil
}
