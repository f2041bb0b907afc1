package telemetry

import (
	"errors"
	"math"
	"time"
)

// ErrNoFrequency is the error of a clock that cannot be made: the process does not know its tick frequency and the block
// does not allow to estimate one.
var ErrNoFrequency = errors.New("tick frequency is unknown and cannot be estimated")

// Clock turns the ticks of one process into time.
type Clock struct {
	startTime  int64   // ns, truncated to µs
	startTicks int64   // absolute
	nsPerTick  float64 // 1e9 / frequency
	msPerTick  float64 // 1e3 / frequency
}

// NewClock returns the clock of process p. When the process's tick frequency is unknown it is estimated from block b:
// relative end ticks divided by the seconds between the process's start and the block's end, rounded to whole ticks per second.
// Rows of logs, metrics and images use their own block for b, so their times depend on nothing else.
//
// The process's start time and the block's end time are truncated to microseconds, which is what catalogs keep (upstream's
// PostgreSQL too), so that a clock made from requests and one made from the catalog agree.
func NewClock(p Process, b Block) (Clock, error) {
	start := TruncateMicros(p.StartTime)
	freq := float64(p.TSCFrequency)
	if p.TSCFrequency <= 0 {
		freq = math.Round(float64(b.EndTicks) / (difference(TruncateMicros(b.EndTime), start) / 1e9))
	}
	if !(freq > 0) || math.IsInf(freq, 0) {
		return Clock{}, ErrNoFrequency
	}
	return Clock{startTime: start, startTicks: p.StartTicks, nsPerTick: 1e9 / freq, msPerTick: 1e3 / freq}, nil
}

// Time returns the time of an event's (absolute) ticks, clamped to the range of int64 nanoseconds.
func (c Clock) Time(ticks int64) int64 { return c.Relative(ticks - c.startTicks) }

// Relative returns the time of ticks relative to the process's start ticks, as blocks carry them, clamped to the range of int64
// nanoseconds.
func (c Clock) Relative(delta int64) int64 {
	ns := math.Round(float64(delta) * c.nsPerTick)
	switch sum := float64(c.startTime) + ns; {
	case sum >= math.MaxInt64:
		return math.MaxInt64
	case sum <= math.MinInt64:
		return math.MinInt64
	case ns >= math.MaxInt64 || ns <= math.MinInt64: // a start that far away has no nanoseconds to lose
		return int64(sum)
	}
	return c.startTime + int64(ns)
}

// difference returns a - b, exact as long as it fits an int64.
func difference(a, b int64) float64 {
	if d := a - b; (d > 0) == (a > b) {
		return float64(d)
	}
	return float64(a) - float64(b)
}

// DurationMs returns a number of ticks as milliseconds.
func (c Clock) DurationMs(delta int64) float64 { return float64(delta) * c.msPerTick }

// TruncateMicros cuts a time to whole microseconds, towards the past.
func TruncateMicros(ns int64) int64 {
	if r := ns % 1000; r < 0 && ns > math.MinInt64+1000 {
		return ns - r - 1000
	}
	return ns - ns%1000
}

// Nanoseconds returns a time since the Unix epoch, or the nearest that an int64 holds.
func Nanoseconds(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}
