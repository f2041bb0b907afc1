package query_test

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// manyID makes ids of many processes, streams and blocks.
func manyID(kind byte, n int) telemetry.ID {
	return telemetry.ID{kind, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// registerMany registers processes with three streams each.
func registerMany(b *testing.B, e *querytest.Env, processes int) {
	b.Helper()
	const step = 2000
	for from := 0; from < processes; from += step {
		var ps []catalog.ProcessReg
		var ss []catalog.StreamReg
		for n := from; n < min(from+step, processes); n++ {
			ps = append(ps, catalog.ProcessReg{Process: telemetry.Process{
				ID: manyID('p', n), Exe: fmt.Sprint("game", n%50, ".exe"), Username: fmt.Sprint("user", n), Computer: fmt.Sprint("pc", n), Distro: "Windows 11", CPUBrand: "cpu",
				TSCFrequency: 1e9, StartTime: querytest.At(float64(n) / 100), Properties: []telemetry.Property{{Key: "build-version", Value: "1.2.3"}, {Key: "branch", Value: "main"}},
			}, InsertTime: querytest.At(float64(n)/100 + 1)})
			for k, tag := range []string{"log", "metrics", "cpu"} {
				ss = append(ss, catalog.StreamReg{
					Stream: telemetry.Stream{
						ID: manyID('s', 3*n+k), ProcessID: manyID('p', n), Tags: []string{tag}, Format: telemetry.FormatTransit,
						Properties: []telemetry.Property{{Key: "thread-name", Value: fmt.Sprint("worker", k)}},
					},
					DependenciesCBOR: bytes.Repeat([]byte(tag), 500), ObjectsCBOR: bytes.Repeat([]byte(tag), 300), InsertTime: querytest.At(float64(n)/100 + 1),
				})
			}
		}
		e.Archive(b, ps, ss, nil)
	}
}

// manyBlock is block n of a stream.
func manyBlock(n, stream int) catalog.BlockReg {
	return catalog.BlockReg{
		Block:      telemetry.Block{ID: manyID('b', n), StreamID: manyID('s', stream), ProcessID: manyID('p', stream/3), BeginTime: querytest.At(float64(n)), EndTime: querytest.At(float64(n) + 1)},
		InsertTime: querytest.At(float64(n) + 2), PackLength: 1,
	}
}

// BenchmarkManyProcesses is a query over 100,000 processes and 300,000 streams after one block arrived, and the memory of the process
// above what it had before the first query.
func BenchmarkManyProcesses(b *testing.B) {
	const processes = 100_000
	e := querytest.Start(b, querytest.Options{})
	registerMany(b, e, processes)
	c := e.Dial(b, "")
	blocks := 0
	f := func(name, sql string) {
		b.Run(name, func(b *testing.B) {
			runtime.GC()
			debug.FreeOSMemory()
			idle, peak := residentBytes(), newPeak()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				blocks++
				e.Archive(b, nil, nil, []catalog.BlockReg{manyBlock(blocks, blocks*7919%(3*processes))})
				b.StartTimer()
				if _, err := ask(b.Context(), c, sql, client.QueryOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(peak.stop()-idle)/(1<<20), "MiB-above-idle")
		})
	}
	f("processes/first", "SELECT count(*) FROM processes")
	f("processes/count", "SELECT count(*) FROM processes")
	f("processes/newest", "SELECT process_id, exe FROM processes ORDER BY last_update_time DESC LIMIT 10")
	f("streams/first", "SELECT count(*) FROM streams")
	f("streams/count", "SELECT count(*) FROM streams")
	f("streams/of", "SELECT stream_id, tags FROM streams WHERE process_id = '"+manyID('p', 77).String()+"'")
	f("blocks/count", "SELECT count(*) FROM blocks")
}
