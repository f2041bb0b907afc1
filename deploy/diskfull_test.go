//go:build linux

package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/gateway"
)

const (
	smallDiskBytes = gateway.ReserveBytes + 128<<20 // what is written on it is memory: a few MB
	belowReserve   = gateway.ReserveBytes / 2       // free
	fullFor        = 7 * time.Second                // longer than a lease, which cannot be renewed on a full disk
	serviceAgain   = 10 * time.Second               // from there being space
)

// smallDisk is a file system in memory that is enlarged and made smaller while it is used: as if somebody else
// wrote a large file there at once, or deleted it, but without the memory for that file.
type smallDisk struct {
	t    *testing.T
	path string
}

func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	d := &smallDisk{t, deploytest.NewDataDir(t)}
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root; run as root for this test")
	}
	if err := unix.Mount("tmpfs", d.path, "tmpfs", 0, fmt.Sprintf("size=%d", int64(smallDiskBytes))); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("mount a tmpfs: %v; this test needs the right to do so", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.path, err)
		}
	})
	return d
}

// leave makes the disk so small that about free bytes are left.
func (d *smallDisk) leave(free uint64) {
	d.t.Helper()
	for { // the server may write between the question and the change, which the kernel refuses then
		var s unix.Statfs_t
		if err := unix.Statfs(d.path, &s); err != nil {
			d.t.Fatal(err)
		}
		used := (s.Blocks - s.Bfree) * uint64(s.Bsize)
		err := unix.Mount("", d.path, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+free))
		if err == nil {
			return
		}
		if err != unix.EINVAL {
			d.t.Fatalf("remount: %v", err)
		}
	}
}

// enlarge gives the disk its first size.
func (d *smallDisk) enlarge() {
	d.t.Helper()
	if err := unix.Mount("", d.path, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", int64(smallDiskBytes))); err != nil {
		d.t.Fatalf("remount: %v", err)
	}
}

// stubbornClient posts a writer's blocks all the time, whatever the answers are, and counts them.
type stubbornClient struct {
	w           *writer
	p           atomic.Pointer[process]
	accepted    atomic.Int64
	refused     atomic.Int64           // 503 with Retry-After
	wrong       atomic.Pointer[string] // any other answer
	cancel      context.CancelFunc
	connections sync.WaitGroup
}

