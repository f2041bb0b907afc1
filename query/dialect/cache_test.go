package dialect_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/sqltest"
)

// countingParser counts the statements that are rewritten.
type countingParser struct {
	dialect.Parser
	calls atomic.Int64
}

func (p *countingParser) DeserializeSQL(ctx context.Context, tree []byte) (string, error) {
	p.calls.Add(1)
	return p.Parser.DeserializeSQL(ctx, tree)
}

func TestCache(t *testing.T) {
	e := sqltest.OpenEngine(t)
	p := &countingParser{Parser: e}
	c := dialect.NewCache(p, views{}, 2)
	f := func(sql string, admin bool, wantCalls int64) {
		t.Helper()
		before := p.calls.Load()
		if _, err := c.Rewrite(t.Context(), sql, dialect.Options{Admin: admin, Eval: e.Eval}); err != nil {
			t.Fatal(err)
		}
		if got := p.calls.Load() - before; got != wantCalls {
			t.Errorf("%s: rewritten %d times, want %d", sql, got, wantCalls)
		}
	}
	f("SELECT 1", false, 1)
	f("SELECT 1", false, 0)
	f("SELECT 1", true, 1) // another caller may name more
	f("SELECT 2", false, 1)
	f("SELECT 1", true, 0)
	f("SELECT 1", false, 1) // was pushed out
	volatile := "SELECT count(*) FROM perfetto_trace_chunks('11111111-2222-3333-4444-555555555555', 'both', NOW(), NOW())"
	f(volatile, false, 3) // once for each time, too
	f(volatile, false, 3)
	if _, err := c.Rewrite(t.Context(), "SELECT nope()", dialect.Options{}); err == nil {
		t.Error("an error was lost")
	}

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 20 {
				sql := fmt.Sprintf("SELECT %d", (i+k)%4)
				st, err := c.Rewrite(t.Context(), sql, dialect.Options{})
				if want := fmt.Sprintf(`SELECT CAST(%d AS BIGINT) AS "Int64(%d)"`, (i+k)%4, (i+k)%4); err != nil || st.SQL != want {
					t.Errorf("%s: got %v, %v", sql, st, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestEngineFaultsSpeakOfTheClientsText(t *testing.T) {
	e := sqltest.OpenEngine(t)
	st, err := dialect.Rewrite(t.Context(), e, views{}, "SELECT\n  level, \"Nope\" FROM log_entries", dialect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := func(fault dialect.EngineFault, code dialect.Code, want string) {
		t.Helper()
		got := dialect.MapEngineError(fault, st)
		if got.Code != code || got.Error() != want {
			t.Errorf("%+v\n got %d %q\nwant %d %q", fault, got.Code, got, code, want)
		}
		if dialect.MapEngineError(fault, nil).Message != got.Message {
			t.Error("the message depends on the statement")
		}
	}
	f(
		dialect.EngineFault{Class: "bind", Message: "Binder Error: Referenced column \"Nope\" not found in FROM clause!\nCandidate bindings: \"name\", \"note\"\n\nLINE 1: SELECT x"},
		dialect.Invalid, "Schema error: No field named Nope (at line 2, column 10)\nhelp: did you mean name, note?",
	)
	f(
		dialect.EngineFault{Class: "bind", Message: "No field named level", Subtype: "COLUMN_NOT_FOUND", Name: "level", Candidates: []string{"a"}},
		dialect.Invalid, "Schema error: No field named level (at line 2, column 3)\nhelp: did you mean a?",
	)
	f(dialect.EngineFault{Class: "bind", Message: "x", Kind: "Scalar Function", Name: "foo"}, dialect.Invalid, "Error during planning: Invalid function 'foo'")
	f(dialect.EngineFault{Class: "bind", Message: "x", Kind: "Table Function", Name: "foo"}, dialect.Invalid, "Error during planning: table function 'foo' not found")
	f(dialect.EngineFault{Class: "bind", Message: "x", Kind: "Table", Name: "foo"}, dialect.Invalid, "Error during planning: table 'datafusion.public.foo' not found")
	f(dialect.EngineFault{Class: "bind", Message: "Binder Error: Cannot compare values"}, dialect.Invalid, "Error during planning: cannot compare values")
	f(dialect.EngineFault{Class: "parse", Message: "Parser Error: syntax error"}, dialect.Invalid, "SQL error: syntax error")
	f(dialect.EngineFault{Class: "execution", Message: "Conversion Error: Could not convert string 'x' to INT32"}, dialect.Invalid, "Execution error: could not convert string 'x' to INT32")
	f(dialect.EngineFault{Class: "execution", Message: "Invalid Input Error: make_histogram: nb_bins must be >= 1"}, dialect.Invalid, "Execution error: make_histogram: nb_bins must be >= 1")
	f(
		dialect.EngineFault{Class: "resource", Message: "Out of Memory Error: failed to allocate"}, dialect.Exhausted,
		"Resources exhausted: failed to allocate\nhelp: narrow the time range, select fewer columns, or aggregate before sorting and joining",
	)
	f(dialect.EngineFault{Class: "internal", Message: "INTERNAL Error: boom"}, dialect.Failed, "Internal error: boom")
}
