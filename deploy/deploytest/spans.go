package deploytest

import (
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Scope is where a span comes from.
type Scope struct {
	Name, Target, File string
	Line               uint32
}

// spanText is a string that the records of spans refer to.
func (e *Emitter) spanText(s string) uint64 {
	return e.define("span text "+s, func(id uint64) { e.Deps = wire.AppendStaticString(e.Deps, wire.CPUDepStaticString, id, s) })
}

func (e *Emitter) spanRecord(s Scope) uint64 {
	m := wire.Metadata{Name: e.spanText(s.Name), Target: e.spanText(s.Target), Module: e.spanText(s.Target), File: e.spanText(s.File), Line: s.Line}
	return e.define(fmt.Sprint("span ", s), func(id uint64) { m.ID = id; e.Deps = wire.AppendSpanRecord(e.Deps, &m) })
}

// Begin appends the begin of a span of a thread, End its end.
func (e *Emitter) Begin(ticks int64, s Scope) { e.edge(wire.CPUBeginThreadSpan, ticks, s) }

// End appends the end of a span of a thread.
func (e *Emitter) End(ticks int64, s Scope) { e.edge(wire.CPUEndThreadSpan, ticks, s) }

func (e *Emitter) edge(index uint8, ticks int64, s Scope) {
	e.Objs = wire.AppendThreadSpan(e.Objs, index, e.spanRecord(s), ticks)
	e.Count++
}

// BeginAsync appends the begin of an asynchronous span, EndAsync its end.
func (e *Emitter) BeginAsync(ticks int64, s Scope, span wire.AsyncSpan) {
	e.Objs = wire.AppendAsyncSpan(e.Objs, wire.CPUBeginAsyncSpan, e.spanRecord(s), span, ticks)
	e.Count++
}

// EndAsync appends the end of an asynchronous span.
func (e *Emitter) EndAsync(ticks int64, s Scope, span wire.AsyncSpan) {
	e.Objs = wire.AppendAsyncSpan(e.Objs, wire.CPUEndAsyncSpan, e.spanRecord(s), span, ticks)
	e.Count++
}

// Image appends an image.
func (e *Emitter) Image(ticks int64, name, format string, data []byte) {
	e.Objs = wire.AppendImage(e.Objs, ticks, name, format, data)
	e.Count++
}

// netText is a string that network events refer to.
func (e *Emitter) netText(s string) wire.StaticRef {
	id := e.define("net text "+s, func(id uint64) {
		e.Deps = wire.AppendStaticStringDependency(e.Deps, wire.NetDepStaticStringDependency, id, s)
	})
	return wire.StaticRef{ID: id, Len: uint32(len(s))}
}

// NetConnection appends the opening of a connection.
func (e *Emitter) NetConnection(ticks int64, name string, outgoing bool) {
	e.Objs = wire.AppendNetConnectionBegin(e.Objs, ticks, e.netText(name), outgoing)
	e.Count++
}

// NetBegin appends the opening of an object or a call, by index.
func (e *Emitter) NetBegin(index uint8, ticks int64, name string) {
	e.Objs = wire.AppendNetBegin(e.Objs, index, ticks, e.netText(name))
	e.Count++
}

// NetEnd appends the end of a connection, an object or a call, by index.
func (e *Emitter) NetEnd(index uint8, ticks int64, bits uint32) {
	e.Objs = wire.AppendNetEnd(e.Objs, index, ticks, bits)
	e.Count++
}

// NetProperty appends a property that was sent.
func (e *Emitter) NetProperty(ticks int64, name string, bits uint32) {
	e.Objs = wire.AppendNetProperty(e.Objs, ticks, e.netText(name), bits)
	e.Count++
}
