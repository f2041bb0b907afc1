package catalogtest

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

func traceID(n int) (id [catalog.TraceIDBytes]byte) {
	id[0], id[14], id[15] = 't', byte(n>>8), byte(n)
	return id
}

// traced gives a block trace ids.
func traced(b catalog.BlockReg, traces ...int) catalog.BlockReg {
	for _, n := range traces {
		id := traceID(n)
		b.TraceIDs = append(b.TraceIDs, id[:]...)
	}
	return b
}

// filtered gives a block a filter, which these tests take for one of trace n.
func filtered(b catalog.BlockReg, n byte, units int) catalog.BlockReg {
	b.TraceFilter = bytes.Repeat([]byte{n}, units*catalog.TraceFilterUnit)
	return b
}

// traceBlocks returns the numbers of the blocks of a trace, which come in the order of their keys. Each filter is asked once.
func traceBlocks(t *testing.T, cat catalog.Catalog, n int, begin, end int64) []int {
	t.Helper()
	keys := must[[]catalog.BlockKey](t)(cat.TraceBlocks(t.Context(), traceID(n), begin, end, func(filter []byte) bool {
		if len(filter) == 0 || len(filter)%catalog.TraceFilterUnit != 0 || filter[0] != filter[len(filter)-1] {
			t.Errorf("a filter of %d bytes", len(filter))
			return false
		}
		return filter[0] == byte(n)
	}))
	numbers := []int{}
	for i, k := range keys {
		if i > 0 && keys[i-1].Compare(k) >= 0 {
			t.Errorf("key %v follows %v", k, keys[i-1])
		}
		if n := int(k.BlockID[14])<<8 | int(k.BlockID[15]); k.BeginTime == second(int64(n)) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func testTraces(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	find := func(n int, begin, end int64, want ...int) {
		t.Helper()
		equal(t, "blocks of a trace", traceBlocks(t, cat, n, begin, end), append([]int{}, want...))
	}
	find(1, math.MinInt64, math.MaxInt64)
	backwards := traced(block(9, 1, 1), 1)
	backwards.EndTime = second(1)
	c := step(0, 1, traced(block(3, 2, 1), 1, 2), traced(block(1, 1, 1), 1), block(2, 1, 1), filtered(block(4, 3, 2), 1, 1), filtered(block(5, 3, 2), 9, 64), backwards)
	c.Streams = []catalog.StreamReg{stream(2, 1)}
	archive(t, cat, c)
	find(1, math.MinInt64, math.MaxInt64, 1, 9, 3, 4)
	find(2, math.MinInt64, math.MaxInt64, 3)
	find(9, math.MinInt64, math.MaxInt64, 5)
	find(7, math.MinInt64, math.MaxInt64)
	find(1, second(2), second(3), 1, 3)      // blocks last for a second, both ends included
	find(1, second(2)+999, second(2)+999, 1) // ends are kept in whole microseconds
	find(1, second(2)+1000, second(4), 3, 4)
	find(1, second(9), second(9), 9)
	find(1, second(6), second(8))

	refused := step(1, 2, traced(block(20, 1, 1), 2), block(3, 2, 1))
	wantErr(t, cat.CommitArchive(ctx, refused), catalog.ErrDuplicateBlocks)
	find(2, math.MinInt64, math.MaxInt64, 3)
	again := traced(block(21, 1, 1), 3, 3) // an id that comes twice
	archive(t, cat, step(1, 2, again))
	find(3, math.MinInt64, math.MaxInt64, 21)
	stats := must[catalog.Stats](t)(cat.Stats(ctx))
	equal(t, "counts", []int64{stats.TraceIDs, stats.TraceFilters, stats.TraceSince}, []int64{6, 2, 0})
	equal(t, "since", must[int64](t)(cat.TraceSince(ctx)), int64(0))

	for _, bad := range []catalog.BlockReg{
		{TraceIDs: make([]byte, 17)},
		{TraceIDs: make([]byte, (catalog.MaxBlockTraces+1)*catalog.TraceIDBytes)},
		{TraceFilter: make([]byte, catalog.MaxTraceFilter+1)},
		{TraceIDs: make([]byte, 16), TraceFilter: make([]byte, 1024)},
	} {
		b := block(30, 1, 1)
		b.TraceIDs, b.TraceFilter = bad.TraceIDs, bad.TraceFilter
		wantErr(t, cat.CommitArchive(ctx, step(2, 3, b)), catalog.ErrInvalid)
	}
}

// The index leads to frozen blocks as to others.
func testTracesFrozen(t *testing.T, cat catalog.Catalog) {
	archive(t, cat, step(0, 4, traced(block(1, 1, 1), 1), filtered(block(2, 1, 1), 1, 1), traced(block(nextDay, 1, 1), 1)))
	viewed(t, cat, 0, 4)
	f := freezable(t, cat)
	freeze(t, cat, freezeOf(t, cat, f.Version, daySpan(0, f.UpTo), "views/blocks/1"))
	sweep(t, cat)
	equal(t, "blocks of a trace", traceBlocks(t, cat, 1, math.MinInt64, math.MaxInt64), []int{1, 2, nextDay})
}

// TraceBounds tests that the index of traces keeps the newest ids and filters of a catalog that was opened with bounds of maxIDs ids
// and maxFilters units of filters.
func TraceBounds(t *testing.T, cat catalog.Catalog, maxIDs, maxFilters int64) {
	ctx := t.Context()
	other := catalog.ShardID{Class: 'r', Shard: 1}
	commits := int(maxIDs/3 + 40)
	for i := range commits {
		c := step(uint64(i/2), uint64(i/2)+1, traced(block(3*i, 1, 1), 3*i, 3*i+1, 3*i+2), traced(block(3*i+1, 1, 1), 1), filtered(block(3*i+2, 2, 1), 1, 1))
		if i%2 == 1 {
			c.Shard, c.Pack.Shard = other, other
		}
		archive(t, cat, c)
		stats := must[catalog.Stats](t)(cat.Stats(ctx))
		if stats.TraceIDs > maxIDs+4 || stats.TraceFilters > maxFilters+1 {
			t.Fatalf("after %d commits: %+v", i+1, stats)
		}
	}
	stats := must[catalog.Stats](t)(cat.Stats(ctx))
	if stats.TraceIDs < maxIDs-8 || stats.TraceFilters < maxFilters-2 {
		t.Fatalf("too few are left: %+v", stats)
	}
	since := must[int64](t)(cat.TraceSince(ctx))
	equal(t, "since when", stats.TraceSince, since)
	last := 3*commits - 1
	if since <= second(int64(last)-3*maxFilters-6) || since > second(int64(last)) {
		t.Fatalf("complete since %d s, the last block is %d", (since-second(0))/1e9, last)
	}
	// From then on nothing is missing.
	found := traceBlocks(t, cat, 1, since, math.MaxInt64)
	for n := range last + 1 {
		if n%3 != 0 && second(int64(n)) >= since && !slices.Contains(found, n) {
			t.Errorf("block %d is not found", n)
		}
		if n%3 == 0 && second(int64(n)) >= since {
			equal(t, "blocks of a young trace", traceBlocks(t, cat, n+2, since, math.MaxInt64), []int{n})
		}
	}
	equal(t, "blocks of an old trace", traceBlocks(t, cat, 2, math.MinInt64, math.MaxInt64), []int{})

	// A block that tells times far ahead is dropped as others are, and does no harm to what comes after.
	far := block(5000, 1, 1)
	far.BeginTime, far.EndTime = math.MaxInt64/2, math.MaxInt64/2+1000
	at := uint64(commits+1) / 2
	archive(t, cat, step(at, at+1, traced(far, 1), filtered(block(5001, 1, 1), 1, 1)))
	for i := range commits {
		at++
		archive(t, cat, step(at, at+1, traced(block(6000+i, 1, 1), 3, 4, 5), filtered(block(8000+i, 1, 1), 3, 1)))
	}
	if since := must[int64](t)(cat.TraceSince(ctx)); since > second(int64(8000+commits)+3) {
		t.Errorf("complete since %d", since)
	}
	equal(t, "blocks of an old trace", len(must[[]catalog.BlockKey](t)(cat.TraceBlocks(ctx, traceID(1), math.MaxInt64/2, math.MaxInt64, func([]byte) bool { return false }))), 0)
}
