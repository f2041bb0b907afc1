package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// nextDay is a number of a block that began on the day after that of block 0.
const nextDay = 7000

var raw = catalog.ShardID{Class: 'r'}

// viewed moves the views' checkpoint of the eager shard.
func viewed(t *testing.T, cat catalog.Catalog, from, to uint64) {
	t.Helper()
	view(t, cat, &catalog.ViewCommit{Consumer: catalog.ConsumerViews, Moves: []catalog.Move{{Shard: eager, From: from, To: to, Epoch: 1}}})
}

// freezable returns what may be frozen of the past.
func freezable(t *testing.T, cat catalog.Catalog) catalog.Freezable {
	t.Helper()
	return must[catalog.Freezable](t)(cat.Freezable(t.Context(), second(1_000_000), math.MaxInt64-1))
}

func dayOf(n int) catalog.Day { return catalog.DayOf(second(int64(n))) }

// daySpan is the rows of a block's day.
func daySpan(n int, upTo map[catalog.ShardID]uint64) catalog.FreezeSpan {
	return catalog.FreezeSpan{From: dayOf(n).Begin(), To: dayOf(n).End(), UpTo: upTo}
}

// readSpan reads the rows of a span.
func readSpan(ctx context.Context, cat catalog.Catalog, s catalog.FreezeSpan) (all []catalog.BlockRow, err error) {
	for b, err := range cat.FreezableBlocks(ctx, s) {
		if err != nil {
			return nil, err
		}
		if n := len(all); n > 0 && all[n-1].BlockKey().Compare(b.BlockKey()) >= 0 {
			return nil, fmt.Errorf("row %v follows %v", b.BlockKey(), all[n-1].BlockKey())
		}
		all = append(all, b)
	}
	return all, nil
}

// frozenFile describes a file of rows, which come in order of their keys.
func frozenFile(key string, rows []catalog.BlockRow) catalog.FrozenFile {
	f := catalog.FrozenFile{
		Partition: catalog.Partition{
			View: catalog.FrozenView, Bucket: catalog.DayOf(rows[0].BeginTime).Begin(), MinTime: math.MaxInt64, MaxTime: math.MinInt64, MinInsert: math.MaxInt64, MaxInsert: math.MinInt64,
			Rows: int64(len(rows)), Size: 1000, SchemaVer: 1, Key: key,
		},
		MaxBegin: math.MinInt64, MaxEnd: math.MinInt64, FirstStream: rows[0].StreamID, LastStream: rows[len(rows)-1].StreamID, TailSize: 100, TailCRC: math.MaxUint32,
	}
	for i := range rows {
		b := &rows[i]
		f.MinTime, f.MaxBegin, f.MaxEnd = min(f.MinTime, b.BeginTime), max(f.MaxBegin, b.BeginTime), max(f.MaxEnd, b.EndTime)
		f.MinInsert, f.MaxInsert = min(f.MinInsert, b.InsertTime), max(f.MaxInsert, b.InsertTime)
	}
	f.MaxTime = max(f.MaxInsert, f.MinTime)
	return f
}

// freezeOf is the commit that freezes the rows of a span into one file.
func freezeOf(t *testing.T, cat catalog.Catalog, version int64, s catalog.FreezeSpan, key string) *catalog.FreezeCommit {
	t.Helper()
	rows := must[[]catalog.BlockRow](t)(readSpan(t.Context(), cat, s))
	return &catalog.FreezeCommit{FreezeSpan: s, Version: version, Moved: int64(len(rows)), Added: []catalog.FrozenFile{frozenFile(key, rows)}}
}

func freeze(t *testing.T, cat catalog.Catalog, c *catalog.FreezeCommit) int64 {
	t.Helper()
	return must[int64](t)(cat.CommitFreeze(t.Context(), c))
}

func sweep(t *testing.T, cat catalog.Catalog) {
	t.Helper()
	for must[bool](t)(cat.SweepFrozen(t.Context(), 3)) {
	}
}

