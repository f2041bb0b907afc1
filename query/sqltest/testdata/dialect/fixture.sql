-- Fixture for the statements that clients send: tiny tables with the column names and types our engine gives to DuckDB
-- (TIMESTAMP_NS = UTC nanoseconds, JSON = JSONB column). Times are relative to the moment of loading, so NOW()-based filters match.
-- P1 = 11111111-2222-3333-4444-555555555555, P2 = 99999999-2222-3333-4444-555555555555, thread stream S1 = aaaaaaaa-0000-0000-0000-000000000001.
CREATE OR REPLACE TABLE fx AS SELECT epoch_ns(get_current_timestamp()) AS n, 3600000000000::BIGINT AS h;
CREATE OR REPLACE MACRO fx_t(d) AS (SELECT make_timestamp_ns(n + CAST(d AS BIGINT)) FROM fx);
CREATE OR REPLACE TABLE processes ("process_id" VARCHAR, "exe" VARCHAR, "username" VARCHAR, "realname" VARCHAR, "computer" VARCHAR, "distro" VARCHAR, "cpu_brand" VARCHAR, "tsc_frequency" BIGINT, "start_time" TIMESTAMP_NS, "start_ticks" BIGINT, "insert_time" TIMESTAMP_NS, "parent_process_id" VARCHAR, "properties" JSON, "last_update_time" TIMESTAMP_NS, "last_block_end_ticks" BIGINT, "last_block_end_time" TIMESTAMP_NS);
INSERT INTO processes VALUES
  ('11111111-2222-3333-4444-555555555555', '/opt/demo/flight-app', 'bob', 'Bob', 'pc1', 'Debian', 'AMD', 0, fx_t(-10799999999999), 5, fx_t(-10800000000000), NULL, '{"Env":"production","build-version":"1.2","otel.resource.service.name":"demo-cli"}'::JSON, fx_t(-5), 100, fx_t(-3599876543211)),
  ('99999999-2222-3333-4444-555555555555', 'my-service.exe', 'eve', 'Eve', 'pc2', 'Ubuntu', 'Intel', 1000000000, fx_t(-7199999999993), 6, fx_t(-7200000000000), '11111111-2222-3333-4444-555555555555', '{}'::JSON, fx_t(-4), 200, fx_t(-1200000000000));
CREATE OR REPLACE TABLE streams ("stream_id" VARCHAR, "process_id" VARCHAR, "dependencies_metadata" BLOB, "objects_metadata" BLOB, "tags" VARCHAR[], "properties" JSON, "insert_time" TIMESTAMP_NS, "format" VARCHAR, "last_update_time" TIMESTAMP_NS);
INSERT INTO streams VALUES
  ('aaaaaaaa-0000-0000-0000-000000000001', '11111111-2222-3333-4444-555555555555', unhex('61'), unhex('61'), ['cpu'], '{"thread-id":"7","thread-name":"main"}'::JSON, fx_t(-7200000000000), 'micromegas-transit', fx_t(-7200000000000)),
  ('aaaaaaaa-0000-0000-0000-000000000002', '11111111-2222-3333-4444-555555555555', unhex('62'), unhex('62'), ['log'], '{}'::JSON, fx_t(-1800000000000), 'micromegas-transit', fx_t(-1800000000000)),
  ('aaaaaaaa-0000-0000-0000-000000000003', '99999999-2222-3333-4444-555555555555', unhex('63'), unhex('63'), ['net'], '{}'::JSON, fx_t(-899999999877), 'micromegas-transit', fx_t(-899999999877));
