package query_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/micromegas-go/micromegas/materializers/asyncspans"
	"github.com/micromegas-go/micromegas/materializers/images"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/materializers/netspans"
	"github.com/micromegas-go/micromegas/materializers/threadspans"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// spanBus is a fakeBus behind which a real service materializes.
type spanBus struct {
	fakeBus
	service  *justintime.Service
	asked    atomic.Int64
	progress *bus.MaterializeProgress          // told before all that is built; nil = nothing
	change   func(*bus.MaterializeReply) error // what the service said; nil = nothing
}

func (b *spanBus) Materialize(ctx context.Context, req bus.MaterializeRequest, progress func(bus.MaterializeProgress)) (bus.MaterializeReply, error) {
	b.asked.Add(1)
	if progress != nil && b.progress != nil {
		progress(*b.progress)
	}
	reply, err := b.service.Materialize(ctx, req, progress)
	if err == nil && b.change != nil {
		err = b.change(&reply)
	}
	return reply, err
}

func (b *spanBus) ServeMaterialize(bus.MaterializeHandler) (func(), error) { return func() {}, nil }

// spanHouse is a query service and what materializes for it.
type spanHouse struct {
	*querytest.Env
	bus   *spanBus
	packs int
}

func newSpanHouse(t testing.TB, opts querytest.Options, change func(*justintime.Config)) *spanHouse {
	t.Helper()
	h := &spanHouse{bus: &spanBus{}}
	opts.Bus = h.bus
	h.Env = querytest.Start(t, opts)
	cfg := justintime.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	s, err := justintime.New(cfg, justintime.Parts{
		Bus: h.bus, Catalog: h.Catalog, Blocks: locate.New(h.Catalog, h.Lake), Objects: h.Lake, Owner: "test", Log: slog.New(slog.DiscardHandler),
	}, []justintime.View{threadspans.View(), asyncspans.View(), images.View(), netspans.View()})
	if err != nil {
		t.Fatal(err)
	}
	h.bus.service = s
	return h
}

// store archives registrations, and blocks with their bodies.
func (h *spanHouse) store(t testing.TB, processes []catalog.ProcessReg, streams []catalog.StreamReg, bodies ...[]byte) {
	t.Helper()
	var pack []byte
	blocks := make([]catalog.BlockReg, len(bodies))
	for i, body := range bodies {
		v, err := wire.DecodeBlock(body)
		if err != nil {
			t.Fatal(err)
		}
		blocks[i] = catalog.BlockReg{
			Block: v.Block, InsertTime: v.EndTime + 1e9, PackOffset: int64(len(pack)), PackLength: int64(len(body)),
			PayloadSize: int64(len(wire.AppendPayload(nil, v.Dependencies, v.Objects))),
		}
		pack = append(pack, body...)
	}
	if err := h.Lake.Put(t.Context(), fmt.Sprintf("packs/%d", h.packs), append(pack, 0)); err != nil {
		t.Fatal(err)
	}
	h.packs++
	h.Archive(t, processes, streams, blocks)
}

// streamOf registers a stream under the layouts of its events.
func streamOf(id, process telemetry.ID, tag string, types func() (deps, objs []telemetry.Type), properties ...telemetry.Property) catalog.StreamReg {
	deps, objs := types()
	return catalog.StreamReg{
		Stream:           telemetry.Stream{ID: id, ProcessID: process, Tags: []string{tag}, Format: telemetry.FormatTransit, Properties: properties},
		DependenciesCBOR: wire.AppendTypes(nil, deps), ObjectsCBOR: wire.AppendTypes(nil, objs), InsertTime: querytest.At(1.1),
	}
}

// spanEvent is the begin or the end of a span of the fixture, seconds after T0; async spans have an id.
type spanEvent struct {
	scope  string
	at     float64
	end    bool
	id     uint64
	parent uint64
	depth  uint32
}

// fixtureScopes are name, target, file and line of the fixture's scopes.
var fixtureScopes = map[string]struct {
	target, file string
	line         uint32
}{
	"Frame": {"game::loop", "loop.cpp", 10}, "Update": {"game::loop", "loop.cpp", 20}, "Physics": {"game::phys", "phys.cpp", 30},
	"Render": {"game::gfx", "gfx.cpp", 40}, "Worker": {"game::jobs", "jobs.cpp", 50}, "Job": {"game::jobs", "jobs.cpp", 60},
	"load": {"game::io", "io.rs", 70}, "read": {"game::io", "io.rs", 80},
}

// nanos are ticks of P1, whose clock stood at 1 000 000 at its start and counts nanoseconds.
func nanos(seconds float64) int64 { return int64(math.Round(seconds * 1e9)) }

// spanBody is the body of a block of spans.
func spanBody(block, stream int, begin, end float64, offset int64, events ...spanEvent) []byte {
	var deps, objs []byte
	known := map[string]uint64{}
	for _, v := range events {
		if known[v.scope] == 0 {
			n := uint64(len(known)*10 + 10)
			scope := fixtureScopes[v.scope]
			text := func(id uint64, s string) uint64 {
				deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, id, s)
				return id
			}
			deps = wire.AppendSpanRecord(deps, &wire.Metadata{
				ID: n, Name: text(n+1, v.scope), Target: text(n+2, scope.target), Module: text(n+3, scope.target), File: text(n+4, scope.file), Line: scope.line,
			})
			known[v.scope] = n
		}
		index, ticks := uint8(wire.CPUBeginThreadSpan), 1_000_000+nanos(v.at)
		if v.id != 0 {
			index = wire.CPUBeginAsyncSpan
		}
		if v.end {
			index++
		}
		if v.id != 0 {
			objs = wire.AppendAsyncSpan(objs, index, known[v.scope], wire.AsyncSpan{ID: v.id, Parent: v.parent, Depth: v.depth}, ticks)
		} else {
			objs = wire.AppendThreadSpan(objs, index, known[v.scope], ticks)
		}
	}
	return wire.AppendBlock(nil, &telemetry.Block{
		ID: querytest.BlockID(block), StreamID: querytest.StreamID(stream), ProcessID: querytest.P1, BeginTime: querytest.At(begin), EndTime: querytest.At(end),
		BeginTicks: nanos(begin), EndTicks: nanos(end), ObjectOffset: offset, NbObjects: int32(len(events)),
	}, wire.Compress(nil, deps), wire.Compress(nil, objs))
}

