package catalogtest

import (
	"slices"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// instancePartition is a partition of an instance.
func instancePartition(n int, view string, instance, bucket int64, level int16) catalog.Partition {
	p := partition(n)
	p.View, p.Instance, p.Bucket, p.Level, p.Procs = view, instance, bucket, level, nil
	p.SrcHash, p.State, p.Objects, p.MaxSortKey = []byte{1, byte(n)}, []byte{0, byte(n)}, int64(n), second(int64(n))
	return p
}

func testInstances(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{partition(1)}})
	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{
		instancePartition(2, "thread_spans", 7, second(2), 0), instancePartition(3, "thread_spans", 7, second(1), 1), instancePartition(4, "thread_spans", 7, second(1), 0),
		instancePartition(5, "thread_spans", 8, second(1), 0), instancePartition(6, "images", 7, second(1), 0),
	}})
	d := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0))
	equal(t, "global partitions", len(d.Added), 1)
	equal(t, "since the first commit", len(must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 1)).Added), 0)
	got := must[[]catalog.Partition](t)(cat.InstancePartitions(ctx, "thread_spans", 7))
	var keys []string
	for i := range got {
		keys = append(keys, got[i].Key)
	}
	equal(t, "partitions of an instance", keys, []string{partition(4).Key, partition(3).Key, partition(2).Key})
	want := instancePartition(4, "thread_spans", 7, second(1), 0)
	want.PartNo, want.Added = got[0].PartNo, got[0].Added
	equal(t, "the first", got[0], want)
	equal(t, "of an unknown view", len(must[[]catalog.Partition](t)(cat.InstancePartitions(ctx, "nope", 7))), 0)
	equal(t, "global ones are no instance's", len(must[[]catalog.Partition](t)(cat.InstancePartitions(ctx, partition(1).View, 0))), 0)
	all := must[[]catalog.Partition](t)(cat.AllInstancePartitions(ctx, 0))
	equal(t, "of all instances", len(all), 5)
	equal(t, "their states", all[0].State, []byte(nil))
	equal(t, "up to a limit", len(must[[]catalog.Partition](t)(cat.AllInstancePartitions(ctx, 2))), 2)

	// One place, one partition.
	again := instancePartition(9, "thread_spans", 7, second(1), 0)
	_, err := cat.CommitView(ctx, &catalog.ViewCommit{Added: []catalog.Partition{again}})
	wantErr(t, err, catalog.ErrStale)
	_, err = cat.CommitView(ctx, &catalog.ViewCommit{Added: []catalog.Partition{instancePartition(10, "x", 1, 1, 1), instancePartition(11, "x", 1, 1, 1)}})
	wantErr(t, err, catalog.ErrStale)
	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{again}, Retired: []int64{got[0].PartNo}})
	got = must[[]catalog.Partition](t)(cat.InstancePartitions(ctx, "thread_spans", 7))
	equal(t, "in its place", got[0].Key, again.Key)
	equal(t, "referenced", must[[]bool](t)(cat.KeysReferenced(ctx, []string{again.Key, partition(4).Key, "none"})), []bool{true, true, false})
	now := must[int64](t)(cat.Now(ctx))
	equal(t, "retired", len(must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, now+1, 10))), 1)

	large := instancePartition(12, "thread_spans", 9, 0, 0)
	large.State = make([]byte, catalog.MaxStateBytes+1)
	_, err = cat.CommitView(ctx, &catalog.ViewCommit{Added: []catalog.Partition{large}})
	wantErr(t, err, catalog.ErrInvalid)
}

func testGuard(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	commit := func(n int, l catalog.Lease) error {
		_, err := cat.CommitView(ctx, &catalog.ViewCommit{Guard: &l, Added: []catalog.Partition{instancePartition(n, "thread_spans", int64(n), 1, 0)}})
		return err
	}
	wantErr(t, commit(1, catalog.Lease{Name: "jit/1", Owner: "a", Epoch: 1}), catalog.ErrLeaseLost)
	first := must[catalog.Lease](t)(cat.AcquireLease(ctx, "jit/1", "a", time.Millisecond))
	if err := commit(2, first); err != nil {
		t.Error("a lease that stands:", err)
	}
	var second catalog.Lease
	for err := catalog.ErrHeld; err != nil; second, err = cat.AcquireLease(ctx, "jit/1", "b", time.Minute) {
	}
	wantErr(t, commit(3, first), catalog.ErrLeaseLost)
	if err := commit(4, second); err != nil {
		t.Error("the next one:", err)
	}
	if err := cat.ReleaseLease(ctx, second); err != nil {
		t.Fatal(err)
	}
	wantErr(t, commit(5, second), catalog.ErrLeaseLost)
	equal(t, "partitions", len(must[[]catalog.Partition](t)(cat.AllInstancePartitions(ctx, 0))), 2)
}

