package bus_test

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// cpuTime is what this process, server included, used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPublish publishes 34 kB blocks from 32 waiting producers to a synced stream, with trimming, and reports the
// whole process' CPU time per block and the acknowledgement's latency. With readers, that many follow the stream and
// verify every record.
func BenchmarkPublish(b *testing.B) {
	for _, shards := range []int{1, 4} {
		for readers := range 3 {
			b.Run(fmt.Sprintf("shards=%d/readers=%d", shards, readers), func(b *testing.B) { benchmarkPublish(b, shards, readers) })
		}
	}
}

func benchmarkPublish(b *testing.B, shards, readers int) {
	const producers, size = 32, 34_000
	e := bustest.NewEnv(b)
	bb := e.Open(b, func(c *bus.Config) { c.ShardsPerClass, c.MaxBytes = shards, 64<<30 })
	records := make([]*bus.Record, producers)
	perShard := map[bus.Shard]int{}
	for i := range records {
		records[i] = bustest.Block(telemetry.NewID(), i, size)
		perShard[bb.ShardOf(bus.Eager, records[i].ProcessID)] += b.N/producers + 1
	}
	b.SetBytes(size)
	b.ReportAllocs()
	latencies := make([][]time.Duration, producers)
	b.ResetTimer()
	cpu := cpuTime(b)
	var wg sync.WaitGroup
	for i, r := range records {
		wg.Go(func() {
			for range b.N/producers + 1 {
				t := time.Now()
				if err := bb.Publish(b.Context(), bus.Eager, r); err != nil {
					b.Error(err)
					return
				}
				latencies[i] = append(latencies[i], time.Since(t))
			}
		})
	}
	for s, n := range perShard {
		for range readers {
			wg.Go(func() { readAll(b, bb, s, n) })
		}
	}
	wg.Wait()
	n := float64((b.N/producers + 1) * producers)
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/n, "cpu-µs/block")
	all := slices.Sorted(slices.Values(slices.Concat(latencies...)))
	b.ReportMetric(all[len(all)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(all[len(all)*99/100].Seconds()*1e3, "p99-ms")
}

func readAll(b *testing.B, bb *bus.Bus, s bus.Shard, n int) {
	r, err := bb.NewReader(b.Context(), start(bb, s), nil)
	if err != nil {
		b.Error(err)
		return
	}
	defer r.Close()
	for n > 0 {
		f, err := r.Next(b.Context())
		if err != nil {
			b.Error(err)
			return
		}
		for _, rec := range f.Records() {
			if rec.Err != nil {
				b.Error(rec.Err)
			}
			n--
		}
	}
}
