package dialect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/sqltest"
)

// TestOwners says for statements what they ask of the owners: the text behind FROM "fleet/owners" AS, one for each occurrence.
func TestOwners(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(sql string, want ...string) {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{"t"}, sql, dialect.Options{Eval: e.Eval})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		var got []string
		for i, v := range st.Fleets {
			owners, ok := strings.CutPrefix(v.Owners, `SELECT DISTINCT stream_id FROM "fleet/owners" AS `)
			if !ok || v.ViewName != fmt.Sprintf("fleet/%d", i+1) || v.Table.Name != "thread_spans" || !strings.Contains(st.SQL, `"`+v.ViewName+`"`) {
				t.Errorf("%s: %+v\n%s", sql, v, st.SQL)
			}
			if v.Sample != 1 {
				owners += fmt.Sprintf(" (%v)", v.Sample)
			}
			got = append(got, owners)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", sql, diff)
		}
	}
	// what is taken
	f("SELECT * FROM thread_spans", "thread_spans")
	f("SELECT * FROM datafusion.public.thread_spans WHERE public.thread_spans.exe = 'a'", "thread_spans WHERE (thread_spans.exe = 'a')")
	f("SELECT * FROM thread_spans WHERE exe = 'a'", "thread_spans WHERE (exe = 'a')")
	f("SELECT * FROM thread_spans WHERE exe = 'a' AND depth < 3 AND (username = 'u' AND name = 'n')", "thread_spans WHERE ((exe = 'a') AND (username = 'u'))")
	f("SELECT * FROM thread_spans s WHERE s.exe IN ('a', 'b') AND computer BETWEEN 'a' AND 'c'", "s WHERE ((s.exe IN ('a', 'b')) AND (computer BETWEEN 'a' AND 'c'))")
	f("SELECT * FROM thread_spans WHERE exe = 'a' OR username = 'u'", "thread_spans WHERE ((exe = 'a') OR (username = 'u'))")
	f("SELECT * FROM thread_spans WHERE NOT (exe = 'a') AND exe IS NOT NULL", "thread_spans WHERE ((exe != 'a') AND (exe IS NOT NULL))")
	f("SELECT * FROM thread_spans WHERE property_get(process_properties, 'build') = '7' AND lower(thread_name) LIKE 'r%'",
		"thread_spans WHERE ((property_get(process_properties, 'build') = '7') AND (lower(thread_name) ~~ 'r%'))")
	f("SELECT * FROM thread_spans WHERE CASE WHEN exe = 'a' THEN process_id ELSE stream_id END = 'x'", "thread_spans WHERE (CASE  WHEN ((exe = 'a')) THEN (process_id) ELSE stream_id END = 'x')")
	f("SELECT * FROM thread_spans WHERE CAST(username AS BIGINT) = 1", "thread_spans WHERE (mm_cast_i64(username) = 1)")
	f("SELECT * FROM thread_spans WHERE false", "thread_spans WHERE CAST('f' AS BOOLEAN)")
	f("SELECT name, sum(duration) FROM thread_spans WHERE exe = 'a' GROUP BY name HAVING count(*) > 2 ORDER BY 2 LIMIT 3", "thread_spans WHERE (exe = 'a')")
	f("SELECT name AS exe FROM thread_spans WHERE exe = 'a'", "thread_spans WHERE (exe = 'a')") // not the alias

	// what is not
	f("SELECT * FROM thread_spans WHERE exe = 'a' OR depth = 0", "thread_spans")
	f("SELECT * FROM thread_spans WHERE NOT (exe = 'a' AND depth = 0)", "thread_spans")
	f("SELECT * FROM thread_spans WHERE concat(exe, name) = 'ab' AND exe = name", "thread_spans")
	f("SELECT * FROM thread_spans WHERE process_id IN (SELECT process_id FROM processes)", "thread_spans")
	f("SELECT * FROM thread_spans WHERE EXISTS (SELECT 1) AND exe = (SELECT 'a')", "thread_spans")
	f("SELECT * FROM thread_spans WHERE random() < 0.5 AND exe = uuid() AND now() > exe AND username = current_timestamp", "thread_spans")
	f("SELECT * FROM thread_spans WHERE get_payload(process_id, stream_id, 'x') IS NULL", "thread_spans")
	f("SELECT * FROM thread_spans WHERE COLUMNS(*) IS NOT NULL", "thread_spans")
	f("SELECT * FROM thread_spans WHERE len(list_filter([exe], exe -> exe = 'a')) = 1", "thread_spans")
	f("SELECT * FROM thread_spans WHERE process_properties.build = 'a'", "thread_spans")
	f("SELECT * FROM thread_spans WHERE build = 'a'", "thread_spans")
	f("SELECT * FROM thread_spans HAVING exe = 'a'", "thread_spans")
	f("SELECT * FROM thread_spans QUALIFY exe = 'a'", "thread_spans")
	f("SELECT * FROM thread_spans AS s(exe) WHERE exe = 'a'", "s")
	f("SELECT * FROM thread_spans WHERE exe = 'a' USING SAMPLE 10 ROWS", "thread_spans")
	f("SELECT count(*) FILTER (WHERE exe = 'a') FROM thread_spans", "thread_spans")

	// joins
	f("SELECT * FROM thread_spans s JOIN processes p USING (process_id) WHERE s.exe = 'a' AND p.username = 'u' AND computer = 'c'", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM thread_spans s, t WHERE s.exe = 'a' AND s.username = t.a", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM thread_spans s NATURAL JOIN t WHERE s.exe = 'a'", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM thread_spans s JOIN thread_spans ON s.id = thread_spans.id WHERE s.exe = 'a' AND thread_spans.exe = 'b'",
		"s WHERE (s.exe = 'a')", "thread_spans WHERE (thread_spans.exe = 'b')")
	f("SELECT * FROM thread_spans a JOIN thread_spans A ON true WHERE a.exe = 'a'", "a", "a")
	f("SELECT * FROM thread_spans s LEFT JOIN t ON true WHERE s.exe = 'a'", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM t RIGHT JOIN thread_spans s ON true WHERE s.exe = 'a'", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM thread_spans s SEMI JOIN t ON true WHERE s.exe = 'a'", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM thread_spans s ANTI JOIN t ON true WHERE s.exe = 'a'", "s WHERE (s.exe = 'a')")
	f("SELECT * FROM t LEFT JOIN thread_spans s ON true WHERE s.exe IS NULL", "s")
	f("SELECT * FROM thread_spans s RIGHT JOIN t ON true WHERE s.exe IS NULL", "s")
	f("SELECT * FROM t FULL JOIN thread_spans s ON true WHERE s.exe = 'a'", "s")
	f("SELECT * FROM t LEFT JOIN (t u JOIN thread_spans s ON true) ON true WHERE s.exe IS NULL", "s")
	f("SELECT * FROM t ASOF JOIN thread_spans s ON t.a >= s.exe WHERE s.exe = 'a'", "s")
	f("SELECT * FROM t POSITIONAL JOIN thread_spans s WHERE s.exe = 'a'", "s")
	f("SELECT * FROM t JOIN thread_spans s ON s.exe = 'a'", "s")

	// other SELECTs
	f("WITH thread_spans AS (SELECT 1 AS exe) SELECT * FROM thread_spans WHERE exe = 1")
	f("WITH a AS (SELECT * FROM thread_spans WHERE exe = 'a') SELECT * FROM a WHERE a.username = 'u'", "thread_spans WHERE (exe = 'a')")
	f("WITH a AS (SELECT 1), thread_spans AS (SELECT * FROM thread_spans WHERE exe = 'a') SELECT * FROM thread_spans WHERE username = 'u'", "thread_spans WHERE (exe = 'a')")
	f("SELECT * FROM (SELECT * FROM thread_spans WHERE exe = 'a') WHERE username = 'u'", "thread_spans WHERE (exe = 'a')")
	f("SELECT * FROM (SELECT id FROM thread_spans) WHERE exe = 'a'", "thread_spans")
	f("SELECT * FROM thread_spans WHERE exe = 'a' UNION ALL SELECT * FROM thread_spans x WHERE exe = 'b'", "thread_spans WHERE (exe = 'a')", "x WHERE (exe = 'b')")
	f("SELECT (SELECT count(*) FROM thread_spans s WHERE s.process_id = p.process_id AND exe = 'a') FROM processes p", "s WHERE (exe = 'a')")
	f("SELECT (SELECT max(time) FROM log_entries l WHERE l.exe = s.exe) FROM thread_spans s WHERE username = 'u'", "s WHERE (username = 'u')")
	f("EXPLAIN SELECT * FROM thread_spans WHERE exe = 'a'", "thread_spans WHERE (exe = 'a')")
	f("DESCRIBE SELECT * FROM thread_spans WHERE exe = 'a'", "thread_spans WHERE (exe = 'a')")

	// samples
	f("SELECT * FROM thread_spans TABLESAMPLE 10 PERCENT WHERE exe = 'a'", "thread_spans WHERE (exe = 'a') (0.1)")
	f("SELECT * FROM thread_spans s TABLESAMPLE bernoulli(2.5%) REPEATABLE (7)", "s (0.025)")
	f("SELECT * FROM thread_spans s TABLESAMPLE reservoir(50%) JOIN thread_spans u TABLESAMPLE 100% USING (id) WHERE s.exe = 'a'", "s WHERE (s.exe = 'a') (0.5)", "u")
}

