// Package demo is a small program that emits: a process with a log stream, a metrics stream and the spans of one thread, a block of each
// every second, over HTTP to a gateway. It shows the house something to look at, and a reader of the code the least that a client
// of the native protocol has to do.
//
// What cannot be delivered waits in a queue of bounded length; what falls off its end, or is refused for good, is counted as dropped.
package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Bounds of the producer.
const (
	maxQueue        = 64              // blocks that wait for the gateway
	requestTimeout  = 5 * time.Second // of one post
	farewellTimeout = time.Second     // for the last blocks once the context has ended
	framesPerSecond = 60              // of the program that it plays
	ticksPerSecond  = 1_000_000_000   // ticks are monotonic nanoseconds
	frameTicks      = ticksPerSecond / framesPerSecond
)

// Config says where the producer sends to.
type Config struct {
	URL    string        // base of the gateway, without /ingestion
	Key    string        // bearer key; "" = none
	Period time.Duration // between blocks of a stream
}

// DefaultConfig sends to the gateway on its default address, every second.
func DefaultConfig() Config { return Config{URL: "http://127.0.0.1:9000", Period: time.Second} }

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if u, err := url.Parse(c.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		errs = append(errs, fmt.Errorf("URL %q is not an http address", c.URL))
	}
	if c.Period <= 0 {
		errs = append(errs, errors.New("period must be positive"))
	}
	return errors.Join(errs...)
}

// Stats is what became of the events so far.
type Stats struct {
	Acked   int64 // events
	Dropped int64 // events
	Retries int64 // posts that will be tried again
}

// Producer is one run of the program.
type Producer struct {
	cfg     Config
	log     *slog.Logger
	client  *http.Client
	process telemetry.Process
	streams []*stream
	begin   time.Time // with the monotonic clock: tick 0

	registrations [][2]string // path and body, until they are acknowledged
	queue         []queued

	acked, dropped, retries atomic.Int64
}

// queued is a block that waits.
type queued struct {
	body   []byte
	events int64
}

// stream is a stream of the producer, with the boundary of its last block.
type stream struct {
	telemetry.Stream
	fill   func(p *Producer, s *stream, from, to int64) batch
	frame  int64 // next one to emit
	time   int64
	ticks  int64
	offset int64
}

// batch is the events of a block, not yet compressed.
type batch struct {
	deps, objs []byte
	events     int32
}

// New makes a producer; nothing is sent before Run.
func New(cfg Config, log *slog.Logger) (*Producer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("demo config: %w", err)
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	p := &Producer{cfg: cfg, log: log, client: &http.Client{Timeout: requestTimeout}, begin: time.Now()}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	exe, err := os.Executable()
	if err != nil {
		exe = "demo"
	}
	p.process = telemetry.Process{
		ID: telemetry.NewID(), Exe: exe, Username: "demo", Realname: "demo", Computer: host, Distro: runtime.GOOS, CPUBrand: runtime.GOARCH,
		TSCFrequency: ticksPerSecond, StartTime: p.begin.UnixNano(),
		Properties: []telemetry.Property{{Key: "producer", Value: "demo"}, {Key: "version", Value: runtime.Version()}},
	}
	p.addStream("log", wire.LogTypes, (*Producer).logs, nil)
	p.addStream("metrics", wire.MetricsTypes, (*Producer).metrics, nil)
	p.addStream("cpu", wire.CPUTypes, (*Producer).spans, []telemetry.Property{{Key: "thread-id", Value: "1"}, {Key: "thread-name", Value: "main"}})
	p.register(processPath, wire.AppendProcess(nil, &p.process))
	for _, s := range p.streams {
		p.register(streamPath, wire.AppendStream(nil, &s.Stream))
	}
	return p, nil
}

const (
	processPath = "/ingestion/insert_process"
	streamPath  = "/ingestion/insert_stream"
	blockPath   = "/ingestion/insert_block"
)

func (p *Producer) register(path string, body []byte) {
	p.registrations = append(p.registrations, [2]string{path, string(body)})
}

func (p *Producer) addStream(tag string, types func() (deps, objs []telemetry.Type), fill func(*Producer, *stream, int64, int64) batch,
	props []telemetry.Property,
) {
	deps, objs := types()
	p.streams = append(p.streams, &stream{
		Stream: telemetry.Stream{
			ID: telemetry.NewID(), ProcessID: p.process.ID, Dependencies: deps, Objects: objs, Tags: []string{tag}, Properties: props,
		},
		fill: fill, time: p.process.StartTime,
	})
}