func rowIDs(t *testing.T, cat catalog.Catalog) map[telemetry.ID]int {
	t.Helper()
	rows, _, err := cat.BlocksSince(t.Context(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[telemetry.ID]int{}
	for i := range rows {
		ids[rows[i].ID]++
	}
	return ids
}

func idsOf(numbers ...int) map[telemetry.ID]int {
	ids := map[telemetry.ID]int{}
	for _, n := range numbers {
		ids[blockID(n)]++
	}
	return ids
}

func testFreezeMovesExactly(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	c := step(0, 4, block(1, 2, 1), block(2, 1, 1), block(nextDay, 1, 1), block(3, 1, 1))
	c.Streams = []catalog.StreamReg{stream(1, 1)}
	late := step(4, 6, block(4, 1, 1))
	r := step(0, 9, block(5, 3, 1), block(nextDay+1, 3, 1))
	r.Shard, r.Pack.Shard, r.Pack.Key = raw, raw, "packs/raw"
	archive(t, cat, c, r, late)
	viewed(t, cat, 0, 4)

	f := freezable(t, cat)
	equal(t, "freezable", f, catalog.Freezable{
		Days: []catalog.DayRows{
			{Day: dayOf(0), Rows: 4, FirstInsert: second(3)},
			{Day: dayOf(nextDay), Rows: 2, FirstInsert: second(nextDay + 2)},
		},
		UpTo: map[catalog.ShardID]uint64{eager: 4, raw: 9},
	})
	one := must[catalog.Freezable](t)(cat.Freezable(ctx, dayOf(nextDay).Begin(), math.MaxInt64-1))
	equal(t, "days before", one.Days, f.Days[:1])
	ahead := must[catalog.Freezable](t)(cat.Freezable(ctx, math.MinInt64+1, dayOf(nextDay).Begin()))
	equal(t, "days after", ahead.Days, f.Days[1:])

	span := daySpan(0, f.UpTo)
	rows := must[[]catalog.BlockRow](t)(readSpan(ctx, cat, span))
	var ids []telemetry.ID
	for i := range rows {
		ids = append(ids, rows[i].ID)
	}
	equal(t, "rows", ids, []telemetry.ID{blockID(2), blockID(3), blockID(1), blockID(5)})
	equal(t, "row", rows[0], catalog.BlockRow{
		Block: block(2, 1, 1).Block, InsertTime: second(4), PayloadSize: 900, PackKey: "packs/1-4", PackOffset: 2000, PackLength: 1000, Shard: eager, PackSeq: 4,
	})
	equal(t, "position", []any{rows[3].Shard, rows[3].PackSeq}, []any{raw, uint64(9)})
	for _, err := range cat.FreezableBlocks(ctx, span) {
		if err != nil {
			t.Fatal(err)
		}
		break // a reader may leave
	}

	frozen := freezeOf(t, cat, f.Version, span, "views/blocks/1")
	version := freeze(t, cat, frozen)
	equal(t, "commit", must[int64](t)(cat.CommitNo(ctx)), version)
	for range 2 { // before and after the sweep
		equal(t, "rows left", rowIDs(t, cat), idsOf(nextDay, nextDay+1, 4))
		q := catalog.AllBlocks()
		equal(t, "of a stream", streamBlocks(t, cat, 1, q), []telemetry.ID{blockID(4), blockID(nextDay)})
		q.To, q.Newest = second(nextDay), 2
		equal(t, "the newest of a stream before", streamBlocks(t, cat, 1, q), []telemetry.ID{blockID(4)})
		stats := must[catalog.Stats](t)(cat.Stats(ctx))
		equal(t, "stats", []int64{stats.Blocks, stats.FrozenFiles, stats.FrozenBlocks, stats.Partitions, stats.PartitionRows}, []int64{7, 1, 4, 1, 4})
		sweep(t, cat)
	}
	want := frozen.Added[0]
	got := must[catalog.Frozen](t)(cat.Frozen(ctx, math.MinInt64, math.MaxInt64))
	want.Added, want.PartNo = version, got.Files[0].PartNo
	equal(t, "frozen", got, catalog.Frozen{Version: version, Files: []catalog.FrozenFile{want}})
	equal(t, "a partition", must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added, []catalog.Partition{want.Partition})
	within := func(begin, end int64) int { return len(must[catalog.Frozen](t)(cat.Frozen(ctx, begin, end)).Files) }
	equal(t, "files of a time", []int{within(second(7), second(9)), within(second(6), second(9)), within(0, second(0))}, []int{0, 1, 0})
	equal(t, "referenced", must[[]bool](t)(cat.KeysReferenced(ctx, []string{"views/blocks/1", "packs/1-4"})), []bool{true, true})

	done := catalog.Freeze{Version: version, FreezeSpan: span}
	equal(t, "freezes", must[[]catalog.Freeze](t)(cat.Freezes(ctx, 0)), []catalog.Freeze{done})
	equal(t, "no freezes", len(must[[]catalog.Freeze](t)(cat.Freezes(ctx, version))), 0)

	// Late rows of the day are frozen once they are viewed.
	equal(t, "no more", freezable(t, cat).Days, f.Days[1:])
	viewed(t, cat, 4, 6)
	again := freezable(t, cat)
	equal(t, "again", again.Days[0], catalog.DayRows{Day: dayOf(0), Rows: 1, FirstInsert: second(6)})
	second := freeze(t, cat, freezeOf(t, cat, again.Version, daySpan(0, again.UpTo), "views/blocks/2"))
	if second <= version {
		t.Fatalf("version %d after %d", second, version)
	}
	equal(t, "freezes", must[[]catalog.Freeze](t)(cat.Freezes(ctx, 0)), []catalog.Freeze{done, {Version: second, FreezeSpan: daySpan(0, again.UpTo)}})
	equal(t, "freezes", must[[]catalog.Freeze](t)(cat.Freezes(ctx, version)), []catalog.Freeze{{Version: second, FreezeSpan: daySpan(0, again.UpTo)}})
	sweep(t, cat)
	equal(t, "rows left", rowIDs(t, cat), idsOf(nextDay, nextDay+1))
	equal(t, "files", len(must[catalog.Frozen](t)(cat.Frozen(ctx, math.MinInt64, math.MaxInt64)).Files), 2)
	last := freezable(t, cat)
	freeze(t, cat, freezeOf(t, cat, last.Version, daySpan(nextDay, last.UpTo), "views/blocks/3"))
	equal(t, "rows left", len(rowIDs(t, cat)), 0)
	sweep(t, cat)
	none, at, err := cat.BlocksSince(ctx, nil, 1)
	if err != nil || len(none) != 0 {
		t.Fatalf("%d rows, %v", len(none), err)
	}
	equal(t, "positions", at, map[catalog.ShardID]uint64{eager: 6, raw: 9})
	archive(t, cat, step(6, 8, block(nextDay*2, 1, 1)))
	equal(t, "new rows", rowIDs(t, cat), idsOf(nextDay*2))
}

func testFreezeLimits(t *testing.T, cat catalog.Catalog) {
	f := func(what string, want map[catalog.ShardID]uint64) {
		t.Helper()
		got := freezable(t, cat).UpTo
		if len(got) == 0 && len(want) == 0 {
			return
		}
		equal(t, what, got, want)
	}
	f("nothing", nil)
	r := step(0, 9, block(5, 3, 1))
	r.Shard, r.Pack.Shard = raw, raw
	closed := step(0, 3, block(6, 3, 1))
	closed.Shard.Shard = 1
	archive(t, cat, step(0, 10, block(1, 1, 1)), r, closed)
	f("nothing is viewed", map[catalog.ShardID]uint64{raw: 9})
	view(t, cat, &catalog.ViewCommit{Consumer: catalog.ConsumerViews, Moves: []catalog.Move{{Shard: closed.Shard, To: 3, Epoch: 1}}})
	viewed(t, cat, 0, 4)
	f("viewed", map[catalog.ShardID]uint64{eager: 4, raw: 9, closed.Shard: 3})
	view(t, cat, &catalog.ViewCommit{
		Consumer: catalog.ConsumerViews, Moves: []catalog.Move{{Shard: eager, From: 4, To: 10, Epoch: 1}},
		Backlog: []catalog.Backlog{{Shard: eager, FirstSeq: 7, LastSeq: 10}},
	})
	f("a backlog", map[catalog.ShardID]uint64{eager: 6, raw: 9, closed.Shard: 3})
	b, ok, err := cat.ClaimBacklog(t.Context(), catalog.ConsumerViews, "w", time.Minute)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	view(t, cat, &catalog.ViewCommit{Consumer: catalog.ConsumerViews, Chunk: &catalog.Chunk{RangeNo: b.RangeNo, From: 7, To: 8, Epoch: b.Epoch}})
	f("less of it", map[catalog.ShardID]uint64{eager: 8, raw: 9, closed.Shard: 3})
	view(t, cat, &catalog.ViewCommit{Consumer: catalog.ConsumerViews, Chunk: &catalog.Chunk{RangeNo: b.RangeNo, From: 9, To: 10, Epoch: b.Epoch}})
	f("none left", map[catalog.ShardID]uint64{eager: 10, raw: 9, closed.Shard: 3})
}

func testFreezeStale(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 4, block(1, 1, 1), block(2, 2, 1)), step(4, 6, block(3, 1, 1), block(nextDay, 1, 1)))
	viewed(t, cat, 0, 4)
	f := freezable(t, cat)
	good := freezeOf(t, cat, f.Version, daySpan(0, f.UpTo), "views/blocks/1")
	refuse := func(want error, change func(*catalog.FreezeCommit)) {
		t.Helper()
		c := *good
		c.Added = []catalog.FrozenFile{good.Added[0]}
		c.UpTo = maps.Clone(good.UpTo)
		change(&c)
		_, err := cat.CommitFreeze(ctx, &c)
		wantErr(t, err, want)
	}
	refuse(catalog.ErrStale, func(c *catalog.FreezeCommit) { c.Version++ })
	refuse(catalog.ErrStale, func(c *catalog.FreezeCommit) { c.Moved, c.Added[0].Rows = 1, 1 })
	refuse(catalog.ErrStale, func(c *catalog.FreezeCommit) { c.UpTo[eager], c.Moved, c.Added[0].Rows = 6, 3, 3 })
	refuse(catalog.ErrStale, func(c *catalog.FreezeCommit) { c.Retired = []int64{77} })
	refuse(catalog.ErrInvalid, func(c *catalog.FreezeCommit) { c.Added[0].Rows = 3 })
	refuse(catalog.ErrInvalid, func(c *catalog.FreezeCommit) { c.Added = nil })
	refuse(catalog.ErrInvalid, func(c *catalog.FreezeCommit) { c.Added[0].View = "log_entries" })
	refuse(catalog.ErrInvalid, func(c *catalog.FreezeCommit) { c.Added[0].TailSize = 1001 })
	refuse(catalog.ErrInvalid, func(c *catalog.FreezeCommit) { c.To = time.Now().Add(-catalog.FreezeGuard + time.Hour).UnixNano() })
	refuse(catalog.ErrObjectsTooOld, func(c *catalog.FreezeCommit) {
		c.ObjectsSince = time.Now().Add(-catalog.MaxObjectAge - time.Minute).UnixNano()
	})
	equal(t, "rows", rowIDs(t, cat), idsOf(1, 2, 3, nextDay))
	equal(t, "keys", must[[]bool](t)(cat.KeysReferenced(ctx, []string{"views/blocks/1"})), []bool{false})
	equal(t, "commit", must[int64](t)(cat.CommitNo(ctx)), int64(0))

	freeze(t, cat, good)
	refuse(catalog.ErrStale, func(c *catalog.FreezeCommit) { c.Added[0].Key = "views/blocks/zombie" })
	equal(t, "rows", rowIDs(t, cat), idsOf(3, nextDay))
	sweep(t, cat)
	now := freezable(t, cat)
	refuse(catalog.ErrStale, func(c *catalog.FreezeCommit) { c.Version, c.Added[0].Key = now.Version, "views/blocks/zombie" })

	// A file that takes in an older one.
	viewed(t, cat, 4, 6)
	now = freezable(t, cat)
	files := must[catalog.Frozen](t)(cat.Frozen(ctx, second(1), second(1))).Files
	more := freezeOf(t, cat, now.Version, daySpan(0, now.UpTo), "views/blocks/2")
	more.Retired, more.Added[0].Rows = []int64{files[0].PartNo}, 3
	freeze(t, cat, more)
	sweep(t, cat)
	equal(t, "rows", rowIDs(t, cat), idsOf(nextDay))
	files = must[catalog.Frozen](t)(cat.Frozen(ctx, math.MinInt64, math.MaxInt64)).Files
	if len(files) != 1 || files[0].Key != "views/blocks/2" || files[0].Rows != 3 {
		t.Fatalf("%+v", files)
	}
	now = freezable(t, cat)
	twice := freezeOf(t, cat, now.Version, daySpan(nextDay, now.UpTo), "views/blocks/3")
	twice.Retired, twice.Added[0].Rows = more.Retired, 3
	_, err := cat.CommitFreeze(ctx, twice)
	wantErr(t, err, catalog.ErrStale)
	retired := must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, math.MaxInt64, 10))
	if len(retired) != 1 || retired[0].Key != "views/blocks/1" {
		t.Fatalf("%+v", retired)
	}
	if err := cat.ForgetPartitions(ctx, []int64{retired[0].PartNo, files[0].PartNo /* live: stays */}); err != nil {
		t.Fatal(err)
	}
	equal(t, "referenced", must[[]bool](t)(cat.KeysReferenced(ctx, []string{"views/blocks/1", "views/blocks/2"})), []bool{false, true})
}

