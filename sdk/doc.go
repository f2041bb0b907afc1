// Package sdk is the home of the Go client library: what a program imports to emit logs, measures and spans.
//
// It may import schemas/telemetry and schemas/wire only, so that a user's program compiles the standard library and LZ4
// and none of the pipeline's dependencies. This release ships the wire encoders it will stand on (schemas/wire) and
// serves the Rust and Unreal SDKs of Micromegas; the library itself has no exported identifiers yet.
package sdk
