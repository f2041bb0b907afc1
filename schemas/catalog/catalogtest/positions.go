package catalogtest

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

func testSettings(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	if _, found, err := cat.Setting(ctx, "k"); found || err != nil {
		t.Fatalf("unset key: found %v, %v", found, err)
	}
	equal(t, "first put", must[string](t)(cat.PutSettingIfAbsent(ctx, "k", "1")), "1")
	equal(t, "second put", must[string](t)(cat.PutSettingIfAbsent(ctx, "k", "2")), "1")
	v, found, err := cat.Setting(ctx, "k")
	if v != "1" || !found || err != nil {
		t.Fatalf("setting: %q, %v, %v", v, found, err)
	}
}

func testGenerations(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	first := catalog.Generation{ShardID: eager, Stream: "eager-0", Created: second(1), FirstSeq: 1}
	second2 := catalog.Generation{ShardID: catalog.ShardID{Class: 'e', Gen: 1}, Stream: "eager-0", Created: second(2), FirstSeq: 100}
	raw := catalog.Generation{ShardID: catalog.ShardID{Class: 'r'}, Stream: "raw-0", Created: second(1), FirstSeq: 1}
	for _, g := range []catalog.Generation{raw, second2, first, first} {
		if err := cat.OpenGeneration(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	other := first
	other.Created++
	wantErr(t, cat.OpenGeneration(ctx, other), catalog.ErrConflict)
	equal(t, "generations", must[[]catalog.Generation](t)(cat.Generations(ctx)), []catalog.Generation{first, second2, raw})
}

const long = time.Hour

// testClock: leases, claims and retirements are stamped by the clock that Now shows.
func testClock(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	now := func() int64 { t.Helper(); return must[int64](t)(cat.Now(ctx)) }
	// between checks a stamp against the clock before and after the call that made it.
	between := func(what string, before, stamp int64) {
		t.Helper()
		if after := now(); stamp < before || stamp > after {
			t.Fatalf("%s stamped %d, clock %d to %d", what, stamp, before, after)
		}
	}
	before := now()
	if d := time.Duration(time.Now().UnixNano() - before).Abs(); d > 24*time.Hour {
		t.Fatalf("the clock is off by %s: is it in nanoseconds?", d)
	}
	lease := must[catalog.Lease](t)(cat.AcquireLease(ctx, "x", "a", long))
	between("lease", before, lease.Expires-int64(long))
	before = now()
	lease = must[catalog.Lease](t)(renew(ctx, cat, lease, long))
	between("renewal", before, lease.Expires-int64(long))
	before = now()
	var held *catalog.HeldError
	if _, err := cat.AcquireLease(ctx, "x", "b", long); !errors.As(err, &held) || held.Expires != lease.Expires {
		t.Fatalf("held: %v", err)
	}
	between("refusal", before, held.Now)

	archive(t, cat, step(0, 9))
	view(t, cat, leap(0, 9, span(1, 9)))
	before = now()
	b := claim(t, cat, "a", long)
	between("claim", before, b.Expires-int64(long))
	before = now()
	b = must[catalog.Backlog](t)(cat.RenewBacklog(ctx, b, long))
	between("renewed claim", before, b.Expires-int64(long))

	view(t, cat, &catalog.ViewCommit{Added: []catalog.Partition{partition(1)}})
	part := must[catalog.PartitionDelta](t)(cat.Partitions(ctx, 0)).Added[0]
	before = now()
	view(t, cat, &catalog.ViewCommit{Retired: []int64{part.PartNo}})
	retired := must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, math.MaxInt64, 1))
	between("retirement", before, retired[0].RetiredAt)
	equal(t, "not before", len(must[[]catalog.Partition](t)(cat.RetiredBefore(ctx, before, 1))), 0)
}

func testLeaseEpochs(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	a := must[catalog.Lease](t)(cat.AcquireLease(ctx, "x", "a", long))
	if a.Epoch != 1 || a.Owner != "a" || a.Name != "x" {
		t.Fatalf("first lease %+v", a)
	}
	_, err := cat.AcquireLease(ctx, "x", "b", long)
	wantErr(t, err, catalog.ErrHeld)
	var held *catalog.HeldError
	if !errors.As(err, &held) || held.Owner != "a" || held.Expires != a.Expires || held.Name != "x" {
		t.Fatalf("held: %+v", held)
	}
	renewed := must[catalog.Lease](t)(renew(ctx, cat, a, 2*long))
	if renewed.Epoch != a.Epoch || renewed.Expires <= a.Expires {
		t.Fatalf("renewed %+v after %+v", renewed, a)
	}
	again := must[catalog.Lease](t)(cat.AcquireLease(ctx, "x", "a", long)) // the owner restarted
	if again.Epoch != 2 {
		t.Fatalf("taken again: %+v", again)
	}
	_, err = renew(ctx, cat, a, long)
	wantErr(t, err, catalog.ErrLeaseLost)
	wantErr(t, cat.ReleaseLease(ctx, a), catalog.ErrLeaseLost)
	if err := cat.ReleaseLease(ctx, again); err != nil {
		t.Fatal(err)
	}
	wantErr(t, cat.ReleaseLease(ctx, again), catalog.ErrLeaseLost)
	_, err = renew(ctx, cat, again, long)
	wantErr(t, err, catalog.ErrLeaseLost)
	b := must[catalog.Lease](t)(cat.AcquireLease(ctx, "x", "b", long))
	if b.Epoch != 3 {
		t.Fatalf("after release: %+v", b)
	}
	other := must[catalog.Lease](t)(cat.AcquireLease(ctx, "w", "b", long))
	equal(t, "leases", must[[]catalog.Lease](t)(cat.Leases(ctx)), []catalog.Lease{other, b})
}

