package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/query/engine"
)

// forever is a statement that gives no row for hours.
const forever = "SELECT count(*) FROM range(100000000000) a, range(1000) b WHERE a.range % 7 = b.range % 5"

func class(err error) string {
	var e *engine.Error
	if !errors.As(err, &e) {
		return fmt.Sprintf("%T: %v", err, err)
	}
	return e.Class.String()
}

func TestRowsOfManyChunksKeepOrderAndNulls(t *testing.T) {
	c := conn(t, open(t, nil))
	const n = 100_000
	res, err := c.Query(t.Context(), fmt.Sprintf(`SELECT i, CASE WHEN i %% 3 = 0 THEN NULL ELSE 'text number ' || i END AS s,
		i %% 2 = 0 AS b, [i, NULL] AS l, {'x': CASE WHEN i %% 5 > 0 THEN i END} AS o FROM range(%d) t(i) WHERE i %% 11 <> 1`, n), engine.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	next := int64(0)
	for {
		batch, err := res.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ids, texts := batch.Column(0).(*array.Int64), batch.Column(1).(*array.String)
		bools, lists := batch.Column(2).(*array.Boolean), batch.Column(3).(*array.List)
		structs := batch.Column(4).(*array.Struct)
		for r := range int(batch.NumRows()) {
			if next%11 == 1 {
				next++
			}
			if ids.Value(r) != next {
				t.Fatalf("row %d, want %d", ids.Value(r), next)
			}
			if texts.IsNull(r) != (next%3 == 0) || !texts.IsNull(r) && texts.Value(r) != fmt.Sprintf("text number %d", next) {
				t.Fatalf("text of row %d is %q", next, texts.Value(r))
			}
			begin, end := lists.ValueOffsets(r)
			values := lists.ListValues().(*array.Int64)
			field := structs.Field(0).(*array.Int64)
			if bools.Value(r) != (next%2 == 0) || end-begin != 2 || values.Value(int(begin)) != next || values.IsValid(int(begin)+1) ||
				field.IsNull(r) != (next%5 == 0) || field.IsValid(r) && field.Value(r) != next {
				t.Fatalf("row %d is wrong", next)
			}
			next++
		}
		batch.Release()
	}
	if next != n {
		t.Errorf("%d rows, want %d", next, n)
	}
}

func TestHintsAndDictionaries(t *testing.T) {
	c := conn(t, open(t, nil))
	dstr := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	narrow := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int16, ValueType: arrow.BinaryTypes.String}
	tags := arrow.ListOfField(arrow.Field{Name: "tag", Type: arrow.BinaryTypes.String})
	const sql = `SELECT 'x' || i % 3 AS d, 'y' AS n, jsonb_parse('{"k":' || i % 2 || '}') AS j, i AS span, unhex('00112233445566778899aabbccddeeff') AS id,
		['a', 'b'] AS tags, 1.5::DECIMAL(4,2) AS m, INTERVAL '1 second' AS iv, count(*) OVER () AS c, 'plain' AS p FROM range(5) t(i)`
	hints := []engine.Hint{
		{Type: dstr},
		{Type: narrow},
		{},
		{Type: arrow.FixedWidthTypes.Duration_ns},
		{Type: &arrow.FixedSizeBinaryType{ByteWidth: 16}},
		{Type: tags},
		{Type: &arrow.Decimal128Type{Precision: 4, Scale: 2}},
		{Type: arrow.FixedWidthTypes.Duration_ns},
		{NotNull: true},
	}
	for _, preserve := range []bool{false, true} {
		opts := engine.QueryOptions{PreserveDictionary: preserve, Hints: hints}
		described, err := c.Describe(t.Context(), sql, opts)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Query(t.Context(), sql, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Close()
		if !res.Schema().Equal(described) {
			t.Errorf("described %v, got %v", described, res.Schema())
		}
		batch, err := res.Next()
		if err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, f := range res.Schema().Fields() {
			types = append(types, f.Type.String())
		}
		got := strings.Join(types, " | ")
		d, n, j := "utf8", "utf8", "binary"
		if preserve {
			d, n, j = "dictionary<values=utf8, indices=int32, ordered=false>", "dictionary<values=utf8, indices=int16, ordered=false>", "dictionary<values=binary, indices=int32, ordered=false>"
		}
		want := strings.Join([]string{d, n, j, "duration[ns]", "fixed_size_binary[16]", "list<tag: utf8>", "decimal(4, 2)", "duration[ns]", "int64", "utf8"}, " | ")
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if res.Schema().Field(8).Nullable || !res.Schema().Field(0).Nullable {
			t.Error("nullability does not follow the hints")
		}
		if preserve {
			dict := batch.Column(0).(*array.Dictionary)
			if dict.Dictionary().Len() != 3 || dict.ValueStr(4) != "x1" {
				t.Errorf("dictionary %v", dict)
			}
			if n := batch.Column(2).(*array.Dictionary).Dictionary().Len(); n != 2 {
				t.Errorf("%d documents, want 2", n)
			}
		}
		if v := batch.Column(7).(*array.Duration).Value(0); v != 1e9 {
			t.Errorf("interval as duration = %d", v)
		}
		batch.Release()
	}
}

func TestWrongHintsAreIgnored(t *testing.T) {
	c := conn(t, open(t, nil))
	opts := engine.QueryOptions{PreserveDictionary: true, Hints: []engine.Hint{
		{Type: arrow.BinaryTypes.String}, {Type: arrow.FixedWidthTypes.Duration_ns}, {Type: arrow.PrimitiveTypes.Float64}, {Type: arrow.ListOf(arrow.PrimitiveTypes.Int64)},
	}}
	schema, err := c.Describe(t.Context(), "SELECT 1::BIGINT AS a, 'x' AS b, [1] AS c, 2 AS d", opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"int64", "utf8", "list<item: int32, nullable>", "int32"} {
		if got := schema.Field(i).Type.String(); got != want {
			t.Errorf("column %d is %s, want %s", i, got, want)
		}
	}
}

func TestCancelEndsWithinASecond(t *testing.T) {
	e := open(t, nil)
	for name, sql := range map[string]string{
		"before the first row": forever,
		"between rows":         "SELECT a.range FROM range(100000000000) a",
		"in a sort":            "SELECT a.range FROM range(100000000) a ORDER BY hash(a.range)",
		"in our function":      "SELECT count(*) FROM range(100000000) a WHERE property_get('{\"a\":\"' || a.range || '\"}', 'a') = 'x'",
	} {
		t.Run(name, func(t *testing.T) {
			c := conn(t, e)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			began := time.Now()
			res, err := c.Query(ctx, sql, engine.QueryOptions{})
			for err == nil {
				var batch arrow.RecordBatch
				if batch, err = res.Next(); err == nil {
					batch.Release()
				}
			}
			if got := class(err); got != "interrupted" || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", got, err)
			}
			if took := time.Since(began); took > 1100*time.Millisecond {
				t.Errorf("cancelled after %v", took)
			}
			if res != nil {
				res.Close()
			}
			if out, err := rows(t, c, "SELECT 1 AS a", engine.QueryOptions{}); err != nil || len(out) != 1 {
				t.Errorf("the connection after it: %v, %v", out, err)
			}
		})
	}
}

