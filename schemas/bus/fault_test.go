package bus_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func TestPublishWithoutAServerIsUnavailableInTime(t *testing.T) {
	e := bustest.NewEnv(t)
	const limit = 300 * time.Millisecond
	b := e.Open(t, func(c *bus.Config) { c.PublishTimeout = limit })
	publish(t, b, telemetry.NewID(), 0, 3, 1000)
	e.Server.Shutdown()
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range 50 {
		wg.Go(func() {
			err := b.Publish(testContext(t), bus.Eager, bustest.Block(telemetry.NewID(), i, 1000))
			if !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("error %v, want ErrUnavailable", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(begin); d > 10*limit {
		t.Errorf("50 publishers waited %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit/10)
	defer cancel()
	begin = time.Now()
	if err := b.Publish(ctx, bus.Eager, bustest.Block(telemetry.NewID(), 1, 10)); err == nil || time.Since(begin) > 10*limit {
		t.Errorf("error %v after %v", err, time.Since(begin))
	}
	if _, err := b.Head(testContext(t), eager0); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("head: error %v, want ErrUnavailable", err)
	}
	if err := e.Server.Restart(); err != nil {
		t.Fatal(err)
	}
	ctx = testContext(t)
	for b.Publish(ctx, bus.Eager, bustest.Block(telemetry.NewID(), 3, 1000)) != nil {
		if ctx.Err() != nil {
			t.Fatal("the bus does not come back after a restart")
		}
	}
}

// hangingStore is a store that can stop to answer.
type hangingStore struct {
	bus.GenerationStore
	hangs     atomic.Bool
	waiting   chan struct{} // receives when a call hangs, if there is place
	unbounded atomic.Int64  // calls that would wait forever
}

func (h *hangingStore) Generations(ctx context.Context) ([]bus.Generation, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		h.unbounded.Add(1)
	}
	if h.hangs.Load() {
		select {
		case h.waiting <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.GenerationStore.Generations(ctx)
}

// TestNobodyWaitsForAStoreThatHangs loses a stream while the store hangs: a reader goes when its context ends, though another one
// looks after the stream, and no call to the store is without a bound.
func TestNobodyWaitsForAStoreThatHangs(t *testing.T) {
	e := bustest.NewEnv(t)
	store := &hangingStore{GenerationStore: e.Generations, waiting: make(chan struct{}, 1)}
	nc := e.Connect(t)
	b, err := bus.Open(t.Context(), nc, store, e.Objects, bus.DefaultConfig(), e.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	publish(t, b, telemetry.NewID(), 0, 3, 100)
	store.hangs.Store(true)
	js, err := jetstream.New(nc)
	if err == nil {
		err = js.DeleteStream(t.Context(), b.Current(eager0).Stream)
	}
	if err != nil {
		t.Fatal(err)
	}
	const patience = 300 * time.Millisecond
	var wg sync.WaitGroup
	read := func(limit time.Duration) {
		wg.Go(func() {
			r, err := b.NewReader(t.Context(), start(b, eager0), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			begun := time.Now()
			if _, err := r.Next(ctx); err == nil || time.Since(begun) > limit+2*patience {
				t.Errorf("reader with %v: error %v after %v", limit, err, time.Since(begun))
			}
		})
	}
	read(10 * patience)
	<-store.waiting
	read(patience)
	read(patience)
	wg.Wait()
	if _, err := b.Head(testContext(t), eager0); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("head of a stream that is gone: %v", err)
	}
	store.hangs.Store(false)
	if n := store.unbounded.Load(); n != 0 {
		t.Errorf("%d calls to the store without a bound", n)
	}
	ctx := testContext(t)
	for b.Current(eager0).Gen == 0 {
		if ctx.Err() != nil {
			t.Fatal("no new generation after the store is back")
		}
		r := newReader(t, b, bus.Position{Shard: eager0}, nil)
		if _, err := r.Next(ctx); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bus.ErrHole) {
			t.Fatal(err)
		}
	}
}

// TestOldClaimIsNotAcknowledged publishes a body that was put so long ago, by a process that was stopped meanwhile, that it may have
// been collected: its record must not be acknowledged.
func TestOldClaimIsNotAcknowledged(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	large := bustest.Block(telemetry.NewID(), 1, 3<<20)
	if err := b.Publish(testContext(t), bus.Eager, large); err != nil {
		t.Fatal(err)
	}
	b.SetClaimAge(time.Nanosecond)
	if err := b.Publish(testContext(t), bus.Eager, large); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	if err := b.Publish(testContext(t), bus.Eager, bustest.Block(telemetry.NewID(), 1, 1000)); err != nil {
		t.Errorf("a body in its frame: %v", err)
	}
}

// TestFlippedBitInTheStoreIsNotServed changes a byte of a frame in the server's file: the frames before it are served,
// nothing is silently wrong or missing, and a pack of the frame heals it.
func TestFlippedBitInTheStoreIsNotServed(t *testing.T) {
	e := bustest.NewEnv(t)
	b := e.Open(t)
	process := telemetry.NewID()
	publish(t, b, process, 0, 10, 5000)
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), 10)
	flipped := bytes.Clone(frames[4].Data[1000:1100])
	b = reopen(t, e, b, func(dir string) { flip(t, dir, flipped) })
	r := newReader(t, b, start(b, eager0), nil)
	served := 0
	for {
		f, err := r.Next(testContext(t))
		if errors.Is(err, bus.ErrHole) {
			break
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", served, err)
		}
		for _, rec := range f.Records() {
			if rec.Err != nil {
				if f.Seq != 5 {
					t.Fatalf("frame %d: %v", f.Seq, rec.Err)
				}
			} else if !bytes.Equal(rec.Body, bustest.Block(process, int(f.Seq-1), 5000).Body) {
				t.Fatalf("frame %d is served changed", f.Seq)
			}
		}
		if served++; served == 10 {
			return // its checksum told
		}
	}
	if served != 4 {
		t.Fatalf("%d frames before the damage, want 4", served)
	}
	e.Packs.Add(frames[3:7]...)
	healed, _ := readBlocks(t, newReader(t, b, start(b, eager0), e.Packs), 10)
	if healed[4].BeginTime != 4000 {
		t.Errorf("fifth block is at %d", healed[4].BeginTime)
	}
}

// flip changes one bit of the only place under dir that holds pattern.
func flip(t *testing.T, dir string, pattern []byte) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if i := bytes.Index(data, pattern); i >= 0 {
			found++
			data[i+10] ^= 1
			return os.WriteFile(path, data, 0o600)
		}
		return nil
	})
	if err != nil || found != 1 {
		t.Fatalf("pattern found in %d files, error %v", found, err)
	}
}
