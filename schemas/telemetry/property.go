package telemetry

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Property is a named text.
type Property struct{ Key, Value string }

// PropertySet is an immutable set of properties, shared by all rows that carry it.
type PropertySet struct {
	Props []Property // unique keys, sorted bytewise
	JSON  string     // compact JSON object, keys sorted; "{}" when empty
}

// EmptyProperties is the set without properties.
var EmptyProperties = &PropertySet{JSON: "{}"}

// NewPropertySet makes a set of props; of a key that occurs more than once the last value counts. It takes ownership of props and
// reorders it.
func NewPropertySet(props []Property) *PropertySet {
	if len(props) == 0 {
		return EmptyProperties
	}
	props = SortProperties(props)
	return &PropertySet{Props: props, JSON: string(AppendPropertiesJSON(nil, props))}
}

// SortProperties sorts props by key in place and drops all but the last value of a repeated key.
func SortProperties(props []Property) []Property {
	if len(props) < 2 {
		return props
	}
	slices.SortStableFunc(props, func(a, b Property) int { return strings.Compare(a.Key, b.Key) })
	n := 0
	for i := range props {
		if n > 0 && props[n-1].Key == props[i].Key {
			n--
		}
		props[n] = props[i]
		n++
	}
	return props[:n]
}

// Lookup returns the value of a key.
func (s *PropertySet) Lookup(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(s.Props, key, func(p Property, k string) int { return strings.Compare(p.Key, k) })
	if !ok {
		return "", false
	}
	return s.Props[i].Value, true
}

// PropertiesJSON returns props as a compact JSON object with sorted keys; the last value of a repeated key counts.
// It does not change props.
func PropertiesJSON(props []Property) string {
	if len(props) == 0 {
		return "{}"
	}
	if !sortedUnique(props) {
		props = SortProperties(slices.Clone(props))
	}
	return string(AppendPropertiesJSON(nil, props))
}

func sortedUnique(props []Property) bool {
	for i := 1; i < len(props); i++ {
		if props[i-1].Key >= props[i].Key {
			return false
		}
	}
	return true
}

// AppendPropertiesJSON appends props, in their order, as a compact JSON object.
func AppendPropertiesJSON(dst []byte, props []Property) []byte {
	dst = append(dst, '{')
	for i, p := range props {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJSONString(dst, p.Key)
		dst = append(dst, ':')
		dst = AppendJSONString(dst, p.Value)
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s as a JSON string: quote, backslash and control characters are escaped (\b \f \n \r \t, others as
// \u00xx), everything else is verbatim; bytes that are not UTF-8 become U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscape(dst, c)
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
