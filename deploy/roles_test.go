package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/postgres"
)

// apart is a lake whose roles run in processes of their own, over one PostgreSQL, one NATS server and one folder.
type apart struct {
	t    *testing.T
	pg   *parts.Postgres
	args []string
	env  []string
	cat  catalog.Catalog
}

// needParts skips a test whose real servers are not installed; where tests must be complete that is a failure.
func needParts(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, parts.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newApart(t *testing.T) *apart {
	t.Helper()
	pg, err := parts.StartPostgres(t.Context(), t.TempDir(), parts.PostgresOptions{NoFsync: true})
	needParts(t, err)
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	nats, err := embedded.Start(embedded.Options{StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Shutdown)
	a := &apart{t: t, pg: pg}
	uri := pg.URL("lake")
	if a.cat, err = postgres.Open(t.Context(), uri, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.cat.Close() })
	a.args = []string{"--object-store", folderURI(t, filepath.Join(deploytest.NewDataDir(t), "lake"))}
	a.env = append(os.Environ(), "MICROMEGAS_SQL_CONNECTION_STRING="+uri, "MICROMEGAS_NATS_URL="+strings.Replace(nats.ClientURL(), "://", "://secret@", 1))
	return a
}

// start starts a process of some roles, with a data folder of its own.
func (a *apart) start(roles string, args ...string) *process {
	a.t.Helper()
	dir := deploytest.NewDataDir(a.t)
	cmd := exec.Command(deploytest.Binary(a.t), deploytest.ServeArgs(dir, append(append([]string{"--roles", roles, "--name", filepath.Base(dir)}, a.args...), args...)...)...)
	cmd.Env = a.env
	return startCommand(a.t, dir, cmd)
}

func (a *apart) name(p *process) string { return filepath.Base(p.Dir) }

// held returns how many leases of a kind each living process holds.
func (a *apart) held(kind string) map[string]int {
	a.t.Helper()
	all, now, err := a.cat.KeepLeases(a.t.Context(), nil, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	held := map[string]int{}
	for _, l := range all {
		if strings.HasPrefix(l.Name, kind+"/") && l.Name != "views/merge" && l.Owner != "" && l.Expires > now {
			held[l.Owner]++
		}
	}
	return held
}

// shared waits until the leases of a kind are spread over processes as counts say, in ascending order, and returns how
// long that took.
func (a *apart) shared(kind string, within time.Duration, counts ...int) time.Duration {
	a.t.Helper()
	begin := time.Now()
	deploytest.Eventually(a.t, within, fmt.Sprintf("leases of %s spread as %v", kind, counts), func() bool {
		return slices.Equal(slices.Sorted(maps.Values(a.held(kind))), counts)
	})
	return time.Since(begin)
}

// sees fails unless a query that starts now sees all that is acknowledged now, within the bound of a query's waiting.
func (p *process) sees(w *writer, when string) {
	p.T.Helper()
	acked := w.ackedCount()
	begin := time.Now()
	n := p.count("SELECT count(DISTINCT block_id) FROM log_entries")
	if took := time.Since(begin); n < acked || took > 5*time.Second {
		p.T.Errorf("%s a query sees %d of %d acknowledged blocks after %v", when, n, acked, took)
	} else {
		p.T.Logf("%s a query sees %d blocks after %v", when, n, took)
	}
}

// TestRolesApart runs each role in processes of its own: they answer together, share the shards when one comes or goes,
// and a death costs no acknowledged row and no query more than its bound.
func TestRolesApart(t *testing.T) {
	a := newApart(t)
	gateway, query := a.start("gateway"), a.start("query")
	archives := []*process{a.start("workers"), a.start("workers")}
	views := []*process{a.start("materializers"), a.start("materializers")}
	a.shared("archive", 10*time.Second, 4, 4)
	a.shared("views", 10*time.Second, 2, 2)

	w := newWriter(5)
	if err := w.register(t.Context(), gateway); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx, gateway, 2) }()
	defer func() { cancel(); <-done }()
	sees := func(when string) { t.Helper(); query.sees(w, when) }
	sees("at first")

	views = append(views, a.start("materializers"))
	t.Logf("a third member has its share %v after its start", a.shared("views", 10*time.Second, 1, 1, 2))
	sees("with three members")

	begin := time.Now()
	if err := views[0].Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a.shared("views", 10*time.Second, 2, 2)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("hand-over %v after SIGTERM, want a second", took)
	} else {
		t.Logf("hand-over %v after SIGTERM", took)
	}
	sees("after a hand-over")
	<-views[0].Exited

	for _, victim := range []*process{archives[0], views[1]} {
		kind, total := "archive", 8
		if victim == views[1] {
			kind, total = "views", 4
		}
		begin = time.Now()
		victim.Kill()
		sees("after the death of an owner of " + kind)
		deploytest.Eventually(t, leaseExpiry+2*time.Second, "shards of the dead owner taken", func() bool {
			held := a.held(kind)
			return held[a.name(victim)] == 0 && slices.Max(slices.Collect(maps.Values(held))) == total
		})
		t.Logf("hand-over %v after the death of an owner of %s", time.Since(begin), kind)
	}
	cancel()
	<-done
	checkAcked(t, query, w)
	if err := exec.CommandContext(t.Context(), deploytest.Binary(t), "serve", "--data", t.TempDir(), "--roles", "workers").Run(); err == nil {
		t.Error("split roles were served over SQLite")
	}
}

