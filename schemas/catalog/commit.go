package catalog

import (
	"fmt"
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
	}
	return checkAge(c.ObjectsSince)
}

// Move is a step of one checkpoint. From = To checks the position without moving it.
type Move struct {
	Shard    ShardID
	From, To uint64
	Epoch    int64
}

// ViewCommit is one step of a view's owner (with Moves) or of a builder or merger (without).
type ViewCommit struct {
	Consumer string
	Moves    []Move
	Added    []Partition
	Retired  []int64 // part numbers; each must be live
	// ParkedAdded are copies passed without being built. One that is parked already gets the new Dead and Reason.
	ParkedAdded []Parked
	// ParkedDone are parked copies built now, found by shard, seq and rec; each must be there.
	ParkedDone []Parked
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
	if c.Consumer == "" && len(c.Moves)+len(c.ParkedAdded)+len(c.ParkedDone) > 0 {
		return fmt.Errorf("%w: view commit without a consumer", ErrInvalid)
	}
	for i := range c.Added {
		p := &c.Added[i]
		if p.View == "" || p.Key == "" || p.MaxTime < p.MinTime || p.Rows < 0 {
			return fmt.Errorf("%w: partition %q of view %q, times %d to %d, %d rows", ErrInvalid, p.Key, p.View, p.MinTime, p.MaxTime, p.Rows)
		}
		if len(p.Procs) != 0 && len(p.Procs) != ProcessBitmapBytes {
			return fmt.Errorf("%w: partition %q with a bitmap of %d bytes", ErrInvalid, p.Key, len(p.Procs))
		}
	}
	return checkAge(c.ObjectsSince)
}

func checkAge(since int64) error {
	if since != 0 && time.Now().UnixNano()-since > int64(MaxObjectAge) {
		return fmt.Errorf("%w: first put %s ago", ErrObjectsTooOld, time.Duration(time.Now().UnixNano()-since))
	}
	return nil
}
