package loadgen

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Thread makes the requests of a busy thread: some 60 scopes, up to 9 deep, an edge of a span every 0.8 µs. Equal seeds give threads that
// call alike. It is for one goroutine.
type Thread struct {
	Process telemetry.Process
	Stream  telemetry.Stream

	// Spans and Duration are what has ended: how many spans, and their durations together, in ns.
	Spans, Duration int64

	rnd    *rand.Rand
	deps   []byte
	stack  []threadSpan
	ticks  int64
	offset int64
}

// threadSpan is an open span.
type threadSpan struct {
	desc  uint64
	begin int64
}

const (
	threadScopes = 60
	threadDepth  = 9
)

// NewThread returns a thread that begins at start.
func NewThread(name string, start time.Time, seed uint64) *Thread {
	t := &Thread{rnd: rand.New(rand.NewPCG(seed, seed))}
	t.Process = telemetry.Process{ID: telemetry.NewID(), Exe: name, TSCFrequency: 1e9, StartTime: start.Truncate(time.Microsecond).UnixNano()} // as servers keep it
	t.Stream = telemetry.Stream{
		ID: telemetry.NewID(), ProcessID: t.Process.ID, Tags: []string{"cpu"}, Format: telemetry.FormatTransit,
		Properties: []telemetry.Property{{Key: "thread-id", Value: "1"}, {Key: "thread-name", Value: "main"}},
	}
	t.Stream.Dependencies, t.Stream.Objects = wire.CPUTypes()
	var deps []byte
	for i := range uint64(threadScopes) {
		n := 10 + i*10
		module := fmt.Sprintf("module_%d", i%7)
		for j, text := range []string{fmt.Sprintf("function_%d", i), module, module, "src/" + module + ".rs"} {
			deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, n+1+uint64(j), text)
		}
		deps = wire.AppendSpanRecord(deps, &wire.Metadata{ID: n, Name: n + 1, Target: n + 2, Module: n + 3, File: n + 4, Line: uint32(i * 13)})
	}
	t.deps = wire.Compress(nil, deps)
	return t
}

// Registrations returns the requests that come first.
func (t *Thread) Registrations() []Request {
	return []Request{
		{Path: ProcessPath, Body: wire.AppendProcess(nil, &t.Process)},
		{Path: StreamPath, Body: wire.AppendStream(nil, &t.Stream)},
	}
}

// Block returns the request of the next block, of so many edges.
func (t *Thread) Block(edges int) Request { return t.block(edges, false) }

// Last returns the request of a block that ends all open spans.
func (t *Thread) Last() Request { return t.block(len(t.stack), true) }

func (t *Thread) block(edges int, ending bool) Request {
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: t.Stream.ID, ProcessID: t.Process.ID, BeginTicks: t.ticks, BeginTime: t.Process.StartTime + t.ticks,
		ObjectOffset: t.offset, NbObjects: int32(edges),
	}
	t.offset += int64(edges)
	var objs []byte
	for range edges {
		t.ticks += 100 + int64(t.rnd.ExpFloat64()*700)
		if n := len(t.stack); ending || n > 0 && (n == threadDepth || t.rnd.IntN(2) == 0) {
			top := t.stack[n-1]
			objs = wire.AppendThreadSpan(objs, wire.CPUEndThreadSpan, top.desc, t.ticks)
			t.stack = t.stack[:n-1]
			t.Spans++
			t.Duration += t.ticks - top.begin
			continue
		}
		desc := 10 + uint64(t.rnd.IntN(threadScopes))*10
		objs = wire.AppendThreadSpan(objs, wire.CPUBeginThreadSpan, desc, t.ticks)
		t.stack = append(t.stack, threadSpan{desc, t.ticks})
	}
	t.ticks++
	b.EndTicks, b.EndTime = t.ticks, t.Process.StartTime+t.ticks
	return Request{Path: BlockPath, Body: wire.AppendBlock(nil, &b, t.deps, wire.Compress(nil, objs))}
}

// End returns when the last block ended.
func (t *Thread) End() time.Time { return time.Unix(0, t.Process.StartTime+t.ticks) }
