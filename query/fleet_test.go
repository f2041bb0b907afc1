package query_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// fleetFixture loads two processes with two threads each: those of spanFixture, and P2 with S5 and S6. Beside them P2 has a stream of logs
// and a thread without blocks.
func (h *spanHouse) fleetFixture(t testing.TB) {
	t.Helper()
	h.spanFixture(t)
	of := func(body []byte) []byte { return ofProcess(t, querytest.P2, body) }
	h.store(t, []catalog.ProcessReg{{Process: telemetry.Process{
		ID: querytest.P2, Exe: "server", Username: "it's", Computer: "SRV1", TSCFrequency: 1_000_000_000, StartTime: querytest.At(0), StartTicks: 1_000_000,
		Properties: []telemetry.Property{{Key: "build", Value: "7"}, {Key: "zone", Value: "'\x00\""}},
	}, InsertTime: querytest.At(1)}},
		[]catalog.StreamReg{
			streamOf(querytest.StreamID(5), querytest.P2, "cpu", wire.CPUTypes, telemetry.Property{Key: "thread-name", Value: "net"}, telemetry.Property{Key: "thread-id", Value: "5"}),
			streamOf(querytest.StreamID(6), querytest.P2, "cpu", wire.CPUTypes, telemetry.Property{Key: "thread-name", Value: "idle"}),
			streamOf(querytest.StreamID(7), querytest.P2, "log", wire.CPUTypes),
			streamOf(querytest.StreamID(8), querytest.P2, "cpu", wire.CPUTypes),
		},
		of(spanBody(21, 5, 5, 6, 0, b("Worker", 5), b("Job", 5.1), e("Job", 5.2), e("Worker", 5.8))),
		of(spanBody(22, 5, 6, 7, 4, b("Worker", 6), b("Job", 6.1), e("Job", 6.4))),
		of(spanBody(23, 6, 100, 101, 0, b("Job", 100), e("Job", 100.5))))
}

// ofProcess puts another process into the body of a block.
func ofProcess(t testing.TB, id telemetry.ID, body []byte) []byte {
	t.Helper()
	v, err := wire.DecodeBlock(body)
	if err != nil {
		t.Fatal(err)
	}
	v.Block.ProcessID = id
	return wire.AppendBlock(nil, &v.Block, v.Dependencies, v.Objects)
}

func TestFleet(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.fleetFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	for range 2 { // built, and found
		a.rows("SELECT exe, thread_name, count(*), sum(duration), max(depth) FROM thread_spans GROUP BY ALL ORDER BY ALL", all,
			"game.exe,1235,2,2000000000,1", "game.exe,main-1234,7,4250000000,3", "server,idle-"+querytest.StreamID(6).String()+",2,1500000000,1", "server,net-5,5,4200000000,2")
	}
	a.rows("SELECT DISTINCT process_id, username, computer, stream_id FROM thread_spans WHERE exe = 'server' ORDER BY stream_id", all,
		querytest.P2.String()+",it's,SRV1,"+querytest.StreamID(5).String(), querytest.P2.String()+",it's,SRV1,"+querytest.StreamID(6).String())
	a.rows("SELECT id, parent, depth, name, target, filename, line, hash FROM thread_spans WHERE exe = 'server' AND thread_name = 'net-5' AND depth > 1 ORDER BY id", all,
		"1,0,2,Job,game::jobs,jobs.cpp,60,499048450", "5,4,2,Job,game::jobs,jobs.cpp,60,499048450")
	a.rows("SELECT name, sum(duration) FROM thread_spans WHERE property_get(process_properties, 'build') = '7' AND name = 'Job' GROUP BY name", all, "Job,900000000")
	a.rows("SELECT DISTINCT property_get(process_properties, 'zone') = '''' || chr(0) || '\"' FROM thread_spans WHERE process_id = '"+querytest.P2.String()+"'", all, "true")
	a.rows("SELECT count(*) FROM thread_spans WHERE exe = 'server' OR depth = 3", all, "8")
	a.rows("SELECT p.exe, count(*) FROM thread_spans s JOIN processes p USING (process_id) WHERE s.exe = 'server' AND p.username = 'it''s' GROUP BY 1", all, "server,7")
	a.rows("SELECT count(*), count(b.id) FROM thread_spans a LEFT JOIN thread_spans b ON a.id = b.id AND a.name = b.name AND b.exe = 'server' WHERE a.exe = 'game.exe'", all, "9,2")
	a.rows("SELECT count(*) FROM thread_spans", span(5.15, 5.25), "6")
	a.rows("SELECT arrow_typeof(exe), arrow_typeof(process_properties), arrow_typeof(depth) FROM thread_spans LIMIT 1", all, "\"Dictionary(Int32, Utf8)\",\"Dictionary(Int32, Binary)\",UInt32")
	a.rows("SELECT * FROM thread_spans WHERE exe = 'nobody'", all)
	a.rows("SELECT * FROM thread_spans WHERE false", all)
	if got := a.warnings("SELECT * FROM thread_spans WHERE exe = 'nobody'", all); !slices.Equal(got, []string{"no thread that the statement means has blocks in the range"}) {
		t.Errorf("warnings %q", got)
	}
	a.rows("SELECT column_name FROM information_schema.columns WHERE table_name = 'thread_spans'", all)
	a.fails("SELECT count(*) FROM thread_spans", client.QueryOptions{}, codes.Internal, "error creating physical plan: External error: query range mandatory for thread spans view")
	a.fails("SELECT nope FROM thread_spans WHERE exe = 'a'", all, codes.InvalidArgument, "No field named nope")
	a.fails("SELECT 1 FROM thread_spans WHERE CAST(exe AS BIGINT) = 1", all, codes.InvalidArgument, "game.exe")
	if n, running := h.Service.OldestCommit(); running {
		t.Errorf("a query that has ended still pins commit %d", n)
	}
}

