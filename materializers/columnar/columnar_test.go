package columnar_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"
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
			case c.Kind == columnar.Text:
				c.Repeat(c.Dict.Intern(strings.Repeat("v", rng.IntN(4))+fmt.Sprint(rng.IntN(1+rng.IntN(300)))), run)
			case c.Kind == columnar.Float:
				for range run {
					c.Floats = append(c.Floats, rng.NormFloat64())
				}
			case table.Columns[i].Type == tables.I32:
				c.RepeatInt(int64(rng.IntN(6)), run)
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

func TestFilesRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"log_entries", "measures", "log_stats"} {
		for _, n := range []int{1, 2, 7, 8, 9, 127, 128, 129, 130, 1000, 20000} {
			rows := randomRows(rng, tables.Must(name), n)
			data := write(t, rows, columnar.Identity(nil, n), 6000)
			if diff := cmp.Diff(text(rows), text(read(t, rows.Table, data))); diff != "" {
				t.Fatalf("%s, %d rows: %s", name, n, diff)
			}
		}
	}
}

// The library's own reader must see the same values, so that others can read what is written.
func TestFilesAreParquet(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"log_entries", "measures", "log_stats"} {
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
			row := 0
			for _, chunk := range table.Column(i).Data().Chunks() {
				for k := range chunk.Len() {
					var want string
					switch c := &rows.Columns[i]; c.Kind {
					case columnar.Text:
						want = rows.Text(i, row)
					case columnar.Int:
						want = fmt.Sprint(c.Ints[row])
						if rows.Table.Columns[i].Type == tables.TS {
							want = ""
						}
					default:
						want = ""
					}
					if got := chunk.ValueStr(k); want != "" && got != want && rows.Table.Columns[i].Type != tables.DBin {
						t.Fatalf("%s.%s row %d: got %s, want %s", name, rows.Table.Columns[i].Name, row, got, want)
					}
					row++
				}
			}
		}
		table.Release()
	}
}

func orders() map[string]columnar.Order {
	logs, measures, stats := tables.Must("log_entries"), tables.Must("measures"), tables.Must("log_stats")
	return map[string]columnar.Order{
		"log_entries": columnar.NewOrder(logs, "process_id", "time"),
		"measures":    columnar.NewOrder(measures, "name", "process_id", "time"),
		"log_stats":   columnar.NewOrder(stats, "time_bin", "process_id", "level", "target"),
	}
}

// keys renders the key columns of a row so that texts compare as rows do.
func keys(name string, rows *columnar.Rows, row int) string {
	columns := map[string][]string{
		"log_entries": {"process_id", "time"}, "measures": {"name", "process_id", "time"},
		"log_stats": {"time_bin", "process_id", "level", "target"},
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
			n := rng.IntN(4000)
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
	table := tables.Must("measures")
	rows := randomRows(rng, table, 300)
	want := text(rows)
	intact := write(t, rows, columnar.Identity(nil, 300), 200)
	found, wrong := 0, 0
	for range 1000 {
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
	t.Logf("%d of 1000 flipped bits found, %d gave other rows", found, wrong)
	if found < 500 || wrong > 0 {
		t.Errorf("%d of 1000 flipped bits found, %d gave other rows", found, wrong)
	}
}

func FuzzOpenFile(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 10))
	table := tables.Must("log_entries")
	f.Add(write(f, randomRows(rng, table, 50), columnar.Identity(nil, 50), 30))
	f.Fuzz(func(t *testing.T, data []byte) {
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
