package catalog

import (
	"fmt"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// ProcessReg is a registration of a process.
type ProcessReg struct {
	telemetry.Process
	InsertTime int64
}

// StreamReg is a registration of a stream. The layouts are kept as given in DependenciesCBOR and ObjectsCBOR
// (wire.AppendTypes); Dependencies and Objects of the embedded Stream are not looked at.
type StreamReg struct {
	telemetry.Stream
	DependenciesCBOR, ObjectsCBOR []byte
	InsertTime                    int64
}

// BlockReg is a block to archive.
type BlockReg struct {
	telemetry.Block
	InsertTime             int64
	PackOffset, PackLength int64
	PayloadSize            int64
	// Adopted is 0 for a block in the commit's Pack, and i+1 for the one whose body is the commit's Adopted[i].
	Adopted int32
	// TraceIDs are the trace ids of the block's events, TraceIDBytes each; or TraceFilter is a filter of them. At most one of the two is
	// there, see CheckTraces. They may alias the body.
	TraceIDs, TraceFilter []byte
}

// ArchiveCommit is one step of the owner of a shard: everything from the positions (From, To] of the bus.
type ArchiveCommit struct {
	Shard    ShardID
	From, To uint64 // To > From
	Epoch    int64  // of the owner's lease
	// Pack holds the frames; nil when nothing but the checkpoint moves.
	Pack *Pack
	// Adopted are oversize bodies that became objects before their records came.
	Adopted   []Pack
	Processes []ProcessReg
	Streams   []StreamReg
	Blocks    []BlockReg
	Skips     []Skip
	// Frozen is the version of the frozen files in which the blocks were looked up and not found; 0 = they were not, and no file
	// may be of their times.
	Frozen int64
	// ObjectsSince is when the first object of this commit was put; 0 = not checked.
	ObjectsSince int64
}

// Validate reports a commit that contradicts itself.
func (c *ArchiveCommit) Validate() error {
	if c.To <= c.From {
		return fmt.Errorf("%w: archive of %s from %d to %d", ErrInvalid, c.Shard, c.From, c.To)
	}
	if c.Pack == nil && len(c.Blocks) > 0 {
		return fmt.Errorf("%w: archive of %s: blocks without a pack", ErrInvalid, c.Shard)
	}
	for i := range c.Blocks {
		if a := c.Blocks[i].Adopted; a < 0 || int(a) > len(c.Adopted) {
			return fmt.Errorf("%w: block %s in adopted pack %d of %d", ErrInvalid, c.Blocks[i].ID, a, len(c.Adopted))
		}
		if err := CheckTraces(c.Blocks[i].TraceIDs, c.Blocks[i].TraceFilter); err != nil {
			return fmt.Errorf("block %s: %w", c.Blocks[i].ID, err)
		}
	}
	return checkAge(c.ObjectsSince)
}

// Move is a step of one checkpoint. From = To checks the position without moving it.
type Move struct {
	Shard    ShardID
	From, To uint64
	Epoch    int64
}

// Chunk is a step through a range of the backlog: the positions From to To, both built by this commit. From must be the range's
// FirstSeq, and Epoch that of its last claim.
type Chunk struct {
	RangeNo  int64
	From, To uint64
	Epoch    int64
}

// ViewCommit is one step of a view's owner (with Moves), of a worker on its backlog (with a Chunk), or of a merger (with neither).
type ViewCommit struct {
	Consumer string
	// Guard is the lease by which an instance is built: it must still be that owner's and of that epoch. It may have expired.
	Guard   *Lease
	Moves   []Move
	Added   []Partition
	Retired []int64 // part numbers; each must be live
	// ParkedAdded are copies passed without being built. One that is parked already gets the new Dead and Reason.
	ParkedAdded []Parked
	// ParkedDone are parked copies built now, found by shard, seq and rec; each must be there.
	ParkedDone []Parked
	// Backlog are ranges that the moves pass unbuilt: together they must be the end of the move of their shard.
	Backlog []Backlog
	// Chunk is what a worker has built of a range of the backlog; nil for all others.
	Chunk *Chunk
	// ObjectsSince is when the first object of Added was put; 0 = not checked.
	ObjectsSince int64
}

// Validate reports a commit that contradicts itself.
func (c *ViewCommit) Validate() error {
	for _, m := range c.Moves {
		if m.To < m.From {
			return fmt.Errorf("%w: %s of %s from %d to %d", ErrInvalid, c.Consumer, m.Shard, m.From, m.To)
		}
	}
	if c.Consumer == "" && len(c.Moves)+len(c.ParkedAdded)+len(c.ParkedDone) > 0 || c.Consumer == "" && c.Chunk != nil {
		return fmt.Errorf("%w: view commit without a consumer", ErrInvalid)
	}
	if c.Chunk != nil && (c.Chunk.From == 0 || c.Chunk.To < c.Chunk.From) {
		return fmt.Errorf("%w: chunk %d to %d of backlog range %d", ErrInvalid, c.Chunk.From, c.Chunk.To, c.Chunk.RangeNo)
	}
	if err := c.validateBacklog(); err != nil {
		return err
	}
	for i := range c.Added {
		p := &c.Added[i]
		if p.View == "" || p.Key == "" || p.MaxTime < p.MinTime || p.Rows < 0 {
			return fmt.Errorf("%w: partition %q of view %q, times %d to %d, %d rows", ErrInvalid, p.Key, p.View, p.MinTime, p.MaxTime, p.Rows)
		}
		if len(p.Procs) != 0 && len(p.Procs) != ProcessBitmapBytes {
			return fmt.Errorf("%w: partition %q with a bitmap of %d bytes", ErrInvalid, p.Key, len(p.Procs))
		}
		if len(p.State) > MaxStateBytes {
			return fmt.Errorf("%w: partition %q with a state of %d bytes", ErrInvalid, p.Key, len(p.State))
		}
	}
	return checkAge(c.ObjectsSince)
}

// validateBacklog checks that the new ranges of each shard follow each other and end where the shard's move ends: no position may
// be passed twice, or be lost between them.
func (c *ViewCommit) validateBacklog() error {
	next := map[ShardID]uint64{}
	for i := range c.Backlog {
		b := &c.Backlog[i]
		if want, ok := next[b.Shard]; b.FirstSeq == 0 || b.LastSeq < b.FirstSeq || ok && b.FirstSeq != want {
			return fmt.Errorf("%w: backlog of %s from %d to %d", ErrInvalid, b.Shard, b.FirstSeq, b.LastSeq)
		}
		move := slices.IndexFunc(c.Moves, func(m Move) bool { return m.Shard == b.Shard })
		if move < 0 || b.FirstSeq <= c.Moves[move].From {
			return fmt.Errorf("%w: backlog of %s from %d, which no move passes", ErrInvalid, b.Shard, b.FirstSeq)
		}
		next[b.Shard] = b.LastSeq + 1
	}
	for _, m := range c.Moves {
		if end, ok := next[m.Shard]; ok && end != m.To+1 {
			return fmt.Errorf("%w: backlog of %s up to %d, move to %d", ErrInvalid, m.Shard, end-1, m.To)
		}
	}
	return nil
}

func checkAge(since int64) error {
	if since != 0 && time.Now().UnixNano()-since > int64(MaxObjectAge) {
		return fmt.Errorf("%w: first put %s ago", ErrObjectsTooOld, time.Duration(time.Now().UnixNano()-since))
	}
	return nil
}
