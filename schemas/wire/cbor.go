package wire

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"
)

// Bounds of a CBOR envelope. Payload bytes, in whichever form, do not count as entries: the body bounds them.
const (
	maxNesting = 16      // maps, arrays and tags within one another
	maxEntries = 131_072 // keys and array items of one body, all levels together
)

// CBOR major types.
const (
	majorUint  = 0
	majorNeg   = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
	majorOther = 7
)

// Additional information of an initial byte, and the simple values that matter here.
const (
	infoIndefinite = 31
	simpleFalse    = 20
	simpleTrue     = 21
	simpleNull     = 22
	breakByte      = 0xff
)

var (
	errTruncated = errors.New("body ends inside an item")
	errMalformed = errors.New("malformed CBOR item")
	errNesting   = fmt.Errorf("more than %d levels of nesting", maxNesting)
	errEntries   = fmt.Errorf("more than %d entries", maxEntries)
	errNotMap    = errors.New("not a map")
	errNotArray  = errors.New("not an array")
	errNotText   = errors.New("not a text string")
	errNotBytes  = errors.New("neither a byte string nor an array of bytes")
	errNotInt    = errors.New("not an integer")
	errNotBool   = errors.New("not a boolean")
	errRange     = errors.New("integer out of range")
	errUTF8      = errors.New("text is not UTF-8")
)

// reader walks one CBOR body. It allocates only to join the chunks of indefinite strings.
type reader struct {
	b       []byte
	p       int
	depth   int
	entries int
}

// container is the state of a map or array that is being read.
type container struct {
	left       uint64
	indefinite bool
}

// head reads the initial byte of an item and its argument, skipping tags. For an indefinite length indefinite is true.
func (r *reader) head() (major byte, arg uint64, indefinite bool, err error) {
	for range maxNesting {
		if r.p >= len(r.b) {
			return 0, 0, false, errTruncated
		}
		c := r.b[r.p]
		r.p++
		major = c >> 5
		arg, indefinite, err = r.argument(c & 31)
		if err != nil {
			return 0, 0, false, err
		}
		if indefinite && (major <= majorNeg || major == majorTag) {
			return 0, 0, false, errMalformed
		}
		if major != majorTag {
			return major, arg, indefinite, nil
		}
	}
	return 0, 0, false, errNesting
}

func (r *reader) argument(info byte) (arg uint64, indefinite bool, err error) {
	if info < 24 {
		return uint64(info), false, nil
	}
	if info == infoIndefinite {
		return 0, true, nil
	}
	if info > 27 {
		return 0, false, errMalformed
	}
	n := 1 << (info - 24)
	if len(r.b)-r.p < n {
		return 0, false, errTruncated
	}
	for _, c := range r.b[r.p : r.p+n] {
		arg = arg<<8 | uint64(c)
	}
	r.p += n
	return arg, false, nil
}

// open enters a map or an array; each following call of more says whether another entry comes, and the last one leaves it.
func (r *reader) open(want byte, wrong error) (container, error) {
	major, n, indefinite, err := r.head()
	if err != nil {
		return container{}, err
	}
	if major != want {
		return container{}, wrong
	}
	return r.enter(n, indefinite)
}

func (r *reader) enter(n uint64, indefinite bool) (container, error) {
	if r.depth++; r.depth > maxNesting {
		return container{}, errNesting
	}
	return container{left: n, indefinite: indefinite}, nil
}

func (r *reader) more(c *container) (bool, error) {
	if c.indefinite {
		if r.p >= len(r.b) {
			return false, errTruncated
		}
		if r.b[r.p] == breakByte {
			r.p++
			r.depth--
			return false, nil
		}
	} else {
		if c.left == 0 {
			r.depth--
			return false, nil
		}
		c.left--
	}
	if r.entries++; r.entries > maxEntries {
		return false, errEntries
	}
	return true, nil
}

// text returns a text string; it aliases the body unless it came in chunks.
func (r *reader) text() ([]byte, error) {
	major, n, indefinite, err := r.head()
	if err != nil {
		return nil, err
	}
	if major != majorText {
		return nil, errNotText
	}
	s, err := r.str(majorText, n, indefinite)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(s) {
		return nil, errUTF8
	}
	return s, nil
}

// str returns the content of a string whose head was read.
func (r *reader) str(kind byte, n uint64, indefinite bool) ([]byte, error) {
	if !indefinite {
		return r.take(n)
	}
	var joined []byte
	for {
		chunk, last, err := r.chunk(kind)
		if err != nil {
			return nil, err
		}
		if last {
			return joined, nil
		}
		joined = append(joined, chunk...)
	}
}

