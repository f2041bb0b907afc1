package catalogtest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// span is a range of the backlog of the shard eager.
func span(first, last uint64) catalog.Backlog {
	return catalog.Backlog{Shard: eager, FirstSeq: first, LastSeq: last, MinTime: second(1), MaxTime: second(9)}
}

// leap moves the views of the shard eager and opens ranges.
func leap(from, to uint64, ranges ...catalog.Backlog) *catalog.ViewCommit {
	return &catalog.ViewCommit{Consumer: "views", Moves: []catalog.Move{{Shard: eager, From: from, To: to, Epoch: 1}}, Backlog: ranges}
}

// built is a chunk of a claimed range with one partition.
func built(b catalog.Backlog, to uint64) *catalog.ViewCommit {
	p := partition(int(to - b.FirstSeq))
	p.Key = fmt.Sprintf("views/%d-%d/%d", b.FirstSeq, to, b.Epoch)
	return &catalog.ViewCommit{Consumer: "views", Chunk: &catalog.Chunk{RangeNo: b.RangeNo, From: b.FirstSeq, To: to, Epoch: b.Epoch}, Added: []catalog.Partition{p}}
}

func backlog(t *testing.T, cat catalog.Catalog) []catalog.Backlog {
	t.Helper()
	return must[[]catalog.Backlog](t)(cat.Backlog(t.Context(), "views"))
}

// sameRanges compares ranges but for numbers and claims.
func sameRanges(t *testing.T, what string, got []catalog.Backlog, want ...catalog.Backlog) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(catalog.Backlog{}, "RangeNo", "Owner", "Epoch", "Expires"), cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func claim(t *testing.T, cat catalog.Catalog, owner string, ttl time.Duration) catalog.Backlog {
	t.Helper()
	b, ok, err := cat.ClaimBacklog(t.Context(), "views", owner, ttl)
	if err != nil || !ok || b.Owner != owner || b.Epoch == 0 || b.Expires == 0 {
		t.Fatalf("claim of %s: %+v %t %v", owner, b, ok, err)
	}
	return b
}

func noClaim(t *testing.T, cat catalog.Catalog, owner string) {
	t.Helper()
	if b, ok, err := cat.ClaimBacklog(t.Context(), "views", owner, time.Minute); ok || err != nil {
		t.Fatalf("claim of %s: %+v %v, want none", owner, b, err)
	}
}

