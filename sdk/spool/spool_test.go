package spool_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
	"github.com/micromegas-go/micromegas/sdk/spool"
)

// end is the other end.
type end struct {
	mu      sync.Mutex
	answer  func(r *sdk.Request) deliver.Answer // nil = delivered
	got     []sdk.Request
	stalled chan struct{}
}

func (e *end) Post(ctx context.Context, r *sdk.Request) deliver.Answer {
	e.mu.Lock()
	stalled := e.stalled
	e.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-ctx.Done():
			return deliver.Answer{Verdict: deliver.Failed, Err: ctx.Err()}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.answer != nil {
		if a := e.answer(r); a.Verdict != deliver.Delivered {
			return a
		}
	}
	e.got = append(e.got, *r)
	return deliver.Answer{}
}

func (e *end) stall() func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := make(chan struct{})
	e.stalled = c
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stalled = nil
		close(c)
	})
}

func (e *end) set(f func(*sdk.Request) deliver.Answer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func (e *end) requests() []sdk.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got
}

func (e *end) arrived(*testing.T) (bodies [][]byte) {
	for _, r := range e.requests() {
		bodies = append(bodies, r.Body)
	}
	return bodies
}

func away(*sdk.Request) deliver.Answer {
	return deliver.Answer{Verdict: deliver.Away, Err: errors.New("away")}
}

// config is quick.
func config(dir string) spool.Config {
	cfg := spool.DefaultConfig()
	cfg.Dir = dir
	cfg.AdoptInterval = 10 * time.Millisecond
	cfg.Delivery.MinBackoff, cfg.Delivery.MaxBackoff = time.Millisecond, 5*time.Millisecond
	cfg.Delivery.ShelveAfter = time.Millisecond
	return cfg
}

func open(t testing.TB, cfg spool.Config, e deliver.Poster) *spool.Spool {
	t.Helper()
	s, err := spool.New(cfg, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancelled(s) })
	return s
}

// cancelled closes a sink without giving it time.
func cancelled(s sdk.Sink) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Close(ctx)
}

func send(s sdk.Sink, rs []sdk.Request) {
	for _, r := range rs {
		s.Send(r)
	}
}

// files returns what is in the folders of a spool, without locks.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			names = append(names, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("%d folders are left, %v", len(entries), files(t, dir))
	}
}

func spooled(t *testing.T, s *spool.Spool, n int) {
	t.Helper()
	sinktest.Poll(t, "requests are on disk", func() bool { return s.Stats().Spooled == int64(n) })
	sinktest.CheckStats(t, s.Stats())
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		e := &end{}
		s := open(t, config(t.TempDir()), e)
		return sinktest.Opened{Sink: s, Arrived: e.arrived, Stall: e.stall, Keeps: true}
	})
}

// TestConformanceThroughTheDisk shelves whatever has to wait for its turn.
func TestConformanceThroughTheDisk(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		e := &end{}
		cfg := config(t.TempDir())
		cfg.Delivery.ShelveBytes = 1
		return sinktest.Opened{Sink: open(t, cfg, e), Arrived: e.arrived, Stall: e.stall, Keeps: true}
	})
}

func TestWhileAllIsWellNothingIsWritten(t *testing.T) {
	dir := t.TempDir()
	e := &end{}
	s := open(t, config(dir), e)
	send(s, sinktest.Requests(100))
	sinktest.Flush(t, s)
	empty(t, dir)
	sinktest.Close(t, s)
	empty(t, dir)
}

func TestOutageGoesToDiskAndComesBack(t *testing.T) {
	dir := t.TempDir()
	e := &end{answer: away}
	s := open(t, config(dir), e)
	rs := sinktest.Requests(2_000)
	send(s, rs)
	spooled(t, s, len(rs))
	e.set(nil)
	sinktest.Flush(t, s)
	sinktest.CheckArrived(t, rs, e.arrived(t))
	if got := s.Stats(); sinktest.Dropped(got) != 0 || got.Spooled != 0 {
		t.Errorf("%+v", got)
	}
	sinktest.Close(t, s)
	empty(t, dir)
}

