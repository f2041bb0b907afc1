package perfetto

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const (
	// chunkSize is the size from which a chunk is handed out, wherever it stands: it may exceed it by one packet.
	chunkSize = 8192
	// spansPerFlush is how many spans of one track are written before a chunk is handed out, however small: a viewer
	// that reads along sees something.
	spansPerFlush = 10
	// sequenceID is the number of the one sequence of packets.
	sequenceID = 1
	// packetField is the number of Trace's one field.
	packetField = 1
	// maxIdleBuffer is the largest buffer kept for the next chunk.
	maxIdleBuffer = 1 << 20

	// DefaultMaxInterned is Options.MaxInterned's value where it is 0.
	DefaultMaxInterned = 1 << 20
	// DefaultMaxInternedBytes is Options.MaxInternedBytes' value where it is 0.
	DefaultMaxInternedBytes = 256 << 20
	// DefaultMaxLanes is Options.MaxLanes' value where it is 0. A viewer shows far fewer.
	DefaultMaxLanes = 4096
)

// Options of a Writer. The zero value writes what Micromegas' own exporter writes, up to the bounds.
type Options struct {
	// MaxInterned is how many strings are remembered: names, categories and places. When there are more the writer begins
	// anew with none (sequence_flags 3), so that memory has a bound. 0 is DefaultMaxInterned.
	MaxInterned int
	// MaxInternedBytes bounds the same strings by their bytes. 0 is DefaultMaxInternedBytes.
	MaxInternedBytes int

	// Nested writes the slices of a thread in the order of time, each end behind those within it, and ends without the
	// names that their begins have. Without it an end follows its begin at once, and a viewer that sorts by time takes a
	// span without duration that begins where the one around it ends for one outside.
	Nested bool
	// Lanes packs asynchronous spans on tracks of one name, so that what overlaps lies side by side and a span lies
	// within another only if that is its parent. Without it all lie on one track, where a viewer nests what overlaps.
	Lanes bool
	// MaxLanes is how many such tracks a process has at most; a span for which there is none is left out, and counted.
	// 0 is DefaultMaxLanes.
	MaxLanes int
	// PositiveIDs makes numbers of processes and threads positive: viewers take 0 for the idle process, and draw threads
	// of one number into one. A thread without a number gets one from its stream's id.
	PositiveIDs bool
}

// Stats count what a Writer did.
type Stats struct {
	Packets int64
	Bytes   int64 // handed out
	Spans   int64
	Skipped int64 // spans and values that have no place in a trace: see Track.Span and Counter.Add
	Resets  int64 // times that interned strings were forgotten
}

// Writer writes one trace. It is not safe for concurrent use.
//
// The first error of emit ends the writing: every later call does nothing and returns it.
type Writer struct {
	emit  func(chunk []byte) error
	opts  Options
	err   error
	stats Stats

	buf     []byte
	pending bool // thread descriptors wait for a flush
	names   interner
	event   event
	tracks  []*Track // in the order of their making
	byUUID  map[uint64]*Track
	pids    map[int32]struct{}
	process map[telemetry.ID]*Process
}

// New returns a Writer that hands chunks to emit, none of them empty. A chunk is emit's only until it returns.
func New(emit func(chunk []byte) error, opts Options) *Writer {
	if opts.MaxInterned == 0 {
		opts.MaxInterned = DefaultMaxInterned
	}
	if opts.MaxInternedBytes == 0 {
		opts.MaxInternedBytes = DefaultMaxInternedBytes
	}
	if opts.MaxLanes == 0 {
		opts.MaxLanes = DefaultMaxLanes
	}
	w := &Writer{
		emit: emit, opts: opts,
		byUUID: map[uint64]*Track{}, pids: map[int32]struct{}{}, process: map[telemetry.ID]*Process{},
	}
	w.names.init()
	w.event.init()
	return w
}

// Stats returns the counts so far.
func (w *Writer) Stats() Stats { return w.stats }

// End ends slices that are open and hands the last chunk out. No call may follow.
func (w *Writer) End() error {
	for _, t := range w.tracks {
		t.endAll()
	}
	w.flush()
	return w.err
}

// writePacket appends a packet and its frame.
func (w *Writer) writePacket(p *tracepb.TracePacket) {
	if w.err != nil {
		return
	}
	w.event.frame(p, w.stats.Packets == 0, w.names.forgotten)
	w.names.forgotten = false
	w.stats.Packets++
	size := p.SizeVT()
	w.buf = protowire.AppendTag(w.buf, packetField, protowire.BytesType)
	w.buf = protowire.AppendVarint(w.buf, uint64(size))
	w.cut() // a chunk may end between a frame's header and its body
	at := len(w.buf)
	w.buf = slices.Grow(w.buf, size)[:at+size]
	if _, err := p.MarshalToSizedBufferVT(w.buf[at:]); err != nil {
		w.fail(fmt.Errorf("marshal packet: %w", err))
		return
	}
	w.cut()
}

// cut hands the chunk out if it is large enough.
func (w *Writer) cut() {
	if len(w.buf) >= chunkSize {
		w.flush()
	}
}

// flush hands the chunk out, if there is anything in it.
func (w *Writer) flush() {
	w.pending = false
	if len(w.buf) == 0 || w.err != nil {
		return
	}
	w.stats.Bytes += int64(len(w.buf))
	err := w.emit(w.buf)
	if w.buf = w.buf[:0]; cap(w.buf) > maxIdleBuffer {
		w.buf = nil
	}
	if err != nil {
		w.fail(err)
	}
}

// flushThreads hands descriptors of threads out before anything else follows them.
func (w *Writer) flushThreads() {
	if w.pending {
		w.flush()
	}
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.buf = w.buf[:0]
}
