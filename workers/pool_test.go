package workers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/workers"
	"github.com/micromegas-go/micromegas/workers/archive"
)

const timeout = 20 * time.Second

// world is a real bus and a real catalog.
type world struct {
	t   *testing.T
	env *bustest.Env
	bus *bus.Bus
	cat catalog.Catalog
	log *slog.Logger
}

func newWorld(t *testing.T) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cat, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	env := bustest.NewEnv(t)
	b, err := bus.Open(t.Context(), env.Connect(t), archive.Generations{Catalog: cat}, env.Objects, bus.DefaultConfig(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &world{t: t, env: env, bus: b, cat: cat, log: log}
}

func testConfig() workers.Config {
	cfg := workers.DefaultConfig()
	cfg.RetryMin, cfg.RetryMax, cfg.CommitInterval = time.Millisecond, 5*time.Millisecond, 5*time.Millisecond
	return cfg
}

// publish publishes blocks first..first+n-1, each in a frame of its own.
func (w *world) publish(first, n int) {
	w.t.Helper()
	process := telemetry.ID{1}
	for i := first; i < first+n; i++ {
		if err := w.bus.Publish(w.t.Context(), bus.Eager, bustest.Block(process, i, 100)); err != nil {
			w.t.Fatal(err)
		}
	}
}

var shard0 = catalog.ShardID{Class: byte(bus.Eager)}

// archive says that the archive has passed seq.
func (w *world) archive(seq uint64) {
	w.t.Helper()
	now, err := w.cat.Checkpoint(w.t.Context(), catalog.ConsumerArchive, shard0)
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.cat.CommitArchive(w.t.Context(), &catalog.ArchiveCommit{Shard: shard0, From: now.Seq, To: seq, Epoch: 1})
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs a pool until stop is called; stop waits for it.
func (w *world) run(cfg workers.Config, owner string, subs ...workers.Subscription) (p *workers.Pool, stop func()) {
	w.t.Helper()
	p, err := workers.New(cfg, w.bus, w.cat, w.env.Packs, owner, subs, w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("run: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return p, stop
}

// eventually polls until ok, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// recorder is a consumer that notes what it gets.
type recorder struct {
	name   string
	before func(ctx context.Context, records []bus.Record) error // may fail a call

	mu     sync.Mutex
	blocks []int64 // begin times / 1000: the block numbers
	bytes  int
}

func (r *recorder) Name() string { return r.name }

func (r *recorder) Handle(ctx context.Context, records []bus.Record) error {
	if r.before != nil {
		if err := r.before(ctx, records); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		r.blocks = append(r.blocks, rec.BeginTime/1000)
		r.bytes += len(rec.Body)
	}
	return nil
}

func (r *recorder) seen() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]int64(nil), r.blocks...)
}

func (r *recorder) waitFor(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d records", n), func() bool { return len(r.seen()) >= n })
}

func checkSequence(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("blocks %v, want %v", got, want)
	}
}

func TestConsumersContinueWhereTheyCommitted(t *testing.T) {
	w := newWorld(t)
	first, other := &recorder{name: "first"}, &recorder{name: "other"}
	p, stop := w.run(testConfig(), "me", workers.Subscription{Consumer: first}, workers.Subscription{Consumer: other})
	w.publish(0, 4)
	first.waitFor(t, 4)
	other.waitFor(t, 4)
	w.archive(3)
	eventually(t, "commit up to the archive", func() bool {
		for _, s := range p.Stats() {
			if s.Shard.Class == bus.Eager && s.Committed != 3 {
				return false
			}
		}
		return true
	})
	stop()
	checkSequence(t, first.seen(), 0, 1, 2, 3)

	again := &recorder{name: "first"}
	_, stop = w.run(testConfig(), "me", workers.Subscription{Consumer: again})
	w.publish(4, 2)
	again.waitFor(t, 3)
	stop()
	checkSequence(t, again.seen(), 3, 4, 5)
}

