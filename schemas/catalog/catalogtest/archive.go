package catalogtest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func testArchiveWhole(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 1, block(1, 1, 1)))
	c := step(1, 2, block(2, 1, 1), block(1, 1, 1), block(3, 2, 2))
	c.Processes = []catalog.ProcessReg{process(9)}
	c.Streams = []catalog.StreamReg{stream(9, 9)}
	c.Skips = []catalog.Skip{{Seq: 2, Rec: 7, Reason: catalog.SkipUnreadable}}
	wantErr(t, cat.CommitArchive(ctx, c), catalog.ErrDuplicateBlocks)
	equal(t, "checkpoint", checkpoint(t, cat, "archive", eager), catalog.Checkpoint{Seq: 1, Epoch: 1})
	equal(t, "skips", len(must[[]catalog.Skip](t)(cat.Skips(ctx, eager, 0, 10))), 0)
	equal(t, "processes", len(must[[]catalog.ProcessRow](t)(cat.Processes(ctx, nil))), 1)
	equal(t, "existing", must[[]bool](t)(cat.ExistingBlocks(ctx, []catalog.BlockKey{key(block(2, 1, 1)), key(block(1, 1, 1)), key(block(3, 2, 2)), key(block(1, 2, 1))})),
		[]bool{false, true, false, false})

	// Settled: a skip stands for the duplicate.
	c.Blocks = []catalog.BlockReg{block(2, 1, 1), block(3, 2, 2)}
	c.Skips = append(c.Skips, catalog.Skip{Seq: 2, Rec: 1, Reason: catalog.SkipDuplicate})
	archive(t, cat, c)
	equal(t, "existing", must[[]bool](t)(cat.ExistingBlocks(ctx, []catalog.BlockKey{key(block(2, 1, 1)), key(block(1, 1, 1)), key(block(3, 2, 2))})), []bool{true, true, true})

	twice := step(2, 3, block(4, 1, 1), block(4, 1, 1))
	wantErr(t, cat.CommitArchive(ctx, twice), catalog.ErrDuplicateBlocks)
	equal(t, "no keys", len(must[[]bool](t)(cat.ExistingBlocks(ctx, nil))), 0)
}

func testInvalid(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	noPack := step(0, 1, block(1, 1, 1))
	noPack.Pack = nil
	adopted := step(0, 1, block(1, 1, 1))
	adopted.Blocks[0].Adopted = 1
	for _, c := range []*catalog.ArchiveCommit{step(1, 1), step(2, 1), noPack, adopted} {
		wantErr(t, cat.CommitArchive(ctx, c), catalog.ErrInvalid)
	}
	bad := partition(1)
	bad.MaxTime = bad.MinTime - 1
	bitmap := partition(1)
	bitmap.Procs = []byte{1}
	for _, c := range []*catalog.ViewCommit{
		{Consumer: "views", Moves: []catalog.Move{{Shard: eager, From: 2, To: 1}}},
		{Added: []catalog.Partition{bad}},
		{Added: []catalog.Partition{bitmap}},
		{Added: []catalog.Partition{{View: "x"}}},
		{ParkedDone: []catalog.Parked{{}}},
	} {
		_, err := cat.CommitView(ctx, c)
		wantErr(t, err, catalog.ErrInvalid)
	}
}

func testOldObjects(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	old := time.Now().Add(-catalog.MaxObjectAge - time.Minute).UnixNano()
	c := step(0, 1)
	c.ObjectsSince = old
	wantErr(t, cat.CommitArchive(ctx, c), catalog.ErrObjectsTooOld)
	_, err := cat.CommitView(ctx, &catalog.ViewCommit{Added: []catalog.Partition{partition(1)}, ObjectsSince: old})
	wantErr(t, err, catalog.ErrObjectsTooOld)
	c.ObjectsSince = time.Now().UnixNano()
	archive(t, cat, c)
}

