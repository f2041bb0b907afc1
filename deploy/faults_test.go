package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// writer is a client that posts small log blocks of one process and remembers which were acknowledged.
type writer struct {
	process telemetry.Process
	stream  telemetry.Stream
	rows    int // log entries of a block

	mu    sync.Mutex
	acked []telemetry.ID
	next  int64
}

func newWriter(rows int) *writer {
	w := &writer{rows: rows}
	w.process = telemetry.Process{
		ID: telemetry.NewID(), Exe: "writer", Computer: "test", TSCFrequency: 1e9, StartTime: time.Now().UnixNano(), StartTicks: 1,
	}
	w.stream = telemetry.Stream{ID: telemetry.NewID(), ProcessID: w.process.ID, Tags: []string{"log"}}
	w.stream.Dependencies, w.stream.Objects = wire.LogTypes()
	return w
}

// register posts the process and the stream until both are acknowledged.
func (w *writer) register(ctx context.Context, p *process) error {
	for route, body := range map[string][]byte{
		"insert_process": wire.AppendProcess(nil, &w.process),
		"insert_stream":  wire.AppendStream(nil, &w.stream),
	} {
		if code, err := p.Post(ctx, route, body); err != nil || code != http.StatusOK {
			return fmt.Errorf("%s: status %d, %w", route, code, err)
		}
	}
	return nil
}

// block makes the next block and its request body.
func (w *writer) block() (telemetry.ID, []byte) {
	w.mu.Lock()
	n := w.next
	w.next++
	w.mu.Unlock()
	const length = 1e6 // ns of a block
	var e deploytest.Emitter
	for i := range w.rows {
		e.Log(1+n*length+int64(i), 4, "writer", fmt.Sprintf("block %d entry %d", n, i))
	}
	start := w.process.StartTime
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: w.stream.ID, ProcessID: w.process.ID, NbObjects: int32(w.rows), ObjectOffset: n * int64(w.rows),
		BeginTicks: n * length, EndTicks: (n + 1) * length, BeginTime: start + n*length, EndTime: start + (n+1)*length,
	}
	return b.ID, e.Body(b)
}

// run posts blocks over n connections until ctx ends or the server goes away.
func (w *writer) run(ctx context.Context, p *process, n int) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				id, body := w.block()
				code, err := p.Post(ctx, "insert_block", body)
				if err != nil {
					return
				}
				if code == http.StatusOK {
					w.mu.Lock()
					w.acked = append(w.acked, id)
					w.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
}

func (w *writer) ackedCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// checkAcked fails unless every acknowledged block has its rows exactly once, in the rows' view and in blocks, and
// unless no block at all has rows twice.
func checkAcked(t *testing.T, p *process, w *writer) {
	t.Helper()
	want := fmt.Sprint(w.rows)
	rows := map[string]string{}
	for _, r := range p.mustQuery("SELECT block_id, count(*) FROM log_entries WHERE process_id = '" + w.process.ID.String() + "' GROUP BY block_id") {
		id, n, _ := strings.Cut(r, "|")
		rows[id] = n
		if n != want {
			t.Errorf("block %s has %s rows, want %s", id, n, want)
		}
	}
	listed := map[string]bool{}
	for _, id := range p.mustQuery("SELECT block_id FROM blocks WHERE process_id = '" + w.process.ID.String() + "'") {
		if listed[id] {
			t.Errorf("block %s is listed twice", id)
		}
		listed[id] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	missing := 0
	for _, id := range w.acked {
		if rows[id.String()] == "" || !listed[id.String()] {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged blocks are missing\n%s", missing, len(w.acked), p.LogTail())
	}
}

// kills is how often the process is killed: the mark is 20 for each change.
const kills = 20

// TestKillLosesNothingAcknowledged kills the whole process under load, again and again on the same folder, at moments
// drawn at random; in the end each acknowledged block's rows are there exactly once.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("kills take a minute; run without -short")
	}
	dir := deploytest.NewDataDir(t)
	w := newWriter(20)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	for i := range kills {
		p := startServe(t, dir)
		if err := w.register(t.Context(), p); err != nil {
			t.Fatalf("round %d: %v\n%s", i, err, p.LogTail())
		}
		before := w.ackedCount()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx, p, 8) }()
		goal := before + 20 + rng.IntN(200)
		deploytest.Eventually(t, 30*time.Second, "acknowledged blocks", func() bool { return w.ackedCount() >= goal })
		if i%3 == 0 { // a query makes the views commit at the moment of the kill
			go p.query(ctx, "SELECT count(*) FROM log_entries")
		}
		p.Kill()
		cancel()
		<-done
	}
	p := startServe(t, dir)
	checkAcked(t, p, w)
	t.Logf("%d blocks acknowledged over %d kills", w.ackedCount(), kills)
	p.Stop()
	p = startServe(t, dir) // and they survive a clean stop
	checkAcked(t, p, w)
}

