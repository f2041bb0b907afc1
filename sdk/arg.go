package sdk

import (
	"fmt"
	"math"
	"time"
	"unsafe"
)

// Arg is an argument of a log entry: a number, a time or a text, not yet formatted. It is made on the stack.
type Arg struct {
	// p says what n is: the address of one of argKinds; or it is the text, and n its length.
	p unsafe.Pointer
	n uint64
}

// argKind says how an argument is stored.
type argKind uint8

const (
	argText argKind = iota // length, text
	argInt
	argUint
	argFloat
	argBool
	argDuration
	argTime // ns since 1970, UTC
	numArgKinds
)

// argMarks are the addresses that stand for kinds.
var argMarks [numArgKinds]byte

// maxArgs is how many arguments an entry may have: their kinds share a word with their number.
const maxArgs = 15

// Int is an argument of any signed integer.
func Int[T ~int | ~int8 | ~int16 | ~int32 | ~int64](v T) Arg {
	return Arg{unsafe.Pointer(&argMarks[argInt]), uint64(int64(v))}
}

// Uint is an argument of any unsigned integer.
func Uint[T ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{unsafe.Pointer(&argMarks[argUint]), uint64(v)}
}

// Float is an argument of a floating-point number.
func Float[T ~float32 | ~float64](v T) Arg {
	return Arg{unsafe.Pointer(&argMarks[argFloat]), math.Float64bits(float64(v))}
}

// Bool is an argument of a truth value.
func Bool(v bool) Arg {
	n := uint64(0)
	if v {
		n = 1
	}
	return Arg{unsafe.Pointer(&argMarks[argBool]), n}
}

// Duration is an argument that prints as 1.5s.
func Duration(d time.Duration) Arg { return Arg{unsafe.Pointer(&argMarks[argDuration]), uint64(d)} }

// Time is an argument that prints in UTC with nanoseconds. It must lie in the years that 64 bits of nanoseconds reach, 1678 to 2261.
func Time(t time.Time) Arg {
	return Arg{unsafe.Pointer(&argMarks[argTime]), uint64(t.UnixNano())}
}

// String is an argument of a text, which is copied when the entry is recorded.
func String(s string) Arg {
	if s == "" {
		return Arg{nil, 0}
	}
	return Arg{unsafe.Pointer(unsafe.StringData(s)), uint64(len(s))}
}

// Err is an argument of an error's text; nil prints as <nil>. The text is made at once, as an error may change.
func Err(err error) Arg {
	if err == nil {
		return String("<nil>")
	}
	return String(err.Error())
}

// Any is an argument of whatever, formatted at once with %+v.
func Any(v any) Arg { return String(fmt.Sprintf("%+v", v)) }

// kind returns what the argument is.
func (a Arg) kind() argKind {
	// A text never lies in argMarks.
	if d := uintptr(a.p) - uintptr(unsafe.Pointer(&argMarks)); d < uintptr(numArgKinds) {
		return argKind(d)
	}
	return argText
}

func (a Arg) text() string { return unsafe.String((*byte)(a.p), a.n) }

// maxArgText bounds the text of an argument, so that a record with all of them fits.
const maxArgText = 256 << 10

// argsWords returns how many words arguments take: one for their number (4 bits) and kinds (4 bits each), and what each needs.
func argsWords(args []Arg) int {
	n := 1 + len(args)
	for i := range args {
		if args[i].kind() == argText {
			n += (int(min(args[i].n, maxArgText)) + wordBytes - 1) / wordBytes
		}
	}
	return n
}

// fitArgs writes arguments into words, of which there is one for each and one more at least, and returns how many it took: 0 = they do not
// fit.
func fitArgs(w []uint64, args []Arg) int {
	kinds, at := uint64(len(args)), 1
	for i := range args {
		a := &args[i]
		k := a.kind()
		kinds |= uint64(k) << (4 + 4*i)
		if at >= len(w) {
			return 0
		}
		if k != argText {
			w[at] = a.n
			at++
			continue
		}
		s := a.text()
		s = s[:min(len(s), maxArgText)]
		w[at] = uint64(len(s))
		at++
		words := textWords(s)
		if at+words > len(w) {
			return 0
		}
		putText(w[at:at+words], s)
		at += words
	}
	w[0] = kinds
	return at
}