func testFrozenDuplicates(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 4, block(5, 1, 1), block(9, 1, 1), block(nextDay, 1, 1)))
	viewed(t, cat, 0, 4)
	f := freezable(t, cat)
	version := freeze(t, cat, freezeOf(t, cat, f.Version, daySpan(0, f.UpTo), "views/blocks/1"))
	sweep(t, cat)
	young := block(6, 1, 1)
	young.BeginTime = time.Now().UnixNano()
	archive(t, cat, step(4, 5, young, block(nextDay+1, 1, 1), block(2, 1, 1))) // before, after and long after what is frozen

	late := step(5, 6, young, block(7, 1, 1))
	late.Blocks[0].ID = blockID(8)
	wantErr(t, cat.CommitArchive(ctx, late), catalog.ErrFrozen)
	equal(t, "checkpoint", checkpoint(t, cat, "archive", eager).Seq, uint64(5))
	late.Frozen = version - 1
	wantErr(t, cat.CommitArchive(ctx, late), catalog.ErrFrozen)
	late.Frozen = version
	archive(t, cat, late)
	copied := step(6, 7, block(7, 1, 1))
	copied.Frozen = version
	wantErr(t, cat.CommitArchive(ctx, copied), catalog.ErrDuplicateBlocks)
	equal(t, "existing", must[[]bool](t)(cat.ExistingBlocks(ctx, []catalog.BlockKey{key(block(7, 1, 1)), key(block(2, 1, 1))})), []bool{true, true})

	// The late ones go to a file of their own, and a commit that looked before that must look again.
	viewed(t, cat, 4, 6)
	f = freezable(t, cat)
	equal(t, "days", f.Days[0].Rows, int64(2))
	freeze(t, cat, freezeOf(t, cat, f.Version, daySpan(0, f.UpTo), "views/blocks/2"))
	looked := step(6, 7, block(8, 1, 1))
	looked.Frozen = version
	wantErr(t, cat.CommitArchive(ctx, looked), catalog.ErrFrozen)
}

