package wire

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of the texts that reach rows and registrations. What is longer is cut at a character, and counted.
const (
	MaxNameChars    = 255     // names, targets, units, property keys, fields of a process, tags: characters
	MaxMessageBytes = 1 << 20 // messages and property values: bytes
)

const replacement = "\uFFFD"

// CleanName returns s as rows and registrations may hold a name: NUL as U+FFFD, at most MaxNameChars characters. It returns s
// itself when nothing needs to change, which is the common case.
func CleanName(s string) (clean string, cut, nuls bool) {
	if len(s) > MaxNameChars {
		n := 0
		for i := range s {
			if n == MaxNameChars {
				s, cut = s[:i], true
				break
			}
			n++
		}
	}
	s, nuls = replaceNULs(s)
	return s, cut, nuls
}

// CleanMessage returns s as rows may hold a message or the value of a property: at most MaxMessageBytes, cut at a character. A NUL in
// it is content and stays.
func CleanMessage(s string) (clean string, cut bool) {
	if len(s) > MaxMessageBytes {
		n := MaxMessageBytes
		for n > MaxMessageBytes-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		return s[:n], true
	}
	return s, false
}

func replaceNULs(s string) (string, bool) {
	if strings.IndexByte(s, 0) < 0 {
		return s, false
	}
	return strings.ReplaceAll(s, "\x00", replacement), true
}

// appendLossy appends b as UTF-8, each maximal invalid part of a character replaced by one U+FFFD, as Unicode recommends.
func appendLossy(dst, b []byte) []byte {
	for len(b) > 0 {
		n := validPrefix(b)
		dst = append(dst, b[:n]...)
		b = b[n:]
		if len(b) > 0 {
			dst = append(dst, replacement...)
			b = b[invalidPart(b):]
		}
	}
	return dst
}

func validPrefix(b []byte) int {
	n := 0
	for n < len(b) {
		if b[n] < utf8.RuneSelf {
			n++
			continue
		}
		r, size := utf8.DecodeRune(b[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}

// invalidPart returns how many bytes of b, which starts with an invalid sequence, could have begun a valid character: at least 1.
func invalidPart(b []byte) int {
	lo, hi, need := byte(0x80), byte(0xbf), 0 // bounds of the second byte; continuation bytes after the first
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		need = 1
	case c >= 0xe0 && c <= 0xef:
		need = 2
		if c == 0xe0 {
			lo = 0xa0
		}
		if c == 0xed {
			hi = 0x9f
		}
	case c >= 0xf0 && c <= 0xf4:
		need = 3
		if c == 0xf0 {
			lo = 0x90
		}
		if c == 0xf4 {
			hi = 0x8f
		}
	}
	n := 1
	for n <= need && n < len(b) && b[n] >= lo && b[n] <= hi {
		lo, hi = 0x80, 0xbf
		n++
	}
	return n
}

// appendUTF16 appends little-endian UTF-16 as UTF-8; unpaired surrogates become U+FFFD. len(b) must be even.
func appendUTF16(dst, b []byte) []byte {
	for i := 0; i+1 < len(b); i += 2 {
		r := rune(b[i]) | rune(b[i+1])<<8
		if utf16.IsSurrogate(r) {
			next := rune(0)
			if i+3 < len(b) {
				next = rune(b[i+2]) | rune(b[i+3])<<8
			}
			if r = utf16.DecodeRune(r, next); r != utf8.RuneError {
				i += 2
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}
