package dialect

// Code is the class of an error, as Flight names it.
type Code uint8

// The codes of errors.
const (
	Invalid       Code = iota + 1 // the statement is wrong
	Unimplemented                 // the statement asks for what the server does not do
	Exhausted                     // memory or temporary space ran out
	Failed                        // anything else
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
func (e *Error) Error() string { return e.Message }

// MapEngineError turns an error of the engine that ran st into one that speaks of the client's text and names.
// An error that is already a *Error is returned as it is. st may be nil.
func MapEngineError(err error, st *Statement) *Error {
	return &Error{Code: Failed, Message: err.Error()}
}
