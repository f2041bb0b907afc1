// Package perfetto writes the trace of a process as ui.perfetto.dev reads it: the Perfetto format, in chunks, while the
// spans come. Written for perfetto_trace_chunks, whose chunks put together are one file.
//
// A Writer is told what there is, in this order: a process, its threads, then spans thread by thread, then asynchronous
// spans; End writes what is left. With the zero Options the packets, their order, the numbers of interned strings and the
// borders of chunks are those of Micromegas' own exporter, so that tools made for its traces see no difference; a packet's
// fields are in the order of their tags. Options add what that exporter does not have.
//
// Invariants: equal calls give equal bytes; each interned string is introduced once, in the packet that uses it first;
// each track begins as many slices as it ends. Memory is a chunk, the descriptors, and interned strings up to a bound,
// behind which the writer forgets them and introduces them anew. A span costs no allocation.
//
// Times are nanoseconds since 1970, UTC; traces need no clock snapshot, and processes of one trace share the clock.
package perfetto
