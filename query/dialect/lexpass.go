package dialect

import (
	"fmt"
	"strings"
)

// Bounds of a statement. They keep the parser, the rewrite and the engine's binder away from texts that no person
// writes; DuckDB's own limit on the depth of an expression is 1000.
const (
	maxStatementBytes = 1 << 20 // of text
	maxNesting        = 200     // of parentheses, brackets and braces
	maxTokens         = 200_000
	maxConjunctions   = 10_000 // of AND and OR: the time to parse them grows with their square
	maxWithinGroups   = 500    // each moves the tokens behind it
)

// lexed is a statement after the lexer pass.
type lexed struct {
	sql    string  // the client's text
	tokens []token // of the statement, without the final semicolon
}

// lexPass splits the client's text and applies the rules that must come before parsing. What it writes into the tokens
// differs from the client's text where DataFusion and DuckDB read the same characters differently.
func lexPass(sql string) (*lexed, *Error) {
	if len(sql) > maxStatementBytes {
		return nil, &Error{
			Code: Invalid, Message: fmt.Sprintf("SQL error: statement of %d bytes is longer than the limit of %d", len(sql), maxStatementBytes),
			Hint: "put long lists of values into a static table, or ask in several queries",
		}
	}
	tokens, err := lex(sql)
	if err != nil {
		return nil, err
	}
	if len(tokens) > maxTokens {
		return nil, &Error{Code: Invalid, Message: fmt.Sprintf("SQL error: statement has more than %d tokens", maxTokens)}
	}
	l := &lexed{sql: sql, tokens: tokens}
	if err := l.oneStatement(); err != nil {
		return nil, err
	}
	if err := l.checkConjunctions(); err != nil {
		return nil, err
	}
	if err := l.checkNesting(); err != nil {
		return nil, err
	}
	l.quoteEnd()
	l.spellings()
	if err := l.withinGroup(); err != nil {
		return nil, err
	}
	return l, nil
}

// oneStatement drops semicolons at the end and refuses any other.
func (l *lexed) oneStatement() *Error {
	for len(l.tokens) > 0 && l.tokens[len(l.tokens)-1].is(";") {
		l.tokens = l.tokens[:len(l.tokens)-1]
	}
	if len(l.tokens) == 0 {
		return &Error{Code: Invalid, Message: "SQL error: empty statement: No SQL statements were provided in the query string"}
	}
	for _, t := range l.tokens {
		if t.is(";") {
			e := &Error{
				Code:    Unimplemented,
				Message: "This feature is not implemented: only one statement per query: The context currently only supports a single SQL statement",
				Hint:    "send the statements one after the other",
			}
			e = e.at(l.sql, t.start)
			return e
		}
	}
	return nil
}

func (l *lexed) checkConjunctions() *Error {
	found := 0
	for i := range l.tokens {
		if t := &l.tokens[i]; t.is("and") || t.is("or") {
			if found++; found > maxConjunctions {
				e := syntaxError(l.sql, t.start, fmt.Sprintf("more than %d AND and OR", maxConjunctions))
				return e.withHint("write x IN (…) in place of x = … OR x = …")
			}
		}
	}
	return nil
}

func (l *lexed) checkNesting() *Error {
	depth := 0
	for _, t := range l.tokens {
		if t.kind != symbol {
			continue
		}
		switch t.out {
		case "(", "[", "{":
			if depth++; depth > maxNesting {
				return syntaxError(l.sql, t.start, fmt.Sprintf("parentheses nest deeper than %d", maxNesting))
			}
		case ")", "]", "}":
			depth--
		}
	}
	return nil
}

// is says whether the token is the symbol or the unquoted word s.
func (t *token) is(s string) bool {
	return (t.kind == symbol || t.kind == word) && t.out == s
}

// peek returns the token at i, or an empty symbol beyond either end.
func (l *lexed) peek(i int) *token {
	if i < 0 || i >= len(l.tokens) {
		return &token{kind: symbol}
	}
	return &l.tokens[i]
}

// notOperand holds the words after which an operand is still to come, so that a following end is a name.
var notOperand = wordSet(`select distinct where and or not when then else case on by having using in like ilike between
	is as set from join union all except intersect limit offset order group qualify over partition filter values with
	return similar to escape interval any some exists`)

// quoteEnd writes "end" where end is a name: DuckDB reserves the word, and thread_spans has a column of that name. It
// closes a CASE only when one is open and an operand has just ended.
func (l *lexed) quoteEnd() {
	depth := 0
	for i := range l.tokens {
		t := &l.tokens[i]
		prev := l.peek(i - 1)
		switch {
		case t.is("case") && !prev.is("."):
			depth++
		case t.is("end"):
			if depth > 0 && prev.endsOperand() {
				depth--
			} else if !prev.is(".") && !prev.is("as") {
				t.out = `"end"`
			}
		}
	}
}

func (t *token) endsOperand() bool {
	switch t.kind {
	case symbol:
		return t.out == ")" || t.out == "]" || t.out == "}" || t.out == "*"
	case word:
		return !notOperand[t.out]
	default:
		return true
	}
}

// unsigned maps an integer type to the name of its unsigned twin.
var unsigned = map[string]string{
	"tinyint": "UTINYINT", "smallint": "USMALLINT", "int": "UINTEGER", "integer": "UINTEGER", "bigint": "UBIGINT",
}

