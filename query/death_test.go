package query_test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/querytest"
)

// deadly are statements of a line that would take all time or all memory of the machine. Each ends with an error of its
// type, or with rows, within the bounds.
var deadly = []string{
	// Time.
	"SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
	"SELECT count(*) FROM range(100000) a JOIN range(100000) b ON a.value % 2 = b.value % 2",
	"SELECT count(*) FROM generate_series(1, 1000000000000)",
	"SELECT * FROM range(1000000000000) LIMIT 10 OFFSET 999999999999",
	"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
	"WITH RECURSIVE a(x) USING KEY (x) AS (SELECT 1 AS x UNION SELECT x FROM a) SELECT * FROM a",
	"SELECT regexp_matches(repeat('a', 100000) || value::VARCHAR, '(a|aa)+$') FROM range(100000)",
	"SELECT jaro_winkler_similarity(repeat('ab', 5000000), repeat('ba', 5000000))",
	"SELECT levenshtein(repeat('ab', 5000000), repeat('ba', 5000000))",
	"SELECT quantile_cont(value, 0.5) OVER (ROWS BETWEEN 100000 PRECEDING AND CURRENT ROW) FROM range(10000000)",
	"SELECT jsonb_path_query(jsonb_parse(repeat('[', 200) || repeat(']', 200)), '$.**.**.**.**.**.a')",
	"SELECT " + strings.Repeat("abs(", 190) + "1" + strings.Repeat(")", 190),
	"SELECT " + strings.Repeat("[", 190) + "1" + strings.Repeat("]", 190),
	strings.Repeat("SELECT 1 UNION ALL ", 1000) + "SELECT 1",
	"SELECT count(*) FROM range(10) WHERE " + strings.Repeat("value = 1 OR ", 9000) + "value = 2",
	"SELECT count(*) FROM range(10) WHERE value IN (" + strings.Repeat("1234567,", 90_000) + "1)",

	// Memory.
	"SELECT regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g')",
	`SELECT length(regexp_replace(repeat('x', 1000000), '.*', repeat('\0', 10000)))`,
	"SELECT length(array_to_string(list_transform(range(100000), lambda x: 'a'), repeat('y', 100000)))",
	"SELECT length(list_reduce(list_transform(range(40), lambda x: 'aaaaaaaa'), lambda a, b: a || a))",
	"SELECT len(list_reduce(list_transform(range(40), lambda x: [1, 2, 3]), lambda a, b: list_concat(a, a)))",
	"WITH RECURSIVE t(s) AS (SELECT 'xxxxxxxxxxxxxxxx' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
	"SELECT count(*) FROM range(20000) WHERE length(repeat('x', 100000000) || value::VARCHAR) > 0",
	"SELECT max(len(l)) FROM (SELECT list(repeat('x', 1000000)) AS l FROM range(100000))",
	"SELECT length(string_agg('x', repeat('y', 10000))) FROM range(1000000)",
	"SELECT strftime(now(), repeat('%c', 1000000)) FROM range(100000)",
	"SELECT concat_ws(repeat('x', 1000000), 'a', 'b', 'c', 'd') FROM range(100000)",
	"SELECT list_aggregate(range(1000000000), 'sum')",
	"SELECT list_sort(range(10000000))",
	"SELECT histogram(value) FROM range(100000000)",
	"SELECT mode(value) FROM range(100000000)",
	"SELECT list(value) OVER (ORDER BY value) FROM range(1000000)",
	"SELECT unnest(range(10000000)), unnest(range(10000000)) FROM range(10000000)",
	"SELECT quantile_from_histogram(make_histogram(0.0, 1.0, 65536, random()), 0.5) FROM range(100000)",
	"SELECT bit_count(bitstring('1', 1000000000)), printf('%1000000000d', 1), lpad('x', 2000000000, 'y')",
	"SELECT json_group_structure(CAST(repeat('[', 100000) || repeat(']', 100000) AS JSON))",
	"SELECT CAST(CAST(repeat('[', 100000) || repeat(']', 100000) AS JSON) AS VARIANT)",
	"SELECT count(*) FROM json_tree(repeat('[', 100000) || repeat(']', 100000))",
	"SELECT count(*) FROM range(1000000) GROUP BY CUBE(value, value+1, value+2, value+3, value+4, value+5, value+6, value+7, value+8, value+9, value+10, value+11)",
	nested("SELECT * FROM log_entries", "SELECT *, * FROM (prev) AS t", 25),
	nested("SELECT {'a': 1} AS s", "SELECT {'a': s, 'b': s} AS s FROM (prev) AS t", 25),
	nested("SELECT * FROM processes", "SELECT x.*, y.* FROM (prev) AS x, (SELECT 1) AS y, (SELECT 2) AS z", 40),
}

// nested puts a statement into another, again and again.
func nested(first, next string, levels int) string {
	for range levels {
		first = strings.Replace(next, "prev", first, 1)
	}
	return first
}

const (
	deathTimeout = 500 * time.Millisecond
	deathSlack   = 10 * time.Second // a call of the engine that cannot be interrupted, on a busy machine
	deathMemory  = 256 << 20        // of the engine
	deathRise    = 1536 << 20       // of the process: the engine's bound of 1.5 × its memory + 512 MiB, Go, and what comes between two looks
)

// deathVariable says that the process is the one in which the deadly statements run.
const deathVariable = "MICROMEGAS_TEST_DEADLY"

// dieAlone runs the test in a process of its own: the engine's allocator keeps all addresses that it ever had, so what earlier
// tests were allowed would count as room for this one.
func dieAlone(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), deathVariable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestDeadlyStatementsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; run without -short")
	}
	if os.Getenv(deathVariable) == "" {
		dieAlone(t)
		return
	}
	e := querytest.Start(t, querytest.Options{
		Config: func(c *query.Config) { c.Timeout = deathTimeout },
		Engine: func(c *engine.Config) { c.MemoryLimit, c.TempLimit = deathMemory, 256<<20 },
	})
	e.Fixture(t)
	c := e.Dial(t, "")
	before := resident(t)
	for _, sql := range deadly {
		stop, peak := make(chan struct{}), make(chan int64, 1)
		go func() {
			most := int64(0)
			for {
				select {
				case <-stop:
					peak <- most
					return
				case <-time.After(10 * time.Millisecond):
					most = max(most, resident(t))
				}
			}
		}()
		began := time.Now()
		_, err := ask(t.Context(), c, sql, client.QueryOptions{})
		took := time.Since(began)
		close(stop)
		switch code := status.Code(err); code {
		case codes.OK, codes.InvalidArgument, codes.ResourceExhausted, codes.DeadlineExceeded:
		default:
			t.Errorf("%.100s\nfails with %v", sql, err)
		}
		if took > deathTimeout+deathSlack {
			t.Errorf("%.100s\ntook %v", sql, took)
		}
		if most := <-peak; most-before > deathRise {
			t.Errorf("%.100s\ntook %d MiB", sql, (most-before)>>20)
		}
	}
	// The bound does not stand in the way of what comes after.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := ask(ctx, c, "SELECT count(DISTINCT value % 100000), max(length(repeat('x', 1000000))) FROM range(200000)", client.QueryOptions{}); err != nil || got != "100000,1000000" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	waitIdle(t, e)
}

// resident returns the resident bytes of this process, 0 where that cannot be known.
func resident(t *testing.T) int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Error(err)
	}
	return pages * int64(os.Getpagesize())
}
