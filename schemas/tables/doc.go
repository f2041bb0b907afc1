// Package tables describes every table that SQL can name: columns, types, nullability, the rule by
// which a query's time range filters it, and the Arrow, Parquet and DuckDB forms of its columns.
// Written by materializers and by query's snapshots (as Parquet files), read by query and its clients.
//
// This is the stable interface of the lake. A column is never renamed, retyped or moved; what must
// change gets a new schema version, whose hash tells old files from new ones.
//
// Two forms of the same columns exist. Files hold the stored form: timestamps in nanoseconds
// without the UTC flag (with it DuckDB cuts them to microseconds) and property sets as text with
// Parquet's JSON logical type. Clients receive the served form: timestamps with the literal zone
// +00:00 and property sets as binary JSONB, as dictionaries only when they ask for them.
package tables
