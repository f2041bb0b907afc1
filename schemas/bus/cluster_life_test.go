package bus_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// clusterContext is for what waits for elections.
func clusterContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// replicas is how many copies a shard's stream has.
func replicas(t *testing.T, e *bustest.Env) int {
	t.Helper()
	js, err := jetstream.New(e.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	for {
		s, err := js.Stream(clusterContext(t), "blocks-eager-0")
		if err == nil {
			return s.CachedInfo().Config.Replicas
		}
		if !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

func TestReplicasAreWhatTheServersCanKeep(t *testing.T) {
	t.Parallel()
	for servers, want := range map[int]int{1: 1, 2: 1, 3: 3} {
		e := bustest.StartCluster(t, servers).NewEnv(t)
		e.Open(t)
		if got := replicas(t, e); got != want {
			t.Errorf("%d servers: %d replicas", servers, got)
		}
		if servers < 3 {
			continue
		}
		e.Open(t, func(c *bus.Config) { c.Replicas = 1 }).Close()
		if got := replicas(t, e); got != 1 {
			t.Errorf("1 replica is asked for, %d are there", got)
		}
		b := e.Open(t) // more copies of what is there
		if got := replicas(t, e); got != 3 {
			t.Errorf("after an opening that chooses: %d replicas", got)
		}
		publish(t, b, telemetry.NewID(), 0, 3, 100)
		if head, err := b.Head(clusterContext(t), eager0); err != nil || head.Seq != 3 {
			t.Errorf("head %s, %v", head, err)
		}
	}
}

// TestOpenWithoutOneServer opens a bus that exists, and makes one, while a server is away.
func TestOpenWithoutOneServer(t *testing.T) {
	t.Parallel()
	c := bustest.StartCluster(t, 3)
	old := c.NewEnv(t)
	b := old.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 100)
	leader, err := c.Leader("blocks-eager-0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(leader); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	b = old.Open(t)
	t.Logf("opened in %v while the leader had just died", time.Since(begun).Round(time.Millisecond))
	if g := b.Generations(eager0); len(g) != 1 {
		t.Errorf("generations %+v", g)
	}
	readBlocks(t, newReader(t, b, start(b, eager0), nil), 5)
	fresh := c.NewEnv(t)
	b = fresh.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 100)
	if got := replicas(t, fresh); got < 2 {
		t.Errorf("%d replicas while one of three servers is away", got)
	}
	if err := c.Restart(clusterContext(t), leader); err != nil {
		t.Fatal(err)
	}
	fresh.Open(t)
	if got := replicas(t, fresh); got != 3 {
		t.Errorf("%d replicas when the third server is back", got)
	}
}

// TestLostClusterOpensOneGeneration: all servers lose their disks; processes that live and processes that come agree on one
// new generation for each shard, and it is above the old one.
func TestLostClusterOpensOneGeneration(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for elections")
	}
	t.Parallel()
	c := bustest.StartCluster(t, 3)
	e := c.NewEnv(t)
	with := func(c *bus.Config) { c.ShardsPerClass = 2 }
	living := []*bus.Bus{e.Open(t, with), e.Open(t, with)}
	publish(t, living[0], process0(living[0]), 0, 5, 100)
	var wg sync.WaitGroup
	for i := range c.Size() {
		wg.Go(func() {
			if err := c.Wipe(i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range c.Size() {
		if err := c.Launch(i); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	buses := make([]*bus.Bus, 6)
	for i := range buses {
		wg.Go(func() {
			b, err := e.TryOpen(t, with)
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
	t.Logf("opened in %v", time.Since(begun).Round(time.Millisecond))
	ctx := clusterContext(t)
	for _, b := range append(buses, living...) {
		for _, shard := range b.Shards() {
			for len(b.Generations(shard)) < 2 && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond) // a poll with a deadline: those that live find out by themselves
			}
			if got, want := b.Generations(shard), buses[0].Generations(shard); !slices.Equal(got, want) || len(got) != 2 || got[1].FirstSeq <= 5 {
				t.Errorf("shard %s: generations %+v and %+v", shard, got, want)
			}
		}
	}
	publish(t, living[1], process0(living[1]), 0, 3, 100)
	readBlocks(t, newReader(t, buses[0], start(buses[0], eager0), nil), 3)
}

// process0 is a process whose records are in shard 0.
func process0(b *bus.Bus) telemetry.ID {
	for {
		if id := telemetry.NewID(); b.ShardOf(bus.Eager, id) == eager0 {
			return id
		}
	}
}

// TestFlushBetweenServers asks an owner that is connected to another server.
func TestFlushBetweenServers(t *testing.T) {
	t.Parallel()
	c := bustest.StartCluster(t, 3)
	e := c.NewEnv(t)
	var buses []*bus.Bus
	for i := range c.Size() {
		own := *e
		own.URLs = c.URLOf(e, i)
		buses = append(buses, own.Open(t))
	}
	for i, owner := range buses {
		stop, err := owner.ServeFlush(bus.TargetViews, eager0, func(context.Context, bus.FlushRequest) bus.FlushReply {
			return bus.FlushReply{CommitNo: int64(i)}
		})
		if err != nil {
			t.Fatal(err)
		}
		for j, asker := range buses {
			ctx := testContext(t)
			reply, err := asker.Flush(ctx, eager0, bus.FlushRequest{Target: bus.TargetViews})
			for errors.Is(err, bus.ErrNoOwner) && ctx.Err() == nil { // the servers tell one another
				reply, err = asker.Flush(ctx, eager0, bus.FlushRequest{Target: bus.TargetViews})
			}
			if err != nil || reply.CommitNo != int64(i) {
				t.Errorf("server %d asks server %d: %+v, %v", j, i, reply, err)
			}
		}
		stop()
		for _, asker := range buses {
			begun := time.Now()
			_, err := asker.Flush(testContext(t), eager0, bus.FlushRequest{Target: bus.TargetViews})
			for err == nil && time.Since(begun) < timeout {
				_, err = asker.Flush(testContext(t), eager0, bus.FlushRequest{Target: bus.TargetViews})
			}
			if !errors.Is(err, bus.ErrNoOwner) || time.Since(begun) > 5*time.Second {
				t.Errorf("without an owner: %v after %v", err, time.Since(begun))
			}
		}
	}
}

// TestSlowReader reads nothing for a while and then everything, over a connection that is far behind meanwhile.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	c := bustest.StartCluster(t, 3)
	e := c.NewEnv(t)
	writer, b := e.Open(t), e.Open(t, func(c *bus.Config) { c.ReadAhead = 4 << 20 })
	r := newReader(t, b, start(b, eager0), nil)
	process := telemetry.NewID()
	const blocks, size = 60, 700 << 10
	publish(t, writer, process, 0, 1, size)
	readBlocks(t, r, 1)
	publish(t, writer, process, 1, blocks-1, size)
	records, _ := readBlocks(t, r, blocks-1)
	for i, rec := range records {
		if rec.BeginTime != int64(i+1)*1000 {
			t.Fatalf("record %d is block at %d", i, rec.BeginTime)
		}
	}
}

// TestTrimInACluster trims while frames are published: how long publishers wait for a purge of 8 MB of three copies.
func TestTrimInACluster(t *testing.T) {
	t.Parallel()
	c := bustest.StartCluster(t, 3)
	e := c.NewEnv(t)
	b := e.Open(t, func(c *bus.Config) { c.KeepArchivedBytes = 2 << 20 })
	process := telemetry.NewID()
	const blocks, size = 64, 700 << 10
	publish(t, b, process, 0, blocks, size)
	readBlocks(t, newReader(t, b, start(b, eager0), nil), blocks)
	var slowest time.Duration
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := blocks; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			begun := time.Now()
			if err := b.Publish(testContext(t), bus.Eager, bustest.Block(process, n, 1000)); err != nil {
				t.Error(err)
				return
			}
			slowest = max(slowest, time.Since(begun))
		}
	})
	begun := time.Now()
	if err := b.Trim(testContext(t), bus.Position{Shard: eager0, Seq: blocks}); err != nil {
		t.Error(err)
	}
	took := time.Since(begun)
	close(done)
	wg.Wait()
	stats, err := b.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[0].Bytes; got > 8<<20 {
		t.Errorf("%d bytes are left", got)
	}
	t.Logf("%d MB trimmed in %v; the slowest publication meanwhile took %v", blocks*size>>20, took.Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// TestPublishFigures logs what a publication costs in a cluster with three copies.
func TestPublishFigures(t *testing.T) {
	if testing.Short() {
		t.Skip("measures for seconds")
	}
	c := bustest.StartCluster(t, 3)
	e := c.NewEnv(t)
	b := e.Open(t)
	for _, waiting := range []int{1, 32} {
		var (
			mu   sync.Mutex
			took []time.Duration
			wg   sync.WaitGroup
		)
		cpu, err := c.CPU()
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for range waiting {
			process := telemetry.NewID()
			wg.Go(func() {
				for n := 0; time.Since(begun) < 2*time.Second; n++ {
					at := time.Now()
					if err := b.Publish(testContext(t), bus.Eager, bustest.Block(process, n, 34_000)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(at))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		after, err := c.CPU()
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(took)
		t.Logf("%d waiting: %d blocks of 34 kB/s, acknowledged after %v (p50), %v (p99); the servers' CPU %v a block", waiting,
			int(float64(len(took))/time.Since(begun).Seconds()), took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond),
			((after - cpu) / time.Duration(len(took))).Round(time.Microsecond))
	}
	var heads []time.Duration
	for range 200 {
		begun := time.Now()
		if _, err := b.Head(testContext(t), eager0); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, time.Since(begun))
	}
	slices.Sort(heads)
	t.Logf("head: p50 %v, p99 %v, first %v", heads[100].Round(10*time.Microsecond), heads[198].Round(10*time.Microsecond), heads[199].Round(10*time.Microsecond))
}
