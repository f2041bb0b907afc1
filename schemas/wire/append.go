package wire

import (
	"encoding/binary"
	"math"
)

// The writers below append one object to an uncompressed buffer, in the layouts of layouts.go. Ids are the producer's choice: any
// number that is unique among the dependencies of the block, which must hold an id before anything refers to it. Ticks are absolute.
// index is the type index where tables differ in it.

var le = binary.LittleEndian

// StaticRef is the id of a string with its length, as references inside events carry it.
type StaticRef struct {
	ID  uint64
	Len uint32
}

// AppendStaticString appends a string dependency.
func AppendStaticString(dst []byte, index uint8, id uint64, s string) []byte {
	dst = le.AppendUint32(append(dst, index), uint32(8+len(s)))
	return append(le.AppendUint64(dst, id), s...)
}

// AppendStaticStringDependency appends a string dependency with a codec (UTF-8), the kind that property sets refer to.
func AppendStaticStringDependency(dst []byte, index uint8, id uint64, s string) []byte {
	dst = le.AppendUint32(append(dst, index), uint32(8+5+len(s)))
	return appendDynString(le.AppendUint64(dst, id), s)
}

// AppendPropertySet appends a set of properties, each the references of its name and value.
func AppendPropertySet(dst []byte, id uint64, props ...[2]StaticRef) []byte {
	return appendPropertySet(dst, DepPropertySet, id, props)
}

func appendPropertySet(dst []byte, index uint8, id uint64, props [][2]StaticRef) []byte {
	dst = le.AppendUint32(append(dst, index), uint32(12+32*len(props)))
	dst = le.AppendUint64(dst, id)
	dst = le.AppendUint32(dst, uint32(len(props)))
	for _, p := range props {
		dst = appendStaticRef(dst, p[0])
		dst = appendStaticRef(dst, p[1])
	}
	return dst
}

// Metadata is the constant part of a log call, a metric or a span; strings are ids. Message is the format string of a log call, Name that
// of the metric or span; Level is the level of a log call, otherwise the verbosity.
type Metadata struct {
	ID      uint64
	Message uint64
	Name    uint64
	Unit    uint64
	Target  uint64
	Module  uint64
	File    uint64
	Line    uint32
	Level   uint32
}

// AppendLogMetadata appends the record of a log call.
func AppendLogMetadata(dst []byte, m *Metadata) []byte {
	return appendRecord(dst, DepMetadata, m, m.Message, m.Target, m.Module, m.File)
}

// AppendMetricMetadata appends the record of a metric.
func AppendMetricMetadata(dst []byte, m *Metadata) []byte {
	return appendRecord(dst, DepMetadata, m, m.Name, m.Unit, m.Target, m.File)
}

// AppendSpanRecord appends the record of a span.
func AppendSpanRecord(dst []byte, m *Metadata) []byte {
	return appendRecord(dst, CPUDepSpan, m, m.Name, m.Target, m.Module, m.File)
}

// AppendSpanLocation appends the record of a place whose spans bring their own names.
func AppendSpanLocation(dst []byte, m *Metadata) []byte {
	return appendRecord(dst, CPUDepLocation, m, m.Target, m.Module, m.File)
}

func appendRecord(dst []byte, index uint8, m *Metadata, refs ...uint64) []byte {
	dst = le.AppendUint64(append(dst, index), m.ID)
	for _, id := range refs {
		dst = le.AppendUint64(dst, id)
	}
	return le.AppendUint32(le.AppendUint32(dst, m.Line), m.Level)
}

// AppendLogStaticStr appends a log event whose message is its record's.
func AppendLogStaticStr(dst []byte, desc uint64, ticks int64) []byte {
	return appendTicks(le.AppendUint64(append(dst, LogStaticStr), desc), ticks)
}

// AppendLogString appends a log event with a message of its own.
func AppendLogString(dst []byte, desc uint64, ticks int64, msg string) []byte {
	dst = le.AppendUint32(append(dst, LogString), uint32(8+8+5+len(msg)))
	return appendDynString(appendTicks(le.AppendUint64(dst, desc), ticks), msg)
}

// AppendLogTagged appends a log event with a message and a property set.
func AppendLogTagged(dst []byte, desc, props uint64, ticks int64, msg string) []byte {
	dst = le.AppendUint32(append(dst, LogTagged), uint32(8+8+8+5+len(msg)))
	dst = le.AppendUint64(le.AppendUint64(dst, desc), props)
	return appendDynString(appendTicks(dst, ticks), msg)
}

// AppendLogStaticInterop appends a log event of a foreign logger with static strings.
func AppendLogStaticInterop(dst []byte, ticks int64, level uint32, target, msg StaticRef) []byte {
	dst = appendStaticRef(append(dst, LogStaticStrInterop), target)
	dst = appendTicks(appendStaticRef(dst, msg), ticks)
	return append(le.AppendUint32(dst, level), 0, 0, 0, 0)
}

// AppendLogInterop appends a log event of a foreign logger.
func AppendLogInterop(dst []byte, ticks int64, level uint8, target StaticRef, msg string) []byte {
	dst = le.AppendUint32(append(dst, LogStringInterop), uint32(8+1+16+5+len(msg)))
	dst = append(appendTicks(dst, ticks), level)
	return appendDynString(appendStaticRef(dst, target), msg)
}

