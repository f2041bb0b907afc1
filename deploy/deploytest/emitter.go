package deploytest

import (
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Emitter builds the two buffers of a log or metrics block, as a client does.
type Emitter struct {
	Deps, Objs []byte // uncompressed
	Count      int32  // of events
	ids        map[string]uint64
}

// define returns the id of a dependency, appending it with write the first time.
func (e *Emitter) define(key string, write func(id uint64)) uint64 {
	if e.ids == nil {
		e.ids = map[string]uint64{}
	}
	id, ok := e.ids[key]
	if !ok {
		id = uint64(len(e.ids) + 1)
		e.ids[key] = id
		write(id)
	}
	return id
}

// static is a string that records refer to.
func (e *Emitter) static(s string) uint64 {
	return e.define("static "+s, func(id uint64) { e.Deps = wire.AppendStaticString(e.Deps, wire.DepStaticString, id, s) })
}

// ref is a string that property sets refer to.
func (e *Emitter) ref(s string) wire.StaticRef {
	id := e.define("ref "+s, func(id uint64) {
		e.Deps = wire.AppendStaticStringDependency(e.Deps, wire.DepStaticStringDependency, id, s)
	})
	return wire.StaticRef{ID: id, Len: uint32(len(s))}
}

// set is a property set, given as key, value, key, value.
func (e *Emitter) set(pairs ...string) uint64 {
	var refs [][2]wire.StaticRef
	for pair := range slices.Chunk(pairs, 2) {
		refs = append(refs, [2]wire.StaticRef{e.ref(pair[0]), e.ref(pair[1])})
	}
	key := "set " + strings.Join(pairs, "\x00")
	return e.define(key, func(id uint64) { e.Deps = wire.AppendPropertySet(e.Deps, id, refs...) })
}

// Log appends a log entry with the properties given as key, value pairs.
func (e *Emitter) Log(ticks int64, level uint32, target, msg string, pairs ...string) {
	m := wire.Metadata{Message: e.static("{}"), Target: e.static(target), Module: e.static(target), File: e.static("game.cpp"), Line: 1, Level: level}
	desc := e.define("log "+target+string(rune('0'+level)), func(id uint64) { m.ID = id; e.Deps = wire.AppendLogMetadata(e.Deps, &m) })
	e.Count++
	if len(pairs) == 0 {
		e.Objs = wire.AppendLogString(e.Objs, desc, ticks, msg)
		return
	}
	e.Objs = wire.AppendLogTagged(e.Objs, desc, e.set(pairs...), ticks, msg)
}

func (e *Emitter) metric(target, name, unit string) uint64 {
	m := wire.Metadata{Name: e.static(name), Unit: e.static(unit), Target: e.static(target), File: e.static("game.cpp"), Line: 1, Level: 2}
	return e.define("metric "+target+name+unit, func(id uint64) { m.ID = id; e.Deps = wire.AppendMetricMetadata(e.Deps, &m) })
}

// Float appends a measure with the properties given as key, value pairs.
func (e *Emitter) Float(ticks int64, target, name, unit string, value float64, pairs ...string) {
	desc := e.metric(target, name, unit)
	e.Count++
	if len(pairs) == 0 {
		e.Objs = wire.AppendFloatMetric(e.Objs, desc, ticks, value)
		return
	}
	e.Objs = wire.AppendTaggedFloatMetric(e.Objs, desc, e.set(pairs...), ticks, value)
}

// Integer appends a measure with a whole value.
func (e *Emitter) Integer(ticks int64, target, name, unit string, value uint64) {
	e.Objs = wire.AppendIntegerMetric(e.Objs, e.metric(target, name, unit), ticks, value)
	e.Count++
}

// Body returns the request body of a block with what was appended.
func (e *Emitter) Body(b telemetry.Block) []byte {
	return wire.AppendBlock(nil, &b, wire.Compress(nil, e.Deps), wire.Compress(nil, e.Objs))
}
