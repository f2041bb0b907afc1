package frozen_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const day = int64(1_700_006_400_000_000_000) // 2023-11-15

// objects is a bucket in memory that counts its reads.
type objects struct {
	mu    sync.Mutex
	files map[string][]byte
	reads int
	bytes int64
}

func (o *objects) GetRange(_ context.Context, key string, off, n int64) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads++
	o.bytes += n
	data, ok := o.files[key]
	if !ok || off < 0 || n < 0 || off+n > int64(len(data)) {
		return nil, io.ErrUnexpectedEOF
	}
	return slices.Clone(data[off : off+n]), nil
}

// block is a row with values that depend on n; streams get some blocks each.
func block(n, streams int) catalog.BlockRow {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	var b catalog.BlockRow
	for i := range 8 {
		b.ID[i], b.ID[8+i] = byte(rnd.Uint32()), byte(rnd.Uint32())
	}
	s := rnd.IntN(streams)
	b.StreamID = telemetry.ID{byte(s * 7), byte(s >> 8), byte(s), 9}
	b.ProcessID = telemetry.ID{1, byte(s / 4)}
	b.BeginTime = day + rnd.Int64N(86_400_000_000)*1000
	b.EndTime = b.BeginTime + rnd.Int64N(10_000_000)*1000
	b.BeginTicks, b.EndTicks = rnd.Int64(), -rnd.Int64()
	b.NbObjects, b.ObjectOffset, b.PayloadSize = int32(rnd.IntN(10_000)), rnd.Int64N(1e9), rnd.Int64N(40_000)
	b.InsertTime = b.EndTime + rnd.Int64N(1_000_000)*1000
	pack := (b.BeginTime - day) / 10e9
	b.PackKey = fmt.Sprintf("packs/e/0/%d/00000000/%020d-%08x-0000-4000-8000-%012x.pack", s%2, pack, pack*2654435761%(1<<32), pack*2654435761)
	b.PackOffset, b.PackLength = rnd.Int64N(4<<20), rnd.Int64N(40_000)
	b.Shard, b.PackSeq = catalog.ShardID{Class: 'e', Gen: 3, Shard: int32(s % 2)}, uint64(pack)
	return b
}

func sorted(rows []catalog.BlockRow) []catalog.BlockRow {
	slices.SortFunc(rows, func(a, b catalog.BlockRow) int { return a.BlockKey().Compare(b.BlockKey()) })
	return rows
}

func manyBlocks(n, streams int) []catalog.BlockRow {
	rows := make([]catalog.BlockRow, n)
	for i := range rows {
		rows[i] = block(i, streams)
	}
	return sorted(rows)
}

// groupRows is the length of row groups here.
const groupRows = 500

// write makes a file of rows, which are in order, in short row groups.
func write(t testing.TB, key string, rows []catalog.BlockRow) (catalog.FrozenFile, []byte) {
	t.Helper()
	return writeGroups(t, key, rows, groupRows)
}

func writeGroups(t testing.TB, key string, rows []catalog.BlockRow, length int) (catalog.FrozenFile, []byte) {
	t.Helper()
	w, err := frozen.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	w.SetGroupRows(length)
	for part := range slices.Chunk(rows, 333) {
		if err := w.Append(part...); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	f.Row.Key, f.Row.View = key, catalog.FrozenView
	return f.Row, f.Data
}

// scan returns all rows of a file.
func scan(ctx context.Context, r *frozen.Reader, f *catalog.FrozenFile) (rows []catalog.BlockRow, err error) {
	for b, err := range r.Rows(ctx, f) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, b)
	}
	return rows, nil
}

func sameRows(t *testing.T, want, got []catalog.BlockRow) {
	t.Helper()
	if !slices.Equal(want, got) {
		t.Fatalf("rows (-want +got):\n%.2000s", gocmp.Diff(want, got))
	}
}