CREATE OR REPLACE TABLE blocks ("block_id" VARCHAR, "stream_id" VARCHAR, "process_id" VARCHAR, "begin_time" TIMESTAMP_NS, "begin_ticks" BIGINT, "end_time" TIMESTAMP_NS, "end_ticks" BIGINT, "nb_objects" INTEGER, "object_offset" BIGINT, "payload_size" BIGINT, "insert_time" TIMESTAMP_NS, "streams.dependencies_metadata" BLOB, "streams.objects_metadata" BLOB, "streams.tags" VARCHAR[], "streams.properties" JSON, "streams.insert_time" TIMESTAMP_NS, "streams.format" VARCHAR, "processes.exe" VARCHAR, "processes.username" VARCHAR, "processes.realname" VARCHAR, "processes.computer" VARCHAR, "processes.distro" VARCHAR, "processes.cpu_brand" VARCHAR, "processes.start_time" TIMESTAMP_NS, "processes.start_ticks" BIGINT, "processes.tsc_frequency" BIGINT, "processes.insert_time" TIMESTAMP_NS, "processes.parent_process_id" VARCHAR, "processes.properties" JSON);
INSERT INTO blocks VALUES
  ('b0000000-0000-0000-0000-000000000000', 'aaaaaaaa-0000-0000-0000-000000000001', '11111111-2222-3333-4444-555555555555', fx_t(-7200000000000), 0, fx_t(-1800000000000), 1, 10, 0, 100, fx_t(-7200000000000), unhex('61'), unhex('61'), ['cpu'], '{"thread-id":"7","thread-name":"main"}'::JSON, fx_t(-7200000000000), 'micromegas-transit', '/opt/demo/flight-app', 'bob', 'Bob', 'pc1', 'D', 'A', fx_t(-7200000000000), 1, 1, fx_t(-7200000000000), '', '{"a":"b"}'::JSON),
  ('b0000000-0000-0000-0000-000000000001', 'aaaaaaaa-0000-0000-0000-000000000001', '11111111-2222-3333-4444-555555555555', fx_t(-1800000000000), 1, fx_t(-899999999877), 2, 20, 10, 200, fx_t(-1800000000000), unhex('61'), unhex('61'), ['cpu'], '{"thread-id":"7","thread-name":"main"}'::JSON, fx_t(-1800000000000), 'micromegas-transit', '/opt/demo/flight-app', 'bob', 'Bob', 'pc1', 'D', 'A', fx_t(-1800000000000), 1, 1, fx_t(-1800000000000), '', '{"a":"b"}'::JSON),
  ('b0000000-0000-0000-0000-000000000002', 'aaaaaaaa-0000-0000-0000-000000000002', '11111111-2222-3333-4444-555555555555', fx_t(-899999999877), 2, fx_t(-449999543211), 3, 30, 0, 300, fx_t(-899999999877), unhex('61'), unhex('61'), ['log'], '{}'::JSON, fx_t(-899999999877), 'otlp/v1/logs', '/opt/demo/flight-app', 'bob', 'Bob', 'pc1', 'D', 'A', fx_t(-899999999877), 1, 1, fx_t(-899999999877), '', '{"a":"b"}'::JSON),
  ('b0000000-0000-0000-0000-000000000003', 'aaaaaaaa-0000-0000-0000-000000000003', '99999999-2222-3333-4444-555555555555', fx_t(-449999543211), 3, fx_t(-1000), 4, 40, 0, 400, fx_t(-449999543211), unhex('61'), unhex('61'), ['net'], '{}'::JSON, fx_t(-449999543211), 'micromegas-transit', 'my-service.exe', 'bob', 'Bob', 'pc1', 'D', 'A', fx_t(-449999543211), 1, 1, fx_t(-449999543211), '', '{"a":"b"}'::JSON);