// AppendIntegerMetric appends an integer measure.
func AppendIntegerMetric(dst []byte, desc uint64, ticks int64, value uint64) []byte {
	return appendTicks(le.AppendUint64(le.AppendUint64(append(dst, MetricInteger), desc), value), ticks)
}

// AppendFloatMetric appends a measure.
func AppendFloatMetric(dst []byte, desc uint64, ticks int64, value float64) []byte {
	return appendTicks(le.AppendUint64(le.AppendUint64(append(dst, MetricFloat), desc), math.Float64bits(value)), ticks)
}

// AppendTaggedIntegerMetric appends an integer measure with a property set.
func AppendTaggedIntegerMetric(dst []byte, desc, props uint64, ticks int64, value uint64) []byte {
	dst = le.AppendUint64(le.AppendUint64(append(dst, MetricTaggedInteger), desc), props)
	return appendTicks(le.AppendUint64(dst, value), ticks)
}

// AppendTaggedFloatMetric appends a measure with a property set.
func AppendTaggedFloatMetric(dst []byte, desc, props uint64, ticks int64, value float64) []byte {
	dst = le.AppendUint64(le.AppendUint64(append(dst, MetricTaggedFloat), desc), props)
	return appendTicks(le.AppendUint64(dst, math.Float64bits(value)), ticks)
}

// AppendThreadSpan appends an edge of a span: index is CPUBeginThreadSpan or CPUEndThreadSpan.
func AppendThreadSpan(dst []byte, index uint8, desc uint64, ticks int64) []byte {
	return appendTicks(le.AppendUint64(append(dst, index), desc), ticks)
}

// AppendThreadNamedSpan appends an edge of a span that brings its name: index is CPUBeginThreadNamedSpan or CPUEndThreadNamedSpan.
func AppendThreadNamedSpan(dst []byte, index uint8, location uint64, name StaticRef, ticks int64) []byte {
	dst = appendStaticRef(le.AppendUint64(append(dst, index), location), name)
	return appendTicks(dst, ticks)
}

// AsyncSpan is what the edges of an asynchronous span share.
type AsyncSpan struct {
	ID     uint64 // unique in the process, not 0
	Parent uint64 // 0 = none
	Depth  uint32
}

// AppendAsyncSpan appends an edge of an asynchronous span: index is CPUBeginAsyncSpan or CPUEndAsyncSpan.
func AppendAsyncSpan(dst []byte, index uint8, desc uint64, s AsyncSpan, ticks int64) []byte {
	return appendAsync(le.AppendUint64(append(dst, index), desc), s, ticks)
}

// AppendAsyncNamedSpan appends an edge of an asynchronous span that brings its name: index is CPUBeginAsyncNamedSpan or
// CPUEndAsyncNamedSpan.
func AppendAsyncNamedSpan(dst []byte, index uint8, location uint64, name StaticRef, s AsyncSpan, ticks int64) []byte {
	return appendAsync(appendStaticRef(le.AppendUint64(append(dst, index), location), name), s, ticks)
}

func appendAsync(dst []byte, s AsyncSpan, ticks int64) []byte {
	dst = le.AppendUint64(le.AppendUint64(dst, s.ID), s.Parent)
	return append(le.AppendUint32(appendTicks(dst, ticks), s.Depth), 0, 0, 0, 0)
}

// AppendImage appends a named image.
func AppendImage(dst []byte, ticks int64, name, format string, image []byte) []byte {
	dst = le.AppendUint32(append(dst, 0), uint32(8+5+len(name)+5+len(format)+4+len(image)))
	dst = appendDynString(appendDynString(appendTicks(dst, ticks), name), format)
	return append(le.AppendUint32(dst, uint32(len(image))), image...)
}

// AppendNetConnectionBegin appends the opening of a connection.
func AppendNetConnectionBegin(dst []byte, ticks int64, name StaticRef, outgoing bool) []byte {
	dst = appendStaticRef(appendTicks(append(dst, NetConnectionBegin), ticks), name)
	var flag byte
	if outgoing {
		flag = 1
	}
	return append(dst, flag, 0, 0, 0, 0, 0, 0, 0)
}

// AppendNetBegin appends the opening of an object or a call: index is NetObjectBegin or NetRPCBegin.
func AppendNetBegin(dst []byte, index uint8, ticks int64, name StaticRef) []byte {
	return appendStaticRef(appendTicks(append(dst, index), ticks), name)
}

// AppendNetEnd appends the end of a connection, object or call: index is NetConnectionEnd, NetObjectEnd or NetRPCEnd.
func AppendNetEnd(dst []byte, index uint8, ticks int64, bits uint32) []byte {
	return append(le.AppendUint32(appendTicks(append(dst, index), ticks), bits), 0, 0, 0, 0)
}

// AppendNetProperty appends a property that was sent.
func AppendNetProperty(dst []byte, ticks int64, name StaticRef, bits uint32) []byte {
	dst = appendStaticRef(appendTicks(append(dst, NetProperty), ticks), name)
	return append(le.AppendUint32(dst, bits), 0, 0, 0, 0)
}

func appendTicks(dst []byte, ticks int64) []byte { return le.AppendUint64(dst, uint64(ticks)) }

func appendDynString(dst []byte, s string) []byte {
	return append(le.AppendUint32(append(dst, codecUTF8), uint32(len(s))), s...)
}

func appendStaticRef(dst []byte, r StaticRef) []byte {
	dst = le.AppendUint32(le.AppendUint64(dst, r.ID), r.Len)
	return append(dst, codecUTF8, 0, 0, 0)
}