// overlapping is what Blocks must return.
func overlapping(rows []catalog.BlockRow, stream telemetry.ID, begin, end int64) []catalog.BlockRow {
	var out []catalog.BlockRow
	for _, b := range rows {
		if b.StreamID == stream && b.BeginTime <= end && max(b.EndTime, b.BeginTime) >= begin {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b catalog.BlockRow) int {
		return cmp.Or(cmp.Compare(a.BeginTime, b.BeginTime), a.ID.Compare(b.ID))
	})
	return out
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{1, 2, groupRows, groupRows + 1, 10 * groupRows} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			rows := manyBlocks(n, 100)
			f, data := write(t, "a", rows)
			o := &objects{files: map[string][]byte{"a": data}}
			r := frozen.NewReader(o)
			got, err := scan(t.Context(), r, &f)
			if err != nil {
				t.Fatal(err)
			}
			sameRows(t, rows, got)
			want := catalog.FrozenFile{MaxBegin: math.MinInt64, MaxEnd: math.MinInt64, FirstStream: rows[0].StreamID, LastStream: rows[n-1].StreamID, TailSize: f.TailSize, TailCRC: f.TailCRC}
			want.Partition = catalog.Partition{View: catalog.FrozenView, Key: "a", Rows: int64(n), Size: int64(len(data)), SchemaVer: frozen.Version, Procs: f.Procs, MinTime: math.MaxInt64, MinInsert: math.MaxInt64}
			for _, b := range rows {
				want.MinTime, want.MaxBegin, want.MaxEnd = min(want.MinTime, b.BeginTime), max(want.MaxBegin, b.BeginTime), max(want.MaxEnd, b.EndTime)
				want.MinInsert, want.MaxInsert = min(want.MinInsert, b.InsertTime), max(want.MaxInsert, b.InsertTime)
				if bit := catalog.ProcessBit(b.ProcessID); f.Procs[bit>>3]&(1<<(bit&7)) == 0 {
					t.Fatalf("process %s is not in the bitmap", b.ProcessID)
				}
			}
			want.MaxTime = want.MaxInsert
			if d := gocmp.Diff(want, f); d != "" {
				t.Fatalf("row (-want +got):\n%s", d)
			}
			t.Logf("%d bytes, %.1f a row, footer %d", len(data), float64(len(data))/float64(n), f.TailSize)
		})
	}
}

func TestLookup(t *testing.T) {
	rows := manyBlocks(1500, 30)
	first, firstData := write(t, "first", rows[:1000])
	second, secondData := write(t, "second", rows[1000:1450]) // the rest is nowhere
	o := &objects{files: map[string][]byte{"first": firstData, "second": secondData}}
	r := frozen.NewReader(o)
	files := []catalog.FrozenFile{first, second}
	var keys []catalog.BlockKey
	var want []bool
	add := func(k catalog.BlockKey, there bool) { keys, want = append(keys, k), append(want, there) }
	for i := 0; i < len(rows); i += 7 {
		k := rows[i].BlockKey()
		add(k, i < 1450)
		k.BlockID[3]++
		add(k, false)
		k = rows[i].BlockKey()
		k.BeginTime += 1000
		add(k, false)
	}
	add(catalog.BlockKey{StreamID: telemetry.ID{255, 255}, BeginTime: day}, false)
	add(catalog.BlockKey{StreamID: rows[0].StreamID, BeginTime: math.MinInt64}, false)
	add(rows[0].BlockKey(), true)
	add(rows[0].BlockKey(), true) // twice
	add(rows[999].BlockKey(), true)
	add(rows[1000].BlockKey(), true)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(keys), func(i, j int) {
		keys[i], keys[j] = keys[j], keys[i]
		want[i], want[j] = want[j], want[i]
	})
	for range 2 { // cold and warm
		got, err := r.Lookup(t.Context(), files, keys)
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	}
	if o.reads != 2+2+1 { // a footer of each, and each row group's keys, once
		t.Errorf("%d reads", o.reads)
	}
	none, err := r.Lookup(t.Context(), files, nil)
	if err != nil || len(none) != 0 {
		t.Fatal(none, err)
	}
}

// One key costs the footer and the key columns of one row group.
func TestLookupReadsLittle(t *testing.T) {
	rows := manyBlocks(10_000, 1000)
	f, data := write(t, "a", rows)
	o := &objects{files: map[string][]byte{"a": data}}
	r := frozen.NewReader(o)
	found, err := r.Lookup(t.Context(), []catalog.FrozenFile{f}, []catalog.BlockKey{rows[7654].BlockKey()})
	if err != nil || !found[0] {
		t.Fatal(found, err)
	}
	if o.reads != 2 || o.bytes > int64(len(data)/4) {
		t.Errorf("%d reads of %d bytes of %d", o.reads, o.bytes, len(data))
	}
}

func TestBlocksOfAStream(t *testing.T) {
	rows := manyBlocks(3000, 8) // a stream has 375 blocks; some lie in two row groups
	f, data := write(t, "a", rows)
	late, lateData := write(t, "b", sorted([]catalog.BlockRow{block(1_000_001, 8), block(1_000_002, 8), block(1_000_003, 8)}))
	o := &objects{files: map[string][]byte{"a": data, "b": lateData}}
	r := frozen.NewReader(o)
	files := []catalog.FrozenFile{f, late}
	all := slices.Concat(rows, []catalog.BlockRow{block(1_000_001, 8), block(1_000_002, 8), block(1_000_003, 8)})
	hour := int64(3600e9)
	for n := range 8 {
		stream := block(n, 8).StreamID
		for _, span := range [][2]int64{{math.MinInt64, math.MaxInt64}, {day + 5*hour, day + 6*hour}, {day + 7*hour, day + 7*hour}, {day - hour, day - 1}, {day + 25*hour, day + 26*hour}} {
			got, err := r.Blocks(t.Context(), files, stream, span[0], span[1])
			if err != nil {
				t.Fatal(err)
			}
			sameRows(t, overlapping(all, stream, span[0], span[1]), got)
		}
	}
	none, err := r.Blocks(t.Context(), files, telemetry.ID{1, 2, 3}, math.MinInt64, math.MaxInt64)
	if err != nil || len(none) != 0 {
		t.Fatal(len(none), err)
	}
}

