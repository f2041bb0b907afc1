package columnar_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// randomRows returns n rows of a table with values that repeat in runs, repeat without order, and do not repeat.
func randomRows(rng *rand.Rand, table *tables.Table, n int) *columnar.Rows {
	rows := columnar.NewRows(table)
	ids := make([]string, 5)
	for i := range ids {
		ids[i] = telemetry.ID{byte(i), byte(rng.IntN(256))}.String()
	}
	for i := range table.Columns {
		c := &rows.Columns[i]
		for left := n; left > 0; {
			run := min(left, 1+rng.IntN(1+rng.IntN(40)))
			left -= run
			switch {
			case table.Columns[i].Name == "process_id":
				c.Repeat(c.Dict.Intern(ids[rng.IntN(len(ids))]), run)
			case table.Columns[i].Name == "msg":
				for range run {
					c.Index = append(c.Index, c.Dict.Append(fmt.Sprint("message ", rng.IntN(1+rng.IntN(100000)))))
				}
			case table.Columns[i].Type == tables.Bin:
				for range run {
					c.Index = append(c.Index, c.Dict.Append(strings.Repeat("\xff\x00", rng.IntN(1+rng.IntN(50)))))
				}
			case c.Kind == columnar.Text:
				c.Repeat(c.Dict.Intern(strings.Repeat("v", rng.IntN(4))+fmt.Sprint(rng.IntN(1+rng.IntN(300)))), run)
			case c.Kind == columnar.Float:
				for range run {
					c.Floats = append(c.Floats, rng.NormFloat64())
				}
			case table.Columns[i].Type == tables.I32:
				c.RepeatInt(int64(rng.IntN(6)), run)
			case table.Columns[i].Type == tables.Bool:
				c.RepeatInt(int64(rng.IntN(2)), run)
			case table.Columns[i].Name == "hash": // any 32 bits, so that differences need 33
				for range run {
					c.Ints = append(c.Ints, int64(rng.Uint32()))
				}
			case table.Columns[i].Type == tables.U32:
				c.RepeatInt(math.MaxUint32-int64(rng.IntN(6)), run)
			default:
				for range run {
					c.Ints = append(c.Ints, int64(rng.Uint64()>>(1+rng.IntN(60))))
				}
			}
		}
	}
	return rows
}

// text renders all rows, a line each.
func text(rows *columnar.Rows) []string {
	lines := make([]string, rows.Len())
	for row := range lines {
		var b strings.Builder
		for i := range rows.Columns {
			switch c := &rows.Columns[i]; c.Kind {
			case columnar.Text:
				fmt.Fprintf(&b, "%q ", rows.Text(i, row))
			case columnar.Int:
				fmt.Fprintf(&b, "%020d ", c.Ints[row])
			default:
				fmt.Fprintf(&b, "%x ", math.Float64bits(c.Floats[row]))
			}
		}
		lines[row] = b.String()
	}
	return lines
}

