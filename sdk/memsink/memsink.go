// Package memsink is a sink that keeps requests in memory, for tests of instrumented programs and for programs that look at their own
// telemetry. It gives them back as they were sent (Requests), or decoded (Decode).
package memsink

import (
	"context"
	"slices"
	"sync"

	"github.com/micromegas-go/micromegas/sdk"
)

// DefaultMaxBytes is how much a sink keeps unless told otherwise.
const DefaultMaxBytes = 256 << 20

// overhead is what a request takes in memory beyond its body, about.
const overhead = 128

var _ sdk.Sink = (*Sink)(nil)

// Sink keeps requests until Reset. What is kept counts as delivered.
type Sink struct {
	maxBytes int64

	mu       sync.Mutex
	closed   bool
	requests []sdk.Request
	bytes    int64 // of requests
	stats    sdk.SinkStats
}

// New returns a sink that keeps up to maxBytes, then drops; 0 means DefaultMaxBytes.
func New(maxBytes int64) *Sink {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	return &Sink{maxBytes: maxBytes}
}

// Send keeps the request. A full sink drops everything but registrations.
func (s *Sink) Send(r sdk.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Sent++
	size := int64(len(r.Body)) + overhead
	switch {
	case s.closed:
		s.drop(&r, sdk.DropClosed)
	case s.bytes+size > s.maxBytes && r.Class != sdk.ClassMetadata:
		s.drop(&r, sdk.DropQueueFull)
	default:
		s.bytes += size
		s.requests = append(s.requests, r)
		s.stats.Delivered++
		s.stats.Events += int64(r.Events)
		s.stats.Bytes += int64(len(r.Body))
	}
}

func (s *Sink) drop(r *sdk.Request, why sdk.DropReason) {
	i := slices.IndexFunc(s.stats.Drops, func(d sdk.Drop) bool { return d.Class == r.Class && d.Reason == why })
	if i < 0 {
		i = len(s.stats.Drops)
		s.stats.Drops = append(s.stats.Drops, sdk.Drop{Class: r.Class, Reason: why})
	}
	s.stats.Drops[i].Requests++
	s.stats.Drops[i].Events += int64(r.Events)
}

// Flush returns at once: whatever was sent is here.
func (s *Sink) Flush(context.Context) error { return nil }

// Close ends the sink; what it has kept stays.
func (s *Sink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Stats returns the numbers so far; Reset does not change them.
func (s *Sink) Stats() sdk.SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Drops = slices.Clone(stats.Drops)
	return stats
}

// Requests returns what was kept since the beginning or the last Reset, in the order of Send. The bodies must not be changed.
func (s *Sink) Requests() []sdk.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Reset forgets what was kept and so makes room.
func (s *Sink) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.bytes = nil, 0
}