// TestFolderIsServedOnce refuses a second server on one folder, naming the first.
func TestFolderIsServedOnce(t *testing.T) {
	dir := deploytest.NewDataDir(t)
	p := startServe(t, dir)
	out, err := exec.Command(deploytest.Binary(t), deploytest.ServeArgs(dir)...).CombinedOutput()
	if err == nil {
		t.Fatal("a second server started on the same folder")
	}
	for _, want := range []string{"in use", fmt.Sprint(p.Cmd.Process.Pid), "--data"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("message %q does not say %q", out, want)
		}
	}
}

// TestBucketBelongsToItsFolder refuses a bucket of another data folder, and a data folder whose bucket is gone.
func TestBucketBelongsToItsFolder(t *testing.T) {
	bucket := folderURI(t, filepath.Join(t.TempDir(), "bucket"))
	inMemory := deploytest.NewDataDir(t)
	startServe(t, deploytest.NewDataDir(t), "--object-store", bucket).Stop()
	startServe(t, inMemory, "--object-store", "mem://").Stop()
	mustNotStart(t, inMemory, "another bucket", "empty bucket")
	for dir, uri := range map[string]string{deploytest.NewDataDir(t): bucket, inMemory: "mem://"} {
		ctx, cancel := context.WithTimeout(t.Context(), deploytest.StartTimeout)
		out, err := exec.CommandContext(ctx, deploytest.Binary(t), deploytest.ServeArgs(dir, "--object-store", uri)...).CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), "does not belong to this catalog") {
			t.Errorf("serve on bucket %s: %v\n%s", uri, err, out)
		}
	}
}

// TestCachesMayHoldAnything starts a server on caches full of what it did not write, or not whole.
func TestCachesMayHoldAnything(t *testing.T) {
	dir := deploytest.NewDataDir(t)
	for _, name := range []string{
		"query/blocks-1.parquet", "query/processes-1.parquet/file", "engine/duckdb_temp_storage_DEFAULT-0.tmp", "engine/folder/file",
		"lake/objects/00000000000000000000000000000000-00000000-7", "lake/objects/folder/file",
	} {
		path := filepath.Join(dir, "cache", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("garbage"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	p := startServe(t, dir)
	if n := p.count("SELECT count(*) FROM processes"); n != 0 {
		t.Errorf("%d processes", n)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "cache", "engine")); err != nil || len(left) != 0 {
		t.Errorf("left in the engine's folder: %v, %v", left, err)
	}
}

// TestMistakesAreReportedAtOnce names each wrong setting in one go.
func TestMistakesAreReportedAtOnce(t *testing.T) {
	cmd := exec.Command(deploytest.Binary(t), "serve", "--data", t.TempDir(), "--http", "0.0.0.0:0", "--flight", "nonsense", "--roles", "gateway,cook",
		"--query-memory", "much", "--log-format", "xml")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("serve started with wrong settings")
	}
	for _, want := range []string{"--http 0.0.0.0:0 is open to the network", `--flight "nonsense"`, `"cook"`, `"much"`, `"xml"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("message lacks %s:\n%s", want, out)
		}
	}
}

// readYourAcks is how often a block is posted and queried at once; backgroundRate flows beside it.
const (
	readYourAcks     = 1000
	backgroundRate   = 50_000 // events a second
	readYourAcksMark = 300 * time.Millisecond
)

// TestReadYourAcks posts a block and queries at once, many times, while load flows beside: every row is there.
func TestReadYourAcks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes; run without -short")
	}
	p := startServe(t, deploytest.NewDataDir(t))
	background := exec.Command(deploytest.Binary(t), "loadgen", "--url", p.HTTP, "--rate", fmt.Sprint(backgroundRate), "--duration", "10m", "--processes", "8", "--connections", "8")
	if err := background.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { background.Process.Kill(); background.Wait() })
	w := newWriter(5)
	if err := w.register(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	py := startPython(t, p)
	var latencies []time.Duration
	var missing atomic.Int64
	for range readYourAcks {
		id, body := w.block()
		if code, err := p.Post(t.Context(), "insert_block", body); err != nil || code != http.StatusOK {
			t.Fatalf("post: status %d, %v\n%s", code, err, p.LogTail())
		}
		begin := time.Now()
		a := py.ask("SELECT count(*) FROM log_entries WHERE block_id = '"+id.String()+"'",
			time.Unix(0, w.process.StartTime).Add(-time.Minute).UTC().Format(time.RFC3339Nano), time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano))
		latencies = append(latencies, time.Since(begin))
		if a.Error != "" {
			t.Fatalf("query: %s\n%s", a.Error, p.LogTail())
		}
		if got := fmt.Sprint(a.Rows[0][0]); got != fmt.Sprint(w.rows) {
			missing.Add(1)
			t.Errorf("block %s: %s rows right after its ack, want %d", id, got, w.rows)
		}
	}
	slices.Sort(latencies)
	p50, p99 := latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	t.Logf("post to rows: p50 %v, p99 %v, max %v", p50, p99, latencies[len(latencies)-1])
	if p50 > readYourAcksMark {
		t.Errorf("p50 is %v, the mark is %v", p50, readYourAcksMark)
	}
}
