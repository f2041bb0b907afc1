package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// faultyCatalog fails at random: before the effect, after it, and at heartbeats, so that owners lose leases while they work.
type faultyCatalog struct {
	catalog.Catalog
	mu  sync.Mutex
	rnd *rand.Rand
}

var errInjected = errors.New("injected")

func (c *faultyCatalog) chance(percent int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(100) < percent
}

func (c *faultyCatalog) CommitArchive(ctx context.Context, commit *catalog.ArchiveCommit) error {
	if c.chance(10) {
		return errInjected
	}
	err := c.Catalog.CommitArchive(ctx, commit)
	if c.chance(10) {
		return errors.Join(catalog.ErrOutcomeUnknown, errInjected)
	}
	return err
}

func (c *faultyCatalog) ExistingBlocks(ctx context.Context, keys []catalog.BlockKey) ([]bool, error) {
	if c.chance(10) {
		return nil, errInjected
	}
	return c.Catalog.ExistingBlocks(ctx, keys)
}

func (c *faultyCatalog) KeepLeases(ctx context.Context, held []catalog.Lease, ttl time.Duration) ([]catalog.Lease, int64, error) {
	if c.chance(30) {
		return nil, 0, errInjected
	}
	return c.Catalog.KeepLeases(ctx, held, ttl)
}

// TestChaos lets three archives fight for the shards, with leases that get lost, steps that fail, commits whose answer is
// lost and deaths at any step, while blocks and copies of blocks arrive. In the end each block is archived once.
func TestChaos(t *testing.T) {
	w := newWorld(t)
	faulty := &faultyCatalog{Catalog: w.cat, rnd: rand.New(rand.NewPCG(7, 7))}
	cfg := archive.DefaultConfig()
	cfg.PackAge, cfg.LazyAge, cfg.PackBytes = 5*time.Millisecond, 5*time.Millisecond, 20_000
	cfg.Grace, cfg.RetryMin, cfg.RetryMax = 0, time.Millisecond, 5*time.Millisecond
	cfg.Ownership.Poll, cfg.Ownership.Heartbeat, cfg.Ownership.Expiry = 3*time.Millisecond, 15*time.Millisecond, 60*time.Millisecond
	cfg.Ownership.RetryMin, cfg.Ownership.RetryMax = time.Millisecond, 5*time.Millisecond

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var lives atomic.Int64
	for i := range 3 {
		wg.Go(func() {
			for life := 0; ctx.Err() == nil; life++ {
				lives.Add(1)
				w.liveAndDie(ctx, cfg, faulty, fmt.Sprint("owner ", i), uint64(10*life+i))
			}
		})
	}
	posted := blocks(0, 400, 700)
	rnd := rand.New(rand.NewPCG(1, 2))
	for from := 0; from < len(posted); from += 20 {
		part := posted[from : from+20]
		for range 4 {
			part = append(slices.Clip(part), posted[rnd.IntN(from+20)])
		}
		w.publishAll(bus.Eager, part)
		w.publish(bus.Raw, posted[rnd.IntN(from+20)])
		head, err := w.bus.Head(t.Context(), eager)
		if err != nil {
			t.Fatal(err)
		}
		w.eventually(func() error { // also in the storm it goes forward
			c, err := w.cat.Checkpoint(t.Context(), catalog.ConsumerArchive, catalog.ShardID{Class: 'e'})
			if err == nil && c.Seq+1 < head.Seq {
				err = fmt.Errorf("archived to %d of %d", c.Seq, head.Seq)
			}
			return err
		})
	}
	cancel()
	wg.Wait()
	if lives.Load() < 10 {
		t.Errorf("%d lives only: this was no storm", lives.Load())
	}
	w.start(patient(), "calm", nil)
	w.flush(eager)
	w.flush(raw)
	if rows := w.archived(posted); len(rows) != len(posted) {
		t.Fatalf("%d rows of %d", len(rows), len(posted))
	}
	w.checkPacks(eager, 0)
	w.checkPacks(raw, 0)
	t.Logf("%d lives", lives.Load())
	if records := int64(len(posted) + len(posted)/20*4 + len(posted)/20); int64(len(w.skips(eager))+len(w.skips(raw))) != records-int64(len(posted)) {
		t.Fatalf("%d and %d skips for %d records", len(w.skips(eager)), len(w.skips(raw)), records)
	}
}

// liveAndDie runs an archive until a step at random kills it, or ctx is done.
func (w *world) liveAndDie(ctx context.Context, cfg archive.Config, cat catalog.Catalog, owner string, seed uint64) {
	ctx, die := context.WithCancel(ctx)
	defer die()
	a, err := archive.New(cfg, w.bus, cat, w.lake, owner, w.env.Log)
	if err != nil {
		w.t.Error(err)
		return
	}
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(3, seed))
	a.SetHook(func(archive.Step) error {
		mu.Lock()
		defer mu.Unlock()
		switch n := rnd.IntN(100); {
		case n < 4:
			die()
			return errInjected
		case n < 14:
			return errInjected
		}
		return nil
	})
	if err := a.Run(ctx); err != nil {
		w.t.Error(err)
	}
}
