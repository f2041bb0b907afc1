package query_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/client/output"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// ask returns the rows of a statement as CSV without its header line.
func ask(ctx context.Context, c *client.Client, sql string, opts client.QueryOptions) (string, error) {
	rows, err := c.Query(ctx, sql, opts)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var b strings.Builder
	if _, err := output.Write(&b, output.CSV, rows); err != nil {
		return "", err
	}
	_, body, _ := strings.Cut(b.String(), "\n")
	return strings.TrimSuffix(body, "\n"), nil
}

// span is a time range in seconds after the fixture's T0.
func span(begin, end float64) client.QueryOptions {
	return client.QueryOptions{Begin: querytest.Clock(begin), End: querytest.Clock(end)}
}

func TestTables(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	all := span(0, 3600)
	p1, p2, p3 := querytest.P1.String(), querytest.P2.String(), querytest.P3.String()
	f := func(sql string, opts client.QueryOptions, want ...string) {
		t.Helper()
		got, err := ask(t.Context(), c, sql, opts)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sql, diff)
		}
	}
	for range 2 { // the second time statements and snapshots are kept ones
		f("SELECT 1", client.QueryOptions{}, "1")
		f("SELECT count(*) FROM log_entries", all, "8")
		f("SELECT count(*) FROM log_entries", client.QueryOptions{}, "8")
		f("SELECT count(*) FROM log_entries", span(0, 30), "3")
		f("SELECT count(*) FROM log_entries", client.QueryOptions{Begin: querytest.Clock(30).Add(1), End: querytest.Clock(60)}, "1")
		f("SELECT count(*) FROM log_entries", span(1800, 2400), "0")
		f("SELECT msg FROM log_entries WHERE level <= 2 ORDER BY time", all, "disconnect", "crash", "timeout")
		f("SELECT time FROM log_entries WHERE msg='slow peer'", all, "2026-03-01T10:00:02.500000001Z")
		f("SELECT properties, process_properties FROM log_entries WHERE msg='disconnect'", all, `"{""peer"":""bob""}","{""build-version"":""1.2.3"",""platform"":""win64""}"`)
		f("SELECT name, unit, value FROM measures WHERE target='game::load'", all, "load_time,seconds,1.5")
		f("SELECT process_id FROM processes ORDER BY exe", all, p3, p1, p2)
		f("SELECT last_update_time, last_block_end_ticks, last_block_end_time FROM processes WHERE process_id='"+p1+"'", all,
			"2026-03-01T10:02:03.000000000Z,120000000000,2026-03-01T10:02:00.000000000Z")
		f("SELECT parent_process_id || '.' FROM processes ORDER BY exe", all, ".", ".", p1+".")
		f("SELECT count(*) FROM processes", span(65, 90), "2")
		f("SELECT count(*) FROM processes", span(0, 30), "1")
		f("SELECT stream_id FROM streams WHERE array_has(tags,'cpu') ORDER BY stream_id", all, querytest.StreamID(3).String(), querytest.StreamID(4).String())
		f("SELECT tags FROM streams WHERE stream_id = '"+querytest.StreamID(3).String()+"'", all, "[cpu]")
		f("SELECT count(*) AS c, sum(nb_objects) AS s, sum(payload_size) AS p FROM blocks", all, "11,45,11066")
		f(`SELECT sum(nb_objects) AS s FROM blocks WHERE array_has("streams.tags",'log')`, all, "8")
		f("SELECT count(*) FROM blocks", span(0, 30), "6")
		f("SELECT count(*) FROM blocks", span(65, 90), "6")
		f(`SELECT DISTINCT "processes.exe" AS e FROM blocks WHERE array_has("streams.tags",'log') ORDER BY e`, all, "game.exe", "server")
		f("SELECT p.exe, count(*) AS c FROM log_entries l JOIN processes p ON l.process_id = p.process_id GROUP BY p.exe ORDER BY p.exe", all, "game.exe,6", "server,2")
		f("SELECT time_bin, process_id, level, target, count FROM log_stats WHERE target = 'game::boot'", all, "2026-03-01T10:00:00.000000000Z,"+p1+",4,game::boot,2")
		f("SELECT sum(count) FROM log_stats", span(10, 30), "4") // the bin that overlaps the range is kept whole
		f("SELECT count(*) FROM log_stats", span(0, 60), "6")
		f("SELECT count(*) FROM view_instance('log_entries','"+p1+"')", all, "6")
		f("SELECT count(*) FROM view_instance('log_entries','"+strings.ToUpper(p1)+"')", span(0, 30), "3")
		f("SELECT count(*) FROM view_instance('log_entries','"+p1+"')", client.QueryOptions{}, "6")
		f("SELECT count(*) FROM view_instance('log_entries','"+p2+"')", span(0, 30), "0")
		f("SELECT count(*) FROM view_instance('log_entries','"+p3+"')", all, "0")
		f("SELECT count(*) FROM view_instance('log_entries','global')", all, "8")
		f("SELECT count(*) FROM view_instance('measures','"+p1+"')", all, "7")
		f("SELECT view_set_name, encode(current_schema_hash,'hex'), has_view_maker, global_instance_available FROM list_view_sets() WHERE view_set_name IN ('log_entries','thread_spans','blocks')",
			client.QueryOptions{}, "log_entries,06,true,true", "blocks,03,false,true", "thread_spans,03,true,false")
		f("SELECT view_set_name, view_instance_id, sum(num_rows) FROM list_partitions() GROUP BY 1, 2 ORDER BY 1", client.QueryOptions{},
			"log_entries,global,8", "log_stats,global,8", "measures,global,7")
		f("SELECT data_type FROM information_schema.columns WHERE table_name='log_entries' AND column_name='time'", client.QueryOptions{}, `"Timestamp(ns, ""+00:00"")"`)
		f("SELECT msg FROM log_entries ORDER BY time", client.QueryOptions{Limit: 2}, "starting", "slow peer")
	}
	if _, running := e.Service.OldestCommit(); running {
		t.Error("a query that has ended still pins its partitions")
	}
	if s := e.Service.Stats(); s.Running != 0 || s.Failed != 0 || s.Partitions != 5 {
		t.Errorf("stats %+v", s)
	}
}

