package deploy_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy"
)

// TestHealthTellsReadiness asks servers that are ready, not ready, closed to strangers, silent and gone.
func TestHealthTellsReadiness(t *testing.T) {
	silence := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/busy/ready", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "starting or stopping", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/slow/ready", func(http.ResponseWriter, *http.Request) { <-silence })
	mux.HandleFunc("/good/status", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer k" {
			http.Error(w, "no key", http.StatusUnauthorized)
			return
		}
		w.Write([]byte(`{"ready":true}`))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(silence) })
	gone := httptest.NewServer(nil)
	gone.Close()

	for _, c := range []struct {
		name, url string
		args      []string
		status    int
		want      string // in what is printed
	}{
		{"ready", server.URL + "/good", nil, 0, "ready\n"},
		{"not ready", server.URL + "/busy", nil, 1, "503 Service Unavailable: starting or stopping"},
		{"silent", server.URL + "/slow", []string{"--timeout", "50ms"}, 1, "deadline exceeded"},
		{"gone", gone.URL, nil, 1, "connection refused"},
		{"status", server.URL + "/good", []string{"--status", "--key", "k"}, 0, `{"ready":true}`},
		{"status without a key", server.URL + "/good", []string{"--status", "--key", ""}, 1, "401 Unauthorized: no key"},
		{"wrong flag", server.URL, []string{"--statsu"}, 2, "usage: micromegas health"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			status := deploy.Main(append([]string{"health", "--url", c.url}, c.args...), nil, &out, &out)
			if status != c.status || !strings.Contains(out.String(), c.want) {
				t.Errorf("exit status %d, printed %q; want %d, %q", status, out.String(), c.status, c.want)
			}
		})
	}
}