func b(scope string, at float64) spanEvent { return spanEvent{scope: scope, at: at} }
func e(scope string, at float64) spanEvent { return spanEvent{scope: scope, at: at, end: true} }

// spanFixture loads P1 with the threads S3 and S4, and blocks B05 to B08.
func (h *spanHouse) spanFixture(t testing.TB) {
	t.Helper()
	p1 := catalog.ProcessReg{Process: telemetry.Process{
		ID: querytest.P1, Exe: "game.exe", TSCFrequency: 1_000_000_000, StartTime: querytest.At(0), StartTicks: 1_000_000,
	}, InsertTime: querytest.At(1)}
	p3 := catalog.ProcessReg{Process: telemetry.Process{ID: querytest.P3, Exe: "checkout", TSCFrequency: 1_000_000_000, StartTime: querytest.At(200)}, InsertTime: querytest.At(201)}
	h.store(t, []catalog.ProcessReg{p1, p3},
		[]catalog.StreamReg{
			streamOf(querytest.StreamID(3), querytest.P1, "cpu", wire.CPUTypes, telemetry.Property{Key: "thread-id", Value: "1234"}, telemetry.Property{Key: "thread-name", Value: "main"}),
			streamOf(querytest.StreamID(4), querytest.P1, "cpu", wire.CPUTypes, telemetry.Property{Key: "thread-id", Value: "1235"}),
		},
		spanBody(5, 3, 5, 6, 0, b("Frame", 5), b("Update", 5.1), e("Update", 5.2), b("Update", 5.3), b("Physics", 5.35), e("Physics", 5.4), e("Update", 5.5), b("Render", 5.9)),
		spanBody(6, 3, 6, 7, 8, e("Render", 6.1), e("Frame", 6.5), b("Frame", 6.6), e("Frame", 6.8)),
		spanBody(7, 4, 10, 11, 0, b("Worker", 10.2), b("Job", 10.4), e("Job", 10.6)),
		spanBody(8, 4, 11, 12, 3,
			spanEvent{scope: "load", at: 11.1, id: 100}, spanEvent{scope: "read", at: 11.2, id: 101, parent: 100, depth: 1},
			spanEvent{scope: "read", at: 11.4, end: true, id: 101, parent: 100, depth: 1}, spanEvent{scope: "load", at: 11.9, end: true, id: 100}))
}

// spanAsker checks statements against their rows.
type spanAsker struct {
	t testing.TB
	c *client.Client
}

// ids puts the full ids in the place of 'P1', 'S3', 'B02'.
func ids(sql string) string {
	for i := range 10 {
		sql = strings.NewReplacer(fmt.Sprintf("'S%d'", i), "'"+querytest.StreamID(i).String()+"'", fmt.Sprintf("'B%02d'", i), "'"+querytest.BlockID(i).String()+"'").Replace(sql)
	}
	return strings.NewReplacer("'P1'", "'"+querytest.P1.String()+"'", "'P3'", "'"+querytest.P3.String()+"'").Replace(sql)
}

func (a spanAsker) rows(sql string, opts client.QueryOptions, want ...string) {
	a.t.Helper()
	got, err := ask(a.t.Context(), a.c, ids(sql), opts)
	if err != nil {
		a.t.Errorf("%s: %v", sql, err)
	} else if w := strings.Join(want, "\n"); got != w {
		a.t.Errorf("%s: got\n%s\nwant\n%s", sql, got, w)
	}
}

func (a spanAsker) fails(sql string, opts client.QueryOptions, code codes.Code, wants ...string) {
	a.t.Helper()
	got, err := ask(a.t.Context(), a.c, ids(sql), opts)
	s := status.Convert(err)
	if err == nil || s.Code() != code {
		a.t.Errorf("%s: rows %q, error %v, want code %s", sql, got, err, code)
		return
	}
	for _, want := range wants {
		if !strings.Contains(s.Message(), want) {
			a.t.Errorf("%s: %q is not in %q", sql, want, s.Message())
		}
	}
}

func (a spanAsker) warnings(sql string, opts client.QueryOptions) []string {
	a.t.Helper()
	rows, err := a.c.Query(a.t.Context(), ids(sql), opts)
	if err != nil {
		a.t.Fatal(err)
	}
	defer rows.Close()
	return rows.Warnings()
}

func TestThreadSpans(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	for range 2 { // built, and found
		a.rows("SELECT id, parent, depth, duration, name FROM view_instance('thread_spans','S3')", all,
			"-1,0,0,2000000000,main-1234", "0,-1,1,1500000000,Frame", "1,0,2,100000000,Update", "3,0,2,200000000,Update", "4,3,3,50000000,Physics",
			"7,0,2,200000000,Render", "10,-1,1,200000000,Frame")
		a.rows("SELECT hash FROM view_instance('thread_spans','S3') WHERE id = 4", all, "1795844125")
		a.rows("SELECT count(*) AS c FROM view_instance('thread_spans','S3')", span(5.150, 5.320), "4")
		a.rows("SELECT name, sum(duration) AS d FROM view_instance('thread_spans','S3') WHERE depth=2 GROUP BY name ORDER BY name", all, "Render,200000000", "Update,300000000")
		a.rows("SELECT id, depth, duration, name FROM view_instance('thread_spans','S4')", all, "0,0,1800000000,Worker", "1,1,200000000,Job")
		a.rows("SELECT count(*) FROM view_instance('thread_spans','S3') a JOIN view_instance('thread_spans','S4') b ON a.id = b.id", all, "2")
		a.rows("SELECT id FROM view_instance('thread_spans','S3') LIMIT 2", all, "-1", "0")
		a.rows("SELECT id FROM view_instance('thread_spans','S3') UNION ALL SELECT id FROM view_instance('thread_spans','S4')", all,
			"-1", "0", "1", "3", "4", "7", "10", "0", "1")
	}
	a.fails("SELECT count(*) FROM view_instance('thread_spans','S3')", client.QueryOptions{}, codes.Internal, "query range mandatory for thread spans view")
	a.fails("SELECT * FROM view_instance('thread_spans','global')", all, codes.InvalidArgument, "the global view is not implemented for thread spans")
	a.fails("SELECT * FROM view_instance('thread_spans','xyz')", all, codes.InvalidArgument, "Uuid::parse_str")
	a.fails("SELECT * FROM view_instance('thread_spans','aaaaaaaa-0000-4000-8000-000000000009')", all, codes.Internal,
		"error creating physical plan: External error: Stream not found", "did you mean aaaaaaaa-0000-4000-8000-000000000003 or aaaaaaaa-0000-4000-8000-000000000004?")
	a.fails("SELECT * FROM view_instance('thread_spans','P1')", all, codes.Internal, "Stream not found", "is a process: its threads are")
	a.fails("SELECT * FROM view_instance('async_events','S3')", all, codes.Internal, "Process not found", "is a stream: its process is")
	a.fails("SELECT * FROM view_instance('net_spans','11119999-9999-4999-8999-999999999999')", all, codes.Internal, "Process not found", "did you mean "+querytest.P1.String())
	a.fails("SELECT * FROM view_instance('images','99999999-9999-4999-8999-999999999999')", all, codes.Internal, "find_process", "SELECT process_id FROM processes lists")
	a.rows("SELECT * FROM view_instance('thread_spans','S3')", span(100, 200))
	if got := a.warnings("SELECT * FROM view_instance('thread_spans','S3')", span(100, 200)); !slices.Equal(got, []string{
		"no blocks of stream aaaaaaaa-0000-4000-8000-000000000003 in the range; its blocks are from 2026-03-01T10:00:05Z to 2026-03-01T10:00:07Z",
	}) {
		t.Errorf("warnings %q", got)
	}
	if got := a.warnings("SELECT * FROM view_instance('images','P1')", all); !slices.Equal(got, []string{"no image blocks of process " + querytest.P1.String() + ": none has come yet"}) {
		t.Errorf("warnings %q", got)
	}
	strict := all
	strict.Strict = true
	a.rows("SELECT * FROM view_instance('images','P1')", strict)
	if n, running := h.Service.OldestCommit(); running {
		t.Errorf("a query that has ended still pins commit %d", n)
	}
}

func TestAsyncEvents(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	want := []string{"begin,100,0,0", "begin,101,100,1", "end,101,100,1", "end,100,0,0"}
	a.rows("SELECT event_type, span_id, parent_span_id, depth FROM view_instance('async_events','P1') ORDER BY time", all, want...)
	a.rows("SELECT event_type, span_id, parent_span_id, depth FROM view_instance('async_events','P1') ORDER BY time", client.QueryOptions{}, want...)
	a.rows("SELECT count(*) AS c FROM view_instance('async_events','P1')", span(11.150, 11.500), "2")
	a.rows("SELECT count(*) AS c FROM view_instance('net_spans','P1')", client.QueryOptions{}, "0")
	a.fails("SELECT * FROM view_instance('async_events','global')", all, codes.InvalidArgument, "does not support global view access")
	a.fails("SELECT * FROM view_instance('otel_spans','P3')", all, codes.Unimplemented, "otel_spans is not available")
}

// TestSpansOverManyFiles has spans that are open over many files, and one that is still open, some with names that hurt.
func TestSpansOverManyFiles(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, func(c *justintime.Config) { c.SliceObjects = 4 })
	h.spanFixture(t)
	fixtureScopes["it's\x00'"] = fixtureScopes["load"]
	t.Cleanup(func() { delete(fixtureScopes, "it's\x00'") })
	h.store(t, nil, nil, spanBody(11, 3, 7, 8, 12, b("Frame", 7), b("Update", 7.1), b("Physics", 7.2), e("Physics", 7.3)),
		spanBody(12, 3, 8, 9, 16, e("Update", 8.1), b("it's\x00'", 8.2), b("Render", 8.3), e("Render", 8.4)),
		spanBody(13, 3, 9, 10, 20, b("Render", 9.3), e("Render", 9.4)))
	a := spanAsker{t, h.Dial(t, "")}
	for range 2 {
		a.rows(`SELECT id, parent, depth, name, "end" FROM view_instance('thread_spans','S3') WHERE depth > 0`, span(6.55, 3600),
			"10,-1,1,Frame,2026-03-01T10:00:06.800000000Z", "12,-1,1,Frame,2026-03-01T10:00:10.000000000Z", "13,12,2,Update,2026-03-01T10:00:08.100000000Z",
			"14,13,3,Physics,2026-03-01T10:00:07.300000000Z", "17,12,2,it's\uFFFD',2026-03-01T10:00:10.000000000Z", "18,17,3,Render,2026-03-01T10:00:08.400000000Z",
			"20,17,3,Render,2026-03-01T10:00:09.400000000Z")
		a.rows("SELECT count(*), sum(duration) FROM view_instance('thread_spans','S3')", span(6.55, 3600), "8,11300000000")
	}
	h.bus.change = func(r *bus.MaterializeReply) error {
		for i := range r.Open {
			r.Open[i].Name = "'\x00\xff'"
		}
		return nil
	}
	a.rows("SELECT octet_length(name) FROM view_instance('thread_spans','S3') WHERE id = 17", span(6.55, 3600), "6")
}