// startStubborn posts to p over n connections until stop.
func startStubborn(t *testing.T, w *writer, p *process, n int) *stubbornClient {
	ctx, cancel := context.WithCancel(t.Context())
	c := &stubbornClient{w: w, cancel: cancel}
	c.p.Store(p)
	for range n {
		c.connections.Go(func() {
			pause := time.NewTicker(2 * time.Millisecond) // refused at once, it would only burn the machine
			defer pause.Stop()
			for ctx.Err() == nil {
				c.post(ctx)
				<-pause.C
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

func (c *stubbornClient) stop() {
	c.cancel()
	c.connections.Wait()
}

func (c *stubbornClient) post(ctx context.Context) {
	id, body := c.w.block()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.p.Load().HTTP+"/ingestion/insert_block", bytes.NewReader(body))
	if err != nil {
		panic(err) // the address is ours
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // killed, or not there yet
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	switch {
	case resp.StatusCode == http.StatusOK:
		c.w.mu.Lock()
		c.w.acked = append(c.w.acked, id)
		c.w.mu.Unlock()
		c.accepted.Add(1)
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		c.refused.Add(1)
	default:
		text := fmt.Sprintf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
		c.wrong.Store(&text)
	}
}

// more waits for n more blocks to be accepted.
func (c *stubbornClient) more(t *testing.T, within time.Duration, n int64) {
	t.Helper()
	goal := c.accepted.Load() + n
	deploytest.Eventually(t, within, fmt.Sprintf("%d more blocks accepted", n), func() bool { return c.accepted.Load() >= goal })
}

// check fails the test after an answer that is neither 200 nor 503 with Retry-After.
func (c *stubbornClient) check(t *testing.T) {
	t.Helper()
	if text := c.wrong.Load(); text != nil {
		t.Errorf("an answer was %s, want 200, or 503 with Retry-After", *text)
	}
}

// onlyRefusals waits until nothing is accepted any more, and sees to it that it stays so for a while.
func (c *stubbornClient) onlyRefusals(t *testing.T, p *process, during time.Duration) {
	t.Helper()
	const atLeast = 20
	begin, accepted, refused := time.Now(), c.accepted.Load(), c.refused.Load()
	deploytest.Eventually(t, during+serviceAgain, "only refusals", func() bool {
		select {
		case <-p.Exited:
			t.Fatalf("serve ended: %v\n%s", p.Err, p.LogTail())
		default:
		}
		if now := c.accepted.Load(); now != accepted {
			begin, accepted, refused = time.Now(), now, c.refused.Load()
		}
		return time.Since(begin) >= during && c.refused.Load() >= refused+atLeast
	})
}

// TestDiskFull takes the disk away from a server under load: first down to the reserve, then all of it at once, with
// posts in flight, a second time with a kill -9 and a start while there is no space. It answers 503, serves again soon after
// there is space, and has every block that it acknowledged exactly once.
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; run without -short")
	}
	d := newSmallDisk(t)
	dir := filepath.Join(d.path, "data")
	p := startServe(t, dir)
	w := newWriter(3)
	if err := w.register(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	c := startStubborn(t, w, p, 4)
	c.more(t, serviceAgain, 50)

	d.leave(belowReserve)
	c.onlyRefusals(t, p, time.Second)
	checkAcked(t, p, w)
	d.enlarge()
	c.more(t, serviceAgain, 50)

	for round := range 3 {
		d.leave(0)
		c.onlyRefusals(t, p, []time.Duration{fullFor, time.Second, time.Second}[round])
		if round == 1 {
			queryEnds(t, p)
		}
		if round == 2 {
			p.Kill()
			startOnFullDisk(t, dir, c)
		}
		d.enlarge()
		if round == 2 {
			p = startServe(t, dir)
			c.p.Store(p)
		}
		begin := time.Now()
		c.more(t, serviceAgain, 1)
		t.Logf("round %d: serves again %v after there is space", round, time.Since(begin).Round(time.Millisecond))
		c.more(t, serviceAgain, 50)
	}
	c.stop()
	c.check(t)
	checkAcked(t, p, w)
	t.Logf("%d accepted, %d refused", c.accepted.Load(), c.refused.Load())
	p.Stop()
	p = startServe(t, dir)
	checkAcked(t, p, w)
	p.Stop()
}

// startOnFullDisk starts a server that may find no byte to start with, which it says, or a few that the one before left: then it
// serves refusals until it is killed.
func startOnFullDisk(t *testing.T, dir string, c *stubbornClient) {
	t.Helper()
	started, err := deploytest.TryCommand(t, dir, exec.Command(deploytest.Binary(t), deploytest.ServeArgs(dir)...))
	p := &process{started}
	if err != nil {
		if text := p.LogTail(); !strings.Contains(text, "no space left") || strings.Contains(text, "panic") {
			t.Errorf("serve ends for another reason: %v\n%s", err, text)
		}
		return
	}
	c.p.Store(p)
	c.onlyRefusals(t, p, time.Second)
	p.Kill()
}

// queryEnds asks for rows while nothing can commit: the answer may lack some, or be an error, but it comes.
func queryEnds(t *testing.T, p *process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, _, err := p.query(ctx, "SELECT count(*) FROM log_entries")
	if ctx.Err() != nil {
		t.Errorf("a query on a full disk did not end: %v\n%s", err, p.LogTail())
	}
}

// mustNotStart starts a server that must end with a message that contains all of want.
func mustNotStart(t *testing.T, dir string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deploytest.StartTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, deploytest.Binary(t), deploytest.ServeArgs(dir)...)
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Fatalf("serve did not refuse to start: %v\n%s", err, out)
	}
	for _, text := range want {
		if !strings.Contains(string(out), text) {
			t.Errorf("message lacks %q:\n%s", text, out)
		}
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signaled() {
		t.Errorf("serve crashed: %v\n%s", err, out)
	}
}

// TestReadOnlyFolderIsRefused starts a server on folders where it cannot write.
func TestReadOnlyFolderIsRefused(t *testing.T) {
	d := newSmallDisk(t)
	used, fresh := filepath.Join(d.path, "used"), filepath.Join(d.path, "fresh")
	startServe(t, used).Stop()
	if err := unix.Mount("", d.path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	mustNotStart(t, used, "start data folder", used, "read-only")
	mustNotStart(t, fresh, "start data folder", fresh, "read-only")
}
