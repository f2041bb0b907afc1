package deploy_test

import (
	"slices"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// emitter builds the two buffers of a log or metrics block, as a client does.
type emitter struct {
	deps, objs []byte
	count      int32
	ids        map[string]uint64
}

// define returns the id of a dependency, appending it with write the first time.
func (e *emitter) define(key string, write func(id uint64)) uint64 {
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
func (e *emitter) static(s string) uint64 {
	return e.define("static "+s, func(id uint64) { e.deps = wire.AppendStaticString(e.deps, wire.DepStaticString, id, s) })
}

// ref is a string that property sets refer to.
func (e *emitter) ref(s string) wire.StaticRef {
	id := e.define("ref "+s, func(id uint64) {
		e.deps = wire.AppendStaticStringDependency(e.deps, wire.DepStaticStringDependency, id, s)
	})
	return wire.StaticRef{ID: id, Len: uint32(len(s))}
}

// set is a property set, given as key, value, key, value.
func (e *emitter) set(pairs ...string) uint64 {
	var refs [][2]wire.StaticRef
	key := "set"
	for pair := range slices.Chunk(pairs, 2) {
		refs = append(refs, [2]wire.StaticRef{e.ref(pair[0]), e.ref(pair[1])})
		key += " " + pair[0] + "=" + pair[1]
	}
	return e.define(key, func(id uint64) { e.deps = wire.AppendPropertySet(e.deps, id, refs...) })
}

// log appends a log entry with the properties given as key, value pairs.
func (e *emitter) log(ticks int64, level uint32, target, msg string, pairs ...string) {
	m := wire.Metadata{Message: e.static("{}"), Target: e.static(target), Module: e.static(target), File: e.static("game.cpp"), Line: 1, Level: level}
	desc := e.define("log "+target+string(rune('0'+level)), func(id uint64) { m.ID = id; e.deps = wire.AppendLogMetadata(e.deps, &m) })
	e.count++
	if len(pairs) == 0 {
		e.objs = wire.AppendLogString(e.objs, desc, ticks, msg)
		return
	}
	e.objs = wire.AppendLogTagged(e.objs, desc, e.set(pairs...), ticks, msg)
}

func (e *emitter) metric(target, name, unit string) uint64 {
	m := wire.Metadata{Name: e.static(name), Unit: e.static(unit), Target: e.static(target), File: e.static("game.cpp"), Line: 1, Level: 2}
	return e.define("metric "+target+name+unit, func(id uint64) { m.ID = id; e.deps = wire.AppendMetricMetadata(e.deps, &m) })
}

// float appends a measure with the properties given as key, value pairs.
func (e *emitter) float(ticks int64, target, name, unit string, value float64, pairs ...string) {
	desc := e.metric(target, name, unit)
	e.count++
	if len(pairs) == 0 {
		e.objs = wire.AppendFloatMetric(e.objs, desc, ticks, value)
		return
	}
	e.objs = wire.AppendTaggedFloatMetric(e.objs, desc, e.set(pairs...), ticks, value)
}

// integer appends a measure with a whole value.
func (e *emitter) integer(ticks int64, target, name, unit string, value uint64) {
	e.objs = wire.AppendIntegerMetric(e.objs, e.metric(target, name, unit), ticks, value)
	e.count++
}

// body returns the request body of a block with what was appended.
func (e *emitter) body(b telemetry.Block) []byte {
	return wire.AppendBlock(nil, &b, wire.Compress(nil, e.deps), wire.Compress(nil, e.objs))
}
