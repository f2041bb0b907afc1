// Package postgres keeps the catalog in a PostgreSQL database, version 14 or newer, for a lake that many processes serve.
// Written and read through catalog.Catalog only; any number of processes may have it open.
//
// A commit is one message stream of statements that the server runs as one implicit transaction (batch): one round trip, and no
// lock is ever held while the server waits for the client's next decision. What a statement finds wrong (a checkpoint that
// moved, a partition that is gone) it raises as an error of its own code, so the server rolls back by itself.
//
// Isolation is READ COMMITTED. What must not change between reading and writing is compared and written by one statement
// (checkpoints, claims, retirements), under the row's lock, which needs no more; a stricter level would answer the same races with
// errors to be retried. All commits lock in one order: checkpoints by shard, backlog, parked copies, layouts, processes, streams
// and blocks by id, last-seen times by number, and the commit number, under which partitions are written. Should the server break
// a deadlock all the same, the batch is sent again, a bounded number of times.
//
// The answer to a commit may be lost with its connection. Then the error wraps catalog.ErrOutcomeUnknown and all connections are
// made anew, as the server may be another one now; with several hosts in the connection string the one that takes writes is chosen.
// A server that fails over without having copied the last commits loses them: run standbys synchronously.
//
// Assumed of the server: fsync and synchronous_commit are on, as they are by default. Transaction poolers are fine: nothing
// outlives a transaction in a session. One that cannot handle prepared statements needs default_query_exec_mode=cache_describe
// in the connection string.
package postgres