// A file may hold blocks of a time that was far ahead when it was frozen, and is not any more when a copy comes. What stands for
// the passing of time here is a file with rows of long ago and of far ahead, which reaches over the present.
func testFrozenAhead(t *testing.T, cat catalog.Catalog) {
	const week = 7 * 24 * time.Hour
	at := func(b catalog.BlockReg, begin time.Time) catalog.BlockReg {
		b.BeginTime, b.EndTime = begin.UnixNano(), begin.UnixNano()+1000
		return b
	}
	now := time.Now()
	archive(t, cat, step(0, 4, block(5, 1, 1), at(block(6, 1, 1), now.Add(week))))
	viewed(t, cat, 0, 4)
	f := freezable(t, cat)
	freeze(t, cat, freezeOf(t, cat, f.Version, daySpan(0, f.UpTo), "views/blocks/1"))
	sweep(t, cat)
	f = must[catalog.Freezable](t)(cat.Freezable(t.Context(), math.MinInt64+1, now.Add(week/2).UnixNano()))
	c := freezeOf(t, cat, f.Version, catalog.FreezeSpan{From: now.Add(week / 2).UnixNano(), To: math.MaxInt64, UpTo: f.UpTo}, "views/blocks/2")
	first := must[catalog.Frozen](t)(cat.Frozen(t.Context(), math.MinInt64, math.MaxInt64)).Files[0]
	c.Retired = []int64{first.PartNo}
	file := &c.Added[0]
	file.Rows, file.MinTime, file.MinInsert = file.Rows+first.Rows, first.MinTime, min(file.MinInsert, first.MinInsert)
	version := freeze(t, cat, c)
	sweep(t, cat)

	young := step(4, 5, at(block(7, 1, 1), now))
	wantErr(t, cat.CommitArchive(t.Context(), young), catalog.ErrFrozen)
	young.Frozen = version
	archive(t, cat, young)
	archive(t, cat, step(5, 6, at(block(8, 1, 1), now.Add(2*week)))) // after all of it
}

