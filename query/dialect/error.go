package dialect

import (
	"fmt"
	"slices"
	"strings"
)

// Code is the class of an error, as Flight names it.
type Code uint8

// The codes of errors.
const (
	Invalid       Code = iota + 1 // the statement is wrong
	Unimplemented                 // the statement asks for what the server does not do
	Exhausted                     // memory or temporary space ran out
	Failed                        // anything else
)

// Prefixes of messages, by class, as clients know them.
const (
	prefixSQL       = "SQL error: "
	prefixPlan      = "Error during planning: "
	prefixSchema    = "Schema error: "
	prefixExecution = "Execution error: "
	prefixResources = "Resources exhausted: "
	prefixInternal  = "Internal error: "
)

// Error is a fault of a statement.
type Error struct {
	Code    Code
	Message string // with the prefix of its class, such as "Error during planning: "
	Hint    string // what to do next; "" = nothing known
	Line    int    // in the client's text, from 1; 0 = unknown
	Column  int    // in bytes of that line, from 1
}

// Error returns the message with its position and hint, as clients see it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Line > 0 {
		fmt.Fprintf(&b, " (at line %d, column %d)", e.Line, e.Column)
	}
	if e.Hint != "" {
		b.WriteString("\nhelp: ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// at returns e with the position of a byte offset in the client's text.
func (e *Error) at(sql string, offset int) *Error {
	e.Line, e.Column = lineColumn(sql, offset)
	return e
}

// syntaxError is a fault that needs no parser to be seen.
func syntaxError(sql string, offset int, message string) *Error {
	return (&Error{Code: Invalid, Message: prefixSQL + message}).at(sql, offset)
}

// planError is a fault in what the statement means.
func planError(format string, args ...any) *Error {
	return &Error{Code: Invalid, Message: prefixPlan + fmt.Sprintf(format, args...)}
}

// withHint adds what to do.
func (e *Error) withHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// closest returns the candidates that resemble name most, best first, at most three.
func closest(name string, candidates []string) []string {
	type scored struct {
		name     string
		distance int
	}
	name = lowerASCII(Clip(name, 64))
	var near []scored
	for _, c := range candidates {
		lower := lowerASCII(c)
		d := editDistance(name, lower)
		if len(name) > 2 && (strings.Contains(lower, name) || strings.Contains(name, lower) && len(lower) > 2) {
			d = min(d, 2)
		}
		if d <= max(2, len(name)/3) {
			near = append(near, scored{c, d})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	var names []string
	for _, s := range near[:min(3, len(near))] {
		names = append(names, s.name)
	}
	return names
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
