package loadgen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
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
	// EventsPerSecond paces the sending; 0 = as fast as answers come.
	EventsPerSecond float64
	// RetryFor is how long one request is tried again after 5xx and network errors; default 30 s. Then it has failed.
	RetryFor time.Duration
	// OnAck is called for each acknowledged block, from many goroutines; the request's body is valid only during the call.
	OnAck func(r *Request, latency time.Duration)
	// SkipRegistrations leaves processes and streams unregistered, for a second run over the same load.
	SkipRegistrations bool
}

const (
	defaultConnections = 32
	defaultRetryFor    = 30 * time.Second
	requestTimeout     = 10 * time.Second
	firstBackoff       = 10 * time.Millisecond
	lastBackoff        = time.Second
	maxSamples         = 1 << 18 // latencies kept by a connection; later ones replace random earlier ones
)

// Report is what became of a load. Latencies are those of acknowledged blocks, from the first attempt to the answer.
type Report struct {
	AckedBlocks int64         `json:"acked_blocks"`
	AckedEvents int64         `json:"acked_events"`
	AckedBytes  int64         `json:"acked_bytes"`     // of bodies
	Retries     int64         `json:"retries"`         // attempts after the first
	Unavailable int64         `json:"unavailable"`     // 503 answers among them
	Failed      int64         `json:"failed"`          // requests given up, registrations included
	Error       string        `json:"error,omitempty"` // of one that failed
	Elapsed     time.Duration `json:"elapsed_ns"`
	P50         time.Duration `json:"p50_ns"`
	P90         time.Duration `json:"p90_ns"`
	P99         time.Duration `json:"p99_ns"`
	Max         time.Duration `json:"max_ns"`
}

// EventsPerSecond is the rate of acknowledged events.
func (r *Report) EventsPerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.AckedEvents) / r.Elapsed.Seconds()
}

// poster is one run of Post.
type poster struct {
	cfg    PostConfig
	load   *Load
	client *http.Client
	until  time.Time // zero = no limit

	mu      sync.Mutex
	left    int64 // blocks still to be taken, when limited
	due     time.Time
	report  Report
	samples []time.Duration
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
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	transport := &http.Transport{
		MaxIdleConnsPerHost: cfg.Connections, MaxConnsPerHost: cfg.Connections, DisableCompression: true, WriteBufferSize: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	p := &poster{cfg: cfg, load: l, client: &http.Client{Transport: transport, Timeout: requestTimeout}, left: cfg.Blocks}
	if !cfg.SkipRegistrations {
		if err := p.run(ctx, p.registrations); err != nil {
			return p.report, fmt.Errorf("post registrations: %w", err)
		}
	}
	begin := time.Now()
	p.due = begin
	if cfg.Duration > 0 {
		p.until = begin.Add(cfg.Duration)
	}
	err := p.run(ctx, p.blocks)
	p.report.Elapsed = time.Since(begin)
	p.percentiles()
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
	var (
		buf     []byte
		samples []time.Duration
		seen    int64
	)
	defer func() { p.keep(samples) }()
	for {
		r, ok, err := p.take(ctx, buf)
		if err != nil || !ok {
			return err
		}
		buf = r.Body
		acked, latency, err := p.post(ctx, &r)
		if err != nil {
			return err
		}
		if !acked {
			continue
		}
		if seen++; len(samples) < maxSamples {
			samples = append(samples, latency)
		} else if i := rand.Int64N(seen); i < maxSamples {
			samples[i] = latency
		}
		if p.cfg.OnAck != nil {
			p.cfg.OnAck(&r, latency)
		}
	}
}

// take returns the next block when it is due; ok is false when there is none any more.
func (p *poster) take(ctx context.Context, buf []byte) (r Request, ok bool, err error) {
	if ctx.Err() != nil || !p.reserve() {
		return r, false, nil
	}
	if r, err = p.load.Next(buf); err != nil {
		return r, false, err
	}
	return r, pause(ctx, time.Until(p.schedule(int64(r.Block.NbObjects)))), nil
}

// reserve takes one block off what is left; false = the limits are reached.
func (p *poster) reserve() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.Blocks > 0 && p.left == 0 || !p.until.IsZero() && !laterOf(p.due, time.Now()).Before(p.until) {
		return false
	}
	p.left--
	return true
}

// schedule returns when the next events are due, and makes those after them due later.
func (p *poster) schedule(events int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.due
	if rate := p.cfg.EventsPerSecond; rate > 0 {
		p.due = due.Add(time.Duration(float64(events) / rate * float64(time.Second)))
	}
	return due
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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

func (p *poster) keep(samples []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.samples = append(p.samples, samples...)
}

func (p *poster) percentiles() {
	if len(p.samples) == 0 {
		return
	}
	slices.Sort(p.samples)
	at := func(q float64) time.Duration { return p.samples[int(q*float64(len(p.samples)-1))] }
	p.report.P50, p.report.P90, p.report.P99, p.report.Max = at(0.5), at(0.9), at(0.99), at(1)
}
