package peers

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// BenchmarkMeasure records a value: ours keeps each with its time, the others keep the last, or how many there were of a size.
func BenchmarkMeasure(b *testing.B) {
	ours(b, same(func(n int) {
		for i := range n {
			ourInt.Record(int64(i))
		}
	})).each(b, "micromegas")
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("peers")
	gauge, err := meter.Int64Gauge("queue_length")
	if err != nil {
		b.Fatal(err)
	}
	direct(func(n int) {
		for i := range n {
			gauge.Record(context.Background(), int64(i))
		}
	}).each(b, "OpenTelemetry gauge")
	histogram, err := meter.Int64Histogram("queue_lengths")
	if err != nil {
		b.Fatal(err)
	}
	direct(func(n int) {
		for i := range n {
			histogram.Record(context.Background(), int64(i))
		}
	}).each(b, "OpenTelemetry histogram")
	kept := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "queue_lengths"})
	direct(func(n int) {
		for i := range n {
			kept.Observe(float64(i))
		}
	}).each(b, "Prometheus histogram")
}

// BenchmarkCounter adds one to a sum.
func BenchmarkCounter(b *testing.B) {
	start(b)
	direct(func(n int) {
		for range n {
			ourCounter.Add(1)
		}
	}).each(b, "micromegas")
	counter, err := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("peers").Int64Counter("requests")
	if err != nil {
		b.Fatal(err)
	}
	direct(func(n int) {
		for range n {
			counter.Add(context.Background(), 1)
		}
	}).each(b, "OpenTelemetry")
	kept := prometheus.NewCounter(prometheus.CounterOpts{Name: "requests"})
	direct(func(n int) {
		for range n {
			kept.Inc()
		}
	}).each(b, "Prometheus")
}