// TestMaterializerFailures maps what a process that materializes may say.
func TestMaterializerFailures(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	f := func(err error, code codes.Code, wants ...string) {
		t.Helper()
		h.bus.change = func(*bus.MaterializeReply) error { return err }
		a.fails("SELECT * FROM view_instance('thread_spans','S3')", span(0, 3600), code, wants...)
	}
	f(&bus.MaterializeError{Code: bus.TooMuch, Message: "much"}, codes.ResourceExhausted, "much", "shorter time range")
	f(&bus.MaterializeError{Code: bus.Busy, Message: "enough"}, codes.Unavailable, "enough", "try again")
	f(&bus.MaterializeError{Code: bus.Interrupted, Message: "gone"}, codes.Unavailable, "gone", "try again")
	f(&bus.MaterializeError{Code: bus.Failed, Message: "broken"}, codes.Internal, "broken")
	f(&bus.MaterializeError{Code: bus.UnknownView, Message: "what"}, codes.Unimplemented, "thread_spans is not available")
	f(fmt.Errorf("materialize: %w", bus.ErrNoOwner), codes.Unavailable, "no process materializes thread_spans")
	h.bus.change = func(r *bus.MaterializeReply) error {
		r.Warnings = append(r.Warnings, "block left out")
		return nil
	}
	if got := a.warnings("SELECT * FROM view_instance('thread_spans','S3')", span(0, 3600)); !slices.Equal(got, []string{"block left out"}) {
		t.Errorf("warnings %q", got)
	}
	strict := span(0, 3600)
	strict.Strict = true
	a.fails("SELECT * FROM view_instance('thread_spans','S3')", strict, codes.Unavailable, "block left out")
}

// TestDepthShift reads files whose depths are to be moved.
func TestDepthShift(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	h.bus.change = func(r *bus.MaterializeReply) error {
		for i := range r.Files {
			r.Files[i].DepthShift, r.Files[i].ShiftFrom = 2, querytest.At(5.3)
		}
		return nil
	}
	a.rows("SELECT id, depth FROM view_instance('thread_spans','S3') WHERE id >= 0", span(0, 3600), "0,1", "1,2", "3,4", "4,5", "7,4", "10,3")
	a.rows("SELECT arrow_typeof(depth) FROM view_instance('thread_spans','S3') LIMIT 1", span(0, 3600), "UInt32")
}

// TestCapturedSpans loads what a client of another implementation sent.
func TestCapturedSpans(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	var processes []catalog.ProcessReg
	var streams []catalog.StreamReg
	var blocks [][]byte
	files, err := filepath.Glob("../schemas/wire/testdata/spans/*.cbor")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.Contains(name, "insert_process"):
			p, err := wire.DecodeProcess(body)
			if err != nil {
				t.Fatal(err)
			}
			processes = append(processes, catalog.ProcessReg{Process: p, InsertTime: p.StartTime})
		case strings.Contains(name, "insert_stream"):
			s, err := wire.DecodeStream(body)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, catalog.StreamReg{
				Stream: s, DependenciesCBOR: wire.AppendTypes(nil, s.Dependencies), ObjectsCBOR: wire.AppendTypes(nil, s.Objects), InsertTime: processes[0].InsertTime,
			})
		default:
			blocks = append(blocks, body)
		}
	}
	h.store(t, processes, streams, blocks...)
	stream := ""
	for i := range streams {
		if id := streams[i].ID.String(); strings.HasPrefix(id, "c1b57326") {
			stream = id
		}
	}
	a := spanAsker{t, h.Dial(t, "")}
	wide := client.QueryOptions{Begin: querytest.Clock(-1e9), End: querytest.Clock(1e9)}
	a.rows("SELECT id, parent, depth, name, hash FROM view_instance('thread_spans','"+stream+"') WHERE depth <= 1", wide,
		"-1,0,0,main-140584621284864,2424281629", "0,-1,1,vectors_rs::outer,2408230528", "14,-1,1,straddling,2600681376")
	a.rows("SELECT count(*), sum(depth) FROM view_instance('thread_spans','"+stream+"')", wide, "11,24")
	a.rows("SELECT count(*), count(DISTINCT span_id) FROM view_instance('async_events','"+processes[0].ID.String()+"')", wide, "20,10")
}

