package catalogtest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

type positions = map[catalog.ShardID]uint64

func changes(t *testing.T, cat catalog.Catalog, after positions, limit int) (processes, streams catalog.Changes) {
	t.Helper()
	processes = must[catalog.Changes](t)(cat.ChangedProcesses(t.Context(), after, limit))
	streams = must[catalog.Changes](t)(cat.ChangedStreams(t.Context(), after, limit))
	return processes, streams
}

// wantChanges compares numbers of processes and of streams, in order of their rows.
func wantChanges(t *testing.T, cat catalog.Catalog, after positions, processes, streams []int) positions {
	t.Helper()
	return wantChangesWithin(t, cat, after, processes, streams, nil, nil)
}

// wantChangesWithin is wantChanges where others may be among the changes too, because a commit names them.
func wantChangesWithin(t *testing.T, cat catalog.Catalog, after positions, processes, streams, otherProcesses, otherStreams []int) positions {
	t.Helper()
	p, s := changes(t, cat, after, 0)
	at := must[positions](t)(cat.ArchivePositions(t.Context()))
	want := func(numbers, others []int, id func(int) telemetry.ID, got *catalog.Changes) catalog.Changes {
		c := catalog.Changes{Positions: at}
		for _, n := range numbers {
			c.IDs = append(c.IDs, id(n))
		}
		got.IDs = slices.DeleteFunc(got.IDs, func(i telemetry.ID) bool { return slices.ContainsFunc(others, func(n int) bool { return id(n) == i }) })
		if len(got.IDs) == 0 {
			got.IDs = nil
		}
		return c
	}
	equal(t, "processes", want(processes, otherProcesses, processID, &p), p)
	equal(t, "streams", want(streams, otherStreams, streamID, &s), s)
	return at
}

func testChanges(t *testing.T, cat catalog.Catalog) {
	start := wantChanges(t, cat, nil, nil, nil)
	c := step(0, 2, block(1, 3, 9)) // a stub of stream 3 under a stub of process 9
	c.Processes = []catalog.ProcessReg{process(1), process(2)}
	c.Streams = []catalog.StreamReg{stream(1, 1), stream(2, 2)}
	archive(t, cat, c)
	all := []int{1, 2, 9}
	order := must[catalog.Changes](t)(cat.ChangedProcesses(t.Context(), start, 0)).IDs
	equal(t, "ordered by number", order, idsInOrder(t, cat))
	first := wantChangesWithin(t, cat, start, nil, nil, all, []int{1, 2, 3})
	wantChanges(t, cat, first, nil, nil)

	c = step(2, 5, block(2, 2, 2), block(3, 2, 2))
	c.Processes = []catalog.ProcessReg{process(1)} // known
	archive(t, cat, c)
	second := wantChangesWithin(t, cat, first, []int{2}, []int{2}, []int{1}, nil)

	c = step(5, 6)
	c.Streams = []catalog.StreamReg{stream(3, 1)} // moves to another process
	archive(t, cat, c)
	wantChangesWithin(t, cat, second, nil, []int{3}, []int{1}, nil)
	r := step(0, 7, block(4, 3, 9)) // which counts its blocks from now on
	r.Shard, r.Pack.Shard, r.Pack.Key = raw, raw, "packs/raw"
	archive(t, cat, r)
	wantChanges(t, cat, second, []int{1}, []int{3})
	wantChangesWithin(t, cat, positions{eager: 1, raw: 7}, []int{9}, nil, []int{1, 2}, []int{1, 2, 3}) // commits are whole
	wantChangesWithin(t, cat, first, nil, nil, []int{1, 2}, []int{2, 3})

	empty := step(6, 9)
	empty.Pack = nil
	archive(t, cat, empty)
	wantChanges(t, cat, positions{eager: 6, raw: 7}, nil, nil)
	wantChanges(t, cat, positions{eager: 6}, []int{1}, []int{3})
	wantErr(t, cat.CommitArchive(t.Context(), step(9, 12, block(2, 2, 2))), catalog.ErrDuplicateBlocks)
	wantChanges(t, cat, positions{eager: 6, raw: 7}, nil, nil)
}

