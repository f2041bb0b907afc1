package telemetry

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
)

// ID is a UUID. The zero ID means none.
type ID [16]byte

// ErrBadID is the error of ParseID.
var ErrBadID = errors.New("not a UUID")

// NewID returns a random (version 4) UUID.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID accepts the forms that producers send: hyphenated or not, upper or lower case, in braces, or after urn:uuid:.
// It does not allocate.
func ParseID(s string) (ID, error) {
	var id ID
	switch len(s) {
	case 32, 36:
	case 38:
		if s[0] != '{' || s[37] != '}' {
			return id, ErrBadID
		}
		s = s[1:37]
	case 45:
		if !strings.EqualFold(s[:9], "urn:uuid:") {
			return id, ErrBadID
		}
		s = s[9:]
	default:
		return id, ErrBadID
	}
	hyphens := len(s) == 36
	if hyphens && (s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-') {
		return id, ErrBadID
	}
	p := 0
	for i := range id {
		if hyphens && (i == 4 || i == 6 || i == 8 || i == 10) {
			p++
		}
		hi, lo := hexValue(s[p]), hexValue(s[p+1])
		if hi > 15 || lo > 15 {
			return ID{}, ErrBadID
		}
		id[i] = hi<<4 | lo
		p += 2
	}
	return id, nil
}

// hexValue returns the value of a hexadecimal digit, 255 for any other byte.
func hexValue(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// String returns the lower-case hyphenated form.
func (id ID) String() string {
	var b [36]byte
	return string(id.AppendText(b[:0]))
}

// AppendText appends the lower-case hyphenated form to dst.
func (id ID) AppendText(dst []byte) []byte {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return append(dst, b[:]...)
}

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }
