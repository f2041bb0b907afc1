package query_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// fakeTraces names blocks of traces.
type fakeTraces struct {
	blocks     map[string][]catalog.BlockKey
	begin, end int64 // of the last call
	since      int64 // when it is complete
	err        error // of TraceSince
}

func (f *fakeTraces) TraceBlocks(_ context.Context, id [16]byte, begin, end int64, mayHold func([]byte) bool) ([]catalog.BlockKey, error) {
	f.begin, f.end = begin, end
	if !mayHold(bloomOf(id)) {
		return nil, fmt.Errorf("the filter of %x does not hold it", id)
	}
	return f.blocks[hex.EncodeToString(id[:])], nil
}

func (f *fakeTraces) TraceSince(context.Context) (int64, error) { return f.since, f.err }

// bloomOf is a filter of many ids, of which one is given.
func bloomOf(id [16]byte) []byte {
	ids := [][16]byte{id}
	for i := range 300 {
		ids = append(ids, [16]byte{1, byte(i), byte(i >> 8)})
	}
	return wire.NewTraceSet(ids).Filter
}

// traceEvent is an edge of a span, or with properties (key, value, …) what a span gets: an asynchronous one by its id, else a thread's by the
// number of its begin.
type traceEvent struct {
	spanEvent
	begun      uint64
	properties []string
}

// traceBody is a body of a block of spans with properties.
func traceBody(block, stream int, process telemetry.ID, begin, end float64, offset int64, events ...traceEvent) []byte {
	var deps, objs []byte
	next := uint64(1000)
	text := func(s string) wire.StaticRef {
		next++
		deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, next, s)
		return wire.StaticRef{ID: next, Len: uint32(len(s))}
	}
	for _, v := range events {
		ticks := 1_000_000 + nanos(v.at)
		if v.properties != nil {
			var pairs [][2]wire.StaticRef
			for p := range slices.Chunk(v.properties, 2) {
				pairs = append(pairs, [2]wire.StaticRef{text(p[0]), text(p[1])})
			}
			next++
			deps = wire.AppendSpanPropertySet(deps, next, pairs...)
			if v.id != 0 {
				objs = wire.AppendSpanProperties(objs, wire.SpanAsyncProperties, v.id, next, ticks)
			} else {
				objs = wire.AppendSpanProperties(objs, wire.SpanThreadProperties, v.begun, next, ticks)
			}
			continue
		}
		scope := fixtureScopes[v.scope]
		next++
		record := next
		deps = wire.AppendSpanRecord(deps, &wire.Metadata{
			ID: record, Name: text(v.scope).ID, Target: text(scope.target).ID, Module: text(scope.target).ID, File: text(scope.file).ID, Line: scope.line,
		})
		index := uint8(wire.CPUBeginThreadSpan)
		if v.id != 0 {
			index = wire.CPUBeginAsyncSpan
		}
		if v.end {
			index++
		}
		if v.id != 0 {
			objs = wire.AppendAsyncSpan(objs, index, record, wire.AsyncSpan{ID: v.id, Parent: v.parent, Depth: v.depth}, ticks)
		} else {
			objs = wire.AppendThreadSpan(objs, index, record, ticks)
		}
	}
	return wire.AppendBlock(nil, &telemetry.Block{
		ID: querytest.BlockID(block), StreamID: querytest.StreamID(stream), ProcessID: process, BeginTime: querytest.At(begin), EndTime: querytest.At(end),
		BeginTicks: nanos(begin), EndTicks: nanos(end), ObjectOffset: offset, NbObjects: int32(len(events)),
	}, wire.Compress(nil, deps), wire.Compress(nil, objs))
}

const traceOne, traceTwo, traceRing = "0af7651916cd43dd8448eb211c80319c", "ffffffffffffffffffffffffffffff01", "00000000000000010000000000000001"

func TestTraceSpans(t *testing.T) {
	index := &fakeTraces{blocks: map[string][]catalog.BlockKey{}}
	h := newSpanHouse(t, querytest.Options{Traces: index}, nil)
	h.spanFixture(t)
	thread := func(e spanEvent) traceEvent { return traceEvent{spanEvent: e} }
	async := func(scope string, at float64, id, parent uint64, end bool) traceEvent {
		return traceEvent{spanEvent: spanEvent{scope: scope, at: at, id: id, parent: parent, end: end}}
	}
	props := func(at float64, id, begun uint64, list ...string) traceEvent {
		return traceEvent{spanEvent{at: at, id: id}, begun, list}
	}
	q1 := querytest.P3
	p4, err := telemetry.ParseID("44444444-4444-4444-8444-444444444444")
	if err != nil {
		t.Fatal(err)
	}
	h.store(t, []catalog.ProcessReg{{
		Process: telemetry.Process{ID: p4, Exe: "it's", TSCFrequency: 1_000_000_000, StartTime: querytest.At(0), StartTicks: 1_000_000}, InsertTime: querytest.At(1),
	}}, []catalog.StreamReg{
		streamOf(querytest.StreamID(6), querytest.P1, "cpu", wire.SpanTypes, telemetry.Property{Key: "thread-name", Value: "tasks"}, telemetry.Property{Key: "thread-id", Value: "6"}),
		streamOf(querytest.StreamID(7), querytest.P1, "cpu", wire.SpanTypes),
		streamOf(querytest.StreamID(8), p4, "cpu", wire.SpanTypes, telemetry.Property{Key: "thread-id", Value: "8"}),
		streamOf(querytest.StreamID(9), q1, "log", wire.LogTypes),
	},
		traceBody(21, 6, querytest.P1, 30, 31, 0,
			async("load", 30.1, 500, 0, false), props(30.1, 500, 0, "trace_id", traceOne, "user", "ann"),
			async("read", 30.2, 501, 500, false), async("load", 30.3, 600, 0, false), props(30.3, 600, 0, "trace_id", traceTwo)),
		traceBody(22, 7, querytest.P1, 31, 32, 0,
			async("read", 31.1, 501, 500, true), async("read", 31.2, 502, 501, false), props(31.3, 502, 0, "bytes", "7"), props(31.4, 500, 0, "user", "bob"),
			async("load", 31.5, 500, 0, true), async("load", 31.6, 600, 0, true), async("load", 31.7, 700, 701, false), async("read", 31.7, 701, 700, false),
			props(31.8, 700, 0, "trace_id", traceRing)),
		traceBody(23, 8, p4, 32, 33, 0,
			thread(b("Frame", 32.1)), thread(b("Update", 32.2)), props(32.25, 0, 1, "trace_id", traceOne, "remote_parent", "00000000000001f5"),
			thread(b("Physics", 32.3)), thread(e("Physics", 32.4)), thread(e("Update", 32.5)), thread(b("Render", 32.6)), thread(e("Render", 32.7)), thread(e("Frame", 32.8))))
	key := func(block, stream int, begin float64) catalog.BlockKey {
		return catalog.BlockKey{StreamID: querytest.StreamID(stream), BeginTime: querytest.At(begin), BlockID: querytest.BlockID(block)}
	}
	index.blocks[traceOne] = []catalog.BlockKey{key(21, 6, 30), key(22, 7, 31), key(23, 8, 32), key(24, 9, 32), key(25, 8, 40)} // logs, and a block that is gone
	index.blocks[traceTwo] = []catalog.BlockKey{key(21, 6, 30), key(22, 7, 31)}
	index.blocks[traceRing] = []catalog.BlockKey{key(22, 7, 31)}
	index.blocks[strings.Repeat("ab", 16)] = []catalog.BlockKey{key(22, 7, 31)}

	a := spanAsker{t, h.Dial(t, "")}
	none := client.QueryOptions{}
	p1 := querytest.P1.String()
	for _, id := range []string{traceOne, strings.ToUpper(traceOne), "0af76519-16cd-43dd-8448-eb211c80319c"} {
		a.rows("SELECT process_id, exe, thread_name, kind, id, parent, duration, name FROM trace_spans('"+id+"')", none,
			p1+",game.exe,tasks-6,async,500,0,1400000000,load", p1+",game.exe,tasks-6,async,501,500,900000000,read",
			p1+",game.exe,"+querytest.StreamID(7).String()+",async,502,501,800000000,read", // has not ended
			p4.String()+",it's,8,thread,1,0,300000000,Update", p4.String()+",it's,8,thread,3,1,100000000,Physics")
	}
	a.rows("SELECT id, property_get(properties, 'user'), property_get(properties, 'bytes'), property_get(properties, 'remote_parent') FROM trace_spans('"+traceOne+"')", none,
		"500,bob,,", "501,,,", "502,,7,", "1,,,00000000000001f5", "3,,,")
	a.rows("SELECT id, stream_id, target, filename, line FROM trace_spans('"+traceTwo+"')", span(0, 3600), "600,"+querytest.StreamID(6).String()+",game::io,io.rs,70")
	a.rows("SELECT id, parent FROM trace_spans('"+traceRing+"')", span(0, 3600), "700,701", "701,700")
	if index.begin != querytest.At(0) || index.end != querytest.At(3600) {
		t.Errorf("asked for [%d, %d], which is not the query's range", index.begin, index.end)
	}
	a.schemaOf("SELECT * FROM trace_spans('"+traceOne+"')", "trace_spans", none)
	absent := strings.Repeat("0", 31) + "7"
	a.rows("SELECT * FROM trace_spans('"+absent+"')", none)
	if got, want := a.warnings("SELECT * FROM trace_spans('"+absent+"')", none), "no block with spans in the index of traces has trace "+absent; !slices.Equal(got, []string{want}) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	if got, want := a.warnings("SELECT * FROM trace_spans('"+strings.Repeat("ab", 16)+"')", none), "no span begins trace "+strings.Repeat("ab", 16); len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	a.fails("SELECT * FROM trace_spans('7')", none, codes.InvalidArgument, "'7' is not a valid trace id")
	a.fails("SELECT * FROM trace_spans('"+strings.Repeat("x", 32)+"')", none, codes.InvalidArgument, "32 hexadecimal digits")
	c := newSpanHouse(t, querytest.Options{}, nil)
	spanAsker{t, c.Dial(t, "")}.fails("SELECT * FROM trace_spans('"+traceOne+"')", none, codes.Unimplemented, "trace_spans is not available")
}