func testBacklogOpens(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 100))
	open := func(c *catalog.ViewCommit, want error) {
		t.Helper()
		_, err := cat.CommitView(ctx, c)
		wantErr(t, err, want)
		sameRanges(t, "after a commit that failed", backlog(t, cat))
		equal(t, "checkpoint", checkpoint(t, cat, "views", eager), catalog.Checkpoint{})
	}
	other := span(1, 100)
	other.Shard.Gen = 1
	open(leap(0, 100, span(1, 99)), catalog.ErrInvalid)
	open(leap(0, 100, span(1, 101)), catalog.ErrInvalid)
	open(leap(0, 100, span(0, 100)), catalog.ErrInvalid)
	open(leap(0, 100, span(1, 50), span(52, 100)), catalog.ErrInvalid)
	open(leap(0, 100, span(1, 50), span(50, 100)), catalog.ErrInvalid)
	open(leap(0, 100, span(100, 99)), catalog.ErrInvalid)
	open(leap(0, 100, other), catalog.ErrInvalid)
	open(leap(0, 0, span(1, 100)), catalog.ErrInvalid)
	open(&catalog.ViewCommit{Consumer: "views", Backlog: []catalog.Backlog{span(1, 100)}}, catalog.ErrInvalid)
	open(leap(0, 101, span(1, 101)), catalog.ErrArchiveBehind)
	open(leap(5, 100, span(6, 100)), catalog.ErrConflict)

	view(t, cat, leap(0, 100, span(11, 50), span(51, 100))) // up to 10 it was built
	sameRanges(t, "opened", backlog(t, cat), span(11, 50), span(51, 100))
	equal(t, "checkpoint", checkpoint(t, cat, "views", eager), catalog.Checkpoint{Seq: 100, Epoch: 1})
	_, err := cat.CommitView(ctx, leap(0, 100, span(1, 100))) // the same owner again, and one of before
	wantErr(t, err, catalog.ErrConflict)
	archive(t, cat, step(100, 200))
	late := leap(100, 200, span(101, 200))
	late.Moves[0].Epoch = 0
	_, err = cat.CommitView(ctx, late)
	wantErr(t, err, catalog.ErrConflict)
	view(t, cat, leap(100, 200, span(101, 200)))
	sameRanges(t, "opened twice", backlog(t, cat), span(11, 50), span(51, 100), span(101, 200))

	c := step(0, 7)
	c.Shard.Gen = 1
	archive(t, cat, c)
	second := leap(0, 7, span(1, 7))
	second.Moves[0].Shard.Gen, second.Backlog[0].Shard.Gen = 1, 1
	view(t, cat, second)
	elsewhere := leap(0, 7, span(1, 7))
	elsewhere.Consumer = "else"
	view(t, cat, elsewhere)
	sameRanges(t, "of all generations", backlog(t, cat), span(11, 50), span(51, 100), span(101, 200), second.Backlog[0])
	s := must[catalog.Stats](t)(cat.Stats(ctx))
	equal(t, "ranges and positions", [2]int64{s.Backlog, s.BacklogFrames}, [2]int64{5, 40 + 50 + 100 + 7 + 7})
	equal(t, "claims come newest first", claim(t, cat, "a", time.Minute).Shard.Gen, int32(1))
	for _, first := range []uint64{101, 51, 11} {
		equal(t, "claims come newest first", claim(t, cat, fmt.Sprint(first), time.Minute).FirstSeq, first)
	}
	noClaim(t, cat, "b")
}

func testBacklogChunks(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 100))
	view(t, cat, leap(0, 100, span(1, 100)))
	b := claim(t, cat, "a", time.Minute)
	refuse := func(what string, c *catalog.ViewCommit, want error) {
		t.Helper()
		before, parts := backlog(t, cat), must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0))
		_, err := cat.CommitView(ctx, c)
		wantErr(t, err, want)
		equal(t, what+": ranges", backlog(t, cat), before)
		equal(t, what+": partitions", must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)), parts)
	}
	c := built(b, 40)
	c.ParkedDone = []catalog.Parked{parked(1, 1, 1)}
	refuse("stale", c, catalog.ErrStale)
	c = built(b, 40)
	c.Retired = []int64{99}
	refuse("unknown partition", c, catalog.ErrStale)
	for name, damage := range map[string]func(*catalog.ViewCommit){
		"from":     func(c *catalog.ViewCommit) { c.Chunk.From++ },
		"beyond":   func(c *catalog.ViewCommit) { c.Chunk.To = 101 },
		"epoch":    func(c *catalog.ViewCommit) { c.Chunk.Epoch++ },
		"unowned":  func(c *catalog.ViewCommit) { c.Chunk.Epoch = 0 },
		"number":   func(c *catalog.ViewCommit) { c.Chunk.RangeNo++ },
		"consumer": func(c *catalog.ViewCommit) { c.Consumer = "else" },
	} {
		c := built(b, 40)
		damage(c)
		refuse(name, c, catalog.ErrConflict)
	}
	c = built(b, 40)
	c.Chunk.To = 0
	refuse("backwards", c, catalog.ErrInvalid)

	c = built(b, 40)
	c.ParkedAdded = []catalog.Parked{parked(3, 1, 1)}
	equal(t, "chunk", view(t, cat, c), int64(1))
	sameRanges(t, "after a chunk", backlog(t, cat), span(41, 100))
	equal(t, "parked", must[[]catalog.Parked](t)(cat.Parked(ctx, "views", catalog.ParkedFilter{})), []catalog.Parked{parked(3, 1, 1)})
	refuse("the same chunk again", c, catalog.ErrConflict)
	b = must[catalog.Backlog](t)(cat.RenewBacklog(ctx, b, time.Minute))
	equal(t, "renewed", b.FirstSeq, uint64(41))
	view(t, cat, &catalog.ViewCommit{Consumer: "views", Chunk: &catalog.Chunk{RangeNo: b.RangeNo, From: 41, To: 99, Epoch: b.Epoch}}) // nothing in it
	b.FirstSeq = 100
	last := built(b, 100)
	view(t, cat, last)
	sameRanges(t, "after the last chunk", backlog(t, cat))
	refuse("the last chunk again", last, catalog.ErrConflict)
	_, err := cat.RenewBacklog(ctx, b, time.Minute)
	wantErr(t, err, catalog.ErrLeaseLost)
	wantErr(t, cat.ReleaseBacklog(ctx, b), catalog.ErrLeaseLost)
	noClaim(t, cat, "a")
	equal(t, "checkpoint", checkpoint(t, cat, "views", eager), catalog.Checkpoint{Seq: 100, Epoch: 1})

	archive(t, cat, step(100, 110)) // a worker of the last range must not be able to mistake the next one for it
	view(t, cat, leap(100, 110, span(101, 110)))
	if next := claim(t, cat, "a", time.Minute); next.RangeNo == b.RangeNo {
		t.Errorf("range number %d was used twice", b.RangeNo)
	}
}

