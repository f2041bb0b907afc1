package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/query/engine"
)

// logFile writes a Parquet file of n log rows, and returns an engine that can read it.
func logFile(tb testing.TB, n int) (*engine.Engine, string) {
	tb.Helper()
	dir := tb.TempDir()
	if keep := os.Getenv("MICROMEGAS_BENCH_FOLDER"); keep != "" {
		dir = keep
	}
	file := filepath.Join(dir, fmt.Sprintf("logs-%d.parquet", n))
	e := open(tb, func(c *engine.Config) {
		c.AllowedDirs = []string{dir}
		c.MemoryLimit = 1 << 30
		c.Threads = 2
	})
	if _, err := os.Stat(file); err == nil {
		return e, file
	}
	c := conn(tb, e)
	sql := fmt.Sprintf(`COPY (SELECT make_timestamp_ns(1772359200000000000 + i * 1000003) AS time,
		'1111111' || (i %% 4)::VARCHAR || '-2222-3333-4444-555555555555' AS process_id, CAST(1 + i %% 6 AS INTEGER) AS level,
		'game::module' || (i %% 17)::VARCHAR AS target, 'message number ' || i::VARCHAR || ' of the benchmark' AS msg,
		('{"map":"Oslo","session":"' || (i %% 100)::VARCHAR || '"}')::JSON AS properties
		FROM range(%d) t(i)) TO '%s' (FORMAT parquet, COMPRESSION zstd)`, n, file)
	if err := c.Exec(context.Background(), sql); err != nil {
		tb.Fatal(err)
	}
	return e, file
}

func benchQuery(b *testing.B, n int, format string, opts engine.QueryOptions) {
	e, file := logFile(b, n)
	b.ReportAllocs()
	rows, began := int64(0), time.Now()
	for b.Loop() {
		c, err := e.Conn(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		res, err := c.Query(b.Context(), fmt.Sprintf(format, file), opts)
		if err != nil {
			b.Fatal(err)
		}
		for {
			batch, err := res.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			rows += batch.NumRows()
			batch.Release()
		}
		res.Close()
		c.Close()
	}
	b.ReportMetric(float64(rows)/time.Since(began).Seconds()/1e6, "Mrows/s")
}

func BenchmarkStreamLogs(b *testing.B) {
	benchQuery(b, 1_000_000, "SELECT time, process_id, level, target, msg FROM read_parquet('%s')", engine.QueryOptions{})
}

func BenchmarkStreamProperties(b *testing.B) {
	benchQuery(b, 1_000_000, "SELECT time, properties FROM read_parquet('%s')", engine.QueryOptions{})
}

func BenchmarkStreamPreserved(b *testing.B) {
	benchQuery(b, 1_000_000, "SELECT time, properties FROM read_parquet('%s')", engine.QueryOptions{PreserveDictionary: true})
}

func BenchmarkPropertyGet(b *testing.B) {
	benchQuery(b, 1_000_000, "SELECT property_get(properties, 'Session') AS v, count(*) FROM read_parquet('%s') GROUP BY v", engine.QueryOptions{})
}

func BenchmarkPropertyArrow(b *testing.B) {
	benchQuery(b, 1_000_000, "SELECT properties ->> 'session' AS v, count(*) FROM read_parquet('%s') GROUP BY v", engine.QueryOptions{})
}

func BenchmarkCount(b *testing.B) {
	benchQuery(b, 1_000_000, "SELECT level, count(*) FROM read_parquet('%s') GROUP BY level", engine.QueryOptions{})
}

func BenchmarkSelectOne(b *testing.B) {
	e := open(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		c, err := e.Conn(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Exec(b.Context(), "CREATE TEMP VIEW log_entries AS SELECT 1 AS a WHERE false"); err != nil {
			b.Fatal(err)
		}
		res, err := c.Query(b.Context(), "SELECT 1", engine.QueryOptions{})
		if err != nil {
			b.Fatal(err)
		}
		batch, err := res.Next()
		if err != nil {
			b.Fatal(err)
		}
		batch.Release()
		res.Close()
		c.Close()
	}
}

func BenchmarkSerializeSQL(b *testing.B) {
	e := open(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		tree, err := e.SerializeSQL(b.Context(), "SELECT level, count(*) AS c FROM log_entries WHERE msg LIKE '%x%' GROUP BY level ORDER BY level")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.DeserializeSQL(b.Context(), tree); err != nil {
			b.Fatal(err)
		}
	}
}
