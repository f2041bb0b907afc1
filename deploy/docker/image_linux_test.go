package docker_test

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 60 * time.Second // the machine may be busy with other packages' tests
	stopTimeout  = 40 * time.Second
)

var (
	outOnce sync.Once
	outDir  string // what stands for /out of the build stage
	errOut  error
)

// TestMain removes what the tests built.
func TestMain(m *testing.M) {
	code := m.Run()
	if outDir != "" {
		os.RemoveAll(outDir)
	}
	os.Exit(code)
}

// built runs the commands of the Dockerfile's build stage once, on the files that .dockerignore lets through, and returns the
// folder that stands for /out.
func built(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the image's program, which takes minutes at the first time: run without -short")
	}
	im := dockerfile(t)
	outOnce.Do(func() { outDir, errOut = build(im.runs) })
	if errOut != nil {
		t.Fatal(errOut)
	}
	return outDir
}

func build(runs []string) (string, error) {
	out, err := os.MkdirTemp("", "micromegas-image-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(out, 0o755); err != nil { // the image's user reads it
		return out, err
	}
	source, err := os.MkdirTemp("", "micromegas-source-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(source)
	if err := copyContext(source, "../.."); err != nil {
		return out, fmt.Errorf("copy the build's context: %w", err)
	}
	for _, run := range runs {
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(run, "/out", out))
		cmd.Dir = source
		if said, err := cmd.CombinedOutput(); err != nil {
			return out, fmt.Errorf("RUN %s: %w\n%s", run, err, said)
		}
	}
	return out, nil
}

