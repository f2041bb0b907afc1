package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

type sourceFunc func(ctx context.Context, id telemetry.ID) (telemetry.Tag, bool, error)

func (f sourceFunc) StreamTag(ctx context.Context, id telemetry.ID) (telemetry.Tag, bool, error) {
	return f(ctx, id)
}

func id(n int) telemetry.ID { return telemetry.ID{0: byte(n >> 8), 1: byte(n), 15: 1} }

func TestTagsComeFromRegistrationsThenTheSource(t *testing.T) {
	var asked atomic.Int64
	c := newTagCache(sourceFunc(func(_ context.Context, want telemetry.ID) (telemetry.Tag, bool, error) {
		asked.Add(1)
		return telemetry.TagImage, want == id(2), nil
	}), DefaultConfig())
	f := func(n int, want telemetry.Tag, questions int64) {
		t.Helper()
		if got := c.tag(t.Context(), id(n)); got != want {
			t.Errorf("tag of %d = %s, want %s", n, got, want)
		}
		if asked.Load() != questions {
			t.Errorf("asked %d times, want %d", asked.Load(), questions)
		}
	}
	c.learn(id(1), telemetry.TagCPU)
	f(1, telemetry.TagCPU, 0)
	f(2, telemetry.TagImage, 1)
	f(2, telemetry.TagImage, 1)
	f(3, telemetry.TagUnknown, 2)
	f(3, telemetry.TagUnknown, 2) // believed for a while
	c.learn(id(3), telemetry.TagLog)
	f(3, telemetry.TagLog, 2)
	c.learn(id(3), telemetry.TagCPU) // the first registration wins
	f(3, telemetry.TagLog, 2)
	if s := c.snapshot(); s.Entries != 3 || s.Hits != 5 || s.Misses != 2 {
		t.Errorf("stats = %+v", s)
	}
}

func TestUnknownTagIsAskedAgainAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := false
		cfg := DefaultConfig()
		c := newTagCache(sourceFunc(func(context.Context, telemetry.ID) (telemetry.Tag, bool, error) {
			return telemetry.TagMetrics, known, nil
		}), cfg)
		f := func(want telemetry.Tag) {
			t.Helper()
			if got := c.tag(t.Context(), id(1)); got != want {
				t.Errorf("tag = %s, want %s", got, want)
			}
		}
		f(telemetry.TagUnknown)
		known = true
		time.Sleep(cfg.TagNegativeTTL - time.Millisecond)
		f(telemetry.TagUnknown)
		time.Sleep(time.Millisecond)
		f(telemetry.TagMetrics)
	})
}

func TestTroubleOfTheSourceMeansUnknownNotAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		c := newTagCache(sourceFunc(func(ctx context.Context, want telemetry.ID) (telemetry.Tag, bool, error) {
			if want == id(1) {
				return 0, false, errors.New("catalog is away")
			}
			<-ctx.Done() // never answers
			return 0, false, ctx.Err()
		}), cfg)
		begin := time.Now()
		for n := 1; n <= 50; n++ { // once it has failed it is left alone for a while
			if got := c.tag(t.Context(), id(n)); got != telemetry.TagUnknown {
				t.Errorf("tag = %s", got)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v, want no time for a source that fails at once", took)
		}
		time.Sleep(cfg.TagNegativeTTL)
		begin = time.Now()
		for n := 2; n <= 50; n++ {
			if got := c.tag(t.Context(), id(n)); got != telemetry.TagUnknown {
				t.Errorf("tag = %s", got)
			}
		}
		if took := time.Since(begin); took != cfg.TagTimeout {
			t.Errorf("took %v, want one timeout of %v for all", took, cfg.TagTimeout)
		}
		if s := c.snapshot(); s.Errors != 2 || s.Unasked != 49+48 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestSourceIsAskedOnceForAStreamAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var asked atomic.Int64
		cfg := DefaultConfig()
		cfg.TagLookups = 2
		c := newTagCache(sourceFunc(func(context.Context, telemetry.ID) (telemetry.Tag, bool, error) {
			asked.Add(1)
			<-release
			return telemetry.TagCPU, true, nil
		}), cfg)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if got := c.tag(t.Context(), id(i%2)); got != telemetry.TagCPU {
					t.Errorf("tag = %s", got)
				}
			})
		}
		synctest.Wait()
		if got := c.tag(t.Context(), id(7)); got != telemetry.TagUnknown {
			t.Errorf("beyond the bound: %s, want unknown at once", got)
		}
		close(release)
		wg.Wait()
		if s := c.snapshot(); asked.Load() != 2 || s.Unasked != 1 {
			t.Errorf("asked %d times, stats %+v", asked.Load(), s)
		}
	})
}

func TestRegistrationThatPassesDuringAQuestionStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := newTagCache(sourceFunc(func(context.Context, telemetry.ID) (telemetry.Tag, bool, error) {
			<-release
			return 0, false, nil
		}), DefaultConfig())
		got := make(chan telemetry.Tag, 1)
		go func() { got <- c.tag(t.Context(), id(1)) }()
		synctest.Wait()
		c.learn(id(1), telemetry.TagNet)
		close(release)
		if tag := <-got; tag != telemetry.TagNet {
			t.Errorf("tag = %s, want net", tag)
		}
		if tag := c.tag(t.Context(), id(1)); tag != telemetry.TagNet {
			t.Errorf("tag afterwards = %s, want net", tag)
		}
	})
}

