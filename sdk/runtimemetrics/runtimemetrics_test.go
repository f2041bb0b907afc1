package runtimemetrics

import (
	"context"
	"math"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

func begin(t testing.TB) *memsink.Sink {
	t.Helper()
	sink := memsink.New(0)
	if err := sdk.Start(context.Background(), sdk.Config{Sink: sink}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Stop(context.Background()) })
	return sink
}

// values returns the last value of each measure that arrived, and its unit.
func values(t *testing.T, sink *memsink.Sink) (last map[string]float64, units map[string]string) {
	t.Helper()
	if err := sdk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := sink.Decode()
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Measures()
	if err != nil {
		t.Fatal(err)
	}
	last, units = map[string]float64{}, map[string]string{}
	for _, m := range all {
		if m.Value < 0 || math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
			t.Fatalf("%s is %v", m.Name, m.Value)
		}
		last[m.Name], units[m.Name] = m.Value, m.Unit
	}
	return last, units
}

var wanted = map[string]string{
	"go_heap_live": "bytes", "go_heap_goal": "bytes", "go_heap_objects": "count", "go_heap_allocated": "bytes",
	"go_memory_total": "bytes", "go_memory_released": "bytes", "go_gc_cycles": "count", "go_gc_pause_p50": "ms", "go_gc_pause_p99": "ms", "go_gc_pause_max": "ms",
	"go_sched_latency_p50": "ms", "go_sched_latency_p99": "ms", "go_goroutines": "count", "go_gomaxprocs": "count", "go_cgo_calls": "count",
	"go_cpu_user": "percent", "go_cpu_gc": "percent", "go_cpu_idle": "percent", "process_rss": "bytes", "process_open_fds": "count",
}

func TestEveryMeasureArrives(t *testing.T) {
	sink := begin(t)
	stop := Start(Options{Period: 5 * time.Millisecond})
	defer stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		runtime.GC()
		last, units := values(t, sink)
		missing := ""
		for name, unit := range wanted {
			if _, ok := last[name]; !ok && (runtime.GOOS == "linux" || name[:2] == "go") {
				missing = name
			} else if ok && units[name] != unit {
				t.Fatalf("%s is in %s", name, units[name])
			}
		}
		if missing == "" {
			plausible(t, last)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s: %v", missing, last)
		}
	}
}

func plausible(t *testing.T, last map[string]float64) {
	t.Helper()
	for name, bounds := range map[string][2]float64{
		"go_gomaxprocs": {float64(runtime.GOMAXPROCS(0)), float64(runtime.GOMAXPROCS(0))}, "go_goroutines": {2, 1000}, "go_heap_live": {1e4, 1e9},
		"go_cpu_user": {0, 100}, "go_cpu_gc": {0, 100}, "go_cpu_idle": {0, 100}, "go_gc_pause_max": {1e-6, 1e4}, "go_memory_total": {1e6, 1e10},
	} {
		if v := last[name]; v < bounds[0] || v > bounds[1] {
			t.Errorf("%s is %v", name, v)
		}
	}
	if last["go_gc_pause_p50"] > last["go_gc_pause_p99"] || last["go_gc_pause_p99"] > last["go_gc_pause_max"] {
		t.Errorf("%v", last)
	}
	if runtime.GOOS == "linux" && (last["process_rss"] < 1e6 || last["process_open_fds"] < 3) {
		t.Errorf("%v", last)
	}
}

func TestStopEndsReading(t *testing.T) {
	sink := begin(t)
	stop := Start(Options{Period: time.Millisecond})
	stop()
	stop()
	values(t, sink)
	before := len(sink.Requests())
	runtime.GC()
	values(t, sink)
	for _, r := range sink.Requests()[before:] {
		if r.Class == sdk.ClassMetrics {
			t.Error("recorded after stop")
		}
	}
}

func TestQuantile(t *testing.T) {
	bounds := []float64{math.Inf(-1), 1, 2, 3, math.Inf(1)}
	for _, c := range []struct {
		counts []uint64
		q      float64
		want   float64
	}{
		{[]uint64{1, 0, 0, 0}, 0.5, 1},
		{[]uint64{1, 1, 0, 0}, 0.5, 1},
		{[]uint64{1, 2, 0, 0}, 0.5, 2},
		{[]uint64{98, 1, 1, 0}, 0.99, 2},
		{[]uint64{98, 1, 1, 0}, 1, 3},
		{[]uint64{0, 0, 0, 5}, 0.5, 3},
	} {
		sum := uint64(0)
		for _, n := range c.counts {
			sum += n
		}
		if got := quantile(c.q, c.counts, bounds, sum); got != c.want {
			t.Errorf("%v of %v is %v, not %v", c.q, c.counts, got, c.want)
		}
	}
}

func TestOpenFilesAreCounted(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is Linux's")
	}
	before, _ := countFiles()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	counted, _ := countFiles()
	said, ok := openFiles()
	if counted != before+1 || !ok || said != counted {
		t.Errorf("%d files, then %d, or %d", before, counted, said)
	}
	if n, ok := residentPages([]byte("100 25 3 4 0 6 0\n")); n != 25 || !ok {
		t.Error(n, ok)
	}
	if _, ok := residentPages([]byte("100")); ok {
		t.Error("half a line was read")
	}
}

func BenchmarkRead(b *testing.B) {
	begin(b)
	r := newReader()
	defer r.close()
	r.read()
	b.ReportAllocs()
	for b.Loop() {
		r.read()
	}
}
