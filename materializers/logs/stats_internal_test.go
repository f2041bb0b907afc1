package logs

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

func TestMinute(t *testing.T) {
	for _, c := range []struct{ at, want int64 }{
		{0, 0},
		{59_999_999_999, 0},
		{60e9, 60e9},
		{-1, -60e9},
		{-60e9, -60e9},
		{math.MinInt64, math.MinInt64},
		{math.MaxInt64, math.MaxInt64 - math.MaxInt64%60_000_000_000},
	} {
		if got := minute(c.at); got != c.want {
			t.Errorf("minute of %d: got %d, want %d", c.at, got, c.want)
		}
	}
}

// Entries are counted per minute, process, level and target, also at levels that no client sends and at the ends of time.
func TestStatsCountEachEntryOnce(t *testing.T) {
	v := View()
	src := columnar.NewRows(v.Table)
	want := map[string]int64{}
	add := func(process string, at, level int64, target string) {
		for i := range src.Columns {
			switch c := &src.Columns[i]; {
			case i == 0:
				c.Repeat(c.Dict.Intern(process), 1)
			case i == materializers.ColumnTime:
				c.RepeatInt(at, 1)
			case i == columnLevel:
				c.RepeatInt(level, 1)
			case i == materializers.ColumnTarget:
				c.Repeat(c.Dict.Intern(target), 1)
			case c.Kind == columnar.Text:
				c.Repeat(c.Dict.Intern(""), 1)
			default:
				c.RepeatInt(0, 1)
			}
		}
		want[fmt.Sprint(minute(at), process, level, target)]++
	}
	for i := range int64(500) {
		add(fmt.Sprint("p", i%3), i*7e9, i%9-1, fmt.Sprint("t", i%5))
	}
	for _, at := range []int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1} {
		add("p", at, 4, "t")
	}
	sel := columnar.Identity(nil, src.Len())
	columnar.NewSorter(v.Order).Sort(src, sel)
	dst := columnar.NewRows(tables.Must("log_stats"))
	v.Derived[0].Append(dst, src, sel)
	got := map[string]int64{}
	for row := range dst.Len() {
		got[fmt.Sprint(dst.Columns[statsTimeBin].Ints[row], dst.Text(statsProcessID, row), dst.Columns[statsLevel].Ints[row], dst.Text(statsTarget, row))] += dst.Columns[statsCount].Ints[row]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
