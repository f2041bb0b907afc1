package jsonb

import (
	"math"
	"slices"
	"strconv"
)

// AppendJSON appends the compact text of v; a number that JSON cannot write is null.
func AppendJSON(dst []byte, v *Value) []byte { return appendText(dst, v, false) }

// AppendCanonical appends the text in which documents are stored: as AppendJSON, except that
// NaN and the infinities keep their names, so that Parse gives the same value back.
func AppendCanonical(dst []byte, v *Value) []byte { return appendText(dst, v, true) }

func appendText(dst []byte, v *Value, names bool) []byte {
	switch v.Kind {
	case Null:
		return append(dst, "null"...)
	case False:
		return append(dst, "false"...)
	case True:
		return append(dst, "true"...)
	case Uint:
		return strconv.AppendUint(dst, v.num, 10)
	case Int:
		return strconv.AppendInt(dst, int64(v.num), 10)
	case Float:
		return appendFloat(dst, math.Float64frombits(v.num), names)
	case String:
		return AppendQuoted(dst, v.Str)
	case Array:
		dst = append(dst, '[')
		for i := range v.Items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendText(dst, &v.Items[i], names)
		}
		return append(dst, ']')
	default:
		dst = append(dst, '{')
		for i := range v.Members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendQuoted(dst, v.Members[i].Key)
			dst = append(dst, ':')
			dst = appendText(dst, &v.Members[i].Value, names)
		}
		return append(dst, '}')
	}
}

// appendFloat prints the shortest text that reads back as f: decimal with at least one digit
// after the point for 1e-5 ≤ |f| < 1e16, else with an exponent, as in 1e16 and 1.5e-7.
func appendFloat(dst []byte, f float64, names bool) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		switch {
		case !names:
			return append(dst, "null"...)
		case math.IsNaN(f):
			return append(dst, "NaN"...)
		case f > 0:
			return append(dst, "Infinity"...)
		default:
			return append(dst, "-Infinity"...)
		}
	}
	begin := len(dst)
	if a := math.Abs(f); a >= 1e-5 && a < 1e16 {
		dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
		if slices.Contains(dst[begin:], '.') {
			return dst
		}
		return append(dst, '.', '0')
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	// Go writes e+16 and e-07, the surface e16 and e-7.
	for i := begin; i < len(dst); i++ {
		if dst[i] != 'e' {
			continue
		}
		exponent, _ := strconv.Atoi(string(dst[i+1:]))
		return strconv.AppendInt(dst[:i+1], int64(exponent), 10)
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// AppendQuoted appends s as a JSON string: quotes, backslashes and control characters are
// escaped, everything else is verbatim.
func AppendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	begin := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[begin:i]...)
		begin = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[begin:]...)
	return append(dst, '"')
}
