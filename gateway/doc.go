// Package gateway takes what producers post and puts it on the bus.
// It writes bus records (schemas/bus) whose bodies are the clients' bytes as they came; how a body looks is the
// business of a Protocol, one folder each below this one.
//
// Invariants:
//   - 200 is answered only after Publish returned nil, which is after the record is durable. Anything that keeps a sound
//     body from being durable is 503 with Retry-After, never a 4xx: clients drop what a 4xx refuses.
//   - Of a body only the envelope is decoded (ids, times, counts). Its events are never looked at here.
//   - Memory follows what has arrived, not what a header claims, and every bound has a name in Config.
//   - Insert times come from one clock and never repeat or go back within a process.
package gateway
