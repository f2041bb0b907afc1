package loadgen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PostConfig says where a load goes, how much of it and how fast.
type PostConfig struct {
	URL         string        // base, without /ingestion
	Key         string        // bearer key; "" = none
	Connections int           // requests in flight; default 32
	Blocks      int64         // stop after as many; 0 = no limit
	Duration    time.Duration // stop sending after it; 0 = no limit
	// Shape paces the sending, over Duration; without a pace a block is sent as soon as an answer comes.
	Shape Shape
	// RetryFor is how long one request is tried again after 5xx and network errors; default 30 s. Then it has failed.
	RetryFor time.Duration
	// OnAck is called for each acknowledged block, from many goroutines; the request's body is valid only during the call.
	OnAck func(r *Request, latency time.Duration)
	// OnGiveUp is called like OnAck for each block that was sent and not acknowledged: it may have arrived nevertheless.
	OnGiveUp func(r *Request)
	// SkipRegistrations leaves processes and streams unregistered, for a second run over the same load.
	SkipRegistrations bool
}

const (
	defaultConnections = 32
	defaultRetryFor    = 30 * time.Second
	requestTimeout     = 10 * time.Second
	firstBackoff       = 10 * time.Millisecond
	lastBackoff        = time.Second
)

// Report is what became of a load.
type Report struct {
	AckedBlocks int64 `json:"acked_blocks"`
	AckedEvents int64 `json:"acked_events"`
	AckedBytes  int64 `json:"acked_bytes"` // of bodies
	// DueEvents are those that the shape asked for in the time; 0 = it had no pace, or other limits. Fewer acknowledged: the run was behind
	// its schedule at the end.
	DueEvents   int64         `json:"due_events,omitempty"`
	Retries     int64         `json:"retries"`         // attempts after the first
	Unavailable int64         `json:"unavailable"`     // 503 answers among them
	Failed      int64         `json:"failed"`          // requests given up, registrations included
	Error       string        `json:"error,omitempty"` // of one that failed
	Elapsed     time.Duration `json:"elapsed_ns"`
	// Latencies are those of acknowledged blocks, from the first attempt to the answer.
	Latencies
	// Intended are those of the same blocks from the moment they were due: what a client sees that does not wait for others' answers before
	// it has something to say. Without a pace they are the same.
	Intended Latencies `json:"from_intended"`
}

// EventsPerSecond is the rate of acknowledged events.
func (r *Report) EventsPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.AckedEvents) / r.Elapsed.Seconds()
}

// WriteText prints the report for people.
func (r *Report) WriteText(w io.Writer) {
	fmt.Fprintf(w, "acked %s events in %s blocks, %s events/s in %v", Grouped(r.AckedEvents), Grouped(r.AckedBlocks), Grouped(int64(r.EventsPerSecond())), short(r.Elapsed))
	if r.DueEvents > 0 {
		fmt.Fprintf(w, ", %.1f %% of the %s that were due", 100*float64(r.AckedEvents)/float64(r.DueEvents), Grouped(r.DueEvents))
	}
	fmt.Fprintf(w, "; %s retries, %s unavailable, %s given up\n", Grouped(r.Retries), Grouped(r.Unavailable), Grouped(r.Failed))
	if r.AckedBlocks == 0 {
		return
	}
	fmt.Fprintf(w, "ack from the attempt:         %s\n", r.Latencies)
	fmt.Fprintf(w, "ack from the intended moment: %s\n", r.Intended)
	writeHistograms(w, r.Latencies, r.Intended)
}

// poster is one run of Post.
type poster struct {
	cfg    PostConfig
	load   *Load
	client *http.Client
	shape  Shape
	begin  time.Time // of the blocks

	fromAttempt, fromIntended Histogram

	mu        sync.Mutex
	left      int64         // blocks still to be taken, when limited
	scheduled int64         // events
	due       time.Duration // after begin, of the last block scheduled
	report    Report
}

