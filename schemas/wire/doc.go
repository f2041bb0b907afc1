// Package wire reads and writes the bodies that clients of the native protocol post: CBOR envelopes of processes, streams and
// blocks, LZ4 frames, and the binary events inside, whose layout each stream declares. Written by client libraries (and by sdk
// and producers here), read by gateway (envelopes), workers, materializers and query (everything).
//
// The bytes are described in FORMAT.md. They are foreign: a decoder returns an error, never panics, never allocates by a claim of
// its input, and every bound has a name in Limits or a constant. A body that cannot be understood at all is an error of
// DecodeProcess, DecodeStream or DecodeBlock (the client gets a 400); a block whose envelope is sound but whose payload is
// not is a *CorruptError of the Decoder (one dead letter, the other blocks go on).
//
// The one thing to know first: offsets and sizes come from the stream's registration, never from a struct in this code, since
// compilers reorder fields and client families differ. NewDecoder compiles a registration once into plans; blocks are then decoded
// with no allocation per row.
package wire