CREATE OR REPLACE TABLE log_entries ("process_id" VARCHAR, "stream_id" VARCHAR, "block_id" VARCHAR, "insert_time" TIMESTAMP_NS, "exe" VARCHAR, "username" VARCHAR, "computer" VARCHAR, "time" TIMESTAMP_NS, "target" VARCHAR, "level" INTEGER, "msg" VARCHAR, "properties" JSON, "process_properties" JSON);
INSERT INTO log_entries VALUES
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-7200000000000), '/opt/demo/flight-app', 'bob', 'pc1', fx_t(-7200000000000), 'app', 1, 'boom', '{"env":"production","service":"api"}'::JSON, '{"thread-name":"worker-1"}'::JSON),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-1800000000000), '/opt/demo/flight-app', 'bob', 'pc1', fx_t(-1800000000000), 'lgn::auth', 2, '{"service":"web","port":8080,"cpu_limit":1.5,"response_time":12.5,"client":"web","email":"a@b","total_ms":12.5,"bytes_scanned":100,"sql":"select 1","status":"error","error_class":"x","commits":[1,2],"object_attributes":{"iid":7},"object_kind":"push"}', '{"error_code":"7","request_id":"r","service":"api"}'::JSON, '{"thread-name":"worker-1"}'::JSON),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-899999999877), '/opt/demo/flight-app', 'bob', 'pc1', fx_t(-899999999877), 'blender.crash', 3, 'it''s 100% _ok\_', '{}'::JSON, '{"thread-name":"worker-1"}'::JSON),
  ('99999999-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-449999543211), 'my-service.exe', 'bob', 'pc1', fx_t(-449999543211), 'flightsql_query_audit', 4, '{"client":"web","email":"a@b","total_ms":2.5,"bytes_scanned":10,"sql":"select 2","sql_hash":"h","peak_memory_bytes":5,"spilled_bytes":0,"status":"ok"}', '{"hostname":"h"}'::JSON, '{}'::JSON),
  ('99999999-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-1000), 'my-service.exe', 'bob', 'pc1', fx_t(-1000), 'app', 6, 'plain', NULL, '{}'::JSON);
CREATE OR REPLACE TABLE measures ("process_id" VARCHAR, "stream_id" VARCHAR, "block_id" VARCHAR, "insert_time" TIMESTAMP_NS, "exe" VARCHAR, "username" VARCHAR, "computer" VARCHAR, "time" TIMESTAMP_NS, "target" VARCHAR, "name" VARCHAR, "unit" VARCHAR, "value" DOUBLE, "properties" JSON, "process_properties" JSON);
INSERT INTO measures VALUES
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-7200000000000), '/opt/demo/flight-app', 'bob', 'pc1', fx_t(-7200000000000), 'app', 'cpu_usage', 'percent', 10.0, '{"source":"system_monitor"}'::JSON, '{"thread-name":"worker-1"}'::JSON),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-1800000000000), '/opt/demo/flight-app', 'bob', 'pc1', fx_t(-1800000000000), 'app', 'cpu_usage', 'percent', 50.5, '{"a":"1","source":"x"}'::JSON, '{"thread-name":"worker-1"}'::JSON),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-899999999877), '/opt/demo/flight-app', 'bob', 'pc1', fx_t(-899999999877), 'app', 'memory_usage', 'bytes', 1000000000.0, '{}'::JSON, '{"thread-name":"worker-1"}'::JSON),
  ('99999999-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-449999543211), 'my-service.exe', 'bob', 'pc1', fx_t(-449999543211), 'app', 'frame_time', 'ms', 16.6, NULL, '{"thread-name":"worker-1"}'::JSON),
  ('99999999-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-1000), 'my-service.exe', 'bob', 'pc1', fx_t(-1000), 'app', 'net.packet_sent_bits', 'bits', 'nan', '{"z":"1"}'::JSON, '{"thread-name":"worker-1"}'::JSON);
CREATE OR REPLACE TABLE log_stats ("time_bin" TIMESTAMP_NS, "process_id" VARCHAR, "level" INTEGER, "target" VARCHAR, "count" BIGINT);
INSERT INTO log_stats VALUES
  (fx_t(-7224847791580), '11111111-2222-3333-4444-555555555555', 1, 'a', 5),
  (fx_t(-1824847791580), '11111111-2222-3333-4444-555555555555', 2, 'b', 200),
  (fx_t(-924847791580), '99999999-2222-3333-4444-555555555555', 3, 'a', 7),
  (fx_t(-504847791580), '99999999-2222-3333-4444-555555555555', 4, 'c', 1);
CREATE OR REPLACE TABLE fx_thread_spans ("id" BIGINT, "parent" BIGINT, "depth" UINTEGER, "hash" UINTEGER, "begin" TIMESTAMP_NS, "end" TIMESTAMP_NS, "duration" BIGINT, "name" VARCHAR, "target" VARCHAR, "filename" VARCHAR, "line" UINTEGER);
INSERT INTO fx_thread_spans VALUES
  (-1, 0, 0, 1, fx_t(-1800000000000), fx_t(-1799950000000), 50000000, 'main-7', '', '', 0),
  (0, -1, 1, 2, fx_t(-1799999999900), fx_t(-1799987999500), 12000400, 'A', 'demo', 'm.rs', 10),
  (1, 0, 2, 3, fx_t(-1799999999850), fx_t(-1799999999800), 50, 'B', 'demo', 'm.rs', 20),
  (3, 0, 2, 4, fx_t(-1799999999750), fx_t(-1799999999700), 50, 'C', 'demo', 'm.rs', 30),
  (6, -1, 1, 3, fx_t(-1799999999400), fx_t(-1799999999300), 100, 'handle_request', 'demo', 'm.rs', 20);
CREATE OR REPLACE TABLE fx_async_events ("stream_id" VARCHAR, "block_id" VARCHAR, "time" TIMESTAMP_NS, "event_type" VARCHAR, "span_id" BIGINT, "parent_span_id" BIGINT, "depth" UINTEGER, "hash" UINTEGER, "name" VARCHAR, "filename" VARCHAR, "target" VARCHAR, "line" UINTEGER);
INSERT INTO fx_async_events VALUES
  ('aaaaaaaa-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000000', fx_t(-1800000000000), 'begin', 1, 0, 0, 1, 'op', 'f', 't', 1),
  ('aaaaaaaa-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000000', fx_t(-1799998499999), 'begin', 2, 1, 1, 2, 'inner', 'f', 't', 2),
  ('aaaaaaaa-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000000', fx_t(-1799997000001), 'end', 2, 1, 1, 2, 'inner', 'f', 't', 2),
  ('aaaaaaaa-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000000', fx_t(-1799995000000), 'end', 1, 0, 0, 1, 'op', 'f', 't', 1),
  ('aaaaaaaa-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000000', fx_t(-1799994000000), 'begin', 3, 0, 0, 3, 'late', 'f', 't', 3),
  ('aaaaaaaa-0000-0000-0000-000000000001', 'b0000000-0000-0000-0000-000000000000', fx_t(-1790000000001), 'end', 3, 0, 0, 3, 'late', 'f', 't', 3);
CREATE OR REPLACE TABLE fx_net_spans ("process_id" VARCHAR, "stream_id" VARCHAR, "span_id" BIGINT, "parent_span_id" BIGINT, "depth" UINTEGER, "kind" VARCHAR, "name" VARCHAR, "connection_name" VARCHAR, "is_outgoing" BOOLEAN, "begin_bits" BIGINT, "end_bits" BIGINT, "bit_size" BIGINT, "begin_time" TIMESTAMP_NS, "end_time" TIMESTAMP_NS);
INSERT INTO fx_net_spans VALUES
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000003', 2, 1, 2, 'property', 'Health', '127.0.0.1:7777', false, 0, 32, 32, fx_t(-7200000000000), fx_t(-7200000000000)),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000003', 3, 1, 2, 'rpc', 'ServerFire', '127.0.0.1:7777', false, 32, 96, 64, fx_t(-1800000000000), fx_t(-1800000000000)),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000003', 1, 0, 1, 'object', 'BP', '127.0.0.1:7777', false, 0, 128, 128, fx_t(-899999999877), fx_t(-899999999877)),
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000003', 0, -1, 0, 'connection', '127.0.0.1:7777', '127.0.0.1:7777', false, 0, 128, 128, fx_t(-449999543211), fx_t(-449999543211));
CREATE OR REPLACE TABLE fx_images ("process_id" VARCHAR, "stream_id" VARCHAR, "block_id" VARCHAR, "insert_time" TIMESTAMP_NS, "exe" VARCHAR, "username" VARCHAR, "computer" VARCHAR, "time" TIMESTAMP_NS, "name" VARCHAR, "format" VARCHAR, "payload_size" BIGINT, "data" BLOB);
INSERT INTO fx_images VALUES
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-1800000000000), 'x', 'u', 'c', fx_t(-1800000000000), 'screenshot', 'image/png', 3, unhex('010203'));
CREATE OR REPLACE TABLE fx_otel_spans ("process_id" VARCHAR, "stream_id" VARCHAR, "block_id" VARCHAR, "insert_time" TIMESTAMP_NS, "exe" VARCHAR, "username" VARCHAR, "computer" VARCHAR, "process_properties" JSON, "trace_id" BLOB, "span_id" BLOB, "parent_span_id" BLOB, "start_time" TIMESTAMP_NS, "end_time" TIMESTAMP_NS, "duration" BIGINT, "name" VARCHAR, "kind" VARCHAR, "status" VARCHAR, "status_message" VARCHAR, "properties" JSON, "events" BLOB, "links" BLOB);
INSERT INTO fx_otel_spans VALUES
  ('11111111-2222-3333-4444-555555555555', 'aaaaaaaa-0000-0000-0000-000000000002', 'b0000000-0000-0000-0000-000000000002', fx_t(-1800000000000), 'x', 'u', 'c', '{}'::JSON, unhex('0123456789abcdef0123456789abcdef'), unhex('0123456789abcdef'), NULL, fx_t(-1800000000000), fx_t(-1799999998500), 1500, 'GET', 'SERVER', 'ERROR', 'bad', '{"otel.scope.name":"opentelemetry.instrumentation.requests"}'::JSON, unhex('5b5d'), unhex('5b5d'));
