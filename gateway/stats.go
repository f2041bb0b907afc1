package gateway

import (
	"math/bits"
	"net/http"
	"sync/atomic"
	"time"
)

// reason is why a request was not answered with 200.
type reason uint8

const (
	reasonPath reason = iota
	reasonMethod
	reasonAuth
	reasonTooLarge
	reasonEmpty
	reasonDecode
	reasonRead
	reasonBodies
	reasonDisk
	reasonDraining
	reasonBus
	reasons
)

var reasonNames = [reasons]string{
	"unknown_path", "wrong_method", "auth", "body_too_large", "empty_body", "bad_body", "body_read", "bodies_in_flight",
	"disk_reserve", "draining", "bus_unavailable",
}

// statuses are all codes that a gateway answers.
var statuses = [...]int{
	http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed,
	http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable,
}

// routeCounts counts a route's answers, in the order of statuses.
type routeCounts [len(statuses)]atomic.Int64

func (c *routeCounts) add(status int) {
	for i, s := range statuses {
		if s == status {
			c[i].Add(1)
			return
		}
	}
}

// latencies is a histogram of durations with four buckets for each power of two of microseconds: a quantile is off by
// at most a quarter, and adding is one atomic increment.
type latencies struct {
	buckets [latencyBuckets]atomic.Int64
	maxUs   atomic.Int64
}

const latencyBuckets = 4 * 32

func (l *latencies) add(d time.Duration) {
	us := max(d.Microseconds(), 0)
	l.buckets[latencyBucket(uint64(us))].Add(1)
	for {
		top := l.maxUs.Load()
		if us <= top || l.maxUs.CompareAndSwap(top, us) {
			return
		}
	}
}

// latencyBucket: 0 to 3 µs have a bucket each; from 4 µs on the leading bit and the two after it choose.
func latencyBucket(us uint64) int {
	if us < 4 {
		return int(us)
	}
	n := bits.Len64(us)
	return min((n-2)*4+int(us>>(n-3))&3, latencyBuckets-1)
}

// latencyLimit is the first duration above bucket i, in microseconds.
func latencyLimit(i int) int64 {
	if i < 4 {
		return int64(i) + 1
	}
	n := i/4 + 2
	return int64(4+i%4+1) << (n - 3)
}

// Latency summarises a histogram. Quantiles are upper bounds, at most a quarter too high.
type Latency struct {
	Count              int64
	P50, P90, P99, Max time.Duration
}

func (l *latencies) snapshot() Latency {
	var counts [latencyBuckets]int64
	s := Latency{Max: time.Duration(l.maxUs.Load()) * time.Microsecond}
	for i := range counts {
		counts[i] = l.buckets[i].Load()
		s.Count += counts[i]
	}
	quantile := func(q float64) time.Duration {
		rest := int64(q * float64(s.Count))
		for i, n := range counts {
			if rest -= n; rest < 0 {
				return min(time.Duration(latencyLimit(i))*time.Microsecond, s.Max)
			}
		}
		return s.Max
	}
	s.P50, s.P90, s.P99 = quantile(0.5), quantile(0.9), quantile(0.99)
	return s
}

// Stats is a snapshot of a gateway's counters, all since its start.
type Stats struct {
	Routes            []RouteStats
	Rejects           map[string]int64 // by reason
	BodyBytes         int64            // of bodies answered with 200
	RequestsInFlight  int64
	BodyBytesInFlight int64   // bytes of buffers that hold bodies
	Ack               Latency // of requests answered with 200, from their header to the answer
	Tags              TagStats
}

// RouteStats counts a route's answers by status.
type RouteStats struct {
	Path     string
	Statuses map[int]int64
}

// Stats returns the counters. Unknown paths are counted under path "".
func (g *Gateway) Stats() Stats {
	s := Stats{
		Rejects:           make(map[string]int64, reasons),
		BodyBytes:         g.bodyBytes.Load(),
		RequestsInFlight:  g.requests.Load(),
		BodyBytesInFlight: g.bodies.inFlight.Load(),
		Ack:               g.acks.snapshot(),
		Tags:              g.tags.snapshot(),
	}
	for i := range g.rejects {
		s.Rejects[reasonNames[i]] = g.rejects[i].Load()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.routes {
		rs := RouteStats{Path: r.Path, Statuses: map[int]int64{}}
		for i := range r.counts {
			if n := r.counts[i].Load(); n > 0 {
				rs.Statuses[statuses[i]] = n
			}
		}
		s.Routes = append(s.Routes, rs)
	}
	return s
}
