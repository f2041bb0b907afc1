package query

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
)

// The phases of a query, which begin the text of its errors.
const (
	phasePlan     = "error building dataframe"
	phasePhysical = "error creating physical plan"
	phaseExecute  = "error executing plan"
)

// Error is what a query fails with. Its text has one form, which clients know:
//
//	<phase>: <message>[ (at line L, column C)][\nhelp: …] (query_id=<uuid>)
type Error struct {
	Code    codes.Code
	Phase   string
	Message string // with the prefix of its class, such as "Execution error: "
	Line    int    // in the client's text, from 1; 0 = unknown
	Column  int
	Help    string
	QueryID string
	Err     error // the cause, for the log; never shown to clients
}

// Error returns the text that clients get.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Phase)
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.Line > 0 {
		b.WriteString(" (at line ")
		b.WriteString(strconv.Itoa(e.Line))
		b.WriteString(", column ")
		b.WriteString(strconv.Itoa(e.Column))
		b.WriteString(")")
	}
	if e.Help != "" {
		b.WriteString("\nhelp: ")
		b.WriteString(e.Help)
	}
	if e.QueryID != "" {
		b.WriteString(" (query_id=")
		b.WriteString(e.QueryID)
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
