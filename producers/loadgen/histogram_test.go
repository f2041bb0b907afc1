package loadgen_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
)

func TestHistogramIsExactToTwoPercent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, next := range map[string]func() time.Duration{
		"small":       func() time.Duration { return time.Duration(r.IntN(200)) },
		"exponential": func() time.Duration { return time.Duration(r.ExpFloat64() * 3e6) },
		"far apart":   func() time.Duration { return time.Duration(math.Exp(r.Float64() * 40)) },
		"all alike":   func() time.Duration { return 1234567 },
	} {
		var h loadgen.Histogram
		all := make([]time.Duration, 20_000)
		for i := range all {
			all[i] = next()
			h.Record(all[i])
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			want := all[max(1, int(math.Ceil(q*float64(len(all)))))-1]
			if got := h.Quantile(q); math.Abs(float64(got-want)) > 0.02*float64(want) {
				t.Errorf("%s: quantile %g is %v, want %v", name, q, got, want)
			}
		}
		if h.Max() != all[len(all)-1] || h.Count() != int64(len(all)) {
			t.Errorf("%s: max %v of %d, want %v of %d", name, h.Max(), h.Count(), all[len(all)-1], len(all))
		}
		checkBuckets(t, name, h.Latencies().Buckets, all)
	}
}

// checkBuckets counts again.
func checkBuckets(t *testing.T, name string, buckets []loadgen.Bucket, sorted []time.Duration) {
	t.Helper()
	for _, b := range buckets {
		if b.To-b.From > 1 && float64(b.To-b.From) > 0.02*float64(b.From) {
			t.Errorf("%s: a bucket from %d to %d", name, b.From, b.To)
		}
		from, _ := slices.BinarySearch(sorted, b.From)
		to, _ := slices.BinarySearch(sorted, b.To)
		if int64(to-from) != b.Count {
			t.Errorf("%s: %d durations from %d to %d, counted %d", name, to-from, b.From, b.To, b.Count)
		}
	}
}

func TestHistogramTakesEverything(t *testing.T) {
	var h loadgen.Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || len(h.Latencies().Buckets) != 0 {
		t.Error("an empty histogram has latencies")
	}
	for _, d := range []time.Duration{-1, 0, 127, 128, 129, math.MaxInt64 - 1, math.MaxInt64} {
		h.Record(d)
	}
	buckets := h.Latencies().Buckets
	if last := buckets[len(buckets)-1]; last.Count != 2 || last.To != math.MaxInt64 || buckets[0].Count != 2 {
		t.Errorf("buckets %v", buckets)
	}
	if h.Max() != math.MaxInt64 || h.Count() != 7 {
		t.Errorf("max %d of %d", h.Max(), h.Count())
	}
}

func TestHistogramIsSafeForConcurrentUse(t *testing.T) {
	var h loadgen.Histogram
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				h.Record(time.Duration(i*1000 + n))
			}
		})
	}
	wg.Wait()
	if h.Count() != 8000 || h.Max() != 7999 {
		t.Errorf("max %d of %d", h.Max(), h.Count())
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", -123: "-123", 12345: "12,345"} {
		if got := loadgen.Grouped(n); got != want {
			t.Errorf("%d is printed %s", n, got)
		}
	}
}