CREATE OR REPLACE TABLE fx_list_partitions ("view_set_name" VARCHAR, "view_instance_id" VARCHAR, "begin_insert_time" TIMESTAMP_NS, "end_insert_time" TIMESTAMP_NS, "min_event_time" TIMESTAMP_NS, "max_event_time" TIMESTAMP_NS, "updated" TIMESTAMP_NS, "file_path" VARCHAR, "file_size" BIGINT, "file_schema_hash" BLOB, "source_data_hash" BLOB, "num_rows" BIGINT, "partition_format_version" INTEGER);
INSERT INTO fx_list_partitions VALUES
  ('log_entries', 'global', fx_t(-7200000000000), fx_t(-1800000000000), fx_t(-7200000000000), fx_t(-1800000000000), fx_t(-1800000000000), 'a', 1, unhex('04'), unhex('0000000000000000'), 1, 2),
  ('measures', '11111111-2222-3333-4444-555555555555', fx_t(-1800000000000), fx_t(-899999999877), fx_t(-1800000000000), fx_t(-899999999877), fx_t(-899999999877), 'b', 2, unhex('05'), unhex('0000000000000000'), 2, 2);
CREATE OR REPLACE TABLE fx_list_view_sets ("view_set_name" VARCHAR, "current_schema_hash" BLOB, "schema" VARCHAR, "has_view_maker" BOOLEAN, "global_instance_available" BOOLEAN);
INSERT INTO fx_list_view_sets VALUES
  ('log_entries', unhex('04'), 'x', true, true),
  ('measures', unhex('06'), 'y', true, true);
