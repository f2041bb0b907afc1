package bus

import (
	"context"
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Class separates what views read as it arrives from what is only archived.
type Class byte

// The classes, by the letter that stands for them in catalog rows and keys.
const (
	Eager Class = 'e'
	Raw   Class = 'r'
)

// classes lists every class in the order in which Shards reports them.
var classes = [...]Class{Eager, Raw}

// String returns the class as it stands in subjects.
func (c Class) String() string {
	switch c {
	case Eager:
		return "eager"
	case Raw:
		return "raw"
	}
	return fmt.Sprintf("class(%d)", byte(c))
}

// Kind says what a record's body is.
type Kind uint8

// The three bodies that clients post.
const (
	KindProcess Kind = 1
	KindStream  Kind = 2
	KindBlock   Kind = 3
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindProcess:
		return "process"
	case KindStream:
		return "stream"
	case KindBlock:
		return "block"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Record is one body that a client posted, with what the gateway read from its envelope.
type Record struct {
	Kind         Kind
	Tag          telemetry.Tag // of the block's stream; TagUnknown for registrations and where it is not known
	InsertTimeUs int64         // the gateway's stamp, microseconds since the Unix epoch
	ProcessID    telemetry.ID
	StreamID     telemetry.ID // zero for a process
	BlockID      telemetry.ID // zero for registrations
	BeginTime    int64        // of a block's events, nanoseconds; zero for registrations
	EndTime      int64

	// Body is what the client sent. Read records alias Frame.Data. It is empty when Claim is set.
	Body []byte
	// Claim is the object store's key of a body that was too large for a frame; see Bus.LoadBody.
	Claim    string
	BodySize int64  // of the whole body, also of a claimed one; set by Publish
	CRC      uint32 // CRC-32C of the whole body; set by Publish

	// Offset is where Body begins in Frame.Data. Set on read records only.
	Offset int
	// Err says why a read record is not usable: it matches ErrUnreadable. When only the body is damaged, the other
	// fields stand; otherwise all are zero.
	Err error
}

// Shard names one stream of messages.
type Shard struct {
	Class Class
	Shard int32
}

// String returns the shard as logs and lease names have it, for example "eager/0".
func (s Shard) String() string { return fmt.Sprintf("%s/%d", s.Class, s.Shard) }

// subject is where the shard's frames are published.
func (s Shard) subject() string { return fmt.Sprintf("blocks.%s.%d", s.Class, s.Shard) }

// stream is the name of the shard's JetStream stream.
func (s Shard) stream() string { return fmt.Sprintf("blocks-%s-%d", s.Class, s.Shard) }

// Position is a frame's place on the bus, for good.
type Position struct {
	Shard
	Gen int32
	Seq uint64
}

// String returns the position as logs have it, for example "eager/0@1:42".
func (p Position) String() string { return fmt.Sprintf("%s@%d:%d", p.Shard, p.Gen, p.Seq) }

// Copy is one record's place: a block that was posted twice has two.
type Copy struct {
	Position
	Rec int32 // index of the record in its frame
}

// Generation is one life of a shard's stream.
type Generation struct {
	Shard
	Gen      int32
	Stream   string
	Created  int64  // when JetStream made the stream, nanoseconds: tells one life from the next
	FirstSeq uint64 // no frame of this generation is below; above every sequence of the generation before
}

// GenerationStore remembers generations (the catalog does).
type GenerationStore interface {
	// Generations must return every generation ever opened, in any order.
	Generations(ctx context.Context) ([]Generation, error)
	// OpenGeneration must remember g durably. The same generation again must succeed; a different one under the same
	// shard and number must be refused, so that two processes which open at once agree.
	OpenGeneration(ctx context.Context, g Generation) error
	// ArchiveSeq must return the sequence up to which that generation's frames are archived, 0 when none is.
	ArchiveSeq(ctx context.Context, s Shard, gen int32) (uint64, error)
}

// ObjectStore keeps bodies that are too large for a frame (the lake does).
type ObjectStore interface {
	// Put must be durable when it returns and must not keep data.
	Put(ctx context.Context, key string, data []byte) error
	Get(ctx context.Context, key string) ([]byte, error)
}

// PackSource gives archived frames back (the lake does).
type PackSource interface {
	// NextFrames must return the frames of the first archived pack that holds a sequence above after.Seq in after's
	// shard and generation, in order (frames at or below after.Seq may be among them), and nil when there is none.
	NextFrames(ctx context.Context, after Position) ([]Frame, error)
}

// ClaimPrefix begins the object store's keys of claimed bodies.
const ClaimPrefix = "claims/"

// ClaimKey returns the object store's key of a claimed body. Each publication has an id of its own, so a retry or a
// forged repetition never overwrites what an earlier record points to.
func ClaimKey(id telemetry.ID) string { return ClaimPrefix + id.String() }