func testFirstRegistrationWins(t *testing.T, cat catalog.Catalog) {
	c := step(0, 1)
	c.Processes = []catalog.ProcessReg{process(1)}
	c.Streams = []catalog.StreamReg{stream(1, 1)}
	p, s := process(1), stream(1, 2) // in the same commit
	p.Exe, s.Format, s.Tags = "late", "late", []string{"cpu"}
	c.Processes, c.Streams = append(c.Processes, p), append(c.Streams, s)
	archive(t, cat, c)
	c = step(1, 2) // and in a later one
	c.Processes, c.Streams = []catalog.ProcessReg{p}, []catalog.StreamReg{s}
	archive(t, cat, c)
	equal(t, "exe", oneProcess(t, cat, 1).Exe, "exe1")
	got := oneStream(t, cat, 1)
	equal(t, "stream", []string{got.Format, got.Tags[0], got.ProcessID.String()}, []string{telemetry.FormatTransit, "log", processID(1).String()})
}

func oneProcess(t *testing.T, cat catalog.Catalog, n int) catalog.ProcessRow {
	t.Helper()
	all := must[[]catalog.ProcessRow](t)(cat.Processes(t.Context(), []telemetry.ID{processID(n)}))
	if len(all) != 1 {
		t.Fatalf("process %d: %d rows", n, len(all))
	}
	return all[0]
}

func oneStream(t *testing.T, cat catalog.Catalog, n int) catalog.StreamRow {
	t.Helper()
	all := must[[]catalog.StreamRow](t)(cat.Streams(t.Context(), []telemetry.ID{streamID(n)}))
	if len(all) != 1 {
		t.Fatalf("stream %d: %d rows", n, len(all))
	}
	return all[0]
}

func testStubs(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 1, block(1, 1, 1)))
	p, s := oneProcess(t, cat, 1), oneStream(t, cat, 1)
	if p.Registered != 0 || s.Registered != 0 || !p.HasBlocks || !s.HasBlocks || s.ProcessID != processID(1) || s.ProcessNo != p.No {
		t.Fatalf("stubs %+v, %+v", p, s)
	}
	if _, known, err := cat.StreamTag(ctx, streamID(1)); known || err != nil {
		t.Fatalf("tag of a stub: %v, %v", known, err)
	}
	blocks, _, err := cat.BlocksSince(ctx, nil, 0)
	if err != nil || len(blocks) != 1 || blocks[0].StreamKnown || blocks[0].ProcessKnown {
		t.Fatalf("blocks of stubs: %+v, %v", blocks, err)
	}

	c := step(1, 2, block(2, 1, 1)) // the stream first
	c.Streams = []catalog.StreamReg{stream(1, 1)}
	archive(t, cat, c)
	if s := oneStream(t, cat, 1); s.Registered != second(1) || len(s.Tags) != 1 || !s.HasBlocks || s.LastTime != second(3) {
		t.Fatalf("stream %+v", s)
	}
	c = step(2, 3)
	c.Processes = []catalog.ProcessReg{process(1)}
	archive(t, cat, c)
	filled := oneProcess(t, cat, 1)
	if filled.Registered != second(1) || filled.Exe != "exe1" || filled.No != p.No || filled.LastTime != second(3) {
		t.Fatalf("process %+v", filled)
	}
	blocks, _, err = cat.BlocksSince(ctx, nil, 0)
	if err != nil || len(blocks) != 2 || !blocks[0].StreamKnown || !blocks[0].ProcessKnown || blocks[0].Tag != telemetry.TagLog {
		t.Fatalf("blocks: %+v, %v", blocks, err)
	}

	late := process(1) // a stub is filled once
	late.Exe = "late"
	c = step(3, 4)
	c.Processes = []catalog.ProcessReg{late}
	archive(t, cat, c)
	equal(t, "exe", oneProcess(t, cat, 1).Exe, "exe1")
}

