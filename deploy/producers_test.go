package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

// producer is a command that sends to a server.
type producer struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  strings.Builder
	done chan error
}

func startProducer(t *testing.T, p *process, args ...string) *producer {
	t.Helper()
	c := &producer{t: t, cmd: exec.Command(deploytest.Binary(t), append(args, "--url", p.HTTP)...), done: make(chan error, 1)}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	c.cmd.Env = append(os.Environ(), "MICROMEGAS_TELEMETRY_URL=", "MICROMEGAS_INGESTION_API_KEY=", "MICROMEGAS_FLUSH_PERIOD=0.1")
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- c.cmd.Wait() }()
	t.Cleanup(func() { c.cmd.Process.Kill() })
	return c
}

// stop interrupts the command and returns what it printed.
func (c *producer) stop(signal os.Signal) string {
	c.t.Helper()
	if err := c.cmd.Process.Signal(signal); err != nil {
		c.t.Fatal(err)
	}
	select {
	case err := <-c.done:
		if err != nil {
			c.t.Errorf("%v\n%s", err, c.out.String())
		}
	case <-time.After(20 * time.Second):
		c.t.Fatal("the producer does not stop")
	}
	return c.out.String()
}

// TestHostmetricsArrive queries what the command hostmetrics measures.
func TestHostmetricsArrive(t *testing.T) {
	p := startServe(t, deploytest.NewDataDir(t))
	c := startProducer(t, p, "hostmetrics", "--period", "100ms")
	deploytest.Eventually(t, 30*time.Second, "measures of this machine", func() bool {
		return p.count("SELECT count(*) FROM measures WHERE name = 'process_heap'") > 2
	})
	out := c.stop(os.Interrupt)
	if !strings.Contains(out, "sending to "+p.HTTP) || !strings.Contains(out, "took ") || !strings.Contains(out, "dropped 0 events") {
		t.Error(out)
	}
	if _, err := os.Stat("/proc/stat"); err != nil {
		return
	}
	for _, name := range []string{"cpu_busy", "memory_used", "network_received"} {
		if n := p.count(fmt.Sprintf("SELECT count(*) FROM measures WHERE name = '%s'", name)); n == 0 {
			t.Errorf("no %s", name)
		}
	}
}

// TestLogfileArrives queries what the command logfile reads before and after a restart.
func TestLogfileArrives(t *testing.T) {
	p := startServe(t, deploytest.NewDataDir(t))
	dir := t.TempDir()
	file := filepath.Join(dir, "app.log")
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"logfile", "--path", filepath.Join(dir, "*.log"), "--positions", filepath.Join(dir, "positions"), "--poll", "20ms", "--target", "app"}
	write("WARN slow\n  indeed\n" + `{"ts":"2026-03-01T10:00:00Z","level":"error","msg":"broken","peer":"bob"}` + "\n")
	const all = "SELECT level, msg, property_get(properties, 'peer'), property_get(properties, 'time') FROM log_entries WHERE target = 'app' ORDER BY time"
	c := startProducer(t, p, args...)
	deploytest.Eventually(t, 30*time.Second, "two entries", func() bool { return len(p.mustQuery(all)) == 2 })
	out := c.stop(syscall.SIGTERM)
	if !strings.Contains(out, "read 3 lines") || !strings.Contains(out, "as 2 entries") {
		t.Error(out)
	}
	write("third\n")
	c = startProducer(t, p, args...)
	deploytest.Eventually(t, 30*time.Second, "three entries", func() bool { return len(p.mustQuery(all)) == 3 })
	c.stop(os.Interrupt)
	for i, row := range p.mustQuery(all) {
		for _, want := range [][]string{{"3", "WARN slow\n  indeed"}, {"2", "broken", "bob", "2026-03-01T10:00:00Z"}, {"4", "third"}}[i] {
			if !strings.Contains(row, want) {
				t.Errorf("row %d has no %q: %s", i, want, row)
			}
		}
	}
}
