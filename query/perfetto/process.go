package perfetto

import (
	"math"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// asyncName is the name of the track, or the tracks, of asynchronous spans.
const asyncName = "Async Operations"

// Process is a process of a trace; tracks belong to it. Whoever asks twice for a track gets one.
type Process struct {
	w    *Writer
	uuid uint64
	pid  int32
	tids map[int32]struct{} // those given with PositiveIDs
}

// Process introduces a process by its id and its executable. A trace may have several, one after another or by turns; the
// second call with an id returns what the first did.
func (w *Writer) Process(id telemetry.ID, exe string) *Process {
	if p, ok := w.process[id]; ok {
		return p
	}
	w.flushThreads()
	p := &Process{w: w, uuid: xxhash.Sum64String(id.String()), tids: map[int32]struct{}{}}
	p.pid = w.newPid(p.uuid)
	w.pids[p.pid] = struct{}{}
	w.process[id] = p
	w.writeTrack(&tracepb.TrackDescriptor{
		Uuid:    &p.uuid,
		Process: &tracepb.ProcessDescriptor{Pid: &p.pid, ProcessName: text(exe)},
	})
	w.flush()
	return p
}

// newPid returns the low half of a process's number, or the next one that no other process of the trace has.
func (w *Writer) newPid(uuid uint64) int32 {
	pid := int32(uuid)
	for {
		if w.opts.PositiveIDs {
			pid = positive(pid)
		}
		if _, taken := w.pids[pid]; !taken {
			return pid
		}
		pid++
	}
}

// positive returns n without its sign, and 1 for 0.
func positive(n int32) int32 {
	return max(1, n&math.MaxInt32)
}

// Thread introduces a thread by the id of its stream, the name to show, and the number that the program gave it, as text;
// what is no number counts as none. Threads follow their process, in the order of their ids, before anything else.
func (p *Process) Thread(stream telemetry.ID, name, threadID string) *Track {
	t, made := p.track(xxhash.Sum64String(stream.String()), paired)
	if !made {
		return t
	}
	if p.w.opts.Nested {
		t.kind = nested
	}
	t.thread = true
	p.w.writeTrack(&tracepb.TrackDescriptor{
		Uuid:       &t.uuid,
		ParentUuid: &p.uuid,
		Thread: &tracepb.ThreadDescriptor{
			Pid: &p.pid, Tid: new(int64(p.tid(threadID, t.uuid))), ThreadName: text(name),
		},
	})
	p.w.pending = true
	return t
}

// tid returns a thread's number: the low half of what the program says, 0 if it says none. With PositiveIDs it is above 0,
// and what the program does not say comes from the thread's uuid.
func (p *Process) tid(threadID string, uuid uint64) int32 {
	n, err := strconv.ParseInt(threadID, 10, 64)
	if err != nil {
		n = 0
	}
	tid := int32(n)
	if !p.w.opts.PositiveIDs {
		return tid
	}
	if tid <= 0 {
		tid = positive(int32(uuid))
		for {
			if _, taken := p.tids[tid]; !taken && tid != p.pid {
				break
			}
			tid = positive(tid + 1)
		}
	}
	p.tids[tid] = struct{}{}
	return tid
}

// Async introduces the track of asynchronous spans. Its spans follow those of threads, in the order of their begins.
func (p *Process) Async() *Track {
	t, made := p.track(seeded(p.uuid, "async_track"), async)
	if !made {
		return t
	}
	p.w.flushThreads()
	p.w.writeTrack(&tracepb.TrackDescriptor{Uuid: &t.uuid, Name: new(asyncName), ParentUuid: &p.uuid})
	p.w.flush()
	if p.w.opts.Lanes {
		t.kind = laned
		t.lanes = newLanes(t)
	}
	return t
}

// Track introduces a track of another kind, such as one for a connection's traffic, or for the log entries of no thread.
// Its slices nest, as those of a thread with Options.Nested.
func (p *Process) Track(name string) *Track {
	t, made := p.track(seeded(p.uuid, "track", name), nested)
	if !made {
		return t
	}
	p.w.flushThreads()
	p.w.writeTrack(&tracepb.TrackDescriptor{Uuid: &t.uuid, Name: text(name), ParentUuid: &p.uuid})
	return t
}

// track returns the track of a number and whether this call made it; then its descriptor has not been written.
func (p *Process) track(uuid uint64, kind trackKind) (*Track, bool) {
	if t, ok := p.w.byUUID[uuid]; ok {
		return t, false
	}
	t := &Track{process: p, uuid: uuid, kind: kind}
	p.w.byUUID[uuid] = t
	p.w.tracks = append(p.w.tracks, t)
	return t, true
}

// seeded returns a number for words, as bytes with a zero between them.
func seeded(seed uint64, words ...string) uint64 {
	h := xxhash.NewWithSeed(seed)
	for i, word := range words {
		if i > 0 {
			h.Write([]byte{0}) //nolint:errcheck // never fails
		}
		h.WriteString(word) //nolint:errcheck // never fails
	}
	return h.Sum64()
}

// writeTrack writes a descriptor.
func (w *Writer) writeTrack(d *tracepb.TrackDescriptor) {
	w.writePacket(&tracepb.TracePacket{TrackDescriptor: d})
}
