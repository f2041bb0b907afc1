// Package catalog is the metadata of the lake: which blocks are archived and where, which Parquet files make up a view,
// who owns which shard of the bus, and how far each owner got.
// Written by workers/archive (processes, streams, blocks, packs, skips) and by materializers (partitions, parked copies,
// their checkpoints); read by the gateway (tags of streams), by materializers and by query. Query never writes.
//
// The invariants, which catalogtest holds any implementation to:
//
//   - A commit is durable when the call returns nil, and it happens whole or not at all.
//   - A commit moves its checkpoint from the position that it read to a later one, by compare-and-swap; the epoch of its
//     lease must not be older than the one that moved the checkpoint last. So of two owners that both believe in their
//     lease one loses with [ErrConflict], and rows and position never disagree.
//   - A checkpoint may pass a range of positions unbuilt, if the same commit opens it as [Backlog]. The range is worked off in
//     chunks, each a compare-and-swap of the range's first position under the epoch of its claim, so again rows and
//     positions never disagree.
//   - An object exists for readers from the commit that names it on. What no row names is an orphan, whatever it holds.
//   - A process, a stream and a block are registered once; the first registration wins. Times of processes, streams and
//     blocks are kept in whole microseconds (see [TruncateToMicroseconds]), also where keys are compared.
//   - A block, once archived, is at each commit number either a row or in exactly one live file of frozen rows. No block is archived
//     twice: a commit with a block of frozen times must say at which version its caller has looked into the files.
//   - Rows of processes and streams change in archive commits alone, and which ones a commit changed is remembered with its position
//     (see [Changes]). So a copy of these tables and the positions at which it was made are all that a reader needs to keep it true.
//   - The index of traces leads to every block with a trace id that was archived since some time (see [Catalog.TraceSince]). It is a help to
//     find blocks, and bounded; the envelopes in the packs are what counts.
//   - Commit numbers grow by one with each change of the set of partitions, and Partitions answers for one commit number.
//
// Know first: a [ShardID] with a sequence number is a position on the bus, and never means two things, because a
// generation closes for good when its stream is replaced. A checkpoint that was never moved stands just before its
// generation's first sequence number.
//
// What stays: skips and dead parked copies are kept as long as the packs that hold their frames. A pack has every copy, verbatim; only
// the skips say which of them count, so a view that is built anew from packs needs them all. Rows of leases by which processes
// announce themselves go a minute after the process ([Catalog.ForgetLeases]).
//
// Times are int64 nanoseconds UTC since the Unix epoch. Names that end in No are surrogate keys of this catalog.
//
// There is one clock that processes share: the store's ([Catalog.Now]). Leases, claims on the backlog and the times of
// retirements are its own. Times that describe data (of events, of inserts, of objects put) are what the writer says they are.
package catalog