func testProcessStreams(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	c := step(0, 1, block(9, 9, 1))
	c.Processes = []catalog.ProcessReg{process(1), process(2)}
	c.Streams = []catalog.StreamReg{stream(1, 1), stream(2, 2), stream(3, 1)}
	archive(t, cat, c)
	ids := func(processes ...int) (out []telemetry.ID) {
		var of []telemetry.ID
		for _, n := range processes {
			of = append(of, processID(n))
		}
		rows := must[[]catalog.StreamRow](t)(cat.ProcessStreams(ctx, of))
		for i := range rows {
			out = append(out, rows[i].ID)
			if i > 0 && rows[i].No <= rows[i-1].No {
				t.Error("rows are not in order of their numbers")
			}
		}
		slices.SortFunc(out, telemetry.ID.Compare)
		return out
	}
	equal(t, "of one process", ids(1), []telemetry.ID{streamID(1), streamID(3), streamID(9)})
	equal(t, "of two", ids(2, 1), []telemetry.ID{streamID(1), streamID(2), streamID(3), streamID(9)})
	equal(t, "of an unknown one", ids(5), []telemetry.ID(nil))
	equal(t, "of none", ids(), []telemetry.ID(nil))
	rows := must[[]catalog.StreamRow](t)(cat.ProcessStreams(ctx, []telemetry.ID{processID(2)}))
	equal(t, "the row", rows, must[[]catalog.StreamRow](t)(cat.Streams(ctx, []telemetry.ID{streamID(2)})))
}

// streamBlocks returns the ids of a stream's blocks, as they come.
func streamBlocks(t *testing.T, cat catalog.Catalog, n int, q catalog.BlockQuery) (ids []telemetry.ID) {
	t.Helper()
	rows := must[[]catalog.BlockRow](t)(cat.StreamBlocks(t.Context(), streamID(n), q))
	for i := range rows {
		ids = append(ids, rows[i].ID)
	}
	return ids
}

func testStreamBlocks(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	var blocks []catalog.BlockReg
	for n := range 10 { // block n begins at n*10 s and lasts for 10 s; block 0 lasts for 60 s
		b := block(n, 1, 1)
		b.BeginTime, b.EndTime = second(int64(n)*10), second(int64(n)*10+10)
		if n == 0 {
			b.EndTime = second(60)
		}
		if n == 9 {
			b.EndTime = second(1) // a clock that went back: it lasts for a moment
		}
		blocks = append(blocks, b)
	}
	other := block(20, 2, 1)
	c := step(0, 1, append(blocks, other)...)
	c.Processes, c.Streams = []catalog.ProcessReg{process(1)}, []catalog.StreamReg{stream(1, 1)}
	archive(t, cat, c)
	query := func(q catalog.BlockQuery) (numbers []int) {
		for _, id := range streamBlocks(t, cat, 1, q) {
			numbers = append(numbers, int(id[15]))
		}
		return numbers
	}
	q := catalog.AllBlocks()
	equal(t, "all", query(q), []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	q.Begin, q.End = second(50), second(60)
	equal(t, "under way in a range", query(q), []int{0, 4, 5, 6})
	q.Begin, q.End = second(86), second(95)
	equal(t, "under way for a moment", query(q), []int{8, 9})
	q = catalog.AllBlocks()
	q.From, q.To = second(20), second(40)
	equal(t, "begun in a range", query(q), []int{2, 3})
	q = catalog.AllBlocks()
	q.To, q.Newest = second(50), 3
	equal(t, "the newest before", query(q), []int{2, 3, 4})
	q.Newest = 100
	equal(t, "as many as there are", query(q), []int{0, 1, 2, 3, 4})
	q.Begin, q.End, q.Newest = second(25), second(45), 2
	equal(t, "the newest of those under way", query(q), []int{3, 4})
	equal(t, "of an unknown stream", len(must[[]catalog.BlockRow](t)(cat.StreamBlocks(ctx, streamID(7), q))), 0)

	since, _, err := cat.BlocksSince(ctx, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	rows := must[[]catalog.BlockRow](t)(cat.StreamBlocks(ctx, streamID(1), catalog.AllBlocks()))
	for i := range rows {
		j := slices.IndexFunc(since, func(b catalog.BlockRow) bool { return b.ID == rows[i].ID })
		equal(t, "a row, as others read it", rows[i], since[j])
	}
	stub := must[[]catalog.BlockRow](t)(cat.StreamBlocks(ctx, streamID(2), catalog.AllBlocks()))
	if len(stub) != 1 || stub[0].StreamKnown || !stub[0].ProcessKnown {
		t.Errorf("of a stub: %+v", stub)
	}
}
