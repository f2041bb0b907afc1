// Package query answers SQL over the lake. It reads what workers and materializers write and writes nothing but files in
// its own cache folder.
//
// One query goes this way:
//
//  1. dialect checks and rewrites the statement, and names the tables it needs.
//  2. The owners of these tables are asked over the bus to commit up to the bus position at the query's start
//     (freshen.go): a query that starts after an ack sees that block's rows.
//     Just-in-time views are built over the bus meanwhile (materialize.go): the answers name the files to read.
//  3. The index of live partitions is brought up to the catalog's commit number and pruned in memory (index.go, prune.go);
//     the query pins that commit number, so that the collector leaves its files alone.
//  4. Each table becomes a TEMP view of the query's own connection, over a list of files and under the query's time
//     range (relations.go). processes, streams and blocks come from files that follow the catalog (layers.go, blocks.go).
//  5. The engine runs the statement; batches stream out while it works. A trace that is only shown goes past it (tracechunks.go).
//
// Invariants: no file is opened for pruning; a connection serves one query at a time and leaves no view behind; a query
// whose answer may be incomplete says so in a warning, or fails when it asked for strictness; every error is an *Error.
package query