func TestDeadlineAndDoneContext(t *testing.T) {
	c := conn(t, open(t, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Exec(ctx, "CREATE TEMP TABLE t AS "+forever); !errors.Is(err, context.DeadlineExceeded) || class(err) != "interrupted" {
		t.Errorf("deadline: %v", err)
	}
	if _, err := c.Query(ctx, "SELECT 1", engine.QueryOptions{}); class(err) != "interrupted" {
		t.Errorf("done context: %v", err)
	}
}

func TestCloseBeforeTheLastRow(t *testing.T) {
	e := open(t, nil)
	c := conn(t, e)
	res, err := c.Query(t.Context(), "SELECT i, 'text ' || i AS s FROM range(100000000000) t(i)", engine.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := res.Next()
	if err != nil {
		t.Fatal(err)
	}
	batch.Release()
	res.Close()
	res.Close()
	if _, err := res.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next after Close: %v", err)
	}
	if out, err := rows(t, c, "SELECT 1 AS a", engine.QueryOptions{}); err != nil || len(out) != 1 {
		t.Errorf("the connection after it: %v, %v", out, err)
	}
}

func TestConnectionsSeeTheirOwnViews(t *testing.T) {
	e := open(t, func(c *engine.Config) { c.MaxConcurrent = 8 })
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for turn := range 10 {
				c, err := e.Conn(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				n := worker*100 + turn
				if err := c.Exec(t.Context(), fmt.Sprintf(`CREATE TEMP VIEW log_entries AS SELECT i FROM range(%d) t(i);
					CREATE TEMP VIEW "vi/log_entries/p" AS SELECT i FROM range(%d) t(i)`, n, n)); err != nil {
					t.Error(err)
				}
				out, err := rows(t, c, "SELECT (SELECT count(*) FROM log_entries) AS a, (SELECT count(*) FROM view_instance('log_' || 'entries', 'p')) AS b", engine.QueryOptions{})
				if want := fmt.Sprintf(`{"a":%d,"b":%d}`, n, n); err != nil || len(out) != 1 || out[0] != want {
					t.Errorf("got %v, %v, want %s", out, err, want)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	c := conn(t, e)
	if _, err := rows(t, c, "SELECT * FROM log_entries", engine.QueryOptions{}); class(err) != "bind" {
		t.Errorf("a view outlives its connection: %v", err)
	}
}

func TestConnWaitsForAPlace(t *testing.T) {
	e := open(t, func(c *engine.Config) { c.MaxConcurrent = 1 })
	first, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Conn(ctx); class(err) != "interrupted" {
		t.Errorf("a second connection: %v", err)
	}
	done := make(chan error)
	go func() {
		second, err := e.Conn(t.Context())
		if err == nil {
			second.Close()
		}
		done <- err
	}()
	first.Close()
	first.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestErrorsNameClassAndPosition(t *testing.T) {
	c := conn(t, open(t, nil))
	for _, w := range []struct {
		sql, class, name string
		position         int
	}{
		{"SELEC 1", "parse", "", 0},
		{"SELECT 1 FROM", "parse", "", 13},
		{"SELECT 1\x00", "parse", "", 8},
		{"SELECT nope FROM (SELECT 1 AS a) t", "bind", "nope", 7},
		{"SELECT * FROM nowhere", "bind", "nowhere", 14},
		{"SELECT frobnicate(1)", "bind", "frobnicate", 7},
		{"SELECT 'x'::INTEGER", "execution", "", 10},
		{"SELECT error('boo')", "execution", "", -1},
		{"SELECT repeat('x', 1000000000)", "resource", "", -1},
		{"SET threads = 1", "execution", "", -1},
		{"SELECT * FROM read_text('/etc/passwd')", "bind", "", 14},
	} {
		_, err := rows(t, c, w.sql, engine.QueryOptions{})
		var e *engine.Error
		if !errors.As(err, &e) || e.Class.String() != w.class || e.Position != w.position || e.Name != w.name {
			t.Errorf("%s: %s %+v", w.sql, class(err), e)
		}
	}
}

func TestMemoryLimitIsAResourceError(t *testing.T) {
	c := conn(t, open(t, func(c *engine.Config) { c.MemoryLimit = 64 << 20 }))
	_, err := rows(t, c, "SELECT count(*) FROM (SELECT i, hash(i) AS h FROM range(30000000) t(i) ORDER BY h, i DESC) WHERE h % 2 = 0 AND i > 5 GROUP BY h % 10000000", engine.QueryOptions{})
	if class(err) != "resource" {
		t.Errorf("out of memory: %s %v", class(err), err)
	}
	if out, err := rows(t, c, "SELECT 1 AS a", engine.QueryOptions{}); err != nil || len(out) != 1 {
		t.Errorf("the connection after it: %v, %v", out, err)
	}
}

func TestHugeRowsMakeSmallBatches(t *testing.T) {
	c := conn(t, open(t, nil))
	res, err := c.Query(t.Context(), "SELECT repeat('x', 60000) AS s, [repeat('y', 1000)] AS l FROM range(1000)", engine.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	total := int64(0)
	for {
		batch, err := res.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if size := batch.NumRows() * 61000; size > 5<<20 {
			t.Fatalf("a batch of %d bytes", size)
		}
		total += batch.NumRows()
		batch.Release()
	}
	if total != 1000 {
		t.Errorf("%d rows", total)
	}
}

func TestStreamingKeepsMemoryFlat(t *testing.T) {
	c := conn(t, open(t, nil))
	res, err := c.Query(t.Context(), "SELECT make_timestamp_ns(i) AS time, 'process ' || i % 10 AS process_id, 'message number ' || i AS msg FROM range(3000000) t(i)", engine.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	peak, total := uint64(0), int64(0)
	for {
		batch, err := res.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if total += batch.NumRows(); total/8192%50 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
		batch.Release()
	}
	const limit = 64 << 20
	if total != 3000000 || peak > limit {
		t.Errorf("%d rows with a heap of %d bytes, limit %d", total, peak, limit)
	}
}

func TestParseAndEval(t *testing.T) {
	e := open(t, nil)
	tree, err := e.SerializeSQL(t.Context(), `SELECT "end", $$it's$$ FROM view_instance('a', lower('B')) WHERE a ~ 'x'`)
	if err != nil || !strings.Contains(string(tree), `"view_instance"`) {
		t.Fatalf("%s, %v", tree, err)
	}
	sql, err := e.DeserializeSQL(t.Context(), tree)
	if err != nil || !strings.Contains(sql, "view_instance('a', lower('B'))") {
		t.Errorf("%s, %v", sql, err)
	}
	if _, err := e.DeserializeSQL(t.Context(), []byte("{")); err == nil {
		t.Error("a broken tree is printed")
	}
	if _, err := e.DeserializeSQL(t.Context(), []byte(`{"statements":[{"node":{"type":"NOPE"}}]}`)); err == nil {
		t.Error("an unknown node is printed")
	}
	row, err := e.Eval(t.Context(), "SELECT lower('X'), 1, 2.5::DOUBLE, NULL, true, TIMESTAMP_NS '2024-01-01T00:00:00.000000001+02:00', 7::UINTEGER, unhex('0a'), DATE '2024-01-02'")
	want := []any{"x", int64(1), 2.5, nil, true, time.Date(2023, 12, 31, 22, 0, 0, 1, time.UTC), uint64(7), []byte{10}, time.Date(2024, 1, 2, 0, 0, 0, 0, time.UTC)}
	if err != nil || fmt.Sprint(row) != fmt.Sprint(want) {
		t.Errorf("got %v, %v, want %v", row, err, want)
	}
	for _, sql := range []string{"SELECT 1 WHERE false", "SELECT * FROM range(2)", "SELECT error('x')"} {
		if row, err := e.Eval(t.Context(), sql); class(err) != "execution" {
			t.Errorf("%s = %v, %v", sql, row, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Eval(ctx, forever); class(err) != "interrupted" {
		t.Errorf("eval that takes forever: %v", err)
	}
	if _, err := e.SerializeSQL(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("a parser after it: %v", err)
	}
}

func TestConfigReportsEveryMistake(t *testing.T) {
	err := engine.Config{MemoryLimit: 1, TempLimit: -1, TempDir: "x", AllowedDirs: []string{"y"}, Threads: -1}.Validate()
	for _, want := range []string{"memory limit 1", "temp limit -1", `"x"`, `"y"`, "-1 threads", "0 concurrent"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
	if err := engine.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestClosedEngine(t *testing.T) {
	e := open(t, nil)
	e.Close()
	e.Close()
	if _, err := e.Conn(t.Context()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a connection of a closed engine: %v", err)
	}
}
