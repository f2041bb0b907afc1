package perfetto_test

import (
	"fmt"
	"testing"

	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// benchSpans are spans of a busy thread: calls of some hundred functions, three deep.
func benchSpans() []telemetry.Span {
	const start = 1_795_000_000_000_000_000
	spans := make([]telemetry.Span, 10_000)
	for i := range spans {
		depth := int64(i % 3)
		n := i * 7 % 300
		spans[i] = telemetry.Span{
			ID: int64(i + 1), Parent: int64(i), Depth: uint32(depth),
			Begin: start + int64(i-i%3)*1000 + depth*10, End: start + int64(i-i%3)*1000 + 2000 - depth*10,
			Name: fmt.Sprintf("game::world::tick_%d", n), Target: fmt.Sprintf("game::world%d", n%20),
			Filename: fmt.Sprintf("src/world/tick%d.rs", n%50), Line: uint32(n),
		}
		if depth == 0 {
			spans[i].Parent = 0
		}
	}
	return spans
}

func benchmark(b *testing.B, opts perfetto.Options, track func(p *perfetto.Process) *perfetto.Track) {
	spans := benchSpans()
	w := perfetto.New(func([]byte) error { return nil }, opts)
	t := track(w.Process(process, exe))
	for i := range spans { // names are known
		t.Span(&spans[i])
	}
	shift := int64(0)
	b.ReportAllocs()
	before := w.Stats()
	i := 0
	for b.Loop() {
		s := spans[i]
		s.Begin += shift
		s.End += shift
		if err := t.Span(&s); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(spans) {
			i = 0
			shift += spans[len(spans)-1].End - spans[0].Begin
		}
	}
	after := w.Stats()
	if after.Skipped > 0 {
		b.Fatalf("%d spans left out", after.Skipped)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mspans/s")
	b.ReportMetric(float64(after.Bytes-before.Bytes)/float64(b.N), "bytes/span")
}

func thread(p *perfetto.Process) *perfetto.Track { return p.Thread(stream, "main-7", "7") }

func BenchmarkThread(b *testing.B) { benchmark(b, perfetto.Options{}, thread) }
func BenchmarkNested(b *testing.B) { benchmark(b, perfetto.Options{Nested: true}, thread) }
func BenchmarkLanes(b *testing.B) {
	benchmark(b, perfetto.Options{Lanes: true}, func(p *perfetto.Process) *perfetto.Track { return p.Async() })
}

func BenchmarkCounter(b *testing.B) {
	w := perfetto.New(func([]byte) error { return nil }, perfetto.Options{})
	c := w.Process(process, exe).Counter("frame_time", "ms")
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		c.Add(i, 16.6)
	}
}
