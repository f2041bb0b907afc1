package dialect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/sqltest"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// views is a catalog of the view sets and any other tables that it lists.
type views []string

// viewSets are made once: every statement asks for some.
var viewSets = sync.OnceValue(func() map[string]*tables.Table {
	sets := map[string]*tables.Table{}
	for _, t := range tables.All() {
		sets[t.Name] = t
	}
	return sets
})

func (v views) Table(name string) (*tables.Table, bool) {
	if t, ok := viewSets()[name]; ok {
		return t, true
	}
	if slices.Contains(v, name) {
		return &tables.Table{Name: name, Global: true}, true
	}
	return nil, false
}

func (v views) Names() []string {
	names := slices.Clone(v)
	for _, t := range tables.All() {
		names = append(names, t.Name)
	}
	return names
}

func TestRules(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(rule, sql, want string) {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{"t"}, sql, dialect.Options{Eval: e.Eval})
		if err != nil {
			t.Errorf("%s: %s: %v", rule, sql, err)
		} else if st.SQL != want {
			t.Errorf("%s: %s\n got %s\nwant %s", rule, sql, st.SQL, want)
		}
	}
	f("A1", "SELECT arrow_cast(a, 'Utf8') AS v FROM t", `SELECT mm_cast_str(a) AS v FROM t`)
	f("A1", "SELECT arrow_cast(a, 'Int64') AS v FROM t", `SELECT mm_cast_i64(a) AS v FROM t`)
	f("A1", "SELECT arrow_cast(a, 'Timestamp(Nanosecond, None)') AS v FROM t", `SELECT CAST(a AS TIMESTAMP_NS) AS v FROM t`)
	f("A2", "SELECT CAST(a AS BIGINT) AS v FROM t", `SELECT mm_cast_i64(a) AS v FROM t`)
	f("A2", "SELECT CAST(a - b AS BIGINT) AS v FROM t", `SELECT mm_diff_i64(a, b) AS v FROM t`)
	f("A2", "SELECT CAST(a AS INT) AS v FROM t", `SELECT CAST(mm_cast_i64(a) AS INTEGER) AS v FROM t`)
	f("A2", "SELECT TRY_CAST(a AS BIGINT) AS v FROM t", `SELECT TRY_CAST(a AS BIGINT) AS v FROM t`)
	f("A2", "SELECT CAST(a = 1 AS INT) AS v FROM t", `SELECT CAST((a = 1) AS INTEGER) AS v FROM t`)
	f("A3", "SELECT CAST(a AS VARCHAR) AS v FROM t", `SELECT mm_cast_str(a) AS v FROM t`)
	f("A4", "SELECT a * 1.5 AS v FROM t", `SELECT (a * CAST(1.5 AS DOUBLE)) AS v FROM t`)
	f("A5", "SELECT a FROM t WHERE b > now() - INTERVAL '1 hour'", `SELECT a FROM t WHERE (b > mm_ts_sub(now(), CAST('1 hour' AS INTERVAL)))`)
	f("A5", "SELECT a + INTERVAL 2 DAY AS v FROM t", `SELECT mm_ts_add(a, to_days(CAST(trunc(CAST(2 AS DOUBLE)) AS INTEGER))) AS v FROM t`)
	f("A5", "SELECT now() - INTERVAL '1 day' + INTERVAL '1 hour' AS v", `SELECT mm_ts_sub(now(), (CAST('1 day' AS INTERVAL) - CAST('1 hour' AS INTERVAL))) AS v`)
	f("A5", "SELECT now() - INTERVAL '1 month' - INTERVAL '1 day' AS v", `SELECT mm_ts_sub(mm_ts_sub(now(), CAST('1 month' AS INTERVAL)), CAST('1 day' AS INTERVAL)) AS v`)
	f("A5", "SELECT INTERVAL '1 hour' + INTERVAL '2 hours' AS v", `SELECT (CAST('1 hour' AS INTERVAL) + CAST('2 hours' AS INTERVAL)) AS v`)
	f("A6", "SELECT first_value(a ORDER BY b) FILTER (WHERE c) AS v FROM t", `SELECT "first"(a ORDER BY b) FILTER (WHERE c) AS v FROM t`)
	f("A7", "SELECT approx_percentile_cont(a, 0.9) AS v FROM t", `SELECT approx_quantile(CAST(a AS DOUBLE), CAST(0.9 AS FLOAT)) AS v FROM t`)
	f("A7", "SELECT approx_median(a) OVER (PARTITION BY b) AS v FROM t", `SELECT approx_quantile(CAST(a AS DOUBLE), CAST('0.5' AS FLOAT)) OVER (PARTITION BY b) AS v FROM t`)
	f("A8", "SELECT approx_distinct(a) AS v, covar(a, b) AS w FROM t", `SELECT approx_count_distinct(a) AS v, covar_samp(a, b) AS w FROM t`)
	f("histogram", "SELECT make_histogram(0, -1.5, 10, a) AS v, make_histogram(b, 1, 10, a) AS w FROM t", `SELECT mm_make_histogram(0, CAST(-1.5 AS DOUBLE), 10, a) AS v, make_histogram(b, 1, 10, a) AS w FROM t`)
	f("A9", "SELECT named_struct('x', 1) AS v", `SELECT struct_pack(x := 1) AS v`)
	f("A10", `SELECT a FROM t WHERE b LIKE 'x\_' AND b NOT ILIKE c AND b LIKE 'y%'`, `SELECT a FROM t WHERE (like_escape(b, 'x\_', '\') AND not_ilike_escape(b, c, '\') AND (b ~~ 'y%'))`)
	f("A11", "SELECT a ^ b AS v FROM t", `SELECT xor(a, b) AS v FROM t`)
	f("A12", "SELECT regexp_replace(a, '(b)', '<$1>') AS v FROM t", `SELECT regexp_replace(a, '(b)', '<\1>') AS v FROM t`)
	f("A13", "SELECT current_timestamp", `SELECT now()`)
	f("A14", "SELECT value FROM range(2)", `SELECT "value" FROM "range"(2) AS "range"("value")`)
	f("A16", "SELECT count(*), max(a) FROM t", `SELECT count_star() AS "count(*)", max(a) AS "max(t.a)" FROM t`)
	f("A17", "SELECT 1", `SELECT CAST(1 AS BIGINT) AS "Int64(1)"`)
	f("casts of casts", "SELECT CAST(1.239 AS DECIMAL(10, 2)) AS v", `SELECT CAST(1.239 AS DECIMAL(10,2)) AS v`)
	f("lambda", "SELECT list_transform([1], (v, i) -> v + i) AS v", `SELECT list_transform(main.list_value(1), (main."row"(v, i) -> (v + i))) AS v`)
	f("UTC", "SELECT a AT TIME ZONE 'UTC' AS v FROM t", `SELECT a AS v FROM t`)
	f("instance", "SELECT x.a FROM view_instance('log_entries', 'glo' || 'bal') x", `SELECT x.a FROM "vi/log_entries/global" AS x`)
	f("doubles", "SELECT 3.6e12 AS v, 1e400 AS w", `SELECT CAST('3600000000000.0' AS DOUBLE) AS v, CAST('Infinity' AS DOUBLE) AS w`)
}

