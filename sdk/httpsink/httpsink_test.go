package httpsink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

// gateway keeps what it acknowledges, and answers otherwise when told.
type gateway struct {
	*httptest.Server

	mu      sync.Mutex
	answer  func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered the nth request
	n       int
	paths   map[string]int
	bodies  [][]byte
	headers []http.Header
	stalled chan struct{}
}

func newGateway(t testing.TB) *gateway {
	g := &gateway{paths: map[string]int{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	g.mu.Lock()
	stalled := g.stalled
	g.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-r.Context().Done():
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	g.headers = append(g.headers, r.Header.Clone())
	if g.answer != nil && g.answer(g.n, w, r) {
		return
	}
	g.paths[r.URL.Path]++
	g.bodies = append(g.bodies, body)
}

func (g *gateway) set(f func(n int, w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = f
}

func (g *gateway) arrived(*testing.T) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bodies
}

func (g *gateway) stall() (resume func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{})
	g.stalled = c
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.stalled = nil
		close(c)
	})
}

func status(code int) func(int, http.ResponseWriter, *http.Request) bool {
	return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		return true
	}
}

// config is quick to try again.
func config(url string) httpsink.Config {
	cfg := httpsink.DefaultConfig()
	cfg.URL = url
	cfg.Delivery.MinBackoff, cfg.Delivery.MaxBackoff = time.Millisecond, 20*time.Millisecond
	cfg.Delivery.ErrorInterval = 0
	return cfg
}

func open(t testing.TB, cfg httpsink.Config) *httpsink.Sink {
	t.Helper()
	s, err := httpsink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Close(ctx)
	})
	return s
}

func send(s sdk.Sink, rs []sdk.Request) {
	for _, r := range rs {
		s.Send(r)
	}
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		g := newGateway(t)
		return sinktest.Opened{Sink: open(t, config(g.URL)), Arrived: g.arrived, Stall: g.stall}
	})
}

func TestRequestsAreThoseOfTheProtocol(t *testing.T) {
	g := newGateway(t)
	cfg := config(g.URL + "/base/")
	cfg.Key = "the-key"
	s := open(t, cfg)
	send(s, sinktest.Requests(6))
	sinktest.Close(t, s)
	want := map[string]int{"/base/ingestion/insert_process": 1, "/base/ingestion/insert_stream": 3, "/base/ingestion/insert_block": 6}
	for p, n := range want {
		if g.paths[p] != n {
			t.Errorf("%s: %d, want %d", p, g.paths[p], n)
		}
	}
	for _, h := range g.headers {
		if h.Get("Authorization") != "Bearer the-key" || h.Get("X-Idempotency-Key") != "" {
			t.Fatalf("%v", h)
		}
	}
}

// TestTroubleThatPassesLosesNothing lets each kind of trouble befall the first twenty requests.
func TestTroubleThatPassesLosesNothing(t *testing.T) {
	hijack := func(f func(c net.Conn)) func(int, http.ResponseWriter, *http.Request) bool {
		return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				f(c)
				c.Close()
			}
			return true
		}
	}
	text := func(s string) func(int, http.ResponseWriter, *http.Request) bool {
		return hijack(func(c net.Conn) { io.WriteString(c, s) })
	}
	for name, trouble := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"500": status(500), "502": status(502), "503": status(503), "504": status(504), "429": status(429), "408": status(408), "599": status(599),
		"reset":  hijack(func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }),
		"closed": hijack(func(net.Conn) {}), "garbage": text("\x00\xff not http at all\r\n\r\n"),
		"half a header":   text("HTTP/1.1 200 OK\r\nContent-"),
		"endless header":  text("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20)),
		"negative length": text("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
		"strange status":  text("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			g.set(func(n int, w http.ResponseWriter, r *http.Request) bool { return n <= 20 && trouble(n, w, r) })
			s := open(t, config(g.URL))
			rs := sinktest.Requests(50)
			send(s, rs)
			sinktest.Close(t, s)
			sinktest.CheckArrived(t, rs, g.arrived(t))
			if got := s.Stats(); sinktest.Dropped(got) != 0 || got.Retries == 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestRefusalsDrop(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 405, 413, 422} {
		g := newGateway(t)
		g.set(status(code))
		s := open(t, config(g.URL))
		send(s, sinktest.Requests(3))
		sinktest.Close(t, s)
		if got := s.Stats(); sinktest.Dropped(got) != 7 || sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropRefused) != 1 || g.n != 7 {
			t.Errorf("%d: %+v after %d requests", code, got, g.n)
		}
	}
}

func TestAnAnswerThatBreaksOffOrNeverEndsHasDelivered(t *testing.T) {
	for name, f := range map[string]func(w http.ResponseWriter){
		"breaks off": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "short")
		},
		"huge": func(w http.ResponseWriter) {
			for range 200 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		},
	} {
		g := newGateway(t)
		g.set(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			f(w)
			return true
		})
		s := open(t, config(g.URL))
		send(s, sinktest.Requests(3))
		sinktest.Close(t, s)
		if got := s.Stats(); got.Delivered != 7 || g.n != 7 {
			t.Errorf("%s: %+v after %d requests", name, got, g.n)
		}
	}
}

