package parts_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

func startPostgres(t *testing.T, options parts.PostgresOptions) *parts.Postgres {
	t.Helper()
	p, err := parts.StartPostgres(t.Context(), t.TempDir(), options)
	if errors.Is(err, parts.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func setting(t *testing.T, url, name string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var v string
	if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPostgresLives(t *testing.T) {
	p := startPostgres(t, parts.PostgresOptions{NoFsync: true, Settings: map[string]string{"work_mem": "3MB", "application_name": "it's"}})
	for name, want := range map[string]string{"fsync": "off", "work_mem": "3MB", "application_name": "it's", "is_superuser": "off"} {
		if got := setting(t, p.URL("a b"), name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	wrong, err := pgx.ParseConfig(p.URL("a b"))
	if err != nil {
		t.Fatal(err)
	}
	wrong.Password += "x"
	var refused *pgconn.PgError
	if _, err := pgx.ConnectConfig(t.Context(), wrong); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("wrong password: %v", err)
	}
	conn, err := pgx.Connect(t.Context(), p.URL("a b"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())

	pids := p.Pids()
	if len(pids) < 5 {
		t.Errorf("%d processes", len(pids))
	}
	cpu, err := p.CPU()
	if err != nil || cpu <= 0 {
		t.Errorf("%s, %v", cpu, err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(ctx, p.URL("a b")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused server: %v", err)
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept(v int)"); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), p.URL("a b")); err == nil || p.Pids() != nil {
		t.Error("a killed server answers")
	}
	for range 2 { // after a kill, and while it runs
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := setting(t, p.URL("a b"), "work_mem"); got != "3MB" {
			t.Errorf("work_mem is %s", got)
		}
	}
	later, err := p.CPU()
	if err != nil || later <= cpu {
		t.Errorf("%s after %s, %v", later, cpu, err)
	}
}

// What a killed server leaves is removed with it, also when it is paused.
func TestPostgresEndsInAnyState(t *testing.T) {
	for name, state := range map[string]func(*parts.Postgres) error{
		"killed": (*parts.Postgres).Kill,
		"paused": (*parts.Postgres).Pause,
		"both":   func(p *parts.Postgres) error { return errors.Join(p.Pause(), p.Kill()) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := state(startPostgres(t, parts.PostgresOptions{NoFsync: true})); err != nil {
				t.Fatal(err)
			}
		})
	}
}
