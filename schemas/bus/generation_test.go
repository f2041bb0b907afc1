package bus_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// reopen closes b, stops the server, lets change alter its folder, and opens a new Bus on what is there.
func reopen(t *testing.T, e *bustest.Env, b *bus.Bus, change func(dir string)) *bus.Bus {
	t.Helper()
	b.Close()
	e.Server.Shutdown()
	change(e.Dir)
	server, err := embedded.Start(embedded.Options{StoreDir: e.Dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	e.Server = server
	return e.Open(t)
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// checkNewGeneration says that b is in generation gen, above position above, and takes and serves blocks.
func checkNewGeneration(t *testing.T, b *bus.Bus, gen int32, above uint64) {
	t.Helper()
	g := b.Current(eager0)
	if g.Gen != gen || g.FirstSeq <= above {
		t.Fatalf("generation %+v, want number %d above sequence %d", g, gen, above)
	}
	publish(t, b, telemetry.NewID(), 0, 2, 100)
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), 2)
	if got := frames[0].Position; got.Seq != g.FirstSeq || got.Gen != gen {
		t.Fatalf("first frame of generation %+v is at %s", g, got)
	}
	if head, err := b.Head(testContext(t), eager0); err != nil || head != frames[1].Position {
		t.Fatalf("head %s, error %v, want %s", head, err, frames[1].Position)
	}
}

func TestRestartContinuesTheGeneration(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	process := telemetry.NewID()
	publish(t, b, process, 0, 5, 1000)
	e.Generations.SetArchived(bus.Position{Shard: eager0, Seq: 5})
	b = reopen(t, e, b, func(string) {})
	if g := b.Current(eager0); g.Gen != 0 || len(b.Generations(eager0)) != 1 {
		t.Fatalf("generation %+v after a clean restart", g)
	}
	publish(t, b, process, 5, 5, 1000)
	records, _ := readBlocks(t, newReader(t, b, start(b, eager0), nil), 10)
	for i, r := range records {
		if r.BeginTime != int64(i)*1000 {
			t.Fatalf("record %d is block at %d", i, r.BeginTime)
		}
	}
}

func TestDeletedStoreFolderOpensANewGeneration(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 1000)
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), 5)
	e.Packs.Add(frames[:3]...)
	e.Generations.SetArchived(frames[2].Position)

	b = reopen(t, e, b, func(dir string) { removeAll(t, dir) })
	checkNewGeneration(t, b, 1, 5)

	old := newReader(t, b, bus.Position{Shard: eager0, Gen: 0, Seq: 1}, e.Packs)
	if _, frames := readBlocks(t, old, 2); frames[0].Seq != 2 {
		t.Fatalf("closed generation: first frame %s", frames[0].Position)
	}
	serveArchive(t, b, func() int32 { return 1 })
	if _, err := old.Next(testContext(t)); !errors.Is(err, io.EOF) {
		t.Fatalf("end of the closed generation: error %v, want io.EOF", err)
	}
	b = reopen(t, e, b, func(dir string) { removeAll(t, dir) })
	checkNewGeneration(t, b, 2, b.Generations(eager0)[1].FirstSeq)
}

func TestStoreOlderThanTheArchiveOpensANewGeneration(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 1000)
	backup := filepath.Join(t.TempDir(), "backup")
	b = reopen(t, e, b, func(dir string) { copyFolder(t, dir, backup) })
	publish(t, b, telemetry.NewID(), 5, 5, 1000)
	e.Generations.SetArchived(bus.Position{Shard: eager0, Seq: 10})
	b = reopen(t, e, b, func(dir string) {
		removeAll(t, dir)
		copyFolder(t, backup, dir)
	})
	checkNewGeneration(t, b, 1, 10)
	b = reopen(t, e, b, func(string) {})
	if g := b.Current(eager0); g.Gen != 1 {
		t.Fatalf("generation %+v after another restart", g)
	}
}

