package tables_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

func TestAllIsInTheOrderOfListViewSets(t *testing.T) {
	var got []string
	numbers := map[int]bool{}
	for _, table := range tables.All() {
		got = append(got, table.Name)
		if table.No == 0 || numbers[table.No] {
			t.Errorf("%s: number %d is zero or taken", table.Name, table.No)
		}
		numbers[table.No] = true
	}
	want := strings.Fields("log_entries measures processes streams blocks log_stats images async_events net_spans thread_spans otel_spans")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryTableIsConsistent(t *testing.T) {
	for _, table := range append(tables.All(), tables.Functions()...) {
		seen := map[string]bool{}
		for i := range table.Columns {
			c := &table.Columns[i]
			if seen[c.Name] || c.Name == "" || c.Doc == "" {
				t.Errorf("%s.%s: column repeated, nameless or without doc", table.Name, c.Name)
			}
			seen[c.Name] = true
			if c.DuckDBType() == "" || c.ArrowTypeName() == "" || c.Type.FileType() == nil {
				t.Errorf("%s.%s: a form of its type is missing", table.Name, c.Name)
			}
		}
		if table.No == 0 {
			continue
		}
		if !seen[table.Range.Begin] || !seen[table.Range.End] {
			t.Errorf("%s: range rule names no columns: %+v", table.Name, table.Range)
		}
		if n := len(table.SchemaHash); n != 1 && n != 8 {
			t.Errorf("%s: schema hash of %d bytes", table.Name, n)
		}
		for _, name := range table.SortOrder {
			if !seen[name] {
				t.Errorf("%s: sorted by %s, which is no column", table.Name, name)
			}
		}
	}
}

func TestColumnCounts(t *testing.T) {
	got := map[string]int{}
	for _, table := range append(tables.All(), tables.Functions()...) {
		got[table.Name] = len(table.Columns)
	}
	want := map[string]int{
		"log_entries": 13, "measures": 14, "processes": 16, "streams": 9, "blocks": 29, "log_stats": 5, "images": 12,
		"async_events": 12, "net_spans": 14, "thread_spans": 11, "otel_spans": 21,
		"list_view_sets": 5, "list_partitions": 15, "retire_partitions": 2, "materialize_partitions": 2, "regenerate_partitions": 2,
		"perfetto_trace_chunks": 2, "perfetto_trace": 2, "process_spans": 13, "parse_block": 3,
		"span_streams": 10, "instance_cost": 8, "spans_around": 13, "call_tree": 13, "call_names": 6, "trace_spans": 15, "list_query_denials": 6, "deny_queries": 2,
		"expand_histogram": 2, "jsonb_each": 2, "jsonb_array_elements": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestForms(t *testing.T) {
	table := tables.Must("log_entries")
	f := func(schema *arrow.Schema, column, want string) {
		t.Helper()
		field := schema.Field(table.Index(column))
		if got := field.Type.String(); got != want {
			t.Errorf("%s: got %s, want %s", column, got, want)
		}
	}
	f(table.ArrowSchema(true), "time", "timestamp[ns, tz=+00:00]")
	f(table.ArrowSchema(true), "target", "dictionary<values=utf8, indices=int32, ordered=false>")
	f(table.ArrowSchema(true), "properties", "dictionary<values=binary, indices=int32, ordered=false>")
	f(table.ArrowSchema(false), "target", "utf8")
	f(table.ArrowSchema(false), "properties", "binary")
	f(table.FileSchema(), "time", "timestamp[ns]")
	f(table.FileSchema(), "properties", "extension<arrow.json[storage_type=utf8]>")
	c, _ := table.Column("time")
	if got, want := c.ArrowTypeName(), `Timestamp(ns, "+00:00")`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRangeRuleKeepsTheBinThatOverlaps(t *testing.T) {
	f := func(table string, begin, want int64) {
		t.Helper()
		if got := tables.Must(table).Range.FirstEnd(begin); got != want {
			t.Errorf("%s from %d: got %d, want %d", table, begin, got, want)
		}
	}
	f("log_entries", 1000, 1000)
	f("log_stats", int64(tables.LogStatsBin)+1, 2)
	f("log_stats", int64(tables.LogStatsBin), 1)
	f("log_stats", math.MinInt64, math.MinInt64)
}

func TestLookup(t *testing.T) {
	if _, ok := tables.Lookup("nope"); ok {
		t.Error("an unknown view set was found")
	}
	if table, ok := tables.Function("list_partitions"); !ok || table.Columns[13].ArrowTypeName() != "List(non-null Utf8, field: 'tag')" {
		t.Error("list_partitions is missing or its sort_order has another type")
	}
}

func TestFleetHasTheOwnersBeforeTheSpans(t *testing.T) {
	for _, table := range tables.All() {
		if (table.Fleet != nil) != (table.Name == "thread_spans") {
			t.Errorf("%s: fleet %v", table.Name, table.Fleet)
		}
	}
	spans := tables.Must("thread_spans")
	want := append(strings.Fields("process_id exe username computer process_properties stream_id thread_name"), spans.ColumnNames()...)
	if got := spans.Fleet.ColumnNames(); !slices.Equal(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	for i, c := range tables.OwnerColumns() {
		want := tables.DStr
		if c.Name == "process_properties" {
			want = tables.DBin
		}
		if got := spans.Fleet.Columns[i]; got != c || c.Type != want || c.Nullable {
			t.Errorf("%+v, want %+v of type %s", got, c, want)
		}
	}
}
