package sdk

import (
	"context"
	"testing"
	"time"
)

// nowhere is a sink that drops everything.
type nowhere struct{}

func (nowhere) Send(Request)                {}
func (nowhere) Flush(context.Context) error { return nil }
func (nowhere) Close(context.Context) error { return nil }
func (nowhere) Stats() SinkStats            { return SinkStats{} }

var (
	benchLog   = NewLog(Info, "static text")
	benchArgs  = NewLog(Info, "accepted %s in %v after %d tries")
	benchInt   = NewInt("bench_int", "count")
	benchCount = NewCounter("bench_count", "count")
	benchSpan  = NewSpan("bench_span")
	benchOff   = NewLog(Trace, "off")
)

func start(b testing.TB) {
	b.Helper()
	if err := Start(context.Background(), Config{Sink: nowhere{}, Memory: 1 << 30}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { Stop(context.Background()) })
}

func BenchmarkClock(b *testing.B) {
	for b.Loop() {
		ticks()
	}
}

func BenchmarkNanotime(b *testing.B) {
	for b.Loop() {
		nanotime()
	}
}

// burstEvents is how many events a benchmark records before the recorder may take them, off the clock: what is measured is the calling
// thread, not who of both is faster.
const burstEvents = 8 << 10

// burst calls f b.N times in bursts.
func burst(b *testing.B, f func(n int)) {
	b.Helper()
	start(b)
	b.ReportAllocs()
	f(burstEvents) // chunks are there
	flushNow(b)
	b.ResetTimer()
	for left := b.N; left > 0; left -= burstEvents {
		f(min(left, burstEvents))
		b.StopTimer()
		flushNow(b)
		b.StartTimer()
	}
}

func flushNow(b *testing.B) {
	if err := Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLog(b *testing.B) {
	burst(b, func(n int) {
		for range n {
			benchLog.Log()
		}
	})
}

func BenchmarkLogArgs(b *testing.B) {
	addr := "10.1.2.3:4567"
	burst(b, func(n int) {
		for i := range n {
			benchArgs.Log(String(addr), Duration(5*time.Millisecond), Int(i))
		}
	})
}

func BenchmarkInt(b *testing.B) {
	burst(b, func(n int) {
		for range n {
			benchInt.Record(5)
		}
	})
}

func BenchmarkCounter(b *testing.B) {
	start(b)
	for b.Loop() {
		benchCount.Add(1)
	}
}

func BenchmarkSpan(b *testing.B) {
	t := NewTrack("bench")
	burst(b, func(n int) {
		for range n {
			spanOnce(t)
		}
	})
}

func spanOnce(t *Track) {
	defer benchSpan.Begin(t).End()
}

func BenchmarkContextSpan(b *testing.B) {
	ctx := context.Background()
	burst(b, func(n int) {
		for range n {
			_, s := benchSpan.Start(ctx)
			s.End()
		}
	})
}

func BenchmarkContextSpanChild(b *testing.B) {
	ctx := context.Background()
	burst(b, func(n int) {
		ctx, root := benchSpan.Start(ctx)
		for range n {
			_, s := benchSpan.Start(ctx)
			s.End()
		}
		root.End()
	})
}

func BenchmarkDisabled(b *testing.B) {
	start(b)
	for b.Loop() {
		benchOff.Log()
	}
}

func BenchmarkDisabledArgs(b *testing.B) {
	start(b)
	for b.Loop() {
		benchOff.Log(Int(5))
	}
}
