package deploy_test

import "google.golang.org/grpc/codes"

// acceptanceOfSpans is the part of the list that is about views built just in time.
var acceptanceOfSpans = []check{
	{no: 86, sql: "SELECT id, parent, depth, duration, name FROM view_instance('thread_spans','S3')", span: whole, rows: []string{
		"-1|0|0|2000000000|main-1234", "0|-1|1|1500000000|Frame", "1|0|2|100000000|Update", "3|0|2|200000000|Update", "4|3|3|50000000|Physics",
		"7|0|2|200000000|Render", "10|-1|1|200000000|Frame",
	}, schema: "id int64 not null; parent int64 not null; depth uint32 not null; duration int64 not null; name utf8 not null"},
	{no: 87, sql: "SELECT hash FROM view_instance('thread_spans','S3') WHERE id = 4", span: whole, rows: []string{"1795844125"}, schema: "hash uint32 not null"},
	{no: 88, sql: "SELECT count(*) AS c FROM view_instance('thread_spans','S3')", span: "10:00:05.150 10:00:05.320", rows: []string{"4"}},
	{no: 89, sql: "SELECT name, sum(duration) AS d FROM view_instance('thread_spans','S3') WHERE depth=2 GROUP BY name ORDER BY name", span: whole, rows: []string{"Render|200000000", "Update|300000000"}},
	{no: 90, sql: "SELECT id, depth, duration, name FROM view_instance('thread_spans','S4')", span: whole, rows: []string{"0|0|1800000000|Worker", "1|1|200000000|Job"}},
	{no: 91, sql: "SELECT count(*) FROM view_instance('thread_spans','S3')", code: codes.Internal, text: "query range mandatory for thread spans view"},
	{no: 92, sql: "SELECT begin_insert_time, end_insert_time, num_rows, encode(source_data_hash,'hex') AS h, max_sort_key_time FROM list_partitions() WHERE view_instance_id='S3'", rows: []string{"<T10:01:03Z|<T10:01:04Z|7|0c00000000000000|<T10:00:06.6Z"}},
	{no: 93, sql: "SELECT event_type, span_id, parent_span_id, depth FROM view_instance('async_events','P1') ORDER BY time", span: whole, rows: []string{"begin|100|0|0", "begin|101|100|1", "end|101|100|1", "end|100|0|0"}},
	{no: 94, sql: "SELECT count(*) AS c FROM view_instance('async_events','P1')", span: "10:00:11.150 10:00:11.500", rows: []string{"2"}},
	{no: 95, sql: "SELECT name, duration FROM process_spans('P1','async')", span: whole, rows: []string{"load|800000000", "read|200000000"}},
	{no: 96, sql: "SELECT name, duration FROM process_spans('P1','async')", span: "10:00:11.150 10:00:11.500", rows: []string{"read|200000000"}},
	{no: 97, sql: "SELECT thread_name, count(*) AS c FROM process_spans('P1','both') GROUP BY thread_name ORDER BY thread_name", span: whole, rows: []string{"1235|2", "async|2", "main-1234|7"}},
	{no: 98, sql: "SELECT count(*) AS n, min(chunk_id) AS a, max(chunk_id) AS b FROM (SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('P1','both', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z'))", rows: []string{"4|0|3"}},
	{no: 98, sql: "SELECT chunk_id FROM perfetto_trace_chunks('P1','both', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')", rows: []string{"0", "1", "2", "3"}, schema: "chunk_id int32 not null"},
	{no: 99, sql: "SELECT chunk_id FROM perfetto_trace_chunks('P1','thread', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')", rows: []string{"0", "1", "2"}},
	{no: 100, sql: "SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('99999999-9999-4999-8999-999999999999','both', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')", code: codes.InvalidArgument, text: "Trace generation failed: Process 99999999-9999-4999-8999-999999999999 not found"},
	{no: 101, sql: "SELECT * FROM process_spans('P1','cpu')", span: whole, code: codes.InvalidArgument, text: "span_types must be"},
	{no: 102, sql: "SELECT * FROM view_instance('thread_spans','global')", span: whole, code: codes.InvalidArgument, text: "the global view is not implemented for thread spans"},
	{no: 118, sql: "SELECT name, format, payload_size, encode(data,'hex') AS d FROM view_instance('images','P1')", span: whole, rows: []string{"shot1|image/png|4|89504e47"}},
	{no: 119, sql: "SELECT kind, name, begin_bits, end_bits, depth, parent_span_id FROM view_instance('net_spans','P1') ORDER BY span_id", span: whole, rows: []string{
		"connection|conn1|0|220|0|-1", "object|Pawn|0|140|1|0", "property|hp|0|32|2|1", "property|pos|32|128|2|1", "rpc|Fire|140|204|1|0",
	}},
	{no: 123, sql: "SELECT object_index, type_name, jsonb_as_string(jsonb_get(value,'msg')) AS m FROM parse_block('B02') ORDER BY object_index", span: whole, rows: []string{"4|LogStringEventV2|tick 1", "5|TaggedLogString|crash"}},
	{no: 124, sql: "SELECT * FROM parse_block('B02')", span: "10:30:00 10:40:00", code: codes.InvalidArgument, text: "not found in `blocks` for the queried range"},
	{no: 125, sql: "SELECT octet_length(get_payload('P1','S1','B01')) > 0 AS n", rows: []string{"true"}},
}
