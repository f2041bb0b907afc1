// Package jsonb reads and writes JSON documents as the SQL surface defines them.
//
// Inside the engine a document is text: compact JSON with keys in byte order, each key once.
// That canonical text is written by materializers (properties columns) and by the functions of
// this package; clients receive the binary form (Append, Decode), which package engine encodes at
// the Arrow boundary. The two carry the same information, with one exception that both share:
// a zero has no type, so 0.0 is 0.
//
// The text of a document may hold the words NaN, Infinity and -Infinity, which JSON lacks;
// AppendJSON prints null for them, AppendCanonical keeps them.
package jsonb

import (
	"math"
	"slices"
	"strings"
)

// MaxDepth bounds the nesting of a document, in text and in binary form, so that foreign bytes
// cannot exhaust the stack.
const MaxDepth = 256

// Kind is the type of a Value.
type Kind uint8

// Kinds of values. Int holds negative integers only: others are Uint.
const (
	Null Kind = iota
	False
	True
	Uint
	Int
	Float
	String
	Array
	Object
)

// Value is one JSON value. Strings may alias the text that was parsed.
type Value struct {
	Kind    Kind
	num     uint64 // bits of Uint, Int, Float
	Str     string
	Items   []Value  // of an Array
	Members []Member // of an Object, sorted by key, unique
}

// Member is one entry of an object.
type Member struct {
	Key   string
	Value Value
}

// UintValue returns the value of a non-negative integer.
func UintValue(u uint64) Value { return Value{Kind: Uint, num: u} }

// IntValue returns the value of an integer.
func IntValue(i int64) Value {
	if i >= 0 {
		return UintValue(uint64(i))
	}
	return Value{Kind: Int, num: uint64(i)}
}

// FloatValue returns the value of a float; a zero becomes the integer zero.
func FloatValue(f float64) Value {
	if f == 0 {
		return UintValue(0)
	}
	return Value{Kind: Float, num: math.Float64bits(f)}
}

// StringValue returns the value of a text.
func StringValue(s string) Value { return Value{Kind: String, Str: s} }

// BoolValue returns True or False.
func BoolValue(b bool) Value {
	if b {
		return Value{Kind: True}
	}
	return Value{Kind: False}
}

// IsNumber reports whether v is an integer or a float.
func (v *Value) IsNumber() bool { return v.Kind == Uint || v.Kind == Int || v.Kind == Float }

// Float64 returns any number as a float.
func (v *Value) Float64() (float64, bool) {
	switch v.Kind {
	case Uint:
		return float64(v.num), true
	case Int:
		return float64(int64(v.num)), true
	case Float:
		return math.Float64frombits(v.num), true
	default:
		return 0, false
	}
}

// Int64 returns an integer of the range of int64, or a float that is exactly such an integer.
func (v *Value) Int64() (int64, bool) {
	switch v.Kind {
	case Uint:
		return int64(v.num), v.num <= math.MaxInt64
	case Int:
		return int64(v.num), true
	case Float:
		f := math.Float64frombits(v.num)
		// 2^63 is the first float past the range; -2^63 is in it.
		if f != math.Trunc(f) || f >= 1<<63 || f < -(1<<63) {
			return 0, false
		}
		return int64(f), true
	default:
		return 0, false
	}
}

// Member returns the member of an object by name: the exact key, else the first key that
// differs in ASCII case only.
func (v *Value) Member(name string) (*Value, bool) {
	if v.Kind != Object {
		return nil, false
	}
	if i, ok := slices.BinarySearchFunc(v.Members, name, func(m Member, n string) int { return strings.Compare(m.Key, n) }); ok {
		return &v.Members[i].Value, true
	}
	for i := range v.Members {
		if equalFoldASCII(v.Members[i].Key, name) {
			return &v.Members[i].Value, true
		}
	}
	return nil, false
}

// equalFoldASCII compares without the case of A–Z only, as the SQL surface asks: strings.EqualFold
// would also fold other letters.
func equalFoldASCII[A, B string | []byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// Equal reports whether two documents are the same; numbers are compared by value, not by type.
func (v *Value) Equal(w *Value) bool {
	if v.IsNumber() && w.IsNumber() {
		return compareNumbers(v, w) == 0
	}
	if v.Kind != w.Kind {
		return false
	}
	switch v.Kind {
	case String:
		return v.Str == w.Str
	case Array:
		return slices.EqualFunc(v.Items, w.Items, func(a, b Value) bool { return a.Equal(&b) })
	case Object:
		return slices.EqualFunc(v.Members, w.Members, func(a, b Member) bool {
			return a.Key == b.Key && a.Value.Equal(&b.Value)
		})
	default:
		return true
	}
}

// compareNumbers orders two numbers; integers exactly, mixed pairs as floats. NaN is unequal
// to everything (2).
func compareNumbers(v, w *Value) int {
	switch {
	case v.Kind == Uint && w.Kind == Uint:
		return cmp3(v.num, w.num)
	case v.Kind == Int && w.Kind == Int:
		return cmp3(int64(v.num), int64(w.num))
	case v.Kind == Int && w.Kind == Uint:
		return -1
	case v.Kind == Uint && w.Kind == Int:
		return 1
	}
	a, _ := v.Float64()
	b, _ := w.Float64()
	if math.IsNaN(a) || math.IsNaN(b) {
		return 2
	}
	return cmp3(a, b)
}

func cmp3[T uint64 | int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// sortMembers puts an object's members in byte order of their keys. Of equal keys the last one
// stays when lastWins; otherwise it reports false.
func sortMembers(members []Member, lastWins bool) ([]Member, bool) {
	sorted := true
	for i := 1; i < len(members); i++ {
		if members[i-1].Key >= members[i].Key {
			sorted = false
			break
		}
	}
	if sorted {
		return members, true
	}
	slices.SortStableFunc(members, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
	out := members[:0]
	for _, m := range members {
		if n := len(out); n > 0 && out[n-1].Key == m.Key {
			if !lastWins {
				return nil, false
			}
			out[n-1] = m
			continue
		}
		out = append(out, m)
	}
	return out, true
}
