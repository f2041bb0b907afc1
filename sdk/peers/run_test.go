package peers

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// work is what one library does in one benchmark.
type work struct {
	// body returns what one goroutine does: n events, or spans, or whatever is counted.
	body func() func(n int)
	// flush empties the buffers. nil: there are none, and a benchmark is a single burst.
	flush func()
	// burst is how many events of a goroutine the buffers hold.
	burst int
}

// direct is the work of a library without buffers, the same for each goroutine.
func direct(f func(n int)) work { return work{body: func() func(int) { return f }} }

// each runs the work with one and with two goroutines.
func (w work) each(b *testing.B, library string) {
	b.Helper()
	for _, goroutines := range []int{1, 2} {
		b.Run(library+"/"+strconv.Itoa(goroutines), func(b *testing.B) { w.run(b, goroutines) })
	}
}

func (w work) run(b *testing.B, goroutines int) {
	if runtime.GOMAXPROCS(0) < goroutines {
		b.Skipf("GOMAXPROCS is below %d: try -cpu %d", goroutines, goroutines)
	}
	bodies := make([]func(int), goroutines)
	for i := range bodies {
		bodies[i] = w.body()
	}
	burst := b.N
	if w.flush != nil {
		burst = w.burst * goroutines
		together(bodies, burst) // buffers are there
		w.flush()
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.StopTimer()
	var sum time.Duration
	for left := b.N; left > 0; left -= burst {
		b.StartTimer()
		sum += together(bodies, min(left, burst))
		b.StopTimer()
		if w.flush != nil {
			w.flush()
		}
	}
	b.ReportMetric(float64(sum.Nanoseconds())/float64(b.N), "ns/op")
}

// together has bodies do n events, and returns the time from the first beginning to the last end.
func together(bodies []func(int), n int) time.Duration {
	if len(bodies) == 1 {
		begin := time.Now()
		bodies[0](n)
		return time.Since(begin)
	}
	share := (n + len(bodies) - 1) / len(bodies)
	begin, end := make([]time.Time, len(bodies)), make([]time.Time, len(bodies))
	var ready atomic.Int32
	var done sync.WaitGroup
	for i, body := range bodies {
		done.Go(func() {
			for ready.Add(1); int(ready.Load()) < len(bodies); { // a lock would wake them one after the other
				runtime.Gosched()
			}
			begin[i] = time.Now()
			body(share)
			end[i] = time.Now()
		})
	}
	done.Wait()
	first, last := begin[0], end[0]
	for i := range bodies {
		if begin[i].Before(first) {
			first = begin[i]
		}
		if end[i].After(last) {
			last = end[i]
		}
	}
	return last.Sub(first)
}