// Post registers the processes and streams of l, then posts its blocks until the configured limits or the end of ctx. Only a
// request that could not be made at all is an error; what the server refused is in the report.
func Post(ctx context.Context, l *Load, cfg PostConfig) (Report, error) {
	if cfg.URL == "" {
		return Report{}, errors.New("post load: no URL")
	}
	if cfg.Connections <= 0 {
		cfg.Connections = defaultConnections
	}
	if cfg.RetryFor <= 0 {
		cfg.RetryFor = defaultRetryFor
	}
	cfg.Shape.Duration = cfg.Duration
	shape := cfg.Shape.WithDefaults()
	if err := shape.Validate(); err != nil {
		return Report{}, fmt.Errorf("post load: %w", err)
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	transport := &http.Transport{
		MaxIdleConnsPerHost: cfg.Connections, MaxConnsPerHost: cfg.Connections, DisableCompression: true, WriteBufferSize: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	p := &poster{cfg: cfg, load: l, client: &http.Client{Transport: transport, Timeout: requestTimeout}, shape: shape, left: cfg.Blocks}
	if !cfg.SkipRegistrations {
		if err := p.run(ctx, p.registrations); err != nil {
			return p.report, fmt.Errorf("post registrations: %w", err)
		}
	}
	p.begin = time.Now()
	err := p.run(ctx, p.blocks)
	p.report.Elapsed = time.Since(p.begin)
	if shape.Paced() && cfg.Duration > 0 && (cfg.Blocks == 0 || p.left > 0) && ctx.Err() == nil {
		p.report.DueEvents = int64(shape.Due(cfg.Duration))
	}
	p.report.Latencies, p.report.Intended = p.fromAttempt.Latencies(), p.fromIntended.Latencies()
	if err != nil {
		return p.report, fmt.Errorf("post blocks: %w", err)
	}
	return p.report, nil
}

// run calls work once for each connection and waits for all.
func (p *poster) run(ctx context.Context, work func(ctx context.Context, connection int) error) error {
	errs := make([]error, p.cfg.Connections)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = work(ctx, i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *poster) registrations(ctx context.Context, connection int) error {
	for i := connection; i < p.load.Processes() && ctx.Err() == nil; i += p.cfg.Connections {
		for _, r := range p.load.Registrations(i) {
			if _, _, err := p.post(ctx, &r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *poster) blocks(ctx context.Context, _ int) error {
	var buf []byte
	for {
		r, due, ok, err := p.take(ctx, buf)
		if err != nil || !ok {
			return err
		}
		buf = r.Body
		acked, latency, err := p.post(ctx, &r)
		if err != nil {
			return err
		}
		if !acked {
			if p.cfg.OnGiveUp != nil {
				p.cfg.OnGiveUp(&r)
			}
			continue
		}
		p.fromAttempt.Record(latency)
		if p.shape.Paced() {
			p.fromIntended.Record(time.Since(due))
		} else {
			p.fromIntended.Record(latency)
		}
		if p.cfg.OnAck != nil {
			p.cfg.OnAck(&r, latency)
		}
	}
}

// take returns the next block when it is due, and when that was; ok is false when there is none any more.
func (p *poster) take(ctx context.Context, buf []byte) (r Request, due time.Time, ok bool, err error) {
	if ctx.Err() != nil || !p.reserve() {
		return r, due, false, nil
	}
	if r, err = p.load.Next(buf); err != nil {
		return r, due, false, err
	}
	after := p.schedule(int64(r.Block.NbObjects))
	if p.ended(after) {
		return r, due, false, nil
	}
	due = p.begin.Add(after)
	return r, due, pause(ctx, time.Until(due)), nil
}

// reserve takes one block off what is left; false = the limits are reached.
func (p *poster) reserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.Blocks > 0 && p.left == 0 || p.ended(max(p.due, time.Since(p.begin))) {
		return false
	}
	p.left--
	return true
}

// ended says whether a moment after the begin is too late to send anything.
func (p *poster) ended(after time.Duration) bool {
	return p.cfg.Duration > 0 && after >= p.cfg.Duration
}

// schedule returns when the next block of so many events is due, after the begin: when its first event is.
func (p *poster) schedule(events int64) time.Duration {
	if !p.shape.Paced() {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = p.shape.When(float64(p.scheduled), p.due)
	p.scheduled += events
	return p.due
}

// pause waits; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// post sends one request until it is acknowledged, refused for good, or out of time.
func (p *poster) post(ctx context.Context, r *Request) (acked bool, latency time.Duration, err error) {
	begin := time.Now()
	backoff := firstBackoff
	for attempt := 0; ; attempt++ {
		status, wait, err := p.attempt(ctx, r)
		latency = time.Since(begin)
		if err == nil && status == http.StatusOK {
			p.acked(r)
			return true, latency, nil
		}
		if err == nil {
			err = fmt.Errorf("%s: status %d", r.Path, status)
			if status < 500 {
				p.failed(err)
				return false, latency, nil
			}
		}
		if latency > p.cfg.RetryFor || ctx.Err() != nil || !pause(ctx, max(wait, backoff)) {
			p.failed(err)
			return false, latency, nil
		}
		backoff = min(2*backoff, lastBackoff)
		p.retried(status)
	}
}

// attempt sends one request once; wait is what the server asked for with Retry-After, at most lastBackoff.
func (p *poster) attempt(ctx context.Context, r *Request) (status int, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.cfg.URL+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return 0, 0, err
	}
	if p.cfg.Key != "" {
		req.Header.Set("Authorization", "Bearer "+p.cfg.Key)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && resp.StatusCode != http.StatusOK {
		return 0, 0, err
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		wait = min(time.Duration(s)*time.Second, lastBackoff)
	}
	return resp.StatusCode, wait, nil
}

func (p *poster) acked(r *Request) {
	if r.Path != BlockPath {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.AckedBlocks++
	p.report.AckedEvents += int64(r.Block.NbObjects)
	p.report.AckedBytes += int64(len(r.Body))
}

func (p *poster) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Failed++
	p.report.Error = err.Error()
}

func (p *poster) retried(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Retries++
	if status == http.StatusServiceUnavailable {
		p.report.Unavailable++
	}
}
