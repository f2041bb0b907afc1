package sqltest

import (
	"log/slog"
	"testing"

	"github.com/micromegas-go/micromegas/query/engine"
)

// OpenEngine opens an engine for a test, and runs scripts on it: statements that make the relations which the test needs.
func OpenEngine(t testing.TB, scripts ...string) *engine.Engine {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.Threads = 1
	e, err := engine.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	Exec(t, e, scripts...)
	return e
}

// Exec runs statements on an engine whose rows nobody wants.
func Exec(t testing.TB, e *engine.Engine, scripts ...string) {
	t.Helper()
	conn, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
	}()
	for _, sql := range scripts {
		if err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%v\n%s", err, sql)
		}
	}
}
