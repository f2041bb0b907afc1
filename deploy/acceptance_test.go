package deploy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/query/querytest"
)

// The ranges of the checks: whole is the fixture's hour; the others are written as "begin … end" times of its day.
const (
	whole   = "10:00:00 11:00:00"
	noRange = ""
)

// names stand for identifiers in statements and expectations.
var names = strings.NewReplacer(
	"'P1'", "'11111111-1111-4111-8111-111111111111'",
	"'P2'", "'22222222-2222-4222-8222-222222222222'",
	"'P3'", "'33333333-3333-4333-8333-333333333333'",
	"<P1>", "11111111-1111-4111-8111-111111111111",
	"<P2>", "22222222-2222-4222-8222-222222222222",
	"<P3>", "33333333-3333-4333-8333-333333333333",
	"'S1'", "'aaaaaaaa-0000-4000-8000-000000000001'",
	"'S3'", "'aaaaaaaa-0000-4000-8000-000000000003'",
	"'S4'", "'aaaaaaaa-0000-4000-8000-000000000004'",
	"'B01'", "'bbbbbbbb-0000-4000-8000-000000000001'",
	"'B02'", "'bbbbbbbb-0000-4000-8000-000000000002'",
	"<S3>", "aaaaaaaa-0000-4000-8000-000000000003",
	"<S4>", "aaaaaaaa-0000-4000-8000-000000000004",
	"<T", "2026-03-01T",
)

// check is one statement and its answer: rows as text, cells joined by '|', or an error.
type check struct {
	no     int
	sql    string
	span   string            // time range, "" for none
	header map[string]string // further request metadata
	rows   []string
	code   codes.Code // of the error wanted; OK = rows
	text   string     // that the error contains
	schema string     // "name type nullable?; …" when the schema is part of the check
	note   string     // where the answer differs from upstream's on purpose
}