func TestWriterRefusesDisorder(t *testing.T) {
	rows := manyBlocks(10, 3)
	for _, bad := range [][]catalog.BlockRow{{rows[1], rows[0]}, {rows[1], rows[1]}} {
		w, err := frozen.NewWriter()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(bad[0]); err != nil {
			t.Fatal(err)
		}
		if err := w.Append(bad[1]); err == nil {
			t.Error("rows out of order were taken")
		}
	}
	w, err := frozen.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("a file without rows was made")
	}
}

// sameOrError asks a damaged file everything: each answer must be right or ErrDamaged. It reports whether something was noticed.
func sameOrError(t testing.TB, f catalog.FrozenFile, data []byte, rows []catalog.BlockRow) (noticed bool) {
	t.Helper()
	r := frozen.NewReader(&objects{files: map[string][]byte{f.Key: data}})
	check := func(err error) bool {
		if err != nil && !errors.Is(err, frozen.ErrDamaged) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("error %v", err)
		}
		noticed = noticed || err != nil
		return err == nil
	}
	got, err := scan(t.Context(), r, &f)
	if check(err) && !slices.Equal(got, rows) {
		t.Fatal("other rows, and no error")
	}
	r = frozen.NewReader(&objects{files: map[string][]byte{f.Key: data}}) // cold
	found, err := r.Lookup(t.Context(), []catalog.FrozenFile{f}, []catalog.BlockKey{rows[0].BlockKey(), rows[len(rows)-1].BlockKey()})
	if check(err) && (!found[0] || !found[1]) {
		t.Fatal("a block is not found, and no error")
	}
	stream := rows[len(rows)/2].StreamID
	blocks, err := r.Blocks(t.Context(), []catalog.FrozenFile{f}, stream, math.MinInt64, math.MaxInt64)
	if check(err) && !slices.Equal(blocks, overlapping(rows, stream, math.MinInt64, math.MaxInt64)) {
		t.Fatal("other blocks, and no error")
	}
	return noticed
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	rows := manyBlocks(40, 3)
	f, data := write(t, "a", rows)
	for i := rand.IntN(4); i < len(data); i += 1 + rand.IntN(4) {
		bad := slices.Clone(data)
		bad[i] ^= 1 << (i % 8)
		// The first four bytes, PAR1, are nobody's: the footer ends with the same.
		if !sameOrError(t, f, bad, rows) && i >= 4 {
			t.Fatalf("nobody noticed that byte %d of %d is damaged", i, len(data))
		}
	}
	for _, n := range []int{0, 4, len(data) / 2, len(data) - 1} {
		if !sameOrError(t, f, data[:n], rows) {
			t.Fatalf("nobody noticed that %d bytes of %d are there", n, len(data))
		}
	}
}

func TestAnotherVersionIsRefused(t *testing.T) {
	rows := manyBlocks(4, 3)
	f, data := write(t, "a", rows)
	f.SchemaVer++
	r := frozen.NewReader(&objects{files: map[string][]byte{"a": data}})
	if _, err := r.Lookup(t.Context(), []catalog.FrozenFile{f}, []catalog.BlockKey{rows[0].BlockKey()}); err == nil || errors.Is(err, frozen.ErrDamaged) {
		t.Fatal(err)
	}
}

// A footer that has the right checksum and says nonsense must not bring the reader down.
func FuzzFooter(f *testing.F) {
	rows := manyBlocks(40, 3)
	row, data := write(f, "a", rows)
	f.Add(data[row.Size-row.TailSize:])
	f.Fuzz(func(t *testing.T, tail []byte) {
		bad := slices.Concat(data[:row.Size-row.TailSize], tail)
		changed := row
		changed.Size, changed.TailSize, changed.TailCRC = int64(len(bad)), int64(len(tail)), frozen.Checksum(tail)
		r := frozen.NewReader(&objects{files: map[string][]byte{"a": bad}})
		_, _ = scan(t.Context(), r, &changed)
		_, _ = r.Lookup(t.Context(), []catalog.FrozenFile{changed}, []catalog.BlockKey{rows[0].BlockKey(), rows[39].BlockKey()})
	})
}

// FuzzDamage changes bytes anywhere.
func FuzzDamage(f *testing.F) {
	rows := manyBlocks(300, 5)
	row, data := write(f, "a", rows)
	f.Add(uint32(100), byte(1), uint32(5000), byte(0))
	f.Add(uint32(5), byte(255), uint32(10), byte(3))
	f.Fuzz(func(t *testing.T, at uint32, with byte, other uint32, what byte) {
		bad := slices.Clone(data)
		bad[int(at)%len(bad)] ^= with
		bad[int(other)%len(bad)] ^= what
		sameOrError(t, row, bad, rows)
	})
}
