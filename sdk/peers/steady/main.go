//go:build unix

// Command steady measures what the library costs a program that records at a steady rate: 40 % log entries with arguments, 40 % measures,
// 20 % edges of spans, every hundredth of a second as many as are due. It prints one JSON object, see result.
//
// CPU is that of the whole process, by getrusage. What recording costs its goroutine is the median of the batches times their number; what
// the loop costs that waits and counts is measured beforehand, with the library not started. The rest is the background: taking
// events, encoding, compressing, handing over and, with -sink http, posting to a server in another process, which answers 200 and counts.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
)

// The load's grain.
const (
	tick      = 10 * time.Millisecond
	unit      = 10              // events of mix
	idleShare = 6               // the loop alone runs for this part of the time
	minIdle   = 2 * time.Second // and at least so long
	stopTime  = 30 * time.Second
)

// result is what is printed.
type result struct {
	Sink       string           `json:"sink"`
	Seconds    float64          `json:"seconds"`
	Events     int64            `json:"events"`
	Rate       float64          `json:"events_per_second"`
	CallerNS   float64          `json:"caller_ns_per_event"`     // median batch, by the wall clock
	CPUPercent float64          `json:"cpu_percent_of_a_core"`   // user and system, the loop included
	LoopCPU    float64          `json:"loop_percent_of_a_core"`  // of that, without the library
	Background float64          `json:"background_ns_per_event"` // CPU less loop and caller
	PeakBytes  int64            `json:"peak_rss_bytes"`          // 0 = unknown
	Dropped    map[string]int64 `json:"dropped"`                 // by the recorder
	SinkStats  sdk.SinkStats    `json:"sink_stats"`
	Posts      int64            `json:"posts"` // counted by the server
}

func main() {
	seconds := flag.Float64("seconds", 60, "how long to record")
	rate := flag.Int("rate", 100_000, "events a second")
	kind := flag.String("sink", "discard", "discard, or http: posts to a server in a process of its own")
	serve := flag.Bool("serve", false, "be that server, until the input ends")
	flag.Parse()
	if err := run(*serve, *kind, *seconds, *rate); err != nil {
		fmt.Fprintln(os.Stderr, "steady:", err)
		os.Exit(1)
	}
}

func run(serving bool, kind string, seconds float64, rate int) error {
	if serving {
		return serve(os.Stdin, os.Stdout)
	}
	if seconds <= 0 || rate < unit*int(time.Second/tick) {
		return fmt.Errorf("want more than 0 seconds, and %d events a second or more", unit*int(time.Second/tick))
	}
	switch kind {
	case "discard":
		return report(measure(kind, &discard{}, seconds, rate))
	case "http":
		return overHTTP(seconds, rate)
	}
	return fmt.Errorf("no sink %q: discard or http", kind)
}

func report(r result, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// overHTTP starts the server and measures with it.
func overHTTP(seconds float64, rate int) error {
	s, err := startServer()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	cfg := httpsink.DefaultConfig()
	cfg.URL = s.url
	sink, err := httpsink.New(cfg)
	if err != nil {
		return errors.Join(err, s.stop())
	}
	r, err := measure("http", sink, seconds, rate)
	err = errors.Join(err, s.stop())
	r.Posts = s.posts
	return report(r, err)
}

// measure records for some seconds.
func measure(kind string, sink sdk.Sink, seconds float64, rate int) (result, error) {
	during := time.Duration(seconds * float64(time.Second))
	perTick := rate / int(time.Second/tick) / unit
	l := load{track: sdk.NewTrack("worker"), times: make([]time.Duration, 0, int(during/tick)+1)}
	alone := max(minIdle, during/idleShare)
	loop := cpuOf(func() { l.run(alone, perTick) }) // sites do nothing yet
	l.times = l.times[:0]

	if err := sdk.Start(context.Background(), sdk.Config{Sink: sink}); err != nil {
		return result{}, err
	}
	var err error
	begin := time.Now()
	total := cpuOf(func() {
		l.run(during, perTick)
		err = sdk.Flush(context.Background())
	})
	took := time.Since(begin).Seconds()
	r := result{Sink: kind, Seconds: took, Events: int64(len(l.times) * perTick * unit), Dropped: sdk.Stats().Dropped}
	stopping, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := errors.Join(err, sdk.Stop(stopping)); err != nil {
		return r, err
	}
	slices.Sort(l.times)
	perEvent := float64(l.times[len(l.times)/2].Nanoseconds()) / float64(perTick*unit)
	loopShare := loop.Seconds() / alone.Seconds()
	r.Rate = float64(r.Events) / took
	r.CallerNS = perEvent
	r.CPUPercent = total.Seconds() / took * 100
	r.LoopCPU = loopShare * 100
	r.Background = (total.Seconds()-loopShare*took)*1e9/float64(r.Events) - perEvent
	r.PeakBytes = peak()
	r.SinkStats = sink.Stats()
	return r, nil
}

var (
	accepted = sdk.NewLog(sdk.Info, "accepted %s in %v after %d tries")
	length   = sdk.NewInt("queue_length", "count")
	frame    = sdk.NewFloat("frame_time", "ms")
	update   = sdk.NewSpan("update")
)

// load is what records.
type load struct {
	track *sdk.Track
	times []time.Duration // of batches
}

// run records a batch a tick; what is late is caught up.
func (l *load) run(during time.Duration, units int) {
	begin := time.Now()
	for n := range int(during / tick) {
		from := time.Now()
		for i := range units {
			l.mix(n + i)
		}
		l.times = append(l.times, time.Since(from))
		time.Sleep(time.Until(begin.Add(time.Duration(n+1) * tick)))
	}
}

// mix records 4 entries, 4 measures and a span, which has two edges.
func (l *load) mix(i int) {
	s := update.Begin(l.track)
	for k := range 4 {
		accepted.Log(sdk.String("10.1.2.3:4567"), sdk.Duration(time.Duration(i)*time.Microsecond), sdk.Int(k))
	}
	length.Record(int64(i))
	length.Record(int64(i + 3))
	frame.Record(float64(i) / 16)
	frame.Record(16.6)
	s.End()
}