// acceptance is the first release's part of the list, by number. Where this system differs from upstream on purpose the
// note says how.
var acceptance = []check{
	{no: 1, sql: "SELECT count(*) FROM log_entries", span: whole, rows: []string{"8"}, schema: "count(*) int64 not null"},
	{no: 2, sql: "SELECT count(*) FROM log_entries", rows: []string{"8"}},
	{no: 3, sql: "SELECT count(*) FROM log_entries", span: "10:00:00 10:00:30", rows: []string{"3"}},
	{no: 4, sql: "SELECT count(*) FROM log_entries", span: "10:00:30.000000001 10:01:00", rows: []string{"1"}},
	{no: 5, sql: "SELECT count(*) FROM log_entries", header: map[string]string{"query_range_begin": "2026-03-01T10:01:00Z"}, rows: []string{"8"}},
	{no: 6, sql: "SELECT count(*) FROM log_entries", span: "10:30:00 10:40:00", rows: []string{"0"}},
	{no: 7, sql: "SELECT msg FROM log_entries WHERE level <= 2 ORDER BY time", span: whole, rows: []string{"disconnect", "crash", "timeout"}},
	{no: 8, sql: "SELECT arrow_cast(time,'Int64') AS t FROM log_entries WHERE msg='slow peer'", span: whole, rows: []string{"1772359202500000001"}, schema: "t int64"},
	{no: 9, sql: "SELECT process_id, exe, username, computer, target, level FROM log_entries WHERE msg='listening'", span: whole, rows: []string{"<P2>|server|svc|SRV1|srv|4"}},
	{no: 10, sql: "SELECT arrow_cast(time,'Int64') AS t FROM log_entries WHERE msg='timeout'", span: whole, rows: []string{"1772359350000000000"}},
	{no: 11, sql: "SELECT DISTINCT insert_time FROM log_entries ORDER BY insert_time", span: whole, rows: []string{"<T10:01:01Z", "<T10:02:01Z", "<T10:03:01Z"}},
	{no: 14, sql: "SELECT level, count(*) AS c FROM log_entries GROUP BY level ORDER BY level", span: whole, rows: []string{"1|1", "2|2", "3|1", "4|3", "5|1"}},
	{no: 15, sql: "SELECT jsonb_format_json(properties) AS p FROM log_entries WHERE msg='slow peer'", span: whole, rows: []string{`{"ms":"250","peer":"bob"}`}},
	{no: 16, sql: "SELECT count(*) AS c FROM log_entries WHERE property_get(properties,'peer') IS NOT NULL", span: whole, rows: []string{"3"}},
	{no: 17, sql: "SELECT property_get(properties,'PEER') AS v FROM log_entries WHERE msg='crash'", span: whole, rows: []string{"eve"}},
	{no: 18, sql: "SELECT properties AS h FROM log_entries WHERE msg='ready'", span: whole, rows: []string{"40000000"}, schema: "h binary"},
	{no: 19, sql: "SELECT property_get(process_properties,'build-version') AS v, count(*) AS c FROM log_entries GROUP BY v ORDER BY c DESC", span: whole, rows: []string{"1.2.3|6", "NULL|2"}},
	{no: 20, sql: "SELECT properties_length(properties) AS n FROM log_entries WHERE target='game::net' ORDER BY time", span: whole, rows: []string{"2", "1"}, schema: "n int32"},
	{no: 21, sql: "SELECT name, unit, value FROM measures WHERE target='game::load'", span: whole, rows: []string{"load_time|seconds|1.5"}},
	{no: 22, sql: "SELECT value FROM measures WHERE name='fps'", span: whole, rows: []string{"60"}, schema: "value float64 not null"},
	{no: 23, sql: "SELECT count(*) AS c, sum(value) AS s, max(value) AS m FROM measures WHERE name='frame_time'", span: whole, rows: []string{"5|29|12"}},
	{no: 24, sql: "SELECT count(*) AS c FROM measures", span: "10:00:30 10:00:40", rows: []string{"3"}},
	{no: 25, sql: "SELECT date_bin(INTERVAL '30 seconds', time) AS t, max(value) AS v FROM measures WHERE name='frame_time' GROUP BY t ORDER BY t", span: whole, rows: []string{"<T10:00:00Z|2", "<T10:00:30Z|12"}},
	{no: 26, sql: "SELECT property_get(properties,'map') AS m FROM measures WHERE value = 12", span: whole, rows: []string{"Oslo"}},
	{no: 27, sql: "SELECT process_id FROM processes ORDER BY exe", span: whole, rows: []string{"<P3>", "<P1>", "<P2>"}},
	{no: 28, sql: "SELECT last_update_time, last_block_end_ticks, last_block_end_time FROM processes WHERE process_id='P1'", span: whole, rows: []string{"<T10:02:03Z|120000000000|<T10:02:00Z"}},
	{no: 29, sql: "SELECT parent_process_id FROM processes ORDER BY exe", span: whole, rows: []string{"", "", "<P1>"}},
	{no: 30, sql: "SELECT count(*) AS c FROM processes", span: "10:01:05 10:01:30", rows: []string{"2"}},
	{no: 31, sql: "SELECT count(*) AS c FROM processes", span: "10:00:00 10:00:30", rows: []string{"1"}},
	{no: 32, sql: "SELECT stream_id FROM streams WHERE array_has(tags,'cpu') ORDER BY stream_id", span: whole, rows: []string{"<S3>", "<S4>"}},
	{no: 33, sql: "SELECT format, count(*) AS c FROM streams GROUP BY format ORDER BY format", span: whole, rows: []string{"micromegas-transit|7", "otlp/v1/traces|1"}},
	{no: 34, sql: "SELECT property_get(properties,'thread-name') AS n FROM streams WHERE array_has(tags,'cpu') ORDER BY stream_id", span: whole, rows: []string{"main", "NULL"}},
	{no: 35, sql: "SELECT count(*) AS c, sum(nb_objects) AS s, sum(payload_size) AS p FROM blocks", span: whole, rows: []string{"11|45|11066"}, schema: "c int64; s int64; p int64"},
	{no: 36, sql: `SELECT sum(nb_objects) AS s FROM blocks WHERE array_has("streams.tags",'log')`, span: whole, rows: []string{"8"}},
	{no: 37, sql: "SELECT count(*) AS c FROM blocks", span: "10:00:00 10:00:30", rows: []string{"6"}},
	{no: 38, sql: "SELECT count(*) AS c FROM blocks", span: "10:01:05 10:01:30", rows: []string{"6"}},
	{no: 39, sql: `SELECT DISTINCT "processes.exe" AS e FROM blocks WHERE array_has("streams.tags",'log') ORDER BY e`, span: whole, rows: []string{"game.exe", "server"}},
	{no: 40, sql: "SELECT p.exe, count(*) AS c FROM log_entries l JOIN processes p ON l.process_id = p.process_id GROUP BY p.exe ORDER BY p.exe", span: whole, rows: []string{"game.exe|6", "server|2"}},
	{no: 41, sql: "SELECT time_bin, process_id, level, target, count FROM log_stats ORDER BY time_bin, process_id, level", span: whole, rows: []string{
		"<T10:00:00Z|<P1>|2|game::net|1", "<T10:00:00Z|<P1>|3|game::net|1", "<T10:00:00Z|<P1>|4|game::boot|2",
		"<T10:01:00Z|<P1>|1|game::core|1", "<T10:01:00Z|<P1>|5|game::ai|1", "<T10:01:00Z|<P2>|4|srv|1", "<T10:02:00Z|<P2>|2|srv|1",
	}},
	{no: 42, sql: "SELECT sum(count) AS c FROM log_stats", span: "10:00:10 10:00:30", rows: []string{"4"}, note: "the minute that overlaps the range is kept; upstream drops it and answers NULL"},
	{no: 43, sql: "SELECT count(*) AS c FROM log_stats", span: "10:00:00 10:01:00", rows: []string{"6"}},
	{no: 44, sql: "SELECT count(*) AS c FROM view_instance('log_entries','P1')", span: "10:00:00 10:00:30", rows: []string{"3"}},
	{no: 45, sql: "SELECT num_rows FROM list_partitions() WHERE view_set_name='log_entries' AND view_instance_id='P1'", rows: []string{}, note: "an instance is a filter over the global files: it has no partitions of its own"},
	{no: 46, sql: "SELECT count(*) AS c FROM view_instance('log_entries','P1')", rows: []string{"6"}},
	{no: 47, sql: "SELECT count(*) AS c FROM view_instance('log_entries','P2')", span: "10:00:00 10:00:30", rows: []string{"0"}},
	{no: 48, sql: "SELECT count(*) AS c FROM view_instance('log_entries','global')", span: whole, rows: []string{"8"}},
	{no: 49, sql: "SELECT count(*) AS c FROM view_instance('measures','P1')", span: whole, rows: []string{"7"}},
	{no: 50, sql: "SELECT count(*) AS c FROM view_instance('log_entries','P3')", span: whole, rows: []string{"0"}},
	{no: 51, sql: "SELECT * FROM view_instance('log_entries','99999999-9999-4999-8999-999999999999')", span: whole, code: codes.Internal, text: "error creating physical plan: External error: find_process"},
	{no: 52, sql: "SELECT * FROM view_instance('nope','global')", span: whole, code: codes.InvalidArgument, text: "view set nope not found"},
	{no: 53, sql: "SELECT * FROM view_instance('processes','global')", span: whole, code: codes.InvalidArgument, text: "view set processes not found"},
	{no: 54, sql: "SELECT * FROM no_such_table", span: whole, code: codes.InvalidArgument, text: "table 'datafusion.public.no_such_table' not found"},
	{no: 54, sql: "SELECT * FROM no_such_table", span: whole, code: codes.InvalidArgument, text: "query_id="},
	{no: 55, sql: "SELECT nope FROM log_entries", span: whole, code: codes.InvalidArgument, text: "No field named nope"},
	{no: 56, sql: "SELEC 1", code: codes.InvalidArgument, text: "SQL error: "},
	{no: 57, sql: "SELECT 1; SELECT 2", code: codes.Unimplemented},
	{no: 58, sql: "SELECT 1", rows: []string{"1"}, schema: "Int64(1) int64 not null"},
	{no: 59, sql: "SELECT count(*) AS c FROM (SELECT * FROM log_entries)", span: whole, header: map[string]string{"limit": "3"}, rows: []string{"8"}, note: "the limit is on the whole statement"},
	{no: 59, sql: "SELECT level > 0 AS l FROM log_entries", span: whole, header: map[string]string{"limit": "3"}, rows: []string{"true", "true", "true"}},
	{no: 59, sql: "SELECT * FROM log_entries", span: whole, header: map[string]string{"limit": "x"}, code: codes.InvalidArgument, text: "error parsing limit"},
	{no: 60, sql: "SELECT 1", header: map[string]string{"query_range_begin": "yesterday", "query_range_end": "2026-03-01T11:00:00Z"}, code: codes.InvalidArgument, text: "Unable to parse query_range_begin"},
	{no: 63, sql: "SELECT data_type FROM information_schema.columns WHERE table_name='log_entries' AND column_name='time'", rows: []string{`Timestamp(ns, "+00:00")`}},
	{no: 64, sql: "SELECT DISTINCT arrow_typeof(property_get(properties,'x')) AS t FROM log_entries", span: whole, rows: []string{"Dictionary(Int32, Utf8)"}},
	{no: 70, sql: `SELECT jsonb_format_json(jsonb_parse('{"b":1, "a":[1.0,true,null]}')) AS j`, rows: []string{`{"a":[1.0,true,null],"b":1}`}},
	{no: 71, sql: `SELECT jsonb_parse('{"k":"v"}') AS h`, rows: []string{"4000000110000001100000016b76"}, schema: "h binary"},
	{no: 71, sql: `SELECT encode(jsonb_parse('{"k":"v"}'),'hex') AS h`, rows: []string{"4000000110000001100000016b76"}},
	{no: 72, sql: "SELECT jsonb_parse('{ not json... }') AS j", rows: []string{"NULL"}},
	{no: 73, sql: "SELECT jsonb_as_i64(jsonb_parse('42.0')) AS a, jsonb_as_i64(jsonb_parse('42.5')) AS b, jsonb_as_f64(jsonb_parse('7')) AS c, jsonb_as_string(jsonb_parse('7')) AS d", rows: []string{"42|NULL|7|NULL"}},
	{no: 74, sql: "SELECT jsonb_array_length(jsonb_parse('[1,[2],3]')) AS a, jsonb_array_length(jsonb_parse('{}')) AS b", rows: []string{"3|NULL"}},
	{no: 75, sql: `SELECT jsonb_format_json(jsonb_path_query(jsonb_parse('{"items":[{"key":"foo","value":1},{"key":"bar","value":2}]}'), '$.items[*]?(@.key=="bar").value')) AS j`, rows: []string{"[2]"}},
	{no: 76, sql: "SELECT jsonb_path_query_first(jsonb_parse('{}'),'$[invalid') AS j", code: codes.InvalidArgument, text: "invalid JSONPath"},
	{no: 77, sql: "SELECT key, jsonb_as_string(value) AS v FROM jsonb_each((SELECT properties FROM processes WHERE process_id='P1'))", span: whole, rows: []string{"build-version|1.2.3", "platform|win64"}},
	{no: 78, sql: "SELECT jsonb_as_i64(value) AS v FROM jsonb_array_elements(jsonb_parse('[3,2,1]'))", rows: []string{"3", "2", "1"}},
	{no: 79, sql: "SELECT jsonb_object_keys(properties) AS k FROM processes WHERE process_id='P1'", span: whole, rows: []string{`["build-version","platform"]`}},
	{no: 80, sql: "SELECT make_histogram(0,20,2,value) AS h FROM measures WHERE name='frame_time'", span: whole, rows: []string{`{"bins":[3,2],"count":5,"end":20,"max":12,"min":1,"start":0,"sum":29,"sum_sq":279}`}},
	{no: 81, sql: "SELECT quantile_from_histogram(h,0.5) AS a, quantile_from_histogram(h,0.9) AS b, variance_from_histogram(h) AS v, count_from_histogram(h) AS c, sum_from_histogram(h) AS s FROM (SELECT make_histogram(0,20,2,value) AS h FROM measures WHERE name='frame_time')", span: whole, rows: []string{"8.333333333333334|17.5|27.699999999999996|5|29"}, schema: "a float64; b float64; v float64; c uint64; s float64"},
	{no: 82, sql: "SELECT bin_center, count FROM expand_histogram((SELECT make_histogram(0.0,20.0,2,value) FROM measures WHERE name='frame_time'))", span: whole, rows: []string{"5|3", "15|2"}},
	{no: 83, sql: "SELECT count_from_histogram(sum_histograms(h)) AS c FROM (SELECT make_histogram(0,20,2,value) AS h FROM measures WHERE name='frame_time' GROUP BY value)", span: whole, rows: []string{"5"}},
	{no: 84, sql: "SELECT count_from_histogram(make_histogram(0,20,2,value)) AS c FROM measures WHERE name='none'", span: whole, rows: []string{"0"}},
	{no: 85, sql: "SELECT make_histogram(20,0,2,value) FROM measures", span: whole, code: codes.InvalidArgument, text: "make_histogram: start (20) must be <= end (0)"},
}