// A block may name another process than its stream's registration does; the registration decides.
func testStubMoves(t *testing.T, cat catalog.Catalog) {
	archive(t, cat, step(0, 1, block(1, 1, 1)))
	c := step(1, 2)
	c.Streams = []catalog.StreamReg{stream(1, 2)}
	archive(t, cat, c)
	archive(t, cat, step(2, 3, block(2, 1, 1)))
	equal(t, "process of the stream", oneStream(t, cat, 1).ProcessID, processID(2))
	blocks, _, err := cat.BlocksSince(t.Context(), nil, 0)
	if err != nil || len(blocks) != 2 || blocks[0].ProcessID != processID(2) || blocks[1].ProcessID != processID(2) {
		t.Fatalf("blocks %+v, %v", blocks, err)
	}
	equal(t, "last seen", oneProcess(t, cat, 2).LastTime, second(3))
}

func testRegistrationRoundTrip(t *testing.T, cat catalog.Catalog) {
	c := step(0, 1)
	p := catalog.ProcessReg{Process: telemetry.Process{
		ID: processID(1), Exe: `C:\game.exe`, Username: "Zoë", Realname: "名前 \u2028 <&>", Computer: "", Distro: strings.Repeat("x", 255), CPUBrand: "\u0001",
		TSCFrequency: math.MinInt64, StartTime: second(0) + 1234, StartTicks: math.MaxInt64, ParentID: processID(5),
		Properties: []telemetry.Property{{Key: "b", Value: "1"}, {Key: "", Value: "\"\\\n"}, {Key: "b", Value: "2"}},
	}, InsertTime: second(1) + 999}
	s := stream(1, 1)
	s.Tags, s.Properties, s.DependenciesCBOR = nil, nil, nil
	old := process(2)
	old.StartTime, old.InsertTime = -1, math.MinInt64
	c.Processes, c.Streams = []catalog.ProcessReg{p, old}, []catalog.StreamReg{s}
	archive(t, cat, c)

	want := catalog.ProcessRow{Process: p.Process, Registered: second(1)}
	want.StartTime = second(0) + 1000
	want.Properties = []telemetry.Property{{Key: "", Value: "\"\\\n"}, {Key: "b", Value: "2"}}
	got := oneProcess(t, cat, 1)
	got.No = 0
	equal(t, "process", got, want)
	equal(t, "time before 1970", oneProcess(t, cat, 2).StartTime, int64(-1000))
	gotStream := oneStream(t, cat, 1)
	if len(gotStream.Tags) != 0 || len(gotStream.Properties) != 0 || len(gotStream.DependenciesCBOR) != 0 || string(gotStream.ObjectsCBOR) != "objects" {
		t.Fatalf("stream %+v", gotStream)
	}

	all := must[[]catalog.ProcessRow](t)(cat.Processes(t.Context(), nil))
	equal(t, "all processes", len(all), 2)
	none := must[[]catalog.ProcessRow](t)(cat.Processes(t.Context(), []telemetry.ID{}))
	equal(t, "no ids", len(none), 0)
	ids := make([]telemetry.ID, 1200) // more than one statement's worth, each twice
	for i := range ids {
		ids[i] = processID(i%600 + 1)
	}
	some := must[[]catalog.ProcessRow](t)(cat.Processes(t.Context(), ids))
	if len(some) != 2 || some[0].No >= some[1].No {
		t.Fatalf("many ids: %+v", some)
	}
}

func testLayouts(t *testing.T, cat catalog.Catalog) {
	c := step(0, 1)
	other := stream(3, 1)
	other.ObjectsCBOR = []byte("different")
	c.Streams = []catalog.StreamReg{stream(1, 1), stream(2, 1), other}
	archive(t, cat, c)
	c = step(1, 2)
	c.Streams = []catalog.StreamReg{stream(4, 1)}
	archive(t, cat, c)
	all := must[[]catalog.StreamRow](t)(cat.Streams(t.Context(), nil))
	equal(t, "streams", len(all), 4)
	a, b, d, e := all[0], all[1], all[2], all[3]
	if a.DependenciesNo != b.DependenciesNo || a.ObjectsNo != b.ObjectsNo || a.DependenciesNo != d.DependenciesNo || a.ObjectsNo == d.ObjectsNo || a.ObjectsNo != e.ObjectsNo {
		t.Fatalf("layouts %d/%d %d/%d %d/%d", a.DependenciesNo, a.ObjectsNo, b.DependenciesNo, b.ObjectsNo, d.DependenciesNo, d.ObjectsNo)
	}
	equal(t, "body", string(d.ObjectsCBOR)+string(a.ObjectsCBOR)+string(a.DependenciesCBOR), "differentobjectsdependencies")
}