func TestFleetInTheStatement(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(sql, want string) *dialect.Statement {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if st.SQL != want {
			t.Errorf("%s\n got %s\nwant %s", sql, st.SQL, want)
		}
		return st
	}
	f(`SELECT sum(duration), "end" FROM thread_spans TABLESAMPLE 10% WHERE exe = 'a' GROUP BY "end"`,
		`SELECT sum(duration) AS "sum(thread_spans.duration)", "end" FROM "fleet/1" AS thread_spans WHERE (exe = 'a') GROUP BY "end"`)
	f(`SELECT a.* FROM thread_spans a, thread_spans AS b(x)`, `SELECT "a".* FROM "fleet/1" AS a , "fleet/2" AS b(x)`)
	st := f("SELECT * FROM thread_spans", `SELECT * FROM "fleet/1" AS thread_spans`)
	if len(st.Columns) != 18 || st.Columns[0].Name != "process_id" || st.Columns[17].Name != "line" || len(st.Tables)+len(st.Instances) > 0 {
		t.Errorf("columns %+v, tables %v", st.Columns, st.Tables)
	}
	again, err := dialect.NewCache(e, views{}, 10).Rewrite(t.Context(), `SELECT "end" - begin AS d FROM (SELECT max("end") AS "end", min(begin) AS begin FROM thread_spans WHERE exe = 'a')`, dialect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Columns) == 1 && again.Columns[0].Minus {
		if again, err = again.Durations(t.Context(), e, []int{0}); err != nil {
			t.Fatal(err)
		}
	}
	if len(again.Fleets) != 1 || !strings.HasSuffix(again.Fleets[0].Owners, "(exe = 'a')") {
		t.Errorf("fleets %+v", again.Fleets)
	}
}