func TestStatementTellsWhatItNeeds(t *testing.T) {
	e := sqltest.OpenEngine(t)
	const id = "11111111-2222-3333-4444-555555555555"
	sql := `WITH a AS (SELECT * FROM log_entries), measures AS (SELECT * FROM streams)
		SELECT (SELECT max(time) FROM view_instance('log_entries', '11111111-2222-3333-4444-55555555555' || 5)), get_payload(p.process_id, 'x', 'y')
		FROM a JOIN processes p USING (process_id), measures m, log_entries l, list_partitions(), list_partitions() lp, process_spans('{11111111-2222-3333-4444-555555555555}', 'both')
		WHERE EXISTS (SELECT 1 FROM parse_block('11111111222233334444555555555555')) AND l.level IN (SELECT level FROM view_instance('log_entries', 'global'))
			AND EXISTS (FROM perfetto_trace_chunks('11111111-2222-3333-4444-555555555555', 'thread', TIMESTAMP '2024-01-01', '2024-01-01T01:00:00.5+01:00'))
			AND EXISTS (FROM information_schema.columns)`
	st, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{Eval: e.Eval})
	if err != nil {
		t.Fatal(err)
	}
	var tableNames, instances []string
	for _, ref := range st.Tables {
		tableNames = append(tableNames, ref.Name)
	}
	for _, ref := range st.Instances {
		instances = append(instances, ref.ViewName)
	}
	if diff := cmp.Diff([]string{"log_entries", "streams", "processes"}, tableNames); diff != "" {
		t.Errorf("tables (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"vi/log_entries/" + id, "vi/log_entries/global"}, slices.Sorted(slices.Values(instances))); diff != "" {
		t.Errorf("instances (-want +got)\n%s", diff)
	}
	wantFunctions := []dialect.FunctionRef{
		{Name: "list_partitions", Args: []any{}, ViewName: "fn/1"},
		{Name: "process_spans", Args: []any{id, "both"}, ViewName: "fn/2"},
		{Name: "parse_block", Args: []any{id}, ViewName: "fn/3"},
		{Name: "perfetto_trace_chunks", Args: []any{id, "thread", int64(1704067200000000000), int64(1704067200500000000)}, ViewName: "fn/4"},
	}
	byName := func(a, b dialect.FunctionRef) int { return strings.Compare(a.Name, b.Name) }
	gotFunctions := slices.SortedFunc(slices.Values(st.Functions), byName)
	slices.SortFunc(wantFunctions, byName)
	for i := range gotFunctions {
		gotFunctions[i].ViewName = ""
	}
	for i := range wantFunctions {
		wantFunctions[i].ViewName = ""
	}
	if diff := cmp.Diff(wantFunctions, gotFunctions); diff != "" {
		t.Errorf("functions (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"get_payload"}, st.Calls); diff != "" {
		t.Errorf("calls (-want +got)\n%s", diff)
	}
	if !slices.Equal(st.Internals, []dialect.Internal{dialect.InternalColumns}) || !st.Volatile {
		t.Errorf("internals %v, volatile %v", st.Internals, st.Volatile)
	}
}

func TestKinds(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(sql string, kind dialect.Kind, want string) {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		} else if st.Kind != kind || st.SQL != want {
			t.Errorf("%s: got kind %d, %s", sql, st.Kind, st.SQL)
		}
	}
	f("SELECT level FROM log_entries", dialect.Select, `SELECT "level" FROM log_entries`)
	f("explain SELECT level FROM log_entries", dialect.Explain, `SELECT "level" FROM log_entries`)
	f("EXPLAIN ANALYZE VERBOSE SELECT level FROM log_entries", dialect.ExplainAnalyze, `SELECT "level" FROM log_entries`)
	f("EXPLAIN (ANALYZE, FORMAT json) SELECT level FROM log_entries", dialect.ExplainAnalyze, `SELECT "level" FROM log_entries`)
	f("EXPLAIN FORMAT tree (SELECT level FROM log_entries)", dialect.Explain, `SELECT "level" FROM log_entries`)
	f("EXPLAIN (SELECT level FROM log_entries)", dialect.Explain, `SELECT "level" FROM log_entries`)
	f("DESCRIBE SELECT level FROM log_entries", dialect.Describe, `SELECT "level" FROM log_entries`)
	f("FROM log_entries SELECT level;", dialect.Select, `SELECT "level" FROM log_entries`)
	f("TABLE log_entries", dialect.Select, "SELECT * FROM log_entries")
}

