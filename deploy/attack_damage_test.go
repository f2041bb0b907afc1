package deploy_test

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

// perBlock tells what each block's rows look like.
const perBlock = "SELECT block_id, count(*), min(level), max(level), count(DISTINCT msg), min(time), max(time) FROM log_entries GROUP BY 1"

// filled serves on dir with the blocks of a writer that are archived and in the views, then stops. It returns the rows of
// perBlock.
func filled(t *testing.T, dir string) map[string]bool {
	t.Helper()
	p := startServe(t, dir)
	w := newWriter(20)
	if err := w.register(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx, p, 4) }()
	deploytest.Eventually(t, 20*time.Second, "blocks", func() bool { return w.ackedCount() > 200 })
	cancel()
	<-done
	checkAcked(t, p, w)
	blocks := map[string]bool{}
	for _, r := range p.mustQuery(perBlock) {
		blocks[r] = true
	}
	p.Stop()
	return blocks
}

// files returns the files below dir whose names end so, largest first.
func files(t *testing.T, dir, suffix string) []string {
	t.Helper()
	var found []string
	var best int64
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, suffix) {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() > best {
			best, found = info.Size(), append([]string{name}, found...)
		} else {
			found = append(found, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// flip changes one bit of a file.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// allRows reads all rows of the writer.
const allRows = "SELECT block_id, time, level, target, msg FROM log_entries ORDER BY 2, 5"

// unreadable asks for rows of a file that is damaged. The error must name it, be no fault of the statement, and lead to the log.
func (p *process) unreadable(how any, name string) {
	p.T.Helper()
	_, _, err := p.query(p.T.Context(), allRows)
	if code := status.Code(err); code != codes.Internal {
		p.T.Errorf("damage %v: code %v, want Internal: %v", how, code, err)
		return
	}
	if !strings.Contains(err.Error(), "query_id=") || !strings.Contains(err.Error(), filepath.Base(name)) {
		p.T.Errorf("damage %v: the error %v has no id, or no file", how, err)
	}
}

// TestDamagedViewsAreNoticed flips bits in a Parquet file: a query gives a typed error that names the file, and others go on.
func TestDamagedViewsAreNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; run without -short")
	}
	dir := deploytest.NewDataDir(t)
	filled(t, dir)
	p := startServe(t, dir)
	want := strings.Join(p.mustQuery(allRows), "\n")
	name := files(t, filepath.Join(dir, "lake", "views", "log_entries"), ".parquet")[0]
	sound, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for range 60 {
		at := rng.Int64N(int64(len(sound)))
		flip(t, name, at)
		p.unreadable(at, name)
		if err := os.WriteFile(name, sound, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// A file that is gone, or cut.
	for what, change := range map[string]func() error{
		"cut":   func() error { return os.WriteFile(name, sound[:len(sound)/2], 0o644) },
		"empty": func() error { return os.WriteFile(name, nil, 0o644) },
		"gone":  func() error { return os.Remove(name) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		p.unreadable(what, name)
		if n := p.count("SELECT count(*) FROM processes"); n != 1 {
			t.Errorf("another query sees %d processes", n)
		}
		if err := os.WriteFile(name, sound, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(p.mustQuery(allRows), "\n"); got != want {
		t.Error("the rows are not back")
	}
	p.Stop()
}

// TestDamagedFoldersStartOrSayWhy flips bits in the files of a stopped server: it starts again and loses nothing without
// a word, or says what is wrong.
func TestDamagedFoldersStartOrSayWhy(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; run without -short")
	}
	source := deploytest.NewDataDir(t)
	blocks := filled(t, source)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	for what, suffix := range map[string]string{"catalog": "catalog.db", "bus": ".blk", "pack": ".pack", "index of the bus": "index.db", "settings of the bus": "meta.inf"} {
		for round := range 3 {
			t.Run(what+" "+strconv.Itoa(round), func(t *testing.T) {
				dir := deploytest.NewDataDir(t)
				if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
					t.Fatal(err)
				}
				found := files(t, dir, suffix)
				if len(found) == 0 {
					t.Skip("there is none")
				}
				info, err := os.Stat(found[0])
				if err != nil || info.Size() == 0 {
					t.Skip("it is empty")
				}
				at := rng.Int64N(info.Size())
				flip(t, found[0], at)
				checkDamaged(t, dir, blocks, what+", bit at "+strconv.FormatInt(at, 10)+" of "+filepath.Base(found[0]))
			})
		}
	}
}

// checkDamaged starts a server on a damaged folder and looks for rows that are wrong or missing without a word.
func checkDamaged(t *testing.T, dir string, blocks map[string]bool, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, deploytest.Binary(t), deploytest.ServeArgs(dir)...)
	started, err := deploytest.TryCommand(t, dir, cmd)
	p := &process{started}
	defer p.Kill()
	if err != nil {
		if text := p.LogTail(); !strings.Contains(text, "micromegas serve: start ") || strings.Contains(text, "panic") || strings.Contains(text, "goroutine ") {
			t.Errorf("%s: serve ends without a reason: %v\n%s", what, err, text)
		} else {
			t.Logf("%s: %s", what, text[strings.LastIndex(text, "micromegas serve:"):])
		}
		return
	}
	_, rows, err := p.query(ctx, perBlock)
	if err != nil {
		if code := status.Code(err); code == codes.Unknown || code == codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
		t.Logf("%s: queries fail: %v", what, err)
		return
	}
	seen := 0
	for _, r := range rows {
		if !blocks[r] {
			t.Errorf("%s: wrong row %s", what, r)
		}
		seen++
	}
	if seen < len(blocks) && !strings.Contains(p.LogTail(), "level=WARN") && !strings.Contains(p.LogTail(), "level=ERROR") {
		t.Errorf("%s: %d of %d blocks, and nothing is logged", what, seen, len(blocks))
	}
}

// refusesToStart runs serve and returns what it said, which must come within seconds.
func refusesToStart(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, deploytest.Binary(t), args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("serve %q: %v\n%s", args, err, out)
	}
	if strings.Contains(string(out), "goroutine ") {
		t.Errorf("serve %q panics:\n%s", args, out)
	}
	return string(out)
}

// TestServeSaysWhyItDoesNotStart tries folders and addresses that cannot be used.
func TestServeSaysWhyItDoesNotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	garbage := t.TempDir()
	if err := os.WriteFile(filepath.Join(garbage, "catalog.db"), []byte(strings.Repeat("no database ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	busFile := t.TempDir()
	if err := os.WriteFile(filepath.Join(busFile, "bus"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	lakeFile := t.TempDir()
	if err := os.WriteFile(filepath.Join(lakeFile, "lake"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"a port in use":               {[]string{"serve", "--data", t.TempDir(), "--http", taken.Addr().String(), "--flight", "127.0.0.1:0"}, []string{"HTTP", taken.Addr().String(), "in use"}},
		"a SQL port in use":           {[]string{"serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--flight", taken.Addr().String()}, []string{"FlightSQL", taken.Addr().String(), "in use"}},
		"a folder that is a file":     {deploytest.ServeArgs(file), []string{"data folder", file}},
		"a folder in a file":          {deploytest.ServeArgs(filepath.Join(file, "data")), []string{"data folder", file}},
		"a catalog that is none":      {deploytest.ServeArgs(garbage), []string{"catalog", "catalog.db"}},
		"a bus folder that is a file": {deploytest.ServeArgs(busFile), []string{"bus"}},
		"a lake that is a file":       {deploytest.ServeArgs(lakeFile), []string{"lake"}},
		"an empty name":               {deploytest.ServeArgs(""), []string{"--data"}},
		"a folder in /proc":           {deploytest.ServeArgs("/proc/micromegas"), []string{"data folder", "/proc/micromegas"}},
	} {
		out := refusesToStart(t, c.args...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: the message lacks %q: %s", name, want, out)
			}
		}
	}
}

// TestSignalsUnderLoad stops a server while blocks and queries are under way: it ends in time and with status 0, and what
// was acknowledged is there afterwards.
func TestSignalsUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; run without -short")
	}
	dir := deploytest.NewDataDir(t)
	w := newWriter(20)
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		p := startServe(t, dir, "--grace", "3s")
		if err := w.register(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx, p, 4) }()
		before := w.ackedCount()
		deploytest.Eventually(t, 20*time.Second, "blocks", func() bool { return w.ackedCount() > before+50 })
		long := make(chan error, 1)
		go func() {
			_, _, err := p.query(ctx, "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000) c")
			long <- err
		}()
		slow, err := net.Dial("tcp", strings.TrimPrefix(p.HTTP, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := slow.Write([]byte("POST /ingestion/insert_block HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfew")); err != nil {
			t.Fatal(err)
		}
		deploytest.Eventually(t, 10*time.Second, "the query runs", func() bool { return runningQueries(p) > 0 })
		began := time.Now()
		if err := p.Cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Exited:
		case <-time.After(20 * time.Second):
			t.Fatalf("%v: still there after 20 s with a grace of 3 s\n%s", signal, p.LogTail())
		}
		if p.Err != nil {
			t.Errorf("%v: %v\n%s", signal, p.Err, p.LogTail())
		}
		t.Logf("%v: ended after %v", signal, time.Since(began))
		if err := <-long; err == nil || status.Code(err) == codes.Unknown {
			t.Errorf("%v: the query ended with %v", signal, err)
		}
		slow.Close()
		cancel()
		<-done
	}
	p := startServe(t, dir)
	checkAcked(t, p, w)
	p.Stop()
}

// runningQueries asks /status.
func runningQueries(p *process) int {
	query, _ := p.Status()["query"].(map[string]any)
	n, _ := query["running"].(float64)
	return int(n)
}
