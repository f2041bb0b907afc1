package query

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
)

// Range is the time range of a query in nanoseconds since the Unix epoch, UTC. Both ends belong to it.
type Range struct {
	Begin, End int64
}

// Request is one statement and how to answer it.
type Request struct {
	SQL                string
	Range              *Range // nil = all of time
	Limit              *int64 // rows sent at most; nil = all
	PreserveDictionary bool   // keep dictionaries in the answer
	Strict             bool   // fail where the answer may be incomplete, instead of warning
	Admin              bool   // the caller may use the administrator's functions
	Client             Client // for the record

	// Progress, unless nil, is told how far the views have come that Query waits for: one call at a time, from any goroutine, none after
	// Query has returned. It must not block.
	Progress func(Progress)
}

// Client says who asks, as far as the caller told. It is logged, and nothing depends on it.
type Client struct {
	Type, Agent, Entrypoint, Session, User, Address string
}

// Answer is a stream of batches. It must be closed; it is not safe for concurrent use.
type Answer struct {
	// QueryID names the query in logs and errors.
	QueryID string

	// Warnings say what may be missing from the rows.
	Warnings []string

	stream Stream
	done   <-chan struct{} // nil: never closed
	over   func() error    // why done is closed
}

// Stream is where an Answer's batches come from, with the rules of the Answer's methods of the same names.
type Stream interface {
	Schema() *arrow.Schema
	Next() (arrow.RecordBatch, error)
	Close() error
}

// NewAnswer makes an answer of a stream.
func NewAnswer(queryID string, warnings []string, s Stream) *Answer {
	return &Answer{QueryID: queryID, Warnings: warnings, stream: s}
}

// Schema returns the columns of every batch.
func (a *Answer) Schema() *arrow.Schema { return a.stream.Schema() }

// Next returns the next batch, which the caller must release, or io.EOF after the last. An error that is not io.EOF is an *Error.
func (a *Answer) Next() (arrow.RecordBatch, error) { return a.stream.Next() }

// Done is closed when the query's time is over, or its context ends: whoever holds the Answer, in a call that does not
// return, say, must then close it. Unlike the other methods, Done and Err may be called at any time.
func (a *Answer) Done() <-chan struct{} { return a.done }

// Err says why Done is closed; it is nil before.
func (a *Answer) Err() error {
	select {
	case <-a.done:
		return a.over()
	default:
		return nil
	}
}

// Close ends the query, also in the middle, and frees its connection. It may be called twice.
func (a *Answer) Close() error { return a.stream.Close() }

// Querier is what servers of any protocol need from a Service.
type Querier interface {
	// Query must return *Error for whatever goes wrong.
	Query(ctx context.Context, req Request) (*Answer, error)

	// Prepare must return the schema that Query's answer would have, without executing the statement.
	Prepare(ctx context.Context, req Request) (*arrow.Schema, error)
}