// idsInOrder returns the ids of all processes, ordered by number.
func idsInOrder(t *testing.T, cat catalog.Catalog) (ids []telemetry.ID) {
	t.Helper()
	for _, p := range must[[]catalog.ProcessRow](t)(cat.Processes(t.Context(), nil)) {
		ids = append(ids, p.ID)
	}
	return ids
}

func testChangesLimit(t *testing.T, cat catalog.Catalog) {
	c := step(0, 3)
	for n := range 9 {
		c.Processes = append(c.Processes, process(n))
		c.Streams = append(c.Streams, stream(n, n))
	}
	archive(t, cat, c, step(3, 4, block(1, 1, 1), block(2, 2, 2)), step(4, 5, block(3, 2, 2), block(4, 1, 1)))
	at := positions{eager: 5}
	equal(t, "as many as the limit", must[catalog.Changes](t)(cat.ChangedStreams(t.Context(), nil, 9)).All, false)
	p, s := changes(t, cat, nil, 8)
	equal(t, "too many processes", p, catalog.Changes{All: true, Positions: at})
	equal(t, "too many streams", s, catalog.Changes{All: true, Positions: at})
	p, _ = changes(t, cat, positions{eager: 3}, 2) // the same ones in both commits
	equal(t, "no more than the limit", p, catalog.Changes{IDs: []telemetry.ID{processID(1), processID(2)}, Positions: at})
}

// testChangesGeneration: a shard's next generation begins above the one before.
func testChangesGeneration(t *testing.T, cat catalog.Catalog) {
	archive(t, cat, step(0, 3, block(1, 1, 1)))
	next := catalog.ShardID{Class: 'e', Gen: 1}
	if err := cat.OpenGeneration(t.Context(), catalog.Generation{ShardID: next, Stream: "s", FirstSeq: 101}); err != nil {
		t.Fatal(err)
	}
	c := step(100, 105, block(2, 2, 2))
	c.Shard, c.Pack.Shard = next, next
	archive(t, cat, c)
	wantChanges(t, cat, positions{eager: 3}, []int{2}, []int{2})
	wantChanges(t, cat, nil, []int{1, 2}, []int{1, 2})
}

// testChangesFrozen: what a block changed stays changed when its row is frozen.
func testChangesFrozen(t *testing.T, cat catalog.Catalog) {
	archive(t, cat, step(0, 4, block(1, 1, 1)))
	viewed(t, cat, 0, 4)
	f := freezable(t, cat)
	freeze(t, cat, freezeOf(t, cat, f.Version, daySpan(0, f.UpTo), "frozen/0"))
	wantChanges(t, cat, nil, []int{1}, []int{1})
	sweep(t, cat)
	wantChanges(t, cat, nil, []int{1}, []int{1})
}

func testPages(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	c := step(0, 3, block(1, 99, 99))
	for n := range 20 {
		c.Processes = append(c.Processes, process(n))
		s := stream(n, n)
		s.ObjectsCBOR = fmt.Append(nil, "objects", n%3)
		c.Streams = append(c.Streams, s)
	}
	archive(t, cat, c)
	for _, size := range []int{1, 7, 21, 100} {
		var processes []catalog.ProcessRow
		for no := int64(0); ; no = processes[len(processes)-1].No {
			page := must[[]catalog.ProcessRow](t)(cat.ProcessesAfter(ctx, no, size))
			processes = append(processes, page...)
			if len(page) < size {
				break
			}
		}
		equal(t, fmt.Sprint("processes by ", size), processes, must[[]catalog.ProcessRow](t)(cat.Processes(ctx, nil)))
		var streams []catalog.StreamRow
		for no := int64(0); ; no = streams[len(streams)-1].No {
			page := must[[]catalog.StreamRow](t)(cat.StreamsAfter(ctx, no, size))
			streams = append(streams, page...)
			if len(page) < size {
				break
			}
		}
		equal(t, fmt.Sprint("streams by ", size), streams, must[[]catalog.StreamRow](t)(cat.Streams(ctx, nil)))
	}
}

