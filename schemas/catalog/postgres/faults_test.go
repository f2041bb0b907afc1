package postgres

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// victim starts a server that the test may hurt.
func victim(t *testing.T) *parts.Postgres {
	t.Helper()
	database(t) // the rule about missing servers
	p, err := parts.StartPostgres(t.Context(), t.TempDir(), parts.PostgresOptions{})
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

// adminExec runs statements as the server's superuser.
func adminExec(t *testing.T, p *parts.Postgres, statements ...string) {
	t.Helper()
	conn := raw(t, p.AdminURL("postgres"))
	for _, s := range statements {
		exec(t, conn, s)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// owner commits to a shard for as long as it may, as the archive's owner does: when the outcome is unknown, it reads the checkpoint.
type owner struct {
	t       *testing.T
	db      *DB
	h       *house
	acked   map[telemetry.ID]bool // blocks of commits that stand
	commits atomic.Int64
	unknown int // outcomes
	stood   int // unknown outcomes that stood
	failed  int // commits known to have failed
}

func (o *owner) run(ctx context.Context) {
	for ctx.Err() == nil {
		c := o.h.commit(20)
		for !o.settled(c) {
		}
		for i := range c.Blocks {
			o.acked[c.Blocks[i].ID] = true
		}
		o.commits.Add(1)
	}
}

// settled tries the commit, and reports whether it stands.
func (o *owner) settled(c *catalog.ArchiveCommit) bool {
	ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
	defer cancel()
	err := o.db.CommitArchive(ctx, c)
	switch {
	case err == nil:
		return true
	case errors.Is(err, catalog.ErrOutcomeUnknown):
		o.unknown++
	case errors.Is(err, catalog.ErrConflict), errors.Is(err, catalog.ErrDuplicateBlocks), ctx.Err() != nil:
		o.t.Errorf("commit to %d: %v", c.To, err)
		return true
	default:
		o.failed++
		return false
	}
	for ctx.Err() == nil {
		cp, err := o.db.Checkpoint(ctx, catalog.ConsumerArchive, c.Shard)
		if err != nil {
			continue
		}
		if cp.Seq == c.To {
			o.stood++
		}
		return cp.Seq == c.To
	}
	o.t.Errorf("outcome of %d not found out", c.To)
	return true
}

// The server is killed while four shards are archived. No commit that was answered is lost, none happens twice, and who does not
// know reads it in the checkpoint.
func TestKilledServerLosesNothing(t *testing.T) {
	const shards, kills, between = 4, 3, 60
	p := victim(t)
	connString := p.URL("micromegas")
	owners := make([]*owner, shards)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for s := range owners {
		o := &owner{t: t, db: open(t, connString), h: newHouse(20, 5), acked: map[telemetry.ID]bool{}}
		o.h.shard.Shard = int32(s)
		owners[s] = o
		wg.Go(func() { o.run(ctx) })
	}
	done := func() (n int64) {
		for _, o := range owners {
			n += o.commits.Load()
		}
		return n
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for k := range kills {
		for done() < int64(k+1)*between {
			<-tick.C
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for done() < (kills+1)*between {
		<-tick.C
	}
	stop()
	wg.Wait()

	rows, positions, err := open(t, connString).BlocksSince(t.Context(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[telemetry.ID]int{}
	for i := range rows {
		stored[rows[i].ID]++
	}
	acked, unknown, stood, failed := 0, 0, 0, 0
	for _, o := range owners {
		acked += len(o.acked)
		unknown, stood, failed = unknown+o.unknown, stood+o.stood, failed+o.failed
		for id := range o.acked {
			if stored[id] != 1 {
				t.Errorf("block %s is stored %d times", id, stored[id])
			}
		}
		if got, want := positions[o.h.shard], uint64(o.commits.Load()); got != want {
			t.Errorf("shard %s is at %d after %d commits", o.h.shard, got, want)
		}
	}
	if len(rows) != acked {
		t.Errorf("%d blocks stored, %d acknowledged", len(rows), acked)
	}
	t.Logf("%d kills, %d blocks acknowledged, 0 lost, 0 doubled; %d outcomes unknown, of which %d stood; %d failed", kills, acked, unknown, stood, failed)
}

// A server that takes no writes says so; when it does again, nobody needs to start anew.
func TestReadOnlyServerRecovers(t *testing.T) {
	connString := database(t)
	db, h := open(t, connString), newHouse(5, 2)
	if err := db.CommitArchive(t.Context(), h.commit(5)); err != nil {
		t.Fatal(err)
	}
	cfg, err := pgx.ParseConfig(connString)
	if err != nil {
		t.Fatal(err)
	}
	others := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + cfg.Database + "'"
	adminExec(t, server, "ALTER DATABASE "+cfg.Database+" SET default_transaction_read_only = on", others)
	c := h.commit(5)
	err = db.CommitArchive(t.Context(), c)
	for errors.Is(err, catalog.ErrOutcomeUnknown) { // met a connection that was ended
		err = db.CommitArchive(t.Context(), c)
	}
	if !errors.Is(err, ErrReadOnly) || errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Fatalf("commit on a read-only server: %v", err)
	}
	if cp, err := db.Checkpoint(t.Context(), catalog.ConsumerArchive, h.shard); err != nil || cp.Seq != 1 {
		t.Errorf("read on a read-only server: %+v, %v", cp, err)
	}
	reader := open(t, connString) // the tables are there, so it can be opened
	if _, err := reader.AcquireLease(t.Context(), "x", "a", time.Minute); !errors.Is(err, ErrReadOnly) {
		t.Errorf("lease on a read-only server: %v", err)
	}
	adminExec(t, server, "ALTER DATABASE "+cfg.Database+" RESET default_transaction_read_only")
	if err := db.CommitArchive(t.Context(), c); err != nil { // its connections are read-only still
		t.Fatal(err)
	}
}

// Of several hosts the one that takes writes is used, and after a failover the other.
func TestFailoverIsFollowed(t *testing.T) {
	a, b := victim(t), victim(t)
	const password = "the same"
	var hosts []string
	for _, p := range []*parts.Postgres{a, b} {
		p.URL("micromegas")
		adminExec(t, p, "ALTER ROLE micromegas PASSWORD '"+password+"'")
		hosts = append(hosts, p.Addr())
	}
	connString := with(t, a.URL("micromegas"), func(u *url.URL) {
		u.Host, u.User = strings.Join(hosts, ","), url.UserPassword("micromegas", password)
	})
	for _, p := range []*parts.Postgres{a, b} { // both have the tables, as copies would
		if err := open(t, with(t, connString, func(u *url.URL) { u.Host = p.Addr() })).Close(); err != nil {
			t.Fatal(err)
		}
	}
	type session interface {
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	}
	// demote makes a server refuse writes, or take them again, and waits until a session knows.
	demote := func(p *parts.Postgres, change, want string, s session) {
		t.Helper()
		adminExec(t, p, "ALTER SYSTEM "+change, "SELECT pg_reload_conf()")
		for got := ""; got != want; {
			if err := s.QueryRow(t.Context(), "SELECT current_setting('default_transaction_read_only')").Scan(&got); err != nil {
				t.Fatal(err)
			}
		}
	}
	const on, off = "SET default_transaction_read_only = on", "RESET default_transaction_read_only"
	ofB := raw(t, b.AdminURL("postgres"))
	demote(b, on, "on", ofB)
	db := open(t, with(t, connString, param("pool_max_conns", "1"))) // the session that is asked is the one that writes
	put := func(key string) {
		t.Helper()
		if _, err := db.PutSettingIfAbsent(t.Context(), key, "v"); err != nil {
			t.Fatal(err)
		}
	}
	has := func(p *parts.Postgres, key string) bool {
		t.Helper()
		one := open(t, with(t, connString, func(u *url.URL) { u.Host = p.Addr() }))
		_, found, err := one.Setting(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	put("first")
	demote(b, off, "off", ofB)
	demote(a, on, "on", db.pool) // it goes on answering
	put("second")
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	put("third")
	if has(b, "first") || !has(b, "second") || !has(b, "third") {
		t.Error("the settings are not where they belong")
	}
}

// A call to a server that is silent ends when its context does, and everything works when the server is back.
func TestPausedServerBlocksNobodyForLonger(t *testing.T) {
	p := victim(t)
	db, h := open(t, p.URL("micromegas")), newHouse(5, 2)
	if err := db.CommitArchive(t.Context(), h.commit(5)); err != nil {
		t.Fatal(err)
	}
	l, err := db.AcquireLease(t.Context(), "x", "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	const limit = 300 * time.Millisecond
	c := h.commit(5)
	var wg sync.WaitGroup
	for name, call := range map[string]func(context.Context) error{
		"commit": func(ctx context.Context) error {
			err := db.CommitArchive(ctx, c)
			if err != nil && !errors.Is(err, catalog.ErrOutcomeUnknown) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("commit: %v", err)
			}
			return err
		},
		"renewal": func(ctx context.Context) error {
			_, _, err := db.KeepLeases(ctx, []catalog.Lease{l}, time.Minute)
			return err
		},
		"read":   func(ctx context.Context) error { _, err := db.Partitions(ctx, 0); return err },
		"blocks": func(ctx context.Context) error { _, _, err := db.BlocksSince(ctx, nil, 0); return err },
		"ping":   func(ctx context.Context) error { return db.Ping(ctx) },
		"open": func(ctx context.Context) error {
			_, err := Open(ctx, p.URL("micromegas"), slog.New(slog.DiscardHandler))
			return err
		},
	} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			begun := time.Now()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if d := time.Since(begun); d > limit+2*time.Second { // the machine may be busy
				t.Errorf("%s took %s", name, d)
			}
		})
	}
	wg.Wait()
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	cp, err := db.Checkpoint(t.Context(), catalog.ConsumerArchive, h.shard)
	if err != nil {
		t.Fatal(err)
	}
	if cp.Seq == 1 {
		if err := db.CommitArchive(t.Context(), c); err != nil && !errors.Is(err, catalog.ErrConflict) {
			t.Fatal(err)
		}
	}
	if s, err := db.Stats(t.Context()); err != nil || s.Blocks != 10 {
		t.Errorf("%+v, %v", s, err)
	}
}
