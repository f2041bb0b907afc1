package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Faults is what goes wrong between a client and a server that speak HTTP. Shares are of all requests, from 0 to 1, and add up
// to at most 1: one request meets one fault. Requests that a fault cannot befall pass.
type Faults struct {
	Error500  float64 // answered so, not forwarded
	Error503  float64 // the same, with the code that S3 asks clients with to slow down
	Timeout   float64 // held for Hold, or until the client leaves, then cut; not forwarded
	Torn      float64 // GET only: the connection is cut after half of the body whose length was promised
	LostReply float64 // all but GET and HEAD: done by the server, then the connection is cut without a reply

	Latency time.Duration // before each request is forwarded
	Hold    time.Duration // of Timeout
}

// Every returns Faults of a share in all, split evenly over the five kinds.
func Every(share float64, hold time.Duration) Faults {
	s := share / 5
	return Faults{Error500: s, Error503: s, Timeout: s, Torn: s, LostReply: s, Hold: hold}
}

// FaultCounts is what a proxy has done.
type FaultCounts struct {
	Requests  int64 // that came
	Error500  int64
	Error503  int64
	Timeouts  int64
	Torn      int64
	LostReply int64
	Peak      int64 // most requests under way at once
}

// Faults is the number of requests that met one.
func (c FaultCounts) Faults() int64 {
	return c.Error500 + c.Error503 + c.Timeouts + c.Torn + c.LostReply
}

// HTTPFaults is a reverse proxy that does Faults. Clients sign for the proxy's address, which the server gets to see. Its methods
// are safe for concurrent use.
type HTTPFaults struct {
	server *http.Server
	url    string
	proxy  *httputil.ReverseProxy

	requests, error500, error503, timeouts, torn, lost, under, peak atomic.Int64

	mu     sync.Mutex
	faults Faults
	random *rand.Rand
}

// StartHTTPFaults starts a proxy on a free loopback port in front of the server at a URL. Nothing goes wrong until Set.
func StartHTTPFaults(target string) (*HTTPFaults, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("start http faults: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start http faults: %w", err)
	}
	f := &HTTPFaults{url: "http://" + listener.Addr().String(), random: rand.New(rand.NewPCG(1, 0))}
	quiet := log.New(io.Discard, "", 0) // cut connections are wanted
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		Transport:      &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		ModifyResponse: f.spoil,
		FlushInterval:  -1, // half a body reaches the client before the cut
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // the server is away, or its reply is to be lost
		},
		ErrorLog: quiet,
	}
	f.server = &http.Server{Handler: f, ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	go func() { _ = f.server.Serve(listener) }() // ends with Stop
	return f, nil
}

// URL is the proxy's address.
func (f *HTTPFaults) URL() string { return f.url }

// Set changes what goes wrong from now on. The same seed and the same order of requests meet the same faults.
func (f *HTTPFaults) Set(faults Faults, seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.random = faults, rand.New(rand.NewPCG(seed, 0))
}

// Counts is what was done since the start.
func (f *HTTPFaults) Counts() FaultCounts {
	return FaultCounts{
		Requests: f.requests.Load(), Error500: f.error500.Load(), Error503: f.error503.Load(), Timeouts: f.timeouts.Load(),
		Torn: f.torn.Load(), LostReply: f.lost.Load(), Peak: f.peak.Load(),
	}
}

// Stop cuts all connections and closes the port.
func (f *HTTPFaults) Stop() error { return f.server.Close() }

// fault is a kind of fault.
type fault int

const (
	faultNone fault = iota
	fault500
	fault503
	faultTimeout
	faultTorn
	faultLost
)

// decide throws the dice for a request.
func (f *HTTPFaults) decide(method string) (fault, Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dice := f.random.Float64()
	read := method == http.MethodGet || method == http.MethodHead
	for _, k := range []struct {
		kind  fault
		share float64
		can   bool
	}{
		{fault500, f.faults.Error500, true},
		{fault503, f.faults.Error503, true},
		{faultTimeout, f.faults.Timeout, true},
		{faultTorn, f.faults.Torn, method == http.MethodGet},
		{faultLost, f.faults.LostReply, !read},
	} {
		if dice < k.share {
			if k.can {
				return k.kind, f.faults
			}
			break
		}
		dice -= k.share
	}
	return faultNone, f.faults
}

// faultKey is the key of a request's fault in its context.
type faultKey struct{}

// ServeHTTP implements http.Handler.
func (f *HTTPFaults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	raise(&f.peak, f.under.Add(1))
	defer f.under.Add(-1)
	kind, faults := f.decide(r.Method)
	wait(r.Context(), faults.Latency)
	switch kind {
	case fault500:
		f.error500.Add(1)
		refuse(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return
	case fault503:
		f.error503.Add(1)
		refuse(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
		return
	case faultTimeout:
		f.timeouts.Add(1)
		wait(r.Context(), faults.Hold)
		panic(http.ErrAbortHandler)
	}
	f.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, kind)))
}

// raise sets a peak to at least n.
func raise(peak *atomic.Int64, n int64) {
	for {
		old := peak.Load()
		if n <= old || peak.CompareAndSwap(old, n) {
			return
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)
}

var errLost = errors.New("the reply is lost")

// spoil does the faults that come after the server's reply.
func (f *HTTPFaults) spoil(res *http.Response) error {
	switch res.Request.Context().Value(faultKey{}) {
	case faultTorn:
		if res.ContentLength > 1 {
			f.torn.Add(1)
			res.Body = &tornBody{ReadCloser: res.Body, left: res.ContentLength / 2}
		}
	case faultLost:
		f.lost.Add(1)
		_, _ = io.Copy(io.Discard, res.Body) // all of it was done
		return errors.Join(errLost, res.Body.Close())
	}
	return nil
}

// tornBody fails after a number of bytes, at which the proxy cuts the connection.
type tornBody struct {
	io.ReadCloser
	left int64
}

func (b *tornBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