func TestReplayGoesByClassThenAge(t *testing.T) {
	e := &end{answer: away}
	cfg := config(t.TempDir())
	cfg.Delivery.MaxInFlight = 1
	s := open(t, cfg, e)
	rs := sinktest.Requests(300)
	send(s, rs)
	spooled(t, s, len(rs))
	e.set(nil)
	sinktest.Flush(t, s)
	var last [sdk.NumClasses]int
	index := map[string]int{}
	for i, r := range rs {
		index[string(r.Body)] = i
	}
	class := sdk.ClassMetadata
	outOfOrder := 0
	for _, r := range e.requests() {
		if r.Class < class {
			t.Fatalf("%s after %s", r.Class, class)
		}
		class = r.Class
		i := index[string(r.Body)]
		if i < last[class] {
			outOfOrder++
		}
		last[class] = i
	}
	if outOfOrder > sdk.NumClasses { // the one that was under way goes to the end
		t.Errorf("%d requests came before older ones", outOfOrder)
	}
}

func TestCloseKeepsAndTheNextProcessDelivers(t *testing.T) {
	dir := t.TempDir()
	e := &end{answer: away}
	s := open(t, config(dir), e)
	rs := sinktest.Requests(500)
	send(s, rs)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "504 requests are undelivered and stay on disk") {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("close waited %s for a gateway that is away", took)
	}
	if got := s.Stats(); got.Spooled != 504 {
		t.Errorf("%+v", got)
	}
	e.set(nil)
	s = open(t, config(dir), e)
	sinktest.Poll(t, "the next process delivers", func() bool { return s.Stats().Delivered == 504 })
	sinktest.CheckStats(t, s.Stats())
	sinktest.CheckArrived(t, rs, e.arrived(t))
	sinktest.Close(t, s)
	empty(t, dir)
}

func TestProcessesThatShareAFolderDoNotSendTwice(t *testing.T) {
	dir := t.TempDir()
	ends := []*end{{answer: away}, {answer: away}, {answer: away}}
	var spools []*spool.Spool
	var all []sdk.Request
	for _, e := range ends {
		s := open(t, config(dir), e)
		rs := sinktest.Requests(300)
		send(s, rs)
		spools, all = append(spools, s), append(all, rs...)
	}
	for _, s := range spools {
		spooled(t, s, 304)
	}
	if err := cancelled(spools[0]); err == nil { // whom the others inherit from
		t.Error("close says that all is well")
	}
	for _, e := range ends {
		e.set(nil)
	}
	sinktest.Poll(t, "all is delivered", func() bool { return spools[1].Stats().Delivered+spools[2].Stats().Delivered == 3*304 })
	times := map[string]int{}
	for _, e := range ends {
		for _, r := range e.requests() {
			times[string(r.Body)]++
		}
	}
	if len(times) != len(all) {
		t.Errorf("%d of %d arrived", len(times), len(all))
	}
	for _, n := range times {
		if n != 1 {
			t.Fatalf("a request was sent %d times", n)
		}
	}
}

