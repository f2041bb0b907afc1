// Package materializers builds the eager views: it turns log and metric blocks into Parquet partitions as they pass on the bus. (Views of
// spans, images and network traffic are built when somebody asks: see justintime.)
// It reads the bus (or packs, where the bus is trimmed) and writes partitions, parked copies and its checkpoints.
//
// Each eager shard has one owner, by lease, with one checkpoint M for all views. The owner reads from M in order, decodes blocks into
// columns, and commits on rows, bytes, age or a flush request: it cuts at a position, sorts and writes one file per view and
// bucket of event time while archive passes the cut, leaves out copies that archive skips, and makes it all exist in one
// transaction that compares the checkpoint. What a crash leaves behind are orphans for garbage collection.
//
// A shard whose next frame is too old moves its checkpoint to the head, in one transaction that opens what lies between as ranges
// of the backlog, so that fresh data stays visible. Workers of any process claim the ranges, and build them from packs, in chunks
// that each move the range's first position in the transaction that adds their partitions. Answers to flush requests that an open
// range may meet say so.
//
// Invariants, which the tests crash and race against: M ≤ A (archive's checkpoint), and each copy of a block at or below M is exactly
// one of: in one partition's rows, skipped, parked (its registration has not come), dead (it cannot be decoded), or in an open
// range of the backlog. Parked copies are built by the shard's owner, whoever parked them. Rows depend on a block, and on the first
// registrations of its stream and process, only, so a replay from packs gives equal rows.
//
// The one thing to know first: nothing of a batch exists before its transaction, so any error may simply end the owner; the
// next one starts from the checkpoint.
package materializers