func TestServerThatComesLate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := open(t, config("http://"+address))
	rs := sinktest.Requests(200)
	send(s, rs)
	sinktest.Poll(t, "attempts fail", func() bool { return s.Stats().Retries > 5 })
	if l, err = net.Listen("tcp", address); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			t.Skip("another process took the port")
		}
		t.Fatal(err)
	}
	g := &gateway{paths: map[string]int{}}
	g.Server = &httptest.Server{Listener: l, Config: &http.Server{Handler: g}}
	g.Start()
	defer g.Close()
	sinktest.Close(t, s)
	sinktest.CheckArrived(t, rs, g.arrived(t))
}

func TestSlowServerTimesOutAndIsTriedAgain(t *testing.T) {
	g := newGateway(t)
	resume := g.stall()
	cfg := config(g.URL)
	cfg.RequestTimeout = 20 * time.Millisecond
	s := open(t, cfg)
	rs := sinktest.Requests(5)
	send(s, rs)
	sinktest.Poll(t, "attempts time out", func() bool { return s.Stats().Retries > 3 })
	resume()
	sinktest.Close(t, s)
	sinktest.CheckArrived(t, rs, g.arrived(t))
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newGateway(t)
	g := newGateway(t)
	g.set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	cfg := config(g.URL)
	cfg.Key = "the-key"
	told := make(chan error, 100)
	cfg.Delivery.OnError = func(err error) {
		select {
		case told <- err:
		default:
		}
	}
	s := open(t, cfg)
	s.Send(sinktest.Noise(sdk.ClassLogs, 10))
	if err := <-told; !strings.Contains(err.Error(), "redirect to "+elsewhere.URL) {
		t.Error(err)
	}
	g.set(nil)
	sinktest.Close(t, s)
	if elsewhere.n != 0 || len(g.bodies) != 1 {
		t.Errorf("%d requests elsewhere, %d delivered", elsewhere.n, len(g.bodies))
	}
}

// issuer gives tokens out.
type issuer struct {
	*httptest.Server
	mu     sync.Mutex
	n      int
	fail   bool
	expire int
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{expire: 3600}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.n++
		if i.fail {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != "me" || r.FormValue("client_secret") != "sesame" ||
			r.FormValue("audience") != "lake" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprintf("token-%d", i.n), "expires_in": i.expire, "token_type": "Bearer"})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) config(url string) httpsink.Config {
	cfg := config(url)
	cfg.OIDC = httpsink.OIDC{TokenEndpoint: i.URL, ClientID: "me", ClientSecret: "sesame", Audience: "lake"}
	return cfg
}

