package httpsink

import (
	"context"
	"fmt"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
)

var _ sdk.Sink = (*Sink)(nil)

// Sink posts requests to a gateway. It must be closed when no longer needed.
type Sink struct {
	sink   *deliver.Sink
	poster *Poster
}

// New returns a running sink. Nothing is posted before the first request is sent.
func New(cfg Config) (*Sink, error) {
	p, err := NewPoster(cfg)
	if err != nil {
		return nil, fmt.Errorf("httpsink: %w", err)
	}
	s, err := deliver.New(cfg.Delivery, p)
	if err != nil {
		return nil, fmt.Errorf("httpsink: %w", err)
	}
	return &Sink{sink: s, poster: p}, nil
}

// Send queues the request, or drops it.
func (s *Sink) Send(r sdk.Request) { s.sink.Send(r) }

// Flush returns when everything sent before is delivered or dropped, or with ctx's error.
func (s *Sink) Flush(ctx context.Context) error { return s.sink.Flush(ctx) }

// Stats returns the numbers so far.
func (s *Sink) Stats() sdk.SinkStats { return s.sink.Stats() }

// Close flushes and ends the sink; what is undelivered when ctx is done is dropped.
func (s *Sink) Close(ctx context.Context) error {
	defer s.poster.Close()
	return s.sink.Close(ctx)
}
