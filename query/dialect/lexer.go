package dialect

import (
	"fmt"
	"strings"
)

// tokenKind says what a token is; comments and white space are no tokens.
type tokenKind uint8

const (
	word        tokenKind = iota // identifier or keyword without quotes
	quotedName                   // "…"
	text                         // '…' and $tag$…$tag$
	escapedText                  // E'…'
	hexText                      // X'…'
	number                       // 1, 1.5e3, 0xff
	parameter                    // ?, $1
	symbol                       // one of ( ) [ ] { } , ; . : or a run of operator characters
)

// token is a piece of the client's text, with what is written in its place.
type token struct {
	kind       tokenKind
	start, end int    // in the client's text
	out        string // what the engine gets; a word in lower case
	space      bool   // white space or a comment comes before it
}

// operatorBytes are the bytes that run together into one operator.
const operatorBytes = "+-*/<>=~!@#%^&|`?"

// lex splits sql into tokens. It never fails on odd bytes: they become symbols, and the parser's error names them.
func lex(sql string) ([]token, *Error) {
	l := lexer{sql: sql, tokens: make([]token, 0, len(sql)/5+8)}
	for {
		space, err := l.skipSpace()
		if err != nil {
			return nil, err
		}
		if l.pos >= len(sql) {
			return l.tokens, nil
		}
		if err := l.next(space); err != nil {
			return nil, err
		}
	}
}

type lexer struct {
	sql    string
	pos    int
	tokens []token
}

// skipSpace moves over white space and comments and says whether there was any.
func (l *lexer) skipSpace() (bool, *Error) {
	start := l.pos
	for l.pos < len(l.sql) {
		switch c := l.sql[l.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			l.pos++
		case c >= 0x80 && wideSpace(l.sql[l.pos:]) > 0:
			l.pos += wideSpace(l.sql[l.pos:])
		case strings.HasPrefix(l.sql[l.pos:], "--"):
			if i := strings.IndexByte(l.sql[l.pos:], '\n'); i >= 0 {
				l.pos += i
			} else {
				l.pos = len(l.sql)
			}
		case strings.HasPrefix(l.sql[l.pos:], "/*"):
			if !l.skipComment() {
				return false, syntaxError(l.sql, l.pos, "unterminated /* comment")
			}
		default:
			return l.pos > start, nil
		}
	}
	return l.pos > start, nil
}

// wideSpace returns the length of the space that s begins with, of those that editors and chat programs put into
// pasted text: no-break space, zero-width space, byte order mark.
func wideSpace(s string) int {
	for _, space := range [...]string{"\u00a0", "\u200b", "\ufeff"} {
		if strings.HasPrefix(s, space) {
			return len(space)
		}
	}
	return 0
}

// skipComment moves over a block comment; block comments nest.
func (l *lexer) skipComment() bool {
	depth := 0
	for i := l.pos; i+1 < len(l.sql); i++ {
		switch l.sql[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				l.pos = i + 1
				return true
			}
		}
	}
	return false
}

// next reads one token at l.pos.
func (l *lexer) next(space bool) *Error {
	start, c := l.pos, l.sql[l.pos]
	t := token{start: start, space: space}
	switch {
	case c == '\'':
		t.kind, t.end = text, l.quoted(start, '\'', false)
	case c == '"':
		t.kind, t.end = quotedName, l.quoted(start, '"', false)
	case (c == 'e' || c == 'E') && l.at(start+1) == '\'':
		t.kind, t.end = escapedText, l.quoted(start+1, '\'', true)
	case (c == 'x' || c == 'X') && l.at(start+1) == '\'':
		t.kind, t.end = hexText, l.quoted(start+1, '\'', false)
	case c == '$':
		l.dollar(&t)
	case isDigit(c), c == '.' && isDigit(l.at(start+1)) && !l.afterOperand(space):
		t.kind, t.end = number, l.number(start)
	case isWordStart(c):
		t.kind, t.end = word, l.word(start)
	case strings.IndexByte(operatorBytes, c) >= 0:
		t.kind, t.end = symbol, l.operator(start)
		if l.sql[start:t.end] == "?" {
			t.kind = parameter
		}
	case c == ':' && (l.at(start+1) == ':' || l.at(start+1) == '='):
		t.kind, t.end = symbol, start+2
	case c == 0:
		return syntaxError(l.sql, start, "syntax error: zero byte in the statement")
	default:
		t.kind, t.end = symbol, start+1
	}
	if t.end < 0 {
		return syntaxError(l.sql, start, fmt.Sprintf("syntax error: unterminated quoted text at or near %q", Clip(l.sql[start:], 20)))
	}
	t.out = l.sql[start:t.end]
	if t.kind == word {
		t.out = lowerASCII(t.out)
	}
	l.tokens = append(l.tokens, t)
	l.pos = t.end
	return nil
}

