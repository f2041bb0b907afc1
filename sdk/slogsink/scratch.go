package slogsink

import (
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// scratch is where the properties of a record are put together. Values that are no texts are formatted into one buffer, which becomes one
// string at the end.
type scratch struct {
	props []telemetry.Property
	made  []made
	buf   []byte
}

// made is a value in buf, of a property by its index.
type made struct{ at, begin, end int }

// What a scratch that is kept may hold.
const (
	keepProps = 256
	keepBytes = 16 << 10
)

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// release gives the scratch back. It keeps no value of the program alive.
func (s *scratch) release() {
	if cap(s.props) > keepProps || cap(s.buf) > keepBytes {
		return
	}
	clear(s.props)
	s.props, s.made, s.buf = s.props[:0], s.made[:0], s.buf[:0]
	scratches.Put(s)
}

// add adds an attribute, or those of a group.
func (s *scratch) add(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Key == "" && v.Equal(slog.Value{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			s.add(prefix, member)
		}
		return
	}
	if v.Kind() == slog.KindString {
		s.props = append(s.props, telemetry.Property{Key: prefix + a.Key, Value: v.String()})
		return
	}
	begin := len(s.buf)
	s.buf = appendValue(s.buf, v)
	s.made = append(s.made, made{len(s.props), begin, len(s.buf)})
	s.props = append(s.props, telemetry.Property{Key: prefix + a.Key})
}

// finish returns the properties. They are valid until release.
func (s *scratch) finish() []telemetry.Property {
	if len(s.made) > 0 {
		text := string(s.buf)
		for _, m := range s.made {
			s.props[m.at].Value = text[m.begin:m.end]
		}
	}
	return s.props
}

func appendValue(dst []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return append(dst, v.String()...)
	case slog.KindInt64:
		return strconv.AppendInt(dst, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(dst, v.Uint64(), 10)
	case slog.KindFloat64:
		return strconv.AppendFloat(dst, v.Float64(), 'g', -1, 64)
	case slog.KindBool:
		return strconv.AppendBool(dst, v.Bool())
	case slog.KindDuration:
		return append(dst, v.Duration().String()...)
	case slog.KindTime:
		return v.Time().AppendFormat(dst, time.RFC3339Nano)
	}
	return fmt.Appendf(dst, "%+v", v.Any()) // which survives a panic of Error and String
}