// randomStep makes archive commits of one shard, of a few processes and streams of which most things happen early or late: blocks before
// registrations, registrations that come twice, blocks that name another process than their stream's.
type randomStep struct {
	rnd    *rand.Rand
	shard  catalog.ShardID
	seq    uint64
	blocks *int // numbers of blocks, shared by shards
}

const randomProcesses, randomStreams = 20, 60

func (r *randomStep) next() *catalog.ArchiveCommit {
	*r.blocks++
	var blocks []catalog.BlockReg
	for range r.rnd.IntN(4) {
		*r.blocks++
		n := r.rnd.IntN(randomStreams)
		process := n % randomProcesses
		if r.rnd.IntN(5) == 0 {
			process = r.rnd.IntN(randomProcesses)
		}
		blocks = append(blocks, block(*r.blocks, n, process))
	}
	to := r.seq + 1 + r.rnd.Uint64N(4)
	c := step(r.seq, to, blocks...)
	c.Shard, c.Pack.Shard, c.Pack.Key = r.shard, r.shard, fmt.Sprintf("packs/%s/%d", r.shard, to)
	for range r.rnd.IntN(3) {
		c.Processes = append(c.Processes, process(r.rnd.IntN(randomProcesses)))
	}
	for range r.rnd.IntN(3) {
		n := r.rnd.IntN(randomStreams)
		c.Streams = append(c.Streams, stream(n, n%randomProcesses))
	}
	r.seq = to
	return c
}

// registry is a copy of both tables.
type registry struct {
	at        positions
	processes map[telemetry.ID]catalog.ProcessRow
	streams   map[telemetry.ID]catalog.StreamRow
}

func readRegistry(t *testing.T, cat catalog.Catalog) registry {
	t.Helper()
	r := registry{must[positions](t)(cat.ArchivePositions(t.Context())), map[telemetry.ID]catalog.ProcessRow{}, map[telemetry.ID]catalog.StreamRow{}}
	for _, p := range must[[]catalog.ProcessRow](t)(cat.Processes(t.Context(), nil)) {
		r.processes[p.ID] = p
	}
	for _, s := range must[[]catalog.StreamRow](t)(cat.Streams(t.Context(), nil)) {
		r.streams[s.ID] = s
	}
	return r
}

// changed returns the keys whose values differ, or are new.
func changed[V any](before, after map[telemetry.ID]V) (ids []telemetry.ID) {
	for id, v := range after {
		if old, ok := before[id]; !ok || !cmp.Equal(old, v) {
			ids = append(ids, id)
		}
	}
	return ids
}

// testChangesCover: whatever differs between two moments is among the changes between them, and what no commit between them names is not.
func testChangesCover(t *testing.T, cat catalog.Catalog) {
	rnd := rand.New(rand.NewPCG(1, 2))
	blocks := 0
	var shards []*randomStep
	for _, s := range []catalog.ShardID{eager, raw, {Class: 'e', Shard: 1}} {
		shards = append(shards, &randomStep{rnd: rnd, shard: s, blocks: &blocks})
	}
	moments := []registry{readRegistry(t, cat)}
	var commits []*catalog.ArchiveCommit // each between two moments
	for range 150 {
		c := shards[rnd.IntN(len(shards))].next()
		archive(t, cat, c)
		commits = append(commits, c)
		moments = append(moments, readRegistry(t, cat))
	}
	now := moments[len(moments)-1]
	for range 300 {
		i := rnd.IntN(len(moments))
		p, s := changes(t, cat, moments[i].at, 0)
		equal(t, "positions", []positions{p.Positions, s.Positions}, []positions{now.at, now.at})
		equal(t, "all", p.All || s.All, false)
		named := map[telemetry.ID]bool{}
		for _, c := range commits[i:] {
			nameChanged(named, c, now)
		}
		checkCover(t, p.IDs, changed(moments[i].processes, now.processes), named, func(id telemetry.ID) int64 { return now.processes[id].No })
		checkCover(t, s.IDs, changed(moments[i].streams, now.streams), named, func(id telemetry.ID) int64 { return now.streams[id].No })
	}
}