// TestOwnersLoseNoRow runs statements on the rows of all owners, and on those of the owners that the statement means.
func TestOwnersLoseNoRow(t *testing.T) {
	const spans = `SELECT o.*, s.*, 0 AS hash, begin AS "end", 1 AS duration, 'n' || depth AS name, '' AS target, '' AS filename, 0 AS line
		FROM memory.main.owners o JOIN (SELECT range AS id, range // 2 AS parent, (range % 3)::UINTEGER AS depth, make_timestamp_ns(range) AS begin FROM range(6)) s ON id % 3 = stream_id::INT % 3 OR stream_id = '4'`
	e := sqltest.OpenEngine(t, `CREATE TABLE owners AS SELECT * FROM (VALUES
		('p', 'a', 'u', 'c', '{"build":"7"}'::JSON, '1', 'main-1'), ('p', 'a', 'u', 'c', '{"build":"7"}'::JSON, '2', 'render-2'),
		('q', 'b', '', 'd', '{}'::JSON, '3', '3'), ('r', 'a', 'v', 'd', '{"build":"8"}'::JSON, '4', 'main-4'), ('s', 'z', 'w', 'e', '{}'::JSON, '5', 'idle'))
		v(process_id, exe, username, computer, process_properties, stream_id, thread_name)`,
		`CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) v(a, exe)`)
	narrowed := 0
	run := func(st *dialect.Statement, all bool) (out []string) {
		conn, err := e.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		exec := func(sql string) {
			if err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		exec(`CREATE TEMP VIEW "fleet/owners" AS FROM memory.main.owners`)
		for _, v := range st.Fleets {
			ids := rows(t, conn, v.Owners)
			if all {
				ids = []string{"1", "2", "3", "4", "5"}
			}
			narrowed += 5 - len(ids)
			exec(fmt.Sprintf(`CREATE TEMP VIEW "%s" AS SELECT * FROM (%s) WHERE stream_id IN (%s)`, v.ViewName, spans, "'"+strings.Join(ids, "','")+"'"))
		}
		return rows(t, conn, st.SQL)
	}
	conditions := []string{
		"s.exe = 'a'", "s.exe <> 'a'", "s.exe IS NULL", "coalesce(s.exe, 'a') = 'a'", "s.exe = 'a' OR s.depth = 1", "NOT (s.exe = 'a' AND s.depth = 1)",
		"property_get(s.process_properties, 'build') = '7' AND s.depth < 2", "property_get(s.process_properties, 'build') IS NULL", "s.stream_id > '2' AND s.thread_name LIKE 'm%'",
		"(s.exe = 'a') IS NOT TRUE", "CASE WHEN s.username = '' THEN true ELSE s.exe = 'z' END", "false", "true AND s.computer IN ('c', 'e')",
	}
	froms := []string{
		"thread_spans s", "thread_spans s JOIN t ON s.exe = t.exe", "t, thread_spans s", "thread_spans s NATURAL JOIN t", "t LEFT JOIN thread_spans s ON s.exe = t.exe",
		"thread_spans s LEFT JOIN t ON s.exe = t.exe", "t RIGHT JOIN thread_spans s ON s.exe = t.exe", "thread_spans s RIGHT JOIN t ON s.exe = t.exe",
		"t FULL JOIN thread_spans s ON s.exe = t.exe", "t LEFT JOIN (thread_spans s JOIN t u ON s.exe = u.exe) ON s.id = t.a", "t LEFT JOIN (t u LEFT JOIN thread_spans s ON s.exe = u.exe) ON s.id = t.a",
		"thread_spans s SEMI JOIN t ON s.exe = t.exe", "thread_spans s ANTI JOIN t ON s.exe = t.exe", "(SELECT 2 AS id) q ASOF JOIN thread_spans s ON q.id >= s.id", "thread_spans s ASOF LEFT JOIN t ON s.id >= t.a",
		"t POSITIONAL JOIN (SELECT * FROM thread_spans ORDER BY stream_id, id) s", "t, LATERAL (SELECT * FROM thread_spans v WHERE v.exe = t.exe AND v.username = 'u') s",
		"(SELECT * FROM thread_spans s WHERE s.username <> 'u') s", "thread_spans s JOIN thread_spans v ON s.id = v.id AND v.computer = 'c'",
	}
	for _, from := range froms {
		for _, condition := range conditions {
			sql := "SELECT s.stream_id, s.id, s.name, count(*) FROM " + from + " WHERE " + condition + " GROUP BY ALL ORDER BY ALL"
			st, err := dialect.Rewrite(t.Context(), e, views{"t"}, sql, dialect.Options{})
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			if diff := cmp.Diff(run(st, true), run(st, false)); diff != "" {
				t.Errorf("%s (-all +meant)\n%s", sql, diff)
			}
		}
	}
	if narrowed < 100 {
		t.Errorf("only %d owners were left out", narrowed)
	}
}

// rows runs a statement and returns its rows.
func rows(t *testing.T, conn *engine.Conn, sql string) []string {
	t.Helper()
	res, err := conn.Query(t.Context(), sql, engine.QueryOptions{})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer res.Close()
	var out []string
	for {
		batch, err := res.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for i := range int(batch.NumRows()) {
			var row []string
			for _, c := range batch.Columns() {
				row = append(row, c.ValueStr(i))
			}
			out = append(out, strings.Join(row, ","))
		}
		batch.Release()
	}
}

// TestUnsteadyFunctionsAreKnown compares the list with what the engine says of its functions.
func TestUnsteadyFunctionsAreKnown(t *testing.T) {
	e := sqltest.OpenEngine(t)
	conn, err := e.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	unsteady := rows(t, conn, `SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'scalar' AND stability <> 'CONSISTENT' AND function_name <> 'error'`)
	if len(unsteady) < 5 {
		t.Fatalf("the engine lists %v", unsteady)
	}
	word := regexp.MustCompile(`\w+`)
	for _, m := range rows(t, conn, `SELECT function_name || ' ' || macro_definition FROM duckdb_functions() WHERE function_type = 'macro'`) {
		words := word.FindAllString(m, -1)
		if slices.ContainsFunc(words[1:], func(w string) bool { return slices.Contains(unsteady, w) }) {
			unsteady = append(unsteady, words[0])
		}
	}
	for _, name := range unsteady {
		if allowed, _ := dialect.Known(name); allowed && !dialect.Unsteady(name) {
			t.Errorf("%s differs from call to call and is not on the list", name)
		}
	}
}
