package loadgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// rewriteType is where an event type keeps what changes from one repetition to the next; -1 = nowhere.
type rewriteType struct {
	size    uint32 // 0 = each instance brings its own
	ticks   int
	message int // of a string with a codec that ends the instance
	float   int
}

// rewriteTypes finds these places in the layouts of a captured stream.
func rewriteTypes(objs []telemetry.Type) []rewriteType {
	types := make([]rewriteType, len(objs))
	for i, t := range objs {
		rt := rewriteType{size: t.Size, ticks: -1, message: -1, float: -1}
		switch t.Name {
		case "LogStringEventV2":
			rt.ticks, rt.message = 8, 16
		case "TaggedLogString":
			rt.ticks, rt.message = 16, 24
		case "LogStringInteropEventV3":
			rt.ticks, rt.message = 0, 25
		}
		for _, m := range t.Members {
			switch {
			case t.Size == 0:
			case m.Name == "time":
				rt.ticks = int(m.Offset)
			case m.Name == "value" && m.TypeName == "f64":
				rt.float = int(m.Offset)
			}
		}
		types[i] = rt
	}
	return types
}

var errBadBuffer = errors.New("objects do not match their layout")

const (
	suffixLen  = 9         // a space and eight digits
	variedBits = 1<<24 - 1 // low bits of a float that vary
)

// rewrite returns a copy of an objects buffer with ticks added to the time of every event; with vary, messages get a suffix and
// floats other low bits.
func rewrite(types []rewriteType, raw []byte, ticks int64, vary *rand.Rand) ([]byte, error) {
	dst := make([]byte, 0, len(raw)+len(raw)/4)
	for p := 0; p < len(raw); {
		if int(raw[p]) >= len(types) {
			return nil, errBadBuffer
		}
		t := types[raw[p]]
		head, size := 1, int(t.size)
		if size == 0 {
			if len(raw)-p < 5 {
				return nil, errBadBuffer
			}
			head, size = 5, int(binary.LittleEndian.Uint32(raw[p+1:]))
		}
		if len(raw)-p < head+size || t.ticks+8 > size || t.float+8 > size || t.message+5 > size {
			return nil, errBadBuffer
		}
		start := len(dst)
		dst = append(dst, raw[p:p+head+size]...)
		p += head + size
		body := dst[start+head:]
		if t.ticks >= 0 {
			at := body[t.ticks:]
			binary.LittleEndian.PutUint64(at, binary.LittleEndian.Uint64(at)+uint64(ticks))
		}
		if vary == nil {
			continue
		}
		if t.float >= 0 {
			at := body[t.float:]
			binary.LittleEndian.PutUint64(at, binary.LittleEndian.Uint64(at)&^variedBits|vary.Uint64()&variedBits)
		}
		if t.message >= 0 {
			grow(dst[start+1:])
			grow(body[t.message+1:])
			dst = fmt.Appendf(dst, " %08d", vary.Uint32N(100_000_000))
		}
	}
	return dst, nil
}

// grow adds the suffix to a length.
func grow(b []byte) { binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)+suffixLen) }
