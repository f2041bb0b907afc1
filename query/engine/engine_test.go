package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/query/engine"
)

func open(t testing.TB, change func(*engine.Config)) *engine.Engine {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.MemoryLimit = 256 << 20
	if change != nil {
		change(&cfg)
	}
	e, err := engine.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func conn(t testing.TB, e *engine.Engine) *engine.Conn {
	t.Helper()
	c, err := e.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rows runs a statement and returns each row as JSON.
func rows(t testing.TB, c *engine.Conn, sql string, opts engine.QueryOptions) ([]string, error) {
	t.Helper()
	res, err := c.Query(context.Background(), sql, opts)
	if err != nil {
		return nil, err
	}
	defer res.Close()
	return drain(t, res)
}

func drain(t testing.TB, res engine.Result) ([]string, error) {
	t.Helper()
	var out []string
	for {
		batch, err := res.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		var buf bytes.Buffer
		if err := array.RecordToJSON(batch, &buf); err != nil {
			t.Fatal(err)
		}
		batch.Release()
		out = append(out, strings.Split(strings.TrimSpace(buf.String()), "\n")...)
	}
}