func testStreamTags(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	c := step(0, 1)
	for i, tags := range [][]string{{"log"}, {"metrics"}, {"cpu"}, {}} {
		s := stream(i, 1)
		s.Tags = tags
		c.Streams = append(c.Streams, s)
	}
	archive(t, cat, c)
	for i, want := range []telemetry.Tag{telemetry.TagLog, telemetry.TagMetrics, telemetry.TagCPU, telemetry.TagOf(nil)} {
		tag, known, err := cat.StreamTag(ctx, streamID(i))
		if tag != want || !known || err != nil {
			t.Fatalf("stream %d: %v, %v, %v", i, tag, known, err)
		}
	}
	if _, known, err := cat.StreamTag(ctx, streamID(99)); known || err != nil {
		t.Fatalf("unknown stream: %v, %v", known, err)
	}
}

func testLastSeen(t *testing.T, cat catalog.Catalog) {
	c := step(0, 1, block(5, 1, 1), block(3, 1, 1), block(9, 2, 1))
	c.Processes, c.Streams = []catalog.ProcessReg{process(1), process(2)}, []catalog.StreamReg{stream(1, 1), stream(2, 1)}
	archive(t, cat, c, step(1, 2, block(4, 1, 1)))
	early := block(1, 1, 1)
	early.BeginTicks, early.EndTicks = -50, -40
	archive(t, cat, step(2, 3, early))
	p, s := oneProcess(t, cat, 1), oneStream(t, cat, 1)
	equal(t, "process", []int64{p.FirstTime, p.LastTime, p.LastInsert, p.LastTicks, p.LastTicksTime}, []int64{second(1), second(10), second(11), 100, second(10)})
	equal(t, "stream", []int64{s.FirstTime, s.LastTime, s.LastInsert}, []int64{second(1), second(6), second(7)})
	if silent := oneProcess(t, cat, 2); silent.HasBlocks || silent.LastTime != 0 {
		t.Fatalf("process without blocks: %+v", silent)
	}
}

// The last ticks and their time are of one block, whatever the order in which blocks come, and however commits and streams divide them.
func testLastTicks(t *testing.T, cat catalog.Catalog) {
	ends := []struct{ ticks, time int64 }{
		{100, second(15)},
		{100, second(20) + 999},
		{40, second(1000)}, // the process's wall clock was ahead
	}
	process, seq := 0, uint64(0)
	f := func(order []int, streams, commits int) {
		t.Helper()
		process++
		var blocks []catalog.BlockReg
		for i, n := range order {
			b := block(n, 10*process+i%streams, process)
			b.EndTicks, b.EndTime = ends[n].ticks, ends[n].time
			blocks = append(blocks, b)
		}
		for part := range slices.Chunk(blocks, len(blocks)/commits) {
			archive(t, cat, step(seq, seq+1, part...))
			seq++
		}
		p := oneProcess(t, cat, process)
		equal(t, fmt.Sprintf("order %v, streams %d, commits %d", order, streams, commits), []int64{p.LastTicks, p.LastTicksTime, p.LastTime}, []int64{100, second(20), second(1000)})
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		f(order, 1, 1)
		f(order, 3, 1)
		f(order, 1, 3)
		f(order, 3, 3)
	}
}

