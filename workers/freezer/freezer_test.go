package freezer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/workers/freezer"
)

var (
	raw   = catalog.ShardID{Class: 'r'}
	today = catalog.DayOf(time.Now().UnixNano())
	quiet = slog.New(slog.DiscardHandler)
)

// world is a catalog in SQLite and a lake in a folder, and what was archived.
type world struct {
	t    testing.TB
	cat  *sqlite.DB
	lake *lake.Lake
	seq  uint64
	keys map[catalog.BlockKey]bool
	next int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, keys: map[catalog.BlockKey]bool{}}
	dir := t.TempDir()
	var err error
	if w.cat, err = sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"), quiet); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cat.Close() })
	uri, err := lake.FolderURI(filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	if w.lake, err = lake.Open(t.Context(), uri, lake.Options{CacheDir: filepath.Join(dir, "cache")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.lake.Close() })
	return w
}

// archive commits n blocks that began within a day, some in each of 4 streams.
func (w *world) archive(day catalog.Day, n int) {
	w.t.Helper()
	now, err := w.cat.Frozen(w.t.Context(), 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.seq++
	c := &catalog.ArchiveCommit{
		Shard: raw, From: w.seq - 1, To: w.seq, Epoch: 1, Frozen: now.Version,
		Pack: &catalog.Pack{Shard: raw, FirstSeq: w.seq, LastSeq: w.seq, Key: fmt.Sprint("packs/", w.seq), Size: 1},
	}
	for range n {
		w.next++
		b := catalog.BlockReg{Block: telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.ID{byte(w.next % 4), 1}, ProcessID: telemetry.ID{2}}, PackOffset: int64(w.next)}
		b.BeginTime = day.Begin()/1000*1000 + int64(w.next)*1000
		if b.BeginTime < day.Begin() || b.BeginTime > day.End() {
			w.t.Fatalf("block %d is not on its day", w.next)
		}
		b.EndTime, b.InsertTime = b.BeginTime+1e6, time.Now().UnixNano()
		c.Blocks = append(c.Blocks, b)
		w.keys[catalog.BlockKey{StreamID: b.StreamID, BeginTime: b.BeginTime, BlockID: b.ID}] = true
	}
	if err := w.cat.CommitArchive(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) freezer(change func(*freezer.Config)) *freezer.Freezer {
	w.t.Helper()
	cfg := freezer.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	f, err := freezer.New(cfg, w.cat, w.lake, quiet)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) freeze(f *freezer.Freezer) {
	w.t.Helper()
	if err := f.Freeze(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// files returns the frozen files.
func (w *world) files() []catalog.FrozenFile {
	w.t.Helper()
	f, err := w.cat.Frozen(w.t.Context(), math.MinInt64, math.MaxInt64)
	if err != nil {
		w.t.Fatal(err)
	}
	return f.Files
}

// check fails unless every block that was archived is a row or in one file. It returns the number of rows.
func (w *world) check() int {
	w.t.Helper()
	rows, _, err := w.cat.BlocksSince(w.t.Context(), nil, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	left := maps.Clone(w.keys)
	take := func(k catalog.BlockKey, where string) {
		if !left[k] {
			w.t.Errorf("block %v is in %s, and elsewhere or nowhere else", k, where)
		}
		delete(left, k)
	}
	for i := range rows {
		take(rows[i].BlockKey(), "the catalog")
	}
	r := frozen.NewReader(w.lake)
	for _, f := range w.files() {
		n := int64(0)
		for b, err := range r.Rows(w.t.Context(), &f) {
			if err != nil {
				w.t.Fatal(err)
			}
			if want := fmt.Sprint("packs/", b.PackSeq); b.PackKey != want || b.Shard != raw {
				w.t.Errorf("block %s is in pack %s, want %s", b.ID, b.PackKey, want)
			}
			take(b.BlockKey(), f.Key)
			n++
		}
		if n != f.Rows {
			w.t.Errorf("%s has %d rows, not %d", f.Key, n, f.Rows)
		}
	}
	if len(left) > 0 {
		w.t.Errorf("%d blocks are gone", len(left))
	}
	return len(rows)
}

func (w *world) wantFiles(want ...int64) {
	w.t.Helper()
	var got []int64
	for _, f := range w.files() {
		got = append(got, f.Rows)
	}
	if d := cmp.Diff(want, got); d != "" {
		w.t.Fatalf("rows of files (-want +got):\n%s", d)
	}
}

func TestDaysThatAreOverAreFrozen(t *testing.T) {
	w := newWorld(t)
	for ago := range catalog.Day(8) {
		w.archive(today-ago, 10)
	}
	f := w.freezer(nil)
	w.freeze(f)
	// The fourth day back ended more than 72 h ago, whatever the time.
	if left := w.check(); left != 40 {
		t.Errorf("%d rows left", left)
	}
	w.wantFiles(10, 10, 10, 10)
	for i, file := range w.files() {
		if want := (today - 7 + catalog.Day(i)).Begin(); file.Bucket != want || !strings.HasPrefix(file.Key, "views/blocks/"+time.Unix(0, want).UTC().Format(time.DateOnly)+"/") {
			t.Errorf("file %s of %d", file.Key, file.Bucket)
		}
	}
	w.freeze(f) // nothing to do
	w.check()
	if s := f.Stats(); s.Freezes != 4 || s.Rows != 40 || s.Files != 4 || s.Merged != 0 || s.Failures != 0 || s.Bytes == 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestLargeDaysAreCut(t *testing.T) {
	w := newWorld(t)
	w.archive(today-9, 25)
	w.freeze(w.freezer(func(c *freezer.Config) { c.FileRows, c.SweepRows = 10, 3 }))
	w.check()
	w.wantFiles(10, 10, 5)
	files := w.files()
	for i := range files[1:] {
		if files[i].LastStream.Compare(files[i+1].FirstStream) > 0 {
			t.Errorf("files %d and %d overlap", i, i+1)
		}
	}
}

func TestLateRowsWaitAndTakeSmallFilesAlong(t *testing.T) {
	w := newWorld(t)
	f := w.freezer(func(c *freezer.Config) { c.LateRows, c.FileRows = 5, 100 })
	w.archive(today-9, 80) // more than half full: it is left alone from now on
	w.freeze(f)
	for range 4 {
		w.archive(today-9, 1)
		w.freeze(f)
		w.wantFiles(80)
	}
	w.archive(today-9, 1)
	w.freeze(f)
	w.wantFiles(80, 5)
	if left := w.check(); left != 0 {
		t.Errorf("%d rows left", left)
	}
	for range 3 {
		w.archive(today-9, 5)
		w.freeze(f)
		w.check()
	}
	w.wantFiles(80, 15, 5) // 5 + 5, 10 + 5; then the 15 stay, for they are too many for another 5
	if s := f.Stats(); s.Merged != 2 {
		t.Errorf("stats %+v", s)
	}
	// Few rows go when they are old.
	w.archive(today-9, 1)
	w.freeze(w.freezer(func(c *freezer.Config) { c.LateAge = 0 }))
	w.wantFiles(80, 15, 5, 1)
	w.check()
	retired, err := w.cat.RetiredBefore(t.Context(), math.MaxInt64, 100)
	if err != nil || len(retired) != 2 {
		t.Fatalf("%d files retired, %v", len(retired), err)
	}
	// The merged files go with garbage collection, and nothing else does.
	if _, err := w.lake.GC(t.Context(), w.cat, lake.GCOptions{Ahead: 3 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, p := range retired {
		if there, err := w.lake.Exists(t.Context(), p.Key); there || err != nil {
			t.Errorf("%s is there, %v", p.Key, err)
		}
	}
	w.check()
}

// However many days a client makes up, there are a few hundred units: of years.
func TestAbsurdDaysShareYears(t *testing.T) {
	w := newWorld(t)
	n := 0
	years := map[int]bool{}
	add := func(day catalog.Day) {
		w.archive(day, 2)
		years[time.Unix(0, day.End()).UTC().Year()] = true
		n++
	}
	for day := catalog.Day(7305); day < 7305+5*365; day += 40 { // from 1990 on
		add(day)
		add(50_000 + day)
	}
	add(catalog.DayOf(math.MinInt64))
	add(catalog.DayOf(math.MinInt64) + 1)
	add(catalog.DayOf(math.MaxInt64) - 1)
	add(catalog.DayOf(math.MaxInt64))
	w.archive(today+1, 3) // not so absurd
	w.archive(today-5, 3)
	f := w.freezer(nil)
	w.freeze(f)
	if left := w.check(); left != 3 {
		t.Errorf("%d rows left", left)
	}
	files := w.files()
	if len(files) != len(years)+1 {
		t.Errorf("%d files of %d days, want %d", len(files), n, len(years)+1)
	}
	for _, file := range files {
		if file.MinTime <= time.Now().UnixNano() && file.MaxBegin >= time.Now().UnixNano() {
			t.Errorf("file %s covers the present", file.Key)
		}
	}
}

// A freeze that ends at any step is done again, and each block is somewhere all the time.
func TestFreezeIsDoneAgain(t *testing.T) {
	broken := errors.New("killed")
	for _, step := range []freezer.Step{freezer.StepPut, freezer.StepCommit, freezer.StepCommitted} {
		for after := range 3 {
			t.Run(fmt.Sprintf("%s after %d", step, after), func(t *testing.T) {
				w := newWorld(t)
				for ago := range catalog.Day(3) {
					w.archive(today-6-ago, 30)
				}
				change := func(c *freezer.Config) { c.FileRows, c.SweepRows = 11, 7 }
				f := w.freezer(change)
				left := after
				f.SetHook(func(s freezer.Step) error {
					if s != step {
						return nil
					}
					if left--; left < 0 {
						return broken
					}
					return nil
				})
				if err := f.Freeze(t.Context()); !errors.Is(err, broken) {
					t.Fatal(err)
				}
				w.check()
				w.freeze(w.freezer(change))
				if left := w.check(); left != 0 {
					t.Errorf("%d rows left", left)
				}
				w.wantFiles(11, 11, 8, 11, 11, 8, 11, 11, 8)
			})
		}
	}
}

// Two freezers at once do no harm.
func TestTwoFreezersAtOnce(t *testing.T) {
	w := newWorld(t)
	for ago := range catalog.Day(12) {
		w.archive(today-5-ago, 20)
	}
	var wg sync.WaitGroup
	for range 3 {
		f := w.freezer(nil)
		wg.Go(func() {
			if err := f.Freeze(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.freeze(w.freezer(nil))
	if left := w.check(); left != 0 {
		t.Errorf("%d rows left", left)
	}
	if files := w.files(); len(files) != 12 {
		t.Errorf("%d files", len(files))
	}
}

// overtaken is a catalog in which somebody else freezes after it was read what may be frozen.
type overtaken struct {
	*sqlite.DB
	other func()
}

func (c *overtaken) Freezable(ctx context.Context, before, after int64) (catalog.Freezable, error) {
	f, err := c.DB.Freezable(ctx, before, after)
	c.other()
	return f, err
}

// A freezer that was overtaken, by one that died before it swept, finds the same rows in the catalog and in a file.
func TestFreezeThatIsOvertakenGivesUp(t *testing.T) {
	w := newWorld(t)
	w.archive(today-9, 20)
	died := errors.New("died")
	late := func(c *freezer.Config) { c.LateRows = 1 }
	other := w.freezer(late)
	other.SetHook(func(s freezer.Step) error {
		if s == freezer.StepCommitted {
			return died
		}
		return nil
	})
	cfg := freezer.DefaultConfig()
	late(&cfg)
	f, err := freezer.New(cfg, &overtaken{w.cat, func() {
		if err := other.Freeze(t.Context()); !errors.Is(err, died) {
			t.Error(err)
		}
	}}, w.lake, quiet)
	if err != nil {
		t.Fatal(err)
	}
	w.freeze(f)
	if st := f.Stats(); st.Freezes != 0 || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
	w.check()
}

// slowClock is a catalog whose clock is not the process's.
type slowClock struct {
	*sqlite.DB
	now int64
}

func (c *slowClock) Now(context.Context) (int64, error) { return c.now, nil }

func TestTheStoresClockDecides(t *testing.T) {
	w := newWorld(t)
	for ago := range catalog.Day(10) {
		w.archive(today-20-ago, 1)
	}
	cat := &slowClock{w.cat, (today - 20).End()}
	f, err := freezer.New(freezer.DefaultConfig(), cat, w.lake, quiet)
	if err != nil {
		t.Fatal(err)
	}
	w.freeze(f)
	if left := w.check(); left != 4 { // as of today, all would go
		t.Errorf("%d rows left", left)
	}
}

// A freezer freezes at its start, under its lease.
func TestRunFreezesAtTheStart(t *testing.T) {
	w := newWorld(t)
	w.archive(today-9, 5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := w.freezer(func(c *freezer.Config) {
		c.Keeper = ownership.NewKeeper(ownership.DefaultConfig(), w.cat, "a", quiet)
	})
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); f.Stats().Freezes == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is frozen")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if left := w.check(); left != 0 {
		t.Errorf("%d rows left", left)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if err := freezer.DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	err := freezer.Config{FreezeAfter: 48 * time.Hour, FileRows: frozen.FileRows + 1}.Validate()
	for _, want := range []string{"freeze after", "pauses", "late rows", "file rows", "sweep rows"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := freezer.New(freezer.Config{}, nil, nil, quiet); err == nil {
		t.Error("no error")
	}
}
