package jsonb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Binary form, big-endian: a container is a header (3 bits of type, 29 of count), one entry
// (4 bits of type, 28 of byte length) per value – for an object all keys, then all values – and
// the payloads in the same order. A scalar document is a container of one entry, whose count is 0. For example
// {"a":"b"} is 40000001 10000001 10000001 61 62.
const (
	headArray  = 0x80000000
	headObject = 0x40000000
	headScalar = 0x20000000
	headMask   = 0xe0000000
	countMask  = 0x1fffffff

	entryNull      = 0x00000000
	entryString    = 0x10000000
	entryNumber    = 0x20000000
	entryFalse     = 0x30000000
	entryTrue      = 0x40000000
	entryContainer = 0x50000000
	entryMask      = 0x70000000 // the top bit is never written and ignored
	lengthMask     = 0x0fffffff

	numZero    = 0x00
	numNaN     = 0x10
	numInf     = 0x20
	numNegInf  = 0x30
	numInt     = 0x40
	numUint    = 0x50
	numFloat   = 0x60
	numDecimal = 0x70
)

// MaxPayload bounds one value of a binary document: the length has 28 bits.
const MaxPayload = lengthMask

// ErrTooLarge is the error of Append for a value past MaxPayload.
var ErrTooLarge = errors.New("document is too large for the binary form")

// Append appends the binary form of v.
func Append(dst []byte, v *Value) ([]byte, error) {
	if v.Kind == Array || v.Kind == Object {
		return appendContainer(dst, v)
	}
	dst = binary.BigEndian.AppendUint32(dst, headScalar)
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	return appendValue(dst, at, v)
}

// AppendText appends the binary form of the stored document text.
func AppendText(dst []byte, text string) ([]byte, error) {
	if out, ok := appendFlat(dst, text); ok {
		return out, nil
	}
	v, err := ParseStored(text)
	if err != nil {
		return dst, err
	}
	return Append(dst, &v)
}

// maxFlat is the number of members that appendFlat takes, so that it allocates nothing.
const maxFlat = 32

// appendFlat is AppendText for what properties are: an object of plain strings, keys in order.
// It reports false, having appended nothing, for anything else.
func appendFlat(dst []byte, text string) ([]byte, bool) {
	var keys, values [maxFlat]string
	n := 0
	for s := newScan(text); ; n++ {
		key, plain, value, more := s.next()
		if s.bad || !s.object {
			return dst, false
		}
		if !more {
			if s.i++; s.i != len(text) { // something behind the object
				return dst, false
			}
			break
		}
		if n == maxFlat || len(text) > MaxPayload || !plain || n > 0 && key <= keys[n-1] || value[0] != '"' || strings.IndexByte(value, '\\') >= 0 {
			return dst, false
		}
		keys[n], values[n] = key, value[1:len(value)-1]
	}
	if !utf8.ValidString(text) {
		return dst, false
	}
	dst = binary.BigEndian.AppendUint32(dst, headObject|uint32(n))
	for _, texts := range [2][]string{keys[:n], values[:n]} {
		for _, t := range texts {
			dst = binary.BigEndian.AppendUint32(dst, entryString|uint32(len(t)))
		}
	}
	for _, texts := range [2][]string{keys[:n], values[:n]} {
		for _, t := range texts {
			dst = append(dst, t...)
		}
	}
	return dst, true
}

