package sdk

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A message is made from its format by the recorder's goroutine. What most formats consist of, plain %s, %d and %v, is done here; package
// fmt does the rest.

// segment is a piece of a format: text, and a verb behind it.
type segment struct {
	text string
	verb string // with flags, "" = none follows
}

// parseFormat cuts a format at its verbs.
func parseFormat(format string) []segment {
	var segments []segment
	text := strings.Builder{}
	for i := 0; i < len(format); {
		if format[i] != '%' {
			text.WriteByte(format[i])
			i++
			continue
		}
		end := i + 1
		for end < len(format) && strings.IndexByte("+-# 0123456789.", format[end]) >= 0 {
			end++
		}
		if end < len(format) {
			_, n := utf8.DecodeRuneInString(format[end:])
			end += n
		}
		verb := format[i:end]
		i = end
		if verb == "%%" {
			text.WriteByte('%')
			continue
		}
		segments = append(segments, segment{text.String(), verb})
		text.Reset()
	}
	if text.Len() > 0 {
		segments = append(segments, segment{text: text.String()})
	}
	return segments
}

// args reads the arguments of a record.
type args struct {
	w     []uint64
	kinds uint64 // of those that follow, the lowest bits first
	left  int
}

func argsOf(w []uint64) args {
	if len(w) == 0 {
		return args{}
	}
	return args{w: w[1:], kinds: w[0] >> 4, left: int(w[0] & maxArgs)}
}

// next returns an argument. The text of one lies in the record.
func (a *args) next() (k argKind, n uint64, s string, ok bool) {
	if a.left == 0 || len(a.w) == 0 {
		return 0, 0, "", false
	}
	k = argKind(a.kinds & 15)
	a.kinds >>= 4
	a.left--
	n = a.w[0]
	a.w = a.w[1:]
	if k != argText {
		return k, n, "", true
	}
	words := int(n+wordBytes-1) / wordBytes
	if n > maxArgText || words > len(a.w) {
		a.left = 0
		return 0, 0, "", false
	}
	if n > 0 {
		s = textIn(a.w, int(n))
	}
	a.w = a.w[words:]
	return k, n, s, true
}

// appendMessage appends the message that a format makes of the arguments in words. What does not fit together is shown as package fmt
// does.
func appendMessage(dst []byte, format []segment, w []uint64) []byte {
	a := argsOf(w)
	for _, s := range format {
		dst = append(dst, s.text...)
		if s.verb == "" {
			continue
		}
		k, n, text, ok := a.next()
		if !ok {
			dst = append(append(append(dst, "%!"...), s.verb[1:]...), "(MISSING)"...)
			continue
		}
		dst = appendArg(dst, s.verb, k, n, text)
	}
	if k, n, text, ok := a.next(); ok {
		dst = append(dst, "%!(EXTRA "...)
		for ok {
			dst = appendArg(dst, "%v", k, n, text)
			if k, n, text, ok = a.next(); ok {
				dst = append(dst, ", "...)
			}
		}
		dst = append(dst, ')')
	}
	return dst
}

// appendArg appends an argument as a verb asks for.
func appendArg(dst []byte, verb string, k argKind, n uint64, text string) []byte {
	v := len(verb) == 2 && verb[1] == 'v'
	switch {
	case k == argText && (v || verb == "%s"):
		return append(dst, text...)
	case k == argInt && (v || verb == "%d"):
		return strconv.AppendInt(dst, int64(n), 10)
	case k == argUint && (v || verb == "%d"):
		return strconv.AppendUint(dst, n, 10)
	case k == argFloat && v:
		return strconv.AppendFloat(dst, math.Float64frombits(n), 'g', -1, 64)
	case k == argDuration && (v || verb == "%s"):
		return append(dst, time.Duration(n).String()...)
	}
	return fmt.Appendf(dst, verb, argValue(k, n, text))
}

// argValue returns an argument as package fmt takes it.
func argValue(k argKind, n uint64, text string) any {
	switch k {
	case argInt:
		return int64(n)
	case argUint:
		return n
	case argFloat:
		return math.Float64frombits(n)
	case argBool:
		return n != 0
	case argDuration:
		return time.Duration(n)
	case argTime:
		return time.Unix(0, int64(n)).UTC()
	}
	return text
}