func testBacklogClaims(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	noClaim(t, cat, "a")
	archive(t, cat, step(0, 100))
	view(t, cat, leap(0, 100, span(1, 50), span(51, 100)))
	newest := claim(t, cat, "a", time.Minute)
	equal(t, "newest", newest.FirstSeq, uint64(51))
	older := claim(t, cat, "b", time.Minute)
	equal(t, "older", older.FirstSeq, uint64(1))
	noClaim(t, cat, "c")

	again := claim(t, cat, "b", time.Minute) // restarted under its old name
	equal(t, "the same range", again.RangeNo, older.RangeNo)
	equal(t, "next epoch", again.Epoch, older.Epoch+1)
	_, err := cat.RenewBacklog(ctx, older, time.Minute)
	wantErr(t, err, catalog.ErrLeaseLost)
	wantErr(t, cat.ReleaseBacklog(ctx, older), catalog.ErrLeaseLost)
	if err := cat.ReleaseBacklog(ctx, again); err != nil {
		t.Fatal(err)
	}
	wantErr(t, cat.ReleaseBacklog(ctx, again), catalog.ErrLeaseLost)
	third := claim(t, cat, "c", time.Nanosecond)
	equal(t, "epoch after a release", third.Epoch, again.Epoch+1)
	for { // the claim has expired
		b, ok, err := cat.ClaimBacklog(ctx, "views", "d", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			equal(t, "expired", [2]int64{b.RangeNo, b.Epoch}, [2]int64{third.RangeNo, third.Epoch + 1})
			break
		}
	}
	renewed := must[catalog.Backlog](t)(cat.RenewBacklog(ctx, newest, time.Hour))
	if renewed.Expires <= newest.Expires || renewed.Epoch != newest.Epoch {
		t.Errorf("renewed: %+v after %+v", renewed, newest)
	}
	// What was given back, or never tried, goes before what the last worker left without a word.
	if err := cat.ReleaseBacklog(ctx, claim(t, cat, "d", time.Minute)); err != nil {
		t.Fatal(err)
	}
	equal(t, "free before left", claim(t, cat, "a", time.Minute).FirstSeq, uint64(1))
}

