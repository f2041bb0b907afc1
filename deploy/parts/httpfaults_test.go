package parts_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

// echo is a server that counts and answers with what the client called it.
func echo(t *testing.T) (url string, done *atomic.Int64) {
	t.Helper()
	done = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done.Add(1)
		io.WriteString(w, "you said "+r.Host+r.URL.String())
	}))
	t.Cleanup(s.Close)
	return s.URL, done
}

func startFaults(t *testing.T, target string) *parts.HTTPFaults {
	t.Helper()
	f, err := parts.StartHTTPFaults(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Stop() })
	return f
}

func do(ctx context.Context, method, url string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("body"))
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultTransport.RoundTrip(req) // a client of its own would repeat a GET that was cut
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func TestHTTPFaults(t *testing.T) {
	target, done := echo(t)
	f := startFaults(t, target)
	host := strings.TrimPrefix(f.URL(), "http://")
	for _, c := range []struct {
		name   string
		faults parts.Faults
		method string
		status int
		body   string
		done   int64
		failed bool
	}{
		{"nothing", parts.Faults{}, http.MethodGet, 200, "you said " + host + "/a?b=c", 1, false},
		{"500", parts.Faults{Error500: 1}, http.MethodGet, 500, "InternalError", 0, false},
		{"503", parts.Faults{Error503: 1}, http.MethodPut, 503, "SlowDown", 0, false},
		{"time-out", parts.Faults{Timeout: 1, Hold: time.Millisecond}, http.MethodPut, 0, "", 0, true},
		{"torn", parts.Faults{Torn: 1}, http.MethodGet, 200, "you said", 1, true},
		{"torn PUT passes", parts.Faults{Torn: 1}, http.MethodPut, 200, "you said", 1, false},
		{"lost reply", parts.Faults{LostReply: 1}, http.MethodPut, 0, "", 1, true},
		{"lost GET passes", parts.Faults{LostReply: 1}, http.MethodGet, 200, "you said", 1, false},
	} {
		done.Store(0)
		f.Set(c.faults, 1)
		status, body, err := do(t.Context(), c.method, f.URL()+"/a?b=c")
		if status != c.status || !strings.Contains(body, c.body) || (err != nil) != c.failed || done.Load() != c.done {
			t.Errorf("%s: %d %q, %v; the server did %d", c.name, status, body, err, done.Load())
		}
	}
	want := parts.FaultCounts{Requests: 8, Error500: 1, Error503: 1, Timeouts: 1, Torn: 1, LostReply: 1, Peak: 1}
	if got := f.Counts(); got != want || got.Faults() != 5 {
		t.Errorf("counts = %+v, want %+v", got, want)
	}
}

func TestHTTPFaultsHoldUntilTheClientLeaves(t *testing.T) {
	target, _ := echo(t)
	f := startFaults(t, target)
	f.Set(parts.Faults{Timeout: 1, Hold: time.Hour}, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := do(ctx, http.MethodGet, f.URL()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("held request: %v", err)
	}
}

func TestHTTPFaultsKeepTheirShares(t *testing.T) {
	target, _ := echo(t)
	f := startFaults(t, target)
	f.Set(parts.Every(0.5, 0), 7)
	for range 400 {
		do(t.Context(), http.MethodPut, f.URL())
	}
	c := f.Counts()
	if c.Error500 < 20 || c.Error503 < 20 || c.Timeouts < 20 || c.LostReply < 20 || c.Torn != 0 || c.Faults() > 240 {
		t.Errorf("counts = %+v", c)
	}
}
