-- Statements that must be refused before they reach the engine. The comment is the error text the client must see (prefix match is enough);
-- the second part says what the engine alone would do: blocked / ALLOWED.
-- => only SELECT statements are allowed  [engine: blocked]
COPY (SELECT 1) TO '/etc/x.csv';
-- => only SELECT statements are allowed  [engine: ALLOWED inside the cache directory]
COPY (SELECT 1) TO 'cache/evil.parquet';
-- => only SELECT statements are allowed  [engine: blocked]
EXPORT DATABASE 'x';
-- => only SELECT statements are allowed  [engine: blocked]
ATTACH 'x.duckdb' AS y;
-- => only SELECT statements are allowed  [engine: ALLOWED]
ATTACH ':memory:' AS y;
-- => only SELECT statements are allowed  [engine: blocked]
INSTALL httpfs;
-- => only SELECT statements are allowed  [engine: blocked]
LOAD httpfs;
-- => only SELECT statements are allowed  [engine: blocked by lock_configuration]
SET memory_limit = '100GB';
-- => only SELECT statements are allowed  [engine: ALLOWED]
SET search_path = 'main';
-- => only SELECT statements are allowed  [engine: ALLOWED]
SET VARIABLE x = 1;
-- => only SELECT statements are allowed  [engine: blocked by lock_configuration]
PRAGMA enable_profiling = 'json';
-- => only SELECT statements are allowed  [engine: ALLOWED]
PRAGMA database_list;
-- => only SELECT statements are allowed  [engine: ALLOWED]
CALL pragma_version();
-- => only SELECT statements are allowed  [engine: ALLOWED]
CREATE OR REPLACE MACRO now() AS 1;
-- => only SELECT statements are allowed  [engine: ALLOWED]
CREATE TABLE t AS SELECT 1;
-- => only SELECT statements are allowed  [engine: ALLOWED]
DROP VIEW "vi/log_entries/x";
-- => only SELECT statements are allowed  [engine: ALLOWED]
DELETE FROM processes;
-- => only SELECT statements are allowed  [engine: ALLOWED]
INSERT INTO processes SELECT * FROM processes;
-- => only SELECT statements are allowed  [engine: ALLOWED]
CHECKPOINT;
-- => only SELECT statements are allowed  [engine: ALLOWED]
PREPARE p AS SELECT 1;
-- => only SELECT statements are allowed  [engine: blocked]
CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b');
-- => only one statement per query  [engine: ALLOWED, returns the last result]
SELECT 1; SELECT 2;
-- => table function 'read_csv' not found  [engine: blocked outside, ALLOWED inside the cache directory]
SELECT * FROM read_csv('/etc/hostname');
-- => table function 'read_parquet' not found  [engine: ALLOWED inside the cache directory: other tenants' rows]
SELECT * FROM read_parquet('cache/*.parquet');
-- => table function 'read_text' not found
SELECT * FROM read_text('/proc/self/environ');
-- => table function 'read_blob' not found
SELECT * FROM read_blob('/etc/hostname');
-- => table function 'read_json' not found
SELECT * FROM read_json('/etc/x.json');
-- => table function 'read_duckdb' not found
SELECT * FROM read_duckdb('x.duckdb');
-- => table function 'glob' not found  [engine: ALLOWED inside the cache directory]
SELECT * FROM glob('cache/*');
-- => table function 'sniff_csv' not found
SELECT * FROM sniff_csv('x.csv');
-- => table function 'parquet_metadata' not found
SELECT * FROM parquet_metadata('cache/f.parquet');
-- => table function 'query' not found  [engine: ALLOWED; runs any SQL text, invisible to the syntax tree]
SELECT * FROM query('SELECT 1');
-- => table function 'query_table' not found  [engine: ALLOWED]
SELECT * FROM query_table('x.csv');
-- => table function 'json_execute_serialized_sql' not found  [engine: ALLOWED; runs any SQL]
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'));
-- => table function 'enable_logging' not found  [engine: ALLOWED; with storage='file' every later statement of the process fails]
SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_config = {'path': 'x'});
-- => table function 'checkpoint' not found  [engine: ALLOWED]
SELECT * FROM checkpoint();
-- => table function 'duckdb_settings' not found  [engine: ALLOWED; shows paths]
SELECT * FROM duckdb_settings();
-- => table function 'duckdb_views' not found  [engine: ALLOWED; shows cache file names]
SELECT * FROM duckdb_views();
-- => table function 'duckdb_functions' not found  [engine: ALLOWED]
SELECT * FROM duckdb_functions();
-- => table function 'pragma_storage_info' not found  [engine: ALLOWED]
SELECT * FROM pragma_storage_info('processes');
-- => table 'x.csv' not found  [engine: blocked outside the cache directory]
SELECT * FROM 'x.csv';
-- => table 'https://example.com/x.parquet' not found
SELECT * FROM 'https://example.com/x.parquet';
-- => schema-qualified table pg_catalog.pg_tables  [engine: ALLOWED]
SELECT * FROM pg_catalog.pg_tables;
-- => table 'duckdb_logs' not found  [engine: ALLOWED]
SELECT * FROM duckdb_logs;
-- => table function 'read_text' not found (nested forms)
SELECT (SELECT content FROM read_text('/etc/hostname'));
WITH x AS MATERIALIZED (SELECT * FROM read_text('/etc/hostname')) SELECT * FROM x;
SELECT * FROM processes WHERE tsc_frequency IN (SELECT size FROM read_text('/etc/hostname'));
-- => function 'current_setting' is not available  [engine: ALLOWED; shows the allowed directories]
SELECT current_setting('allowed_directories');
-- => function 'write_log' is not available  [engine: ALLOWED]
SELECT write_log('x');
-- => function 'pg_sleep' is not available  [engine: ALLOWED]
SELECT pg_sleep(60);
-- => function 'getvariable' is not available  [engine: ALLOWED]
SELECT getvariable('x');
-- => function 'getenv' is not available  [engine: function exists only in the shell program]
SELECT getenv('HOME');
-- => a scope trick: the inner CTE must not make the outer file name acceptable
SELECT * FROM 'x.csv', (WITH "x.csv" AS (SELECT 1) SELECT 1) q;
-- => view_instance: the second argument must be a UUID or 'global' (checked before the name reaches query_table)
SELECT * FROM view_instance('log_entries', '../x.csv');