func TestColumnsAreKnownBeforeTheEngineIsAsked(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(sql, want string) {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{"static"}, sql, dialect.Options{})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		var got []string
		for _, c := range st.Columns {
			s := c.Name
			if c.Type != 0 {
				s += " " + c.Type.String()
			}
			for flag, set := range map[string]bool{"!": c.NotNull, " duration": c.Duration, " minus": c.Minus, " decimal": c.Decimal} {
				if set {
					s += flag
				}
			}
			got = append(got, s)
		}
		if g := strings.Join(got, ", "); g != want {
			t.Errorf("%s\n got %s\nwant %s", sql, g, want)
		}
	}
	f("SELECT exe, level, time, 1, count(*) FROM log_entries", "exe dstr!, level i32!, time ts!, Int64(1)!, count(*)!")
	f("SELECT * FROM log_stats", "time_bin ts, process_id dstr!, level i32!, target dstr!, count i64")
	f("SELECT l.exe AS e FROM (SELECT exe FROM log_entries) l", "e dstr!")
	f("WITH a(x) AS (SELECT exe FROM log_entries) SELECT x, a.x FROM a", "x dstr!, x dstr!")
	f("SELECT p.exe, l.msg FROM log_entries l LEFT JOIN processes p ON p.process_id = l.process_id", "exe str, msg str")
	f("SELECT * FROM log_entries JOIN processes USING (process_id)", "")
	f("SELECT * EXCLUDE (a) FROM static", "")
	f("SELECT max(time) - min(time) AS d, property_get(properties, 'a') AS p, CAST(level AS DECIMAL(4, 1)) AS q FROM log_entries", "d duration, p dstr, q decimal")
	f("SELECT a - b AS d FROM (SELECT 1 AS a, 2 AS b) q", "d minus")
	f("SELECT d, 1 AS o FROM (SELECT a - b AS d FROM (SELECT 1 AS a, 2 AS b) q) r", "d, o!")
	f("SELECT * FROM (SELECT max(time) - min(time) AS d FROM log_entries) q", "d")
	f("SELECT exe FROM processes UNION ALL SELECT exe FROM log_entries", "exe")
}

