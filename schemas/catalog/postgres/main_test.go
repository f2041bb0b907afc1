package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

// server is the one PostgreSQL of this test binary; nil when none is installed.
var (
	server    *parts.Postgres
	errServer error
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "micromegas-catalog-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	flag.Parse()
	// Syncing is what benchmarks are about; the tests that kill a server have servers of their own.
	measured := flag.Lookup("test.bench").Value.String() != ""
	server, errServer = parts.StartPostgres(context.Background(), dir, parts.PostgresOptions{NoFsync: !measured})
	if errServer == nil {
		defer server.Stop()
	}
	return m.Run()
}

var databases atomic.Int64

// database returns the connection string of a new database.
func database(t testing.TB) string {
	t.Helper()
	if errors.Is(errServer, parts.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(errServer)
	}
	if errServer != nil {
		t.Fatal(errServer)
	}
	return server.URL(fmt.Sprint("test", databases.Add(1)))
}

func open(t testing.TB, url string) *DB {
	t.Helper()
	db, err := Open(t.Context(), url, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// raw connects beside the catalog.
func raw(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// untilWaiting returns when so many sessions of the database wait for a lock.
func untilWaiting(t testing.TB, conn *pgx.Conn, sessions int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var n int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		if n >= sessions {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions wait for a lock, want %d", n, sessions)
		}
	}
}