// TestAcceptance runs the first release's part of the published list over real FlightSQL, on its fixture, at each home.
func TestAcceptance(t *testing.T) {
	querytest.EachHome(t, deploytest.NewDataDir, testAcceptance)
}

func testAcceptance(t *testing.T, h *querytest.Home) {
	p := startFixture(t, h)
	for _, c := range append(acceptance, acceptanceOfSpans...) {
		t.Run(names.Replace(checkName(c)), func(t *testing.T) { runCheck(t, p, c) })
	}
	t.Run("check 12 and 13: the 13 columns, with and without dictionaries", func(t *testing.T) { checkLogColumns(t, p) })
	t.Run("check 61: a schema and no batch", func(t *testing.T) { checkEmpty(t, p) })
	t.Run("check 62: SHOW TABLES", func(t *testing.T) { checkShowTables(t, p) })
	t.Run("check 65: prepared statement", func(t *testing.T) { checkPrepared(t, p) })
	t.Run("check 66: flight info", func(t *testing.T) { checkFlightInfo(t, p) })
	t.Run("check 67 and 68: tables", func(t *testing.T) { checkTables(t, p) })
	t.Run("check 69: server name", func(t *testing.T) { checkSQLInfo(t, p) })
}

func checkName(c check) string {
	name := "check " + itoa(c.no) + ": " + c.sql
	if c.note != "" {
		name += " (" + c.note + ")"
	}
	return name
}

