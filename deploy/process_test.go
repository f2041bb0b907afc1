package deploy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 30 * time.Second // generous: the machine may be busy with other packages' tests
	stopTimeout  = 40 * time.Second
)

var (
	binaryOnce sync.Once
	binaryPath string
	errBinary  error
)

// TestMain removes the binary that the tests built.
func TestMain(m *testing.M) {
	code := m.Run()
	if binaryPath != "" {
		os.RemoveAll(filepath.Dir(binaryPath))
	}
	os.Exit(code)
}

// binary builds the program once and returns its path: faults need a process that can be killed.
func binary(t testing.TB) string {
	t.Helper()
	binaryOnce.Do(func() {
		dir, err := os.MkdirTemp("", "micromegas-test-")
		if err != nil {
			errBinary = err
			return
		}
		binaryPath = filepath.Join(dir, "micromegas")
		out, err := exec.Command("go", "build", "-o", binaryPath, "..").CombinedOutput()
		if err != nil {
			errBinary = fmt.Errorf("build the program: %w\n%s", err, out)
		}
	})
	if errBinary != nil {
		t.Fatal(errBinary)
	}
	return binaryPath
}

// process is a running `micromegas serve`.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	dir    string
	http   string // http://host:port
	flight string // host:port
	log    string // file with standard error
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// newDataDir returns a folder that stays, with its path printed, when the test fails.
func newDataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "micromegas-data-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("data folder kept: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// startServe starts a server on dir with free ports and waits until it is ready. It is stopped when the test ends.
func startServe(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	return startCommand(t, dir, exec.Command(binary(t), serveArgs(dir, args...)...))
}

func serveArgs(dir string, args ...string) []string {
	return append([]string{"serve", "--data", dir, "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0"}, args...)
}

// startCommand starts cmd, which must print what serve prints.
func startCommand(t testing.TB, dir string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, dir: dir, log: filepath.Join(t.TempDir(), "serve.log"), exited: make(chan struct{})}
	logFile, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	cmd.Stderr = logFile
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan error, 1)
	go p.readAddresses(out, ready)
	t.Cleanup(func() { p.kill() })
	select {
	case err := <-ready:
		if err != nil {
			t.Fatalf("%v\n%s", err, p.logTail())
		}
	case <-time.After(startTimeout):
		t.Fatalf("serve is not ready after %v\n%s", startTimeout, p.logTail())
	}
	return p
}

// readAddresses reads the lines that serve prints until "ready", then waits for the process.
func (p *process) readAddresses(out io.Reader, ready chan<- error) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		value = strings.TrimSpace(value)
		switch name {
		case "ingestion":
			p.http = value
		case "sql":
			p.flight = strings.TrimPrefix(value, "grpc://")
		case "ready":
			ready <- nil
		}
	}
	p.err = p.cmd.Wait()
	close(p.exited)
	select {
	case ready <- fmt.Errorf("serve ended before it was ready: %w", p.err):
	default:
	}
}

// kill ends the process at once, as kill -9 does, and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Signal(syscall.SIGKILL) // fails when it has ended already
	<-p.exited
}

// stop ends the process with SIGTERM and fails the test unless it drains and exits with status 0.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("signal serve: %v\n%s", err, p.logTail())
	}
	select {
	case <-p.exited:
		if p.err != nil {
			p.t.Fatalf("serve after SIGTERM: %v\n%s", p.err, p.logTail())
		}
	case <-time.After(stopTimeout):
		p.t.Fatalf("serve does not end %v after SIGTERM\n%s", stopTimeout, p.logTail())
	}
}

// logTail returns the end of what the process wrote to standard error.
func (p *process) logTail() string {
	const most = 8 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// status reads /status into a tree.
func (p *process) status() map[string]any {
	p.t.Helper()
	resp, err := http.Get(p.http + "/status")
	if err != nil {
		p.t.Fatalf("get status: %v\n%s", err, p.logTail())
	}
	defer resp.Body.Close()
	var s map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		p.t.Fatalf("read status: %v", err)
	}
	return s
}

// post sends body to a route of the ingestion service and returns the status code.
func (p *process) post(ctx context.Context, route string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.http+"/ingestion/"+route, strings.NewReader(string(body)))
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

// eventually polls until cond is true, and fails with what after within.
func eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", within, what)
		case <-tick.C:
		}
	}
}
