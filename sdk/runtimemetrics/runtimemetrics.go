// Package runtimemetrics records the state of the Go runtime and the process as measures of package sdk:
//
//	stop := runtimemetrics.Start(runtimemetrics.Options{})
//	defer stop()
//
// Each period it records, with their units:
//
//	go_heap_live, go_heap_goal     bytes    what the last collection left, and where the next begins
//	go_heap_objects                count    objects on the heap
//	go_heap_allocated              bytes    allocated in the period
//	go_memory_total                bytes    that the runtime has mapped
//	go_memory_released             bytes    of those, given back to the system
//	go_gc_cycles                   count    collections that ended in the period
//	go_gc_pause_p50, _p99, _max    ms       pauses of collections in the period
//	go_sched_latency_p50, _p99     ms       how long goroutines of the period were ready before they ran
//	go_goroutines, go_gomaxprocs   count
//	go_cgo_calls                   count    in the period
//	go_cpu_user, go_cpu_gc, go_cpu_idle  percent  of the CPU time between the last two collections that the runtime saw
//	process_rss                    bytes    resident memory (Linux)
//	process_open_fds               count    open files (Linux)
//
// Percentiles are the upper bounds of the runtime's buckets, which are within 25 % of the value. What did not happen in a period has no
// value: no pause without a collection, and no share of CPU time, which the runtime adds up at collections alone.
//
// The package itself allocates nothing that grows; what it records is the same number of events however busy the process or its sink is.
package runtimemetrics