// TestOwnOutputStays rewrites the output of the published statements once more: what has been done is not done again.
func TestOwnOutputStays(t *testing.T) {
	dir := sqltest.SpecDir(t)
	e := sqltest.OpenEngine(t)
	names := views{
		"performance_histograms", "performance_metrics", "performance_data", "cpu_usage_per_process_per_minute", "events", "my_events", "density_grid",
		"heatmap", "scaled", "cells", "raw_metrics", "thresholds", "frame_metrics", "process_info", "cpu_chart.user", "cpu_chart.system", "x",
	}
	files, err := filepath.Glob(filepath.Join(dir, "1*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "../sqltest/testdata/dialect/expressions.sql", "../sqltest/testdata/dialect/statements.sql")
	n := 0
	for _, file := range files {
		cases, err := sqltest.ReadCases(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			opts := dialect.Own(dialect.Options{Admin: true, Eval: e.Eval})
			first, err := dialect.Rewrite(t.Context(), e, names, c.SQL, opts)
			if err != nil || strings.Contains(c.SQL, "VALUES") || strings.Contains(c.SQL, "MixedCase2") {
				// The printer wraps VALUES into one more SELECT each time, and leaves out the quotes of names.
				continue
			}
			second, err := dialect.Rewrite(t.Context(), e, names, first.SQL, opts)
			if err != nil {
				t.Errorf("%s:%d: %s\n%v", filepath.Base(file), c.Line, first.SQL, err)
				continue
			}
			if sameText(second.SQL) == sameText(first.SQL) {
				n++
				continue
			}
			// The templates of jsonb_each and its like are written for the engine: they are patched once.
			third, err := dialect.Rewrite(t.Context(), e, names, second.SQL, opts)
			if err != nil || sameText(third.SQL) != sameText(second.SQL) || !strings.Contains(first.SQL, `"error"(`) {
				t.Errorf("%s:%d: %v\n  first %s\n second %s", filepath.Base(file), c.Line, err, first.SQL, second.SQL)
			}
			n++
		}
	}
	if n < 650 {
		t.Errorf("%d statements only", n)
	}
}

// sameText prints truth as the printer does after a second pass.
func sameText(sql string) string {
	return strings.NewReplacer("CAST('t' AS BOOLEAN)", "true", "CAST('f' AS BOOLEAN)", "false").Replace(sql)
}

// TestEveryFunctionOfTheEngineWasLookedAt compares the lists with the engine that is linked in.
func TestEveryFunctionOfTheEngineWasLookedAt(t *testing.T) {
	if both := dialect.BothLists(); len(both) > 0 {
		t.Errorf("on both lists: %v", both)
	}
	e := sqltest.OpenEngine(t)
	names := column(t, e, "SELECT DISTINCT lower(function_name) FROM duckdb_functions() ORDER BY 1")
	var unknown []string
	for _, name := range names {
		if allowed, refused := dialect.Known(name); !allowed && !refused {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		t.Errorf("%d names are on no list: %v", len(unknown), unknown)
	}
	if len(names) < 900 {
		t.Errorf("the engine lists %d names only", len(names))
	}
}

// column runs a statement on the engine itself.
func column(t *testing.T, e *engine.Engine, sql string) []string {
	t.Helper()
	conn, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rows, err := conn.Query(t.Context(), sql, engine.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got := &sqltest.Result{}
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Append(rows.Schema(), batch)
		batch.Release()
	}
	var out []string
	for _, row := range got.Rows {
		out = append(out, fmt.Sprint(row[0]))
	}
	return out
}

func TestBounds(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(what, sql, want string) {
		t.Helper()
		_, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{})
		var fault *dialect.Error
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %.200v, want %s", what, err, want)
		}
	}
	f("parentheses", "SELECT "+strings.Repeat("(", 2000)+"1"+strings.Repeat(")", 2000), "nest deeper")
	f("operators", "SELECT "+strings.Repeat("1+", 3000)+"1", "expression depth")
	f("not", "SELECT "+strings.Repeat("NOT ", 3000)+"true", "expression depth")
	f("unions", strings.Repeat("SELECT 1 UNION ALL ", 2500)+"SELECT 1", "more than 2000 SELECTs")
	var ctes []string
	for i := range 501 {
		ctes = append(ctes, fmt.Sprintf("c%d AS (SELECT 1)", i))
	}
	f("CTEs", "WITH "+strings.Join(ctes, ", ")+" SELECT 1", "more than 500 common table expressions")
	f("joins", "SELECT 1 FROM log_entries"+strings.Repeat(", log_entries", 1200), "expression depth")
	f("tables", strings.Repeat("SELECT 1 FROM log_entries UNION ALL ", 1200)+"SELECT 1", "more than 1000 tables")
	f("bytes", "SELECT '"+strings.Repeat("x", 1<<20)+"'", "longer than the limit")
}

func TestCancelledContext(t *testing.T) {
	e := sqltest.OpenEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := dialect.Rewrite(ctx, e, views{}, "SELECT 1", dialect.Options{})
	var fault *dialect.Error
	if err == nil || errors.As(err, &fault) {
		t.Errorf("got %v, want an error that is not the client's", err)
	}
}

func FuzzRewrite(f *testing.F) {
	for _, s := range []string{
		"SELECT level, count(*) FROM log_entries WHERE time >= now() - INTERVAL '1 hour' GROUP BY level ORDER BY 2 DESC LIMIT 3",
		"WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT * FROM r, view_instance('log_entries', 'global') v",
		"SELECT arrow_cast(a, 'Dictionary(Int32, Utf8)'), named_struct('a', 1), list_transform([1], x -> x), x'00', * EXCEPT (b) FROM blocks",
		"SELECT * FROM jsonb_each((SELECT properties FROM processes)) j(k, v) JOIN expand_histogram((SELECT 1)) ON true",
		"SHOW COLUMNS FROM log_entries", "EXPLAIN ANALYZE SELECT 1", "DESCRIBE \"a\"\"b\"", "VALUES (1, 'a'), (2.5, NULL)",
		"SELECT CAST(a AS STRUCT(x INT, y TIMESTAMP[])), a::DECIMAL(4,2), $1, #1, COLUMNS('a') FROM streams TABLESAMPLE 10%",
		"SELECT sum(a) FILTER (WHERE b) OVER (PARTITION BY c ORDER BY d ROWS 1 PRECEDING EXCLUDE TIES) FROM measures QUALIFY 1",
	} {
		f.Add(s)
	}
	e := sqltest.OpenEngine(f)
	f.Fuzz(func(t *testing.T, sql string) {
		st, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{})
		if err != nil {
			var fault *dialect.Error
			var broken *engine.Error
			if !errors.As(err, &fault) && !errors.As(err, &broken) {
				t.Fatalf("%q: %v", sql, err)
			}
			return
		}
		if _, err := e.SerializeSQL(t.Context(), st.SQL); err != nil {
			t.Fatalf("%q became %q: %v", sql, st.SQL, err)
		}
	})
}