func TestOneTokenServesManyRequests(t *testing.T) {
	i, g := newIssuer(t), newGateway(t)
	s := open(t, i.config(g.URL))
	send(s, sinktest.Requests(30))
	sinktest.Close(t, s)
	if i.n != 1 || g.headers[33].Get("Authorization") != "Bearer token-1" {
		t.Errorf("%d tokens, %v", i.n, g.headers[33])
	}
}

func TestRefusedTokenIsFetchedOnceMore(t *testing.T) {
	i, g := newIssuer(t), newGateway(t)
	g.set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	cfg := i.config(g.URL)
	cfg.Delivery.MaxInFlight = 1
	s := open(t, cfg)
	rs := sinktest.Requests(10)
	send(s, rs)
	sinktest.Flush(t, s)
	sinktest.CheckArrived(t, rs, g.arrived(t))
	if i.n != 2 {
		t.Errorf("%d tokens", i.n)
	}
	g.set(status(403))
	s.Send(sinktest.Noise(sdk.ClassLogs, 10))
	sinktest.Close(t, s)
	if got := s.Stats(); sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropRefused) != 1 || i.n != 3 {
		t.Errorf("%+v, %d tokens", got, i.n)
	}
}

func TestTokensAreRenewedAndAnIssuerMayBeAway(t *testing.T) {
	i, g := newIssuer(t), newGateway(t)
	i.fail = true
	i.expire = 1
	s := open(t, i.config(g.URL))
	rs := sinktest.Requests(10)
	send(s, rs)
	sinktest.Poll(t, "attempts fail", func() bool { return s.Stats().Retries > 3 })
	i.mu.Lock()
	i.fail = false
	i.mu.Unlock()
	sinktest.Flush(t, s)
	i.mu.Lock()
	before := i.n
	i.mu.Unlock()
	sinktest.Poll(t, "the token is renewed", func() bool {
		s.Send(sinktest.Noise(sdk.ClassLogs, 10))
		sinktest.Flush(t, s)
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.n > before
	})
}

