package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
)

// benchServe is the hidden command of a measured server: serve with any roles, since parts are measured alone.
const benchServe = "bench-serve"

func runBenchServe(ctx context.Context, std stdio, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	cfg := DefaultConfig()
	cfg.DataDir, cfg.HTTPAddr, cfg.FlightAddr = args[0], "127.0.0.1:0", "127.0.0.1:0"
	var err error
	if cfg.Roles, err = parseRoles(args[1]); err != nil {
		return err
	}
	s, err := Start(ctx, cfg, newLogger(std.err, cfg))
	if err != nil {
		return err
	}
	printAddresses(std.out, s)
	return waitAndStop(ctx, std, s)
}

// child is a measured server process.
type child struct {
	cmd    *exec.Cmd
	http   string // http://host:port
	flight string // grpc://host:port
	ready  time.Duration
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// childStartTimeout bounds a start, recovery of a full bus included.
const childStartTimeout = 60 * time.Second

// startChild starts a server with roles on a folder of the bench and waits until it is ready.
func (b *bench) startChild(ctx context.Context, folder, roles string) (*child, error) {
	dir := filepath.Join(b.dir, folder)
	cmd, err := selfCommand(ctx, benchServe, dir, roles)
	if err != nil {
		return nil, err
	}
	return launch(cmd, dir)
}

// selfCommand is this program with other arguments. It is told to stop when ctx ends.
func selfCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd, nil
}

// launch starts a server whose log goes to dir, and waits until it is ready.
func launch(cmd *exec.Cmd, dir string) (*child, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "serve.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	c := &child{cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = logFile
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), " ")
			switch name {
			case "ingestion":
				c.http = strings.TrimSpace(value)
			case "sql":
				c.flight = strings.TrimSpace(value)
			case "ready":
				c.ready = time.Since(begin)
				close(ready)
			}
		}
		c.err = cmd.Wait()
		close(c.exited)
	}()
	select {
	case <-ready:
		return c, nil
	case <-c.exited:
		return nil, fmt.Errorf("measured server ended at once (%w): see %s", c.err, logFile.Name())
	case <-time.After(childStartTimeout):
		_ = cmd.Process.Kill() // it may have ended just now
		return nil, fmt.Errorf("measured server is not ready after %v: see %s", childStartTimeout, logFile.Name())
	}
}

// running says whether the server has not ended.
func (c *child) running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// stop drains the server.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-c.exited
	return c.err
}

// kill ends the server at once.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	if <-c.exited; c.err == nil {
		return errors.New("the server ended by itself before it was killed")
	}
	return nil
}

// folderBytes returns the size of what is below a folder of the bench.
func (b *bench) folderBytes(folder string) (n int64, err error) {
	err = filepath.Walk(filepath.Join(b.dir, folder), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// ticksPerSecond is the unit of CPU times in /proc; Linux fixes it for user space.
const ticksPerSecond = 100

// cpu returns the processor time that the server has used so far, user and system.
func (c *child) cpu() (time.Duration, error) { return processCPU(c.cmd.Process.Pid) }

func processCPU(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field behind it.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("short /proc/pid/stat")
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// memory returns the server's resident set: now and at its peak, in bytes.
func (c *child) memory() (now, peak int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			now = kb << 10
		case "VmHWM":
			peak = kb << 10
		}
	}
	return now, peak, nil
}

// resetPeak makes the peak of the resident set begin anew.
func (c *child) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.cmd.Process.Pid), []byte("5"), 0)
}

// childStatus is the part of /status that the bench waits for.
type childStatus struct {
	Shards []struct {
		ArchiveLag uint64 `json:"archive_lag"`
		ViewsLag   uint64 `json:"views_lag"`
	} `json:"shards"`
	Catalog struct {
		Partitions, PartitionRows, PartitionBytes, PackBytes, Blocks int64
	} `json:"catalog"`
}

func (c *child) status(ctx context.Context) (s childStatus, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.http+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// caughtUp waits until the archive, and the views when asked, have passed everything on the bus.
func (c *child) caughtUp(ctx context.Context, views bool) (childStatus, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := c.status(ctx)
		if err != nil {
			return s, err
		}
		lag := uint64(0)
		for _, shard := range s.Shards {
			lag += shard.ArchiveLag
			if views {
				lag += shard.ViewsLag
			}
		}
		if lag == 0 {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-tick.C:
		}
	}
}

// load posts a load from a process of its own, so that its cost is not the server's, and returns its report.
func (b *bench) load(ctx context.Context, c *child, args ...string) (r loadgen.Report, err error) {
	exe, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{"loadgen", "--json", "--url", c.http}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("loadgen: %w: %s", err, errs.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("loadgen's report: %w", err)
	}
	if r.Failed > 0 {
		return r, fmt.Errorf("loadgen gave up %d requests: %s", r.Failed, r.Error)
	}
	return r, nil
}

// fdatasyncs appends and syncs size bytes to a file of the bench's folder, again and again, and returns the median: what
// the disk allows, beside what the bus needs for an ack.
func (b *bench) fdatasyncs(size int, d time.Duration) (time.Duration, error) {
	f, err := os.Create(filepath.Join(b.dir, "fdatasync"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := make([]byte, size)
	var all []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		begin := time.Now()
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begin))
	}
	return percentile(all, 50), nil
}
