// Package peers measures the library beside others that do the same work: the Go SDK of OpenTelemetry, zerolog, zap, log/slog,
// the Prometheus client and runtime/trace. It is a module of its own, so that nobody who uses the library downloads them.
//
// The benchmarks are named Work/library/goroutines and are read by `bench --only sdk` of the program at the root, which prints them beside
// the marks. What is measured is the goroutine that records. Libraries that do all of it at once write to io.Discard. Those that leave
// something to another goroutine, ours and OpenTelemetry's, record in bursts that fit their buffers; between bursts these are emptied,
// with the clock stopped. What the other goroutine costs is measured by the program in folder steady, at a rate that a server may have.
//
// With two goroutines both begin a burst together, and a figure is the time from the first beginning to the last end, for each of all the
// events: half of what one goroutine needs, where nothing is shared.
//
// Latency has percentiles of single calls, the changes of buffers among them; see BenchmarkLatency.
package peers
