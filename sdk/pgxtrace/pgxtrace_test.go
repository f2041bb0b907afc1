package pgxtrace_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/pgxtrace"
	"github.com/micromegas-go/micromegas/sdk/sdktest"
)

// connect returns a connection, with a tracer, to a server that runs as long as the test.
func connect(t *testing.T, ctx context.Context, o pgxtrace.Options) *pgx.Conn { //nolint:revive // t comes first in tests
	t.Helper()
	server, err := parts.StartPostgres(context.Background(), t.TempDir(), parts.PostgresOptions{NoFsync: true})
	if errors.Is(err, parts.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	config, err := pgx.ParseConfig(server.URL("test"))
	if err != nil {
		t.Fatal(err)
	}
	config.Tracer = pgxtrace.New(o)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func TestCallsAreSpans(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	ctx, root := sdk.StartSpan(t.Context(), "root")
	conn := connect(t, ctx, pgxtrace.Options{Name: "orders", MaxStatement: 32})
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(conn.Exec(ctx, "CREATE TABLE things (a int PRIMARY KEY, b text)"))
	must(conn.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"a", "b"}, pgx.CopyFromRows([][]any{{1, "secret"}, {2, "x"}})))
	var n int
	must(nil, conn.QueryRow(ctx, "SELECT a FROM things WHERE b = $1", "secret").Scan(&n))
	batch := &pgx.Batch{}
	for range 20 {
		batch.Queue("SELECT 1 WHERE $1 = 'secret'", "secret")
	}
	must(nil, conn.SendBatch(ctx, batch).Close())
	if _, err := conn.Exec(ctx, "INSERT INTO things VALUES (1)"); err == nil {
		t.Error("inserted twice")
	}
	batch = &pgx.Batch{}
	batch.Queue("SELECT 1")
	batch.Queue("SELECT 1/0")
	if err := conn.SendBatch(ctx, batch).Close(); err == nil {
		t.Error("divided by zero")
	}
	root.End()
	r := end()

	var got []string
	for _, s := range r.Spans {
		if s.Name == "root" || s.Name == "pg.prepare" {
			continue
		}
		got = append(got, strings.Join([]string{strings.TrimPrefix(s.Name, "pg."), s.Props["statement"], s.Props["command_tag"]}, "|"))
		if s.Trace != r.Span(t, "root").Trace || s.End == 0 || s.Props["db"] != "orders" {
			t.Errorf("%+v", s)
		}
	}
	want := []string{
		"connect||", "query|CREATE TABLE things (a int PRIMA|CREATE TABLE", `copy_from|COPY "things"|COPY 2`, "query|SELECT a FROM things WHERE b = $|SELECT 1",
		"batch||", "query|INSERT INTO things VALUES (1)|", "batch||",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	for _, s := range r.Spans {
		if strings.Contains(s.Props["statement"], "secret") || s.Name == "pg.query" && strings.HasPrefix(s.Props["statement"], "INSERT") && !strings.Contains(s.Props["error"], "23505") {
			t.Errorf("%+v", s)
		}
	}
	batches := slices.DeleteFunc(slices.Clone(r.Spans), func(s sdktest.Span) bool { return s.Name != "pg.batch" })
	if p := batches[0].Props; p["statements"] != "20" || p["statement.15"] == "" || p["statement.16"] != "" || p["error"] != "" {
		t.Errorf("%v", p)
	}
	if p := batches[1].Props; !strings.Contains(p["error"], "division") {
		t.Errorf("%v", p)
	}
	if got := r.Values("pg_errors"); len(got) != 1 || got[0] < 2 {
		t.Error(got)
	}
}

// A call that is not recorded must not end the one around it.
func TestCallsInsideOthers(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	tracer := pgxtrace.New(pgxtrace.Options{})
	outside := tracer.TraceQueryStart(t.Context(), nil, pgx.TraceQueryStartData{SQL: "SELECT"})
	sdk.SetSpans(false)
	inside := tracer.TracePrepareStart(outside, nil, pgx.TracePrepareStartData{SQL: "SELECT"})
	tracer.TracePrepareEnd(inside, nil, pgx.TracePrepareEndData{})
	sdk.SetSpans(true)
	_, between := sdk.StartSpan(t.Context(), "between")
	between.End()
	tracer.TraceQueryEnd(outside, nil, pgx.TraceQueryEndData{})
	tracer.TraceQueryEnd(t.Context(), nil, pgx.TraceQueryEndData{}) // never began
	r := end()
	if r.Span(t, "pg.query").End < r.Span(t, "between").End || len(r.Spans) != 2 {
		t.Errorf("%+v", r.Spans)
	}
}

func BenchmarkQuery(b *testing.B) {
	sdktest.Begin(b, sdk.Config{Memory: 1 << 30})
	tracer := pgxtrace.New(pgxtrace.Options{Name: "b"})
	b.ReportAllocs()
	for b.Loop() {
		ctx := tracer.TraceQueryStart(context.Background(), nil, pgx.TraceQueryStartData{SQL: "SELECT b FROM t WHERE a = $1"})
		tracer.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{})
	}
}