func TestStopAsksTheArchiveAndCommitsEverything(t *testing.T) {
	w := newWorld(t)
	stopServing, err := w.bus.ServeFlush(bus.TargetArchive, bus.Shard{Class: bus.Eager}, func(_ context.Context, r bus.FlushRequest) bus.FlushReply {
		w.archive(r.UpTo)
		return bus.FlushReply{Seq: r.UpTo}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stopServing()
	c := &recorder{name: "c"}
	p, stop := w.run(testConfig(), "me", workers.Subscription{Consumer: c, Classes: []bus.Class{bus.Eager}})
	w.publish(0, 5)
	eventually(t, "all handled", func() bool { s := p.Stats(); return len(s) == 1 && s[0].Seq == 5 })
	stop()
	now, err := w.cat.Checkpoint(t.Context(), "consumer/c", shard0)
	if err != nil || now.Seq != 5 {
		t.Errorf("checkpoint %+v, error %v, want 5", now, err)
	}
}

func TestPoisonRecordBlocksNobody(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	calls := 0
	c := &recorder{name: "c", before: func(_ context.Context, records []bus.Record) error {
		for _, r := range records {
			switch r.BeginTime / 1000 {
			case 2:
				mu.Lock()
				calls++
				mu.Unlock()
				return errors.New("cannot digest this")
			case 4:
				panic("worse")
			}
		}
		return nil
	}}
	healthy := &recorder{name: "healthy"}
	cfg := testConfig()
	cfg.MaxAttempts = 3
	p, stop := w.run(cfg, "me", workers.Subscription{Consumer: c}, workers.Subscription{Consumer: healthy})
	w.publish(0, 7)
	c.waitFor(t, 5)
	healthy.waitFor(t, 7)
	stop()
	checkSequence(t, c.seen(), 0, 1, 3, 5, 6)
	checkSequence(t, healthy.seen(), 0, 1, 2, 3, 4, 5, 6)
	if calls != 3 {
		t.Errorf("%d tries, want 3", calls)
	}
	letters, err := w.bus.ReadDeadLetters(t.Context(), 10)
	if err != nil || len(letters) != 2 {
		t.Fatalf("dead letters %+v, error %v", letters, err)
	}
	want := bustest.Block(telemetry.ID{1}, 2, 100)
	if l := letters[0]; l.BlockID != want.BlockID || l.Seq != 3 || l.View != "consumer/c" || !strings.Contains(l.Reason, "digest") {
		t.Errorf("dead letter %+v", l)
	}
	if !strings.Contains(letters[1].Reason, "worse") {
		t.Errorf("reason of a panic: %s", letters[1].Reason)
	}
	for _, s := range p.Stats() {
		if s.Consumer == "c" && s.Shard.Class == bus.Eager && (s.Dead != 2 || s.Handled != 5 || s.Seq != 7) {
			t.Errorf("stats %+v", s)
		}
	}
}

// TestFailingBatchIsTakenApart gives the consumer a frame of many records, of which one is bad.
func TestFailingBatchIsTakenApart(t *testing.T) {
	w := newWorld(t)
	// Publishers that wait together share a frame; how many do is not certain, so the check does not depend on it.
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if err := w.bus.Publish(t.Context(), bus.Eager, bustest.Block(telemetry.ID{1}, i, 100)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	largest := 0
	c := &recorder{name: "c", before: func(_ context.Context, records []bus.Record) error {
		largest = max(largest, len(records))
		for _, r := range records {
			if r.BeginTime/1000 == 77 {
				return errors.New("bad")
			}
		}
		return nil
	}}
	cfg := testConfig()
	cfg.BatchRecords = 50
	_, stop := w.run(cfg, "me", workers.Subscription{Consumer: c, Classes: []bus.Class{bus.Eager}})
	c.waitFor(t, 199)
	stop()
	seen := map[int64]int{}
	for _, b := range c.seen() {
		seen[b]++
	}
	if len(seen) != 199 || seen[77] != 0 || len(c.seen()) != 199 {
		t.Errorf("%d different blocks in %d, the bad one %d times", len(seen), len(c.seen()), seen[77])
	}
	if largest > 50 {
		t.Errorf("batch of %d records", largest)
	}
}

func TestNotNowWaitsWithoutDeadLetters(t *testing.T) {
	w := newWorld(t)
	refusals := 0
	c := &recorder{name: "c", before: func(context.Context, []bus.Record) error {
		if refusals++; refusals <= 20 {
			return fmt.Errorf("database away: %w", workers.ErrNotNow)
		}
		return nil
	}}
	_, stop := w.run(testConfig(), "me", workers.Subscription{Consumer: c})
	w.publish(0, 3)
	c.waitFor(t, 3)
	stop()
	checkSequence(t, c.seen(), 0, 1, 2)
	if letters, err := w.bus.ReadDeadLetters(t.Context(), 10); err != nil || len(letters) != 0 {
		t.Errorf("dead letters %v, error %v", letters, err)
	}
}

func TestWantClassesAndClaimedBodies(t *testing.T) {
	w := newWorld(t)
	c := &recorder{name: "c"}
	_, stop := w.run(testConfig(), "me", workers.Subscription{
		Consumer: c, Classes: []bus.Class{bus.Raw},
		Want: func(r *bus.Record) bool { return r.Kind == bus.KindBlock && r.BeginTime != 1000 },
	})
	w.publish(0, 3)
	const big = 3 << 20
	for i := range 3 {
		r := bustest.Block(telemetry.ID{1}, i, 10)
		if i == 2 {
			r = bustest.Block(telemetry.ID{1}, i, big)
		}
		if err := w.bus.Publish(t.Context(), bus.Raw, r); err != nil {
			t.Fatal(err)
		}
	}
	c.waitFor(t, 2)
	stop()
	checkSequence(t, c.seen(), 0, 2)
	if c.bytes != big+10 {
		t.Errorf("%d bytes of bodies, want %d", c.bytes, big+10)
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	w := newWorld(t)
	cfg := testConfig()
	cfg.Ownership.Poll = 20 * time.Millisecond
	one, two := &recorder{name: "c"}, &recorder{name: "c"}
	p1, stop1 := w.run(cfg, "one", workers.Subscription{Consumer: one, Classes: []bus.Class{bus.Eager}})
	eventually(t, "first owner", func() bool { s := p1.Stats(); return len(s) == 1 && s[0].Owned })
	p2, stop2 := w.run(cfg, "two", workers.Subscription{Consumer: two, Classes: []bus.Class{bus.Eager}})
	w.publish(0, 3)
	one.waitFor(t, 3)
	w.archive(3)
	eventually(t, "commit", func() bool { return p1.Stats()[0].Committed == 3 })
	stop1()
	eventually(t, "second owner", func() bool { return p2.Stats()[0].Owned })
	w.publish(3, 2)
	two.waitFor(t, 2)
	stop2()
	checkSequence(t, one.seen(), 0, 1, 2)
	checkSequence(t, two.seen(), 3, 4)
}

func TestConsumerGoesOnInTheNextGeneration(t *testing.T) {
	w := newWorld(t)
	c := &recorder{name: "c"}
	p, stop := w.run(testConfig(), "me", workers.Subscription{Consumer: c, Classes: []bus.Class{bus.Eager}})
	w.publish(0, 3)
	c.waitFor(t, 3)
	w.archive(3)
	eventually(t, "commit", func() bool { return p.Stats()[0].Committed == 3 })
	w.env.Server.Shutdown()
	if err := os.RemoveAll(w.env.Dir); err != nil {
		t.Fatal(err)
	}
	if err := w.env.Server.Restart(); err != nil {
		t.Fatal(err)
	}
	w.publish(3, 2)
	// The closed generation is over once archive has gone on: until then it may still make a pack of what is lost on the bus.
	next := catalog.ShardID{Class: byte(bus.Eager), Gen: 1}
	from := w.bus.Current(bus.Shard{Class: bus.Eager}).FirstSeq - 1
	if err := w.cat.CommitArchive(t.Context(), &catalog.ArchiveCommit{Shard: next, From: from, To: from + 2, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	c.waitFor(t, 5)
	eventually(t, "commit in the next generation", func() bool { s := p.Stats()[0]; return s.Gen == 1 && s.Committed == from+2 })
	stop()
	checkSequence(t, c.seen(), 0, 1, 2, 3, 4)
}

func TestStopLetsARunningCallFinish(t *testing.T) {
	w := newWorld(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	c := &recorder{name: "c", before: func(ctx context.Context, _ []bus.Record) error {
		close(entered)
		select {
		case <-leave:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	_, stop := w.run(testConfig(), "me", workers.Subscription{Consumer: c, Classes: []bus.Class{bus.Eager}})
	w.publish(0, 1)
	<-entered
	var wg sync.WaitGroup
	wg.Go(stop)
	close(leave)
	wg.Wait()
	checkSequence(t, c.seen(), 0)
}

func TestBadSubscriptionsAreRefused(t *testing.T) {
	w := newWorld(t)
	f := func(cfg workers.Config, names ...string) {
		t.Helper()
		var subs []workers.Subscription
		for _, n := range names {
			subs = append(subs, workers.Subscription{Consumer: &recorder{name: n}})
		}
		if _, err := workers.New(cfg, w.bus, w.cat, nil, "me", subs, w.log); err == nil {
			t.Errorf("names %q: no error", names)
		}
	}
	f(testConfig(), "same", "same")
	f(testConfig(), "")
	f(testConfig(), "Has/Slash")
	f(workers.Config{}, "ok")
}
