package query_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// schemaOf checks that a function's whole result has the columns that it is declared with.
func (a spanAsker) schemaOf(sql, function string, opts client.QueryOptions) {
	a.t.Helper()
	for _, dictionaries := range []bool{false, true} {
		opts.PreserveDictionary = dictionaries
		rows, err := a.c.Query(a.t.Context(), ids(sql), opts)
		if err != nil {
			a.t.Fatal(err)
		}
		table, _ := tables.Function(function)
		if got, want := schemaText(rows.Schema()), schemaText(table.ArrowSchema(dictionaries)); got != want {
			a.t.Errorf("%s: schema %s, want %s", sql, got, want)
		}
		rows.Close()
	}
}

func TestSpanStreams(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	a.rows("SELECT * FROM span_streams()", all)
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{
		streamOf(querytest.StreamID(6), querytest.P1, "cpu", wire.CPUTypes), // has no blocks
		streamOf(querytest.StreamID(7), querytest.P3, "log", wire.LogTypes),
	})
	h.Archive(t, nil, nil, []catalog.BlockReg{{
		Block: telemetry.Block{
			ID: querytest.BlockID(9), StreamID: querytest.StreamID(7), ProcessID: querytest.P3, BeginTime: querytest.At(12), EndTime: querytest.At(13), NbObjects: 1,
		},
		InsertTime: querytest.At(14), PayloadSize: 1,
	}})
	want := []string{
		querytest.P1.String() + ",game.exe," + querytest.StreamID(3).String() + ",main-1234,cpu,2,12,2026-03-01T10:00:05.000000000Z,2026-03-01T10:00:07.000000000Z",
		querytest.P1.String() + ",game.exe," + querytest.StreamID(4).String() + ",1235,cpu,2,7,2026-03-01T10:00:10.000000000Z,2026-03-01T10:00:12.000000000Z",
	}
	columns := "SELECT process_id, exe, stream_id, thread_name, tag, blocks, events, first, last FROM span_streams() ORDER BY stream_id"
	a.rows(columns, all, want...)
	a.rows(columns, client.QueryOptions{}, want...)
	a.rows("SELECT stream_id, blocks, events FROM span_streams()", span(6.5, 9), querytest.StreamID(3).String()+",1,4")
	a.rows("SELECT count(*) FROM span_streams()", span(7.5, 8), "0") // S3 has ended, though its last block came later
	a.rows("SELECT count(*) FROM span_streams() s JOIN blocks b USING (stream_id) GROUP BY stream_id HAVING sum(b.payload_size) = any_value(s.bytes)", all, "2", "2")
	a.schemaOf("SELECT * FROM span_streams()", "span_streams", all)
}

func TestInstanceCost(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	columns := "SELECT view_set_name, blocks, blocks_to_decode, events, bytes > 0, partitions, fresh_partitions FROM "
	for range 2 { // asking builds nothing
		a.rows(columns+"instance_cost('thread_spans','S3')", all, "thread_spans,2,2,12,true,1,0")
	}
	a.rows("SELECT view_instance_id FROM instance_cost('thread_spans','S3')", client.QueryOptions{}, querytest.StreamID(3).String())
	a.rows("SELECT count(*) FROM view_instance('thread_spans','S3')", all, "7")
	a.rows(columns+"instance_cost('thread_spans','S3')", all, "thread_spans,2,0,12,true,1,1")
	a.rows(columns+"instance_cost('async_events','P1')", all, "async_events,4,4,19,true,1,0")
	a.rows(columns+"instance_cost('thread_spans','S3')", span(7200, 7300), "thread_spans,0,0,0,false,0,0")
	a.fails("SELECT * FROM instance_cost('log_entries','P1')", all, codes.InvalidArgument, "'log_entries' is no view set", "thread_spans")
	a.fails("SELECT * FROM instance_cost('nope','P1')", all, codes.InvalidArgument, "'nope' is no view set")
	a.fails("SELECT * FROM instance_cost('images','x')", all, codes.InvalidArgument, "'x' is not a valid UUID")
	a.fails("SELECT * FROM instance_cost('thread_spans','P1')", all, codes.Internal, "Stream not found", "is a process")
	a.fails("SELECT * FROM instance_cost('otel_spans','P1')", all, codes.Unimplemented, "otel_spans is not available")
	a.schemaOf("SELECT * FROM instance_cost('thread_spans','S3')", "instance_cost", all)
}

