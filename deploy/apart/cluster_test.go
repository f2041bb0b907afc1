package apart_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/postgres"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// cluster is a deployment over many processes: real servers for the catalog, the bucket and the bus, and any number of
// processes of the program, each with roles of its own.
type cluster struct {
	t        testing.TB
	dir      string
	postgres *parts.Postgres
	s3       *parts.S3
	nats     *parts.NATS
	env      map[string]string // of every process

	mu      sync.Mutex
	members []*member
}

// member is one place for a process: its name, data folder and addresses stay when the process is killed and started
// again.
type member struct {
	cluster *cluster
	name    string
	roles   string
	args    []string
	program string            // "" = the program as it is
	env     map[string]string // beside the cluster's
	http    string            // host:port; set by the first start
	flight  string

	mu     sync.Mutex
	now    *deploytest.Process
	starts int
	client *client.Client
}

const partsTimeout = 60 * time.Second // for the start of one server

// clusterOptions are the parts of a cluster that differ from test to test.
type clusterOptions struct {
	natsServers int               // 0 = 3
	nats        parts.NATSOptions // who is let in, and how
	env         map[string]string // added to, or in place of, what points to the real servers
}

// newCluster starts the servers. Everything stops when the test ends.
func newCluster(t testing.TB, o clusterOptions) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers and processes; run without -short")
	}
	c := &cluster{t: t, dir: deploytest.NewDataDir(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 5*partsTimeout) // the servers are built when that was never done
	defer cancel()
	servers := cmp.Or(o.natsServers, 3)
	var wg sync.WaitGroup
	var errs [3]error
	wg.Go(func() {
		c.postgres, errs[0] = parts.StartPostgres(ctx, filepath.Join(c.dir, "postgres"), parts.PostgresOptions{})
	})
	wg.Go(func() { c.s3, errs[1] = parts.StartS3(ctx, filepath.Join(c.dir, "s3")) })
	wg.Go(func() { c.nats, errs[2] = parts.StartNATS(ctx, filepath.Join(c.dir, "nats"), servers, o.nats) })
	wg.Wait()
	t.Cleanup(c.stopServers)
	if err := errors.Join(errs[:]...); err != nil {
		if errors.Is(err, parts.ErrNotInstalled) && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	c.env = map[string]string{
		"MICROMEGAS_SQL_CONNECTION_STRING": c.postgres.URL("micromegas"),
		"MICROMEGAS_OBJECT_STORE_URI":      c.s3.URI("lake"),
		"MICROMEGAS_NATS_URL":              c.nats.URLs(),
	}
	for _, e := range c.s3.Env() {
		name, value, _ := strings.Cut(e, "=")
		c.env[name] = value
		t.(interface{ Setenv(string, string) }).Setenv(name, value) // for the test's own look into the bucket
	}
	maps.Copy(c.env, o.env)
	return c
}

func (c *cluster) stopServers() {
	if c.nats != nil {
		c.nats.Stop()
	}
	if c.s3 != nil {
		c.s3.Stop()
	}
	if c.postgres != nil {
		c.postgres.Stop()
	}
}

// start starts a process in a new place and waits until it is ready.
func (c *cluster) start(name, roles string, args ...string) *member {
	c.t.Helper()
	m := &member{cluster: c, name: name, roles: roles, args: args, http: "127.0.0.1:0", flight: "127.0.0.1:0"}
	m.start()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, m)
	return m
}

// startAll starts several members side by side: the machine is busier, the test is shorter.
func (c *cluster) startAll(counts map[string]int) map[string][]*member {
	c.t.Helper()
	all := map[string][]*member{}
	for _, role := range slices.Sorted(maps.Keys(counts)) {
		for i := range counts[role] {
			all[role] = append(all[role], c.start(fmt.Sprintf("%s-%d", role, i), role))
		}
	}
	return all
}

// command is how the member's process is started.
func (m *member) command() *exec.Cmd {
	args := append([]string{
		"serve", "--data", filepath.Join(m.cluster.dir, m.name), "--roles", m.roles, "--http", m.http, "--flight", m.flight,
	}, m.args...)
	program := m.program
	if program == "" {
		program = deploytest.Binary(m.cluster.t)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = os.Environ()
	for _, env := range []map[string]string{m.cluster.env, m.env} {
		for name, value := range env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// start starts the process, which must not run, and waits until it is ready. Only the test's own goroutine may call it.
func (m *member) start() {
	m.cluster.t.Helper()
	p := deploytest.StartCommand(m.cluster.t, filepath.Join(m.cluster.dir, m.name), m.command())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = p
	m.starts++
	m.http = strings.TrimPrefix(p.HTTP, "http://")
	if p.Flight != "" {
		m.flight = p.Flight
	}
}

// process is the one that runs now, or ran last.
func (m *member) process() *deploytest.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// url is where the member takes requests.
func (m *member) url() string { return "http://" + m.http }

// sql returns a connection to the member's FlightSQL address, which comes back by itself after a restart.
func (m *member) sql() *client.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		var err error
		if m.client, err = client.Dial(m.flight, client.Options{}); err != nil {
			panic(err) // the address was printed by the process itself
		}
		m.cluster.t.Cleanup(func() { m.client.Close() })
	}
	return m.client
}

// answer is what a statement returned.
type answer struct {
	rows     []string // cells joined by '|'
	warnings []string
}

// ask runs a statement over [begin, end].
func (m *member) ask(ctx context.Context, sql string, begin, end time.Time) (answer, error) {
	rows, err := m.sql().Query(ctx, sql, client.QueryOptions{Begin: begin, End: end})
	if err != nil {
		return answer{}, err
	}
	defer rows.Close()
	var a answer
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			a.warnings = rows.Warnings()
			return a, nil
		}
		if err != nil {
			return answer{}, err
		}
		a.rows = deploytest.AppendRows(a.rows, batch)
		batch.Release()
	}
}

// openCatalog opens the cluster's catalog from the test.
func (c *cluster) openCatalog() catalog.Catalog {
	c.t.Helper()
	db, err := postgres.Open(c.t.Context(), c.postgres.URL("micromegas"), slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { db.Close() })
	return db
}

// openLake opens the cluster's bucket from the test.
func (c *cluster) openLake() *lake.Lake {
	c.t.Helper()
	l, err := lake.Open(c.t.Context(), c.s3.URI("lake"), lake.Options{CacheDir: c.t.(*testing.T).TempDir()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Close() })
	return l
}

// logTails is the end of every member's log, for a failure's report.
func (c *cluster) logTails() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, m := range c.members {
		fmt.Fprintf(&b, "--- %s (%s)\n%s\n", m.name, m.roles, m.process().LogTail())
	}
	return b.String()
}
