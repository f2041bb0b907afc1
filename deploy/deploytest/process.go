// Package deploytest runs the program for tests: it builds it, starts it as processes that can be killed, and makes the
// blocks that a client would send.
package deploytest

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

// How long a server may take: generous, for the machine may be busy with other packages' tests.
const (
	StartTimeout = 30 * time.Second
	StopTimeout  = 40 * time.Second
)

var (
	binaryOnce sync.Once
	binaryPath string
	errBinary  error
)

// RemoveBinary removes the program that Binary built: for TestMain, when the tests are over.
func RemoveBinary() {
	if binaryPath != "" {
		os.RemoveAll(filepath.Dir(binaryPath))
	}
}

// Binary builds the program once and returns its path: faults need a process that can be killed.
func Binary(t testing.TB) string {
	t.Helper()
	binaryOnce.Do(func() {
		dir, err := os.MkdirTemp("", "micromegas-test-")
		if err != nil {
			errBinary = err
			return
		}
		binaryPath = filepath.Join(dir, "micromegas")
		out, err := exec.Command("go", "build", "-o", binaryPath, "github.com/micromegas-go/micromegas").CombinedOutput()
		if err != nil {
			errBinary = fmt.Errorf("build the program: %w\n%s", err, out)
		}
	})
	if errBinary != nil {
		t.Fatal(errBinary)
	}
	return binaryPath
}

// Process is a running `micromegas serve`.
type Process struct {
	T      testing.TB // that started it
	Cmd    *exec.Cmd
	Dir    string
	HTTP   string // http://host:port
	Flight string // host:port
	Log    string // file with standard error
	Exited chan struct{}
	Err    error // of Wait, once exited is closed
}

// NewDataDir returns a folder that stays, with its path printed, when the test fails.
func NewDataDir(t testing.TB) string {
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

// StartServe starts a server on dir with free ports and waits until it is ready. It is stopped when the test ends.
func StartServe(t testing.TB, dir string, args ...string) *Process {
	t.Helper()
	return StartCommand(t, dir, exec.Command(Binary(t), ServeArgs(dir, args...)...))
}

// ServeArgs are the arguments of a server on dir with free ports.
func ServeArgs(dir string, args ...string) []string {
	return append([]string{"serve", "--data", dir, "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0"}, args...)
}

// StartCommand starts cmd, which must print what serve prints, and waits until it is ready. It is killed when the test ends.
func StartCommand(t testing.TB, dir string, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := TryCommand(t, dir, cmd)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.LogTail())
	}
	return p
}

// TryCommand is StartCommand for a server that may end before it is ready, which the error says.
func TryCommand(t testing.TB, dir string, cmd *exec.Cmd) (*Process, error) {
	t.Helper()
	p := &Process{T: t, Cmd: cmd, Dir: dir, Log: filepath.Join(t.TempDir(), "serve.log"), Exited: make(chan struct{})}
	logFile, err := os.Create(p.Log)
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
	t.Cleanup(func() { p.Kill() })
	select {
	case err := <-ready:
		return p, err
	case <-time.After(StartTimeout):
		return p, fmt.Errorf("serve is not ready after %v", StartTimeout)
	}
}

// readAddresses reads the lines that serve prints until "ready", then waits for the process.
func (p *Process) readAddresses(out io.Reader, ready chan<- error) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		value = strings.TrimSpace(value)
		switch name {
		case "ingestion":
			p.HTTP = value
		case "sql":
			p.Flight = strings.TrimPrefix(value, "grpc://")
		case "ready":
			ready <- nil
		}
	}
	p.Err = p.Cmd.Wait()
	close(p.Exited)
	select {
	case ready <- fmt.Errorf("serve ended before it was ready: %w", p.Err):
	default:
	}
}

// Kill ends the process at once, as kill -9 does, and waits for its end.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Signal(syscall.SIGKILL) // fails when it has ended already
	<-p.Exited
}

// Stop ends the process with SIGTERM and fails the test unless it drains and exits with status 0.
func (p *Process) Stop() {
	p.T.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.T.Fatalf("signal serve: %v\n%s", err, p.LogTail())
	}
	select {
	case <-p.Exited:
		if p.Err != nil {
			p.T.Fatalf("serve after SIGTERM: %v\n%s", p.Err, p.LogTail())
		}
	case <-time.After(StopTimeout):
		p.T.Fatalf("serve does not end %v after SIGTERM\n%s", StopTimeout, p.LogTail())
	}
}

// LogTail returns the end of what the process wrote to standard error.
func (p *Process) LogTail() string {
	const most = 8 << 10
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// Status reads /status into a tree.
func (p *Process) Status() map[string]any {
	p.T.Helper()
	resp, err := http.Get(p.HTTP + "/status")
	if err != nil {
		p.T.Fatalf("get status: %v\n%s", err, p.LogTail())
	}
	defer resp.Body.Close()
	var s map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		p.T.Fatalf("read status: %v", err)
	}
	return s
}

// Post sends body to a route of the ingestion service and returns the status code.
func (p *Process) Post(ctx context.Context, route string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.HTTP+"/ingestion/"+route, strings.NewReader(string(body)))
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// Eventually polls until cond is true, and fails with what after within.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
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
