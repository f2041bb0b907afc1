package peers

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// BenchmarkLatency reports percentiles of single calls. A call lies between two readings of time.Now; what the two cost, the
// median of pairs with nothing between, is taken off. Pairs with nothing between are reported as "nothing": their p99.9 and max
// are what the machine adds to any figure of this kind, by interrupts and by other processes. Calls come in bursts, and buffers are
// emptied between them; a measure changes its buffer once in some 700 calls, an entry with arguments once in 250, so that p99.9 has it.
func BenchmarkLatency(b *testing.B) {
	ctx := context.Background()
	track := sdk.NewTrack("latency")
	defer track.Close()
	for _, c := range []struct {
		name string
		call func()
	}{
		{"nothing", func() {}},
		{"log", func() { ourLog.Log() }},
		{"log with 3 arguments", func() { ourArgs.Log(sdk.String(addr), sdk.Duration(took), sdk.Int(7)) }},
		{"measure", func() { ourInt.Record(7) }},
		{"span on a track", func() { onTrack(track) }},
		{"span in a context", func() {
			_, s := ourSpan.Start(ctx)
			s.End()
		}},
	} {
		b.Run(c.name, func(b *testing.B) { latency(b, c.call) })
	}
}

func latency(b *testing.B, call func()) {
	w := ours(b, nil)
	own := make([]time.Duration, ourBurst)
	timed(own, func() {})
	clock := percentile(own, 50)
	all := make([]time.Duration, b.N)
	b.ResetTimer()
	for part := range slices.Chunk(all, ourBurst) {
		timed(part, call)
		w.flush()
	}
	b.ReportMetric(0, "ns/op") // would be that of the flushes
	b.ReportMetric(float64(percentile(all, 50)-clock), "p50-ns")
	b.ReportMetric(float64(percentile(all, 99.9)-clock), "p99.9-ns")
	b.ReportMetric(float64(percentile(all, 100)-clock), "max-ns")
	b.ReportMetric(float64(clock), "clock-ns")
}

// timed fills into with the times of calls.
func timed(into []time.Duration, call func()) {
	for i := range into {
		begin := time.Now()
		call()
		into[i] = time.Since(begin)
	}
}

// percentile returns the p-th percentile of ds, which it sorts.
func percentile(ds []time.Duration, p float64) time.Duration {
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(float64(len(ds))*p/100))]
}