import (
	"math"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// DefaultPeriod is the time between two readings unless Options say otherwise.
const DefaultPeriod = 5 * time.Second

// Options change what Start does.
type Options struct {
	// Period is the time between two readings: DefaultPeriod.
	Period time.Duration
}

// Start records at once, and then each period, until stop is called, which waits for a reading that is under way. Nothing is read as long as
// package sdk is not running.
func Start(o Options) (stop func()) {
	if o.Period <= 0 {
		o.Period = DefaultPeriod
	}
	done := make(chan struct{})
	var goroutine sync.WaitGroup
	goroutine.Go(func() {
		r := newReader()
		defer r.close()
		ticker := time.NewTicker(o.Period)
		defer ticker.Stop()
		for {
			if heapLive.Enabled() {
				r.read()
			}
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		goroutine.Wait()
	})
}

// The measures; heapLive stands for all when it comes to whether anything is recorded.
var (
	heapLive = sdk.NewInt("go_heap_live", "bytes")

	gauges = []gauge{
		{"/gc/heap/live:bytes", heapLive},
		{"/gc/heap/goal:bytes", sdk.NewInt("go_heap_goal", "bytes")},
		{"/gc/heap/objects:objects", sdk.NewInt("go_heap_objects", "count")},
		{"/memory/classes/total:bytes", sdk.NewInt("go_memory_total", "bytes")},
		{"/memory/classes/heap/released:bytes", sdk.NewInt("go_memory_released", "bytes")},
		{"/sched/goroutines:goroutines", sdk.NewInt("go_goroutines", "count")},
		{"/sched/gomaxprocs:threads", sdk.NewInt("go_gomaxprocs", "count")},
	}
	sums = []gauge{
		{"/gc/heap/allocs:bytes", sdk.NewInt("go_heap_allocated", "bytes")},
		{"/gc/cycles/total:gc-cycles", sdk.NewInt("go_gc_cycles", "count")},
		{"/cgo/go-to-c-calls:calls", sdk.NewInt("go_cgo_calls", "count")},
	}
	shares = []share{
		{"/cpu/classes/user:cpu-seconds", sdk.NewFloat("go_cpu_user", "percent")},
		{"/cpu/classes/gc/total:cpu-seconds", sdk.NewFloat("go_cpu_gc", "percent")},
		{"/cpu/classes/idle:cpu-seconds", sdk.NewFloat("go_cpu_idle", "percent")},
	}
	times = []distribution{
		{"/sched/pauses/total/gc:seconds", sdk.NewFloat("go_gc_pause_p50", "ms"), sdk.NewFloat("go_gc_pause_p99", "ms"), sdk.NewFloat("go_gc_pause_max", "ms")},
		{"/sched/latencies:seconds", sdk.NewFloat("go_sched_latency_p50", "ms"), sdk.NewFloat("go_sched_latency_p99", "ms"), nil},
	}
)

const cpuTotal = "/cpu/classes/total:cpu-seconds"

// gauge is a whole number of the runtime; of sums, what is recorded is the difference to the last reading.
type gauge struct {
	from string
	to   *sdk.IntMeasure
}

// share is a number of CPU seconds of which the share of the total is recorded.
type share struct {
	from string
	to   *sdk.FloatMeasure
}

// distribution is a histogram of seconds; max may be nil.
type distribution struct {
	from          string
	p50, p99, max *sdk.FloatMeasure
}

// reader reads all of them at once. It is its goroutine's.
type reader struct {
	samples []metrics.Sample // of gauges, sums, shares, the total of CPU time, times; those that the runtime lacks are KindBad
	first   bool             // there is no last reading
	sums    []uint64         // of the last reading, as the others
	cpu     []float64        // shares, and the total at the end
	counts  [][]uint64       // of times, by bucket
	delta   []uint64
	process *process
}

func newReader() *reader {
	r := &reader{first: true, sums: make([]uint64, len(sums)), cpu: make([]float64, len(shares)+1), counts: make([][]uint64, len(times)), process: openProcess()}
	add := func(name string) { r.samples = append(r.samples, metrics.Sample{Name: name}) }
	for _, g := range gauges {
		add(g.from)
	}
	for _, g := range sums {
		add(g.from)
	}
	for _, s := range shares {
		add(s.from)
	}
	add(cpuTotal)
	for _, d := range times {
		add(d.from)
	}
	return r
}

func (r *reader) close() { r.process.close() }

// read takes a reading and records it.
func (r *reader) read() {
	metrics.Read(r.samples)
	at := r.samples
	for i := range gauges {
		if v, ok := whole(&at[i]); ok {
			gauges[i].to.Record(v)
		}
	}
	at = at[len(gauges):]
	r.readSums(at)
	at = at[len(sums):]
	r.readShares(at)
	at = at[len(shares)+1:]
	for i := range times {
		if at[i].Value.Kind() == metrics.KindFloat64Histogram {
			r.readTimes(i, at[i].Value.Float64Histogram())
		}
	}
	r.process.read()
	r.first = false
}

func whole(s *metrics.Sample) (int64, bool) {
	if s.Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return int64(min(s.Value.Uint64(), math.MaxInt64)), true
}

func (r *reader) readSums(at []metrics.Sample) {
	for i := range sums {
		v, ok := whole(&at[i])
		if !ok {
			continue
		}
		if !r.first {
			sums[i].to.Record(v - int64(r.sums[i]))
		}
		r.sums[i] = uint64(v)
	}
}

func (r *reader) readShares(at []metrics.Sample) {
	for i := range r.cpu {
		if at[i].Value.Kind() != metrics.KindFloat64 {
			return
		}
	}
	total := at[len(shares)].Value.Float64() - r.cpu[len(shares)]
	if total <= 0 {
		return
	}
	for i := range r.cpu {
		v := at[i].Value.Float64()
		if !r.first && i < len(shares) {
			shares[i].to.Record(100 * max(0, v-r.cpu[i]) / total)
		}
		r.cpu[i] = v
	}
}

func (r *reader) readTimes(i int, h *metrics.Float64Histogram) {
	if len(r.counts[i]) != len(h.Counts) {
		r.counts[i] = make([]uint64, len(h.Counts))
	}
	last := r.counts[i]
	r.delta = r.delta[:0]
	sum := uint64(0)
	for k, n := range h.Counts {
		r.delta = append(r.delta, n-last[k])
		sum += n - last[k]
		last[k] = n
	}
	if r.first || sum == 0 {
		return
	}
	const ms = 1e3
	d := &times[i]
	d.p50.Record(ms * quantile(0.5, r.delta, h.Buckets, sum))
	d.p99.Record(ms * quantile(0.99, r.delta, h.Buckets, sum))
	if d.max != nil {
		d.max.Record(ms * quantile(1, r.delta, h.Buckets, sum))
	}
}

// quantile returns the upper bound of the bucket that has the value of rank q·sum; of the last one, which has none, the lower. Bucket i is from
// bounds[i] to bounds[i+1].
func quantile(q float64, counts []uint64, bounds []float64, sum uint64) float64 {
	rank := max(1, uint64(math.Ceil(q*float64(sum))))
	seen := uint64(0)
	for i, n := range counts {
		if seen += n; seen < rank {
			continue
		}
		if b := bounds[i+1]; !math.IsInf(b, 1) {
			return b
		}
		return max(0, bounds[i])
	}
	return 0
}