// TestTraceOfSpanZero has a trace that the first event of a thread begins. The root of a thread has the parent 0 as well.
func TestTraceOfSpanZero(t *testing.T) {
	index := &fakeTraces{blocks: map[string][]catalog.BlockKey{
		traceOne: {{StreamID: querytest.StreamID(8), BeginTime: querytest.At(32), BlockID: querytest.BlockID(23)}},
	}}
	h := newSpanHouse(t, querytest.Options{Traces: index}, nil)
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(8), querytest.P1, "cpu", wire.SpanTypes)},
		traceBody(23, 8, querytest.P1, 32, 33, 0,
			traceEvent{spanEvent: b("Frame", 32.1)}, traceEvent{spanEvent: spanEvent{at: 32.1}, properties: []string{"trace_id", traceOne}},
			traceEvent{spanEvent: b("Update", 32.2)}, traceEvent{spanEvent: e("Update", 32.3)}, traceEvent{spanEvent: e("Frame", 32.4)},
			traceEvent{spanEvent: b("Render", 32.6)}, traceEvent{spanEvent: e("Render", 32.7)}))
	a := spanAsker{t, h.Dial(t, "")}
	a.rows("SELECT id, parent, depth, name FROM view_instance('thread_spans','S8')", span(32, 33),
		"-1,0,0,"+querytest.StreamID(8).String(), "0,-1,1,Frame", "2,0,2,Update", "5,-1,1,Render")
	a.rows("SELECT id, parent, name FROM trace_spans('"+traceOne+"')", client.QueryOptions{}, "0,-1,Frame", "2,0,Update")
}

// TestTracesSince asks an index of traces that has dropped what is old.
func TestTracesSince(t *testing.T) {
	index := &fakeTraces{blocks: map[string][]catalog.BlockKey{}}
	h := newSpanHouse(t, querytest.Options{Traces: index}, nil)
	a := spanAsker{t, h.Dial(t, "")}
	sql := "SELECT * FROM trace_spans('" + traceOne + "')"
	absent := "no block with spans in the index of traces has trace " + traceOne
	dropped := "the index of traces is complete since 2026-03-01T10:01:00.000000001Z: spans from before may be missing"
	f := func(opts client.QueryOptions, want ...string) {
		t.Helper()
		if got := a.warnings(sql, opts); !slices.Equal(got, want) {
			t.Errorf("since %d: warnings %q, want %q", index.since, got, want)
		}
	}
	none := client.QueryOptions{}
	f(none, absent)
	f(span(0, 3600), absent+" in the range")
	index.since = querytest.At(60) + 1 // the last block that was dropped ended within a microsecond of 60
	f(none, dropped, absent)
	f(span(0, 3600), dropped, absent+" in the range")
	f(span(60, 3600), dropped, absent+" in the range")
	f(client.QueryOptions{Begin: querytest.Clock(60).Add(500), End: querytest.Clock(3600)}, dropped, absent+" in the range")
	f(span(60.001, 3600), absent+" in the range")
	index.err = errors.New("broken")
	a.fails(sql, none, codes.Unavailable, "the catalog does not answer")
}
