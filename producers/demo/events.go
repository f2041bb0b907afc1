package demo

import (
	"fmt"
	"math"
	"runtime"

	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Levels of log entries.
const (
	levelError = 2
	levelWarn  = 3
	levelInfo  = 4
	levelDebug = 5
)

const (
	target = "demo"
	module = "demo::game"
	file   = "producers/demo/events.go"
)

// dictionary hands out the ids of a block's dependencies and writes each when it is first asked for.
type dictionary struct {
	bytes []byte
	next  uint64
	ids   map[string]uint64
	index uint8 // type index of StaticString
}

func newDictionary(staticString uint8) *dictionary {
	return &dictionary{ids: map[string]uint64{}, index: staticString}
}

// id returns the id of a dependency and whether it is new.
func (d *dictionary) id(kind, key string) (uint64, bool) {
	key = kind + key
	id, ok := d.ids[key]
	if !ok {
		d.next++
		id = d.next
		d.ids[key] = id
	}
	return id, !ok
}

func (d *dictionary) text(s string) uint64 {
	id, fresh := d.id("text ", s)
	if fresh {
		d.bytes = wire.AppendStaticString(d.bytes, d.index, id, s)
	}
	return id
}

// property is the reference that property sets hold.
func (d *dictionary) property(s string) wire.StaticRef {
	id, fresh := d.id("property ", s)
	if fresh {
		d.bytes = wire.AppendStaticStringDependency(d.bytes, wire.DepStaticStringDependency, id, s)
	}
	return wire.StaticRef{ID: id, Len: uint32(len(s))}
}

func (d *dictionary) set(key, value string) uint64 {
	k, v := d.property(key), d.property(value)
	id, fresh := d.id("set ", key+"="+value)
	if fresh {
		d.bytes = wire.AppendPropertySet(d.bytes, id, [2]wire.StaticRef{k, v})
	}
	return id
}

func (d *dictionary) logCall(format string, level uint32) uint64 {
	m := wire.Metadata{Message: d.text(format), Target: d.text(target), Module: d.text(module), File: d.text(file), Level: level, Line: 1}
	var fresh bool
	if m.ID, fresh = d.id("log ", format); fresh {
		d.bytes = wire.AppendLogMetadata(d.bytes, &m)
	}
	return m.ID
}

func (d *dictionary) metric(name, unit string) uint64 {
	m := wire.Metadata{Name: d.text(name), Unit: d.text(unit), Target: d.text(target), File: d.text(file), Level: 1, Line: 1}
	var fresh bool
	if m.ID, fresh = d.id("metric ", name); fresh {
		d.bytes = wire.AppendMetricMetadata(d.bytes, &m)
	}
	return m.ID
}

func (d *dictionary) span(name string) uint64 {
	m := wire.Metadata{Name: d.text(name), Target: d.text(target), Module: d.text(module), File: d.text(file), Level: 1, Line: 1}
	var fresh bool
	if m.ID, fresh = d.id("span ", name); fresh {
		d.bytes = wire.AppendSpanRecord(d.bytes, &m)
	}
	return m.ID
}

// frameTime is how long a frame took, in milliseconds: a smooth load with a hitch now and then.
func frameTime(frame int64) float64 {
	ms := 11 + 3*math.Sin(float64(frame)/90)
	if frame%137 == 0 {
		ms += 3
	}
	return ms
}

// logs writes the log entries of the frames in [from, to).
func (p *Producer) logs(s *stream, from, to int64) (b batch) {
	d := newDictionary(wire.DepStaticString)
	add := func(objs []byte) { b.objs, b.events = objs, b.events+1 }
	if from == 0 {
		add(wire.AppendLogStaticStr(b.objs, d.logCall("demo started", levelInfo), s.ticks))
	}
	for frame := from; frame < to; frame++ {
		ticks := frame * frameTicks
		if frame%10 == 0 {
			add(wire.AppendLogString(b.objs, d.logCall("frame {n}", levelDebug), ticks, fmt.Sprintf("frame %d", frame)))
		}
		if frame%60 == 0 {
			player := fmt.Sprintf("player-%d", frame/60%7)
			add(wire.AppendLogTagged(b.objs, d.logCall("{player} joined", levelInfo), d.set("player", player), ticks, player+" joined"))
		}
		if frame%137 == 0 {
			msg := fmt.Sprintf("frame %d took %.1f ms", frame, frameTime(frame))
			add(wire.AppendLogString(b.objs, d.logCall("frame {n} took {ms} ms", levelWarn), ticks, msg))
		}
		if frame%601 == 600 {
			add(wire.AppendLogString(b.objs, d.logCall("lost connection to {peer}", levelError), ticks, fmt.Sprintf("lost connection to peer %d", frame%11)))
		}
	}
	b.deps = d.bytes
	return b
}

// metrics writes the measures of the frames in [from, to), and of the program itself.
func (p *Producer) metrics(s *stream, from, to int64) (b batch) {
	d := newDictionary(wire.DepStaticString)
	frameMs := d.metric("frame_time", "ms")
	for frame := from; frame < to; frame++ {
		b.objs = wire.AppendFloatMetric(b.objs, frameMs, frame*frameTicks, frameTime(frame))
		b.events++
	}
	if b.events == 0 {
		return b
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	last := (to - 1) * frameTicks
	b.objs = wire.AppendIntegerMetric(b.objs, d.metric("heap", "bytes"), last, mem.HeapAlloc)
	b.objs = wire.AppendIntegerMetric(b.objs, d.metric("goroutines", "count"), last, uint64(runtime.NumGoroutine()))
	b.events += 2
	b.deps = d.bytes
	return b
}

// spans writes the spans of the frames in [from, to): a frame with its simulation and rendering inside.
func (p *Producer) spans(s *stream, from, to int64) (b batch) {
	d := newDictionary(wire.CPUDepStaticString)
	frameSpan, simulate, render := d.span("frame"), d.span("simulate"), d.span("render")
	edge := func(index uint8, desc uint64, ticks int64) {
		b.objs = wire.AppendThreadSpan(b.objs, index, desc, ticks)
		b.events++
	}
	for frame := from; frame < to; frame++ {
		begin := frame * frameTicks
		length := int64(frameTime(frame) * 1e6)
		edge(wire.CPUBeginThreadSpan, frameSpan, begin)
		edge(wire.CPUBeginThreadSpan, simulate, begin+length/100)
		edge(wire.CPUEndThreadSpan, simulate, begin+length*2/5)
		edge(wire.CPUBeginThreadSpan, render, begin+length/2)
		edge(wire.CPUEndThreadSpan, render, begin+length*9/10)
		edge(wire.CPUEndThreadSpan, frameSpan, begin+length)
	}
	b.deps = d.bytes
	return b
}