func TestSpansAround(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	none := client.QueryOptions{}
	at := func(seconds float64, margin string) string {
		return "SELECT thread_name, id, depth, name FROM spans_around('P1', '" + querytest.Clock(seconds).Format("2006-01-02T15:04:05.000Z") + "'" + margin + ")"
	}
	for range 2 {
		a.rows(at(5.37, ""), none, "main-1234,-1,0,main-1234", "main-1234,0,1,Frame", "main-1234,3,2,Update", "main-1234,4,3,Physics")
		a.rows(at(5.37, ", 300000000"), none, "main-1234,-1,0,main-1234", "main-1234,0,1,Frame", "main-1234,1,2,Update", "main-1234,3,2,Update", "main-1234,4,3,Physics")
		a.rows(at(5.37, ", margin => 0"), span(100, 200), "main-1234,-1,0,main-1234", "main-1234,0,1,Frame", "main-1234,3,2,Update", "main-1234,4,3,Physics")
		a.rows(at(11.3, ""), none, "1235,0,0,Worker", "async,100,0,load", "async,101,1,read")
		a.rows(at(11.5, ""), none, "1235,0,0,Worker", "async,100,0,load")
		a.rows(at(300, ""), none)
	}
	a.rows("SELECT stream_id, name FROM spans_around('P1', make_timestamp_ns(1772359210500000000)) ORDER BY depth DESC", none,
		querytest.StreamID(4).String()+",Job", querytest.StreamID(4).String()+",Worker")
	a.rows(at(10.5, ", 9223372036854775807")+" WHERE depth > 2", none, "main-1234,4,3,Physics")
	a.rows("SELECT * FROM spans_around('P3', now())", none)
	a.fails("SELECT * FROM spans_around('99999999-9999-4999-8999-999999999999', now())", none, codes.Internal, "Process not found", "SELECT process_id FROM processes lists")
	a.schemaOf("SELECT * FROM spans_around('P1', now())", "spans_around", none)
	a.schemaOf(strings.Replace(at(11.3, ""), "thread_name, id, depth, name", "*", 1), "spans_around", none)
}