// testBacklogZombie: a worker that was paused for longer than its claim loses at the compare, whichever of the two is first.
func testBacklogZombie(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 100))
	view(t, cat, leap(0, 100, span(1, 100)))
	zombie := claim(t, cat, "zombie", time.Nanosecond)
	var next catalog.Backlog
	for ok := false; !ok; {
		var err error
		if next, ok, err = cat.ClaimBacklog(ctx, "views", "next", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	_, err := cat.CommitView(ctx, built(zombie, 30))
	wantErr(t, err, catalog.ErrConflict)
	view(t, cat, built(next, 30))
	_, err = cat.CommitView(ctx, built(zombie, 30))
	wantErr(t, err, catalog.ErrConflict)
	zombie.FirstSeq = 31
	_, err = cat.CommitView(ctx, built(zombie, 100))
	wantErr(t, err, catalog.ErrConflict)
	next.FirstSeq = 31
	view(t, cat, built(next, 100))
	sameRanges(t, "done", backlog(t, cat))
	equal(t, "partitions", len(must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added), 2)
}

// testBacklogRace lets workers with claims that expire at once work on the ranges that an owner opens meanwhile. Whoever wins
// each chunk, every position is built once.
func testBacklogRace(t *testing.T, cat catalog.Catalog) {
	const workers, leaps, length = 6, 5, 40
	ctx := t.Context()
	archive(t, cat, step(0, leaps*length))
	type piece struct{ from, to uint64 }
	var mu sync.Mutex
	var pieces []piece
	lost := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint64(leaps) {
			from := i * length
			if _, err := cat.CommitView(ctx, leap(from, from+length, span(from+1, from+length/2), span(from+length/2+1, from+length))); err != nil {
				t.Error(err)
			}
		}
	})
	done := func() bool {
		c, err := cat.Checkpoint(ctx, "views", eager)
		open, err2 := cat.Backlog(ctx, "views")
		if err := errors.Join(err, err2); err != nil {
			t.Error(err)
			return true
		}
		return c.Seq == leaps*length && len(open) == 0
	}
	for n := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(n)))
			for !done() {
				b, ok, err := cat.ClaimBacklog(ctx, "views", fmt.Sprint("worker", n), time.Duration(rnd.IntN(2))*time.Millisecond)
				if err != nil {
					t.Error(err)
					return
				}
				for ok && b.FirstSeq <= b.LastSeq {
					to := min(b.FirstSeq+uint64(rnd.IntN(9)), b.LastSeq)
					_, err := cat.CommitView(ctx, built(b, to))
					mu.Lock()
					if err == nil {
						pieces = append(pieces, piece{b.FirstSeq, to})
					} else {
						lost++
					}
					mu.Unlock()
					if err != nil {
						if !errors.Is(err, catalog.ErrConflict) {
							t.Error(err)
						}
						break
					}
					b.FirstSeq = to + 1
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(pieces, func(a, b piece) int { return int(a.from) - int(b.from) })
	next := uint64(1)
	for _, p := range pieces {
		if p.from != next {
			t.Fatalf("chunk from %d follows %d", p.from, next-1)
		}
		next = p.to + 1
	}
	equal(t, "built", next, uint64(leaps*length+1))
	equal(t, "partitions", len(must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added), len(pieces))
	t.Logf("%d chunks, %d lost", len(pieces), lost)
}

func testEventRange(t *testing.T, cat catalog.Catalog) {
	f := func(what string, after, to uint64, begin, end int64) {
		t.Helper()
		gotBegin, gotEnd, err := cat.EventRange(t.Context(), eager, after, to)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, what, [2]int64{gotBegin, gotEnd}, [2]int64{begin, end})
	}
	f("nothing", 0, math.MaxUint64, math.MaxInt64, math.MinInt64)
	late := block(3, 1, 1)
	late.EndTime += 1
	archive(t, cat, step(0, 4, block(1, 1, 1), block(5, 1, 1)), step(4, 8, block(2, 1, 1), late))
	elsewhere := step(0, 9, block(77, 2, 2))
	elsewhere.Shard.Shard = 1
	archive(t, cat, elsewhere)
	f("all", 0, 8, second(1), second(6)+999)
	f("second pack", 4, 8, second(2), second(4)+999)
	f("parts of packs", 3, 5, second(1), second(6)+999)
	f("above", 8, 20, math.MaxInt64, math.MinInt64)
}
