package peers

import (
	"context"
	"io"
	"runtime/trace"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/micromegas-go/micromegas/sdk"
)

// traced has the runtime trace until the benchmark ends.
func traced(b *testing.B) {
	b.Helper()
	if err := trace.Start(io.Discard); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(trace.Stop)
}

// discard is an exporter that drops spans.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

// otelBurst is half of what the queue of a batch processor holds by default, so that two goroutines fit.
const otelBurst = sdktrace.DefaultMaxQueueSize / 2

// openTelemetry is the work of a tracer that samples all and exports in batches.
func openTelemetry(b *testing.B, body func(t oteltrace.Tracer) func() func(n int)) work {
	b.Helper()
	p := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithBatcher(discard{}))
	b.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return work{body: body(p.Tracer("peers")), burst: otelBurst, flush: func() {
		if err := p.ForceFlush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}}
}

// BenchmarkSpan begins and ends a span of one goroutine, without attributes.
func BenchmarkSpan(b *testing.B) {
	ours(b, func() func(int) {
		t := sdk.NewTrack("worker")
		b.Cleanup(t.Close)
		return func(n int) {
			for range n {
				onTrack(t)
			}
		}
	}).each(b, "micromegas")
	openTelemetry(b, otelRoot).each(b, "OpenTelemetry")
	traced(b)
	direct(func(n int) {
		for range n {
			region(context.Background())
		}
	}).each(b, "runtime.trace")
}

// onTrack and region are what a function does that is traced.
func onTrack(t *sdk.Track) { defer ourSpan.Begin(t).End() }

func region(ctx context.Context) { defer trace.StartRegion(ctx, "update").End() }

// BenchmarkContextSpan begins and ends the first span of a trace.
func BenchmarkContextSpan(b *testing.B) {
	ours(b, same(func(n int) {
		for range n {
			_, s := ourSpan.Start(context.Background())
			s.End()
		}
	})).each(b, "micromegas")
	openTelemetry(b, otelRoot).each(b, "OpenTelemetry")
	traced(b)
	direct(func(n int) {
		for range n {
			_, t := trace.NewTask(context.Background(), "update")
			t.End()
		}
	}).each(b, "runtime.trace task")
}

func otelRoot(t oteltrace.Tracer) func() func(int) {
	return same(func(n int) {
		for range n {
			_, s := t.Start(context.Background(), "update")
			s.End()
		}
	})
}

// BenchmarkContextSpanChild begins and ends a span inside another.
func BenchmarkContextSpanChild(b *testing.B) {
	ours(b, func() func(int) {
		ctx, parent := ourSpan.Start(context.Background())
		b.Cleanup(parent.End)
		return func(n int) {
			for range n {
				_, s := ourSpan.Start(ctx)
				s.End()
			}
		}
	}).each(b, "micromegas")
	openTelemetry(b, func(t oteltrace.Tracer) func() func(int) {
		return func() func(int) {
			ctx, parent := t.Start(context.Background(), "request")
			b.Cleanup(func() { parent.End() })
			return func(n int) {
				for range n {
					_, s := t.Start(ctx, "update")
					s.End()
				}
			}
		}
	}).each(b, "OpenTelemetry")
	traced(b)
	direct(func(n int) {
		ctx, task := trace.NewTask(context.Background(), "request")
		defer task.End()
		for range n {
			_, t := trace.NewTask(ctx, "update")
			t.End()
		}
	}).each(b, "runtime.trace task")
}
