package jsonb

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrDuplicateKey is the error of Parse for an object that names a key twice.
var ErrDuplicateKey = errors.New("duplicate object key")

// SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	Offset  int
	Message string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Message, e.Offset) }

// Parse reads JSON text leniently: standard JSON, and also an empty text (null), keywords in any
// case, NaN and infinities, single-quoted strings, unquoted object keys, a leading +, leading
// zeros, .5 and 5., hexadecimal numbers, missing array elements (null), and the two-character
// escapes \n \r \t \x0C between tokens. A duplicate key is an error.
//
// The value's strings alias text where they hold no escape: text must not change while it lives.
func Parse(text string) (Value, error) { return parse(text, false) }

// ParseStored reads a document that is already stored: as Parse, but of duplicate keys the last
// one wins, so that no stored document is unreadable for that reason.
func ParseStored(text string) (Value, error) { return parse(text, true) }

func parse(text string, lastWins bool) (Value, error) {
	if !utf8.ValidString(text) {
		return Value{}, &SyntaxError{0, "text is not UTF-8"}
	}
	p := parser{s: text, lastWins: lastWins}
	p.skipSpace()
	if p.i == len(p.s) {
		return Value{Kind: Null}, nil
	}
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	p.skipSpace()
	if p.i != len(p.s) {
		return Value{}, p.fail("trailing characters")
	}
	return v, nil
}

type parser struct {
	s        string
	i        int
	lastWins bool
}

func (p *parser) fail(message string) error { return &SyntaxError{p.i, message} }

// skipSpace skips white space, and white space written as an escape.
func (p *parser) skipSpace() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
			continue
		case '\\':
			rest := p.s[p.i+1:]
			if len(rest) > 0 && (rest[0] == 'n' || rest[0] == 'r' || rest[0] == 't') {
				p.i += 2
				continue
			}
			if strings.HasPrefix(rest, "x0C") {
				p.i += 4
				continue
			}
		}
		return
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) value(depth int) (Value, error) {
	if depth > MaxDepth {
		return Value{}, p.fail("nesting is too deep")
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"' || c == '\'':
		s, err := p.quoted()
		return StringValue(s), err
	case c >= '0' && c <= '9', c == '-', c == '+', c == '.':
		return p.number()
	default:
		return p.keyword()
	}
}

func (p *parser) keyword() (Value, error) {
	for _, k := range []struct {
		word  string
		value Value
	}{
		{"null", Value{Kind: Null}},
		{"true", Value{Kind: True}},
		{"false", Value{Kind: False}},
		{"nan", FloatValue(math.NaN())},
		{"infinity", FloatValue(math.Inf(1))},
	} {
		if p.word(k.word) {
			return k.value, nil
		}
	}
	return Value{}, p.fail("unexpected character")
}

// word consumes a keyword of any case that no further letter or digit follows.
func (p *parser) word(word string) bool {
	end := p.i + len(word)
	if end > len(p.s) || !equalFoldASCII(p.s[p.i:end], word) {
		return false
	}
	if end < len(p.s) && isWordByte(p.s[end]) {
		return false
	}
	p.i = end
	return true
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c >= utf8.RuneSelf
}

func (p *parser) array(depth int) (Value, error) {
	p.i++ // [
	v := Value{Kind: Array}
	p.skipSpace()
	if p.peek() == ']' {
		p.i++
		return v, nil
	}
	for {
		p.skipSpace()
		item := Value{Kind: Null}
		if c := p.peek(); c != ',' && c != ']' {
			var err error
			if item, err = p.value(depth + 1); err != nil {
				return Value{}, err
			}
			p.skipSpace()
		}
		v.Items = append(v.Items, item)
		switch p.peek() {
		case ',':
			p.i++
		case ']':
			p.i++
			return v, nil
		default:
			return Value{}, p.fail("expected , or ]")
		}
	}
}

func (p *parser) object(depth int) (Value, error) {
	p.i++ // {
	v := Value{Kind: Object}
	p.skipSpace()
	if p.peek() == '}' {
		p.i++
		return v, nil
	}
	for {
		p.skipSpace()
		key, err := p.key()
		if err != nil {
			return Value{}, err
		}
		p.skipSpace()
		if p.peek() != ':' {
			return Value{}, p.fail("expected :")
		}
		p.i++
		p.skipSpace()
		value, err := p.value(depth + 1)
		if err != nil {
			return Value{}, err
		}
		v.Members = append(v.Members, Member{key, value})
		p.skipSpace()
		switch p.peek() {
		case ',':
			p.i++
			continue
		case '}':
			p.i++
		default:
			return Value{}, p.fail("expected , or }")
		}
		members, ok := sortMembers(v.Members, p.lastWins)
		if !ok {
			return Value{}, ErrDuplicateKey
		}
		v.Members = members
		return v, nil
	}
}

func (p *parser) key() (string, error) {
	if c := p.peek(); c == '"' || c == '\'' {
		return p.quoted()
	}
	begin := p.i
	for p.i < len(p.s) && (isWordByte(p.s[p.i]) || p.s[p.i] == '$' || p.s[p.i] == '-' || p.s[p.i] == '.') {
		p.i++
	}
	if p.i == begin {
		return "", p.fail("expected an object key")
	}
	return p.s[begin:p.i], nil
}