func TestCallTree(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	p1, p3 := querytest.P1.String(), querytest.P3.String()
	for range 2 { // built, and found
		a.rows("SELECT depth, name, target, filename, line, calls, total, self, min, max FROM call_tree('P1','thread')", all,
			"0,Worker,game::jobs,jobs.cpp,50,1,1800000000,1600000000,1800000000,1800000000",
			"1,Job,game::jobs,jobs.cpp,60,1,200000000,200000000,200000000,200000000",
			"0,Frame,game::loop,loop.cpp,10,2,1700000000,1200000000,200000000,1500000000",
			"1,Update,game::loop,loop.cpp,20,2,300000000,250000000,100000000,200000000",
			"2,Physics,game::phys,phys.cpp,30,1,50000000,50000000,50000000,50000000",
			"1,Render,game::gfx,gfx.cpp,40,1,200000000,200000000,200000000,200000000")
		a.rows("SELECT * FROM call_names('P1','thread')", all,
			"Worker,1,1800000000,1600000000,1800000000,1800000000", "Frame,2,1700000000,1200000000,200000000,1500000000", "Update,2,300000000,250000000,100000000,200000000",
			"Job,1,200000000,200000000,200000000,200000000", "Render,1,200000000,200000000,200000000,200000000", "Physics,1,50000000,50000000,50000000,50000000")
	}
	a.rows("SELECT p.name, c.name FROM call_tree('P1','thread') c JOIN call_tree('P1','thread') p ON c.parent_path_id = p.path_id ORDER BY 1, 2", all,
		"Frame,Render", "Frame,Update", "Update,Physics", "Worker,Job")
	a.rows("SELECT count(*) FROM call_tree('P1','thread') WHERE parent_path_id = 0 AND depth = 0 AND hash <> 0", all, "2")
	a.rows("SELECT name, calls, total, self FROM call_tree('P1','thread')", span(5.15, 5.38),
		"Frame,1,230000000,100000000", "Update,2,130000000,100000000", "Physics,1,30000000,30000000") // as far as they lie in the range
	a.rows("SELECT sum(self) FROM call_tree('"+p3+", "+p1+"','thread')", all, "3500000000")
	asked := h.bus.asked.Load()
	a.rows("SELECT sum(t.self) = (SELECT sum(self) FROM call_names('P1','thread')) FROM call_tree('P1','thread') t", all, "true")
	if n := h.bus.asked.Load() - asked; n != 2 {
		t.Errorf("two functions of the same spans had %d instances built, want 2", n)
	}
	a.rows("SELECT * FROM call_tree('P3','thread')", all)
	if got, want := a.warnings("SELECT * FROM call_tree('P3','thread')", all), []string{"process " + p3 + " has no threads with spans"}; !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	if got, want := a.warnings("SELECT * FROM call_names('P1','thread')", span(100, 200)), []string{
		"no spans in the range; the threads' blocks are from 2026-03-01T10:00:05Z to 2026-03-01T10:00:12Z",
	}; !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	a.fails("SELECT * FROM call_tree('P1','thread')", client.QueryOptions{}, codes.Internal, "query range mandatory for thread spans view")
	a.fails("SELECT * FROM call_tree('P1','both')", all, codes.InvalidArgument, "span_types must be 'thread'")
	a.schemaOf("SELECT * FROM call_tree('P1','thread')", "call_tree", all)
	a.schemaOf("SELECT * FROM call_names('P1','thread')", "call_names", all)
	a.schemaOf("SELECT * FROM call_names('P3','thread')", "call_names", all)
}

// TestScopesOfOneHash has two scopes whose hashes are the same.
func TestScopesOfOneHash(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	seen := map[uint32]string{}
	var names []string
	like := fixtureScopes["Update"]
	for i := 0; names == nil; i++ {
		name := strconv.Itoa(i)
		hash := wire.ScopeHash(name, like.file, like.target, like.line)
		if other, ok := seen[hash]; ok {
			names = []string{other, name}
		}
		seen[hash] = name
	}
	for _, name := range names {
		fixtureScopes[name] = like
		t.Cleanup(func() { delete(fixtureScopes, name) })
	}
	h.store(t, nil, nil, spanBody(11, 3, 20, 21, 12, b(names[0], 20), b(names[1], 20.1), e(names[1], 20.3), e(names[0], 20.9)))
	a := spanAsker{t, h.Dial(t, "")}
	a.rows("SELECT name, calls, total, self FROM call_tree('P1','thread')", span(20, 3600), names[0]+",1,900000000,700000000", names[1]+",1,200000000,200000000")
}

// TestCallTreesTakePlacesInTurn has more queries than the engine has places, each of which needs places before its own.
func TestCallTreesTakePlacesInTurn(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{Engine: func(c *engine.Config) { c.MaxConcurrent = 1 }}, nil)
	h.spanFixture(t)
	c := h.Dial(t, "")
	var g errgroup.Group
	for range 6 {
		g.Go(func() error {
			_, err := ask(t.Context(), c, ids("SELECT count(*) FROM call_tree('P1','thread') JOIN call_names('P1','thread') USING (name)"), span(0, 3600))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
