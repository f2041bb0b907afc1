package catalogtest

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func testViewBehindArchive(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	move := func(from, to uint64) error {
		_, err := cat.CommitView(ctx, &catalog.ViewCommit{Consumer: "views", Moves: []catalog.Move{{Shard: eager, From: from, To: to, Epoch: 1}}})
		return err
	}
	wantErr(t, move(0, 1), catalog.ErrArchiveBehind)
	archive(t, cat, step(0, 5))
	wantErr(t, move(0, 6), catalog.ErrArchiveBehind)
	if err := move(0, 5); err != nil {
		t.Fatal(err)
	}
	wantErr(t, move(0, 5), catalog.ErrConflict)
	wantErr(t, move(4, 5), catalog.ErrConflict)
	equal(t, "checkpoint", checkpoint(t, cat, "views", eager), catalog.Checkpoint{Seq: 5, Epoch: 1})
	equal(t, "archive's", checkpoint(t, cat, "archive", eager), catalog.Checkpoint{Seq: 5, Epoch: 1})
}

func parked(seq uint64, stream, process int) catalog.Parked {
	return catalog.Parked{Shard: eager, Seq: seq, StreamID: streamID(stream), ProcessID: processID(process), Since: second(int64(seq)), Reason: "no stream"}
}

func testViewWhole(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	other := catalog.ShardID{Class: 'e', Shard: 1}
	archive(t, cat, step(0, 5))
	c := step(0, 5)
	c.Shard = other
	archive(t, cat, c)
	no := view(t, cat, &catalog.ViewCommit{Consumer: "views", Added: []catalog.Partition{partition(1)}, ParkedAdded: []catalog.Parked{parked(1, 1, 1)}})
	equal(t, "first commit", no, int64(1))
	before := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0))
	live := before.Added[0].PartNo

	full := func() *catalog.ViewCommit {
		return &catalog.ViewCommit{
			Consumer: "views", Moves: []catalog.Move{{Shard: eager, To: 5, Epoch: 1}, {Shard: other, To: 5, Epoch: 1}},
			Added: []catalog.Partition{partition(2)}, Retired: []int64{live},
			ParkedAdded: []catalog.Parked{parked(4, 1, 1)}, ParkedDone: []catalog.Parked{parked(1, 1, 1)},
		}
	}
	for name, damage := range map[string]func(*catalog.ViewCommit) error{
		"second move":       func(c *catalog.ViewCommit) error { c.Moves[1].From = 1; return catalog.ErrConflict },
		"archive behind":    func(c *catalog.ViewCommit) error { c.Moves[1].To = 6; return catalog.ErrArchiveBehind },
		"unknown partition": func(c *catalog.ViewCommit) error { c.Retired = append(c.Retired, 999); return catalog.ErrStale },
		"retired twice":     func(c *catalog.ViewCommit) error { c.Retired = append(c.Retired, live); return catalog.ErrStale },
		"not parked": func(c *catalog.ViewCommit) error {
			c.ParkedDone = append(c.ParkedDone, parked(2, 1, 1))
			return catalog.ErrStale
		},
	} {
		c := full()
		want := damage(c)
		if _, err := cat.CommitView(ctx, c); err == nil {
			t.Fatalf("%s: no error", name)
		} else {
			wantErr(t, err, want)
		}
		equal(t, name+": partitions", must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)), before)
		equal(t, name+": checkpoint", checkpoint(t, cat, "views", eager), catalog.Checkpoint{})
		equal(t, name+": parked", must[[]catalog.Parked](t)(cat.Parked(ctx, "views", catalog.ParkedFilter{})), []catalog.Parked{parked(1, 1, 1)})
	}
	equal(t, "second commit", view(t, cat, full()), int64(2))
	equal(t, "commit number", must[int64](t)(cat.CommitNo(ctx)), int64(2))
	equal(t, "parked", must[[]catalog.Parked](t)(cat.Parked(ctx, "views", catalog.ParkedFilter{})), []catalog.Parked{parked(4, 1, 1)})
	equal(t, "moved", checkpoint(t, cat, "views", other), catalog.Checkpoint{Seq: 5, Epoch: 1})

	same := partition(2) // one object, one partition
	if _, err := cat.CommitView(ctx, &catalog.ViewCommit{Added: []catalog.Partition{same}}); err == nil {
		t.Fatal("the same object was added twice")
	}
	equal(t, "without partitions", view(t, cat, &catalog.ViewCommit{Consumer: "views", ParkedAdded: []catalog.Parked{parked(5, 1, 1)}}), int64(2))
}

