package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// deltas is a catalog whose partitions change by hand.
type deltas struct {
	Catalog
	next catalog.PartitionDelta
}

func (d *deltas) Partitions(context.Context, int64) (catalog.PartitionDelta, error) {
	return d.next, nil
}

// partition makes a partition whose bitmap holds one bit.
func partition(no, begin, end int64, bit int) catalog.Partition {
	p := catalog.Partition{PartNo: no, View: "log_entries", MinTime: begin, MaxTime: end, Key: fmt.Sprint(no), Procs: make([]byte, catalog.ProcessBitmapBytes)}
	p.Procs[bit>>3] |= 1 << (bit & 7)
	return p
}

// TestIndexFollowsTheCatalog compares the index with a plain list through random commits, late news and full answers.
func TestIndexFollowsTheCatalog(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	d := &deltas{}
	x := newPartitionIndex(d)
	live := map[int64]catalog.Partition{}
	var no int64
	for commit := int64(1); commit <= 200; commit++ {
		delta := catalog.PartitionDelta{CommitNo: commit}
		for range rng.IntN(6) {
			no++
			begin := rng.Int64N(1000)
			p := partition(no, begin, begin+rng.Int64N(100), rng.IntN(1024))
			live[no] = p
			delta.Added = append(delta.Added, p)
		}
		for old := range live {
			if rng.IntN(10) == 0 {
				delete(live, old)
				delta.Retired = append(delta.Retired, old)
				delta.Added = slices.DeleteFunc(delta.Added, func(p catalog.Partition) bool { return p.PartNo == old })
			}
		}
		if rng.IntN(20) == 0 {
			delta = catalog.PartitionDelta{Full: true, CommitNo: commit}
			for _, p := range live {
				delta.Added = append(delta.Added, p)
			}
		}
		d.next = delta
		got, err := x.refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.commitNo != commit {
			t.Fatalf("at commit %d, want %d", got.commitNo, commit)
		}
		begin, bit := rng.Int64N(1100), rng.IntN(1025)-1
		end := begin + rng.Int64N(200)
		comparePruned(t, got, live, begin, end, bit)
		comparePruned(t, got, live, math.MinInt64, math.MaxInt64, -1)
	}
}

func comparePruned(t *testing.T, got *partitions, live map[int64]catalog.Partition, begin, end int64, bit int) {
	t.Helper()
	var want []int64
	for no, p := range live {
		if p.MinTime <= end && p.MaxTime >= begin && (bit < 0 || p.Procs[bit>>3]&(1<<(bit&7)) != 0) {
			want = append(want, no)
		}
	}
	pruned := got.prune("log_entries", begin, end, bit)
	if !slices.IsSortedFunc(pruned, newestFirst) {
		t.Fatalf("commit %d: not newest first", got.commitNo)
	}
	var have []int64
	for _, p := range pruned {
		have = append(have, p.PartNo)
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Fatalf("commit %d, [%d, %d], bit %d: partitions %v, want %v", got.commitNo, begin, end, bit, have, want)
	}
}

func TestOldestPin(t *testing.T) {
	var p pins
	if _, ok := p.oldest(); ok {
		t.Error("something is pinned")
	}
	a, b, c := p.hold(7), p.hold(5), p.hold(5)
	b()
	b()
	if no, ok := p.oldest(); !ok || no != 5 {
		t.Errorf("oldest %d %v, want 5", no, ok)
	}
	c()
	if no, _ := p.oldest(); no != 7 {
		t.Errorf("oldest %d, want 7", no)
	}
	a()
	if _, ok := p.oldest(); ok {
		t.Error("something stays pinned")
	}
}

// hundredThousand is an index of 100,000 partitions over 100,000 minutes.
func hundredThousand(b *testing.B) (*partitionIndex, *deltas, *partitions) {
	d := &deltas{next: catalog.PartitionDelta{Full: true, CommitNo: 1}}
	for i := range int64(100_000) {
		d.next.Added = append(d.next.Added, partition(i+1, i*60, i*60+90, int(i%1024)))
	}
	x := newPartitionIndex(d)
	live, err := x.refresh(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return x, d, live
}

func BenchmarkPrune100k(b *testing.B) {
	_, _, live := hundredThousand(b)
	f := func(name string, begin, end int64, bit int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				live.prune("log_entries", begin, end, bit)
			}
		})
	}
	f("hour in the middle", 3_000_000, 3_003_600, -1)
	f("oldest hour", 0, 3600, -1)
	f("one process, all time", math.MinInt64, math.MaxInt64, 17)
	f("all", math.MinInt64, math.MaxInt64, -1)
}

// BenchmarkRefresh100k adds one partition and retires another.
func BenchmarkRefresh100k(b *testing.B) {
	x, d, _ := hundredThousand(b)
	no := int64(100_000)
	b.ReportAllocs()
	for b.Loop() {
		no++
		d.next = catalog.PartitionDelta{
			CommitNo: no, Retired: []int64{no - 100_000},
			Added: []catalog.Partition{partition(no, no*60, no*60+90, 5)},
		}
		if _, err := x.refresh(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// silent is a catalog that never answers.
type silent struct{ Catalog }

func (silent) Partitions(ctx context.Context, _ int64) (catalog.PartitionDelta, error) {
	<-ctx.Done()
	return catalog.PartitionDelta{}, ctx.Err()
}

func (silent) ArchivePositions(ctx context.Context) (map[catalog.ShardID]uint64, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestQueriesWaitForASilentCatalogTogether has many queries follow a catalog that hangs: each is told after one timeout, not after
// those of all before it, and one that is cancelled goes at once.
func TestQueriesWaitForASilentCatalogTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := patientCatalog{silent{}}
		index := newPartitionIndex(c)
		s := &snapshots{blocks: newBlockSegments(c, index, nil), processes: newLayers(tables.Must("processes"), nil, processSource(c), slog.New(slog.DiscardHandler))}
		begun := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			for name, follow := range map[string]func() error{
				"partitions": func() error { _, err := index.refresh(t.Context()); return err },
				"blocks":     func() error { _, _, err := s.blocks.take(t.Context(), nil); return err },
				"processes":  func() error { _, err := s.processes.take(t.Context()); return err },
			} {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * catalogTimeout / 100)
					if err := follow(); !isAway(err) {
						t.Errorf("%s: error %v, want one that says that the catalog is away", name, err)
					}
				})
			}
		}
		wg.Go(func() {
			time.Sleep(catalogTimeout / 1000) // another one has the turn
			ctx, cancel := context.WithTimeout(t.Context(), catalogTimeout/10)
			defer cancel()
			called := time.Now()
			if _, err := index.refresh(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(called) != catalogTimeout/10 {
				t.Errorf("cancelled query: error %v after %v", err, time.Since(called))
			}
		})
		wg.Wait()
		if took := time.Since(begun); took > catalogTimeout {
			t.Errorf("the last query was told after %v, want %v", took, catalogTimeout)
		}
		s.processes.close()
	})
}