// TestFleetBuildsWhatIsMeant counts the requests of statements: one for the price of each thread, and one to build what costs something.
func TestFleetBuildsWhatIsMeant(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.fleetFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	f := func(sql string, opts client.QueryOptions, requests int64, want ...string) {
		t.Helper()
		before := h.bus.asked.Load()
		a.rows(sql, opts, want...)
		if got := h.bus.asked.Load() - before; got != requests {
			t.Errorf("%s: %d requests, want %d", sql, got, requests)
		}
	}
	all := span(0, 3600)
	f("SELECT count(*) FROM thread_spans WHERE exe = 'server' AND stream_id <> 'S5'", all, 2, "2")
	f("SELECT count(*) FROM thread_spans WHERE exe = 'server'", all, 3, "7")
	f("SELECT count(*) FROM thread_spans", all, 6, "16")
	f("SELECT count(*) FROM thread_spans", all, 4, "16")
	f("SELECT count(*) FROM thread_spans", span(99, 110), 1, "2")
	f("SELECT count(*) FROM thread_spans", span(200, 210), 0, "0")
	f("SELECT count(*) FROM thread_spans WHERE property_get(process_properties, 'build') = '7'", all, 2, "7")
	f("SELECT count(*) FROM thread_spans WHERE exe = 'server' OR depth = 3", all, 4, "8")
	f("SELECT (SELECT count(*) FROM thread_spans WHERE exe = 'server'), (SELECT count(*) FROM thread_spans WHERE thread_name LIKE 'net-%')", all, 2, "7,5")
	f("SELECT count(*) FROM thread_spans WHERE false", all, 0, "0")
	f("DESCRIBE SELECT id FROM thread_spans", client.QueryOptions{}, 0, "id,Int64,NO")
	schema, err := h.Service.Prepare(t.Context(), query.Request{SQL: "SELECT * FROM thread_spans WHERE exe = 'a'"})
	if err != nil || schema.NumFields() != 18 {
		t.Errorf("schema %v, %v", schema, err)
	}
}

// TestFleetEqualsItsThreads compares the rows with those of each thread's own view, also where spans are open over many files.
func TestFleetEqualsItsThreads(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, func(c *justintime.Config) { c.SliceObjects = 4 })
	h.fleetFixture(t)
	h.bus.change = func(r *bus.MaterializeReply) error {
		for i := range r.Files {
			if r.Files[i].MinTime < querytest.At(6) {
				r.Files[i].DepthShift, r.Files[i].ShiftFrom = 2, querytest.At(5.15)
			}
		}
		return nil
	}
	a := spanAsker{t, h.Dial(t, "")}
	for _, opts := range []client.QueryOptions{span(0, 3600), span(5.25, 6.2), span(5.15, 5.3), span(6.45, 100.1)} {
		var want []string
		for s := 3; s <= 6; s++ {
			rows, err := ask(t.Context(), a.c, ids(fmt.Sprintf("SELECT 'S%d' AS s, * FROM view_instance('thread_spans', 'S%d') ORDER BY id", s, s)), opts)
			if err != nil {
				t.Fatal(err)
			}
			if rows != "" {
				want = append(want, rows)
			}
		}
		if len(want) < 2 {
			t.Errorf("only %d threads have rows", len(want))
		}
		a.rows(`SELECT stream_id, id, parent, depth, hash, begin, "end", duration, name, target, filename, line FROM thread_spans ORDER BY stream_id, id`, opts, want...)
	}
}