func TestIntrospection(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	f := func(sql string, wants ...string) {
		t.Helper()
		got, err := ask(t.Context(), c, sql, client.QueryOptions{})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not in\n%s", sql, want, got)
			}
		}
	}
	f("SHOW TABLES", "datafusion,public,log_entries,BASE TABLE", "datafusion,public,processes,", "information_schema,columns,VIEW")
	f("SHOW COLUMNS FROM measures", "datafusion,public,measures,value,Float64,NO")
	f("DESCRIBE streams", `tags,"List(non-null Utf8, field: 'tag')",YES`, "stream_id,Utf8,NO")
	f("DESCRIBE SELECT time, level, count(*) AS c FROM log_entries GROUP BY time, level", `time,"Timestamp(ns, ""+00:00"")"`, "level,Int32", "c,Int64")
	f("EXPLAIN SELECT count(*) FROM log_entries", "physical_plan")
	f("EXPLAIN ANALYZE SELECT count(*) FROM log_entries", "Total Time")
	f("SELECT table_name FROM information_schema.views")
	f("SELECT schema_name FROM information_schema.schemata", "public")
	f("SELECT * FROM information_schema.df_settings")
	f("SELECT routine_name FROM information_schema.routines", "list_partitions")
}

func TestSchemas(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	f := func(sql string, preserve bool, want string) {
		t.Helper()
		rows, err := c.Query(t.Context(), sql, client.QueryOptions{PreserveDictionary: preserve})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			return
		}
		defer rows.Close()
		if diff := cmp.Diff(want, schemaText(rows.Schema())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sql, diff)
		}
		for {
			b, err := rows.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", sql, err)
				break
			}
			if !b.Schema().Equal(rows.Schema()) {
				t.Errorf("%s: a batch of %s", sql, b.Schema())
			}
		}
	}
	f("SELECT 1", false, "Int64(1) int64")
	f("SELECT count(*) FROM log_entries", false, "count(*) int64")
	f("SELECT time, target, properties, level FROM log_entries", false, "time timestamp[ns, tz=+00:00]; target utf8; properties binary; level int32")
	f("SELECT time, target, properties FROM log_entries", true,
		"time timestamp[ns, tz=+00:00]; target dictionary<values=utf8, indices=int32, ordered=false>; properties dictionary<values=binary, indices=int32, ordered=false>")
	f("SELECT max(time) - min(time) AS d, 1.5 AS x, sum(level) AS s FROM log_entries", false, "d duration[ns]?; x float64?; s int64?")
	f("SELECT * FROM log_entries WHERE level = 99", true, schemaText(tables.Must("log_entries").ArrowSchema(true)))
	f("SELECT * FROM log_entries", false, schemaText(tables.Must("log_entries").ArrowSchema(false)))
	f("SELECT * FROM streams", false, schemaText(tables.Must("streams").ArrowSchema(false)))
	f("SELECT * FROM blocks", false, schemaText(tables.Must("blocks").ArrowSchema(false)))
}