// nameChanged adds what a commit may change.
func nameChanged(named map[telemetry.ID]bool, c *catalog.ArchiveCommit, now registry) {
	for i := range c.Processes {
		named[c.Processes[i].ID] = true
	}
	for i := range c.Streams {
		named[c.Streams[i].ID], named[c.Streams[i].ProcessID] = true, true
	}
	for i := range c.Blocks {
		b := &c.Blocks[i]
		named[b.StreamID], named[b.ProcessID], named[now.streams[b.StreamID].ProcessID] = true, true, true
		for n := range randomProcesses { // a stub may have stood under any
			named[processID(n)] = named[processID(n)] || now.streams[b.StreamID].Registered == 0
		}
	}
}

func checkCover(t *testing.T, got, want []telemetry.ID, named map[telemetry.ID]bool, no func(telemetry.ID) int64) {
	t.Helper()
	for _, id := range want {
		if !slices.Contains(got, id) {
			t.Fatalf("%s changed, and is not in %v", id, got)
		}
	}
	for i, id := range got {
		if i > 0 && no(got[i-1]) >= no(id) {
			t.Fatalf("%v is not in order of numbers", got)
		}
		if !named[id] {
			t.Fatalf("%s did not change", id)
		}
	}
}

// testChangesFollow: a reader that applies what changed, while owners of several shards commit, ends with all rows as they are.
func testChangesFollow(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	var owners, readers sync.WaitGroup
	done := make(chan struct{})
	for i, s := range []catalog.ShardID{eager, raw, {Class: 'e', Shard: 1}, {Class: 'r', Shard: 1}} {
		blocks := (i + 1) * 2000
		owner := &randomStep{rnd: rand.New(rand.NewPCG(3, uint64(i))), shard: s, blocks: &blocks}
		owners.Go(func() {
			for range 60 {
				if err := cat.CommitArchive(ctx, owner.next()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	follower := registry{processes: map[telemetry.ID]catalog.ProcessRow{}, streams: map[telemetry.ID]catalog.StreamRow{}}
	processesAt, streamsAt := positions{}, positions{}
	readers.Go(func() {
		for last := false; !last; {
			select {
			case <-done:
				last = true
			default:
			}
			var err error
			if processesAt, err = follow(ctx, processesAt, cat.ChangedProcesses, cat.Processes, func(p catalog.ProcessRow) { follower.processes[p.ID] = p }); err != nil {
				t.Error(err)
				return
			}
			if streamsAt, err = follow(ctx, streamsAt, cat.ChangedStreams, cat.Streams, func(s catalog.StreamRow) { follower.streams[s.ID] = s }); err != nil {
				t.Error(err)
				return
			}
		}
	})
	owners.Wait()
	close(done)
	readers.Wait()
	all := readRegistry(t, cat)
	equal(t, "processes", follower.processes, all.processes)
	equal(t, "streams", follower.streams, all.streams)
	equal(t, "positions", maps.Equal(processesAt, all.at) && maps.Equal(streamsAt, all.at), true)
}

func follow[R any](ctx context.Context, after positions, changed func(context.Context, positions, int) (catalog.Changes, error),
	read func(context.Context, []telemetry.ID) ([]R, error), put func(R),
) (positions, error) {
	c, err := changed(ctx, after, 0)
	if err != nil {
		return nil, err
	}
	if c.All {
		return nil, fmt.Errorf("changes after %v are forgotten", after)
	}
	if len(c.IDs) == 0 {
		return c.Positions, nil
	}
	rows, err := read(ctx, c.IDs)
	for _, r := range rows {
		put(r)
	}
	return c.Positions, err
}
