package pyclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

const (
	// Version is the release of the Python client that tests run.
	Version = "0.32.0"
	// PerfettoVersion is the release of the package with Perfetto's messages.
	PerfettoVersion = "0.59.1"
	// installTimeout is how long making an environment may take: the client's downloads pandas and pyarrow.
	installTimeout = 10 * time.Minute
	// runTimeout is how long one script may run.
	runTimeout = 2 * time.Minute
)

// environment is a virtual environment that the tests of a machine share.
type environment struct {
	what    string // it brings
	folder  string // in the cache, with the version
	pack    string // the package as pip takes it
	imports string // a module that is there when it is
	once    func() (string, error)
}

// client and perfetto are apart: they ask for versions of protobuf that exclude each other.
var (
	client = newEnvironment(environment{
		what: "the Python client micromegas " + Version, folder: "pyclient-" + Version,
		pack: "micromegas==" + Version, imports: "micromegas.flightsql.client",
	})
	perfetto = newEnvironment(environment{
		what: "the Python package perfetto " + PerfettoVersion, folder: "perfetto-" + PerfettoVersion,
		pack: "perfetto==" + PerfettoVersion, imports: "perfetto.protos.perfetto.trace.perfetto_trace_pb2",
	})
)

// newEnvironment returns an environment that is made once in this process.
func newEnvironment(e environment) *environment {
	e.once = sync.OnceValues(e.make)
	return &e
}

// Python returns the interpreter of an environment that has the client. The first call on a machine makes it; others,
// also of other test programs, wait for that. Where it cannot be made the test is skipped, or fails when CI=true.
func Python(t testing.TB) string {
	t.Helper()
	return client.python(t)
}

// Perfetto returns the interpreter of an environment that has Perfetto's messages, as Python does for the client.
func Perfetto(t testing.TB) string {
	t.Helper()
	return perfetto.python(t)
}

func (e *environment) python(t testing.TB) string {
	t.Helper()
	path, err := e.once()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not there: %v", e.what, err)
		}
		t.Skipf("needs %s: %v; install Python 3.10 or later with its venv module, and allow PyPI", e.what, err)
	}
	return path
}

// Run executes a script with the client and returns what it printed. A script that fails ends the test with its errors.
func Run(t testing.TB, script string, args ...string) []byte {
	t.Helper()
	python := Python(t)
	ctx, cancel := context.WithTimeout(t.Context(), runTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, append([]string{"-c", script}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("Python: %v\n%s%s", err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// make returns the interpreter of a complete environment. A file that is written last marks it as complete; one without
// it, from an interrupted run, is made anew.
func (e *environment) make() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	base := filepath.Join(cache, "micromegas-go")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(base, e.folder)
	python, done := interpreter(dir), filepath.Join(dir, "complete")
	if exists(done) {
		return python, nil
	}
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", fmt.Errorf("lock the environment: %w", err)
	}
	defer unlock()
	if exists(done) {
		return python, nil
	}
	return python, e.install(dir, python, done)
}

func (e *environment) install(dir, python, done string) error {
	system, err := exec.LookPath("python3")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove what an interrupted run left: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), installTimeout)
	defer cancel()
	for _, args := range [][]string{
		{system, "-m", "venv", dir},
		{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", e.pack},
		{python, "-c", "import " + e.imports},
	} {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%q: %w: %s", args, err, lastLines(out))
		}
	}
	return os.WriteFile(done, []byte(e.pack), 0o644)
}

// lastLines returns the end of a program's output, where the reason is.
func lastLines(out []byte) []byte {
	const most = 600
	out = bytes.TrimSpace(out)
	return out[max(0, len(out)-most):]
}

func interpreter(dir string) string {
	if runtime.GOOS == "windows" {
		return filepath.Join(dir, "Scripts", "python.exe")
	}
	return filepath.Join(dir, "bin", "python")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}