func TestErrors(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	f := func(sql string, code codes.Code, wants ...string) {
		t.Helper()
		got, err := ask(t.Context(), c, sql, span(0, 3600))
		if err == nil {
			t.Errorf("%s: no error, rows %q", sql, got)
			return
		}
		s := status.Convert(err)
		if s.Code() != code {
			t.Errorf("%s: %v, want %v: %s", sql, s.Code(), code, s.Message())
		}
		for _, want := range append(wants, "query_id=") {
			if !strings.Contains(s.Message(), want) {
				t.Errorf("%s: %q is not in %q", sql, want, s.Message())
			}
		}
	}
	f("SELECT * FROM view_instance('log_entries','99999999-9999-4999-8999-999999999999')", codes.Internal,
		"error creating physical plan: External error: find_process", "no rows returned by a query that expected to return at least one row")
	f("SELECT * FROM view_instance('nope','global')", codes.InvalidArgument, "view set nope not found")
	f("SELECT * FROM view_instance('processes','global')", codes.InvalidArgument, "view set processes not found")
	f("SELECT * FROM view_instance('images','global')", codes.InvalidArgument, "global")
	f("SELECT * FROM view_instance('log_entries','xyz')", codes.InvalidArgument, "Uuid::parse_str")
	f("SELECT * FROM view_instance('thread_spans','"+querytest.StreamID(3).String()+"')", codes.Unavailable, "no process materializes thread_spans")
	f("SELECT * FROM view_instance('otel_spans','"+querytest.P1.String()+"')", codes.Unimplemented, "view set otel_spans is not available in this release")
	f("SELECT * FROM process_spans('"+querytest.P1.String()+"','both')", codes.Unavailable, "no process materializes")
	f("SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('99999999-9999-4999-8999-999999999999','both', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')",
		codes.InvalidArgument, "Trace generation failed: Process 99999999-9999-4999-8999-999999999999 not found")
	f("SELECT * FROM no_such_table", codes.InvalidArgument, "table 'datafusion.public.no_such_table' not found", "error building dataframe")
	f("SELECT nope FROM log_entries", codes.InvalidArgument, "No field named nope", "at line 1, column 8")
	f("SELEC 1", codes.InvalidArgument, "SQL error: ")
	f("SELECT 1; SELECT 2", codes.Unimplemented)
	f("", codes.InvalidArgument, "No SQL statements were provided in the query string")
	f("COPY (SELECT 1) TO '/tmp/x'", codes.InvalidArgument)
	f("SELECT * FROM log_entries WHERE level = 'ERROR'", codes.InvalidArgument, "ERROR")
	f("SELECT * FROM read_parquet('/etc/passwd')", codes.InvalidArgument)
	if got, err := ask(t.Context(), c, "SELECT 1", client.QueryOptions{}); err != nil || got != "1" {
		t.Errorf("afterwards: %q %v", got, err)
	}
}

// schemaText writes a schema in one line, nullable columns with a question mark.
func schemaText(s *arrow.Schema) string {
	var out []string
	for _, field := range s.Fields() {
		null := ""
		if field.Nullable {
			null = "?"
		}
		out = append(out, fmt.Sprintf("%s %s%s", field.Name, field.Type, null))
	}
	return strings.Join(out, "; ")
}

// TestStubsAreNotListed archives a block whose process and stream are not registered, and registers them later.
func TestStubsAreNotListed(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	id, stream := querytest.Unregistered, querytest.StreamID(99)
	f := func(sql, want string) {
		t.Helper()
		if got, err := ask(t.Context(), c, sql, client.QueryOptions{}); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", sql, got, err, want)
		}
	}
	instance := "SELECT count(*) FROM view_instance('log_entries','" + id.String() + "')"
	e.Archive(t, nil, nil, []catalog.BlockReg{{
		Block:      telemetry.Block{ID: querytest.BlockID(99), StreamID: stream, ProcessID: id, BeginTime: querytest.At(500), EndTime: querytest.At(501)},
		InsertTime: querytest.At(502), PackLength: 1,
	}})
	f("SELECT count(*) FROM blocks", "11")
	f("SELECT count(*) FROM processes", "3")
	f("SELECT count(*) FROM streams", "8")
	if _, err := ask(t.Context(), c, instance, client.QueryOptions{}); status.Code(err) != codes.Internal {
		t.Errorf("an unregistered process: %v", err)
	}
	e.Archive(t, []catalog.ProcessReg{{Process: telemetry.Process{ID: id, Exe: "late"}, InsertTime: querytest.At(600)}},
		[]catalog.StreamReg{{Stream: telemetry.Stream{ID: stream, ProcessID: id, Tags: []string{"log"}, Format: telemetry.FormatTransit}, InsertTime: querytest.At(600)}}, nil)
	f("SELECT count(*) FROM blocks", "12")
	f("SELECT \"processes.exe\" FROM blocks WHERE begin_time = TIMESTAMP '2026-03-01T10:08:20Z'", "late")
	f("SELECT count(*) FROM processes", "4")
	f(instance, "0")
}