// checkContext returns a context with the check's headers.
func checkContext(t *testing.T, c check) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	if begin, end, ok := strings.Cut(c.span, " "); ok {
		const day = "2026-03-01T"
		ctx = metadata.AppendToOutgoingContext(ctx, "query_range_begin", day+begin+"Z", "query_range_end", day+end+"Z")
	}
	var headers []string
	for k, v := range c.header {
		headers = append(headers, k, v)
	}
	return metadata.AppendToOutgoingContext(ctx, headers...)
}

func runCheck(t *testing.T, p *process, c check) {
	t.Helper()
	schema, rows, err := p.query(checkContext(t, c), names.Replace(c.sql))
	if c.code != codes.OK {
		if got := status.Code(err); got != c.code || !strings.Contains(err.Error(), c.text) {
			t.Fatalf("got %v: %v\nwant %v with %q", got, err, c.code, c.text)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want := make([]string, len(c.rows))
	for i, r := range c.rows {
		want[i] = names.Replace(r)
	}
	if got, want := strings.Join(rows, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("rows\n%s\nwant\n%s", got, want)
	}
	if c.schema != "" {
		checkSchema(t, schema, c.schema)
	}
}

// checkSchema compares with "name type; name type not null"; nullability counts only where the text says not null.
func checkSchema(t *testing.T, s *arrow.Schema, want string) {
	t.Helper()
	parts := strings.Split(want, "; ")
	if s.NumFields() != len(parts) {
		t.Fatalf("schema %v, want %s", s, want)
	}
	for i, part := range parts {
		f := s.Field(i)
		text, notNull := strings.CutSuffix(part, " not null")
		if got := f.Name + " " + arrowTypeText(f.Type); got != text || notNull && f.Nullable {
			t.Errorf("field %d is %q nullable=%v, want %q", i, got, f.Nullable, part)
		}
	}
}
