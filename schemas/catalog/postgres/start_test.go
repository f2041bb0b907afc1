package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// with changes a connection string.
func with(t testing.TB, s string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func param(k, v string) func(*url.URL) {
	return func(u *url.URL) {
		q := u.Query()
		q.Set(k, v)
		u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // a plus is a plus to PostgreSQL
	}
}

// Eight processes start at once on an empty database.
func TestMigratesOnceForAll(t *testing.T) {
	url := database(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			db, err := Open(t.Context(), url, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if stands, err := db.PutSettingIfAbsent(t.Context(), fmt.Sprint("k", i), "v"); err != nil || stands != "v" {
				t.Errorf("%q, %v", stands, err)
			}
		})
	}
	wg.Wait()
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	conn := raw(t, url)
	if have, err := version(t.Context(), conn); err != nil || have != len(files) {
		t.Errorf("version %d of %d, %v", have, len(files), err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	url := database(t)
	if err := open(t, url).Close(); err != nil {
		t.Fatal(err)
	}
	exec(t, raw(t, url), "UPDATE catalog_version SET version = 1000")
	_, err := Open(t.Context(), url, slog.New(slog.DiscardHandler))
	var newer *NewerSchemaError
	if !errors.As(err, &newer) || newer.Have != 1000 || !strings.Contains(err.Error(), "start the newer program") {
		t.Fatalf("got %v", err)
	}
}

// A migration that fails leaves nothing, and the next start begins where it stood.
func TestBrokenMigrationLeavesNothing(t *testing.T) {
	url := database(t)
	conn := raw(t, url)
	exec(t, conn, "CREATE TABLE partitions(foreign_to_us int)") // one of the last tables
	if _, err := Open(t.Context(), url, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "0001_catalog.sql") {
		t.Fatalf("got %v", err)
	}
	var tables int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables); err != nil || tables != 1 {
		t.Fatalf("%d tables, %v", tables, err)
	}
	exec(t, conn, "DROP TABLE partitions")
	if err := open(t, url).Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Each mistake has its sentence, and none shows the password.
func TestWrongStartsSayWhatIsWrong(t *testing.T) {
	right := database(t)
	admin, err := pgx.Connect(t.Context(), server.AdminURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	exec(t, admin, "DROP ROLE IF EXISTS reader") // of a run before
	exec(t, admin, "CREATE ROLE reader LOGIN PASSWORD 'hunter2/x'")
	cfg, err := pgx.ParseConfig(right)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, raw(t, server.AdminURL(cfg.Database)), "REVOKE CREATE ON SCHEMA public FROM PUBLIC") // as it is since version 15
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed := silent.Addr().String()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed = nobody.Addr().String()
	nobody.Close()
	secret := "hunter2/x"
	as := func(user string) func(*url.URL) {
		return func(u *url.URL) { u.User = url.UserPassword(user, secret) }
	}
	for name, c := range map[string]struct {
		url  string
		want error
	}{
		"password":           {with(t, right, as("micromegas")), ErrPasswordRefused},
		"user":               {with(t, right, as("stranger")), ErrPasswordRefused},
		"database":           {with(t, with(t, right, as("reader")), func(u *url.URL) { u.Path = "/nothing" }), ErrDatabaseMissing},
		"rights":             {with(t, right, as("reader")), ErrForbidden},
		"no server":          {with(t, with(t, right, as("micromegas")), func(u *url.URL) { u.Host = closed }), ErrUnreachable},
		"silent server":      {with(t, with(t, with(t, right, as("micromegas")), func(u *url.URL) { u.Host = silent.Addr().String() }), param("connect_timeout", "1")), ErrUnreachable},
		"TLS":                {with(t, with(t, right, as("micromegas")), param("sslmode", "require")), ErrUnreachable},
		"unencoded password": {"postgres://micromegas:" + secret + "@127.0.0.1/db", ErrConnString},
		"no URL":             {"user=micromegas password=" + secret + " port=x", ErrConnString},
		"bad parameter":      {with(t, with(t, right, as("micromegas")), param("pool_max_conns", "many")), ErrConnString},
	} {
		db, err := Open(t.Context(), c.url, slog.New(slog.DiscardHandler))
		if db != nil {
			t.Errorf("%s: opened", name)
		}
		if !errors.Is(err, c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPoolIsSmall(t *testing.T) {
	url := database(t)
	for conns, s := range map[int32]string{8: url, 3: with(t, url, param("pool_max_conns", "3"))} {
		cfg, err := configure(s)
		if err != nil || cfg.MaxConns != conns {
			t.Errorf("%d connections instead of %d, %v", cfg.MaxConns, conns, err)
		}
	}
	// All connections but one are enough for the reads of many rows: a renewal comes through.
	db := open(t, with(t, url, param("pool_max_conns", "2")))
	leave, err := db.many(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	select {
	case db.bulk <- struct{}{}:
		t.Error("two reads of many rows with two connections")
	default:
	}
}

// Some poolers cannot do prepared statements.
func TestModesForPoolers(t *testing.T) {
	for _, mode := range []string{"cache_describe", "describe_exec"} {
		t.Run(mode, func(t *testing.T) {
			db := open(t, with(t, database(t), param("default_query_exec_mode", mode)))
			h := newHouse(4, 2)
			c := h.commit(10)
			c.Processes = []catalog.ProcessReg{registration(h.processes[0])}
			c.Streams = []catalog.StreamReg{streamRegistration(h.streams[0], h.processes[0])}
			c.Skips = []catalog.Skip{{Seq: 1, Rec: 1, Reason: catalog.SkipDuplicate}}
			if err := db.CommitArchive(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			v := viewCommit(0, 3)
			v.Moves = []catalog.Move{{Shard: h.shard, To: 1, Epoch: 1}}
			v.ParkedAdded = []catalog.Parked{{Shard: h.shard, Seq: 1}}
			if _, err := db.CommitView(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			rows, _, err := db.BlocksSince(t.Context(), nil, 0)
			if err != nil || len(rows) != 10 {
				t.Errorf("%d blocks, %v", len(rows), err)
			}
			if d, err := db.Partitions(t.Context(), 0); err != nil || len(d.Added) != 3 {
				t.Errorf("%d partitions, %v", len(d.Added), err)
			}
			if s, err := db.Streams(t.Context(), nil); err != nil || len(s) != 4 {
				t.Errorf("%d streams, %v", len(s), err)
			}
		})
	}
}