func appendContainer(dst []byte, v *Value) ([]byte, error) {
	head, entries := uint32(headArray|len(v.Items)), len(v.Items)
	if v.Kind == Object {
		head, entries = uint32(headObject|len(v.Members)), 2*len(v.Members)
	}
	if entries > countMask {
		return dst, ErrTooLarge
	}
	dst = binary.BigEndian.AppendUint32(dst, head)
	at := len(dst)
	dst = append(dst, make([]byte, 4*entries)...)
	var err error
	for i := range v.Items {
		if dst, err = appendValue(dst, at+4*i, &v.Items[i]); err != nil {
			return dst, err
		}
	}
	for i := range v.Members {
		key := v.Members[i].Key
		if len(key) > MaxPayload {
			return dst, ErrTooLarge
		}
		binary.BigEndian.PutUint32(dst[at+4*i:], entryString|uint32(len(key)))
		dst = append(dst, key...)
	}
	at += 4 * len(v.Members)
	for i := range v.Members {
		if dst, err = appendValue(dst, at+4*i, &v.Members[i].Value); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// appendValue appends the payload of v and writes its entry at position at.
func appendValue(dst []byte, at int, v *Value) ([]byte, error) {
	entry, begin := uint32(entryNull), len(dst)
	switch v.Kind {
	case Null:
	case False:
		entry = entryFalse
	case True:
		entry = entryTrue
	case String:
		entry = entryString
		dst = append(dst, v.Str...)
	case Array, Object:
		entry = entryContainer
		var err error
		if dst, err = appendContainer(dst, v); err != nil {
			return dst, err
		}
	default:
		entry = entryNumber
		dst = appendNumber(dst, v)
	}
	if len(dst)-begin > MaxPayload {
		return dst, ErrTooLarge
	}
	binary.BigEndian.PutUint32(dst[at:], entry|uint32(len(dst)-begin))
	return dst, nil
}

func appendNumber(dst []byte, v *Value) []byte {
	switch v.Kind {
	case Uint:
		switch u := v.num; {
		case u == 0:
			return append(dst, numZero)
		case u <= math.MaxUint8:
			return append(dst, numUint, byte(u))
		case u <= math.MaxUint16:
			return binary.BigEndian.AppendUint16(append(dst, numUint), uint16(u))
		case u <= math.MaxUint32:
			return binary.BigEndian.AppendUint32(append(dst, numUint), uint32(u))
		default:
			return binary.BigEndian.AppendUint64(append(dst, numUint), u)
		}
	case Int:
		switch i := int64(v.num); {
		case i >= math.MinInt8:
			return append(dst, numInt, byte(i))
		case i >= math.MinInt16:
			return binary.BigEndian.AppendUint16(append(dst, numInt), uint16(i))
		case i >= math.MinInt32:
			return binary.BigEndian.AppendUint32(append(dst, numInt), uint32(i))
		default:
			return binary.BigEndian.AppendUint64(append(dst, numInt), uint64(i))
		}
	}
	switch f := math.Float64frombits(v.num); {
	case math.IsNaN(f):
		return append(dst, numNaN)
	case math.IsInf(f, 1):
		return append(dst, numInf)
	case math.IsInf(f, -1):
		return append(dst, numNegInf)
	default:
		return binary.BigEndian.AppendUint64(append(dst, numFloat), v.num)
	}
}

// errCorrupt is wrapped by every error of Decode.
var errCorrupt = errors.New("corrupt binary document")

// Decode reads a binary document. Its strings alias nothing.
func Decode(doc []byte) (Value, error) {
	v, rest, err := decodeContainer(doc, 0, true)
	if err != nil {
		return Value{}, err
	}
	if len(rest) != 0 {
		return Value{}, fmt.Errorf("%w: %d bytes too many", errCorrupt, len(rest))
	}
	return v, nil
}

func decodeContainer(doc []byte, depth int, scalar bool) (Value, []byte, error) {
	if depth > MaxDepth {
		return Value{}, nil, fmt.Errorf("%w: nesting is too deep", errCorrupt)
	}
	if len(doc) < 4 {
		return Value{}, nil, fmt.Errorf("%w: %d bytes of a header", errCorrupt, len(doc))
	}
	head := binary.BigEndian.Uint32(doc)
	count := int(head & countMask)
	doc = doc[4:]
	switch head & headMask {
	case headScalar:
		if !scalar {
			return Value{}, nil, fmt.Errorf("%w: misplaced scalar", errCorrupt)
		}
		values, rest, err := decodeArray(doc, 1, depth)
		if err != nil {
			return Value{}, nil, err
		}
		return values[0], rest, nil
	case headArray:
		values, rest, err := decodeArray(doc, count, depth)
		return Value{Kind: Array, Items: values}, rest, err
	case headObject:
		return decodeObject(doc, count, depth)
	default:
		return Value{}, nil, fmt.Errorf("%w: header %08x", errCorrupt, head)
	}
}

// decodeArray reads the entries and payloads of n values.
func decodeArray(doc []byte, n, depth int) ([]Value, []byte, error) {
	if len(doc) < 4*n {
		return nil, nil, fmt.Errorf("%w: %d values in %d bytes", errCorrupt, n, len(doc))
	}
	entries, payload := doc[:4*n], doc[4*n:]
	values := make([]Value, n)
	var err error
	for i := range values {
		if values[i], payload, err = decodeValue(entries[4*i:], payload, depth); err != nil {
			return nil, nil, err
		}
	}
	return values, payload, nil
}

// decodeValue reads one value, given its entry and a payload that begins with the value's.
func decodeValue(entry, payload []byte, depth int) (Value, []byte, error) {
	e := binary.BigEndian.Uint32(entry)
	length := int(e & lengthMask)
	if length > len(payload) {
		return Value{}, nil, fmt.Errorf("%w: payload of %d bytes in %d", errCorrupt, length, len(payload))
	}
	v, err := decodeEntry(e&entryMask, payload[:length], depth)
	return v, payload[length:], err
}

func decodeEntry(kind uint32, payload []byte, depth int) (Value, error) {
	switch kind {
	case entryNull:
		return Value{Kind: Null}, nil
	case entryFalse:
		return Value{Kind: False}, nil
	case entryTrue:
		return Value{Kind: True}, nil
	case entryString:
		return StringValue(string(payload)), nil
	case entryNumber:
		return decodeNumber(payload)
	case entryContainer:
		v, rest, err := decodeContainer(payload, depth+1, false)
		if err == nil && len(rest) != 0 {
			err = fmt.Errorf("%w: %d bytes after a container", errCorrupt, len(rest))
		}
		return v, err
	default:
		return Value{}, fmt.Errorf("%w: entry type %x", errCorrupt, kind>>28)
	}
}

func decodeObject(doc []byte, count, depth int) (Value, []byte, error) {
	if len(doc) < 8*count {
		return Value{}, nil, fmt.Errorf("%w: %d members in %d bytes", errCorrupt, count, len(doc))
	}
	keys, values, payload := doc[:4*count], doc[4*count:8*count], doc[8*count:]
	members := make([]Member, count)
	for i := range members {
		entry := binary.BigEndian.Uint32(keys[4*i:])
		length := int(entry & lengthMask)
		if entry&entryMask != entryString || length > len(payload) {
			return Value{}, nil, fmt.Errorf("%w: key entry %08x", errCorrupt, entry)
		}
		members[i].Key, payload = string(payload[:length]), payload[length:]
	}
	var err error
	for i := range members {
		if members[i].Value, payload, err = decodeValue(values[4*i:], payload, depth); err != nil {
			return Value{}, nil, err
		}
	}
	members, _ = sortMembers(members, true)
	return Value{Kind: Object, Members: members}, payload, nil
}

func decodeNumber(b []byte) (Value, error) {
	if len(b) == 0 {
		return Value{}, fmt.Errorf("%w: empty number", errCorrupt)
	}
	tag, b := b[0], b[1:]
	switch tag {
	case numZero:
		return UintValue(0), nil
	case numNaN:
		return FloatValue(math.NaN()), nil
	case numInf:
		return FloatValue(math.Inf(1)), nil
	case numNegInf:
		return FloatValue(math.Inf(-1)), nil
	case numInt:
		i, err := decodeInt(b)
		return IntValue(i), err
	case numUint:
		u, err := decodeUint(b)
		return UintValue(u), err
	case numFloat:
		u, err := decodeUint(b)
		if err == nil && len(b) != 8 {
			err = fmt.Errorf("%w: float of %d bytes", errCorrupt, len(b))
		}
		return FloatValue(math.Float64frombits(u)), err
	case numDecimal:
		return decodeDecimal(b)
	default:
		return Value{}, fmt.Errorf("%w: number tag %02x", errCorrupt, tag)
	}
}

func decodeUint(b []byte) (uint64, error) {
	switch len(b) {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), nil
	case 8:
		return binary.BigEndian.Uint64(b), nil
	default:
		return 0, fmt.Errorf("%w: integer of %d bytes", errCorrupt, len(b))
	}
}

func decodeInt(b []byte) (int64, error) {
	u, err := decodeUint(b)
	switch len(b) {
	case 1:
		return int64(int8(u)), err
	case 2:
		return int64(int16(u)), err
	case 4:
		return int64(int32(u)), err
	default:
		return int64(u), err
	}
}

// decodeDecimal reads an integer of 8, 16 or 32 bytes and its scale, as a float: nothing here
// writes decimals.
func decodeDecimal(b []byte) (Value, error) {
	if n := len(b); n != 9 && n != 17 && n != 33 {
		return Value{}, fmt.Errorf("%w: decimal of %d bytes", errCorrupt, n)
	}
	digits, scale := b[:len(b)-1], b[len(b)-1]
	f := 0.0
	for i, c := range digits {
		if i == 0 {
			f = float64(int8(c))
			continue
		}
		f = f*256 + float64(c)
	}
	return FloatValue(f / math.Pow10(int(scale))), nil
}
