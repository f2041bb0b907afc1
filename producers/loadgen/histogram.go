package loadgen

import (
	"fmt"
	"io"
	"math"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"
)

// A histogram's buckets: of durations below 2^(histogramBits+1) ns each has its own; above, every doubling is cut into 2^histogramBits
// equal buckets. A bucket is thus at most 1/64 of where it begins, and its middle at most 0.8 % from anything in it.
const (
	histogramBits    = 6
	histogramBuckets = (63-histogramBits-1)<<histogramBits + 2<<histogramBits // 2^63 ns and less, in 29 KB
)

// Histogram counts durations in buckets that are less than 2 % wide, in memory that does not grow. The zero value is empty. It is safe
// for concurrent use; what is read while others record is of no one moment.
type Histogram struct {
	counts [histogramBuckets]atomic.Int64
	n      atomic.Int64
	max    atomic.Int64
}

// Record counts d; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	v := max(0, int64(d))
	h.counts[bucketOf(v)].Add(1)
	h.n.Add(1)
	for {
		old := h.max.Load()
		if v <= old || h.max.CompareAndSwap(old, v) {
			return
		}
	}
}

// bucketOf keeps the highest histogramBits+1 bits of v: shift says how many others there are, and each shift has its own buckets.
func bucketOf(v int64) int {
	shift := max(0, bits.Len64(uint64(v))-histogramBits-1)
	return shift<<histogramBits + int(v>>shift)
}

// bucketFrom returns the least value of a bucket; it is the inverse of bucketOf.
func bucketFrom(i int) int64 {
	if i < 2<<histogramBits {
		return int64(i)
	}
	shift := i>>histogramBits - 1
	return int64(i-shift<<histogramBits) << shift
}

// bucketTo returns the first value above a bucket, or the greatest there is.
func bucketTo(i int) int64 {
	if i+1 >= histogramBuckets {
		return math.MaxInt64
	}
	return bucketFrom(i + 1)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() int64 { return h.n.Load() }

// Max returns the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max.Load()) }

// Quantile returns the duration that the share q of all durations does not exceed, within 1 %; 0 when there is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := max(1, int64(math.Ceil(q*float64(h.n.Load()))))
	var seen int64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			from := bucketFrom(i)
			return time.Duration(min(from+(bucketTo(i)-1-from)/2, h.max.Load()))
		}
	}
	return 0
}

// Bucket is a part of a histogram: durations from From, which is in it, to To, which is not.
type Bucket struct {
	From  time.Duration `json:"from_ns"`
	To    time.Duration `json:"to_ns"`
	Count int64         `json:"count"`
}

// Latencies are what a histogram says.
type Latencies struct {
	P50     time.Duration `json:"p50_ns"`
	P90     time.Duration `json:"p90_ns"`
	P99     time.Duration `json:"p99_ns"`
	P999    time.Duration `json:"p99_9_ns"`
	Max     time.Duration `json:"max_ns"`
	Buckets []Bucket      `json:"buckets"` // those that are not empty, in order
}

// Latencies returns what is in the histogram.
func (h *Histogram) Latencies() Latencies {
	l := Latencies{P50: h.Quantile(0.5), P90: h.Quantile(0.9), P99: h.Quantile(0.99), P999: h.Quantile(0.999), Max: h.Max()}
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			l.Buckets = append(l.Buckets, Bucket{time.Duration(bucketFrom(i)), time.Duration(bucketTo(i)), n})
		}
	}
	return l
}

// String prints the percentiles.
func (l Latencies) String() string {
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, p99.9 %v, max %v", short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.Max))
}

// short rounds to three digits or so.
func short(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// barWidth is the length of the longest bar of a printed histogram.
const barWidth = 40

// writeHistograms prints two histograms of the same blocks side by side, the first with bars, in steps of 1, 2, 5. A bucket that lies
// across a step is where its middle is.
func writeHistograms(w io.Writer, attempt, intended Latencies) {
	rows := coarse(attempt.Buckets)
	others := coarse(intended.Buckets)
	first, last, most := len(stepsTo), -1, int64(1)
	for i := range stepsTo {
		if rows[i] > 0 || others[i] > 0 {
			first, last = min(first, i), i
		}
		most = max(most, rows[i])
	}
	if last < 0 {
		return
	}
	fmt.Fprintf(w, "%8s  %9s  %9s  blocks acked in as much time, from the attempt and from the intended moment\n", "up to", "attempt", "intended")
	for i := first; i <= last; i++ {
		bar := strings.Repeat("#", int((rows[i]*barWidth+most-1)/most))
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%8s  %9s  %9s  %s", stepsTo[i].name, Grouped(rows[i]), Grouped(others[i]), bar), " "))
	}
}

// step is a line of a printed histogram: durations up to its end and above that of the line before.
type step struct {
	to   time.Duration
	name string
}

// stepsTo are the lines of a printed histogram: of the last, everything longer.
var stepsTo = func() (steps []step) {
	for unit := 10 * time.Microsecond; unit <= 100*time.Second; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			steps = append(steps, step{n * unit, (n * unit).String()})
		}
	}
	return append(steps, step{math.MaxInt64, "longer"})
}()

func coarse(buckets []Bucket) []int64 {
	rows := make([]int64, len(stepsTo))
	at := 0
	for _, b := range buckets {
		for at < len(stepsTo)-1 && b.From+(b.To-b.From)/2 > stepsTo[at].to {
			at++
		}
		rows[at] += b.Count
	}
	return rows
}

// Grouped prints a number with a comma before each three digits.
func Grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
