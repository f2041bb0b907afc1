package catalog

import (
	"context"
	"iter"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Catalog is what every stage knows about the lake. All methods are safe for concurrent use.
//
// An error that is none of this package's sentinels is trouble of the store (disk, network, cancelled context): the call
// may be repeated. For a commit such an error may wrap [ErrOutcomeUnknown]: read the checkpoint before repeating.
type Catalog interface {
	// Close waits for commits under way and releases the store.
	Close() error
	// Ping reports whether the store answers.
	Ping(ctx context.Context) error
	// Now returns the time by the store's clock. Leases, claims and retirements are stamped and judged by this clock alone, so
	// a process whose own clock is wrong does no harm; whatever is compared with a time from the catalog must come from here.
	Now(ctx context.Context) (int64, error)

	// Setting returns the value of a key, and whether the key is set.
	Setting(ctx context.Context, key string) (string, bool, error)
	// PutSettingIfAbsent sets a key once and returns the value that stands, which is another caller's if that one was first.
	PutSettingIfAbsent(ctx context.Context, key, value string) (string, error)

	// Generations returns all generations of all shards, ordered by class, shard and generation.
	Generations(ctx context.Context) ([]Generation, error)
	// OpenGeneration adds a generation. The same one again is no error; a different one under the same key is ErrConflict.
	OpenGeneration(ctx context.Context, g Generation) error

	// AcquireLease takes the lease when nobody holds it, when it has expired, or when owner holds it already (a process
	// that restarts under its old name need not wait). Each acquisition gets an epoch one above the last.
	// While another owner holds it the error is a *HeldError. Times are the store's (Now).
	AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (Lease, error)
	// ReleaseLease lets the next owner in at once. ErrLeaseLost when the lease is no longer the caller's.
	ReleaseLease(ctx context.Context, l Lease) error
	// Leases returns all leases ever taken and not forgotten, ordered by name; released and expired ones too.
	Leases(ctx context.Context) ([]Lease, error)
	// KeepLeases extends those of held that are still the caller's from now by ttl, also those that expired and that nobody
	// took, and returns all leases as they are afterwards, ordered by name, and the store's clock at that moment. One that another
	// acquisition or a release took is no error: its row says so. Without held it only reads. It is one round trip, since every process does it several times a second.
	KeepLeases(ctx context.Context, held []Lease, ttl time.Duration) (all []Lease, now int64, err error)
	// ForgetLeases removes the leases whose name begins with prefix and that were released, or expired before a time of the
	// store's clock. Their epochs start over: it is for names that guard no checkpoint.
	ForgetLeases(ctx context.Context, prefix string, before int64) error

	// Checkpoint returns how far a consumer got. Without a row it is the position before the generation's first
	// sequence number (zero for a generation that is not known), with epoch 0.
	Checkpoint(ctx context.Context, consumer string, s ShardID) (Checkpoint, error)
	// ArchivePositions returns the checkpoints of consumer "archive", one per shard and generation that has one.
	ArchivePositions(ctx context.Context) (map[ShardID]uint64, error)

	// ExistingBlocks tells for each key, in order, whether the catalog has a row of the block. Of a block that is frozen it may have
	// none: see Frozen.
	ExistingBlocks(ctx context.Context, keys []BlockKey) ([]bool, error)
	// CommitArchive writes one step of an archive owner: ErrConflict when checkpoint or epoch moved, ErrDuplicateBlocks when
	// a block of the commit is archived already (settle with ExistingBlocks, and commit again with a skip in its place),
	// ErrFrozen when blocks began in times of which rows are frozen and c.Frozen is not the version of these files (look the keys
	// up in them, and commit again with skips and the version), ErrObjectsTooOld when its objects may be collected soon.
	CommitArchive(ctx context.Context, c *ArchiveCommit) error

	// CommitView writes one step of a view's owner or builder and returns the commit number: ErrConflict when a checkpoint,
	// a range of the backlog or an epoch moved, ErrArchiveBehind when archive has not passed the new positions, ErrStale when a partition to retire
	// or a parked copy to remove is not there any more, or when a partition of an instance lives already in the place of an added one (same view,
	// instance, bucket and level), ErrLeaseLost when the guard does not stand, ErrObjectsTooOld when its objects may be collected soon.
	// A commit that changes no partition leaves the commit number as it is.
	CommitView(ctx context.Context, c *ViewCommit) (commitNo int64, err error)
	// Backlog returns a consumer's open ranges, ordered by shard, generation and first sequence number. They are opened and
	// worked off by CommitView.
	Backlog(ctx context.Context, consumer string) ([]Backlog, error)
	// ClaimBacklog gives the caller one of the consumer's ranges that nobody works on, under an epoch one above its last, for
	// ttl; false when there is none. Ranges whose last claim was released, or that never had one, come before those whose
	// claim expired (something may be wrong with these), and the newest positions come first. A range that owner holds
	// already counts as free: a process that restarts under its old name need not wait.
	ClaimBacklog(ctx context.Context, consumer, owner string, ttl time.Duration) (Backlog, bool, error)
	// RenewBacklog extends the claim from now by ttl, and returns the range as it is. It must fail with ErrLeaseLost when
	// another claim took place, when the claim was released, and when the range is done.
	RenewBacklog(ctx context.Context, b Backlog, ttl time.Duration) (Backlog, error)
	// ReleaseBacklog lets the next worker in at once. ErrLeaseLost when the claim is no longer the caller's.
	ReleaseBacklog(ctx context.Context, b Backlog) error
	// EventRange returns times between which all events lie of the blocks archived from (after, to]. Without blocks begin > end.
	// It may count blocks of packs that reach beyond the positions.
	EventRange(ctx context.Context, s ShardID, after, to uint64) (begin, end int64, err error)
	// Skips returns the copies that do not count in (after, to], ordered by position.
	Skips(ctx context.Context, s ShardID, after, to uint64) ([]Skip, error)
	// Parked returns a consumer's parked copies that pass the filter, ordered by position.
	Parked(ctx context.Context, consumer string, f ParkedFilter) ([]Parked, error)

	// Processes returns the processes with the given ids, stubs included, ordered by No; nil ids means all.
	// Ids that are not known are left out.
	Processes(ctx context.Context, ids []telemetry.ID) ([]ProcessRow, error)
	// Streams is Processes for streams. The layouts come as CBOR, shared by all rows of one layout.
	Streams(ctx context.Context, ids []telemetry.ID) ([]StreamRow, error)
	// ProcessStreams returns the streams of the processes with the given ids, stubs included, ordered by No.
	ProcessStreams(ctx context.Context, processes []telemetry.ID) ([]StreamRow, error)
	// StreamBlocks returns blocks of a stream that are not frozen, ordered by begin time and id. Of an unknown stream there are none.
	StreamBlocks(ctx context.Context, stream telemetry.ID, q BlockQuery) ([]BlockRow, error)
	// TraceBlocks returns the blocks under way in [begin, end], both included, that hold a trace id, by the index of traces, and those that may:
	// of whose ids there is a filter that passes mayHold. Each comes once, ordered by key. mayHold must not keep the filter, and may be called
	// more than once with one.
	TraceBlocks(ctx context.Context, id [TraceIDBytes]byte, begin, end int64, mayHold func(filter []byte) bool) ([]BlockKey, error)
	// TraceSince returns since when the index of traces is complete: no block is missing whose events all lie at that time or later,
	// unless its client's clock was ahead. It never goes back; 0 = since ever. Read it after TraceBlocks.
	TraceSince(ctx context.Context) (int64, error)
	// ProcessesAfter returns up to limit processes with a No above no, stubs included, ordered by No. One that was committed while a
	// reader pages may be missing from its pages, but never from ChangedProcesses after positions that were read before the first page.
	ProcessesAfter(ctx context.Context, no int64, limit int) ([]ProcessRow, error)
	// StreamsAfter is ProcessesAfter for streams.
	StreamsAfter(ctx context.Context, no int64, limit int) ([]StreamRow, error)
	// ChangedProcesses returns which rows of processes were changed by archive commits after the given positions (a missing shard: from
	// its start): made as a stub, registered, or given a block. Others that these commits name may be among them. The answer is of whole
	// commits and of one moment. When more than limit rows changed (limit <= 0: any number), or when commits beyond ChangesKept are asked
	// for, it is Changes.All.
	ChangedProcesses(ctx context.Context, after map[ShardID]uint64, limit int) (Changes, error)
	// ChangedStreams is ChangedProcesses for streams. A stub that is registered under another process changes too.
	ChangedStreams(ctx context.Context, after map[ShardID]uint64, limit int) (Changes, error)
	// StreamTag returns the tag of a registered stream; false for an unknown stream and for a stub.
	StreamTag(ctx context.Context, id telemetry.ID) (telemetry.Tag, bool, error)
	// BlocksSince returns the blocks archived after the given positions (a missing shard: from its start) that are not frozen, in whole
	// commits and in order of position within a shard, and the positions up to which the answer is complete. It stops after
	// the commit that reaches limit; limit <= 0 means all. Blocks of stubs are included.
	BlocksSince(ctx context.Context, after map[ShardID]uint64, limit int) ([]BlockRow, map[ShardID]uint64, error)
	// PacksAfter returns up to limit packs of frames that hold a sequence number above seq, ordered by first sequence
	// number. Adopted objects are not among them.
	PacksAfter(ctx context.Context, s ShardID, seq uint64, limit int) ([]Pack, error)

	// Frozen returns the live files that may hold a block that was under way in [begin, end], both included, ordered by part number.
	Frozen(ctx context.Context, begin, end int64) (Frozen, error)
	// Freezable returns what may be frozen of the blocks that began before a time or after another: rows at positions that archive
	// and, in the eager class, ConsumerViews have passed, below all open backlog. ErrStale while SweepFrozen has not come to its end.
	Freezable(ctx context.Context, before, after int64) (Freezable, error)
	// FreezableBlocks yields the rows of a span in order of their keys. At one version and up to positions that Freezable returned with
	// it, the rows of a span never change. The rows are not held in memory; until the loop ends a connection is. After an error
	// it ends.
	FreezableBlocks(ctx context.Context, s FreezeSpan) iter.Seq2[BlockRow, error]
	// CommitFreeze takes the rows of a span out of the catalog's blocks and puts their files in place, as one commit that changes
	// partitions, and returns its number: the new version. ErrStale when the version moved, when the span has another number of rows than
	// c.Moved, and when a file to retire is not live; ErrObjectsTooOld when its objects may be collected soon.
	// No reader sees the rows any more, but the store may keep them until SweepFrozen. A reader of rows that wants them to fit the files
	// of a version must read the version again when it has the rows, and read all again when it moved.
	CommitFreeze(ctx context.Context, c *FreezeCommit) (version int64, err error)
	// Freezes returns the freezes after a version, in order. ErrStale when some of them are forgotten.
	Freezes(ctx context.Context, after int64) ([]Freeze, error)
	// SweepFrozen removes about limit of the rows that CommitFreeze took out, or whatever else it left, in one short transaction, and
	// reports whether more is left.
	SweepFrozen(ctx context.Context, limit int) (more bool, err error)

	// CommitNo returns the number of the last commit that changed partitions.
	CommitNo(ctx context.Context) (int64, error)
	// Partitions returns what changed of global partitions after a commit number; 0 asks for all live ones. The answer is consistent at
	// its own commit number. Of retired ones, numbers of partitions of instances may be among them.
	Partitions(ctx context.Context, sinceCommit int64) (PartitionDelta, error)
	// InstancePartitions returns the live partitions of an instance of a view, ordered by bucket and level.
	InstancePartitions(ctx context.Context, view string, instance int64) ([]Partition, error)
	// AllInstancePartitions returns up to limit live partitions of all instances, without their State, ordered by number; limit <= 0: all.
	AllInstancePartitions(ctx context.Context, limit int) ([]Partition, error)

	// RetiredBefore returns up to limit partitions that were retired before a time of the store's clock (Now), oldest first.
	RetiredBefore(ctx context.Context, t int64, limit int) ([]Partition, error)
	// ForgetPartitions removes the rows of retired partitions; live ones and unknown numbers are left alone.
	ForgetPartitions(ctx context.Context, partNos []int64) error
	// KeysReferenced tells for each key, in order, whether a pack or a partition, live or retired, names it.
	KeysReferenced(ctx context.Context, keys []string) ([]bool, error)
	// Stats returns the counts for /status.
	Stats(ctx context.Context) (Stats, error)
}
