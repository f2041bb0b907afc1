package nethttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/nethttp"
	"github.com/micromegas-go/micromegas/sdk/sdktest"
)

// serve runs a server until the test ends; it waits for its handlers when it is closed.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // panics are what some tests are about
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// do sends a request and reads the answer.
func do(t testing.TB, c *http.Client, method, url, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func TestRequestsAreSpans(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /things/{id}", func(w http.ResponseWriter, r *http.Request) {
		_, span := sdk.StartSpan(r.Context(), "inside")
		defer span.End()
		n, _ := io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%d bytes of %s", n, r.PathValue("id"))
	})
	s := serve(t, nethttp.Middleware(mux))
	if status, answer := do(t, s.Client(), "POST", s.URL+"/things/7", "hello"); status != 201 || answer != "5 bytes of 7" {
		t.Fatal(status, answer)
	}
	do(t, s.Client(), "GET", s.URL+"/nothing", "")
	do(t, s.Client(), "BREW", s.URL+"/pot", "")
	s.Close()
	r := end()

	span := r.Span(t, "POST /things/{id}")
	if span.End == 0 || span.Props["method"] != "POST" || span.Props["route"] != "POST /things/{id}" || span.Props["status"] != "201" || len(span.Trace) != 32 {
		t.Errorf("%+v", span)
	}
	if in := r.Span(t, "inside"); in.Parent != span.ID || in.Trace != span.Trace {
		t.Errorf("%+v is not in %+v", in, span)
	}
	if s := r.Span(t, "GET"); s.Props["status"] != "404" || s.Props["route"] != "" {
		t.Errorf("%+v", s)
	}
	if s := r.Span(t, "other"); s.Props["method"] != "other" {
		t.Errorf("%+v", s)
	}
	for name, want := range map[string][]float64{
		"http_server_request_bytes": {5}, "http_server_responses_2xx": {1}, "http_server_responses_4xx": {2},
		"http_server_in_flight": {1, 0, 1, 0, 1, 0},
	} {
		if got := r.Values(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, not %v", name, got, want)
		}
	}
	if got := r.Values("http_server_response_bytes"); len(got) != 3 || got[0] != 12 {
		t.Errorf("%v", got)
	}
	for _, m := range r.Measures {
		if m.Name == "http_server_duration" && m.Value > 0 && m.Properties.JSON == `{"method":"POST","route":"POST /things/{id}","status":"201"}` {
			return
		}
	}
	t.Errorf("no duration in %+v", r.Measures)
}

// A middleware around one handler of a mux finds the pattern in the request.
func TestPatternOfTheRequest(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	mux := http.NewServeMux()
	mux.Handle("/a/", nethttp.Middleware(http.NotFoundHandler()))
	s := serve(t, mux)
	do(t, s.Client(), "GET", s.URL+"/a/b", "")
	s.Close()
	if span := end().Span(t, "/a/"); span.Props["status"] != "404" || span.Props["route"] != "/a/" {
		t.Errorf("%+v", span)
	}
}

func TestPanicsGoOn(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	broken := errors.New("broken")
	h := nethttp.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		panic(broken)
	}))
	func() {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, broken) {
				t.Errorf("recovered %v", err)
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	r := end()
	if span := r.Span(t, "GET"); span.Props["status"] != "500" || span.End == 0 {
		t.Errorf("%+v", span)
	}
	if got := r.Values("http_server_responses_5xx"); !slices.Equal(got, []float64{1}) {
		t.Error(got)
	}
}

func TestTraceGoesFromClientToServer(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	s := serve(t, nethttp.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })))
	alone := serve(t, nethttp.Middleware(http.NotFoundHandler(), nethttp.IgnoreTraceParent()))
	client := &http.Client{Transport: nethttp.Transport(s.Client().Transport)}

	ctx, root := sdk.StartSpan(t.Context(), "root")
	r, _ := http.NewRequestWithContext(ctx, http.MethodPut, s.URL, nil)
	r.Header.Set("Traceparent", "of somebody else")
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if response.Request != r || r.Header.Get("Traceparent") != "of somebody else" {
		t.Error("the request was changed")
	}
	if b, err := io.ReadAll(response.Body); string(b) != "hello" || err != nil {
		t.Error(b, err)
	}
	response.Body.Close()
	root.End()
	do(t, client, "GET", alone.URL, "")
	s.Close()
	alone.Close()
	got := end()

	var puts, gets []sdktest.Span
	for _, s := range got.Spans {
		switch s.Name {
		case "PUT":
			puts = append(puts, s)
		case "GET":
			gets = append(gets, s)
		}
	}
	top := got.Span(t, "root")
	if len(puts) != 2 || puts[0].Trace != top.Trace || puts[1].Trace != top.Trace || puts[0].Parent != top.ID {
		t.Fatalf("%+v", got.Spans)
	}
	if want := fmt.Sprintf("%016x", puts[0].ID); puts[1].Props["remote_parent"] != want {
		t.Errorf("%+v", puts[1])
	}
	if c := puts[0]; c.Props["status"] != "200" || c.Props["host"] != strings.TrimPrefix(s.URL, "http://") || c.End < puts[1].Begin {
		t.Errorf("%+v", c)
	}
	if len(gets) != 2 || gets[0].Trace == gets[1].Trace {
		t.Errorf("%+v", gets)
	}
	if n := len(got.Values("http_client_duration")); n != 2 {
		t.Errorf("%d durations", n)
	}
}

