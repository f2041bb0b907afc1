package spool_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/sdk/httpsink"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

// TestOverHTTP spools what a gateway that is ill does not take, over real connections.
func TestOverHTTP(t *testing.T) {
	var mu sync.Mutex
	ill := true
	var bodies [][]byte
	g := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if ill || err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		bodies = append(bodies, body)
	}))
	defer g.Close()
	to := httpsink.DefaultConfig()
	to.URL = g.URL
	poster, err := httpsink.NewPoster(to)
	if err != nil {
		t.Fatal(err)
	}
	defer poster.Close()
	dir := t.TempDir()
	s := open(t, config(dir), poster)
	rs := sinktest.Requests(500)
	send(s, rs)
	spooled(t, s, len(rs))
	mu.Lock()
	ill = false
	mu.Unlock()
	sinktest.Close(t, s)
	mu.Lock()
	defer mu.Unlock()
	sinktest.CheckArrived(t, rs, bodies)
	empty(t, dir)
}