func TestProcessSpans(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	for range 2 {
		a.rows("SELECT name, duration FROM process_spans('P1','async')", all, "load,800000000", "read,200000000")
		a.rows("SELECT name, duration FROM process_spans('P1','async')", client.QueryOptions{}, "load,800000000", "read,200000000")
		a.rows("SELECT name, duration FROM process_spans('P1','async')", span(11.150, 11.500), "read,200000000")
		a.rows("SELECT thread_name, count(*) AS c FROM process_spans('P1','both') GROUP BY thread_name ORDER BY thread_name", all, "1235,2", "async,2", "main-1234,7")
		a.rows("SELECT thread_name, id, depth, name FROM process_spans('P1','both')", all,
			"main-1234,-1,0,main-1234", "main-1234,0,1,Frame", "main-1234,1,2,Update", "main-1234,3,2,Update", "main-1234,4,3,Physics", "main-1234,7,2,Render",
			"main-1234,10,1,Frame", "1235,0,0,Worker", "1235,1,1,Job", "async,100,0,load", "async,101,1,read")
	}
	a.rows("SELECT stream_id, arrow_typeof(thread_name) FROM process_spans('P1','thread') WHERE name = 'Job'", all,
		querytest.StreamID(4).String()+`,"Dictionary(Int16, Utf8)"`)
	a.rows("SELECT * FROM process_spans('P3','thread')", all)
	a.rows("SELECT * FROM process_spans('P3','both')", all)
	a.rows("SELECT * FROM process_spans('99999999-9999-4999-8999-999999999999','thread')", all)
	a.fails("SELECT * FROM process_spans('99999999-9999-4999-8999-999999999999','both')", all, codes.Internal, "Process not found")
	if got := a.warnings("SELECT * FROM process_spans('P1','both')", span(100, 200)); !slices.Equal(got, []string{
		"no cpu blocks of process " + querytest.P1.String() + " in the range; its blocks are from 2026-03-01T10:00:05Z to 2026-03-01T10:00:12Z",
	}) {
		t.Errorf("warnings %q", got)
	}
	a.fails("SELECT * FROM process_spans('P1','cpu')", all, codes.InvalidArgument, "span_types must be")
	a.fails("SELECT * FROM process_spans('P1','thread')", client.QueryOptions{}, codes.Internal, "Failed to query thread spans: ", "query range mandatory for thread spans view")
	rows, err := h.Dial(t, "").Query(t.Context(), ids("SELECT * FROM process_spans('P1','both')"), all)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	table, _ := tables.Function("process_spans")
	if got, want := schemaText(rows.Schema()), schemaText(table.ArrowSchema(false)); got != want {
		t.Errorf("schema %s, want %s", got, want)
	}
}

// TestLastMicrosecond asks for a time after the end of a block as it is kept, which is cut to microseconds, and before that of its last event.
func TestLastMicrosecond(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(8), querytest.P1, "cpu", wire.CPUTypes, telemetry.Property{Key: "thread-id", Value: "8"})},
		spanBody(23, 8, 32, 33.0000008, 0, b("Frame", 32.1), e("Frame", 33.0000007)))
	a := spanAsker{t, h.Dial(t, "")}
	last := client.QueryOptions{Begin: querytest.Clock(33).Add(500), End: querytest.Clock(34)}
	a.rows("SELECT id, name FROM view_instance('thread_spans','S8')", last, "-1,8", "0,Frame")
	a.rows("SELECT thread_name, id, name FROM process_spans('P1','thread')", last, "8,-1,8", "8,0,Frame")
	a.rows("SELECT thread_name, id, name FROM thread_spans ORDER BY id", last, "8,-1,8", "8,0,Frame")
	a.rows("SELECT thread_name, blocks FROM span_streams()", last, "8,1")
	_, trace := a.chunks("SELECT * FROM perfetto_trace_chunks('P1','thread', TIMESTAMP '2026-03-01T10:00:33.0000005Z', TIMESTAMP '2026-03-01T10:00:34Z')")
	if got := beginsOf(t, trace); !slices.Equal(got, []string{"8", "Frame"}) {
		t.Errorf("a trace of spans %q", got)
	}
	later := client.QueryOptions{Begin: querytest.Clock(33).Add(1000), End: querytest.Clock(34)}
	a.rows("SELECT name FROM process_spans('P1','thread')", later)
	a.rows("SELECT name FROM thread_spans", later)
	a.rows("SELECT thread_name FROM span_streams()", later)
}

func TestPartitionsOfInstances(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	h.Partition(t, "log_entries", querytest.Log(querytest.P1, querytest.At(1), 4, "x", "y", "{}"))
	a := spanAsker{t, h.Dial(t, "")}
	none := client.QueryOptions{}
	a.rows("SELECT view_instance_id FROM list_partitions()", none, "global")
	a.rows("SELECT count(*) FROM process_spans('P1','both')", span(0, 3600), "11")
	a.rows("SELECT begin_insert_time, end_insert_time, num_rows, encode(source_data_hash,'hex'), max_sort_key_time, file_size > 0, file_path IS NULL FROM list_partitions() WHERE view_instance_id='S3'", none,
		"2026-03-01T10:00:07.000000000Z,2026-03-01T10:00:08.000000000Z,7,0c00000000000000,2026-03-01T10:00:06.600000000Z,true,false")
	a.rows("SELECT view_set_name, encode(source_data_hash,'hex') FROM list_partitions() WHERE view_instance_id='P1'", none, "async_events,1300000000000000")
	a.rows("SELECT count(*), count(DISTINCT view_instance_id) FROM list_partitions()", none, "4,4")
}

// chunks returns the pieces of a trace, and fails unless they are numbered from 0.
func (a spanAsker) chunks(sql string) (sizes []int, whole []byte) {
	a.t.Helper()
	rows, err := a.c.Query(a.t.Context(), ids(sql), client.QueryOptions{})
	if err != nil {
		a.t.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return sizes, whole
		}
		if err != nil {
			a.t.Fatalf("%s: %v", sql, err)
		}
		for i := range int(batch.NumRows()) {
			if id := batch.Column(0).(*array.Int32).Value(i); int(id) != len(sizes) {
				a.t.Fatalf("%s: chunk %d has the number %d", sql, len(sizes), id)
			}
			data := batch.Column(1).(*array.Binary).Value(i)
			sizes = append(sizes, len(data))
			whole = append(whole, data...)
		}
	}
}