CREATE OR REPLACE TABLE fx_parse_block ("object_index" BIGINT, "type_name" VARCHAR, "value" JSON);
INSERT INTO fx_parse_block VALUES
  (0, 'LogStringInteropEvent', '{"__attributes":{"my.event.id":"x","seq":"1"},"msg":"hi"}'::JSON),
  (1, 'NetConnectionBeginEvent', '{"bit_size":"3","connection_name":"c","is_outgoing":"1"}'::JSON);
CREATE OR REPLACE TABLE fx_query_denials ("rule_id" VARCHAR, "created_at" TIMESTAMP_NS, "created_by" VARCHAR, "reason" VARCHAR, "match_expr" VARCHAR, "last_hit_at" TIMESTAMP_NS);
INSERT INTO fx_query_denials VALUES
  ('r1', fx_t(-1800000000000), 'x', 'y', 'z', NULL);
CREATE OR REPLACE TABLE fx_task_log ("time" TIMESTAMP_NS, "level" INTEGER, "msg" VARCHAR);
INSERT INTO fx_task_log VALUES
  (fx_t(-1800000000000), 4, 'r1');
-- the view instances and table functions used by the statements
CREATE OR REPLACE MACRO view_instance(view_set_name, view_instance_id) AS TABLE FROM query_table('vi/' || view_set_name || '/' || view_instance_id);
CREATE OR REPLACE VIEW "vi/log_entries/11111111-2222-3333-4444-555555555555" AS FROM log_entries WHERE process_id LIKE '1%';
CREATE OR REPLACE VIEW "vi/measures/11111111-2222-3333-4444-555555555555" AS FROM measures WHERE process_id LIKE '1%';
CREATE OR REPLACE VIEW "vi/thread_spans/aaaaaaaa-0000-0000-0000-000000000001" AS FROM fx_thread_spans;
CREATE OR REPLACE VIEW "vi/async_events/11111111-2222-3333-4444-555555555555" AS FROM fx_async_events;
CREATE OR REPLACE VIEW "vi/net_spans/11111111-2222-3333-4444-555555555555" AS FROM fx_net_spans;
CREATE OR REPLACE VIEW "vi/images/11111111-2222-3333-4444-555555555555" AS FROM fx_images;
CREATE OR REPLACE VIEW "vi/otel_spans/11111111-2222-3333-4444-555555555555" AS FROM fx_otel_spans;
CREATE OR REPLACE MACRO process_spans(process_id, types) AS TABLE SELECT '' AS stream_id, 'main-7' AS thread_name, * FROM fx_thread_spans;
CREATE OR REPLACE MACRO list_partitions() AS TABLE FROM fx_list_partitions;
CREATE OR REPLACE MACRO list_view_sets() AS TABLE FROM fx_list_view_sets;
CREATE OR REPLACE MACRO list_query_denials() AS TABLE FROM fx_query_denials;
CREATE OR REPLACE MACRO parse_block(block_id) AS TABLE FROM fx_parse_block;
CREATE OR REPLACE MACRO perfetto_trace_chunks(process_id, span_types, t0, t1) AS TABLE SELECT 0::INTEGER AS chunk_id, unhex('0a00') AS chunk_data;
CREATE OR REPLACE MACRO deny_queries(e, r) AS TABLE FROM fx_task_log;
CREATE OR REPLACE MACRO retire_partitions(a, b, c, d) AS TABLE FROM fx_task_log;
CREATE OR REPLACE MACRO materialize_partitions(a, b, c, d) AS TABLE FROM fx_task_log;
CREATE OR REPLACE MACRO regenerate_partitions(a, b, c, d) AS TABLE FROM fx_task_log;
CREATE OR REPLACE MACRO remove_query_denial(x) AS 'ok';
CREATE OR REPLACE MACRO retire_partition_by_metadata(a, b, c, d) AS 'ok';
CREATE OR REPLACE MACRO retire_partition_by_file(a) AS 'ok';
CREATE OR REPLACE MACRO get_payload(a, b, c) AS unhex('00');
-- stand-ins for tables named only in examples
CREATE OR REPLACE TABLE performance_histograms AS SELECT {'start': 0.0::DOUBLE, 'end': 100.0::DOUBLE, 'min': 1.0::DOUBLE, 'max': 99.0::DOUBLE, 'sum': 100.0::DOUBLE, 'sum_sq': 3000.0::DOUBLE, 'count': 4::UBIGINT, 'bins': [1, 0, 2, 1]::UBIGINT[]} AS duration_histogram, duration_histogram AS response_time_histogram, duration_histogram AS cpu_usage_histo, fx_t(-1000) AS time_bin, 'svc' AS service_name;
CREATE OR REPLACE VIEW performance_metrics AS FROM performance_histograms;
CREATE OR REPLACE VIEW performance_data AS FROM performance_histograms;
CREATE OR REPLACE VIEW cpu_usage_per_process_per_minute AS FROM performance_histograms;
CREATE OR REPLACE TABLE events AS SELECT 'spatial_event' AS name, '{"position":[1.5,2,3],"actor_id":"a","event_type":"e","items":[1,2,3,4,5,6],"teams":[{"players":[{"type":"human","name":"Bob","profile_id":"p"}]}]}'::JSON AS msg_jsonb, 12.0::DOUBLE AS x, 30.0::DOUBLE AS y, fx_t(-1000) AS time, 'p' AS process_id;
CREATE OR REPLACE TABLE my_events AS SELECT 1.0::DOUBLE AS x, 2.0::DOUBLE AS y, 3.0::DOUBLE AS z, 50.0::DOUBLE AS value;
CREATE OR REPLACE TABLE density_grid AS SELECT 1.0::DOUBLE AS x, 2.0::DOUBLE AS y, 3.0::DOUBLE AS value, 6.0::DOUBLE AS max_value;
CREATE OR REPLACE TABLE heatmap AS SELECT 1.0::DOUBLE AS x, 2.0::DOUBLE AS y, 0.3::DOUBLE AS t;
CREATE OR REPLACE TABLE scaled AS SELECT 0.3::DOUBLE AS t;
CREATE OR REPLACE TABLE cells AS SELECT unnest([5, 10]) AS cnt;
CREATE OR REPLACE TABLE raw_metrics AS SELECT 'cpu' AS name, 5.0::DOUBLE AS value;
CREATE OR REPLACE TABLE thresholds AS SELECT 'cpu' AS metric, 1.0::DOUBLE AS warn_threshold, 9.0::DOUBLE AS error_threshold;
CREATE OR REPLACE TABLE frame_metrics AS SELECT fx_t(-1000) AS time, 12.0::DOUBLE AS frame_time_us;
CREATE OR REPLACE TABLE process_info AS SELECT 1 AS a;
CREATE OR REPLACE TABLE "cpu_chart.user" AS SELECT 1 AS a;
CREATE OR REPLACE TABLE "cpu_chart.system" AS SELECT 1 AS a;
