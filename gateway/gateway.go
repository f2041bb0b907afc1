package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/identity"
	"github.com/micromegas-go/micromegas/sdk"
)

// Publisher is the part of the bus that a gateway needs.
type Publisher interface {
	// Publish must return nil only after r is durable, must not wait without a bound, and must not keep r or r.Body.
	Publish(ctx context.Context, class bus.Class, r *bus.Record) error
}

// Gateway answers the routes of its protocols. It is safe for concurrent use.
type Gateway struct {
	cfg        Config
	pub        Publisher
	auth       *identity.Keys
	free       func() error
	log        *slog.Logger
	tags       *tagCache
	bodies     bodies
	clock      insertClock
	retryAfter []string // the header's value, shared by all answers

	draining atomic.Bool
	requests atomic.Int64  // requests past the drain check, and those at it
	idle     chan struct{} // gets a token when requests falls to 0 while draining

	rejects   [reasons]atomic.Int64
	bodyBytes atomic.Int64
	acks      latencies
	warned    atomic.Int64 // when the last warning was logged, Unix seconds
	posts     sync.Pool    // *Post

	mu     sync.Mutex
	routes []*route
}

type route struct {
	Route
	counts routeCounts
}

// New makes a gateway. Tags may be nil (every stream that did not register here is then unknown), so may auth (open
// to everybody) and free (no reserve). Free is called for every request and must be cheap; see FreeSpace.
func New(cfg Config, pub Publisher, tags TagSource, auth *identity.Keys, free func() error, log *slog.Logger) *Gateway {
	if free == nil {
		free = func() error { return nil }
	}
	g := &Gateway{
		cfg: cfg, pub: pub, auth: auth, free: free, log: log,
		tags:       newTagCache(tags, cfg),
		bodies:     bodies{maxBody: cfg.MaxBody, maxInFlight: cfg.MaxBodiesInFlight},
		retryAfter: []string{strconv.FormatInt(int64((cfg.RetryAfter+time.Second-1)/time.Second), 10)},
		idle:       make(chan struct{}, 1),
		routes:     []*route{{}}, // unknown paths
	}
	g.posts.New = func() any { return new(Post) }
	return g
}

// Handler serves the routes of the protocols; it panics without any, or when two have the same path.
func (g *Gateway) Handler(protocols ...Protocol) http.Handler {
	byPath := map[string]*route{}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range protocols {
		for _, r := range p.Routes {
			if byPath[r.Path] != nil {
				panic(fmt.Sprintf("gateway: protocol %s: path %s is taken", p.Name, r.Path))
			}
			byPath[r.Path] = &route{Route: r}
			g.routes = append(g.routes, byPath[r.Path])
		}
	}
	if len(byPath) == 0 {
		panic("gateway: no routes; give Handler at least one protocol")
	}
	unknown := g.routes[0]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt := byPath[r.URL.Path]
		if rt == nil {
			g.reject(w, unknown, http.StatusNotFound, reasonPath, nil)
			return
		}
		if r.Method != http.MethodPost {
			w.Header()["Allow"] = allowPost
			g.reject(w, rt, http.StatusMethodNotAllowed, reasonMethod, nil)
			return
		}
		g.serve(w, r, rt)
	})
}

// Drain refuses new requests with 503 and returns when those under way are answered, or with the context's error.
func (g *Gateway) Drain(ctx context.Context) error {
	g.draining.Store(true)
	for g.requests.Load() > 0 {
		select {
		case <-g.idle:
		case <-ctx.Done():
			return fmt.Errorf("drain gateway with %d requests under way: %w", g.requests.Load(), ctx.Err())
		}
	}
	return nil
}

// enter counts a request in, unless the gateway drains. The count goes up before the check, so that Drain either sees the
// request or the request sees Drain.
func (g *Gateway) enter() bool {
	g.requests.Add(1)
	if g.draining.Load() {
		g.leave()
		return false
	}
	return true
}

func (g *Gateway) leave() {
	if g.requests.Add(-1) == 0 && g.draining.Load() {
		select {
		case g.idle <- struct{}{}:
		default: // a token is waiting already
		}
	}
}

// serve takes one body in. The steps that cost nothing and need nothing of the body come first.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, rt *route) {
	begin := time.Now()
	if !g.enter() {
		w.Header()["Connection"] = closeConnection
		g.reject(w, rt, http.StatusServiceUnavailable, reasonDraining, nil)
		return
	}
	defer g.leave()
	if g.auth != nil {
		if _, err := g.auth.Check(r.Header.Get("Authorization")); err != nil {
			g.reject(w, rt, http.StatusUnauthorized, reasonAuth, nil)
			return
		}
	}
	if err := g.free(); err != nil {
		g.reject(w, rt, http.StatusServiceUnavailable, reasonDisk, err)
		return
	}
	b := body{from: &g.bodies}
	defer b.release()
	if err := b.read(r); err != nil {
		g.rejectRead(w, rt, err)
		return
	}
	if len(b.bytes) == 0 {
		g.reject(w, rt, http.StatusBadRequest, reasonEmpty, nil)
		return
	}
	g.publish(w, r, rt, b.bytes, begin)
}

