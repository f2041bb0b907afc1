package parts_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

func TestS3Lives(t *testing.T) {
	s, err := parts.StartS3(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	uri, err := url.Parse(s.URI("lake"))
	if err != nil || uri.Scheme != "s3" || uri.Host != "lake" || uri.Query().Get("endpoint") != s.Endpoint() {
		t.Errorf("URI = %v, %v", uri, err)
	}
	answers := func() int {
		status, _, err := do(context.Background(), http.MethodGet, s.Endpoint()+"/lake")
		if err != nil {
			return 0
		}
		return status
	}
	if got := answers(); got != http.StatusForbidden {
		t.Errorf("a stranger's request: %d, want 403", got)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := answers(); got != 0 {
		t.Errorf("a killed server answers %d", got)
	}
	if s.Pause() == nil {
		t.Error("a killed server can be paused")
	}
	endpoint := s.Endpoint()
	if err := s.Restart(t.Context()); err != nil || s.Endpoint() != endpoint {
		t.Fatalf("restart: %v, at %s", err, s.Endpoint())
	}
	if got := answers(); got != http.StatusForbidden {
		t.Errorf("after a restart: %d, want 403", got)
	}
	for _, secret := range s.Env() {
		_, value, _ := strings.Cut(secret, "=")
		if log, err := os.ReadFile(s.Log()); err != nil || len(value) > 10 && strings.Contains(string(log), value) {
			t.Errorf("log: %v; it may hold a secret", err)
		}
	}
}