func testLeaseExpires(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	a := must[catalog.Lease](t)(cat.AcquireLease(ctx, "x", "a", time.Nanosecond))
	// Expired, but nobody took it: a late heartbeat saves it.
	a = must[catalog.Lease](t)(renew(ctx, cat, a, time.Nanosecond))
	b := must[catalog.Lease](t)(cat.AcquireLease(ctx, "x", "b", long))
	if b.Epoch != a.Epoch+1 {
		t.Fatalf("epoch %d after %d", b.Epoch, a.Epoch)
	}
	_, err := renew(ctx, cat, a, long)
	wantErr(t, err, catalog.ErrLeaseLost)
}

func testLeaseOneHolder(t *testing.T, cat catalog.Catalog) {
	var wg sync.WaitGroup
	got := make(chan catalog.Lease, 16)
	for i := range 16 {
		wg.Go(func() {
			l, err := cat.AcquireLease(t.Context(), "x", string(rune('a'+i)), long)
			switch {
			case err == nil:
				got <- l
			case !errors.Is(err, catalog.ErrHeld):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Fatalf("%d holders", len(got))
	}
}

func testLeasesKept(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	before := must[int64](t)(cat.Now(ctx))
	mine := must[catalog.Lease](t)(cat.AcquireLease(ctx, "a", "me", long))
	expired := must[catalog.Lease](t)(cat.AcquireLease(ctx, "b", "me", time.Nanosecond))
	stolen := must[catalog.Lease](t)(cat.AcquireLease(ctx, "c", "me", time.Nanosecond))
	thief := must[catalog.Lease](t)(cat.AcquireLease(ctx, "c", "thief", long))
	released := must[catalog.Lease](t)(cat.AcquireLease(ctx, "d", "me", long))
	if err := cat.ReleaseLease(ctx, released); err != nil {
		t.Fatal(err)
	}
	all, now, err := cat.KeepLeases(ctx, nil, long)
	if err != nil || now < before {
		t.Fatalf("clock %d after %d, %v", now, before, err)
	}
	equal(t, "read only", all, []catalog.Lease{mine, expired, thief, {Name: "d", Epoch: released.Epoch}})
	all, now, err = cat.KeepLeases(ctx, []catalog.Lease{mine, expired, stolen, released, {Name: "unknown", Owner: "me", Epoch: 1}}, 2*long)
	if err != nil || len(all) != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, l := range all[:2] { // an expired one that nobody took is saved
		if left := time.Duration(l.Expires - now); left < 2*long-time.Minute || left > 2*long+time.Minute || l.Owner != "me" {
			t.Errorf("kept for %s: %+v", left, l)
		}
	}
	equal(t, "lost ones", all[2:], []catalog.Lease{thief, {Name: "d", Epoch: released.Epoch}})
	mine.Expires, expired.Expires = all[0].Expires, all[1].Expires
	equal(t, "kept", all[:2], []catalog.Lease{mine, expired})
}

func testLeasesForgotten(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	held := must[catalog.Lease](t)(cat.AcquireLease(ctx, "member/a_%/held", "x", long))
	expired := must[catalog.Lease](t)(cat.AcquireLease(ctx, "member/a_%/expired", "x", time.Nanosecond))
	released := must[catalog.Lease](t)(cat.AcquireLease(ctx, "member/a_%/released", "x", long))
	other := must[catalog.Lease](t)(cat.AcquireLease(ctx, "member/ab%/other", "x", time.Nanosecond)) // the prefix is no pattern
	shard := must[catalog.Lease](t)(cat.AcquireLease(ctx, "views/0", "x", time.Nanosecond))
	if err := cat.ReleaseLease(ctx, released); err != nil {
		t.Fatal(err)
	}
	if err := cat.ForgetLeases(ctx, "member/a_%/", expired.Expires); err != nil {
		t.Fatal(err)
	}
	equal(t, "the released one gone", must[[]catalog.Lease](t)(cat.Leases(ctx)), []catalog.Lease{expired, held, other, shard})
	if err := cat.ForgetLeases(ctx, "member/a_%/", expired.Expires+1); err != nil {
		t.Fatal(err)
	}
	equal(t, "the expired one gone", must[[]catalog.Lease](t)(cat.Leases(ctx)), []catalog.Lease{held, other, shard})
	again := must[catalog.Lease](t)(cat.AcquireLease(ctx, "member/a_%/expired", "y", long))
	equal(t, "epoch of a forgotten name", again.Epoch, int64(1))
	_, err := renew(ctx, cat, expired, long)
	wantErr(t, err, catalog.ErrLeaseLost)
}

func testCheckpointStart(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	equal(t, "unknown generation", checkpoint(t, cat, "archive", eager), catalog.Checkpoint{})
	next := catalog.ShardID{Class: 'e', Gen: 1}
	if err := cat.OpenGeneration(ctx, catalog.Generation{ShardID: next, Stream: "s", FirstSeq: 101}); err != nil {
		t.Fatal(err)
	}
	equal(t, "new generation", checkpoint(t, cat, "archive", next), catalog.Checkpoint{Seq: 100})
	c := step(0, 105)
	c.Shard = next
	wantErr(t, cat.CommitArchive(ctx, c), catalog.ErrConflict)
	c = step(100, 105)
	c.Shard = next
	archive(t, cat, c)
	equal(t, "moved", checkpoint(t, cat, "archive", next), catalog.Checkpoint{Seq: 105, Epoch: 1})
	equal(t, "positions", must[map[catalog.ShardID]uint64](t)(cat.ArchivePositions(ctx)), map[catalog.ShardID]uint64{next: 105})
}

func testArchiveCompareAndSwap(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	archive(t, cat, step(0, 3, block(1, 1, 1)), step(3, 5))
	wantErr(t, cat.CommitArchive(ctx, step(3, 6, block(2, 1, 1))), catalog.ErrConflict)
	wantErr(t, cat.CommitArchive(ctx, step(0, 6, block(2, 1, 1))), catalog.ErrConflict)
	wantErr(t, cat.CommitArchive(ctx, step(7, 9, block(2, 1, 1))), catalog.ErrConflict)
	empty := step(5, 6)
	empty.Pack = nil
	archive(t, cat, empty)
	equal(t, "checkpoint", checkpoint(t, cat, "archive", eager), catalog.Checkpoint{Seq: 6, Epoch: 1})
	equal(t, "another consumer's", checkpoint(t, cat, "views", eager), catalog.Checkpoint{})
}

func testZombieLoses(t *testing.T, cat catalog.Catalog) {
	ctx := t.Context()
	old := must[catalog.Lease](t)(cat.AcquireLease(ctx, "archive/e/0", "a", time.Nanosecond))
	c := step(0, 3)
	c.Epoch = old.Epoch
	archive(t, cat, c)
	current := must[catalog.Lease](t)(cat.AcquireLease(ctx, "archive/e/0", "b", long))
	c = step(3, 5)
	c.Epoch = current.Epoch
	archive(t, cat, c)
	for _, from := range []uint64{3, 5} { // behind, or read the position anew and still believes in its lease
		c = step(from, 8, block(1, 1, 1))
		c.Epoch = old.Epoch
		wantErr(t, cat.CommitArchive(ctx, c), catalog.ErrConflict)
	}
	equal(t, "checkpoint", checkpoint(t, cat, "archive", eager), catalog.Checkpoint{Seq: 5, Epoch: current.Epoch})
	move := func(epoch int64) error {
		_, err := cat.CommitView(ctx, &catalog.ViewCommit{Consumer: "views", Moves: []catalog.Move{{Shard: eager, From: 0, To: 0, Epoch: epoch}}})
		return err
	}
	if err := move(5); err != nil {
		t.Fatal(err)
	}
	wantErr(t, move(4), catalog.ErrConflict)
	if err := move(6); err != nil {
		t.Fatal(err)
	}
}

func testCancelled(t *testing.T, cat catalog.Catalog) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, cat.CommitArchive(ctx, step(0, 1)), context.Canceled)
	_, err := cat.Partitions(ctx, 0)
	wantErr(t, err, context.Canceled)
	equal(t, "checkpoint", checkpoint(t, cat, "archive", eager), catalog.Checkpoint{})
}

func testClosed(t *testing.T, cat catalog.Catalog) {
	var wg sync.WaitGroup
	for i := range 8 { // some are under way while it closes: done or not, but answered
		wg.Go(func() {
			_, err := cat.PutSettingIfAbsent(context.WithoutCancel(t.Context()), string(rune('a'+i)), "v")
			if err != nil && !errors.Is(err, catalog.ErrClosed) {
				t.Error(err)
			}
		})
	}
	if err := cat.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	wantErr(t, cat.CommitArchive(t.Context(), step(0, 1)), catalog.ErrClosed)
	wantErr(t, cat.Close(), catalog.ErrClosed)
	if err := cat.Ping(t.Context()); err == nil {
		t.Fatal("a closed catalog answers a ping")
	}
}

// renew keeps one lease, and returns it as it is then; ErrLeaseLost when it is another's.
func renew(ctx context.Context, cat catalog.Catalog, l catalog.Lease, ttl time.Duration) (catalog.Lease, error) {
	all, _, err := cat.KeepLeases(ctx, []catalog.Lease{l}, ttl)
	if err != nil {
		return catalog.Lease{}, err
	}
	for _, now := range all {
		if now.Name == l.Name && now.Owner == l.Owner && now.Epoch == l.Epoch {
			return now, nil
		}
	}
	return catalog.Lease{}, catalog.ErrLeaseLost
}
