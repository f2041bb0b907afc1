package bus_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// stream returns the JetStream stream under a shard, for damage.
func stream(t *testing.T, e *bustest.Env, b *bus.Bus, s bus.Shard) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(e.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(testContext(t), b.Current(s).Stream)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func testReaderTakesPacksWhereTheBusIsTrimmed(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 20, 1000)
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), 20)
	for i := 0; i < 15; i += 5 {
		e.Packs.Add(frames[i : i+5]...)
	}
	behind := newReader(t, b, start(b, eager0), e.Packs)
	readBlocks(t, behind, 2) // attached to the bus, with frames read ahead
	if err := stream(t, e, b, eager0).Purge(testContext(t), jetstream.WithPurgeSequence(13)); err != nil {
		t.Fatal(err)
	}
	for after := range uint64(20) {
		r := newReader(t, b, bus.Position{Shard: eager0, Seq: after}, e.Packs)
		records, got := readBlocks(t, r, 20-int(after))
		if got[0].Seq != after+1 || records[len(records)-1].BeginTime != 19_000 {
			t.Fatalf("after %d: frames %s..%s", after, got[0].Position, got[len(got)-1].Position)
		}
	}
	if records, _ := readBlocks(t, behind, 18); records[0].BeginTime != 2000 {
		t.Fatalf("the reader that was overtaken goes on at %d", records[0].BeginTime)
	}
}

func testHoleIsReportedNotSkipped(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 20, 1000)
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), 20)
	e.Packs.Add(frames[:5]...)
	e.Packs.Add(frames[6:10]...)
	if err := stream(t, e, b, eager0).Purge(testContext(t), jetstream.WithPurgeSequence(9)); err != nil {
		t.Fatal(err)
	}
	for name, packs := range map[string]bus.PackSource{"no packs": nil, "packs with a hole": e.Packs} {
		r := newReader(t, b, bus.Position{Shard: eager0, Seq: 5}, packs)
		for range 2 { // and it stays so
			if _, err := r.Next(testContext(t)); !errors.Is(err, bus.ErrHole) {
				t.Errorf("%s: error %v, want ErrHole", name, err)
			}
		}
	}
	if _, err := newReader(t, b, bus.Position{Shard: eager0, Seq: 30}, e.Packs).Next(testContext(t)); !errors.Is(err, bus.ErrHole) {
		t.Errorf("after the end: error %v, want ErrHole", err)
	}
}

func testReaderWaitsAndEndsWithItsContext(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	r := newReader(t, b, start(b, eager0), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want the context's", err)
	}
	publish(t, b, telemetry.NewID(), 0, 1, 10)
	readBlocks(t, r, 1)
	r.Close()
	if _, err := r.Next(testContext(t)); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("after Close: error %v, want ErrClosed", err)
	}
}

func testUnknownGenerationIsRefused(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	if _, err := b.NewReader(testContext(t), bus.Position{Shard: eager0, Gen: 7}, nil); err == nil {
		t.Error("no error")
	}
}

// TestServerRestartsUnderLoad restarts the server again and again while producers publish and a reader follows: whatever
// was acknowledged is read exactly once, in order.
func TestServerRestartsUnderLoad(t *testing.T) {
	t.Run("in process", func(t *testing.T) {
		e := bustest.NewEnv(t)
		restartUnderLoad(t, e.Server, e.Open(t))
	})
	t.Run("over TCP", func(t *testing.T) {
		server, err := embedded.Start(embedded.Options{StoreDir: t.TempDir(), Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Shutdown)
		nc, err := nats.Connect(server.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		b, err := bus.Open(testContext(t), nc, bustest.NewGenerations(), nil, bus.DefaultConfig(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		restartUnderLoad(t, server, b)
	})
}

func restartUnderLoad(t *testing.T, server *embedded.Server, b *bus.Bus) {
	const producers = 4
	acked := make([]int, producers)
	processes := make([]telemetry.ID, producers)
	ctx, cancel := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	for p := range producers {
		processes[p] = telemetry.NewID()
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := b.Publish(testContext(t), bus.Eager, bustest.Block(processes[p], acked[p], 5000)); err != nil {
					t.Errorf("publish across a restart: %v", err)
					return
				}
				acked[p]++
			}
		})
	}
	r := newReader(t, b, start(b, eager0), nil)
	total := 0
	seen := map[telemetry.ID]int64{}
	read := func(n int) {
		records, _ := readBlocks(t, r, n)
		for _, rec := range records {
			if rec.BeginTime != seen[rec.ProcessID]*1000 {
				t.Fatalf("process %s: block at %d, want %d", rec.ProcessID, rec.BeginTime, seen[rec.ProcessID]*1000)
			}
			seen[rec.ProcessID]++
		}
		total += len(records)
	}
	for range 5 {
		read(50)
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	read(50)
	cancel()
	wg.Wait()
	want := 0
	for p := range producers {
		want += acked[p]
	}
	if total < want {
		read(want - total)
	}
	if total != want {
		t.Errorf("%d records read, %d acknowledged", total, want)
	}
}

// TestStoreFolderDeletedUnderARunningBus: the Bus opens the next generation by itself and goes on.
func TestStoreFolderDeletedUnderARunningBus(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 1000)
	r := newReader(t, b, start(b, eager0), e.Packs)
	readBlocks(t, r, 5)
	e.Server.Shutdown()
	removeAll(t, e.Dir)
	if err := e.Server.Restart(); err != nil {
		t.Fatal(err)
	}
	serveArchive(t, b, func() int32 { return 1 })
	if _, err := r.Next(testContext(t)); !errors.Is(err, io.EOF) {
		t.Fatalf("reader of the lost generation: error %v, want io.EOF", err)
	}
	checkNewGeneration(t, b, 1, 5)
}

// serveArchive answers as the archive of eager/0 that is at the beginning of a generation. It waits while that is before
// the wanted one.
func serveArchive(t *testing.T, b *bus.Bus, at func() int32) {
	t.Helper()
	stop, err := b.ServeFlush(bus.TargetArchive, eager0, func(ctx context.Context, req bus.FlushRequest) bus.FlushReply {
		for at() < req.Gen && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return bus.FlushReply{Gen: at()}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// TestLatePackOfALostGenerationIsRead: the bus is lost while archive has frames in hand that it writes a pack of later.
func TestLatePackOfALostGenerationIsRead(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	publish(t, b, telemetry.NewID(), 0, 5, 1000)
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), 5)
	r := newReader(t, b, start(b, eager0), e.Packs)
	e.Packs.Add(frames[:3]...)
	e.Generations.SetArchived(frames[2].Position)
	e.Server.Shutdown()
	removeAll(t, e.Dir)
	if err := e.Server.Restart(); err != nil {
		t.Fatal(err)
	}
	readBlocks(t, r, 3)
	var archiveAt atomic.Int32
	wait := func(name string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if f, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: frame %s, error %v", name, f.Position, err)
		}
	}
	wait("no archive runs")
	serveArchive(t, b, archiveAt.Load)
	wait("archive is not done")
	e.Packs.Add(frames[3:]...)
	archiveAt.Store(1)
	readBlocks(t, r, 2)
	if _, err := r.Next(testContext(t)); !errors.Is(err, io.EOF) {
		t.Fatalf("error %v, want io.EOF", err)
	}
	if _, err := newReader(t, b, bus.Position{Shard: eager0, Seq: 3}, nil).Next(testContext(t)); !errors.Is(err, io.EOF) {
		t.Fatalf("without packs: error %v, want io.EOF", err)
	}
}