func TestDiskIsBoundedAndSpansGoFirst(t *testing.T) {
	dir := t.TempDir()
	e := &end{answer: away}
	cfg := config(dir)
	cfg.MaxBytes = 1 << 20
	s := open(t, cfg, e)
	put := func(c sdk.Class, n int) {
		for range n {
			s.Send(sinktest.Noise(c, 9_900))
			sinktest.Poll(t, "it is on disk", func() bool {
				got := s.Stats()
				return got.Spooled == got.Queued
			})
		}
	}
	dropped := func() (d [sdk.NumClasses]int64) {
		got := s.Stats()
		sinktest.CheckStats(t, got)
		for c := range d {
			d[c] = sinktest.DroppedFor(got, sdk.Class(c), sdk.DropQueueFull)
		}
		return d
	}
	put(sdk.ClassSpans, 60)
	put(sdk.ClassMetrics, 40)
	if d := dropped(); d != [sdk.NumClasses]int64{} {
		t.Errorf("a megabyte fits: %v", d)
	}
	put(sdk.ClassLogs, 50)
	if d := dropped(); d[3] < 45 || d[3] > 60 || d[2] != 0 {
		t.Errorf("logs push spans out: %v", d)
	}
	put(sdk.ClassLogs, 40)
	if d := dropped(); d[3] != 60 || d[2] < 20 || d[2] > 40 || d[1] != 0 {
		t.Errorf("then metrics: %v", d)
	}
	put(sdk.ClassLogs, 40)
	before := dropped()
	if before[2] != 40 || before[1] == 0 {
		t.Errorf("then older logs: %v", before)
	}
	put(sdk.ClassSpans, 10)
	put(sdk.ClassMetadata, 5)
	s.Send(sinktest.Noise(sdk.ClassLogs, 2<<20))
	sinktest.Poll(t, "what can never fit is dropped", func() bool { return dropped()[1] > before[1] })
	var size int64
	for _, name := range files(t, dir) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > cfg.MaxBytes {
		t.Errorf("%d bytes on disk", size)
	}
	e.set(nil)
	sinktest.Flush(t, s)
	sinktest.CheckStats(t, s.Stats())
	if got := dropped()[0]; got != 0 {
		t.Errorf("%d registrations dropped", got)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := &end{answer: away}
	cfg := config(dir)
	cfg.Delivery.SoftBytes, cfg.Delivery.HardBytes = 50_000, 100_000
	told := make(chan error, 1)
	cfg.Delivery.ErrorInterval = 0
	cfg.Delivery.OnError = func(err error) {
		if strings.Contains(err.Error(), "spool") {
			select {
			case told <- err:
			default:
			}
		}
	}
	s := open(t, cfg, e)
	for range 5 {
		s.Send(sinktest.Noise(sdk.ClassLogs, 10_000))
	}
	t.Log(<-told)
	for range 15 {
		s.Send(sinktest.Noise(sdk.ClassLogs, 10_000))
	}
	sinktest.CheckStats(t, s.Stats())
	if got := s.Stats(); sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropDisk) == 0 || got.Spooled > got.Queued {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	sinktest.Poll(t, "it is tried again", func() bool {
		got := s.Stats()
		return got.Spooled == got.Queued && got.Queued > 5
	})
	e.set(nil)
	sinktest.Close(t, s)
	empty(t, dir)
}

func TestPoisonAndRefusalsLeaveTheDisk(t *testing.T) {
	e := &end{answer: away}
	cfg := config(t.TempDir())
	cfg.Delivery.MaxFailures = [sdk.NumClasses]int{5, 5, 5, 5}
	s := open(t, cfg, e)
	rs := sinktest.Requests(90)
	send(s, rs)
	spooled(t, s, len(rs))
	e.set(func(r *sdk.Request) deliver.Answer {
		switch r.Class {
		case sdk.ClassLogs:
			return deliver.Answer{Verdict: deliver.Refused}
		case sdk.ClassMetrics:
			return deliver.Answer{Verdict: deliver.Failed, Err: errors.New("500")}
		}
		return deliver.Answer{}
	})
	sinktest.Flush(t, s)
	got := s.Stats()
	sinktest.CheckStats(t, got)
	if sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropRefused) != 30 || sinktest.DroppedFor(got, sdk.ClassMetrics, sdk.DropRetries) != 30 ||
		got.Delivered != 34 {
		t.Errorf("%+v", got)
	}
}

func TestDamagedSegmentsAreCounted(t *testing.T) {
	dir := t.TempDir()
	e := &end{answer: away}
	s := open(t, config(dir), e)
	for range 30 {
		s.Send(sinktest.Noise(sdk.ClassLogs, 1_000))
	}
	if err := cancelled(s); err == nil {
		t.Error("close says that all is well")
	}
	for _, name := range files(t, dir) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[500] ^= 1                                 // a frame whose checksum is wrong now
		os.WriteFile(name, data[:len(data)-10], 0o600) // and one that is torn
	}
	e.set(nil)
	s = open(t, config(dir), e)
	sinktest.Poll(t, "the next process has read them", func() bool {
		got := s.Stats()
		return got.Sent > 0 && got.Queued == 0
	})
	got := s.Stats()
	sinktest.CheckStats(t, got)
	// The requests that were under way when the rest was shelved may have a segment of their own.
	if lost := sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropDisk); lost < 2 || got.Delivered+lost != 30 {
		t.Errorf("%+v", got)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	if _, err := spool.New(spool.Config{}, &end{}); err == nil {
		t.Error("an empty config is accepted")
	}
}
