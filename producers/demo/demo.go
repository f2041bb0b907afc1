// Package demo is a program that plays a small house of services and records it through package sdk, so that there is something to look at,
// and so that a reader of the code sees each thing of the library in use:
//
//	front.go   requests that go through services: spans in contexts that cross from one to the next, entries with the ids of their span,
//	           measures with properties, counters; now and then one that is slow, or fails
//	work.go    workers with nested spans on tracks of their own; batches in the background
//	frames.go  the loop of a game at 60 frames a second, on a track, and a picture of its last frames every half minute
//
// The same seed plays the same: each player draws what it emits, and in which order, from numbers of its own. How the players interleave
// and what the clock says is of the moment.
//
// The library is one per process. If it runs already when Run begins, the demo records into it and leaves it running when it ends: events
// go where the program that started it sends them, not to Config.URL, and Stats are those of the whole process. Else Run starts it with a
// sink to Config.URL, and stops it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
)

// Bounds of the producer.
const (
	maxPeriod       = time.Minute
	softQueueBytes  = 8 << 20 // of blocks that wait for the gateway
	hardQueueBytes  = 16 << 20
	requestTimeout  = 5 * time.Second // of one post
	farewellTimeout = 2 * time.Second // for the last blocks once the context has ended
)

// Config says what is played and where it goes.
type Config struct {
	URL    string        // base of the gateway, without /ingestion
	Key    string        // bearer key; "" = none
	Period time.Duration // the greatest age of a block
	Seed   uint64        // of all that is random
}

// DefaultConfig sends to the gateway on its default address, every second.
func DefaultConfig() Config {
	return Config{URL: "http://127.0.0.1:9000", Period: time.Second, Seed: 1}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if u, err := url.Parse(c.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		errs = append(errs, fmt.Errorf("URL %q is not an http address", c.URL))
	}
	if c.Period <= 0 || c.Period > maxPeriod {
		errs = append(errs, fmt.Errorf("period %s is not in 0..%s", c.Period, maxPeriod))
	}
	return errors.Join(errs...)
}

// Stats is what became of the events so far.
type Stats struct {
	Acked   int64 // events
	Dropped int64 // events, by the library or by its sink
	Retries int64 // posts that were tried again
}

// Producer is one run of the program.
type Producer struct {
	cfg     Config
	log     *slog.Logger
	sink    atomic.Pointer[httpsink.Sink] // nil = the library is not the producer's
	dropped int64                         // by the library before
	process atomic.Pointer[telemetry.ID]
}

// New makes a producer; nothing is sent before Run, and the library is not touched.
func New(cfg Config, log *slog.Logger) (*Producer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("demo config: %w", err)
	}
	return &Producer{cfg: cfg, log: log, dropped: droppedByLibrary()}, nil
}

// ProcessID returns the id under which the rows are found, zero before Run has begun.
func (p *Producer) ProcessID() telemetry.ID {
	if id := p.process.Load(); id != nil {
		return *id
	}
	return telemetry.ID{}
}

// Stats returns the counts so far. It is safe to call while Run runs.
func (p *Producer) Stats() Stats {
	s := sdk.Stats().Sink
	if sink := p.sink.Load(); sink != nil {
		s = sink.Stats()
	}
	dropped := droppedByLibrary() - p.dropped
	for _, d := range s.Drops {
		dropped += d.Events
	}
	return Stats{Acked: s.Events, Dropped: dropped, Retries: s.Retries}
}

// droppedByLibrary counts the events that no block holds.
func droppedByLibrary() (n int64) {
	for reason, events := range sdk.Stats().Dropped {
		if reason != "text cut" { // the event is there
			n += events
		}
	}
	return n
}

// Run plays until ctx ends, then sends what it has. A gateway that is away is no reason to stop.
func (p *Producer) Run(ctx context.Context) error {
	owner, err := p.start(ctx)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if id, err := telemetry.ParseID(sdk.ProcessID()); err == nil {
		p.process.Store(&id)
	}
	if owner {
		p.log.Info("demo producer started", "process_id", sdk.ProcessID(), "url", p.cfg.URL)
	} else {
		p.log.Info("demo producer started within this process's telemetry", "process_id", sdk.ProcessID())
	}
	p.play(ctx)
	if owner {
		farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
		defer cancel()
		if err := sdk.Stop(farewell); err != nil {
			p.log.Warn("the last events did not all arrive", "error", err)
		}
	}
	s := p.Stats()
	p.log.Info("demo producer stopped", "acked_events", s.Acked, "dropped_events", s.Dropped, "retries", s.Retries)
	return nil
}

// start starts the library, unless it runs, and reports whether it did.
func (p *Producer) start(ctx context.Context) (owner bool, err error) {
	if sdk.ProcessID() != "" {
		return false, nil
	}
	cfg := httpsink.DefaultConfig()
	cfg.URL, cfg.Key, cfg.RequestTimeout = p.cfg.URL, httpsink.Secret(p.cfg.Key), requestTimeout
	cfg.Delivery.SoftBytes, cfg.Delivery.HardBytes = softQueueBytes, hardQueueBytes
	cfg.Delivery.OnError = func(err error) { p.log.Warn("gateway does not take everything", "error", err) }
	sink, err := httpsink.New(cfg)
	if err != nil {
		return false, err
	}
	err = sdk.Start(ctx, sdk.Config{
		Sink: sink, LogAge: p.cfg.Period, MetricAge: p.cfg.Period, SpanAge: p.cfg.Period, Properties: map[string]string{"producer": "demo"},
	})
	if err == nil {
		p.sink.Store(sink)
		return true, nil
	}
	closeErr := sink.Close(context.WithoutCancel(ctx)) // has nothing to send
	if errors.Is(err, sdk.ErrRunning) {                // somebody was faster
		return false, closeErr
	}
	return false, errors.Join(err, closeErr)
}

// play runs all players until ctx ends.
func (p *Producer) play(ctx context.Context) {
	started.Log(sdk.Uint(p.cfg.Seed))
	var players sync.WaitGroup
	for _, play := range []func(context.Context, uint64){playFront, playFrames, playBatches, playProcess} {
		players.Go(func() { play(ctx, p.cfg.Seed) })
	}
	for n := range workers {
		players.Go(func() { playWorker(ctx, p.cfg.Seed, n) })
	}
	players.Wait()
	stopped.Log()
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// The players' streams of random numbers.
const (
	randomFront = iota
	randomFrames
	randomBatches
	randomWorkers // and one more for each further worker
)