// beginsOf returns the names of a trace's slices, in the order of its packets.
func beginsOf(t testing.TB, trace []byte) []string {
	t.Helper()
	var decoded tracepb.Trace
	if err := proto.Unmarshal(trace, &decoded); err != nil {
		t.Fatal(err)
	}
	var out []string
	names := map[uint64]string{}
	for _, p := range decoded.Packet {
		for _, n := range p.GetInternedData().GetEventNames() {
			names[n.GetIid()] = n.GetName()
		}
		if p.TrackEvent.GetType() == tracepb.TrackEvent_TYPE_SLICE_BEGIN {
			out = append(out, names[p.TrackEvent.GetNameIid()])
		}
	}
	return out
}

// TestTraceOverFiles has a child without a duration in the file before that of its parent, which begins at the same time.
func TestTraceOverFiles(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, func(c *justintime.Config) { c.SliceObjects = 1 })
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(8), querytest.P1, "cpu", wire.CPUTypes, telemetry.Property{Key: "thread-id", Value: "8"})},
		spanBody(23, 8, 30, 31, 0, b("Frame", 30.1), e("Frame", 30.2), b("Update", 31), b("Physics", 31), e("Physics", 31)),
		spanBody(24, 8, 31, 32, 5, b("Render", 31), e("Render", 31)),
		spanBody(25, 8, 32, 33, 7, e("Update", 32.1), b("Job", 32.2), e("Job", 32.3)))
	a := spanAsker{t, h.Dial(t, "")}
	a.rows("SELECT id, parent, depth, name FROM view_instance('thread_spans','S8') ORDER BY \"begin\", depth, id", span(30, 33),
		"-1,0,0,8", "0,-1,1,Frame", "2,-1,1,Update", "3,2,2,Physics", "5,2,2,Render", "8,-1,1,Job")
	for _, function := range []string{"perfetto_trace_chunks('P1', 'thread'", "perfetto_trace('" + querytest.P1.String() + "', 'threads'"} {
		_, trace := a.chunks("SELECT * FROM " + function + ", TIMESTAMP '2026-03-01T10:00:30Z', TIMESTAMP '2026-03-01T10:00:33Z')")
		if got, want := beginsOf(t, trace), []string{"8", "Frame", "Update", "Physics", "Render", "Job"}; !slices.Equal(got, want) {
			t.Errorf("%s: begins of %q, want %q", function, got, want)
		}
	}
}

func TestTraceChunks(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	trace := func(process, types string) string {
		return " FROM perfetto_trace_chunks(" + process + ",'" + types + "', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')"
	}
	sizes, whole := a.chunks("SELECT chunk_id, chunk_data" + trace("'P1'", "both"))
	if len(sizes) != 4 {
		t.Errorf("chunks of %d bytes", sizes)
	}
	var decoded tracepb.Trace
	if err := proto.Unmarshal(whole, &decoded); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, p := range decoded.Packet {
		switch {
		case p.TrackEvent != nil:
			counts["event"]++
		case p.TrackDescriptor.Process != nil:
			counts["process"]++
		case p.TrackDescriptor.Thread != nil:
			counts[fmt.Sprint("thread ", *p.TrackDescriptor.Thread.Tid)]++
		default:
			counts[*p.TrackDescriptor.Name]++
		}
	}
	if diff := cmp.Diff(map[string]int{"event": 22, "process": 1, "thread 1234": 1, "thread 1235": 1, "Async Operations": 1}, counts); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	for _, sql := range []string{
		"SELECT *" + trace("'P1'", "both"), "SELECT chunk_id, chunk_data" + trace("'P1'", "both") + " ORDER BY chunk_id",
		"SELECT chunk_id, chunk_data" + trace("'P1'", "both") + " WHERE chunk_id >= 0", "SELECT * FROM (SELECT chunk_id, chunk_data" + trace("'P1'", "both") + ") t ORDER BY chunk_id",
	} {
		if s, w := a.chunks(sql); !slices.Equal(s, sizes) || !bytes.Equal(w, whole) {
			t.Errorf("%s: chunks of %d bytes", sql, s)
		}
	}
	if s, w := a.chunks("SELECT *" + trace("'P1'", "both") + " LIMIT 2"); !slices.Equal(s, sizes[:2]) || !bytes.Equal(w, whole[:sizes[0]+sizes[1]]) {
		t.Errorf("two chunks of %d bytes", s)
	}
	if s, _ := a.chunks("SELECT *" + trace("'P1'", "thread")); len(s) != 3 {
		t.Errorf("thread: chunks of %d bytes", s)
	}
	if s, _ := a.chunks("SELECT *" + trace("'P3'", "both")); len(s) != 2 {
		t.Errorf("without threads: chunks of %d bytes", s)
	}
	none := client.QueryOptions{}
	a.rows("SELECT octet_length(chunk_data)"+trace("'P1'", "both")+" LIMIT 1", none, fmt.Sprint(sizes[0]))
	a.rows("SELECT chunk_id AS n"+trace("'P1'", "both"), none, "0", "1", "2", "3")
	a.rows("SELECT count(*), sum(octet_length(chunk_data))"+trace("'P1'", "both"), none, fmt.Sprintf("4,%d", len(whole)))
	a.fails("SELECT chunk_id"+trace("'99999999-9999-4999-8999-999999999999'", "both"), none, codes.InvalidArgument,
		"Trace generation failed: Process 99999999-9999-4999-8999-999999999999 not found")
	a.fails("SELECT chunk_id"+trace("'P1'", "invalid-span-type"), none, codes.InvalidArgument, "span_types must be 'thread', 'async', or 'both', given: ")
	a.fails("SELECT chunk_id"+trace("'nope'", "both"), none, codes.InvalidArgument, "must be a valid UUID", "Process nope not found")
	a.fails("SELECT chunk_id FROM perfetto_trace_chunks('P1','both')", none, codes.InvalidArgument, "Third argument to perfetto_trace_chunks must be a timestamp")
	h.bus.change = func(*bus.MaterializeReply) error { return &bus.MaterializeError{Code: bus.Failed, Message: "broken"} }
	a.fails("SELECT chunk_id"+trace("'P1'", "both"), none, codes.Internal, "Trace generation failed: ", "broken")
	h.bus.change = func(r *bus.MaterializeReply) error {
		if err := os.Truncate(h.Lake.Root()+"/"+r.Files[0].Key, 10); err != nil {
			t.Error(err)
		}
		return nil
	}
	a.fails("SELECT chunk_id"+trace("'P1'", "both"), none, codes.Internal, "Trace generation failed: ")
}