// at returns the byte at i, or 0 beyond the end.
func (l *lexer) at(i int) byte {
	if i < len(l.sql) {
		return l.sql[i]
	}
	return 0
}

// afterOperand says whether the last token, without space behind it, could be qualified: in x.1 the dot is no number's.
func (l *lexer) afterOperand(space bool) bool {
	if space || len(l.tokens) == 0 {
		return false
	}
	last := l.tokens[len(l.tokens)-1]
	return last.kind == word || last.kind == quotedName || last.out == ")" || last.out == "]"
}

// quoted returns the end of the text whose opening quote is at i, or -1.
func (l *lexer) quoted(i int, quote byte, backslash bool) int {
	for i++; i < len(l.sql); i++ {
		switch {
		case backslash && l.sql[i] == '\\':
			i++
		case l.sql[i] == quote:
			if l.at(i+1) != quote {
				return i + 1
			}
			i++
		}
	}
	return -1
}

// dollar reads $tag$…$tag$, $1 or a lone dollar sign.
func (l *lexer) dollar(t *token) {
	i := t.start + 1
	if isDigit(l.at(i)) {
		for isDigit(l.at(i)) {
			i++
		}
		t.kind, t.end = parameter, i
		return
	}
	for isWordStart(l.at(i)) || i > t.start+1 && isDigit(l.at(i)) {
		i++
	}
	if l.at(i) != '$' { // $name is a parameter too
		t.kind, t.end = parameter, i
		return
	}
	tag := l.sql[t.start : i+1]
	t.kind, t.end = text, -1
	if n := strings.Index(l.sql[i+1:], tag); n >= 0 {
		t.end = i + 1 + n + len(tag)
	}
}

// number returns the end of the number at i.
func (l *lexer) number(i int) int {
	if l.at(i) == '0' && (l.at(i+1)|0x20 == 'x' || l.at(i+1)|0x20 == 'b') {
		return l.word(i)
	}
	digits := func() {
		for isDigit(l.at(i)) || l.at(i) == '_' && isDigit(l.at(i+1)) {
			i++
		}
	}
	digits()
	if l.at(i) == '.' && l.at(i+1) != '.' {
		i++
		digits()
	}
	if l.at(i)|0x20 == 'e' {
		n := i + 1
		if l.at(n) == '+' || l.at(n) == '-' {
			n++
		}
		if isDigit(l.at(n)) {
			i = n
			digits()
		}
	}
	return i
}

func (l *lexer) word(i int) int {
	for i < len(l.sql) && (isWordStart(l.sql[i]) || isDigit(l.sql[i]) || l.sql[i] == '$') {
		if l.sql[i] >= 0x80 && wideSpace(l.sql[i:]) > 0 {
			break
		}
		i++
	}
	return i
}

// operator returns the end of the run of operator characters at i, which a comment ends.
func (l *lexer) operator(i int) int {
	for n := i; ; n++ {
		if n >= len(l.sql) || strings.IndexByte(operatorBytes, l.sql[n]) < 0 {
			return n
		}
		if n > i && (strings.HasPrefix(l.sql[n:], "--") || strings.HasPrefix(l.sql[n:], "/*")) {
			return n
		}
		if l.sql[n] == '?' && n > i {
			return n
		}
		if l.sql[n] == '?' {
			return n + 1
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWordStart(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80
}

// lowerASCII folds A to Z only, as DataFusion does with identifiers.
func lowerASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; c >= 'A' && c <= 'Z' {
					b[i] = c | 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

// Clip shortens s for a message.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