func testParked(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	other := parked(3, 3, 3)
	other.Shard.Shard = 1
	all := []catalog.Parked{parked(1, 1, 1), parked(2, 2, 1), parked(4, 2, 2), other}
	view(t, cat, &catalog.ViewCommit{Consumer: "views", ParkedAdded: all})
	view(t, cat, &catalog.ViewCommit{Consumer: "else", ParkedAdded: all[:1]})
	f := func(what string, filter catalog.ParkedFilter, want ...catalog.Parked) {
		t.Helper()
		equal(t, what, must[[]catalog.Parked](t)(cat.Parked(ctx, "views", filter)), want)
	}
	yes, no := true, false
	f("all", catalog.ParkedFilter{}, all...)
	f("limit", catalog.ParkedFilter{Limit: 2}, all[:2]...)
	f("shard", catalog.ParkedFilter{Shard: &other.Shard}, other)
	f("streams", catalog.ParkedFilter{StreamIDs: []telemetry.ID{streamID(2)}}, all[1], all[2])
	f("processes", catalog.ParkedFilter{ProcessIDs: []telemetry.ID{processID(1)}}, all[0], all[1])
	f("either", catalog.ParkedFilter{StreamIDs: []telemetry.ID{streamID(1)}, ProcessIDs: []telemetry.ID{processID(2)}}, all[0], all[2])
	f("old", catalog.ParkedFilter{SinceBefore: second(2)}, all[0])
	f("dead", catalog.ParkedFilter{Dead: &yes})
	dead := all[1]
	dead.Dead, dead.Reason = true, "an hour without its stream"
	view(t, cat, &catalog.ViewCommit{Consumer: "views", ParkedAdded: []catalog.Parked{dead}})
	f("dead", catalog.ParkedFilter{Dead: &yes}, dead)
	f("alive", catalog.ParkedFilter{Dead: &no}, all[0], all[2], other)
	view(t, cat, &catalog.ViewCommit{Consumer: "views", ParkedDone: []catalog.Parked{dead, other}})
	f("built", catalog.ParkedFilter{}, all[0], all[2])
	equal(t, "another consumer's", len(must[[]catalog.Parked](t)(cat.Parked(ctx, "else", catalog.ParkedFilter{}))), 1)
}

func testPartitionDeltas(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	empty := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0))
	if !empty.Full || len(empty.Added) != 0 || empty.CommitNo != 0 {
		t.Fatalf("empty: %+v", empty)
	}
	other := partition(2)
	other.View, other.Procs, other.SrcHash = "thread_spans", nil, nil
	other.MinTime, other.MaxTime, other.Bucket = math.MinInt64, math.MaxInt64, -5
	equal(t, "commit", view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{partition(1), other}}), int64(1))
	d := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0))
	want := []catalog.Partition{partition(1), other}
	for i := range want {
		want[i].Added = 1
	}
	if diff := cmp.Diff(want, d.Added, cmpopts.IgnoreFields(catalog.Partition{}, "PartNo")); diff != "" {
		t.Fatalf("partitions (-want +got):\n%s", diff)
	}
	first, second := d.Added[0].PartNo, d.Added[1].PartNo

	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{partition(3)}, Retired: []int64{first}})
	short := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 1))
	if short.Full || short.CommitNo != 2 || len(short.Added) != 1 || short.Added[0].Key != "views/3" || len(short.Retired) != 1 || short.Retired[0] != first {
		t.Fatalf("delta: %+v", short)
	}
	view(t, cat, &catalog.ViewCommit{Retired: []int64{short.Added[0].PartNo}}) // came and went since 1
	long := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 1))
	if long.Full || len(long.Added) != 0 || len(long.Retired) != 2 || long.CommitNo != 3 {
		t.Fatalf("delta: %+v", long)
	}
	now := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 3))
	if now.Full || len(now.Added)+len(now.Retired) != 0 || now.CommitNo != 3 {
		t.Fatalf("nothing new: %+v", now)
	}
	all := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0))
	if len(all.Added) != 1 || all.Added[0].PartNo != second {
		t.Fatalf("live: %+v", all)
	}
	future := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 99)) // of another life of the catalog
	if !future.Full || len(future.Added) != 1 {
		t.Fatalf("from the future: %+v", future)
	}
}

