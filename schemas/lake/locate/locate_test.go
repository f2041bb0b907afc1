package locate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// today is a day long over: all of these blocks may be frozen.
const today = catalog.Day(20_000)

var (
	raw    = catalog.ShardID{Class: 'r'}
	stream = telemetry.ID{5}
	other  = telemetry.ID{6}
)

// world is a catalog in SQLite and a lake in a folder, both real.
type world struct {
	t    *testing.T
	cat  *sqlite.DB
	lake *lake.Lake
	seq  uint64
	*locate.Locator
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	dir := t.TempDir()
	var err error
	if w.cat, err = sqlite.Open(t.Context(), filepath.Join(dir, "catalog.sqlite"), slog.New(slog.DiscardHandler)); err != nil {
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
	w.Locator = locate.New(w.cat, w.lake)
	return w
}

// at is the time n seconds into today, which may be before it.
func at(n int) int64 { return today.Begin() + int64(n)*int64(time.Second) }

// block is block n, which begins at second begin and ends at second end.
func block(n int, of telemetry.ID, begin, end int) catalog.BlockReg {
	return catalog.BlockReg{
		Block:      telemetry.Block{ID: telemetry.ID{byte(n >> 8), byte(n)}, StreamID: of, ProcessID: telemetry.ID{2}, BeginTime: at(begin), EndTime: at(end), NbObjects: int32(n)},
		InsertTime: at(end + 1),
	}
}

// chain makes blocks from..to-1, each of which begins n*10 s into today and lasts for 10 s.
func chain(from, to int) (all []catalog.BlockReg) {
	for n := from; n < to; n++ {
		all = append(all, block(n, stream, n*10, n*10+10))
	}
	return all
}

// body is what a client sent as block n.
func body(n int) []byte { return fmt.Appendf(nil, "body of block %d", n) }

func number(id telemetry.ID) int { return int(id[0])<<8 | int(id[1]) }

// archive puts the bodies of blocks as a pack, those marked as adopted as objects of their own, and commits the rows.
func (w *world) archive(blocks ...catalog.BlockReg) {
	w.t.Helper()
	w.seq++
	c := &catalog.ArchiveCommit{Shard: raw, From: w.seq - 1, To: w.seq, Epoch: 1, Blocks: blocks, Frozen: w.version()}
	var data []byte
	for i := range blocks {
		b := &blocks[i]
		text := body(number(b.ID))
		b.PackLength = int64(len(text))
		if b.Adopted == 0 {
			b.PackOffset = int64(len(data))
			data = append(data, text...)
			continue
		}
		key := lake.ClaimKey(b.ID)
		if err := w.lake.Put(w.t.Context(), key, text); err != nil {
			w.t.Fatal(err)
		}
		c.Adopted = append(c.Adopted, catalog.Pack{Shard: raw, FirstSeq: w.seq, LastSeq: w.seq, Key: key, Size: b.PackLength, Adopted: true})
		b.Adopted = int32(len(c.Adopted))
	}
	frame := bus.Frame{Position: bus.Position{Shard: bus.Shard{Class: bus.Raw}, Seq: w.seq}, Data: data}
	pack, offsets, err := w.lake.PutPack(w.t.Context(), raw, []bus.Frame{frame})
	if err != nil {
		w.t.Fatal(err)
	}
	c.Pack = &pack
	for i := range blocks {
		if blocks[i].Adopted == 0 {
			blocks[i].PackOffset += offsets[0]
		}
	}
	if err := w.cat.CommitArchive(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) version() int64 {
	w.t.Helper()
	f, err := w.cat.Frozen(w.t.Context(), 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return f.Version
}

// freeze moves the rows of blocks that began in [from, to] seconds into a file, into which it takes the rows of all older files when
// merge is set, and removes them from the catalog.
func (w *world) freeze(from, to int, merge bool) {
	w.t.Helper()
	ctx := w.t.Context()
	may, err := w.cat.Freezable(ctx, math.MaxInt64, math.MaxInt64-1)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &catalog.FreezeCommit{FreezeSpan: catalog.FreezeSpan{From: at(from), To: at(to), UpTo: may.UpTo}, Version: may.Version}
	rows := map[catalog.BlockKey]catalog.BlockRow{}
	var keys []catalog.BlockKey
	add := func(b catalog.BlockRow, err error) {
		if err != nil {
			w.t.Fatal(err)
		}
		rows[b.BlockKey()], keys = b, append(keys, b.BlockKey())
	}
	for b, err := range w.cat.FreezableBlocks(ctx, c.FreezeSpan) {
		add(b, err)
	}
	c.Moved = int64(len(keys))
	if merge {
		f, err := w.cat.Frozen(ctx, math.MinInt64, math.MaxInt64)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range f.Files {
			c.Retired = append(c.Retired, f.Files[i].PartNo)
			for b, err := range frozen.NewReader(w.lake).Rows(ctx, &f.Files[i]) {
				add(b, err)
			}
		}
	}
	c.Added = []catalog.FrozenFile{w.file(keys, rows)}
	if _, err := w.cat.CommitFreeze(ctx, c); err != nil {
		w.t.Fatal(err)
	}
	for more := true; more; {
		if more, err = w.cat.SweepFrozen(ctx, 1000); err != nil {
			w.t.Fatal(err)
		}
	}
}

// file puts a frozen file of rows.
func (w *world) file(keys []catalog.BlockKey, rows map[catalog.BlockKey]catalog.BlockRow) catalog.FrozenFile {
	w.t.Helper()
	out, err := frozen.NewWriter()
	if err != nil {
		w.t.Fatal(err)
	}
	slices.SortFunc(keys, catalog.BlockKey.Compare)
	for _, k := range keys {
		if err := out.Append(rows[k]); err != nil {
			w.t.Fatal(err)
		}
	}
	f, err := out.Finish()
	if err != nil {
		w.t.Fatal(err)
	}
	f.Row.View, f.Row.Bucket = catalog.FrozenView, today.Begin()
	f.Row.Key = lake.ViewKey(catalog.FrozenView, f.Row.Bucket, f.Data)
	if err := w.lake.Put(w.t.Context(), f.Row.Key, f.Data); err != nil {
		w.t.Fatal(err)
	}
	return f.Row
}

// numbers are those of the blocks found, which must be of the stream, in order, and lead to their bodies.
func (w *world) numbers(rows []catalog.BlockRow, err error) []int {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	all := []int{}
	for i := range rows {
		b := &rows[i]
		n := number(b.ID)
		all = append(all, n)
		if i > 0 && rows[i-1].BlockKey().Compare(b.BlockKey()) >= 0 || b.StreamID != stream {
			w.t.Errorf("block %v at %d of %v", b.BlockKey(), i, all)
		}
		if got, err := w.Body(w.t.Context(), b); err != nil || string(got) != string(body(n)) {
			w.t.Errorf("body of block %d is %q, %v", n, got, err)
		}
	}
	return all
}

func (w *world) equal(what string, got []int, want ...int) {
	w.t.Helper()
	if d := cmp.Diff(append([]int{}, want...), got); d != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// The same ten blocks, wherever they are: block 0 lasts for 60 s; block 7 begins with block 6, and 8 ends before it begins.
func TestAnswersDoNotDependOnThePlace(t *testing.T) {
	places := []struct {
		name   string
		freeze func(*world)
	}{
		{"in the catalog", func(*world) {}},
		{"frozen", func(w *world) { w.freeze(-1000, 1000, false) }},
		{"older ones frozen", func(w *world) { w.freeze(-1000, 49, false) }},
		{"in files side by side", func(w *world) { w.freeze(20, 29, false); w.freeze(-1000, 65, false) }},
		{"in a file that took others in", func(w *world) { w.freeze(20, 29, false); w.freeze(-1000, 65, true) }},
		{"in a file that took all others in", func(w *world) { w.freeze(20, 29, false); w.freeze(-1000, 19, false); w.freeze(30, 1000, true) }},
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			w := newWorld(t)
			ctx := t.Context()
			blocks := chain(0, 10)
			blocks[0].EndTime = at(60)
			blocks[3].Adopted = 1
			blocks[7].BeginTime = at(60)
			blocks[8].EndTime = at(1)
			w.archive(blocks[5:]...)
			w.archive(append(blocks[:5:5], block(100, other, 0, 500))...)
			p.freeze(w)

			meeting := func(begin, end int, want ...int) {
				t.Helper()
				w.equal(fmt.Sprintf("under way from %d to %d", begin, end), w.numbers(w.Meeting(ctx, stream, at(begin), at(end))), want...)
				w.equal(fmt.Sprintf("under way within a microsecond after %d", begin), w.numbers(w.Meeting(ctx, stream, at(begin)+999, at(end)+999)), want...)
			}
			meeting(-9000, 9000, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
			meeting(60, 60, 0, 5, 6, 7)
			meeting(75, 85, 7, 8)
			meeting(101, 9000)
			meeting(-9000, -1)
			meeting(45, 35)

			begun := func(from, to int, want ...int) {
				t.Helper()
				w.equal(fmt.Sprintf("begun from %d to %d", from, to), w.numbers(w.Begun(ctx, stream, at(from), at(to))), want...)
			}
			begun(-9000, 9000, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
			begun(20, 50, 2, 3, 4) // the first is in, the last is not
			begun(60, 61, 6, 7)
			begun(60, 60)
			begun(61, 60)
			begun(91, 9000)

			before := func(t1, n int, want ...int) {
				t.Helper()
				w.equal(fmt.Sprintf("%d before %d", n, t1), w.numbers(w.Before(ctx, stream, at(t1), n)), want...)
			}
			before(50, 3, 2, 3, 4)
			before(61, 2, 6, 7)
			before(60, 1, 5)
			before(50, 5, 0, 1, 2, 3, 4)
			before(50, 100, 0, 1, 2, 3, 4)
			before(9000, 4, 6, 7, 8, 9)
			before(10*86400, 2, 8, 9)
			before(0, 3)
			before(1, 3, 0)
			before(50, 0)

			all := func(rows []catalog.BlockRow, err error) int { return len(w.numbers(rows, err)) }
			if n := all(w.Meeting(ctx, stream, math.MinInt64, math.MaxInt64)); n != 10 {
				t.Errorf("%d blocks ever", n)
			}
			if n := all(w.Begun(ctx, stream, math.MinInt64, math.MaxInt64)); n != 10 {
				t.Errorf("%d blocks begun ever", n)
			}
			if n := all(w.Before(ctx, stream, math.MaxInt64, 100)); n != 10 {
				t.Errorf("%d blocks before all times", n)
			}
			if n := all(w.Before(ctx, stream, math.MinInt64, 1)); n != 0 {
				t.Errorf("%d blocks before the first moment", n)
			}
			if n := all(w.Before(ctx, telemetry.ID{77}, at(50), 1)); n != 0 {
				t.Errorf("%d blocks of an unknown stream", n)
			}
		})
	}
}

// A long block that reaches into the time that is looked at first is not the latest before it: a shorter one began after it.
func TestBeforeOverLongBlocks(t *testing.T) {
	const day = 86400
	blocks := []catalog.BlockReg{
		block(1, stream, -40*day, -1), block(2, stream, -39*day, -39*day+1), block(3, stream, -2*day, 0), block(4, stream, -2*day+1, -2*day+2), block(5, stream, -60, -50),
	}
	for _, frozenTo := range []int{-50 * day, -40 * day, -2 * day, 0} {
		w := newWorld(t)
		w.archive(blocks...)
		if frozenTo >= -40*day {
			w.freeze(-50*day, frozenTo, false)
		}
		for n, want := range [][]int{{}, {5}, {4, 5}, {3, 4, 5}, {2, 3, 4, 5}, {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}} {
			w.equal(fmt.Sprintf("%d, frozen up to day %d", n, frozenTo/day), w.numbers(w.Before(t.Context(), stream, at(0), n)), want...)
		}
	}
}

// between calls a function once, after a read of the rows or before it.
type between struct {
	*sqlite.DB
	before, after func()
	looks         int
}

func (c *between) StreamBlocks(ctx context.Context, s telemetry.ID, q catalog.BlockQuery) ([]catalog.BlockRow, error) {
	c.looks++
	once(&c.before)
	rows, err := c.DB.StreamBlocks(ctx, s, q)
	once(&c.after)
	return rows, err
}

func once(f *func()) {
	if g := *f; g != nil {
		*f = nil
		g()
	}
}

func TestFreezeBetweenTheLooks(t *testing.T) {
	for _, first := range []bool{true, false} {
		w := newWorld(t)
		w.archive(chain(0, 10)...)
		w.freeze(0, 25, false)
		c := &between{DB: w.cat}
		freeze := func() { w.freeze(30, 65, true) }
		if first {
			c.before = freeze
		} else {
			c.after = freeze
		}
		l := locate.New(c, w.lake)
		w.equal("all", w.numbers(l.Meeting(t.Context(), stream, at(0), at(1000))), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		if c.looks != 2 {
			t.Errorf("%d looks", c.looks)
		}
		w.archive(block(20, stream, 95, 96))
		c.after = func() { w.freeze(66, 1000, true) }
		w.equal("before", w.numbers(l.Before(t.Context(), stream, at(96), 3)), 8, 9, 20)
	}
}

// A file whose rows others took in may be gone before it was read: then the answer comes from the others.
func TestFileGoesBetweenTheLooks(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.archive(chain(0, 10)...)
	w.freeze(0, 25, false)
	old, err := w.cat.Frozen(ctx, math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	c := &between{DB: w.cat, after: func() {
		w.freeze(30, 65, true)
		if err := w.lake.Delete(ctx, old.Files[0].Key); err != nil {
			t.Error(err)
		}
	}}
	w.equal("all", w.numbers(locate.New(c, w.lake).Begun(ctx, stream, at(0), at(1000))), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)

	now, err := w.cat.Frozen(ctx, math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.lake.Delete(ctx, now.Files[0].Key); err != nil {
		t.Fatal(err)
	}
	if _, err := locate.New(w.cat, w.lake).Begun(ctx, stream, at(0), at(1000)); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("a file that is lost: %v", err)
	}
}

func TestBodyThatIsNowhere(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Body(t.Context(), &catalog.BlockRow{}); !errors.Is(err, locate.ErrNoBody) {
		t.Errorf("of a row without a place: %v", err)
	}
	if _, err := w.Body(t.Context(), &catalog.BlockRow{PackKey: "packs/none", PackLength: 1}); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("of a pack that is gone: %v", err)
	}
}

// A stream that is young costs no look into the files of times before it.
func TestBeforeReadsNoOlderFiles(t *testing.T) {
	w := newWorld(t)
	w.archive(block(1, telemetry.ID{1}, -86400, -86000), block(2, telemetry.ID{9}, -86400, -86000)) // a file on both sides of the stream
	w.freeze(-90000, -80000, false)
	w.archive(chain(0, 3)...)
	lake := &counting{Lake: w.lake}
	w.equal("all there are", w.numbers(locate.New(w.cat, lake).Before(t.Context(), stream, at(50), 10)), 0, 1, 2)
	if lake.reads != 0 {
		t.Errorf("%d reads", lake.reads)
	}
}

// counting counts the reads of a lake.
type counting struct {
	*lake.Lake
	reads int
}

func (c *counting) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	c.reads++
	return c.Lake.GetRange(ctx, key, off, n)
}
