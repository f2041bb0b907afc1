package peers

import (
	"context"
	"maps"
	"testing"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/micromegas-go/micromegas/sdk"
)

// ticks is the clock that the library reads for each event.
//
//go:linkname ticks github.com/micromegas-go/micromegas/sdk.ticks
func ticks() int64

// ourBurst events are at most 300 KiB of words: below what wakes the recorder, and far below what it may hold.
const ourBurst = 4 << 10

var (
	ourLog      = sdk.NewLog(sdk.Info, "connection accepted")
	ourArgs     = sdk.NewLog(sdk.Info, "accepted %s in %v after %d tries")
	ourDisabled = sdk.NewLog(sdk.Trace, "accepted after %d tries")
	ourInt      = sdk.NewInt("queue_length", "count")
	ourCounter  = sdk.NewCounter("requests", "count")
	ourSpan     = sdk.NewSpan("update")
)

// nowhere is a sink that drops everything.
type nowhere struct{}

func (nowhere) Send(sdk.Request)            {}
func (nowhere) Flush(context.Context) error { return nil }
func (nowhere) Close(context.Context) error { return nil }
func (nowhere) Stats() sdk.SinkStats        { return sdk.SinkStats{} }

// start starts the library; a benchmark that loses an event fails.
func start(b *testing.B) {
	b.Helper()
	before := sdk.Stats().Dropped
	if err := sdk.Start(b.Context(), sdk.Config{Sink: nowhere{}}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := sdk.Stop(context.Background()); err != nil {
			b.Error(err)
		}
		if after := sdk.Stats().Dropped; !maps.Equal(before, after) {
			b.Errorf("dropped %v, before %v", after, before)
		}
	})
}

// ours is the work of our library in a running benchmark.
func ours(b *testing.B, body func() func(n int)) work {
	b.Helper()
	start(b)
	return work{body: body, burst: ourBurst, flush: func() {
		if err := sdk.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}}
}

func same(f func(n int)) func() func(int) { return func() func(int) { return f } }

// BenchmarkClock is the floor of everything that carries a time.
func BenchmarkClock(b *testing.B) {
	direct(func(n int) {
		for range n {
			ticks()
		}
	}).each(b, "micromegas")
	direct(func(n int) {
		for range n {
			_ = time.Now()
		}
	}).each(b, "time.Now")
}
