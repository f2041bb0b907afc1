package sdk

import (
	"context"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// A Sink carries requests of the native protocol away: to a gateway (httpsink), a file (filesink), memory (memsink), or a disk that
// waits for the gateway to come back (spool). Package sinktest has the tests that every Sink passes.
//
// Send and Stats may be called from any goroutine, also during Flush and Close.
type Sink interface {
	// Send takes the request over; nobody changes its body any more. It never blocks for longer than a copy takes: what the sink
	// has no room for it drops, spans before metrics before logs, registrations never, and counts.
	// After Close everything is dropped.
	Send(r Request)
	// Flush returns when every request sent before it was called is delivered, refused or dropped, or with ctx's error.
	Flush(ctx context.Context) error
	// Close flushes and ends the sink. What is undelivered when ctx is done is dropped, or kept where the sink keeps things, and
	// the error says so. A second Close does nothing.
	Close(ctx context.Context) error
	// Stats says what became of the requests so far.
	Stats() SinkStats
}

// Request is one request of the native protocol.
type Request struct {
	Kind  Kind
	Class Class
	// Body is the CBOR that is posted, the same bytes at each attempt.
	Body []byte
	// Events is how many events a block holds; 0 for registrations.
	Events int

	ProcessID telemetry.ID
	StreamID  telemetry.ID // zero for a process
	BlockID   telemetry.ID // zero for registrations
}

// Kind says what a request inserts.
type Kind uint8

// The kinds of requests.
const (
	KindProcess Kind = iota
	KindStream
	KindBlock
)

// Path returns the path that a request of this kind is posted to.
func (k Kind) Path() string {
	switch k {
	case KindProcess:
		return "/ingestion/insert_process"
	case KindStream:
		return "/ingestion/insert_stream"
	}
	return "/ingestion/insert_block"
}

// Class orders requests by what is given up last: registrations never, logs, metrics, then spans and images.
type Class uint8

// The classes, the most precious first.
const (
	ClassMetadata Class = iota
	ClassLogs
	ClassMetrics
	ClassSpans
	NumClasses = iota
)

var classNames = [NumClasses]string{"metadata", "logs", "metrics", "traces"}

// String returns the name of the class, as the measures telemetry_dropped_… carry it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "invalid"
}

// DropReason says why something was dropped.
type DropReason string

// The reasons of sinks; those of the recorder are beside Stats.
const (
	DropQueueFull DropReason = "queue full"     // the sink had no room
	DropRefused   DropReason = "refused"        // the server answered 4xx
	DropRetries   DropReason = "retries failed" // as often as the class allows
	DropClosed    DropReason = "closed"         // sent after Close, or left when its time was over
	DropDisk      DropReason = "disk"           // a file could not be written
)

// Drop is a number of requests of one class that were dropped for one reason.
type Drop struct {
	Class    Class
	Reason   DropReason
	Requests int64
	Events   int64
}

// SinkStats says what became of the requests of a sink. Sent = Delivered + Queued + those in Drops, at any moment.
type SinkStats struct {
	Sent      int64 // requests
	Delivered int64 // requests
	Events    int64 // of the blocks delivered
	Bytes     int64 // of the bodies delivered
	Retries   int64 // attempts beyond the first
	Queued    int64 // requests that wait or are under way
	Spooled   int64 // of those, requests on disk
	Drops     []Drop
}
