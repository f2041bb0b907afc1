package lake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// gcRows is the part of a catalog that a collection asks.
type gcRows struct {
	skew       time.Duration // of its clock
	retired    []catalog.Partition
	referenced map[string]bool
	forgotten  []int64
	err        error
}

func (r *gcRows) Now(context.Context) (int64, error) {
	return time.Now().Add(r.skew).UnixNano(), nil
}

func (r *gcRows) RetiredBefore(_ context.Context, t int64, limit int) ([]catalog.Partition, error) {
	var found []catalog.Partition
	for _, p := range r.retired {
		if p.RetiredAt < t && len(found) < limit && !slices.Contains(r.forgotten, p.PartNo) {
			found = append(found, p)
		}
	}
	return found, r.err
}

func (r *gcRows) ForgetPartitions(_ context.Context, nos []int64) error {
	r.forgotten = append(r.forgotten, nos...)
	return r.err
}

func (r *gcRows) KeysReferenced(_ context.Context, keys []string) ([]bool, error) {
	found := make([]bool, len(keys))
	for i, k := range keys {
		found[i] = r.referenced[k] || slices.ContainsFunc(r.retired, func(p catalog.Partition) bool {
			return p.Key == k && !slices.Contains(r.forgotten, p.PartNo)
		})
	}
	return found, r.err
}

