// Package deliver is what the sinks that reach something have in common: a queue in memory, a few requests under way, attempts that are
// repeated, and numbers that add up. Whoever knows how to make one attempt (a Poster: httpsink, filesink) gets a whole sdk.Sink from New;
// whoever keeps requests elsewhere while the other end is away (a Shelf: spool) hangs it behind.
//
// # Room
//
// The queue has a lane for each class and gives the most precious away first. Above the soft bound, spans that come are dropped. At the
// hard bound, queued spans make room for metrics and logs, queued metrics for logs, the oldest first; what finds no room then is dropped.
// Registrations are always taken. Everything dropped is counted by class and reason.
//
// # Attempts
//
// A request is posted with the same bytes until it is delivered or refused, until it is older than Config.MaxAge of its class, or until it
// has failed as often as Config.MaxFailures. Failures count when the request may be their reason (a 500, a time-out); that the other end
// was not there at all is nobody's fault: such a request waits for as long as its age and the room allow.
//
// All requests share one back-off: after a failure nothing is posted for a random part of a pause that doubles with each further failure
// (full jitter), and then a single request goes ahead; when it comes through the others follow. What has failed itself also waits for a
// pause of its own, and others are tried before it, so that one poisonous request does not hold up the rest.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// Verdict is the outcome of an attempt.
type Verdict uint8

// The outcomes.
const (
	Delivered Verdict = iota
	Refused           // and always will be: the request is dropped
	Failed            // perhaps because of the request: it is tried again, others first
	Away              // the other end takes nothing at the moment: the request is tried again, as the first one
)

// Answer is what came of an attempt.
type Answer struct {
	Verdict    Verdict
	Reason     sdk.DropReason // why a refused request is dropped; "" means sdk.DropRefused
	RetryAfter time.Duration  // how long the other end wants to be left alone; 0 = it did not say
	Err        error          // of an attempt that did not deliver; it must hold no secrets
}

// Poster makes attempts.
type Poster interface {
	// Post makes one attempt to deliver r, and must return soon after ctx is done. It must not change or keep the body. Up to
	// Config.MaxInFlight goroutines call it at once.
	Post(ctx context.Context, r *sdk.Request) Answer
}

// Config bounds a queue and its attempts.
type Config struct {
	MaxInFlight int   // requests under way at once
	SoftBytes   int64 // of the queue, requests under way included: above it new spans are dropped
	HardBytes   int64 // likewise: it is never exceeded, except by registrations

	MinBackoff    time.Duration // the first pause after a failure is at most this long
	MaxBackoff    time.Duration // no pause is longer, unless the other end asks for it
	MaxRetryAfter time.Duration // the longest pause that the other end may ask for

	MaxAge      [sdk.NumClasses]time.Duration // how long a request is tried
	MaxFailures [sdk.NumClasses]int           // how often it may fail

	// OnError is told why attempts fail and requests are refused, at most once in ErrorInterval. It is called on a goroutine of the
	// sink, must not block for long, and must not call Flush or Close. Nil = nobody is told.
	OnError       func(error)
	ErrorInterval time.Duration

	// Settled is told of each request that is not in memory any more: delivered, dropped or on the shelf. It may be called
	// on the goroutine of Send. Nil = nobody is told.
	Settled func(*sdk.Request)

	// Shelf keeps what cannot be delivered soon. Nil = there is none.
	Shelf Shelf
	// ShelveAfter is how long the other end must be away until all that waits goes to the shelf.
	ShelveAfter time.Duration
	// ShelveBytes is how much may wait in memory while the other end is there, until the least precious goes to the shelf.
	ShelveBytes int64
}

// DefaultConfig returns the defaults: the room is that of the Rust client; logs, metrics and registrations outlive an outage of an hour,
// spans one of five minutes, as far as there is room.
func DefaultConfig() Config {
	return Config{
		MaxInFlight: 3, SoftBytes: 128 << 20, HardBytes: 256 << 20,
		MinBackoff: 100 * time.Millisecond, MaxBackoff: 30 * time.Second, MaxRetryAfter: time.Minute,
		MaxAge: [sdk.NumClasses]time.Duration{24 * time.Hour, time.Hour, time.Hour, 5 * time.Minute},
		// With the pauses above, 50 failures take a quarter of an hour or more.
		MaxFailures:   [sdk.NumClasses]int{100, 50, 50, 10},
		ErrorInterval: 10 * time.Second,
		ShelveAfter:   time.Second, ShelveBytes: 32 << 20,
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.MaxInFlight < 1 || c.MaxInFlight > 1_000 {
		errs = append(errs, fmt.Errorf("%d requests in flight: want 1 to 1000", c.MaxInFlight))
	}
	if c.SoftBytes <= 0 || c.HardBytes < c.SoftBytes {
		errs = append(errs, fmt.Errorf("queue of %d and %d bytes: want a positive soft bound and a hard bound not below it", c.SoftBytes, c.HardBytes))
	}
	if c.MinBackoff <= 0 || c.MaxBackoff < c.MinBackoff {
		errs = append(errs, fmt.Errorf("backoff of %s to %s: want a positive first one and a longest not below it", c.MinBackoff, c.MaxBackoff))
	}
	if c.MaxRetryAfter < 0 {
		errs = append(errs, fmt.Errorf("longest Retry-After of %s: want 0 or more", c.MaxRetryAfter))
	}
	for class := range sdk.Class(sdk.NumClasses) {
		if c.MaxAge[class] <= 0 || c.MaxFailures[class] <= 0 {
			errs = append(errs, fmt.Errorf("%s are tried for %s and may fail %d times: want more than 0", class, c.MaxAge[class], c.MaxFailures[class]))
		}
	}
	return errors.Join(errs...)
}

// Shelf keeps requests outside the queue, in the order of their classes and then of their coming. Its methods may be called from any
// goroutine; all but Next return what was lost on the way since the last time, which is dropped for the reasons that it says.
type Shelf interface {
	// Put keeps requests. The first n are on the shelf when it returns, whatever the error.
	Put(rs []Kept) (n int, lost []sdk.Drop, err error)
	// Peek says of which class the next request is, or, when there is none now, when there may be one (zero: when Put says so). It must be
	// fast: it is called while the queue is locked.
	Peek(now time.Time) (class sdk.Class, ok bool, next time.Time)
	// Next gives a request out until Done or Back is called with it. False: there is none after all.
	Next(now time.Time) (k *Kept, lost []sdk.Drop, ok bool)
	// Done forgets a request that was delivered or dropped.
	Done(k *Kept) []sdk.Drop
	// Back takes a request back that was not delivered, to be given out again at k.NotBefore.
	Back(k *Kept) []sdk.Drop
}

// Kept is a request on a shelf.
type Kept struct {
	sdk.Request
	Since     time.Time // when it was sent
	Attempts  int       // begun so far
	Failures  int       // of those, attempts that Config.MaxFailures counts
	NotBefore time.Time
	Place     any // the shelf's own
}
