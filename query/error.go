package query

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Short names of the codes that queries fail with.
const (
	codeInvalid       = codes.InvalidArgument
	codeUnimplemented = codes.Unimplemented
	codeExhausted     = codes.ResourceExhausted
	codeUnavailable   = codes.Unavailable
	codeInternal      = codes.Internal
)

// The phases of a query, which begin the text of its errors.
const (
	phasePlan     = "error building dataframe"
	phasePhysical = "error creating physical plan"
	phaseExecute  = "error executing plan"
)

// helpDamaged says what to do about a file that is not what was written.
const helpDamaged = "restore the file from a copy of the lake; times and tables that lie in other files can be queried"

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

// errorOf returns err as an *Error of its own, without phase and query id where they are not known. What the client can do
// nothing about is told in general terms, and logged in full.
func (s *Service) errorOf(ctx context.Context, err error, st *dialect.Statement) *Error {
	if mine, ok := errors.AsType[*Error](err); ok {
		own := *mine
		return &own
	}
	if e := s.ended(ctx, err); e != nil {
		return e
	}
	if e := away(err); e != nil {
		return e
	}
	if errors.Is(err, lake.ErrDamaged) {
		return &Error{Code: codeInternal, Message: "External error: " + err.Error(), Help: helpDamaged, Err: err}
	}
	var spoken *dialect.Error
	var engineErr *engine.Error
	switch {
	case errors.As(err, &spoken):
	case errors.As(err, &engineErr):
		spoken = dialect.MapEngineError(dialect.EngineFault{
			Class: engineErr.Class.String(), Subtype: engineErr.Subtype, Message: engineErr.Message,
			Kind: engineErr.Kind, Name: engineErr.Name, Candidates: engineErr.Candidates,
		}, st)
	default:
		return &Error{Code: codeInternal, Message: "External error: " + err.Error(), Err: err}
	}
	return &Error{
		Code: codeOf(spoken.Code), Message: spoken.Message, Help: spoken.Hint,
		Line: spoken.Line, Column: spoken.Column, Err: err,
	}
}

// ended returns the error of a query whose context is over, nil while it is not.
func (s *Service) ended(ctx context.Context, err error) *Error {
	switch {
	case ctx.Err() == nil:
		return nil
	case errors.Is(context.Cause(ctx), errTooLong):
		return &Error{
			Code:    codes.DeadlineExceeded,
			Message: fmt.Sprintf("Resources exhausted: the query ran longer than %s", s.cfg.Timeout),
			Help:    "ask for a shorter time range, or select fewer columns and rows",
			Err:     err,
		}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Code: codes.DeadlineExceeded, Message: "External error: the caller's deadline passed", Err: err}
	default:
		return &Error{Code: codes.Canceled, Message: "External error: the query was cancelled", Err: err}
	}
}

func codeOf(c dialect.Code) codes.Code {
	switch c {
	case dialect.Invalid:
		return codeInvalid
	case dialect.Unimplemented:
		return codeUnimplemented
	case dialect.Exhausted:
		return codeExhausted
	default:
		return codeInternal
	}
}