// publishSpan is the way of a body from its envelope to the bus' word.
var publishSpan = sdk.NewSpan("publish")

func (g *Gateway) publish(w http.ResponseWriter, r *http.Request, rt *route, bytes []byte, begin time.Time) {
	p := g.posts.Get().(*Post)
	defer func() {
		*p = Post{}
		g.posts.Put(p)
	}()
	if err := rt.Decode(bytes, p); err != nil {
		g.log.Debug("body refused", "path", rt.Path, "bytes", len(bytes), "err", err)
		g.reject(w, rt, http.StatusBadRequest, reasonDecode, nil)
		return
	}
	// A client that has gone does not end a publication that others' bodies may share a frame with.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), g.cfg.PublishTimeout)
	defer cancel()
	if !sdk.IsOwn(p.Record.ProcessID) {
		var span *sdk.ContextSpan
		ctx, span = publishSpan.Start(ctx)
		defer span.End()
	}
	class := g.classify(ctx, p)
	p.Record.Body = bytes
	p.Record.InsertTimeUs = g.clock.stamp()
	if err := g.pub.Publish(ctx, class, &p.Record); err != nil {
		g.reject(w, rt, http.StatusServiceUnavailable, reasonBus, err)
		return
	}
	g.bodyBytes.Add(int64(len(bytes)))
	g.acks.add(time.Since(begin))
	rt.counts.add(http.StatusOK)
	w.WriteHeader(http.StatusOK)
}

// classify sets the record's tag and returns its class: registrations and what views read as it comes are eager, and so is
// a block whose stream nobody knows yet.
func (g *Gateway) classify(ctx context.Context, p *Post) bus.Class {
	switch p.Record.Kind {
	case bus.KindStream:
		g.tags.learn(p.Record.StreamID, p.StreamTag)
	case bus.KindBlock:
		p.Record.Tag = g.tags.tag(ctx, p.Record.StreamID)
		if !p.Record.Tag.Eager() {
			return bus.Raw
		}
	}
	return bus.Eager
}

// rejectRead answers for a body that did not arrive. Only what is surely the client's doing is a 4xx.
func (g *Gateway) rejectRead(w http.ResponseWriter, rt *route, err error) {
	var netErr net.Error
	switch {
	case errors.Is(err, errBodyTooLarge):
		w.Header()["Connection"] = closeConnection // do not read the rest
		g.reject(w, rt, http.StatusRequestEntityTooLarge, reasonTooLarge, nil)
	case errors.Is(err, errBodiesFull):
		g.reject(w, rt, http.StatusServiceUnavailable, reasonBodies, err)
	case errors.As(err, &netErr), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled):
		w.Header()["Connection"] = closeConnection
		g.reject(w, rt, http.StatusServiceUnavailable, reasonRead, nil)
	default: // not HTTP: a malformed chunk, for example
		w.Header()["Connection"] = closeConnection
		g.reject(w, rt, http.StatusBadRequest, reasonRead, nil)
	}
}

// Header values that never change, so that answering allocates nothing.
var (
	allowPost       = []string{http.MethodPost}
	closeConnection = []string{"close"}
	plainText       = []string{"text/plain; charset=utf-8"}
)

// statusText is the fixed, short text of an answer. Details are for logs and counters only.
func statusText(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "Bad request"
	case http.StatusUnauthorized:
		return "Invalid token"
	case http.StatusNotFound:
		return "Not found"
	case http.StatusMethodNotAllowed:
		return "Method not allowed"
	case http.StatusRequestEntityTooLarge:
		return "Payload too large"
	}
	return "Service unavailable"
}

// reject answers and counts. Err is our own trouble, worth a warning (one a second at most; the counters have all).
func (g *Gateway) reject(w http.ResponseWriter, rt *route, status int, why reason, err error) {
	g.rejects[why].Add(1)
	rt.counts.add(status)
	if now := time.Now().Unix(); err != nil {
		if last := g.warned.Load(); last != now && g.warned.CompareAndSwap(last, now) {
			g.log.Warn("request put off", "path", rt.Path, "reason", reasonNames[why], "total", g.rejects[why].Load(), "err", err)
		}
	}
	h := w.Header()
	h["Content-Type"] = plainText
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = g.retryAfter
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, statusText(status)) // the client has gone: nothing to do
}

// insertClock stamps records with the machine's time in microseconds since the Unix epoch, each later than the one before, also
// when the machine's clock is set back.
type insertClock struct {
	last atomic.Int64
}

func (c *insertClock) stamp() int64 {
	now := time.Now().UnixMicro()
	for {
		last := c.last.Load()
		next := max(now, last+1)
		if c.last.CompareAndSwap(last, next) {
			return next
		}
	}
}
