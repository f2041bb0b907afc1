package justintime_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// edgesPerBlock is about what producers send.
const edgesPerBlock = 10_000

// postThread posts blocks of a busy thread: some 60 scopes, up to 9 deep, a call every microsecond or so.
func (e *env) postThread(blocks int) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var deps []byte
	const scopes = 60
	for i := range uint64(scopes) {
		n := 10 + i*10
		texts := []string{fmt.Sprintf("function_%d", i), fmt.Sprintf("module_%d", i%7), fmt.Sprintf("module_%d", i%7), fmt.Sprintf("src/module_%d.rs", i%7)}
		for j, text := range texts {
			deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, n+1+uint64(j), text)
		}
		deps = wire.AppendSpanRecord(deps, &wire.Metadata{ID: n, Name: n + 1, Target: n + 2, Module: n + 3, File: n + 4, Line: uint32(i * 13)})
	}
	deps = wire.Compress(nil, deps)
	var stack []uint64
	ticks := int64(1e9)
	for i := range blocks {
		b := telemetry.Block{
			ID: telemetry.NewID(), StreamID: e.stream.ID, ProcessID: e.process.ID, BeginTicks: ticks, BeginTime: day + ticks,
			ObjectOffset: int64(i) * edgesPerBlock, NbObjects: edgesPerBlock,
		}
		var objs []byte
		for range edgesPerBlock {
			ticks += 100 + int64(rnd.ExpFloat64()*700)
			if len(stack) > 0 && (len(stack) == 9 || rnd.IntN(2) == 0) {
				objs = wire.AppendThreadSpan(objs, wire.CPUEndThreadSpan, stack[len(stack)-1], ticks)
				stack = stack[:len(stack)-1]
				continue
			}
			desc := 10 + uint64(rnd.IntN(scopes))*10
			objs = wire.AppendThreadSpan(objs, wire.CPUBeginThreadSpan, desc, ticks)
			stack = append(stack, desc)
		}
		ticks++
		b.EndTicks, b.EndTime = ticks, day+ticks
		e.publish(bus.Raw, &bus.Record{
			Kind: bus.KindBlock, Tag: telemetry.TagCPU, ProcessID: b.ProcessID, StreamID: b.StreamID, BlockID: b.ID, BeginTime: b.BeginTime, EndTime: b.EndTime,
			Body: wire.AppendBlock(nil, &b, deps, wire.Compress(nil, objs)),
		})
	}
}

// BenchmarkMillionEdges builds the spans of one thread from a million edges, and finds them built.
func BenchmarkMillionEdges(b *testing.B) {
	for _, edges := range []int{10_000, 100_000, 1_000_000} {
		e := newEnv(b)
		e.postThread(edges / edgesPerBlock)
		req := e.request(0, hour)
		e.ask(e.service("one", justintime.DefaultConfig()), 0, hour) // archive has all now
		b.Run(fmt.Sprintf("edges=%d/cold", edges), func(b *testing.B) {
			var size, rows int64
			for b.Loop() {
				b.StopTimer()
				for _, p := range e.partitions() {
					e.retire(p.PartNo)
				}
				s := e.service("one", justintime.DefaultConfig())
				b.StartTimer()
				r, err := s.Materialize(b.Context(), req, nil)
				e.check(err)
				size, rows = 0, 0
				for _, f := range r.Files {
					size += f.Size
					rows += f.Rows
				}
			}
			b.ReportMetric(float64(edges)*float64(b.N)/b.Elapsed().Seconds(), "edges/s")
			b.ReportMetric(float64(size)/float64(2*rows), "B/edge")
		})
		b.Run(fmt.Sprintf("edges=%d/again", edges), func(b *testing.B) {
			s := e.service("one", justintime.DefaultConfig())
			for b.Loop() {
				_, err := s.Materialize(b.Context(), req, nil)
				e.check(err)
			}
		})
	}
}