// ProcessID returns the id under which the producer registers.
func (p *Producer) ProcessID() telemetry.ID { return p.process.ID }

// Stats returns the counts so far. It is safe to call while Run runs.
func (p *Producer) Stats() Stats {
	return Stats{Acked: p.acked.Load(), Dropped: p.dropped.Load(), Retries: p.retries.Load()}
}

// Run emits until ctx ends, then sends what it has. It returns nil: a gateway that is away is no reason to stop.
func (p *Producer) Run(ctx context.Context) error {
	p.log.Info("demo producer started", "process_id", p.process.ID, "url", p.cfg.URL)
	ticker := time.NewTicker(p.cfg.Period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.cut()
			p.send(ctx)
		case <-ctx.Done():
			p.cut()
			p.farewell(ctx)
			for _, q := range p.queue {
				p.dropped.Add(q.events)
			}
			p.queue = nil
			p.client.CloseIdleConnections()
			s := p.Stats()
			p.log.Info("demo producer stopped", "acked_events", s.Acked, "dropped_events", s.Dropped, "retries", s.Retries)
			return nil
		}
	}
}

// farewell tries for a moment to send what is left once ctx has ended.
func (p *Producer) farewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
	defer cancel()
	pause := time.NewTicker(farewellTimeout / 10)
	defer pause.Stop()
	for p.send(ctx); len(p.queue) > 0; p.send(ctx) {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// cut closes a block of each stream and queues it.
func (p *Producer) cut() {
	elapsed := time.Since(p.begin)
	for _, s := range p.streams {
		if q, ok := p.close(s, int64(elapsed)); ok {
			p.enqueue(q)
		}
	}
}

// close ends the current block of s at ticks and begins the next one with the same stamp. A block without events is not sent.
func (p *Producer) close(s *stream, ticks int64) (queued, bool) {
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: s.ID, ProcessID: p.process.ID,
		BeginTime: s.time, BeginTicks: s.ticks, EndTime: p.process.StartTime + ticks, EndTicks: ticks, ObjectOffset: s.offset,
	}
	from := s.frame
	s.frame = max(from, ticks/frameTicks) // whole frames only
	events := s.fill(p, s, from, s.frame)
	if events.events == 0 {
		return queued{}, false
	}
	b.NbObjects = events.events
	s.time, s.ticks, s.offset = b.EndTime, b.EndTicks, s.offset+int64(events.events)
	body := wire.AppendBlock(nil, &b, wire.Compress(nil, events.deps), wire.Compress(nil, events.objs))
	return queued{body: body, events: int64(events.events)}, true
}

// enqueue drops the oldest block when the queue is full.
func (p *Producer) enqueue(q queued) {
	if len(p.queue) >= maxQueue {
		p.dropped.Add(p.queue[0].events)
		p.queue = p.queue[1:]
	}
	p.queue = append(p.queue, q)
}

// send posts what waits, in order, until something has to be tried again.
func (p *Producer) send(ctx context.Context) {
	for len(p.registrations) > 0 {
		r := p.registrations[0]
		err := p.post(ctx, r[0], []byte(r[1]))
		if err != nil && !errors.Is(err, errRefused) {
			p.later(err)
			return
		}
		if err != nil {
			p.log.Error("registration refused", "path", r[0], "error", err)
		}
		p.registrations = p.registrations[1:]
	}
	for len(p.queue) > 0 {
		q := p.queue[0]
		err := p.post(ctx, blockPath, q.body)
		switch {
		case err == nil:
			p.acked.Add(q.events)
		case errors.Is(err, errRefused):
			p.log.Error("block refused", "error", err)
			p.dropped.Add(q.events)
		default:
			p.later(err)
			return
		}
		p.queue = p.queue[1:]
	}
}

func (p *Producer) later(err error) {
	p.retries.Add(1)
	p.log.Warn("gateway did not answer, trying again", "error", err, "queued_blocks", len(p.queue))
}

// errRefused is an answer that trying again will not change.
var errRefused = errors.New("refused")

func (p *Producer) post(ctx context.Context, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.URL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if p.cfg.Key != "" {
		req.Header.Set("Authorization", "Bearer "+p.cfg.Key)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	defer resp.Body.Close()
	reason, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode >= 500:
		return fmt.Errorf("post %s: %s", path, resp.Status)
	case err != nil:
		return fmt.Errorf("post %s: %w", path, err)
	}
	return fmt.Errorf("post %s: %w: %s %s", path, errRefused, resp.Status, bytes.TrimSpace(reason))
}