func write(t testing.TB, rows *columnar.Rows, sel []int32, group int) []byte {
	t.Helper()
	w, err := columnar.NewWriter(rows.Table)
	if err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(sel, group) {
		if err := w.WriteRowGroup(rows, part); err != nil {
			t.Fatal(err)
		}
	}
	data, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func read(t testing.TB, table *tables.Table, data []byte) *columnar.Rows {
	t.Helper()
	f, err := columnar.OpenFile(table, data)
	if err != nil {
		t.Fatal(err)
	}
	rows := columnar.NewRows(table)
	for g := range f.RowGroups() {
		if err := f.ReadRowGroup(g, rows); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// names are tables with columns of all types that files have.
var names = []string{"log_entries", "measures", "log_stats", "images", "async_events", "net_spans", "thread_spans"}

func TestFilesRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range names {
		for _, n := range []int{1, 2, 7, 8, 9, 127, 128, 129, 130, 7000} {
			rows := randomRows(rng, tables.Must(name), n)
			data := write(t, rows, columnar.Identity(nil, n), 5000)
			if diff := cmp.Diff(text(rows), text(read(t, rows.Table, data))); diff != "" {
				t.Fatalf("%s, %d rows: %s", name, n, diff)
			}
		}
	}
}

// The library's own reader must see the same values, so that others can read what is written.
func TestFilesAreParquet(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, name := range names {
		rows := randomRows(rng, tables.Must(name), 5000)
		data := write(t, rows, columnar.Identity(nil, 5000), 3000)
		r, err := file.NewParquetReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		fr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		table, err := fr.ReadTable(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows.Columns {
			typ := rows.Table.Columns[i].Type
			if got, want := table.Column(i).DataType(), typ.FileType(); slices.Contains(exact, typ) && got.String() != want.String() {
				t.Errorf("%s.%s: got %s, want %s", name, rows.Table.Columns[i].Name, got, want)
			}
			row := 0
			for _, chunk := range table.Column(i).Data().Chunks() {
				for k := range chunk.Len() {
					var want string
					switch c := &rows.Columns[i]; c.Kind {
					case columnar.Text:
						want = rows.Text(i, row)
					case columnar.Int:
						want = fmt.Sprint(c.Ints[row])
						switch typ {
						case tables.TS:
							want = ""
						case tables.Bool:
							want = fmt.Sprint(c.Ints[row] == 1)
						}
					default:
						want = ""
					}
					if typ == tables.Bin {
						want = base64.StdEncoding.EncodeToString([]byte(want))
					}
					if got := chunk.ValueStr(k); want != "" && got != want && typ != tables.DBin {
						t.Fatalf("%s.%s row %d: got %s, want %s", name, rows.Table.Columns[i].Name, row, got, want)
					}
					row++
				}
			}
		}
		table.Release()
	}
}

// exact are the types that the library reads as what they are declared, without dictionaries and extensions.
var exact = []tables.Type{tables.TS, tables.I32, tables.I64, tables.U32, tables.F64, tables.Bool, tables.Bin}

func orders() map[string]columnar.Order {
	logs, measures, stats := tables.Must("log_entries"), tables.Must("measures"), tables.Must("log_stats")
	images, nets := tables.Must("images"), tables.Must("net_spans")
	return map[string]columnar.Order{
		"log_entries": columnar.NewOrder(logs, "process_id", "time"),
		"measures":    columnar.NewOrder(measures, "name", "process_id", "time"),
		"log_stats":   columnar.NewOrder(stats, "time_bin", "process_id", "level", "target"),
		"images":      columnar.NewOrder(images, "time"),
		"net_spans":   columnar.NewOrder(nets, "is_outgoing", "depth", "begin_time"),
	}
}

// keys renders the key columns of a row so that texts compare as rows do.
func keys(name string, rows *columnar.Rows, row int) string {
	columns := map[string][]string{
		"log_entries": {"process_id", "time"}, "measures": {"name", "process_id", "time"},
		"log_stats": {"time_bin", "process_id", "level", "target"}, "images": {"time"}, "net_spans": {"is_outgoing", "depth", "begin_time"},
	}[name]
	var b strings.Builder
	for _, column := range columns {
		i := rows.Table.Index(column)
		if rows.Columns[i].Kind == columnar.Text {
			b.WriteString(rows.Text(i, row) + "\x00")
		} else {
			fmt.Fprintf(&b, "%020d", rows.Columns[i].Ints[row])
		}
	}
	return b.String()
}

func TestSort(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for name, order := range orders() {
		rows := randomRows(rng, tables.Must(name), 3000)
		sel := columnar.Identity(nil, 3000)[500:2500]
		want := slices.Clone(sel)
		slices.SortStableFunc(want, func(a, b int32) int {
			return strings.Compare(keys(name, rows, int(a)), keys(name, rows, int(b)))
		})
		columnar.NewSorter(order).Sort(rows, sel)
		if diff := cmp.Diff(want, sel); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestMergeEqualsUnmerged(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for name, order := range orders() {
		table := tables.Must(name)
		var want []string
		var files []*columnar.File
		for range 6 {
			n := rng.IntN(2000)
			rows := randomRows(rng, table, n)
			sel := columnar.Identity(nil, n)
			columnar.NewSorter(order).Sort(rows, sel)
			want = append(want, text(rows)...)
			f, err := columnar.OpenFile(table, write(t, rows, sel, 700))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		w, err := columnar.NewWriter(table)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		var total int64
		last := ""
		err = columnar.Merge(order, files, w, columnar.Limits{RowGroupRows: 1000, RowGroupBytes: 1 << 20, FileBytes: 20000}, func(data []byte, s columnar.Summary) error {
			rows := read(t, table, data)
			if int64(rows.Len()) != s.Rows {
				t.Errorf("%s: summary of %d rows, file of %d", name, s.Rows, rows.Len())
			}
			total += s.Rows
			for i := range rows.Len() {
				key := keys(name, rows, i)
				if key < last {
					t.Fatalf("%s: row %q after %q", name, key, last)
				}
				last = key
			}
			got = append(got, text(rows)...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestMergeAddsUpEqualKeys(t *testing.T) {
	table := tables.Must("log_stats")
	order := columnar.NewOrder(table, "time_bin", "process_id", "level", "target").Summing(table, "count")
	var files []*columnar.File
	for range 3 {
		rows := columnar.NewRows(table)
		for bin := range int64(2) {
			rows.Columns[0].RepeatInt(bin, 1)
			rows.Columns[1].Repeat(rows.Columns[1].Dict.Intern("p"), 1)
			rows.Columns[2].RepeatInt(4, 1)
			rows.Columns[3].Repeat(rows.Columns[3].Dict.Intern("t"), 1)
			rows.Columns[4].RepeatInt(10+bin, 1)
		}
		f, err := columnar.OpenFile(table, write(t, rows, []int32{0, 1}, 10))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	w, _ := columnar.NewWriter(table)
	var got []int64
	err := columnar.Merge(order, files, w, columnar.Limits{RowGroupRows: 10, RowGroupBytes: 1 << 20, FileBytes: 1 << 20}, func(data []byte, _ columnar.Summary) error {
		got = append(got, read(t, table, data).Columns[4].Ints...)
		return nil
	})
	if diff := cmp.Diff([]int64{30, 33}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// Damage anywhere in a file gives an error or, in what is not read, nothing; never a panic, and never other values.
func TestDamageIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, name := range []string{"measures", "net_spans", "images"} {
		damage(t, rng, tables.Must(name))
	}
}

func damage(t *testing.T, rng *rand.Rand, table *tables.Table) {
	t.Helper()
	rows := randomRows(rng, table, 300)
	want := text(rows)
	intact := write(t, rows, columnar.Identity(nil, 300), 200)
	found, wrong := 0, 0
	for range 500 {
		data := bytes.Clone(intact)
		data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		f, err := columnar.OpenFile(table, data)
		if err != nil {
			found++
			continue
		}
		got := columnar.NewRows(table)
		for g := 0; g < f.RowGroups() && err == nil; g++ {
			err = f.ReadRowGroup(g, got)
		}
		switch {
		case err != nil:
			found++
		case !slices.Equal(text(got), want):
			wrong++
		}
	}
	t.Logf("%s: %d of 500 flipped bits found, %d gave other rows", table.Name, found, wrong)
	if found < 250 || wrong > 0 {
		t.Errorf("%d of 500 flipped bits found, %d gave other rows", found, wrong)
	}
}

// oneColumn opens a file with the library and returns what its footer says of a column.
func oneColumn(t *testing.T, data []byte, column int) *metadata.ColumnChunkMetaData {
	t.Helper()
	r, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.MetaData().RowGroup(0).ColumnChunk(column)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLargeValuesAreNoDictionary(t *testing.T) {
	table := tables.Must("images")
	data := table.Index("data")
	for _, c := range []struct {
		size, images int // of each image, different ones
		dictionary   bool
	}{
		{10, 3, true}, {10, 20, false}, {700_000, 3, true}, {700_000, 6, false},
	} {
		rows := randomRows(rand.New(rand.NewPCG(13, 14)), table, 20)
		values := &rows.Columns[data]
		values.Index = values.Index[:0]
		for i := range 20 {
			values.Index = append(values.Index, values.Dict.Intern(strings.Repeat("x", c.size)+fmt.Sprint(i%c.images)))
		}
		written := write(t, rows, columnar.Identity(nil, 20), 100)
		if got := oneColumn(t, written, data).HasDictionaryPage(); got != c.dictionary {
			t.Errorf("%d images of %d bytes: dictionary is %v", c.images, c.size, got)
		}
		back := read(t, table, written)
		for row := range 20 {
			if back.Text(data, row) != rows.Text(data, row) {
				t.Errorf("image %d of %d bytes comes back as another", row, c.size)
			}
		}
	}
}

func TestBoundsOfUnsignedNumbersAndBooleans(t *testing.T) {
	table := tables.Must("net_spans")
	rows := randomRows(rand.New(rand.NewPCG(15, 16)), table, 4)
	depth, outgoing := table.Index("depth"), table.Index("is_outgoing")
	rows.Columns[depth].Ints = []int64{1 << 31, 7, math.MaxUint32, 1<<31 - 1}
	rows.Columns[outgoing].Ints = nil
	for i := range 4 {
		rows.Columns[outgoing].AppendBool(i > 0)
	}
	data := write(t, rows, columnar.Identity(nil, 4), 10)
	f := func(column int, least, greatest string) {
		t.Helper()
		s, err := oneColumn(t, data, column).Statistics()
		if err != nil || string(s.EncodeMin()) != least || string(s.EncodeMax()) != greatest {
			t.Errorf("%s: %v, %v", table.Columns[column].Name, s, err)
		}
	}
	f(depth, "\x07\x00\x00\x00", "\xff\xff\xff\xff")
	f(outgoing, "\x00", "\x01")
}

func TestSummaryOfSpans(t *testing.T) {
	table := tables.Must("thread_spans")
	rows := randomRows(rand.New(rand.NewPCG(17, 18)), table, 3)
	rows.Columns[table.Index("begin")].Ints = []int64{5, 3, 9}
	rows.Columns[table.Index("end")].Ints = []int64{50, 80, 9}
	var s columnar.Summary
	s.Add(rows, []int32{0, 2})
	s.Add(rows, []int32{1})
	if diff := cmp.Diff(columnar.Summary{Rows: 3, MinTime: 3, MaxTime: 80}, s); diff != "" {
		t.Error(diff)
	}
}

func FuzzOpenFile(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, name := range names {
		f.Add(name, write(f, randomRows(rng, tables.Must(name), 50), columnar.Identity(nil, 50), 30))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if !slices.Contains(names, name) {
			return
		}
		table := tables.Must(name)
		file, err := columnar.OpenFile(table, data)
		if err != nil {
			return
		}
		rows := columnar.NewRows(table)
		for g := range min(file.RowGroups(), 4) {
			before := rows.Len()
			if err := file.ReadRowGroup(g, rows); err != nil && rows.Len() != before {
				t.Fatal("rows of a damaged row group stay")
			}
		}
	})
}