// TestTraceIsLeft closes a long trace after its first batch.
func TestTraceIsLeft(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	var many []spanEvent
	for i := range 50_000 {
		at := 20 + float64(i)*1e-6
		many = append(many, b("Job", at), e("Job", at+5e-7))
	}
	h.store(t, nil, nil, spanBody(20, 4, 20, 21, 7, many...))
	answer, err := h.Service.Query(t.Context(), query.Request{SQL: ids("SELECT * FROM perfetto_trace_chunks('P1','both', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')")})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	batch, err := answer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if batch.NumRows() >= 5000 {
		t.Errorf("a batch of %d rows", batch.NumRows())
	}
	batch.Release()
	if err := answer.Close(); err != nil {
		t.Error(err)
	}
	if s := h.Service.Stats(); s.Running != 0 {
		t.Errorf("stats %+v", s)
	}
}

// manySpans loads threads S3 and S4 with blocks of spans, each in the one before but for every hundredth, which has no parent.
func (h *spanHouse) manySpans(t testing.TB, blocks, spans int) {
	t.Helper()
	var bodies [][]byte
	for k := range blocks {
		for _, stream := range []int{3, 4} {
			from, offset := float64(20+k), int64(12+2*spans*k)
			events := make([]spanEvent, 0, 2*spans)
			for i := 0; i < spans; i += 100 {
				for n := range 100 {
					events = append(events, b("Job", from+float64(i+n)/float64(spans)*0.9))
				}
				for n := range 100 {
					events = append(events, e("Job", from+float64(i+100)/float64(spans)*0.9+float64(n)*1e-9))
				}
			}
			bodies = append(bodies, spanBody(100*stream+k, stream, from, from+1, offset, events...))
		}
	}
	h.store(t, nil, nil, bodies...)
}