// spellings rewrites the forms that differ in one or two tokens.
func (l *lexed) spellings() {
	var casts []bool // for each open parenthesis: it belongs to a CAST
	for i := range l.tokens {
		t := &l.tokens[i]
		next := l.peek(i + 1)
		switch {
		case t.is("("):
			prev := l.peek(i - 1)
			casts = append(casts, prev.is("cast") || prev.is("try_cast"))
		case t.is(")"):
			if len(casts) > 0 {
				casts = casts[:len(casts)-1]
			}
		case t.kind == hexText:
			t.out = "unhex('" + l.sql[t.start+2:t.end] + ")"
		case t.kind == word && unsigned[t.out] != "" && next.is("unsigned"):
			t.out, next.out = unsigned[t.out], ""
		case t.is("*") && next.is("except") && l.excludes(i+2):
			next.out = "EXCLUDE"
		case t.is("timestamp") || t.is("timestamptz"):
			l.timestamp(i, len(casts) > 0 && casts[len(casts)-1])
		}
	}
}

// excludes says whether the parenthesis at i opens a list of columns rather than a query.
func (l *lexed) excludes(i int) bool {
	if !l.peek(i).is("(") {
		return false
	}
	first := l.peek(i + 1)
	return !first.is("select") && !first.is("with") && !first.is("values") && !first.is("from") && !first.is("(")
}

// timestamp makes the type at i nanoseconds: plain TIMESTAMP drops the offset of a literal without a word, and cuts it
// to microseconds. A timestamp that is a name stays.
func (l *lexed) timestamp(i int, inCast bool) {
	prev := l.peek(i - 1)
	if prev.is(".") {
		return
	}
	end := i + 1
	if l.peek(end).is("(") && l.peek(end+1).kind == number && l.peek(end+2).is(")") { // TIMESTAMP(9)
		end += 3
	}
	if (l.peek(end).is("with") || l.peek(end).is("without")) && l.peek(end+1).is("time") && l.peek(end+2).is("zone") {
		end += 3
	}
	literal := l.peek(end).kind == text || l.peek(end).kind == escapedText
	if !literal && !prev.is("::") && (!inCast || !prev.is("as")) {
		return
	}
	l.tokens[i].out = "TIMESTAMP_NS"
	for n := i + 1; n < end; n++ {
		l.tokens[n].out = ""
	}
}

// withinGroup turns approx_percentile_cont(p) WITHIN GROUP (ORDER BY x) into approx_percentile_cont(x, p); for a
// descending order the quantile counts from the other end.
func (l *lexed) withinGroup() *Error {
	found := 0
	for i := len(l.tokens) - 1; i >= 0; i-- { // inner calls stand to the right of outer ones
		if !l.tokens[i].is("approx_percentile_cont") || !l.peek(i+1).is("(") {
			continue
		}
		closing := l.closing(i + 1)
		open := closing + 3
		if closing < 0 || !l.peek(closing+1).is("within") || !l.peek(closing+2).is("group") || !l.peek(open).is("(") ||
			!l.peek(open+1).is("order") || !l.peek(open+2).is("by") {
			continue
		}
		last := l.closing(open)
		if last < 0 {
			continue
		}
		if found++; found > maxWithinGroups {
			return syntaxError(l.sql, l.tokens[i].start, fmt.Sprintf("more than %d WITHIN GROUP", maxWithinGroups))
		}
		args, value := l.tokens[i+2:closing], l.tokens[open+3:last]
		args, descending := firstArgument(args), false
		for len(value) > 0 {
			end := value[len(value)-1]
			if n := len(value) - 2; n > 0 && value[n].is("nulls") && (end.is("first") || end.is("last")) {
				value = value[:n]
				continue
			}
			if !end.is("asc") && !end.is("desc") {
				break
			}
			descending = end.is("desc")
			value = value[:len(value)-1]
		}
		at := l.tokens[i].start
		made := func(s string) token { return token{kind: symbol, start: at, end: at, out: s, space: true} }
		call := append([]token{l.tokens[i], l.tokens[i+1], made("(")}, value...)
		call = append(call, made(")"), made(","))
		if descending {
			call = append(call, made("1 - ("))
		}
		call = append(call, args...)
		if descending {
			call = append(call, made(")"))
		}
		call = append(call, made(")"))
		rest := append(call, l.tokens[last+1:]...)
		l.tokens = append(l.tokens[:i:i], rest...)
	}
	return nil
}

// firstArgument cuts off what follows the first comma outside brackets: the number of centroids, which we do not use.
func firstArgument(tokens []token) []token {
	depth := 0
	for i, t := range tokens {
		switch {
		case t.is("("), t.is("["), t.is("{"):
			depth++
		case t.is(")"), t.is("]"), t.is("}"):
			depth--
		case t.is(",") && depth == 0:
			return tokens[:i]
		}
	}
	return tokens
}

// closing returns the index of the parenthesis that closes the one at i, or -1.
func (l *lexed) closing(i int) int {
	depth := 0
	for ; i < len(l.tokens); i++ {
		switch {
		case l.tokens[i].is("("):
			depth++
		case l.tokens[i].is(")"):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// print writes the tokens from first on as the text for the parser, with the map back to the client's text.
func (l *lexed) print(first int) (string, positions) {
	var b strings.Builder
	b.Grow(len(l.sql) + 64)
	at := make(positions, 0, len(l.tokens))
	for i := first; i < len(l.tokens); i++ {
		t := &l.tokens[i]
		if t.out == "" {
			continue
		}
		if t.space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		at = append(at, piece{out: b.Len(), in: t.start})
		b.WriteString(t.out)
	}
	end := len(l.sql)
	if n := len(l.tokens); n > 0 {
		end = l.tokens[n-1].end
	}
	return b.String(), append(at, piece{out: b.Len(), in: end})
}

// wordSet makes a set of the words of a text.
func wordSet(words ...string) map[string]bool {
	set := map[string]bool{}
	for _, w := range words {
		for name := range strings.FieldsSeq(w) {
			set[name] = true
		}
	}
	return set
}