// frozenObjects stands for the lake: what each file holds.
type frozenObjects struct {
	mu    sync.Mutex
	files map[string][]catalog.BlockRow
}

func (o *frozenObjects) put(key string, rows []catalog.BlockRow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[key] = rows
}

func (o *frozenObjects) has(files []catalog.FrozenFile, k catalog.BlockKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range files {
		for j := range o.files[files[i].Key] {
			if o.files[files[i].Key][j].BlockKey() == k {
				return true
			}
		}
	}
	return false
}

// testFreezeRace lets two freezers freeze whatever there is while blocks of two days come, many of them twice and in two shards.
// At every moment each block that was archived is a row or in one file.
func testFreezeRace(t *testing.T, cat catalog.Catalog) {
	const shards, steps, blocks = 2, 40, 120
	ctx := t.Context()
	objects := &frozenObjects{files: map[string][]catalog.BlockRow{}}
	var archivers, others sync.WaitGroup
	var done atomic.Bool
	var refused, freezes atomic.Int64
	for s := range shards {
		archivers.Go(func() {
			rnd := rand.New(rand.NewPCG(11, uint64(s)))
			shard := catalog.ShardID{Class: 'r', Shard: int32(s)}
			for i := range steps {
				picked := map[int]bool{}
				for range 4 {
					picked[rnd.IntN(blocks)] = true
				}
				c := step(uint64(i), uint64(i)+1)
				c.Shard, c.Pack.Shard, c.Pack.Key = shard, shard, fmt.Sprintf("packs/%d/%d", s, i)
				for n := range picked {
					b := block(n, n%5, 1)
					b.BeginTime += int64(n%2) * int64(24*time.Hour)
					b.EndTime += int64(n%2) * int64(24*time.Hour)
					c.Blocks = append(c.Blocks, b)
				}
				n, err := settleFrozen(ctx, cat, objects, c)
				if err != nil {
					t.Errorf("shard %d: %v", s, err)
					return
				}
				refused.Add(n)
			}
		})
	}
	for f := range 2 {
		others.Go(func() {
			for n := 0; !done.Load(); n++ {
				frozen, err := freezeSomething(ctx, cat, objects, fmt.Sprintf("views/blocks/%d-%d", f, n))
				if err != nil && !errors.Is(err, catalog.ErrStale) {
					t.Errorf("freeze: %v", err)
					return
				}
				if frozen {
					freezes.Add(1)
				}
			}
		})
	}
	others.Go(func() {
		for !done.Load() {
			if _, _, err := seenOnce(ctx, cat, objects); err != nil {
				t.Error(err)
				return
			}
		}
	})
	archivers.Wait()
	done.Store(true)
	others.Wait()
	seen, _, err := seenOnce(ctx, cat, objects)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "blocks", int64(seen), must[catalog.Stats](t)(cat.Stats(ctx)).Blocks)
	if seen < blocks/2 {
		t.Fatalf("%d blocks came", seen)
	}
	t.Logf("%d blocks, %d freezes, %d commits refused", seen, freezes.Load(), refused.Load())
}