// TestManySpansInOrder reads many files with several threads of the engine.
func TestManySpansInOrder(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, func(c *justintime.Config) { c.SliceObjects = 10_000 })
	h.spanFixture(t)
	h.manySpans(t, 20, 2000)
	answer, err := h.Service.Query(t.Context(), query.Request{
		SQL: ids(`SELECT thread_name, "begin", depth FROM process_spans('P1', 'both')`), Range: &query.Range{Begin: querytest.At(0), End: querytest.At(3600)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	threads, rows := []string{""}, 0
	last := telemetry.Span{}
	for {
		batch, err := answer.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(batch.NumRows()) {
			name := batch.Column(0).ValueStr(i)
			s := telemetry.Span{Begin: int64(batch.Column(1).(*array.Timestamp).Value(i)), Depth: batch.Column(2).(*array.Uint32).Value(i)}
			if name != threads[len(threads)-1] {
				threads, last = append(threads, name), telemetry.Span{}
			}
			if s.Begin < last.Begin || s.Begin == last.Begin && s.Depth < last.Depth {
				t.Fatalf("row %d of %s: %+v after %+v", rows, name, s, last)
			}
			last = s
			rows++
		}
		batch.Release()
	}
	if want := []string{"", "main-1234", "1235", "async"}; !slices.Equal(threads, want) || rows != 80_000+11+2 { // each thread has another root after its gap
		t.Errorf("%d rows of threads %q", rows, threads)
	}
}

// BenchmarkSpans reads 500 k spans of one thread, or the million of two, which were built before.
func BenchmarkSpans(b *testing.B) {
	h := newSpanHouse(b, querytest.Options{}, nil)
	h.spanFixture(b)
	h.manySpans(b, 50, 10_000)
	for name, sql := range map[string]string{
		"count":     "SELECT count(*), sum(duration) FROM view_instance('thread_spans','S3')",
		"rows":      "SELECT * FROM view_instance('thread_spans','S3')",
		"twice":     "SELECT * FROM process_spans('P1','thread')",
		"trace":     "SELECT * FROM perfetto_trace_chunks('P1','thread', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')",
		"tracefile": "SELECT count(*) FROM perfetto_trace_chunks('P1','thread', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				answer, err := h.Service.Query(b.Context(), query.Request{SQL: ids(sql), Range: &query.Range{Begin: querytest.At(0), End: querytest.At(3600)}})
				if err != nil {
					b.Fatal(err)
				}
				for {
					batch, err := answer.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					batch.Release()
				}
				if err := answer.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestOnlyWhatIsNeededIsBuiltAndOnce(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	f := func(sql string, opts client.QueryOptions, asked int64, want ...string) {
		t.Helper()
		before := h.bus.asked.Load()
		a.rows(sql, opts, want...)
		if got := h.bus.asked.Load() - before; got != asked {
			t.Errorf("%s: asked for %d instances, want %d", sql, got, asked)
		}
	}
	all := span(0, 3600)
	f("SELECT count(*) FROM process_spans('P1','thread')", all, 2, "9")
	f("SELECT count(*) FROM process_spans('P1','thread')", span(8, 10.5), 1, "2") // the main thread has no block there
	f("SELECT count(*) FROM process_spans('P1','both')", span(20, 30), 1, "0")
	f("SELECT count(*) FROM process_spans('P1','thread') p JOIN view_instance('thread_spans','S3') v ON p.id = v.id AND p.stream_id = 'S3'", all, 2, "7")
	f("SELECT (SELECT count(*) FROM process_spans('P1','both')), (SELECT count(*) FROM process_spans('P1','async')), (SELECT count(*) FROM view_instance('async_events','P1'))", all, 3, "11,2,4")
	track := "SELECT octet_length(chunk_data) FROM perfetto_trace_chunks('P1','async', TIMESTAMP '%s', TIMESTAMP '2026-03-01T11:00:00Z') WHERE chunk_id = 1"
	f(fmt.Sprintf(track, "2026-03-01T10:00:00Z"), client.QueryOptions{}, 1, "100")
	f(fmt.Sprintf(track, "2026-03-01T10:00:08Z"), client.QueryOptions{}, 1, "47") // of the other thread
}

// TestCutSpans has a span that ends in the hour after the one it begins in.
func TestCutSpans(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(8), querytest.P1, "cpu", wire.CPUTypes)},
		spanBody(23, 8, 3500, 3590, 0, b("Frame", 3510), b("Update", 3520), e("Update", 3530)),
		spanBody(24, 8, 3600, 3700, 3, e("Frame", 3650)))
	a := spanAsker{t, h.Dial(t, "")}
	stream := querytest.StreamID(8).String()
	cut := `span "Frame" of stream ` + stream + " may last longer than to 2026-03-01T10:59:50Z, the end of the blocks of the hours that the range touches: a range that reaches further shows its end"
	for _, from := range []string{"view_instance('thread_spans','S8')", "process_spans('P1','thread')", "thread_spans WHERE stream_id = 'S8'"} {
		sql := ids("SELECT id FROM " + from)
		if got := a.warnings(sql, span(3515, 3525)); !slices.Equal(got, []string{cut}) {
			t.Errorf("%s: warnings %q", from, got)
		}
		for _, whole := range []client.QueryOptions{span(3515, 3610), span(3620, 3630)} {
			if got := a.warnings(sql, whole); len(got) != 0 {
				t.Errorf("%s: warnings %q", from, got)
			}
		}
	}
}

// TestOddRanges asks for times beyond what nanoseconds hold, and backwards.
func TestOddRanges(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	_, want := a.chunks("SELECT * FROM perfetto_trace_chunks('P1','both','2020-01-01T00:00:00Z','2200-01-01T00:00:00Z')")
	for _, within := range []string{
		"'2020-01-01T00:00:00Z','2263-01-01T00:00:00Z'", "'1600-01-01T00:00:00Z','9999-01-01T00:00:00Z'", "'0001-01-01T00:00:00Z','2030-01-01T00:00:00Z'",
		"TIMESTAMP '1600-01-01', TIMESTAMP '2300-01-01'", "TIMESTAMP '2020-01-01', TIMESTAMP '2300-01-01'",
	} {
		if _, got := a.chunks("SELECT * FROM perfetto_trace_chunks('P1','both'," + within + ")"); !slices.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d", within, len(got), len(want))
		}
	}
	far := client.QueryOptions{Begin: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC), End: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	a.rows("SELECT count(*) FROM thread_spans WHERE exe = 'game.exe'", far, "0")
	a.rows("SELECT count(*) FROM view_instance('thread_spans','S3')", far, "0")
	back := "the range ends before it begins: from 2026-03-01T10:00:20Z to 2026-03-01T10:00:10Z"
	if got := a.warnings("SELECT * FROM process_spans('P1','both')", span(20, 10)); !slices.Contains(got, back) {
		t.Errorf("warnings %q", got)
	}
	if got := a.warnings("SELECT * FROM perfetto_trace_chunks('P1','both','2026-03-01T10:00:20Z','2026-03-01T10:00:10Z')", client.QueryOptions{}); !slices.Contains(got, back) {
		t.Errorf("warnings %q", got)
	}
}

// TestWhoIsMeant asks functions for processes that are not there.
func TestWhoIsMeant(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	near := querytest.P1.String()
	near = near[:len(near)-1] + "f"
	mean := "no process " + near + " is registered; did you mean " + querytest.P1.String() + "?"
	stream := querytest.StreamID(3).String()
	for _, sql := range []string{"SELECT * FROM process_spans('%s','thread')", "SELECT * FROM call_tree('%s','thread')"} {
		if got := a.warnings(fmt.Sprintf(sql, near), span(0, 100)); !slices.Equal(got, []string{mean}) {
			t.Errorf("%s: warnings %q", sql, got)
		}
		if got := a.warnings(fmt.Sprintf(sql, stream), span(0, 100)); len(got) != 1 || !strings.Contains(got[0], "is a stream: its process is") {
			t.Errorf("%s: warnings %q", sql, got)
		}
	}
	for _, sql := range []string{"perfetto_trace_chunks('%s','both'", "perfetto_trace('%s','all'"} {
		sql = "SELECT * FROM " + fmt.Sprintf(sql, near) + ",'2026-03-01T10:00:00Z','2026-03-01T11:00:00Z')"
		a.fails(sql, client.QueryOptions{}, codes.InvalidArgument, "Execution error: Trace generation failed: Process "+near+" not found", "did you mean")
	}
	if got := a.warnings("SELECT * FROM spans_around('P1','2026-03-02T10:00:00Z')", client.QueryOptions{}); len(got) != 1 || !strings.Contains(got[0], "its blocks are from 2026-03-01T10:00:05Z") {
		t.Errorf("warnings %q", got)
	}
}
