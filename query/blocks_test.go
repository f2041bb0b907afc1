package query

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// freezing is a catalog of blocks and freezes in memory.
type freezing struct {
	Catalog
	rng      *rand.Rand
	rows     []catalog.BlockRow // all, in order of position
	frozen   map[telemetry.ID]bool
	freezes  []catalog.Freeze
	commitNo int64
	forget   int // the next calls of Freezes that find the freezes forgotten
	surprise int // the next calls of BlocksSince after which something is frozen
	starts   int // calls of BlocksSince for all rows
}

var freezingShards = []catalog.ShardID{{Class: 'e'}, {Class: 'r', Shard: 1}}

// archive adds a pack of each shard.
func (f *freezing) archive(n int) {
	for _, s := range freezingShards {
		seq := f.last(s) + 1 + uint64(f.rng.IntN(3))
		for range 1 + f.rng.IntN(n) {
			b := catalog.BlockRow{InsertTime: f.rng.Int64N(1e6) * 1000, Shard: s, PackSeq: seq}
			b.ID, b.BeginTime = telemetry.NewID(), f.rng.Int64N(1000)*1000
			f.rows = append(f.rows, b)
		}
	}
}

func (f *freezing) last(s catalog.ShardID) (seq uint64) {
	for i := range f.rows {
		if f.rows[i].Shard == s {
			seq = f.rows[i].PackSeq
		}
	}
	return seq
}

// freeze takes the rows of a range of times, up to positions that are often the last ones.
func (f *freezing) freeze() {
	from := f.rng.Int64N(1000) * 1000
	span := catalog.FreezeSpan{From: from, To: from + f.rng.Int64N(400)*1000, UpTo: map[catalog.ShardID]uint64{}}
	for _, s := range freezingShards {
		if seq := f.last(s); f.rng.IntN(8) > 0 {
			span.UpTo[s] = seq - min(seq, uint64(f.rng.IntN(6)))
		}
	}
	for i := range f.rows {
		if span.Holds(&f.rows[i]) {
			f.frozen[f.rows[i].ID] = true
		}
	}
	f.commitNo += 1 + f.rng.Int64N(3)
	f.freezes = append(f.freezes, catalog.Freeze{Version: f.commitNo, FreezeSpan: span})
}

func (f *freezing) BlocksSince(_ context.Context, after map[catalog.ShardID]uint64, _ int) ([]catalog.BlockRow, map[catalog.ShardID]uint64, error) {
	if after == nil {
		f.starts++
	}
	var rows []catalog.BlockRow
	to := map[catalog.ShardID]uint64{}
	for _, s := range freezingShards {
		to[s] = f.last(s)
	}
	for _, b := range f.rows {
		if b.PackSeq > after[b.Shard] && !f.frozen[b.ID] {
			rows = append(rows, b)
		}
	}
	if f.surprise > 0 { // something is frozen right after the rows were read
		f.surprise--
		f.freeze()
	}
	return rows, to, nil
}

func (f *freezing) Partitions(context.Context, int64) (catalog.PartitionDelta, error) {
	d := catalog.PartitionDelta{Full: true, CommitNo: f.commitNo}
	for _, z := range f.freezes {
		d.Added = append(d.Added, catalog.Partition{PartNo: z.Version, View: catalog.FrozenView, Added: z.Version})
	}
	return d, nil
}

func (f *freezing) Freezes(_ context.Context, after int64) ([]catalog.Freeze, error) {
	if f.forget > 0 {
		f.forget--
		return nil, fmt.Errorf("slept: %w", catalog.ErrStale)
	}
	if f.rng.IntN(4) == 0 {
		f.freeze() // newer than what the caller knows of
	}
	return slices.DeleteFunc(slices.Clone(f.freezes), func(z catalog.Freeze) bool { return z.Version <= after }), nil
}

// segmentIDs returns the blocks in the segments, in order.
func segmentIDs(t *testing.T, files []*cachedFile) (ids []string) {
	t.Helper()
	for _, file := range files {
		table, err := readSegment(file.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, chunk := range table.Column(0).Data().Chunks() {
			for i := range chunk.Len() {
				ids = append(ids, chunk.(*array.String).Value(i))
			}
		}
		table.Release()
	}
	slices.Sort(ids)
	return ids
}

// TestSegmentsFollowFreezes compares the segments with a plain list of rows while rows come and are frozen, at the worst moments too.
func TestSegmentsFollowFreezes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	f := &freezing{rng: rng, frozen: map[telemetry.ID]bool{}}
	folder, err := openCacheFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := newBlockSegments(f, newPartitionIndex(f), folder)
	for round := range 300 {
		if rng.IntN(3) > 0 {
			f.archive(40)
		}
		for range rng.IntN(3) {
			f.freeze()
		}
		f.surprise = max(0, rng.IntN(6)-3)
		if round%50 == 49 {
			f.forget = 1
		}
		files, live, err := s.take(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, b := range f.rows {
			if !f.frozen[b.ID] {
				want = append(want, b.ID.String())
			}
		}
		slices.Sort(want)
		if d := cmp.Diff(want, segmentIDs(t, files)); d != "" {
			t.Fatalf("round %d (-want +got):\n%s", round, d)
		}
		if n := len(f.freezes); n > 0 && live.frozenVersion() != f.freezes[n-1].Version {
			t.Fatalf("round %d: version %d, want %d", round, live.frozenVersion(), f.freezes[n-1].Version)
		}
		for _, file := range files {
			file.release()
		}
		checkBounds(t, s)
	}
	if f.starts > 8 {
		t.Errorf("%d times all rows were read", f.starts)
	}
	s.close()
	if left, err := openCacheFolder(folder.dir); err != nil || len(s.list) != 0 {
		t.Fatal(left, err)
	}
}

// checkBounds fails when a segment's bounds leave out one of its rows.
func checkBounds(t *testing.T, s *blockSegments) {
	t.Helper()
	for _, g := range s.list {
		table, err := readSegment(g.file.path)
		if err != nil {
			t.Fatal(err)
		}
		batches := array.NewTableReader(table, -1)
		again := newSegment()
		for batches.Next() {
			s.sift(again, batches.RecordBatch(), nil, func(int, int) {})
		}
		batches.Release()
		table.Release()
		again.file = g.file
		if d := cmp.Diff(g, again, cmp.AllowUnexported(segment{}), cmp.Comparer(func(a, b *cachedFile) bool { return a == b })); d != "" {
			t.Fatalf("bounds (-want +got):\n%s", d)
		}
	}
}