// copyContext copies the files of root that .dockerignore lets into a build: "*" first, then what !NAME takes back at the top,
// less what **/PATTERN names anywhere.
func copyContext(target, root string) error {
	text, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		return err
	}
	var allowed, refused []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, takesBack := strings.CutPrefix(line, "!")
		pattern, anywhere := strings.CutPrefix(line, "**/")
		switch {
		case line == "" || line == "*" || strings.HasPrefix(line, "#"):
		case takesBack:
			allowed = append(allowed, name)
		case anywhere:
			refused = append(refused, pattern)
		default:
			return fmt.Errorf(".dockerignore: %q is not understood by its test", line)
		}
	}
	for _, name := range allowed {
		err := filepath.WalkDir(filepath.Join(root, name), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			for _, pattern := range refused {
				if skip, err := path.Match(pattern, d.Name()); err != nil || skip {
					return err
				}
			}
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			return copyFile(filepath.Join(target, rel), p, 0o644)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(target, source string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// TestImageRunsAlone starts the image's program as the image's user in a root folder that holds the image's files and
// nothing else, not even what an engine adds; posts, asks, probes and stops it.
func TestImageRunsAlone(t *testing.T) {
	out, im := built(t), dockerfile(t)
	root := t.TempDir()
	uid, gid := ids(t, im.user)
	for _, c := range im.copies {
		layDown(t, root, out, c)
	}
	program := filepath.Join(root, im.entrypoint[0])
	if loader := interpreter(t, program); loader != "" {
		t.Errorf("the program is not static: it asks for %s", loader)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the image's program has %.1f MB", float64(info.Size())/1e6)

	inside := func(command ...string) *exec.Cmd {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", im.env, jail(root, uid, gid)
		return cmd
	}
	run := func(command ...string) string {
		said, err := inside(command...).CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", command, err, said)
		}
		return string(said)
	}
	s := startServer(t, "image", inside(append(append(im.entrypoint, im.cmd...), "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0")...))
	run(append(im.health, "--url", s.http)...)
	run("/micromegas", "loadgen", "--url", s.http, "--mix", "log", "--blocks", "4")
	rows := run("/micromegas", "query", "--url", s.flight, "--format", "csv", "SELECT count(*) > 1000 FROM log_entries")
	if !strings.Contains(rows, "true") {
		t.Errorf("rows that the image does not return: %s", rows)
	}
	s.stop(t)
	if said, err := inside(append(im.health, "--url", s.http)...).CombinedOutput(); err == nil {
		t.Errorf("a server that has stopped is healthy: %s", said)
	}
}

// layDown does what a COPY instruction says.
func layDown(t *testing.T, root, out string, c copied) {
	t.Helper()
	source, target := c.source, filepath.Join(root, c.target)
	if below, ok := strings.CutPrefix(source, "/out/"); ok {
		source = filepath.Join(out, below)
	}
	info, err := os.Stat(source)
	switch {
	case err != nil:
		t.Errorf("COPY %s: %v", c.source, err)
	case info.IsDir():
		err = os.MkdirAll(target, 0o755)
	default:
		err = copyFile(target, source, info.Mode())
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.owner == "" || os.Geteuid() != 0 {
		return
	}
	uid, gid := ids(t, c.owner)
	if err := os.Chown(target, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// interpreter returns the loader that a program asks for; "" for a static one.
func interpreter(t *testing.T, program string) string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		text, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(string(text), "\x00")
	}
	return ""
}

// ids reads "uid:gid".
func ids(t *testing.T, user string) (uid, gid int) {
	t.Helper()
	u, g, _ := strings.Cut(user, ":")
	uid, err := strconv.Atoi(u)
	if err != nil {
		t.Fatalf("user %q: %v", user, err)
	}
	if gid, err = strconv.Atoi(g); err != nil {
		t.Fatalf("user %q: %v", user, err)
	}
	return uid, gid
}

// jail makes a process see root alone and be that user: by right when the tests run as root, in a user namespace otherwise.
func jail(root string, uid, gid int) *syscall.SysProcAttr {
	attr := account(uid, gid)
	attr.Chroot = root
	if os.Geteuid() == 0 {
		return attr
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}
	attr.Cloneflags = syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: os.Getegid(), Size: 1}}
	return attr
}

// account makes a process that user's where the tests may, and has it die with them.
func account(uid, gid int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

// server is a running `micromegas serve`.
type server struct {
	name         string
	cmd          *exec.Cmd
	http, flight string // URLs
	log          string
	exited       chan struct{}
	err          error // of Wait, once exited is closed
}

// startServer starts cmd and waits until it says that it is ready. It is killed when the test ends, unless it was stopped.
func startServer(t *testing.T, name string, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{name: name, cmd: cmd, log: filepath.Join(t.TempDir(), "serve.log"), exited: make(chan struct{})}
	file, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // the child has its own
	cmd.Stderr = file
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-s.exited
		if t.Failed() {
			t.Logf("%s said:\n%s", name, s.said())
		}
	})
	ready := make(chan struct{})
	go s.read(out, ready)
	select {
	case <-ready:
	case <-s.exited:
		t.Fatalf("%s ended: %v", name, s.err)
	case <-time.After(startTimeout):
		t.Fatalf("%s is not ready after %v", name, startTimeout)
	}
	return s
}

// read takes the addresses that serve prints, until it ends.
func (s *server) read(out io.Reader, ready chan<- struct{}) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch value = strings.TrimSpace(value); name {
		case "ingestion", "status":
			s.http = strings.TrimSuffix(value, "/status")
		case "sql":
			s.flight = value
		case "ready":
			close(ready)
		}
	}
	s.err = s.cmd.Wait()
	close(s.exited)
}

func (s *server) said() string {
	text, _ := os.ReadFile(s.log)
	return string(text[max(0, len(text)-8<<10):])
}

// stop sends SIGTERM, as an engine does, and wants a clean end.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("%s: %v", s.name, err)
		return
	}
	select {
	case <-s.exited:
		if s.err != nil {
			t.Errorf("%s stopped with %v", s.name, s.err)
		}
	case <-time.After(stopTimeout):
		t.Errorf("%s has not stopped after %v", s.name, stopTimeout)
	}
}
