package catalog

import (
	"fmt"
	"math"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Consumers that keep checkpoints.
const (
	// ConsumerArchive is the consumer whose checkpoint bounds all others.
	ConsumerArchive = "archive"
	// ConsumerViews is the consumer of all eager views together.
	ConsumerViews = "views"
)

// ClassEager is the class of shards that ConsumerViews reads.
const ClassEager byte = 'e'

// MaxObjectAge is how long after its first object was put a commit is still taken. Garbage collection takes orphans after
// twice this time, so that no commit names an object that is being collected.
const MaxObjectAge = 30 * time.Minute

// ShardID names one stream of the bus: class 'e' (eager) or 'r' (raw), generation, shard.
type ShardID struct {
	Class      byte
	Gen, Shard int32
}

// String returns class/shard/generation, such as e/0/1.
func (s ShardID) String() string { return fmt.Sprintf("%c/%d/%d", s.Class, s.Shard, s.Gen) }

// Compare orders by class, shard and generation.
func (s ShardID) Compare(o ShardID) int {
	switch {
	case s.Class != o.Class:
		return int(s.Class) - int(o.Class)
	case s.Shard != o.Shard:
		return int(s.Shard) - int(o.Shard)
	default:
		return int(s.Gen) - int(o.Gen)
	}
}

// Generation is one life of a shard's stream. Its sequence numbers start at FirstSeq, above all of the one before.
type Generation struct {
	ShardID
	Stream   string // name of the JetStream stream
	Created  int64  // creation time of the stream, by which a replaced one is told apart
	FirstSeq uint64
}

// Lease is the right to work on something until Expires, by the store's clock. A higher epoch of the same name always wins.
type Lease struct {
	Name, Owner string // Owner is empty after a release
	Epoch       int64
	Expires     int64
}

// Checkpoint is how far a consumer got, and the epoch that moved it there.
type Checkpoint struct {
	Seq   uint64
	Epoch int64
}

// BlockKey identifies a block. A client that retries sends identical bytes, so the begin time is part of the key and
// makes it local: blocks that come together lie together.
type BlockKey struct {
	StreamID  telemetry.ID
	BeginTime int64
	BlockID   telemetry.ID
}

// Pack is an object of the lake that holds blocks: the frames FirstSeq..LastSeq of a shard, or one adopted body.
type Pack struct {
	No                int64 // 0 before the commit
	Shard             ShardID
	FirstSeq, LastSeq uint64
	Key               string
	Size              int64
	Created           int64
	// Adopted marks an oversize body that the gateway put into the lake ahead of its record: one block's body from the
	// first byte to the last, no frames. FirstSeq and LastSeq are the position of its record.
	Adopted bool
}

// Reasons why a copy does not count.
const (
	// SkipDuplicate: another copy of the block counts.
	SkipDuplicate int16 = 1
	// SkipUnreadable: the record is damaged, or its envelope says something else than the record.
	SkipUnreadable int16 = 2
)

// Skip is a verdict of archive: the copy at this position does not count.
type Skip struct {
	Seq    uint64
	Rec    int32
	Reason int16
}

// Parked is a copy that a consumer passed without building it: its registration has not come, or it is dead.
type Parked struct {
	Shard     ShardID
	Seq       uint64
	Rec       int32
	StreamID  telemetry.ID
	ProcessID telemetry.ID
	Since     int64
	Dead      bool
	Reason    string
}

// ParkedFilter chooses parked copies. The zero value chooses all; set fields must all hold, except that a copy passes
// with either its stream in StreamIDs or its process in ProcessIDs.
type ParkedFilter struct {
	Shard                 *ShardID
	StreamIDs, ProcessIDs []telemetry.ID
	Dead                  *bool
	SinceBefore           int64 // only copies parked before this time; 0 = any
	Limit                 int   // 0 = all
}

// Backlog is a range of positions that a consumer's checkpoint has passed unbuilt, to be built in chunks by whoever claims it.
// Archive has passed it too, so its frames are in packs, and which of its copies count is settled.
type Backlog struct {
	RangeNo           int64 // given by the catalog
	Shard             ShardID
	FirstSeq, LastSeq uint64 // FirstSeq moves with each chunk; the row goes with the last one
	// MinTime and MaxTime bound the events of its blocks; a range without blocks has MinTime > MaxTime.
	MinTime, MaxTime int64
	// The claim, set by the catalog. Owner is empty when nobody works on the range. Epoch grows with each claim.
	Owner   string
	Epoch   int64
	Expires int64
}

// ProcessRow is a process as registered, or a stub (Registered 0) that a block or a stream named first.
type ProcessRow struct {
	telemetry.Process
	No         int64
	Registered int64 // insert time of the registration; 0 = stub
	// Over the archived blocks of the process; meaningful when HasBlocks. LastTicksTime is the end time of the block that ends with
	// LastTicks, of several the latest one: a clock is estimated from these two. LastTime may be that of another block.
	FirstTime, LastTime, LastInsert, LastTicks, LastTicksTime int64
	HasBlocks                                                 bool
}

// StreamRow is a stream as registered, or a stub (Registered 0) of which only ID and ProcessID are known.
// Dependencies and Objects of the embedded Stream are nil: the layouts come encoded, as CBOR arrays of types (wire.DecodeTypes).
type StreamRow struct {
	telemetry.Stream
	No, ProcessNo                 int64
	Registered                    int64
	DependenciesNo, ObjectsNo     int64  // numbers of the layouts, good as cache keys; 0 for a stub
	DependenciesCBOR, ObjectsCBOR []byte // shared between rows: do not change
	// Over the archived blocks of the stream; meaningful when HasBlocks.
	FirstTime, LastTime, LastInsert int64
	HasBlocks                       bool
}

// BlockRow is an archived block and where its body lies. A row that comes from, or goes to, a frozen file has no Tag, StreamKnown and
// ProcessKnown, and as ProcessID the stream's process as of the freeze.
type BlockRow struct {
	telemetry.Block
	InsertTime  int64
	PayloadSize int64 // of the canonical CBOR map {dependencies, objects}
	Tag         telemetry.Tag
	// The client's insert_block body, as it came, is PackLength bytes at PackOffset of the object PackKey.
	PackKey                string
	PackOffset, PackLength int64
	Shard                  ShardID // where it came from
	PackSeq                uint64  // the last sequence number of its pack
	// StreamKnown and ProcessKnown are false while only a stub stands for them.
	StreamKnown, ProcessKnown bool
}

// MaxStateBytes bounds Partition.State.
const MaxStateBytes = 1 << 20

// Partition is one Parquet file of a view. PartNo, Added, Retired and RetiredAt are set by the catalog.
type Partition struct {
	PartNo                                         int64
	View                                           string
	Instance                                       int64 // 0 = global, else ProcessRow.No or StreamRow.No
	Level                                          int16
	Bucket                                         int64
	MinTime, MaxTime, MinInsert, MaxInsert         int64
	Rows, Size                                     int64 // of an instance: Rows counts spans that are open at its end too; Size 0 = there is no file
	SchemaVer                                      int32
	Sort                                           int16
	Procs                                          []byte // bitmap of ProcessBitmapBytes, or nil
	Key                                            string
	SrcHash                                        []byte
	Objects, MaxSortKey                            int64  // of an instance: events of its blocks; time of the last row where rows are in order of it, 0 = they are not
	State                                          []byte // of an instance: its builder's own
	Added, Retired /* commit numbers */, RetiredAt int64  // Retired 0 = live; RetiredAt by the store's clock
}

// BlockQuery chooses blocks of a stream that are not frozen. All that is set must hold.
type BlockQuery struct {
	From, To   int64 // begin time in [From, To)
	Begin, End int64 // under way in [Begin, End], both included: begin time <= End, and end time, or a begin time after it, >= Begin
	Newest     int   // only so many with the latest begin times; 0 = all
}

// AllBlocks chooses all blocks of a stream.
func AllBlocks() BlockQuery {
	return BlockQuery{From: math.MinInt64, To: math.MaxInt64, Begin: math.MinInt64, End: math.MaxInt64}
}

// PartitionDelta is what changed after a commit number.
type PartitionDelta struct {
	// Full says that Added is the whole live set: the reader must drop what it held. So it is for since 0, and for a reader
	// that slept so long that retirements it needs are forgotten.
	Full     bool
	Added    []Partition // live ones only
	Retired  []int64     // part numbers, also of some that the reader never saw
	CommitNo int64
}

// Stats are counts for /status.
type Stats struct {
	Processes, Streams, Blocks int64
	Packs, PackBytes           int64
	Partitions, PartitionRows  int64 // live
	PartitionBytes             int64
	RetiredPartitions          int64
	Skips, Parked, Dead        int64
	Backlog, BacklogFrames     int64 // open ranges, and positions in them
	FrozenFiles, FrozenBlocks  int64 // of the partitions and of Blocks
	TraceIDs, TraceFilters     int64 // in the index of traces
	TraceSince                 int64 // see Catalog.TraceSince
	CommitNo                   int64
}

// TruncateToMicroseconds cuts a time to whole microseconds, towards the past. Registrations and block rows are kept so.
func TruncateToMicroseconds(t int64) int64 {
	r := t % 1000
	if r < 0 {
		r += 1000
	}
	if t < math.MinInt64+r { // the earliest microsecond is not whole
		return t - t%1000
	}
	return t - r
}