// quoted reads a string; without escapes it aliases the text.
func (p *parser) quoted() (string, error) {
	quote := p.s[p.i]
	p.i++
	begin := p.i
	for p.i < len(p.s) && p.s[p.i] != quote && p.s[p.i] != '\\' {
		p.i++
	}
	if p.i < len(p.s) && p.s[p.i] == quote {
		s := p.s[begin:p.i]
		p.i++
		return s, nil
	}
	out := append([]byte(nil), p.s[begin:p.i]...)
	for p.i < len(p.s) {
		switch c := p.s[p.i]; c {
		case quote:
			p.i++
			return string(out), nil
		case '\\':
			p.i++
			var err error
			if out, err = p.escape(out); err != nil {
				return "", err
			}
		default:
			out = append(out, c)
			p.i++
		}
	}
	return "", p.fail("unterminated string")
}

// escape reads what follows a backslash.
func (p *parser) escape(out []byte) ([]byte, error) {
	c := p.peek()
	p.i++
	switch c {
	case '"', '\\', '/', '\'':
		return append(out, c), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, err := p.unicodeEscape()
		if err != nil {
			return nil, err
		}
		return utf8.AppendRune(out, r), nil
	default:
		p.i--
		return nil, p.fail("invalid escape")
	}
}

// unicodeEscape reads XXXX or {XXXX}, and the second half of a surrogate pair. A lone surrogate
// becomes U+FFFD.
func (p *parser) unicodeEscape() (rune, error) {
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if strings.HasPrefix(p.s[p.i:], `\u`) {
		back := p.i
		p.i += 2
		low, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
			return both, nil
		}
		p.i = back
	}
	return utf8.RuneError, nil
}

func (p *parser) hex4() (rune, error) {
	digits := ""
	if p.peek() == '{' {
		end := strings.IndexByte(p.s[p.i:], '}')
		if end < 2 || end > 9 {
			return 0, p.fail("invalid unicode escape")
		}
		digits = p.s[p.i+1 : p.i+end]
		p.i += end + 1
	} else {
		if p.i+4 > len(p.s) {
			return 0, p.fail("invalid unicode escape")
		}
		digits = p.s[p.i : p.i+4]
		p.i += 4
	}
	u, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || u > utf8.MaxRune {
		return 0, p.fail("invalid unicode escape")
	}
	return rune(u), nil
}

// number reads a number; see Parse for what is accepted beside JSON.
func (p *parser) number() (Value, error) {
	negative := false
	if c := p.peek(); c == '-' || c == '+' {
		negative = c == '-'
		p.i++
	}
	if p.word("infinity") {
		if negative {
			return FloatValue(math.Inf(-1)), nil
		}
		return FloatValue(math.Inf(1)), nil
	}
	if p.word("nan") {
		return FloatValue(math.NaN()), nil
	}
	if strings.HasPrefix(p.s[p.i:], "0x") || strings.HasPrefix(p.s[p.i:], "0X") {
		return p.hexNumber(negative)
	}
	begin := p.i
	whole := p.digits()
	isFloat, fraction := false, 0
	if p.peek() == '.' {
		isFloat = true
		p.i++
		fraction = p.digits()
	}
	if whole+fraction == 0 {
		return Value{}, p.fail("expected a digit")
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		isFloat = true
		p.i++
		if c := p.peek(); c == '-' || c == '+' {
			p.i++
		}
		if p.digits() == 0 {
			return Value{}, p.fail("expected an exponent")
		}
	}
	if p.i < len(p.s) && isWordByte(p.s[p.i]) {
		return Value{}, p.fail("invalid number")
	}
	return numberValue(p.s[begin:p.i], negative, isFloat)
}

func (p *parser) digits() int {
	begin := p.i
	for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		p.i++
	}
	return p.i - begin
}

func numberValue(digits string, negative, isFloat bool) (Value, error) {
	if !isFloat {
		u, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && !negative {
			return UintValue(u), nil
		}
		if err == nil && u <= 1<<63 {
			return IntValue(-int64(u)), nil
		}
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range: ±Inf
		return Value{}, fmt.Errorf("number %q: %w", digits, err)
	}
	if negative {
		f = -f
	}
	return FloatValue(f), nil
}

// hexNumber reads 0xFF or 0x1A.8.
func (p *parser) hexNumber(negative bool) (Value, error) {
	p.i += 2
	begin := p.i
	p.hexDigits()
	whole := p.s[begin:p.i]
	fraction := ""
	isFloat := p.peek() == '.'
	if isFloat {
		p.i++
		begin = p.i
		p.hexDigits()
		fraction = p.s[begin:p.i]
	}
	if whole == "" && fraction == "" || p.i < len(p.s) && isWordByte(p.s[p.i]) {
		return Value{}, p.fail("invalid hexadecimal number")
	}
	if !isFloat {
		u, err := strconv.ParseUint(whole, 16, 64)
		if err == nil && !negative {
			return UintValue(u), nil
		}
		if err == nil && u <= 1<<63 {
			return IntValue(-int64(u)), nil
		}
	}
	f, err := strconv.ParseFloat("0x"+whole+"."+fraction+"p0", 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return Value{}, fmt.Errorf("number 0x%s.%s: %w", whole, fraction, err)
	}
	if negative {
		f = -f
	}
	return FloatValue(f), nil
}

func (p *parser) hexDigits() {
	for p.i < len(p.s) {
		c := lowerASCII(p.s[p.i])
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return
		}
		p.i++
	}
}