// settleFrozen commits as archive does, and returns how often it was refused.
func settleFrozen(ctx context.Context, cat catalog.Catalog, objects *frozenObjects, c *catalog.ArchiveCommit) (refused int64, err error) {
	drop := func(exists func(i int, k catalog.BlockKey) bool) {
		kept := c.Blocks[:0]
		for i, b := range c.Blocks {
			if exists(i, key(b)) {
				c.Skips = append(c.Skips, catalog.Skip{Seq: c.To, Rec: int32(len(c.Skips)), Reason: catalog.SkipDuplicate})
			} else {
				kept = append(kept, b)
			}
		}
		c.Blocks = kept
	}
	for {
		err := cat.CommitArchive(ctx, c)
		switch {
		case errors.Is(err, catalog.ErrDuplicateBlocks):
			keys := make([]catalog.BlockKey, len(c.Blocks))
			for i := range c.Blocks {
				keys[i] = key(c.Blocks[i])
			}
			exist, err := cat.ExistingBlocks(ctx, keys)
			if err != nil {
				return refused, err
			}
			drop(func(i int, _ catalog.BlockKey) bool { return exist[i] })
		case errors.Is(err, catalog.ErrFrozen):
			f, err := cat.Frozen(ctx, math.MinInt64, math.MaxInt64)
			if err != nil {
				return refused, err
			}
			drop(func(_ int, k catalog.BlockKey) bool { return objects.has(f.Files, k) })
			c.Frozen = f.Version
		default:
			return refused, err
		}
		refused++
	}
}