// chunk reads one definite piece of an indefinite string, or its end.
func (r *reader) chunk(kind byte) (piece []byte, last bool, err error) {
	if r.p >= len(r.b) {
		return nil, false, errTruncated
	}
	if r.b[r.p] == breakByte {
		r.p++
		return nil, true, nil
	}
	if r.b[r.p]>>5 != kind {
		return nil, false, errMalformed
	}
	_, n, indefinite, err := r.head()
	if err != nil {
		return nil, false, err
	}
	if indefinite {
		return nil, false, errMalformed
	}
	piece, err = r.take(n)
	if err == nil && kind == majorText && !utf8.Valid(piece) {
		err = errUTF8
	}
	return piece, false, err
}

func (r *reader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.b)-r.p) {
		return nil, errTruncated
	}
	s := r.b[r.p : r.p+int(n) : r.p+int(n)]
	r.p += int(n)
	return s, nil
}

// octets reads a payload buffer: a byte string, or the older form, an array of integers 0 to 255. It returns its length, and its
// content if collect is set (aliasing the body where it can).
func (r *reader) octets(collect bool) (data []byte, n int, err error) {
	major, arg, indefinite, err := r.head()
	if err != nil {
		return nil, 0, err
	}
	switch major {
	case majorBytes:
		if collect || !indefinite {
			data, err = r.str(majorBytes, arg, indefinite)
			return data, len(data), err
		}
		for {
			piece, last, err := r.chunk(majorBytes)
			if err != nil || last {
				return nil, n, err
			}
			n += len(piece)
		}
	case majorArray:
		return r.octetArray(arg, indefinite, collect)
	}
	return nil, 0, errNotBytes
}

func (r *reader) octetArray(count uint64, indefinite, collect bool) (data []byte, n int, err error) {
	if !indefinite && count > uint64(len(r.b)-r.p) { // an item takes at least a byte
		return nil, 0, errTruncated
	}
	if collect && !indefinite {
		data = make([]byte, 0, count)
	}
	for indefinite || uint64(n) < count {
		if indefinite && r.p < len(r.b) && r.b[r.p] == breakByte {
			r.p++
			break
		}
		major, v, _, err := r.head()
		if err != nil {
			return nil, 0, err
		}
		if major != majorUint || v > 255 {
			return nil, 0, errNotBytes
		}
		n++
		if collect {
			data = append(data, byte(v))
		}
	}
	return data, n, nil
}

// int64 reads an integer of either sign.
func (r *reader) int64() (int64, error) {
	major, arg, _, err := r.head()
	switch {
	case err != nil:
		return 0, err
	case major != majorUint && major != majorNeg:
		return 0, errNotInt
	case arg > math.MaxInt64:
		return 0, errRange
	case major == majorNeg:
		return -1 - int64(arg), nil
	}
	return int64(arg), nil
}

// size reads a non-negative integer. One that does not fit 32 bits becomes MaxUint32: no buffer is that large, so whatever uses
// it is out of bounds anyway, and the rest of the registration stays usable.
func (r *reader) size() (uint32, error) {
	major, arg, _, err := r.head()
	switch {
	case err != nil:
		return 0, err
	case major == majorNeg:
		return 0, errRange
	case major != majorUint:
		return 0, errNotInt
	}
	return uint32(min(arg, math.MaxUint32)), nil
}

func (r *reader) bool() (bool, error) {
	if r.p >= len(r.b) {
		return false, errTruncated
	}
	c := r.b[r.p]
	r.p++
	switch c {
	case majorOther<<5 | simpleFalse:
		return false, nil
	case majorOther<<5 | simpleTrue:
		return true, nil
	}
	return false, errNotBool
}

// null consumes a null if one comes.
func (r *reader) null() bool {
	if r.p < len(r.b) && r.b[r.p] == majorOther<<5|simpleNull {
		r.p++
		return true
	}
	return false
}

// skip passes over one item of any kind.
func (r *reader) skip() error {
	major, arg, indefinite, err := r.head()
	if err != nil {
		return err
	}
	switch major {
	case majorBytes, majorText:
		if !indefinite {
			_, err = r.take(arg)
			return err
		}
		for {
			if _, last, err := r.chunk(major); err != nil || last {
				return err
			}
		}
	case majorArray, majorMap:
		return r.skipContainer(major, arg, indefinite)
	case majorOther:
		if indefinite { // a break where an item belongs
			return errMalformed
		}
	}
	return nil
}

func (r *reader) skipContainer(major byte, n uint64, indefinite bool) error {
	c, err := r.enter(n, indefinite)
	if err != nil {
		return err
	}
	for {
		ok, err := r.more(&c)
		if err != nil || !ok {
			return err
		}
		if major == majorMap {
			if err := r.skip(); err != nil {
				return err
			}
		}
		if err := r.skip(); err != nil {
			return err
		}
	}
}

// alias returns b as a string without copying. The string is valid as long as b is not written to.
func alias(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}
