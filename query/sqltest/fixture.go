package sqltest

import (
	_ "embed"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

//go:embed testdata/dialect/fixture.sql
var fixture string

// LoadFixture makes the relations in an engine that the published statements are written for: a few rows of every view
// set, two hours old at most, and the tables that only examples use. The view set "x" of one row is the one that file 20
// reads.
func LoadFixture(t testing.TB, e *engine.Engine) {
	t.Helper()
	var scripts []string
	for part := range strings.SplitSeq(fixture, ";\n") {
		if strings.Contains(part, "MACRO view_instance") || strings.TrimSpace(part) == "" {
			continue // the engine has its own
		}
		scripts = append(scripts, part)
	}
	Exec(t, e, append(scripts,
		`CREATE VIEW "vi/log_entries/global" AS FROM log_entries`,
		"CREATE OR REPLACE TABLE x AS SELECT make_timestamp_ns(1710591130123456789) AS t, 'key' AS k")...)
}

// FixtureNames is what statements may name on the fixture: the view sets, and the tables that only examples use. It
// implements dialect.Catalog.
type FixtureNames struct{}

var examples = []string{
	"performance_histograms", "performance_metrics", "performance_data", "cpu_usage_per_process_per_minute", "events",
	"my_events", "density_grid", "heatmap", "scaled", "cells", "raw_metrics", "thresholds", "frame_metrics", "process_info",
	"cpu_chart.user", "cpu_chart.system", "x",
}

// Table implements dialect.Catalog.
func (FixtureNames) Table(name string) (*tables.Table, bool) {
	if t, ok := tables.Lookup(name); ok {
		return t, true
	}
	if slices.Contains(examples, name) {
		return &tables.Table{Name: name, Global: true}, true
	}
	return nil, false
}

// Names implements dialect.Catalog.
func (FixtureNames) Names() []string {
	names := slices.Clone(examples)
	for _, t := range tables.All() {
		names = append(names, t.Name)
	}
	return names
}

// FixtureFunction returns the query that gives what a table function returns on the fixture, whatever its arguments.
func FixtureFunction(name string) string {
	switch name {
	case "process_spans":
		return "SELECT '' AS stream_id, 'main-7' AS thread_name, * FROM fx_thread_spans"
	case "perfetto_trace_chunks":
		return "SELECT CAST(0 AS INTEGER) AS chunk_id, unhex('0a00') AS chunk_data"
	case "list_query_denials":
		return "FROM fx_query_denials"
	case "deny_queries", "retire_partitions", "materialize_partitions", "regenerate_partitions":
		return "FROM fx_task_log"
	}
	return "FROM fx_" + name
}
