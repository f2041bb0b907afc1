package sqltrace_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"modernc.org/sqlite"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/sdktest"
	"github.com/micromegas-go/micromegas/sdk/sqltrace"
)

// open returns a database of one connection.
func open(t testing.TB, o sqltrace.Options) *sql.DB {
	t.Helper()
	c, err := sqltrace.Open(&sqlite.Driver{}, filepath.Join(t.TempDir(), "test.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(sqltrace.Wrap(c, o))
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestCallsAreSpans(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	db := open(t, sqltrace.Options{Name: "orders", MaxStatement: 40})
	ctx, root := sdk.StartSpan(t.Context(), "root")
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(nil, db.PingContext(ctx))
	must(db.ExecContext(ctx, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)"))
	tx, err := db.BeginTx(ctx, nil)
	must(nil, err)
	must(tx.ExecContext(ctx, "INSERT INTO t VALUES (?, ?)", 1, "secret"))
	must(tx.ExecContext(ctx, "INSERT INTO t VALUES (:a, :b)", sql.Named("a", 2), sql.Named("b", "x")))
	must(nil, tx.Commit())
	tx, err = db.BeginTx(ctx, nil)
	must(nil, err)
	must(nil, tx.Rollback())
	var b string
	must(nil, db.QueryRowContext(ctx, "SELECT b FROM t WHERE a = ?", 1).Scan(&b))
	s, err := db.PrepareContext(ctx, "SELECT count(*) FROM t")
	must(nil, err)
	var n int
	must(nil, s.QueryRowContext(ctx).Scan(&n))
	must(nil, s.Close())
	if b != "secret" || n != 2 {
		t.Errorf("%q, %d", b, n)
	}
	if _, err := db.ExecContext(ctx, "INSERT INTO t VALUES (1, 'again')"); err == nil {
		t.Error("inserted twice")
	}
	root.End()
	r := end()

	top := r.Span(t, "root")
	var names []string
	for _, s := range r.Spans {
		if s.Name == "root" {
			continue
		}
		names = append(names, strings.TrimPrefix(s.Name, "sql.")+" "+s.Props["statement"])
		if s.Parent != top.ID || s.End == 0 || s.Props["db"] != "orders" {
			t.Errorf("%+v", s)
		}
		for k, v := range s.Props {
			if strings.Contains(v, "secret") {
				t.Errorf("%s is %s", k, v)
			}
		}
	}
	want := []string{
		"connect ", "ping ", "exec CREATE TABLE t (a INTEGER PRIMARY KEY, b", "begin ", "exec INSERT INTO t VALUES (?, ?)", "exec INSERT INTO t VALUES (:a, :b)", "commit ",
		"begin ", "rollback ", "query SELECT b FROM t WHERE a = ?", "prepare SELECT count(*) FROM t", "query SELECT count(*) FROM t",
		"exec INSERT INTO t VALUES (1, 'again')",
	}
	if !slices.Equal(names, want) {
		t.Errorf("%q, not %q", names, want)
	}
	if last := r.Spans[len(r.Spans)-1]; !strings.Contains(last.Props["error"], "UNIQUE") {
		t.Errorf("%+v", last)
	}
	if got := r.Values("sql_errors"); !slices.Equal(got, []float64{1}) {
		t.Error(got)
	}
}

func TestRawConnections(t *testing.T) {
	db := open(t, sqltrace.Options{})
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Raw(func(driverConn any) error {
		if _, ok := sqltrace.Unwrap(driverConn).(interface{ Serialize() ([]byte, error) }); !ok {
			t.Errorf("%T", sqltrace.Unwrap(driverConn))
		}
		return nil
	})
	if err != nil || sqltrace.Unwrap(5) != 5 {
		t.Error(err)
	}
}

func TestStatementsCanBeLeftOut(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	db := open(t, sqltrace.Options{MaxStatement: -1})
	if _, err := db.Exec("CREATE TABLE t (a)"); err != nil {
		t.Fatal(err)
	}
	if s := end().Span(t, "sql.exec"); s.Props["statement"] != "" {
		t.Errorf("%+v", s)
	}
}

// The drivers below have what their embedded parts have, and note how they are called.
type calls struct {
	mu     sync.Mutex
	log    []string
	closed bool
}

func (c *calls) note(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, s)
}

type bareConn struct{ c *calls }

func (b bareConn) Prepare(q string) (driver.Stmt, error) {
	b.c.note("prepare " + q)
	return bareStmt(b), nil
}
func (b bareConn) Close() error              { b.c.note("close"); return nil }
func (b bareConn) Begin() (driver.Tx, error) { b.c.note("begin"); return b, nil }
func (b bareConn) Commit() error             { b.c.note("commit"); return nil }
func (b bareConn) Rollback() error           { b.c.note("rollback"); return nil }

type bareStmt struct{ c *calls }

func (b bareStmt) Close() error  { return nil }
func (b bareStmt) NumInput() int { return -1 }
func (b bareStmt) Exec(args []driver.Value) (driver.Result, error) {
	b.c.note("exec")
	return driver.RowsAffected(len(args)), nil
}

func (b bareStmt) Query([]driver.Value) (driver.Rows, error) {
	b.c.note("query")
	return noRows{}, nil
}

type noRows struct{}

func (noRows) Columns() []string         { return nil }
func (noRows) Close() error              { return nil }
func (noRows) Next([]driver.Value) error { return io.EOF }

// skippingConn declines to execute, and has a check of values of its own.
type skippingConn struct{ bareConn }

func (s skippingConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return nil, driver.ErrSkip
}

func (s skippingConn) CheckNamedValue(v *driver.NamedValue) error {
	s.c.note("check")
	v.Value = "checked"
	return nil
}
func (s skippingConn) ResetSession(context.Context) error { s.c.note("reset"); return nil }
func (s skippingConn) IsValid() bool                      { s.c.note("valid"); return true }
func (s skippingConn) Ping(context.Context) error         { s.c.note("ping"); return driver.ErrBadConn }

// oldConn has the interfaces from before contexts.
type oldConn struct{ bareConn }

func (o oldConn) Exec(string, []driver.Value) (driver.Result, error) {
	o.c.note("old exec")
	return driver.RowsAffected(1), nil
}

func (o oldConn) Query(string, []driver.Value) (driver.Rows, error) {
	o.c.note("old query")
	return noRows{}, nil
}

type fake struct {
	c    *calls
	conn driver.Conn
}

func (f fake) Connect(context.Context) (driver.Conn, error) { return f.conn, nil }
func (f fake) Driver() driver.Driver                        { return nil }
func (f fake) Close() error                                 { f.c.closed = true; return nil }

// TestDriversBehaveAsWithoutTheWrapper runs the same calls with and without it, on drivers that can do more and less.
func TestDriversBehaveAsWithoutTheWrapper(t *testing.T) {
	sdktest.Begin(t, sdk.Config{})
	for name, conn := range map[string]func(*calls) driver.Conn{
		"bare":     func(c *calls) driver.Conn { return bareConn{c} },
		"skipping": func(c *calls) driver.Conn { return skippingConn{bareConn{c}} },
		"old":      func(c *calls) driver.Conn { return oldConn{bareConn{c}} },
	} {
		t.Run(name, func(t *testing.T) {
			bare, wrapped := &calls{}, &calls{}
			use(t, bare, fake{bare, conn(bare)})
			use(t, wrapped, sqltrace.Wrap(fake{wrapped, conn(wrapped)}, sqltrace.Options{}))
			if !slices.Equal(wrapped.log, bare.log) || !wrapped.closed {
				t.Errorf("with the wrapper:\n%q, without:\n%q", wrapped.log, bare.log)
			}
		})
	}
}

// use calls all there is, and notes the errors.
func use(t *testing.T, c *calls, connector driver.Connector) {
	t.Helper()
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	failed := func(what string, err error) {
		if err != nil {
			c.note(what + ": " + err.Error())
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := db.ExecContext(ctx, "e", 1, "two", struct{}{})
	failed("exec", err)
	_, err = db.ExecContext(ctx, "e", 1, "two")
	failed("exec", err)
	_, err = db.ExecContext(ctx, "e", sql.Named("a", 1))
	failed("exec named", err)
	rows, err := db.QueryContext(ctx, "q", 1)
	failed("query", err)
	if err == nil {
		failed("rows", rows.Err())
		rows.Close()
	}
	failed("ping", db.PingContext(ctx))
	_, err = db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	failed("begin", err)
	_, err = db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	failed("begin", err)
	tx, err := db.BeginTx(ctx, nil)
	failed("begin", err)
	if err == nil {
		failed("commit", tx.Commit())
	}
	_, err = db.BeginTx(ctx, nil)
	failed("begin", err)
	cancel()                  // whether the connection is kept depends on what it can do
	failed("ping", db.Ping()) // waits for the one connection
	db.Close()
}

func BenchmarkQuery(b *testing.B) {
	for _, wrapped := range []bool{false, true} {
		name := map[bool]string{false: "bare", true: "wrapped"}[wrapped]
		b.Run(name, func(b *testing.B) {
			c := &calls{}
			var connector driver.Connector = fake{c, oldConn{bareConn{c}}}
			if wrapped {
				sdktest.Begin(b, sdk.Config{Memory: 1 << 30})
				connector = sqltrace.Wrap(connector, sqltrace.Options{Name: "b"})
			}
			db := sql.OpenDB(connector)
			defer db.Close()
			b.ReportAllocs()
			for b.Loop() {
				rows, err := db.Query("SELECT b FROM t WHERE a = 1")
				if err != nil {
					b.Fatal(err)
				}
				if err := rows.Err(); err != nil {
					b.Fatal(err)
				}
				rows.Close()
				c.log = c.log[:0]
			}
		})
	}
}