func listKeys(t *testing.T, l *lake.Lake) []string {
	t.Helper()
	var keys []string
	for o, err := range l.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func TestGCDeletesOnlyWhatNothingNeeds(t *testing.T) {
	l := openMem(t)
	for _, key := range []string{
		"packs/live", "packs/orphan", "views/live", "views/orphan", "views/retired-long-ago", "views/retired-just-now",
		"claims/adopted", "claims/on-bus", "claims/dropped", "foreign/file",
	} {
		if err := l.Put(t.Context(), key, []byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	later := time.Now().Add(2 * time.Hour)
	rows := &gcRows{
		referenced: map[string]bool{"packs/live": true, "views/live": true, "claims/adopted": true},
		retired: []catalog.Partition{
			{PartNo: 7, Key: "views/retired-long-ago", Size: 5, RetiredAt: later.Add(-11 * time.Minute).UnixNano()},
			{PartNo: 8, Key: "views/retired-just-now", Size: 5, RetiredAt: later.Add(-9 * time.Minute).UnixNano()},
		},
	}
	opts := lake.GCOptions{
		Ahead:      2 * time.Hour,
		ClaimOnBus: func(o lake.Object) bool { return strings.HasSuffix(o.Key, "on-bus") },
	}
	got, err := l.GC(t.Context(), rows, opts)
	if err != nil {
		t.Fatal(err)
	}
	want := lake.GCResult{Scanned: 8, Orphans: 3, OrphanBytes: 15, Retired: 1, RetiredBytes: 5, ClaimsKept: 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("result (-want +got)\n%s", d)
	}
	left := []string{"claims/adopted", "claims/on-bus", "foreign/file", "packs/live", "views/live", "views/retired-just-now"}
	if d := cmp.Diff(left, listKeys(t, l)); d != "" {
		t.Errorf("what is left (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]int64{7}, rows.forgotten); d != "" {
		t.Errorf("rows forgotten (-want +got)\n%s", d)
	}
	opts.ClaimOnBus = nil
	if got, err := l.GC(t.Context(), rows, opts); err != nil || got.Orphans+got.Retired != 0 || got.ClaimsKept != 1 {
		t.Errorf("a second run = %+v, %v", got, err)
	}
}

// What a running query reads stays, whatever the clock says, and goes when the query has ended.
func TestGCLeavesWhatIsRead(t *testing.T) {
	l := openMem(t)
	rows := &gcRows{}
	for no := range int64(4) {
		key := fmt.Sprintf("views/%d", no)
		if err := l.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
		rows.retired = append(rows.retired, catalog.Partition{PartNo: no, Key: key, Retired: 10 + no})
	}
	oldest, reading := int64(11), true
	opts := lake.GCOptions{OldestRead: func() (int64, bool) { return oldest, reading }}
	for _, want := range []string{"views/2 views/3", "views/3", ""} {
		if _, err := l.GC(t.Context(), rows, opts); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(listKeys(t, l), " "); got != want {
			t.Errorf("a query reads at %d: %t; left are %q, want %q", oldest, reading, got, want)
		}
		oldest, reading = oldest+1, oldest == 11
	}
}

func TestGCLeavesYoungOrphans(t *testing.T) {
	l := openMem(t)
	key := lake.PackKey(eager0, 1)
	if err := l.Put(t.Context(), key, nil); err != nil {
		t.Fatal(err)
	}
	for age, want := range map[time.Duration]int{0: 0, 59 * time.Minute: 0, 61 * time.Minute: 1} {
		if err := l.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
		got, err := l.GC(t.Context(), &gcRows{}, lake.GCOptions{Ahead: age})
		if err != nil || got.Orphans != want {
			t.Errorf("at age %v: %d orphans deleted, %v; want %d", age, got.Orphans, err, want)
		}
	}
}

func TestGCGoesOnAfterFailedDeletions(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	rows := &gcRows{}
	const n = 1200 // more than one batch
	for i := range n {
		key := fmt.Sprintf("views/%04d", i)
		if err := l.Put(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			rows.retired = append(rows.retired, catalog.Partition{PartNo: int64(i), Key: key})
		}
	}
	faults.Decide(func(op laketest.Op, key string) laketest.Fault {
		return laketest.Fault{Before: op == laketest.OpDelete && strings.HasSuffix(key, "7"), After: op == laketest.OpDelete && strings.HasSuffix(key, "4")}
	})
	opts := lake.GCOptions{Ahead: 2 * time.Hour}
	got, err := l.GC(t.Context(), rows, opts)
	if !errors.Is(err, laketest.ErrInjected) || got.Failures == 0 {
		t.Errorf("result = %+v, %v", got, err)
	}
	faults.Decide(nil)
	if _, err := l.GC(t.Context(), rows, opts); err != nil {
		t.Fatal(err)
	}
	if left := listKeys(t, l); len(left) != 0 || len(rows.forgotten) != n/2 {
		t.Errorf("%d objects and %d rows left", len(left), n/2-len(rows.forgotten))
	}
	rows.err = errors.New("catalog is away")
	if _, err := l.GC(t.Context(), rows, opts); !errors.Is(err, rows.err) {
		t.Errorf("error = %v, want the catalog's", err)
	}
}

func TestKeysAreUniqueAndValid(t *testing.T) {
	l := openMem(t)
	seen := map[string]bool{}
	for range 3 {
		for _, key := range []string{
			lake.PackKey(eager0, 1), lake.PackKey(catalog.ShardID{Class: 'r', Gen: 1<<31 - 1, Shard: 255}, 1<<64-1),
			lake.ViewKey("log_entries", 0, nil), lake.ViewKey("measures", -1<<63, nil), lake.ViewKey("measures", 1<<63-1, nil),
			lake.ClaimKey(telemetry.NewID()),
		} {
			if seen[key] {
				t.Errorf("key %s twice", key)
			}
			seen[key] = true
			if err := l.Put(t.Context(), key, nil); err != nil {
				t.Errorf("key %s: %v", key, err)
			}
		}
	}
	if !lake.IsClaimKey(lake.ClaimKey(telemetry.NewID())) || lake.IsClaimKey(lake.PackKey(eager0, 1)) {
		t.Error("IsClaimKey does not tell claims from packs")
	}
}

// TestGCWithWrongClocks collects while a clock is an hour off. What was put now must stay whichever it is; what is long
// unreferenced goes at last.
func TestGCWithWrongClocks(t *testing.T) {
	s := startS3(t)
	for _, c := range []struct {
		name         string
		skew, ahead  time.Duration
		kept, reaped bool // what was put now; what was retired 20 minutes ago by the catalog's clock
	}{
		{"right clocks", 0, 0, true, true},
		{"the catalog's is ahead", 90 * time.Minute, 0, true, true},
		{"the catalog's is behind", -90 * time.Minute, 0, true, true},
		{"an hour later", 0, lake.UnreferencedAge + time.Minute, false, true},
		{"an hour later, ahead", 90 * time.Minute, lake.UnreferencedAge + time.Minute, false, true},
		{"an hour later, behind", -90 * time.Minute, lake.UnreferencedAge + time.Minute, true, true},
	} {
		uris := map[string]string{"s3": s.URI("lake-" + uuid.NewString()), "folder": "file://" + t.TempDir(), "memory": "mem://"}
		for kind, uri := range uris {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				l := openLake(t, uri, lake.Options{})
				fresh, retired, recent := lake.PackKey(eager0, 1), lake.ViewKey("measures", 0, nil), lake.ViewKey("measures", 0, nil)
				for _, key := range []string{fresh, retired, recent} {
					if err := l.Put(t.Context(), key, []byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				at := time.Now().Add(c.skew + c.ahead)
				rows := &gcRows{skew: c.skew, referenced: map[string]bool{}, retired: []catalog.Partition{
					{PartNo: 1, Key: retired, RetiredAt: at.Add(-20 * time.Minute).UnixNano()},
					{PartNo: 2, Key: recent, RetiredAt: at.Add(-5 * time.Minute).UnixNano()},
				}}
				if _, err := l.GC(t.Context(), rows, lake.GCOptions{Ahead: c.ahead}); err != nil {
					t.Fatal(err)
				}
				left := listKeys(t, l)
				if got := slices.Contains(left, fresh); got != c.kept {
					t.Errorf("what was put now is there: %t, want %t", got, c.kept)
				}
				if got := !slices.Contains(left, retired); got != c.reaped {
					t.Errorf("what was retired long ago is gone: %t, want %t", got, c.reaped)
				}
				if !slices.Contains(left, recent) || len(left) > 3 {
					t.Errorf("left are %q, want what was retired just now, and nothing that the collection made", left)
				}
			})
		}
	}
}
