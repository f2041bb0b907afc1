package query_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// BenchmarkSelect1 is a warm query without tables from the Go client over loopback.
func BenchmarkSelect1(b *testing.B) {
	benchmarkStatement(b, "SELECT 1")
}

// BenchmarkSmallTable is a warm query over two small files.
func BenchmarkSmallTable(b *testing.B) {
	benchmarkStatement(b, "SELECT level, count(*) AS c FROM log_entries GROUP BY level ORDER BY level")
}

// BenchmarkProcesses is a warm query over a snapshot of the catalog.
func BenchmarkProcesses(b *testing.B) {
	benchmarkStatement(b, "SELECT process_id, exe FROM processes")
}

func benchmarkStatement(b *testing.B, sql string) {
	e := querytest.Start(b, querytest.Options{})
	e.Fixture(b)
	c := e.Dial(b, "")
	if _, err := ask(b.Context(), c, sql, client.QueryOptions{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ask(b.Context(), c, sql, client.QueryOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStreamRows streams log rows from Parquet files through the engine to the Go client, and reports how much
// memory the process took above what it had, client included.
func BenchmarkStreamRows(b *testing.B) {
	const files, rowsPerFile = 10, 1_000_000
	e := querytest.Start(b, querytest.Options{})
	e.Fixture(b)
	batch := logBatch(rowsPerFile)
	for i := range files {
		e.PartitionFile(b, catalog.Partition{
			View: "log_entries", Rows: rowsPerFile,
			MinTime: querytest.At(float64(3600 + i)), MaxTime: querytest.At(float64(3601 + i)),
		}, batch)
	}
	batch.Release()
	c := e.Dial(b, "")
	debug.FreeOSMemory() // what making the files took is not the query's
	idle := residentBytes()
	peak := newPeak()
	for b.Loop() {
		rows, err := c.Query(b.Context(), "SELECT time, process_id, level, target, msg FROM log_entries", client.QueryOptions{Begin: querytest.Clock(3600), End: querytest.Clock(7200)})
		if err != nil {
			b.Fatal(err)
		}
		n := int64(0)
		for {
			batch, err := rows.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			n += batch.NumRows()
		}
		rows.Close()
		if n != files*rowsPerFile {
			b.Fatalf("%d rows", n)
		}
	}
	b.ReportMetric(float64(files*rowsPerFile)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
	b.ReportMetric(float64(peak.stop()-idle)/(1<<20), "MiB-above-idle")
}

// logBatch makes rows like those of a game: 2,000 messages, a few targets and processes.
func logBatch(rows int) arrow.RecordBatch {
	t := tables.Must("log_entries")
	b := array.NewRecordBuilder(memory.DefaultAllocator, t.FileSchema())
	defer b.Release()
	b.Reserve(rows)
	text := func(i int, s string) {
		switch f := b.Field(i).(type) {
		case *array.BinaryDictionaryBuilder:
			if err := f.AppendString(s); err != nil {
				panic(err)
			}
		case *array.StringBuilder:
			f.Append(s)
		case *array.ExtensionBuilder:
			f.Builder.(*array.StringBuilder).Append(s)
		}
	}
	for i := range rows {
		at := arrow.Timestamp(querytest.At(3600) + int64(i)*3_600_000)
		text(0, querytest.P1.String())
		text(1, querytest.StreamID(i%4).String())
		text(2, querytest.BlockID(i/1000).String())
		b.Field(3).(*array.TimestampBuilder).Append(at)
		text(4, "game.exe")
		text(5, "alice")
		text(6, "PC1")
		b.Field(7).(*array.TimestampBuilder).Append(at)
		text(8, fmt.Sprintf("game::target%d", i%20))
		b.Field(9).(*array.Int32Builder).Append(int32(1 + i%6))
		text(10, fmt.Sprintf("connection %d was lost after some time", i%2000))
		text(11, "{}")
		text(12, "{}")
	}
	return b.NewRecordBatch()
}

// residentBytes returns the memory of this process that is in RAM, 0 where the system does not say.
func residentBytes() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib << 10
}

// peak watches residentBytes.
type peak struct {
	done chan struct{}
	wg   sync.WaitGroup
	most int64
}

func newPeak() *peak {
	p := &peak{done: make(chan struct{})}
	p.wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-tick.C:
				p.most = max(p.most, residentBytes())
			}
		}
	})
	return p
}

func (p *peak) stop() int64 {
	close(p.done)
	p.wg.Wait()
	return p.most
}
