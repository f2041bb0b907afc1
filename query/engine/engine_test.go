package engine_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/micromegas-go/micromegas/query/engine"
)

func open(t testing.TB, change func(*engine.Config)) *engine.Engine {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.MemoryLimit = 256 << 20
	if change != nil {
		change(&cfg)
	}
	e, err := engine.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func conn(t testing.TB, e *engine.Engine) *engine.Conn {
	t.Helper()
	c, err := e.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// rows runs a statement and returns each row as JSON.
func rows(t testing.TB, c *engine.Conn, sql string, opts engine.QueryOptions) ([]string, error) {
	t.Helper()
	res, err := c.Query(context.Background(), sql, opts)
	if err != nil {
		return nil, err
	}
	defer res.Close()
	var out []string
	for {
		batch, err := res.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := batch.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(data))
		batch.Release()
	}
}

func TestSmoke(t *testing.T) {
	e := open(t, nil)
	c := conn(t, e)
	for _, sql := range []string{
		"SELECT 1 AS a, 'x' AS b, 1.5::DOUBLE AS c, [1,2] AS l, {'a':1} AS s, '{\"a\":\"b\"}'::JSON AS j, now() AS n",
		"SELECT property_get('{\"Map\":\"Oslo\"}'::JSON, 'map') AS v, typeof(property_get('{}','a')) AS ty",
		"SELECT property_get('{\"Map\":\"Oslo\"}'::JSON, 'map') = 'Oslo' AS v",
		"SELECT property_get('{\"Map\":\"Oslo\"}'::JSON, 'map') || 'x' AS v, upper(property_get('{\"Map\":\"Oslo\"}'::JSON, 'map')) AS u",
		"SELECT v, count(*) AS n FROM (SELECT property_get(p, 'a') AS v FROM (VALUES ('{\"a\":\"1\"}'::JSON), ('{}'::JSON)) t(p)) GROUP BY v ORDER BY v",
		"SELECT property_get('{\"a\":\"1\"}', 'a') AS v UNION ALL SELECT 'x'",
		"SELECT CAST(property_get('{\"a\":\"1\"}', 'a') AS INTEGER) + 1 AS v, coalesce(property_get('{\"a\":\"1\"}', 'b'), 'none') AS w",
		"SELECT CASE WHEN true THEN property_get('{\"a\":\"1\"}', 'a') ELSE 'z' END AS v, concat(property_get('{\"a\":\"1\"}', 'a'), 'z') AS w",
		"SELECT a.v FROM (SELECT property_get('{\"a\":\"1\"}', 'a') AS v) a JOIN (SELECT '1' AS v) b ON a.v = b.v",
		"SELECT property_get('{\"a\":\"1\"}', 'a') IN ('1', '2') AS v, property_get('{\"a\":\"1\"}', 'a') LIKE '1%' AS l, string_agg(property_get('{\"a\":\"1\"}', 'a'), ',') AS s",
		"SELECT max(property_get('{\"a\":\"1\"}', 'a')) AS v, length(property_get('{\"a\":\"1\"}', 'a')) AS n, property_get('{\"a\":\"5\"}', 'a')::DOUBLE > 3 AS g",
		"SELECT jsonb_get(jsonb_parse('{\"a\":{\"b\":1}}'), 'a') AS v, typeof(jsonb_parse('1')) AS t, jsonb_format_json(jsonb_parse('{\"b\":1, \"a\":[1.0,true,null]}')) AS j",
		"SELECT jsonb_object_keys(jsonb_parse('{\"b\":1, \"a\":[1.0,true,null]}')) AS k",
		"SELECT sum(a) AS s, avg(a) AS v FROM range(10) t(a)",
		"SELECT current_setting('TimeZone') AS z, 7/2 AS d",
		"SELECT nope", "SELEC", "SELECT error('x')", "SELECT 'a'::INT", "SELECT * FROM range(10) WHERE range='E'", "SET threads=1", "SELECT * FROM read_text('/etc/passwd')", "SELECT a FROM (VALUES (2),(NULL),(1)) v(a) ORDER BY a DESC",
	} {
		out, err := rows(t, c, sql, engine.QueryOptions{})
		t.Log(sql, "\n    =>", out, err)
		if e, ok := err.(*engine.Error); ok {
			t.Logf("%+v", *e)
		}
	}
	tree, err := e.SerializeSQL(context.Background(), "SELECT 1")
	t.Log(string(tree), err)
	sql, err := e.DeserializeSQL(context.Background(), tree)
	t.Log(sql, err)
	tree, err = e.SerializeSQL(context.Background(), "SELECT 1 FROM")
	t.Log(string(tree), err)
	v, err := e.Eval(context.Background(), "SELECT lower('X'), 1, 1.5::DOUBLE, NULL, TIMESTAMP_NS '2024-01-01T00:00:00+02:00'")
	t.Log(v, err)
}
