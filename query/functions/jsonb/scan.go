package jsonb

import (
	"strings"
)

// Find returns the text of an object's member, straight from the document's text: the exact
// key, else the first key that differs in ASCII case only. The returned text aliases doc and
// is canonical when doc is. It reports false for a missing key and for anything but an object.
//
// Find builds no tree: it is what property lookups over millions of rows run. Text that is not
// plain JSON makes it fall back to ParseStored.
func Find(doc, name string) (raw string, ok bool) {
	fold := ""
	found := false
	for s := newScan(doc); ; {
		key, plain, value, more := s.next()
		if s.bad {
			return findParsed(doc, name)
		}
		if !more {
			return fold, found
		}
		if !plain {
			if key, ok = unquote(key); !ok {
				return findParsed(doc, name)
			}
		}
		if key == name {
			return value, true
		}
		if !found && equalFoldASCII(key, name) {
			fold, found = value, true
		}
	}
}

// findParsed is Find for text that the scanner does not understand.
func findParsed(doc, name string) (string, bool) {
	v, err := ParseStored(doc)
	if err != nil {
		return "", false
	}
	m, ok := v.Member(name)
	if !ok {
		return "", false
	}
	return string(AppendCanonical(nil, m)), true
}

// Text returns what a text function shows of a member found by Find: the content of a string,
// the compact JSON text of anything else.
func Text(raw string) (string, bool) {
	if len(raw) >= 2 && raw[0] == '"' {
		return unquote(raw[1 : len(raw)-1])
	}
	if isPlainScalar(raw) {
		return raw, true
	}
	v, err := ParseStored(raw)
	if err != nil {
		return "", false
	}
	return string(AppendJSON(nil, &v)), true
}

// isPlainScalar recognises the texts that print as they are: keywords and short integers.
func isPlainScalar(raw string) bool {
	switch raw {
	case "null", "true", "false", "0":
		return true
	}
	if raw == "" || len(raw) > 18 || raw[0] == '0' {
		return false
	}
	for i := range len(raw) {
		if raw[i] < '0' || raw[i] > '9' {
			return false
		}
	}
	return true
}

// unquote undoes the escapes of a string's inside; without a backslash it copies nothing.
func unquote(inside string) (string, bool) {
	if strings.IndexByte(inside, '\\') < 0 {
		return inside, true
	}
	p := parser{s: `"` + inside + `"`}
	s, err := p.quoted()
	return s, err == nil && p.i == len(p.s)
}

// Len returns the number of distinct keys of an object; it reports false for other documents.
func Len(doc string) (n int, ok bool) {
	if doc == "{}" {
		return 0, true
	}
	last := ""
	for s := newScan(doc); ; {
		key, _, _, more := s.next()
		if s.bad || more && n > 0 && key <= last {
			break // not canonical: count with care
		}
		if !more {
			return n, s.object
		}
		last = key
		n++
	}
	v, err := ParseStored(doc)
	return len(v.Members), err == nil && v.Kind == Object
}

// scan walks the members of an object's text.
type scan struct {
	s      string
	i      int
	object bool // the document is an object
	begun  bool
	bad    bool // not plain JSON
}

func newScan(doc string) scan {
	s := scan{s: doc}
	s.space()
	s.object = s.i < len(doc) && doc[s.i] == '{'
	return s
}

// next returns the next member: the key between its quotes, whether that has no escapes, and
// the value's text.
func (s *scan) next() (key string, plain bool, value string, more bool) {
	if !s.object {
		return "", false, "", false
	}
	if !s.begun {
		s.begun = true
		s.i++
		s.space()
		if s.at() == '}' {
			return "", false, "", false
		}
	} else {
		s.space()
		switch s.at() {
		case '}':
			return "", false, "", false
		case ',':
			s.i++
			s.space()
		default:
			s.bad = true
			return "", false, "", false
		}
	}
	if s.at() != '"' {
		s.bad = true
		return "", false, "", false
	}
	quoted, plain := s.str()
	s.space()
	if s.bad || s.at() != ':' {
		s.bad = true
		return "", false, "", false
	}
	s.i++
	s.space()
	begin := s.i
	s.value()
	if s.bad {
		return "", false, "", false
	}
	return quoted[1 : len(quoted)-1], plain, s.s[begin:s.i], true
}

func (s *scan) at() byte {
	if s.i < len(s.s) {
		return s.s[s.i]
	}
	return 0
}

func (s *scan) space() {
	for s.i < len(s.s) {
		switch s.s[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// str skips a string and returns it with its quotes.
func (s *scan) str() (quoted string, plain bool) {
	begin := s.i
	plain = true
	for i := begin + 1; ; {
		end := strings.IndexByte(s.s[min(i, len(s.s)):], '"')
		if end < 0 {
			s.bad = true
			return `""`, false
		}
		escape := strings.IndexByte(s.s[i:i+end], '\\')
		if escape < 0 {
			s.i = i + end + 1
			return s.s[begin:s.i], plain
		}
		plain = false
		i += escape + 2 // behind what is escaped
	}
}

// value skips any value; what it lets pass beyond JSON is found when somebody parses it.
func (s *scan) value() {
	depth, begin := 0, s.i
	for s.i < len(s.s) {
		switch c := s.s[s.i]; c {
		case '"':
			s.str()
			if s.bad {
				return
			}
			if depth == 0 {
				return
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				s.bad = s.bad || s.i == begin
				return
			}
			depth--
			if depth == 0 {
				s.i++
				return
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				s.bad = s.bad || s.i == begin
				return
			}
		case '\'', '\\':
			s.bad = true
			return
		}
		s.i++
	}
	s.bad = true
}
