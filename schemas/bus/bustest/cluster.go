package bustest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

const (
	// clusterStart bounds the start of a cluster: its servers elect a leader.
	clusterStart = time.Minute
	// accounts is how many Envs a cluster has room for.
	accounts = 40
	// logTail is how many lines of each server's output a failed test shows.
	logTail = 30
)

// Cluster is real servers, as processes, with an account for each Env: they share the servers and nothing else.
type Cluster struct {
	*parts.NATS
	used atomic.Int64
}

// StartCluster starts n servers, which end with the test.
func StartCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	var b strings.Builder
	b.WriteString("accounts {\n  SYS: {}\n")
	for i := range accounts {
		fmt.Fprintf(&b, "  A%d: { jetstream: enabled, users: [{user: u%d, password: p}] }\n", i, i)
	}
	b.WriteString("}\nsystem_account: SYS\n")
	ctx, cancel := context.WithTimeout(t.Context(), clusterStart)
	defer cancel()
	c, err := parts.StartNATS(ctx, t.TempDir(), n, parts.NATSOptions{Extra: b.String()})
	if err != nil {
		t.Fatalf("start cluster: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range n {
				t.Logf("%s:\n%s", c.Log(i), tail(c.Log(i)))
			}
		}
		if err := c.Stop(); err != nil {
			t.Errorf("stop cluster: %v", err)
		}
	})
	return &Cluster{NATS: c}
}

// tail returns the end of a server's log, without the coming and going of connections.
func tail(path string) string {
	text, _ := os.ReadFile(path) // a file that is missing says nothing
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, " - rid:") && !strings.Contains(line, " - cid:") && !strings.Contains(line, "Healthcheck failed") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-logTail):], "")
}

// NewEnv returns an Env of an account of its own.
func (c *Cluster) NewEnv(t testing.TB) *Env {
	t.Helper()
	n := c.used.Add(1) - 1
	if n >= accounts {
		t.Fatalf("a cluster has room for %d Envs", accounts)
	}
	e := newEnv()
	e.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	e.URLs = c.at(int(n), c.URLs())
	return e
}

// URLOf is where e's account is on server i alone.
func (c *Cluster) URLOf(e *Env, i int) string {
	user, _, _ := strings.Cut(strings.TrimPrefix(e.URLs, "nats://"), "@")
	return "nats://" + user + "@" + c.Addr(i)
}

func (c *Cluster) at(account int, urls string) string {
	return strings.ReplaceAll(urls, "nats://", fmt.Sprintf("nats://u%d:p@", account))
}