// TestStreamThatWentBackAcknowledgesNothing brings the server back from a backup under a Bus that is open: what it stores at sequences
// that archive has passed would never be read, so nothing is acknowledged before there is a new generation.
func TestStreamThatWentBackAcknowledgesNothing(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	process := telemetry.NewID()
	publish(t, b, process, 0, 5, 1000)
	backup := filepath.Join(t.TempDir(), "backup")
	restart := func(change func()) {
		t.Helper()
		e.Server.Shutdown()
		change()
		if err := e.Server.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	restart(func() { copyFolder(t, e.Dir, backup) })
	ctx := testContext(t)
	send := func(n int) (*bus.Record, bool) {
		r := bustest.Block(process, n, 1000)
		return r, b.Publish(ctx, bus.Eager, r) == nil
	}
	for n := 5; n < 30; {
		if _, ok := send(n); ok {
			n++
		}
	}
	head, err := b.Head(ctx, eager0)
	if err != nil {
		t.Fatal(err)
	}
	e.Generations.SetArchived(head)
	restart(func() {
		removeAll(t, e.Dir)
		copyFolder(t, backup, e.Dir)
	})
	acked := map[int64]bool{}
	for n := 30; len(acked) < 20; n++ {
		if ctx.Err() != nil {
			t.Fatal("nothing is acknowledged any more")
		}
		if r, ok := send(n); ok {
			acked[r.BeginTime] = true
		}
	}
	// On a slow machine the stream has given all sequences once more before it is looked at: what follows is acknowledged where it is.
	for _, at := range []bus.Position{head, {Shard: eager0, Gen: 1}} {
		if len(acked) == 0 {
			break
		}
		r, err := b.NewReader(ctx, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		for len(acked) > 0 {
			f, err := r.Next(ctx)
			if err != nil {
				break
			}
			for _, rec := range f.Records() {
				delete(acked, rec.BeginTime)
			}
		}
		r.Close()
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged records are where archive does not look", len(acked))
	}
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func testLostCatalogKeepsTheStreamsFrames(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 1000)
	e.Generations = bustest.NewGenerations()
	b.Close()
	b = e.Open(t)
	readBlocks(t, newReader(t, b, start(b, eager0), nil), 5)
}

// TestReplacedStreamKeepsItsFrames: the stream was made anew by somebody who did not tell this catalog, and holds frames.
func TestReplacedStreamKeepsItsFrames(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 1000)
	mine := e.Generations
	e.Generations = bustest.NewGenerations()
	b = reopen(t, e, b, func(dir string) { removeAll(t, dir) })
	publish(t, b, telemetry.NewID(), 0, 3, 1000)
	b.Close()
	e.Generations = mine
	b = e.Open(t)
	if g := b.Current(eager0); g.Gen != 1 {
		t.Fatalf("generation %+v, want 1", g)
	}
	readBlocks(t, newReader(t, b, start(b, eager0), nil), 3)
}

func testProcessesThatOpenTogetherAgree(t *testing.T, e *bustest.Env) {
	const processes = 8
	buses := make([]*bus.Bus, processes)
	var wg sync.WaitGroup
	for i := range buses {
		wg.Go(func() {
			b, err := e.TryOpen(t)
			if err != nil {
				t.Error(err)
				return
			}
			buses[i] = b
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, b := range buses {
		if b.Current(eager0) != buses[0].Current(eager0) {
			t.Errorf("generations %+v and %+v", b.Current(eager0), buses[0].Current(eager0))
		}
	}
}

func testOtherShardCountIsRefused(t *testing.T, e *bustest.Env) {
	with := func(n int) func(*bus.Config) { return func(c *bus.Config) { c.ShardsPerClass = n } }
	e.Open(t, with(3)).Close()
	for _, n := range []int{1, 2, 4} {
		if _, err := e.TryOpen(t, with(n)); !errors.Is(err, bus.ErrShardCount) {
			t.Errorf("%d shards after 3: %v", n, err)
		}
	}
	e.Open(t, with(3))
}

// The first generation of all tells the count, also when a process dies right after it.
func testShardCountOfAHalfMadeBus(t *testing.T, e *bustest.Env) {
	e.Generations.FailAfter(1)
	with := func(n int) func(*bus.Config) { return func(c *bus.Config) { c.ShardsPerClass = n } }
	if _, err := e.TryOpen(t, with(3)); err == nil {
		t.Fatal("opened without a store")
	}
	e.Generations.FailAfter(-1)
	if _, err := e.TryOpen(t, with(2)); !errors.Is(err, bus.ErrShardCount) {
		t.Errorf("2 shards after 3: %v", err)
	}
	e.Open(t, with(3))
}

// A bus is of one catalog: another one's positions would mean other frames, and it would trim what this one needs.
func testBusOfAnotherCatalogIsRefused(t *testing.T, e *bustest.Env) {
	open := func(catalog string) error {
		b, err := e.TryOpen(t, func(c *bus.Config) { c.Catalog = catalog })
		if err == nil {
			b.Close()
		}
		return err
	}
	for _, catalog := range []string{"", "mine", "mine", ""} { // a stream of before is adopted
		if err := open(catalog); err != nil {
			t.Fatalf("catalog %q: %v", catalog, err)
		}
	}
	if err := open("other"); err == nil || !strings.Contains(err.Error(), "belongs to another catalog") {
		t.Errorf("another catalog: %v", err)
	}
	// One that knows no generation and wants more shards makes nothing before it is refused.
	stranger := *e
	stranger.Generations = bustest.NewGenerations()
	_, err := stranger.TryOpen(t, func(c *bus.Config) { c.Catalog, c.ShardsPerClass = "other", 3 })
	if err == nil || !strings.Contains(err.Error(), "belongs to another catalog") {
		t.Errorf("another catalog with more shards: %v", err)
	}
	js, err := e.Connect(t).JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for name := range js.StreamNames() {
		if strings.HasSuffix(name, "-2") {
			t.Errorf("stream %s was made on a foreign bus", name)
		}
	}
}