// memo answers from what it has heard: what remains is the cost of this package.
type memo struct {
	dialect.Parser
	trees, texts map[string]string
}

func (m *memo) SerializeSQL(ctx context.Context, sql string) ([]byte, error) {
	if tree, ok := m.trees[sql]; ok {
		return []byte(tree), nil
	}
	tree, err := m.Parser.SerializeSQL(ctx, sql)
	m.trees[sql] = string(tree)
	return tree, err
}

func (m *memo) DeserializeSQL(ctx context.Context, tree []byte) (string, error) {
	if sql, ok := m.texts[string(tree)]; ok {
		return sql, nil
	}
	sql, err := m.Parser.DeserializeSQL(ctx, tree)
	m.texts[string(tree)] = sql
	return sql, err
}

// BenchmarkRewrite measures whole rewrites, and with "own" those parts that are not the engine's parser and printer.
func BenchmarkRewrite(b *testing.B) {
	e := sqltest.OpenEngine(b)
	list := strings.TrimSuffix(strings.Repeat("'name_of_a_measure',", 500), ",")
	for _, c := range []struct{ name, sql string }{
		{"one", "SELECT 1"},
		{"chart", "SELECT date_bin('1 minute', time) AS time, name, avg(value) AS avg_value, max(value) AS max_value FROM measures WHERE name LIKE 'cpu.%' AND time >= now() - INTERVAL '1 hour' GROUP BY 1, 2 ORDER BY 1"},
		{"join", "WITH errors AS (SELECT process_id, count(*) AS n FROM view_instance('log_entries', '11111111-2222-3333-4444-555555555555') WHERE level <= 2 GROUP BY process_id) SELECT p.exe, e.n, CAST(p.last_update_time - p.start_time AS BIGINT) / 1000000 AS ms FROM errors e JOIN processes p ON p.process_id = e.process_id WHERE property_get(p.properties, 'env') = 'production' ORDER BY e.n DESC LIMIT 100"},
		{"long_in", "SELECT * FROM measures WHERE name IN (" + list + ")"},
	} {
		for who, p := range map[string]dialect.Parser{"whole": e, "own": &memo{e, map[string]string{}, map[string]string{}}} {
			b.Run(c.name+"/"+who, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(c.sql)))
				for b.Loop() {
					if _, err := dialect.Rewrite(b.Context(), p, views{}, c.sql, dialect.Options{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestCopiesOfArgumentsAreCounted(t *testing.T) {
	factors := dialect.MacroFactors()
	for name, least := range map[string]int{"mm_ts_sub": 4, "mm_cast_i64": 5, "mm_diff_i64": 8, "substr": 2, "to_timestamp": 6} {
		if factors[name] < least {
			t.Errorf("%s copies an argument %d times, want at least %d", name, factors[name], least)
		}
	}
	if factors["now"] > 1 || factors["nvl"] != 1 {
		t.Errorf("now %d, nvl %d", factors["now"], factors["nvl"])
	}
	e := sqltest.OpenEngine(t)
	f := func(sql string, fits bool) {
		t.Helper()
		_, err := dialect.Rewrite(t.Context(), e, views{"t"}, sql, dialect.Options{})
		if fits != (err == nil) {
			t.Errorf("%.80s: %v", sql, err)
		}
	}
	f("SELECT now()"+strings.Repeat(" - INTERVAL '1 hour'", 50), true)
	f("SELECT now()"+strings.Repeat(" - INTERVAL '1 month'", 3), true)
	f("SELECT now()"+strings.Repeat(" - INTERVAL '1 month'", 12), false)
	f("SELECT "+strings.Repeat("CAST(CAST(", 20)+"a"+strings.Repeat(" AS BIGINT) AS VARCHAR)", 20)+" FROM t", true)
	f("SELECT "+strings.Repeat("CAST(abs(", 8)+"a"+strings.Repeat(") AS BIGINT)", 8)+" FROM t", false)
	f("SELECT a FROM t WHERE b IN ("+strings.Repeat("1,", 20000)+"1)", true)
}
