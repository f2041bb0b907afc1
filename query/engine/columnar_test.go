package engine_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// builtFile writes n rows of a table as materializers do; value says what is in a column: text, or a number.
func builtFile(t *testing.T, dir string, table *tables.Table, n int, value func(c *tables.Column, row int) any) string {
	t.Helper()
	rows := columnar.NewRows(table)
	for i := range table.Columns {
		c := &rows.Columns[i]
		for row := range n {
			switch v := value(&table.Columns[i], row).(type) {
			case string:
				c.Index = append(c.Index, c.Dict.Intern(v))
			case int:
				c.Ints = append(c.Ints, int64(v))
			case bool:
				c.AppendBool(v)
			}
		}
	}
	w, err := columnar.NewWriter(table)
	if err != nil {
		t.Fatal(err)
	}
	for begin := 0; begin < n; begin += 3000 {
		if err := w.WriteRowGroup(rows, columnar.Identity(nil, n)[begin:min(n, begin+3000)]); err != nil {
			t.Fatal(err)
		}
	}
	data, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, table.Name+".parquet")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// spread is a number of 32 bits for each row, without an order.
func spread(row int) int { return row * 2654435761 & math.MaxUint32 }

func cell(c *tables.Column, row int) any {
	switch c.Type {
	case tables.Str, tables.DStr:
		return fmt.Sprint(c.Name, row%5)
	case tables.DBin:
		return "{}"
	case tables.Bin:
		return strings.Repeat("\xff\x00", row%7) + fmt.Sprint(row)
	case tables.Bool:
		return row%3 == 0
	case tables.U32:
		if c.Name == "hash" {
			return spread(row)
		}
		return math.MaxUint32 - row%4
	}
	return row
}

// jsonCell is how a row of a result shows a value.
func jsonCell(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(base64.StdEncoding.EncodeToString([]byte(v)))
	default:
		return fmt.Sprint(v)
	}
}

// The engine must give the columns of built files the types that their tables say, and their values, also where it leaves out row
// groups by their bounds.
func TestEngineReadsBuiltFiles(t *testing.T) {
	const n = 10_000
	dir := t.TempDir()
	c := conn(t, open(t, func(cfg *engine.Config) { cfg.AllowedDirs = []string{dir} }))
	for _, name := range []string{"images", "async_events", "net_spans", "thread_spans"} {
		table := tables.Must(name)
		file := builtFile(t, dir, table, n, cell)
		var want, names []string
		for i := range table.Columns {
			col := &table.Columns[i]
			want = append(want, fmt.Sprintf(`{"column_name":%q,"column_type":%q}`, col.Name, col.DuckDBType()))
			if col.Type == tables.U32 || col.Type == tables.Bool || col.Type == tables.Bin {
				names = append(names, col.Name)
			}
		}
		f := func(want []string, format string, args ...any) {
			t.Helper()
			got, err := rows(t, c, fmt.Sprintf(format, args...), engine.QueryOptions{})
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v\n%s", name, err, diff)
			}
		}
		f(want, "SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet('%s'))", file)
		want = want[:0]
		for row := range n {
			var fields []string
			for _, column := range names {
				col, _ := table.Column(column)
				fields = append(fields, fmt.Sprintf("%q:%s", column, jsonCell(cell(col, row))))
			}
			want = append(want, "{"+strings.Join(fields, ",")+"}")
		}
		f(want, "SELECT %s FROM read_parquet('%s')", strings.Join(names, ","), file)
		for _, column := range names {
			col, _ := table.Column(column)
			for _, row := range []int{0, 4567, n - 1} {
				literal := fmt.Sprint(cell(col, row))
				if col.Type == tables.Bin {
					literal = fmt.Sprintf("from_hex('%x')", literal)
				}
				count := 0
				for other := range n {
					if cell(col, other) == cell(col, row) {
						count++
					}
				}
				f([]string{fmt.Sprintf(`{"c":%d}`, count)}, "SELECT count(*) AS c FROM read_parquet('%s') WHERE %s = %s", file, column, literal)
			}
		}
	}
}
