// Package materializers builds the eager views: it turns log and metric blocks into Parquet partitions as they pass on the bus.
// It reads the bus (or packs, where the bus is trimmed) and writes partitions, parked copies and its checkpoints.
//
// Each eager shard has one owner, by lease, with one checkpoint M for all views. The owner reads from M in order, decodes blocks into
// columns, and commits on rows, bytes, age or a flush request: it cuts at a position, sorts and writes one file per view and
// bucket of event time while archive passes the cut, leaves out copies that archive skips, and makes it all exist in one
// transaction that compares the checkpoint. What a crash leaves behind are orphans for garbage collection.
//
// Invariants, which the tests crash and race against: M ≤ A (archive's checkpoint), and each copy of a block at or below M is exactly
// one of: in one partition's rows, skipped, parked (its registration has not come), or dead (it cannot be decoded). Rows depend on
// a block, its stream and its process only, so a replay from packs gives equal rows.
//
// A shard that is far behind is not moved into a backlog range yet: it catches up in order. The place for that is where the owner
// opens its reader.
//
// The one thing to know first: nothing of a batch exists before its transaction, so any error may simply end the owner; the
// next one starts from the checkpoint.
package materializers