func testDuplicatesTruncated(t *testing.T, cat catalog.Catalog) {
	b := block(1, 1, 1)
	b.BeginTime += 1999
	b.EndTime, b.InsertTime = b.EndTime+999, b.InsertTime+1
	archive(t, cat, step(0, 1, b))
	equal(t, "as it came", must[[]bool](t)(cat.ExistingBlocks(t.Context(), []catalog.BlockKey{key(b)})), []bool{true})
	b.BeginTime -= 900
	wantErr(t, cat.CommitArchive(t.Context(), step(1, 2, b)), catalog.ErrDuplicateBlocks)
	rows, _, err := cat.BlocksSince(t.Context(), nil, 0)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	equal(t, "times", []int64{rows[0].BeginTime, rows[0].EndTime, rows[0].InsertTime}, []int64{second(1) + 1000, second(2), second(3)})
}

func testManyBlocks(t *testing.T, cat catalog.Catalog) {
	const n = 333 // whole groups and a rest, whatever the implementation groups by
	c := step(0, 1)
	for i := range n {
		c.Blocks = append(c.Blocks, block(i, i%7, i%3))
	}
	for i := range n {
		c.Skips = append(c.Skips, catalog.Skip{Seq: 1, Rec: int32(n + i), Reason: catalog.SkipDuplicate})
	}
	archive(t, cat, c)
	rows, _, err := cat.BlocksSince(t.Context(), nil, 0)
	if err != nil || len(rows) != n {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	equal(t, "skips", must[[]catalog.Skip](t)(cat.Skips(t.Context(), eager, 0, math.MaxUint64)), c.Skips)
	late := step(1, 2, c.Blocks[n-1])
	for i := range 100 {
		late.Blocks = append(late.Blocks, block(n+i, 1, 1))
	}
	wantErr(t, cat.CommitArchive(t.Context(), late), catalog.ErrDuplicateBlocks)
}

func testBlocksSince(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	raw := catalog.ShardID{Class: 'r'}
	c := step(0, 4, block(1, 1, 1), block(2, 1, 1))
	c.Streams, c.Processes = []catalog.StreamReg{stream(1, 1)}, []catalog.ProcessReg{process(1)}
	archive(t, cat, c, step(4, 6, block(3, 1, 1), block(4, 2, 1)))
	onlyMoved := step(6, 8)
	onlyMoved.Pack = nil
	r := step(0, 9, block(5, 3, 1))
	r.Shard = raw
	archive(t, cat, onlyMoved, r)

	read := func(after map[catalog.ShardID]uint64, limit int) ([]telemetry.ID, map[catalog.ShardID]uint64) {
		rows, to, err := cat.BlocksSince(ctx, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []telemetry.ID
		for _, b := range rows {
			ids = append(ids, b.ID)
		}
		return ids, to
	}
	all, end := read(nil, 0)
	equal(t, "all", all, []telemetry.ID{blockID(1), blockID(2), blockID(3), blockID(4), blockID(5)})
	equal(t, "positions", end, map[catalog.ShardID]uint64{eager: 8, raw: 9})
	part, at := read(nil, 1)
	equal(t, "a whole commit", part, []telemetry.ID{blockID(1), blockID(2)})
	equal(t, "position", at[eager], uint64(4))
	for len(part) < 5 {
		more, to := read(at, 1)
		if len(more) == 0 {
			t.Fatalf("no progress at %v after %d blocks", at, len(part))
		}
		part, at = append(part, more...), to
	}
	equal(t, "in parts", part, all)
	none, to := read(end, 10)
	equal(t, "nothing new", len(none), 0)
	equal(t, "positions", to, end)

	rows, _, err := cat.BlocksSince(ctx, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := catalog.BlockRow{
		Block: block(1, 1, 1).Block, InsertTime: second(3), PayloadSize: 900, Tag: telemetry.TagLog,
		PackKey: "packs/1-4", PackOffset: 1000, PackLength: 1000, Shard: eager, PackSeq: 4, StreamKnown: true, ProcessKnown: true,
	}
	equal(t, "row", rows[0], want)
}

func testAdopted(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	c := step(0, 5, block(1, 1, 1), block(2, 1, 1), block(3, 1, 1))
	c.Adopted = []catalog.Pack{
		{Shard: eager, FirstSeq: 2, LastSeq: 2, Key: "claims/a", Size: 5000, Created: second(1)},
		{Shard: eager, FirstSeq: 5, LastSeq: 5, Key: "claims/b", Size: 6000, Created: second(1)},
	}
	c.Blocks[0].Adopted, c.Blocks[0].PackOffset, c.Blocks[0].PackLength = 1, 0, 5000
	c.Blocks[2].Adopted, c.Blocks[2].PackOffset, c.Blocks[2].PackLength = 2, 0, 6000
	archive(t, cat, c, step(5, 6, block(4, 1, 1)))
	rows, to, err := cat.BlocksSince(ctx, nil, 1)
	if err != nil || len(rows) != 3 || to[eager] != 5 {
		t.Fatalf("%d rows to %v, %v", len(rows), to, err)
	}
	where := map[telemetry.ID]string{}
	for _, b := range rows {
		where[b.ID] = b.PackKey
	}
	equal(t, "places", where, map[telemetry.ID]string{blockID(1): "claims/a", blockID(2): "packs/1-5", blockID(3): "claims/b"})
	rows, _, err = cat.BlocksSince(ctx, to, 0)
	if err != nil || len(rows) != 1 || rows[0].ID != blockID(4) {
		t.Fatalf("after the commit: %+v, %v", rows, err)
	}
	packs := must[[]catalog.Pack](t)(cat.PacksAfter(ctx, eager, 0, 0))
	if len(packs) != 2 || packs[0].Key != "packs/1-5" || packs[1].Key != "packs/6-6" {
		t.Fatalf("packs of frames: %+v", packs)
	}
	equal(t, "referenced", must[[]bool](t)(cat.KeysReferenced(ctx, []string{"claims/a", "claims/c", "claims/b"})), []bool{true, false, true})
}

func testPacksAfter(t *testing.T, cat catalog.Catalog) {
	archive(t, cat, step(0, 4), step(4, 6), step(6, 9))
	other := step(0, 3)
	other.Shard.Gen, other.Pack.Key = 1, "packs/gen1"
	archive(t, cat, other)
	f := func(seq uint64, limit int, want ...string) {
		t.Helper()
		var keys []string
		for _, p := range must[[]catalog.Pack](t)(cat.PacksAfter(t.Context(), eager, seq, limit)) {
			keys = append(keys, p.Key)
		}
		equal(t, "packs", keys, want)
	}
	f(0, 10, "packs/1-4", "packs/5-6", "packs/7-9")
	f(0, 2, "packs/1-4", "packs/5-6")
	f(3, 1, "packs/1-4")
	f(4, 1, "packs/5-6")
	f(8, 0, "packs/7-9")
	f(9, 0)
	f(math.MaxUint64, 0)
	got := must[[]catalog.Pack](t)(cat.PacksAfter(t.Context(), eager, 4, 1))[0]
	got.No = 0
	equal(t, "pack", got, catalog.Pack{Shard: eager, FirstSeq: 5, LastSeq: 6, Key: "packs/5-6", Size: 4000, Created: second(9)})
}

func testSkips(t *testing.T, cat catalog.Catalog) {
	c := step(0, 5)
	c.Skips = []catalog.Skip{{Seq: 5, Rec: 0, Reason: catalog.SkipDuplicate}, {Seq: 2, Rec: 1, Reason: catalog.SkipUnreadable}, {Seq: 2, Rec: 0, Reason: catalog.SkipDuplicate}}
	archive(t, cat, c)
	f := func(after, to uint64, want ...catalog.Skip) {
		t.Helper()
		equal(t, "skips", must[[]catalog.Skip](t)(cat.Skips(t.Context(), eager, after, to)), want)
	}
	f(0, 5, c.Skips[2], c.Skips[1], c.Skips[0])
	f(0, 4, c.Skips[2], c.Skips[1])
	f(2, 5, c.Skips[0])
	f(5, 9)
}