// TestFleetSeesNewBlocks: a thread is found when its first blocks come, and where its last ones are.
func TestFleetSeesNewBlocks(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.fleetFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	const sql = "SELECT thread_name, count(*) FROM thread_spans GROUP BY ALL"
	late := span(3000, 3600)
	a.rows(sql, late)
	h.store(t, nil, nil, spanBody(31, 4, 3000, 3001, 7, b("Job", 3000), e("Job", 3000.5)))
	a.rows(sql, late, "1235,2") // it still works at what began in its first block
	a.rows(sql, span(200, 2000))
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(9), querytest.P1, "cpu", wire.CPUTypes)}, spanBody(32, 9, 1000, 1001, 0, b("Job", 1000), e("Job", 1000.5)))
	a.rows(sql, span(200, 2000), querytest.StreamID(9).String()+",2")
}

func TestFleetBudget(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{Config: func(c *query.Config) { c.FleetBlocks, c.FleetStreams = 4, 3 }}, nil)
	h.fleetFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	a.fails("SELECT * FROM thread_spans", all, codes.ResourceExhausted,
		"Resources exhausted: the spans of 4 threads of 2 processes would be read, and the budget is 3 threads", "ask for a shorter time range, or for fewer processes",
		"FROM thread_spans TABLESAMPLE ")
	const three = "SELECT count(*) FROM thread_spans WHERE stream_id <> 'S6'"
	a.fails(three, all, codes.ResourceExhausted, "6 blocks of 3 threads of 2 processes would have to be decoded, and the budget is 4 blocks")
	if got, err := ask(t.Context(), a.c, ids("SELECT count(*) FROM list_partitions() WHERE view_set_name = 'thread_spans'"), all); err != nil || got != "0" {
		t.Errorf("%s partitions were built, %v", got, err)
	}

	// the sample that the help names fits, and is no smaller than it has to be
	_, err := ask(t.Context(), a.c, ids(three), all)
	sample := regexp.MustCompile(`TABLESAMPLE [0-9.]+ PERCENT`).FindString(err.Error())
	if sample == "" {
		t.Fatal(err)
	}
	sampled := strings.Replace(three, "FROM thread_spans", "FROM thread_spans "+sample, 1)
	got := a.warnings(sampled, all)
	if len(got) != 1 || !regexp.MustCompile(`^[24] blocks of [12] threads of [12] processes decoded, [0-9.]+% sampled$`).MatchString(got[0]) {
		t.Errorf("%s: warnings %q", sampled, got)
	}
	strict := all
	strict.Strict = true
	if _, err := ask(t.Context(), a.c, ids(sampled), strict); err != nil {
		t.Errorf("a sample is no incomplete answer: %v", err)
	}

	// what is built costs nothing
	a.rows("SELECT count(*) FROM thread_spans WHERE exe = 'game.exe'", all, "9")
	a.rows(three, all, "14")

	// one thread at least, always the same
	const one = "SELECT count(DISTINCT stream_id), min(stream_id) FROM thread_spans TABLESAMPLE 0.0001%"
	first, err := ask(t.Context(), a.c, one, all)
	if err != nil || !strings.HasPrefix(first, "1,aaaaaaaa-") {
		t.Errorf("%s: %q, %v", one, first, err)
	}
	a.rows(one, all, first)
}

// TestFleetFailures maps what a process that materializes may say.
func TestFleetFailures(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.fleetFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	h.bus.change = func(*bus.MaterializeReply) error { return &bus.MaterializeError{Code: bus.Busy, Message: "enough"} }
	a.fails("SELECT * FROM thread_spans", span(0, 3600), codes.Unavailable, "enough", "try again")
	h.bus.change = func(r *bus.MaterializeReply) error {
		r.Warnings = append(r.Warnings, "block left out")
		for i := range r.Open {
			r.Open[i].Name = "'\x00\xff'"
		}
		return nil
	}
	if got := a.warnings("SELECT * FROM thread_spans", span(0, 3600)); !slices.Equal(got, []string{"block left out"}) {
		t.Errorf("warnings %q", got)
	}
	a.rows("SELECT octet_length(name) FROM thread_spans WHERE thread_name = 'net-5' AND id = 4", span(0, 3600), "6")
}