func TestSecretsDoNotShow(t *testing.T) {
	const secret = "s3cr3t"
	var mu sync.Mutex
	var seen strings.Builder
	hear := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&seen, "%v %+v %#v\n", err, err, err)
	}
	g := newGateway(t)
	g.set(func(_ int, w http.ResponseWriter, r *http.Request) bool { // an answer that echoes
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, r.Header)
		return true
	})
	withUser := strings.Replace(g.URL, "http://", "http://user:"+secret+"@", 1)
	refused := strings.Replace("http://127.0.0.1:1/?key="+secret, "http://", "http://user:"+secret+"@", 1)
	key := config(g.URL)
	key.Key = secret
	oidc := config(g.URL)
	oidc.OIDC = httpsink.OIDC{TokenEndpoint: refused, ClientID: "me", ClientSecret: secret}
	for _, cfg := range []httpsink.Config{config(withUser), config(refused), key, oidc} {
		fmt.Fprintf(&seen, "%v %+v %#v %s\n", cfg, cfg, cfg, &cfg)
		cfg.Delivery.OnError = hear
		cfg.Delivery.MaxAge = [sdk.NumClasses]time.Duration{1e7, 1e7, 1e7, 1e7}
		s := open(t, cfg)
		s.Send(sinktest.Noise(sdk.ClassLogs, 10))
		sinktest.Close(t, s)
	}
	for _, url := range []string{"http://user:" + secret + "@host:x\x7f/", "ftp://user:" + secret + "@host", secret + ":" + secret, "http://" + secret + "%zz"} {
		cfg := config(url)
		cfg.OIDC = httpsink.OIDC{TokenEndpoint: url, ClientSecret: secret}
		fmt.Fprintf(&seen, "%v %+v %#v\n", cfg, cfg, cfg.OIDC)
		_, err := httpsink.New(cfg)
		if err == nil {
			t.Errorf("%q is accepted", url)
		}
		hear(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(seen.String(), secret) {
		for line := range strings.Lines(seen.String()) {
			if strings.Contains(line, secret) {
				t.Errorf("the secret shows: %s", line)
			}
		}
	}
	if len(seen.String()) < 1_000 {
		t.Errorf("too few errors: %s", seen.String())
	}
}

func TestFromEnvReadsWhatTheRustClientReads(t *testing.T) {
	t.Setenv("MICROMEGAS_TELEMETRY_URL", "")
	if _, err := httpsink.FromEnv(); !errors.Is(err, httpsink.ErrNoURL) {
		t.Errorf("no URL: %v", err)
	}
	t.Setenv("MICROMEGAS_TELEMETRY_URL", "http://gateway:9000")
	t.Setenv("MICROMEGAS_INGESTION_API_KEY", "key")
	t.Setenv("MICROMEGAS_TELEMETRY_MAX_QUEUE_BYTES", "1000")
	t.Setenv("MICROMEGAS_TELEMETRY_HARD_QUEUE_BYTES", "2000")
	t.Setenv("MICROMEGAS_TELEMETRY_MAX_IN_FLIGHT_REQUESTS", "7")
	t.Setenv("MICROMEGAS_TELEMETRY_REQUEST_TIMEOUT_SECS", "3")
	c, err := httpsink.FromEnv()
	if err != nil || c.URL != "http://gateway:9000" || c.Key != "key" || c.Delivery.SoftBytes != 1000 || c.Delivery.HardBytes != 2000 ||
		c.Delivery.MaxInFlight != 7 || c.RequestTimeout != 3*time.Second {
		t.Errorf("%#v, %v", c, err)
	}
	t.Setenv("MICROMEGAS_INGESTION_API_KEY", "")
	t.Setenv("MICROMEGAS_OIDC_TOKEN_ENDPOINT", "http://issuer/token")
	t.Setenv("MICROMEGAS_OIDC_CLIENT_ID", "me")
	t.Setenv("MICROMEGAS_OIDC_CLIENT_SECRET", "sesame")
	t.Setenv("MICROMEGAS_OIDC_TOKEN_BUFFER_SECONDS", "60")
	t.Setenv("MICROMEGAS_TELEMETRY_MAX_QUEUE_BYTES", "")
	c, err = httpsink.FromEnv()
	if err != nil || c.OIDC.TokenEndpoint != "http://issuer/token" || c.OIDC.ClientID != "me" || c.OIDC.ClientSecret != "sesame" ||
		c.OIDC.Buffer != time.Minute || c.Delivery.SoftBytes != 2000 {
		t.Errorf("%#v, %v", c, err)
	}
	t.Setenv("MICROMEGAS_TELEMETRY_MAX_QUEUE_BYTES", "many")
	t.Setenv("MICROMEGAS_TELEMETRY_REQUEST_TIMEOUT_SECS", "0")
	_, err = httpsink.FromEnv()
	for _, want := range []string{"MAX_QUEUE_BYTES", "timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestHugeBodiesAndThousandsOfRequests(t *testing.T) {
	g := newGateway(t)
	s := open(t, config(g.URL))
	rs := append(sinktest.Requests(5_000), sinktest.Noise(sdk.ClassLogs, 40<<20))
	send(s, rs)
	sinktest.Close(t, s)
	sinktest.CheckArrived(t, rs, g.arrived(t))
	if got := s.Stats(); sinktest.Dropped(got) != 0 || got.Retries != 0 {
		t.Errorf("%+v", got)
	}
}

// TestConnectionsAreUsedAgain counts connections.
func TestConnectionsAreUsedAgain(t *testing.T) {
	var mu sync.Mutex
	opened := 0
	g := &gateway{paths: map[string]int{}}
	g.Server = httptest.NewUnstartedServer(g)
	g.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			mu.Lock()
			defer mu.Unlock()
			opened++
		}
	}
	g.Start()
	defer g.Close()
	s := open(t, config(g.URL))
	send(s, sinktest.Requests(500))
	sinktest.Close(t, s)
	mu.Lock()
	defer mu.Unlock()
	if opened > deliver.DefaultConfig().MaxInFlight+1 {
		t.Errorf("%d connections", opened)
	}
}