// TestZombiesLose stops an archiver and a materializer until others have their shards, and lets them go on, under load: what
// they still believe in is refused, and they take their share again.
func TestZombiesLose(t *testing.T) {
	a := newApart(t)
	gateway, query := a.start("gateway"), a.start("query")
	zombies := []*process{a.start("workers"), a.start("materializers")}
	a.start("workers")
	a.start("materializers")
	a.shared("archive", 10*time.Second, 4, 4)
	a.shared("views", 10*time.Second, 2, 2)
	var writers []*writer
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for range 4 { // over several shards
		w := newWriter(5)
		if err := w.register(t.Context(), gateway); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, w)
		wg.Go(func() { w.run(ctx, gateway, 1) })
	}
	deploytest.Eventually(t, 30*time.Second, "blocks of all", func() bool {
		return !slices.ContainsFunc(writers, func(w *writer) bool { return w.ackedCount() < 10 })
	})
	signal := func(sig syscall.Signal) {
		t.Helper()
		for _, z := range zombies {
			if err := z.Cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	a.shared("archive", leaseExpiry+5*time.Second, 8)
	a.shared("views", leaseExpiry+5*time.Second, 4)
	query.sees(writers[0], "while owners sleep")
	signal(syscall.SIGCONT)
	a.shared("archive", 10*time.Second, 4, 4)
	a.shared("views", 10*time.Second, 2, 2)
	query.sees(writers[1], "when they are awake")
	cancel()
	wg.Wait()
	for _, w := range writers {
		checkAcked(t, query, w)
	}
	for _, z := range zombies {
		if log := z.LogTail(); !strings.Contains(log, "lease lost") {
			t.Errorf("a process that slept for longer than its leases lived did not notice:\n%s", log)
		}
	}
}

// TestCatalogAway kills PostgreSQL for longer than leases live: the gateway goes on to acknowledge, as fast as before, no
// process ends, and afterwards all is there.
func TestCatalogAway(t *testing.T) {
	a := newApart(t)
	gateway, query := a.start("gateway"), a.start("query")
	owners := []*process{a.start("workers"), a.start("workers,materializers"), a.start("materializers")}
	a.shared("archive", 10*time.Second, 4, 4)
	a.shared("views", 10*time.Second, 2, 2)
	known, unknown := newWriter(5), newWriter(5) // the latter's stream is registered nowhere when its first blocks come
	if err := known.register(t.Context(), gateway); err != nil {
		t.Fatal(err)
	}
	post := func(w *writer) {
		t.Helper()
		id, body := w.block()
		begin := time.Now()
		if code, err := gateway.Post(t.Context(), "insert_block", body); err != nil || code != 200 || time.Since(begin) > time.Second {
			t.Errorf("post: status %d, %v after %v", code, err, time.Since(begin))
		}
		w.acked = append(w.acked, id)
	}
	post(known)
	if err := a.pg.Kill(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 2*leaseExpiry; {
		post(known)
		post(unknown)
		<-time.After(20 * time.Millisecond) // a rate, not a wait for something
	}
	if err := a.pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("leases are spread %v after the catalog is back", a.shared("archive", 10*time.Second, 4, 4)+a.shared("views", 10*time.Second, 2, 2))
	query.sees(known, "after an outage of the catalog")
	if err := unknown.register(t.Context(), gateway); err != nil {
		t.Fatal(err)
	}
	deploytest.Eventually(t, 30*time.Second, "rows of blocks whose stream came late", func() bool {
		return query.count("SELECT count(DISTINCT block_id) FROM log_entries WHERE process_id = '"+unknown.process.ID.String()+"'") == len(unknown.acked)
	})
	checkAcked(t, query, known)
	checkAcked(t, query, unknown)
	for _, p := range append(owners, gateway, query) {
		p.Stop()
	}
}