func TestTagCacheForgetsTheLeastRecentlyUsed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.TagCacheEntries = 3
	c := newTagCache(nil, cfg)
	for n := 1; n <= 3; n++ {
		c.learn(id(n), telemetry.TagCPU)
	}
	c.tag(t.Context(), id(1))
	c.learn(id(4), telemetry.TagCPU) // 2 goes
	c.learn(id(3), telemetry.TagCPU)
	c.learn(id(5), telemetry.TagCPU) // 1 goes
	var left []int
	for n := 1; n <= 5; n++ {
		if c.tag(t.Context(), id(n)) == telemetry.TagCPU {
			left = append(left, n)
		}
	}
	if !slices.Equal(left, []int{3, 4, 5}) {
		t.Errorf("left: %v, want 3 4 5", left)
	}
	// A long random walk never breaks the ring.
	for n := range 10_000 {
		c.learn(id(n*7919%13), telemetry.TagLog)
		c.tag(t.Context(), id(n*104729%11))
	}
	seen := 0
	for i := c.entries[0].next; i != 0; i = c.entries[i].next {
		if c.byID[c.entries[i].id] != i || c.entries[c.entries[i].prev].next != i {
			t.Fatalf("entry %d is out of place", i)
		}
		seen++
	}
	if seen != 3 || len(c.byID) != 3 || len(c.entries) != 4 {
		t.Errorf("%d in the ring, %d by id, %d entries", seen, len(c.byID), len(c.entries))
	}
}

func TestInsertTimesNeverRepeatOrGoBack(t *testing.T) {
	var c insertClock
	c.last.Store(time.Now().Add(time.Hour).UnixMicro()) // as if the clock had been set back by an hour
	const workers, each = 4, 5000
	stamps := make([][]int64, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				stamps[w] = append(stamps[w], c.stamp())
			}
		})
	}
	wg.Wait()
	var all []int64
	for _, s := range stamps {
		if !slices.IsSorted(s) {
			t.Error("a worker's stamps go back")
		}
		all = append(all, s...)
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != workers*each {
		t.Error("stamps repeat")
	}
}

func TestLatencyBucketsCoverEveryDuration(t *testing.T) {
	for us := uint64(0); us < 1<<33; us = us*17/16 + 1 {
		i := latencyBucket(us)
		if i == latencyBuckets-1 {
			continue
		}
		if low := us < 4 || int64(us) >= latencyLimit(i-1); !low || int64(us) >= latencyLimit(i) {
			t.Fatalf("%d µs in bucket %d, which ends at %d", us, i, latencyLimit(i))
		}
	}
	var l latencies
	for ms := range 100 {
		l.add(time.Duration(ms+1) * time.Millisecond)
	}
	s := l.snapshot()
	if s.Count != 100 || s.Max != 100*time.Millisecond || s.P50 < 50*time.Millisecond || s.P50 > 64*time.Millisecond || s.P99 < 99*time.Millisecond {
		t.Errorf("latency = %+v", s)
	}
	if s := new(latencies).snapshot(); s != (Latency{}) {
		t.Errorf("of nothing: %+v", s)
	}
}

func TestReserveOfAFileSystem(t *testing.T) {
	const gib = 1 << 30
	for total, want := range map[uint64]uint64{0: 512 << 20, 5 * gib: 512 << 20, 100 * gib: 5 * gib, 1000 * gib: 50 * gib} {
		if got := (Space{Total: total}).Reserve(); got > want || want-got > 100 {
			t.Errorf("reserve of %d = %d, want %d", total, got, want)
		}
	}
}

func TestFreeSpaceFollowsTheFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, trouble, asked := Space{Free: 10 << 30, Total: 100 << 30}, error(nil), 0
		free := FreeSpace("/data", func(dir string) (Space, error) {
			asked++
			if dir != "/data" {
				t.Errorf("asked for %s", dir)
			}
			return space, trouble
		})
		f := func(ok bool) {
			t.Helper()
			time.Sleep(spaceEvery)
			for range 10 {
				if err := free(); (err == nil) != ok {
					t.Errorf("free() = %v, want ok: %t", err, ok)
				}
			}
		}
		f(true)
		space.Free = 5<<30 - 1
		f(false)
		space.Free = 6 << 30
		f(true)
		trouble = errors.New("input/output error")
		f(false)
		trouble = errors.ErrUnsupported
		f(true)
		if asked != 6 {
			t.Errorf("asked %d times, want once per period", asked)
		}
	})
	if err := FreeSpace(t.TempDir(), nil)(); err != nil {
		t.Logf("this machine's disk: %v", err)
	}
	if err := FreeSpace("/no/such/folder", nil)(); err == nil {
		t.Error("no error for a folder that is not there")
	}
}
