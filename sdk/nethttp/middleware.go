// Package nethttp records the requests of servers and clients of net/http with package sdk:
//
//	server := &http.Server{Handler: nethttp.Middleware(mux)}
//	client := &http.Client{Transport: nethttp.Transport(nil)}
//
// A request is a span in its context, so spans and entries of the handler find it there, and a measure or two. The header traceparent (W3C
// Trace Context) joins the spans of client and server in one trace.
//
// Of a server's requests are recorded: the spans named by the pattern of the route, else by the method, with the properties method, route
// and status; http_server_duration (ms), http_server_request_bytes and http_server_response_bytes with the same properties;
// http_server_in_flight, at each begin and end of a request; and http_server_responses_2xx and its like, counts by class of status. Of a
// client's: spans named by method, with the properties method, status, host and error; http_client_duration (ms) until the head of the response
// came; and http_client_errors, a count.
//
// Properties have few values, whatever clients send: methods that HTTP does not define are "other", routes are the program's patterns. No
// URL, header or body is recorded.
//
// Nothing here makes a request of its own. But the HTTP client of a sink must not use Transport, nor may a gateway that records into itself use
// Middleware for what it takes in: each request that carries telemetry would make more to carry.
package nethttp

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

var (
	serverSpan     = sdk.NewSpan("", sdk.Target("http.server"))
	serverDuration = sdk.NewFloat("http_server_duration", "ms")
	serverIn       = sdk.NewInt("http_server_request_bytes", "bytes")
	serverOut      = sdk.NewInt("http_server_response_bytes", "bytes")
	serverInFlight = sdk.NewInt("http_server_in_flight", "count")
	serverStatuses = [...]*sdk.Counter{
		sdk.NewCounter("http_server_responses_1xx", "count"), sdk.NewCounter("http_server_responses_2xx", "count"),
		sdk.NewCounter("http_server_responses_3xx", "count"), sdk.NewCounter("http_server_responses_4xx", "count"),
		sdk.NewCounter("http_server_responses_5xx", "count"),
	}
)

// Option changes a middleware.
type Option func(*middleware)

// IgnoreTraceParent has each request begin a trace of its own: for a server whose clients are not to choose trace ids.
func IgnoreTraceParent() Option { return func(m *middleware) { m.ignoreParent = true } }

// Only leaves out the requests for which f is false, such as probes. It is called before the request is routed.
func Only(f func(*http.Request) bool) Option { return func(m *middleware) { m.only = f } }

// Middleware returns a handler that records the requests that next serves. When next is an http.ServeMux, its patterns name the spans; inside
// of one, the request has its pattern already.
//
// A panic of next goes on after the request was recorded with status 500.
func Middleware(next http.Handler, options ...Option) http.Handler {
	m := &middleware{next: next}
	m.router, _ = next.(router)
	for _, o := range options {
		o(m)
	}
	return m
}

// router is a handler that knows the pattern of a request before it serves it: http.ServeMux.
type router interface {
	Handler(r *http.Request) (h http.Handler, pattern string)
}

type middleware struct {
	next         http.Handler
	router       router // nil = next is none
	ignoreParent bool
	only         func(*http.Request) bool // nil = all
	inFlight     atomic.Int64
}

// ServeHTTP implements http.Handler.
func (m *middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.only != nil && !m.only(r) || !serverSpan.Enabled() && !serverDuration.Enabled() {
		m.next.ServeHTTP(w, r)
		return
	}
	e := exchange{m: m, w: writer{ResponseWriter: w}, outer: r, began: time.Now()}
	e.begin()
	defer e.end() // also when next panics, which is left as it is: a recovered panic would lose its stack
	m.next.ServeHTTP(e.w.wrapped(), e.inner)
	e.returned = true
}

// exchange is one request and its response.
type exchange struct {
	m            *middleware
	w            writer
	outer, inner *http.Request
	body         *requestBody // nil = the request has none
	span         *sdk.ContextSpan
	began        time.Time
	returned     bool
}

func (e *exchange) begin() {
	ctx := e.outer.Context()
	if !e.m.ignoreParent {
		ctx = sdk.WithTraceParent(ctx, e.outer.Header.Get("Traceparent"))
	}
	name := e.outer.Pattern
	if name == "" && e.m.router != nil {
		_, name = e.m.router.Handler(e.outer)
	}
	if name == "" {
		name = methodOf(e.outer)
	}
	ctx, e.span = serverSpan.StartNamed(ctx, name)
	e.inner = e.outer.WithContext(ctx)
	if b := e.inner.Body; b != nil && b != http.NoBody {
		e.body = &requestBody{ReadCloser: b}
		e.inner.Body = e.body
	}
	serverInFlight.Record(e.m.inFlight.Add(1))
}

func (e *exchange) end() {
	serverInFlight.Record(e.m.inFlight.Add(-1))
	// The server and the middlewares around this one have the outer request, and look there.
	e.outer.Pattern = e.inner.Pattern
	if e.outer.MultipartForm == nil {
		e.outer.MultipartForm = e.inner.MultipartForm // whose files the server removes
	}
	status := e.w.status
	switch {
	case !e.returned:
		status = http.StatusInternalServerError
	case status == 0:
		status = http.StatusOK
	}
	props := propsOf(methodOf(e.outer), e.inner.Pattern, status)
	e.span.Set(props)
	e.span.End()
	serverDuration.With(props).Record(milliseconds(time.Since(e.began)))
	if e.body != nil {
		serverIn.With(props).Record(e.body.bytes.Load())
	}
	serverOut.With(props).Record(e.w.bytes.Load())
	if class := status/100 - 1; class >= 0 && class < len(serverStatuses) {
		serverStatuses[class].Add(1)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// requestBody counts what is read of a body.
type requestBody struct {
	io.ReadCloser
	bytes atomic.Int64 // a handler may read on another goroutine
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// methodOf returns the method, "other" for those that clients make up.
func methodOf(r *http.Request) string {
	switch m := r.Method; m {
	case "":
		return http.MethodGet // of a client
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "other"
}

// sets are the properties of requests, which have few values: to find one here costs less than sdk.Props.
var sets sync.Map // setKey → *sdk.Properties

type setKey struct {
	method, route string
	status        int // 0 = none
}

func propsOf(method, route string, status int) *sdk.Properties {
	key := setKey{method, route, status}
	if p, ok := sets.Load(key); ok {
		return p.(*sdk.Properties)
	}
	props := []string{"method", method}
	if route != "" {
		props = append(props, "route", route)
	}
	if status != 0 {
		props = append(props, "status", strconv.Itoa(status))
	}
	p := sdk.Props(props...)
	sets.Store(key, p)
	return p
}
