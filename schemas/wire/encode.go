package wire

import (
	"encoding/binary"
	"math"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// The writers below use definite lengths, the shortest heads and the key order of the Rust client.

// AppendProcess appends the body of insert_process.
func AppendProcess(dst []byte, p *telemetry.Process) []byte {
	dst = appendHead(dst, majorMap, uint64(len(processKeys)))
	dst = appendIDField(dst, "process_id", p.ID)
	dst = appendTextField(dst, "exe", p.Exe)
	dst = appendTextField(dst, "username", p.Username)
	dst = appendTextField(dst, "realname", p.Realname)
	dst = appendTextField(dst, "computer", p.Computer)
	dst = appendTextField(dst, "distro", p.Distro)
	dst = appendTextField(dst, "cpu_brand", p.CPUBrand)
	dst = appendIntField(dst, "tsc_frequency", p.TSCFrequency)
	dst = appendText(dst, "start_time")
	var t [40]byte
	dst = appendText(dst, alias(appendStartTime(t[:0], p.StartTime)))
	dst = appendIntField(dst, "start_ticks", p.StartTicks)
	if p.ParentID.IsZero() {
		dst = append(appendText(dst, "parent_process_id"), majorOther<<5|simpleNull)
	} else {
		dst = appendIDField(dst, "parent_process_id", p.ParentID)
	}
	return appendProperties(dst, p.Properties)
}

// AppendStream appends the body of insert_stream.
func AppendStream(dst []byte, s *telemetry.Stream) []byte {
	dst = appendHead(dst, majorMap, uint64(len(streamKeys)))
	dst = appendIDField(dst, "process_id", s.ProcessID)
	dst = appendIDField(dst, "stream_id", s.ID)
	dst = AppendTypes(appendText(dst, "dependencies_metadata"), s.Dependencies)
	dst = AppendTypes(appendText(dst, "objects_metadata"), s.Objects)
	dst = appendHead(appendText(dst, "tags"), majorArray, uint64(len(s.Tags)))
	for _, t := range s.Tags {
		dst = appendText(dst, t)
	}
	return appendProperties(dst, s.Properties)
}

// AppendTypes appends a CBOR array of type layouts.
func AppendTypes(dst []byte, types []telemetry.Type) []byte {
	dst = appendHead(dst, majorArray, uint64(len(types)))
	for i := range types {
		t := &types[i]
		dst = appendHead(dst, majorMap, uint64(len(typeKeys)))
		dst = appendTextField(dst, "name", t.Name)
		dst = appendIntField(dst, "size", int64(t.Size))
		dst = appendHead(appendText(dst, "members"), majorArray, uint64(len(t.Members)))
		for j := range t.Members {
			m := &t.Members[j]
			dst = appendHead(dst, majorMap, uint64(len(memberKeys)))
			dst = appendTextField(dst, "name", m.Name)
			dst = appendTextField(dst, "type_name", m.TypeName)
			dst = appendIntField(dst, "offset", int64(m.Offset))
			dst = appendIntField(dst, "size", int64(m.Size))
			dst = appendBoolField(dst, "is_reference", m.IsReference)
		}
		dst = appendBoolField(dst, "is_reference", t.IsReference)
	}
	return dst
}

// AppendBlock appends the body of insert_block; deps and objs are the compressed buffers (see Compress).
func AppendBlock(dst []byte, b *telemetry.Block, deps, objs []byte) []byte {
	return appendBlockFields(appendHead(dst, majorMap, uint64(len(blockKeys))), b, deps, objs)
}

// appendBlockFields appends what is in the map of a block.
func appendBlockFields(dst []byte, b *telemetry.Block, deps, objs []byte) []byte {
	var t [40]byte
	dst = appendIDField(dst, "block_id", b.ID)
	dst = appendIDField(dst, "stream_id", b.StreamID)
	dst = appendIDField(dst, "process_id", b.ProcessID)
	dst = appendText(dst, "begin_time")
	dst = appendText(dst, alias(appendTime(t[:0], b.BeginTime)))
	dst = appendIntField(dst, "begin_ticks", b.BeginTicks)
	dst = appendText(dst, "end_time")
	dst = appendText(dst, alias(appendTime(t[:0], b.EndTime)))
	dst = appendIntField(dst, "end_ticks", b.EndTicks)
	dst = AppendPayload(appendText(dst, "payload"), deps, objs)
	dst = appendIntField(dst, "object_offset", b.ObjectOffset)
	return appendIntField(dst, "nb_objects", int64(b.NbObjects))
}

// AppendPayload appends the canonical payload: the map {dependencies, objects} with definite byte strings.
func AppendPayload(dst, deps, objs []byte) []byte {
	dst = appendHead(dst, majorMap, uint64(len(payloadKeys)))
	dst = append(appendHead(appendText(dst, "dependencies"), majorBytes, uint64(len(deps))), deps...)
	return append(appendHead(appendText(dst, "objects"), majorBytes, uint64(len(objs))), objs...)
}

// PayloadSize returns the length of the canonical payload of buffers of these lengths.
func PayloadSize(nDeps, nObjs int) int {
	const heads = 1 + 1 + len("dependencies") + 1 + len("objects")
	return heads + headSize(uint64(nDeps)) + nDeps + headSize(uint64(nObjs)) + nObjs
}

func headSize(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n <= math.MaxUint8:
		return 2
	case n <= math.MaxUint16:
		return 3
	case n <= math.MaxUint32:
		return 5
	}
	return 9
}

func appendHead(dst []byte, major byte, n uint64) []byte {
	m := major << 5
	switch headSize(n) {
	case 1:
		return append(dst, m|byte(n))
	case 2:
		return append(dst, m|24, byte(n))
	case 3:
		return binary.BigEndian.AppendUint16(append(dst, m|25), uint16(n))
	case 5:
		return binary.BigEndian.AppendUint32(append(dst, m|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, m|27), n)
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, majorText, uint64(len(s))), s...)
}

func appendTextField(dst []byte, key, s string) []byte { return appendText(appendText(dst, key), s) }

func appendIDField(dst []byte, key string, id telemetry.ID) []byte {
	return id.AppendText(appendHead(appendText(dst, key), majorText, 36))
}

func appendIntField(dst []byte, key string, v int64) []byte {
	dst = appendText(dst, key)
	if v < 0 {
		return appendHead(dst, majorNeg, uint64(-1-v))
	}
	return appendHead(dst, majorUint, uint64(v))
}

func appendBoolField(dst []byte, key string, v bool) []byte {
	simple := byte(simpleFalse)
	if v {
		simple = simpleTrue
	}
	return append(appendText(dst, key), majorOther<<5|simple)
}

func appendProperties(dst []byte, props []telemetry.Property) []byte {
	dst = appendHead(appendText(dst, "properties"), majorMap, uint64(len(props)))
	for _, p := range props {
		dst = appendTextField(dst, p.Key, p.Value)
	}
	return dst
}
