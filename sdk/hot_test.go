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

// What is measured is the calling thread, in two ways. "far": in bursts, between which the recorder takes the events, off the clock; so the
// words go to lines that the other core read last, as they do in a program. "near": to lines that nobody else touched, which is what is
// left when events come at some distance from one another, and stores have time.
const (
	farEvents  = 8 << 10
	nearEvents = 100
)

func hot(b *testing.B, f func(n int)) {
	b.Helper()
	start(b)
	b.Run("near", func(b *testing.B) {
		b.ReportAllocs()
		f(1)
		flushNow(b)
		for left := b.N; left > 0; left -= nearEvents {
			f(min(left, nearEvents))
			rewind()
		}
	})
	b.Run("far", func(b *testing.B) {
		b.ReportAllocs()
		f(farEvents) // chunks are there
		flushNow(b)
		b.ResetTimer()
		for left := b.N; left > 0; left -= farEvents {
			f(min(left, farEvents))
			b.StopTimer()
			flushNow(b)
			b.StartTimer()
		}
	})
}

// benchTrack is the track of benchmarks.
var benchTrack *Track

// rewind takes back what the P and the track wrote, as far as nobody saw it.
func rewind() {
	l := pin()
	back(&l.writer)
	l.unpin()
	if benchTrack != nil {
		back(&benchTrack.writer)
	}
}

func back(w *writer) {
	if w.cur != nil {
		w.used = w.cur.read
		w.cur.publish(w.used)
	}
}

func flushNow(b *testing.B) {
	if err := Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLog(b *testing.B) {
	hot(b, func(n int) {
		for range n {
			benchLog.Log()
		}
	})
}

func BenchmarkLogArgs(b *testing.B) {
	addr := "10.1.2.3:4567"
	hot(b, func(n int) {
		for i := range n {
			benchArgs.Log(String(addr), Duration(5*time.Millisecond), Int(i))
		}
	})
}

func BenchmarkInt(b *testing.B) {
	hot(b, func(n int) {
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
	benchTrack = NewTrack("bench")
	defer func() { benchTrack = nil }()
	hot(b, func(n int) {
		for range n {
			spanOnce(benchTrack)
		}
	})
}

func spanOnce(t *Track) {
	defer benchSpan.Begin(t).End()
}

func BenchmarkContextSpan(b *testing.B) {
	ctx := context.Background()
	hot(b, func(n int) {
		for range n {
			_, s := benchSpan.Start(ctx)
			s.End()
		}
	})
}

func BenchmarkContextSpanChild(b *testing.B) {
	hot(b, func(n int) {
		ctx, root := benchSpan.Start(context.Background())
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

func BenchmarkLogf(b *testing.B) {
	hot(b, func(n int) {
		for i := range n {
			Logf(context.Background(), Info, "made %d", i)
		}
	})
}

func BenchmarkTrackBegin(b *testing.B) {
	benchTrack = NewTrack("bench")
	defer func() { benchTrack = nil }()
	hot(b, func(n int) {
		for range n {
			benchTrack.Begin("by name").End()
		}
	})
}

// BenchmarkRecorder measures what the recorder's goroutine does for an event, up to the block that it gives to the sink.
func BenchmarkRecorder(b *testing.B) {
	addr := "10.1.2.3:4567"
	for name, f := range map[string]func(i int){
		"log":   func(int) { benchLog.Log() },
		"args":  func(i int) { benchArgs.Log(String(addr), Duration(5*time.Millisecond), Int(i)) },
		"int":   func(i int) { benchInt.Record(int64(i)) },
		"span":  func(int) { spanOnce(benchTrack) },
		"async": func(int) { _, s := benchSpan.Start(context.Background()); s.End() },
	} {
		b.Run(name, func(b *testing.B) {
			start(b)
			benchTrack = NewTrack("bench")
			defer func() { benchTrack = nil }()
			flushNow(b)
			b.ResetTimer()
			for left := b.N; left > 0; left -= farEvents {
				b.StopTimer()
				for i := range min(left, farEvents) {
					f(i)
				}
				b.StartTimer()
				flushNow(b)
			}
		})
	}
}