func TestClientErrorsEndTheSpan(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	gone := serve(t, http.NotFoundHandler())
	gone.Close()
	half := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	client := &http.Client{Transport: nethttp.Transport(nil)}
	defer client.CloseIdleConnections()
	if status, _ := do(t, client, "GET", gone.URL, ""); status != 0 {
		t.Error(status)
	}
	response, err := client.Post(half.URL, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("half a body was whole")
	}
	response.Body.Close()
	r := end()
	for _, name := range []string{"GET", "POST"} {
		if s := r.Span(t, name); s.Props["error"] == "" || s.End == 0 {
			t.Errorf("%+v", s)
		}
	}
	if got := r.Values("http_client_errors"); !slices.Equal(got, []float64{2}) {
		t.Error(got)
	}
}

func TestSpanEndsWhenTheBodyIsClosed(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "unread") }))
	client := &http.Client{Transport: nethttp.Transport(nil)}
	defer client.CloseIdleConnections()
	response, err := client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, between := sdk.StartSpan(t.Context(), "between")
	between.End()
	response.Body.Close()
	r := end()
	if s := r.Span(t, "GET"); s.End < r.Span(t, "between").End || s.Props["error"] != "" {
		t.Errorf("%+v", s)
	}
}

// The writer has what the one below has, by assertion and through http.ResponseController.
func TestWritersKeepTheirInterfaces(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/flush", func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("no io.ReaderFrom")
		}
		http.ServeFile(w, r, file)
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		conn.Close()
	})
	served := make(chan struct{}, 3) // a server does not wait for those that hijack
	recording := nethttp.Middleware(mux)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recording.ServeHTTP(w, r)
		served <- struct{}{}
	}))
	do(t, s.Client(), "GET", s.URL+"/flush", "")
	if _, answer := do(t, s.Client(), "GET", s.URL+"/file", ""); answer != "content" {
		t.Error(answer)
	}
	if _, answer := do(t, s.Client(), "GET", s.URL+"/hijack", ""); answer != "ok" {
		t.Error(answer)
	}
	for range cap(served) {
		<-served
	}

	var w http.ResponseWriter
	plain := struct{ http.ResponseWriter }{httptest.NewRecorder()}
	nethttp.Middleware(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) { w = got })).ServeHTTP(plain, httptest.NewRequest(http.MethodGet, "/", nil))
	if _, ok := w.(http.Flusher); ok {
		t.Error("a writer without Flush got one")
	}
	if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	r := end()
	if got := r.Span(t, "/hijack").Props["status"]; got != "101" {
		t.Error(got)
	}
	if got := r.Values("http_server_response_bytes"); !slices.Equal(got, []float64{0, 7, 0, 0}) {
		t.Error(got)
	}
}

func TestTheServerRemovesTheFilesOfForms(t *testing.T) {
	sdktest.Begin(t, sdk.Config{})
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := serve(t, nethttp.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
	})))
	var body strings.Builder
	form := multipart.NewWriter(&body)
	part, _ := form.CreateFormFile("f", "f")
	io.WriteString(part, strings.Repeat("x", 11<<20)) // beyond what is kept in memory
	form.Close()
	response, err := s.Client().Post(s.URL, form.FormDataContentType(), strings.NewReader(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	s.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestOnly(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	h := nethttp.Middleware(http.NotFoundHandler(), nethttp.Only(func(r *http.Request) bool { return r.URL.Path != "/probe" }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/probe", nil))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/", nil))
	r := end()
	if len(r.Spans) != 1 || r.Spans[0].Name != "PUT" {
		t.Errorf("%+v", r.Spans)
	}
}

// nothing is a writer that costs nothing.
type nothing struct{ h http.Header }

func (n nothing) Header() http.Header       { return n.h }
func (nothing) WriteHeader(int)             {}
func (nothing) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkMiddleware(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("on=%t", on), func(b *testing.B) {
			if on {
				sdktest.Begin(b, sdk.Config{Memory: 1 << 30})
			}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /things/{id}", func(http.ResponseWriter, *http.Request) {})
			h := nethttp.Middleware(mux)
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/things/7", nil)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(nothing{}, r)
			}
		})
	}
}