// freezeSomething moves the rows of the first day that has any, and removes them.
func freezeSomething(ctx context.Context, cat catalog.Catalog, objects *frozenObjects, name string) (bool, error) {
	for more := true; more; {
		var err error
		if more, err = cat.SweepFrozen(ctx, 5); err != nil {
			return false, err
		}
	}
	f, err := cat.Freezable(ctx, second(1_000_000), math.MaxInt64-1)
	if err != nil || len(f.Days) == 0 {
		return false, err
	}
	day := f.Days[0].Day
	span := catalog.FreezeSpan{From: day.Begin(), To: day.End(), UpTo: f.UpTo}
	rows, err := readSpan(ctx, cat, span)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	objects.put(name, rows)
	c := &catalog.FreezeCommit{FreezeSpan: span, Version: f.Version, Moved: int64(len(rows)), Added: []catalog.FrozenFile{frozenFile(name, rows)}}
	_, err = cat.CommitFreeze(ctx, c)
	return err == nil, err
}

// seenOnce counts all blocks at one version, as query does. A block that is seen twice is an error, and so is a count below what was
// archived when the call began.
func seenOnce(ctx context.Context, cat catalog.Catalog, objects *frozenObjects) (blocks int, version int64, err error) {
	for {
		stats, err := cat.Stats(ctx)
		if err != nil {
			return 0, 0, err
		}
		f, err := cat.Frozen(ctx, math.MinInt64, math.MaxInt64)
		if err != nil {
			return 0, 0, err
		}
		rows, _, err := cat.BlocksSince(ctx, nil, 0)
		if err != nil {
			return 0, 0, err
		}
		if again, err := cat.Frozen(ctx, 0, 0); err != nil || again.Version != f.Version {
			if err != nil {
				return 0, 0, err
			}
			continue
		}
		seen := map[telemetry.ID]string{}
		note := func(id telemetry.ID, where string) {
			if before, twice := seen[id]; twice {
				err = fmt.Errorf("version %d: block %s is in %s and in %s", f.Version, id, before, where)
			}
			seen[id] = where
		}
		for i := range rows {
			note(rows[i].ID, "rows")
		}
		objects.mu.Lock()
		for i := range f.Files {
			for j := range objects.files[f.Files[i].Key] {
				note(objects.files[f.Files[i].Key][j].ID, f.Files[i].Key)
			}
		}
		objects.mu.Unlock()
		if err == nil && int64(len(seen)) < stats.Blocks {
			err = fmt.Errorf("version %d: %d blocks, %d were archived before", f.Version, len(seen), stats.Blocks)
		}
		return len(seen), f.Version, err
	}
}