// A reader that slept while retired rows were forgotten cannot be told what to drop.
func testSleepyReader(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{partition(1), partition(2)}})
	parts := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added
	view(t, cat, &catalog.ViewCommit{Retired: []int64{parts[0].PartNo}})
	if err := cat.ForgetPartitions(ctx, []int64{parts[0].PartNo}); err != nil {
		t.Fatal(err)
	}
	d := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 1))
	if !d.Full || len(d.Added) != 1 || d.Added[0].PartNo != parts[1].PartNo {
		t.Fatalf("sleepy: %+v", d)
	}
	if d := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 2)); d.Full {
		t.Fatalf("awake: %+v", d)
	}
}

func testGarbage(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 4))
	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{partition(1), partition(2), partition(3)}})
	parts := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added
	view(t, cat, &catalog.ViewCommit{Retired: []int64{parts[0].PartNo}})
	view(t, cat, &catalog.ViewCommit{Retired: []int64{parts[2].PartNo}})
	retired := must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, time.Now().Add(time.Hour).UnixNano(), 10))
	if len(retired) != 2 || retired[0].PartNo != parts[0].PartNo || retired[1].Key != "views/3" || retired[0].Retired != 2 || retired[0].RetiredAt == 0 {
		t.Fatalf("retired: %+v", retired)
	}
	equal(t, "limit", len(must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, math.MaxInt64, 1))), 1)
	equal(t, "too fresh", len(must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, time.Now().Add(-time.Hour).UnixNano(), 10))), 0)
	keys := []string{"views/1", "views/2", "packs/1-4", "views/none", ""}
	equal(t, "referenced", must[[]bool](t)(cat.KeysReferenced(ctx, keys)), []bool{true, true, true, false, false})
	if err := cat.ForgetPartitions(ctx, []int64{parts[0].PartNo, parts[1].PartNo /* live: stays */, 999}); err != nil {
		t.Fatal(err)
	}
	equal(t, "referenced", must[[]bool](t)(cat.KeysReferenced(ctx, keys)), []bool{false, true, true, false, false})
	equal(t, "live", len(must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added), 1)
}

func testStats(t *testing.T, cat catalog.Catalog) {
	c := step(0, 4, block(1, 1, 1), block(2, 2, 1))
	c.Skips = []catalog.Skip{{Seq: 1, Rec: 1, Reason: 1}}
	archive(t, cat, c)
	dead := parked(2, 1, 1)
	dead.Dead = true
	view(t, cat, &catalog.ViewCommit{Consumer: "views", Added: []catalog.Partition{partition(1), partition(2)}, ParkedAdded: []catalog.Parked{parked(1, 1, 1), dead}})
	part := must[catalog.PartitionDelta](t)(cat.Partitions(t.Context(), 0)).Added[0]
	view(t, cat, &catalog.ViewCommit{Retired: []int64{part.PartNo}})
	equal(t, "stats", must[catalog.Stats](t)(cat.Stats(t.Context())), catalog.Stats{
		Processes: 1, Streams: 2, Blocks: 2, Packs: 1, PackBytes: 4000, Partitions: 1, PartitionRows: 3, PartitionBytes: 100, RetiredPartitions: 1,
		Skips: 1, Parked: 1, Dead: 1, CommitNo: 2,
	})
}
