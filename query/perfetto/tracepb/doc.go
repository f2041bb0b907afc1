// Package tracepb holds the messages of a Perfetto trace that package perfetto writes. Written by perfetto, read by
// ui.perfetto.dev, trace_processor and who else reads Perfetto's published messages.
//
// It lists only the fields that are written, under the names and numbers of Perfetto's own protos/perfetto/trace; a reader
// of those cannot tell. Where those have a oneof, this has its members as plain fields, of which one is set: the bytes are
// the same, and no interface is allocated. The package has a name of its own, so that a program may link Perfetto's own
// messages too.
package tracepb

//go:generate go run -C ../../../deploy/tools ./protogen ../../query/perfetto/tracepb/trace.proto
