// Package sdk is the Go client library: what a program imports to emit logs, measures and spans, at a cost that lets them stay on.
//
// # Call sites
//
// What is constant of an event is declared once, as a package variable, and the event is a call on it:
//
//	var (
//		started  = sdk.NewLog(sdk.Info, "server started on %s")
//		players  = sdk.NewInt("players", "count")
//		frame    = sdk.NewFloat("frame_time", "ms")
//		requests = sdk.NewCounter("requests", "count")
//		update   = sdk.NewSpan("update")
//	)
//
//	started.Log(sdk.String(addr))
//	players.Record(12)
//	frame.Record(16.6)
//	requests.Add(1)
//	defer update.Begin(track).End()
//
// So nothing is looked up by name, and an event is a few words in a buffer of the P that the goroutine runs on. Formatting, encoding,
// compression and sending are done by another goroutine. Where no site is declared, Logf, StartSpan and Track.Begin find one by the
// place of the call, which costs some tenths of a microsecond.
//
// # Spans
//
// A span is of a Track, or in a context. A track is the sequence of spans of one worker, one frame loop, one goroutine that matters, and costs
// least. A span in a context, begun by Span.Start, may end on another goroutine, and its children find their parent in the context; spans of
// a request that crosses processes share a trace id (see TraceParent).
//
// # Starting and stopping
//
// Until Start is called, and after Stop, a call on a site costs about a nanosecond and does nothing. Start takes a Sink, which carries
// blocks to a gateway (package httpsink), into files (filesink) or memory (memsink). Nothing here blocks the program or panics, and
// nothing grows without bound: what has no room is dropped and counted, see Stats.
//
// What no library can do: events that are in memory when the process is killed are lost, unless the sink is one of package spool, which keeps
// what is older than a tenth of a second; a panic of a goroutine without Recover, and os.Exit, end the process without a last flush.
//
// # The bytes
//
// The package writes the native protocol (schemas/wire), as the Rust and Unreal libraries do: read by the gateway and all that is behind
// it. It imports schemas/telemetry, schemas/wire, the standard library and LZ4.
package sdk
