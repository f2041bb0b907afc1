package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// contents is what a batch of frames says, as a commit, and where in the frames it says it.
type contents struct {
	catalog.ArchiveCommit
	places []place // of the blocks, in the same order
	dead   []bus.DeadLetter

	unindexed int64 // blocks whose trace ids are damaged
}

// place is where a block's copy lies.
type place struct {
	frame  int // index in the batch
	seq    uint64
	rec    int32
	offset int // of the body in the frame; -1 = adopted
}

// view is the name under which archive reports what it cannot read.
const view = "archive"

// read decodes the batch's records. What cannot be decoded, and every copy of a block but the first, becomes a skip. Only
// trouble of the lake with claimed bodies is an error.
func (o *owner) read(ctx context.Context) (*contents, error) {
	b := &o.batch
	c := &contents{ArchiveCommit: catalog.ArchiveCommit{Shard: shardID(o.name, b.from.Gen), From: b.from.Seq, To: b.to.Seq, Epoch: o.epoch}}
	seen := map[catalog.BlockKey]bool{}
	for i := range b.frames {
		f := &b.frames[i]
		for rec, r := range f.Records() {
			body := r.Body
			err := r.Err
			if err == nil && r.Claim != "" {
				body, err = o.claimed(ctx, &r)
			}
			if err == nil {
				err = o.record(c, seen, &r, body, place{frame: i, seq: f.Seq, rec: int32(rec), offset: r.Offset})
			}
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return nil, err
			default:
				c.bury(&r, bus.Copy{Position: f.Position, Rec: int32(rec)}, err)
			}
		}
	}
	return c, nil
}

// claimed loads an oversize body. It returns an error only for a body that is gone or damaged, or when ctx is done.
func (o *owner) claimed(ctx context.Context, r *bus.Record) (body []byte, err error) {
	var gone error
	err = o.untilDone(ctx, "load claimed body", func() error {
		body, err = o.bus.LoadBody(ctx, r)
		if errors.Is(err, lake.ErrNotFound) || errors.Is(err, bus.ErrUnreadable) {
			gone = err
			return nil
		}
		return err
	})
	return body, errors.Join(err, gone)
}

// record adds one record to the commit. Its error says what is wrong with the record.
func (o *owner) record(c *contents, seen map[catalog.BlockKey]bool, r *bus.Record, body []byte, at place) error {
	insertTime := microseconds(r.InsertTimeUs)
	switch r.Kind {
	case bus.KindProcess:
		p, err := wire.DecodeProcess(body)
		if err == nil && p.ID != r.ProcessID {
			err = fmt.Errorf("the body is process %s, its record says %s", p.ID, r.ProcessID)
		}
		if err != nil {
			return err
		}
		c.Processes = append(c.Processes, catalog.ProcessReg{Process: p, InsertTime: insertTime})
		return nil
	case bus.KindStream:
		s, err := o.stream(r, body)
		if err != nil {
			return err
		}
		s.InsertTime = insertTime
		c.Streams = append(c.Streams, s)
		return nil
	case bus.KindBlock:
		return c.block(seen, r, body, at, insertTime)
	}
	return fmt.Errorf("a record of kind %s", r.Kind)
}

func (o *owner) stream(r *bus.Record, body []byte) (catalog.StreamReg, error) {
	s, err := wire.DecodeStream(body)
	if err == nil && (s.ID != r.StreamID || s.ProcessID != r.ProcessID) {
		err = fmt.Errorf("the body is stream %s of process %s, its record says %s of %s", s.ID, s.ProcessID, r.StreamID, r.ProcessID)
	}
	if err != nil {
		return catalog.StreamReg{}, err
	}
	reg := catalog.StreamReg{Stream: s, DependenciesCBOR: wire.AppendTypes(nil, s.Dependencies), ObjectsCBOR: wire.AppendTypes(nil, s.Objects)}
	if n := len(reg.DependenciesCBOR) + len(reg.ObjectsCBOR); n > o.cfg.MaxLayout {
		return catalog.StreamReg{}, fmt.Errorf("layouts of %d bytes, at most %d are kept", n, o.cfg.MaxLayout)
	}
	return reg, nil
}

func (c *contents) block(seen map[catalog.BlockKey]bool, r *bus.Record, body []byte, at place, insertTime int64) error {
	b, payload, err := wire.DecodeBlockEnvelope(body)
	if err == nil && (b.ID != r.BlockID || b.StreamID != r.StreamID || b.ProcessID != r.ProcessID) {
		err = fmt.Errorf("the body is block %s of stream %s of process %s, its record says %s of %s of %s",
			b.ID, b.StreamID, b.ProcessID, r.BlockID, r.StreamID, r.ProcessID)
	}
	if err != nil {
		return err
	}
	reg := catalog.BlockReg{Block: b, InsertTime: insertTime, PackLength: int64(len(body)), PayloadSize: int64(payload)}
	key := blockKey(&reg)
	if seen[key] {
		c.Skips = append(c.Skips, catalog.Skip{Seq: at.seq, Rec: at.rec, Reason: catalog.SkipDuplicate})
		return nil
	}
	seen[key] = true
	if r.Claim != "" {
		at.offset = -1
		c.Adopted = append(c.Adopted, catalog.Pack{Shard: c.Shard, FirstSeq: at.seq, LastSeq: at.seq, Key: r.Claim, Size: r.BodySize, Created: insertTime, Adopted: true})
		reg.Adopted = int32(len(c.Adopted))
	}
	c.traces(&reg, r, body)
	c.Blocks = append(c.Blocks, reg)
	c.places = append(c.places, at)
	return nil
}

// traces takes the trace ids that a block's envelope names. They are no part of what was measured, so a block with damaged ones counts like
// others, and only is in no index. A block may be of any kind whose gateway had not heard of its stream.
func (c *contents) traces(reg *catalog.BlockReg, r *bus.Record, body []byte) {
	if r.Tag != telemetry.TagCPU && r.Tag != telemetry.TagLog && r.Tag != telemetry.TagUnknown {
		return
	}
	set, err := wire.DecodeBlockTraces(body)
	if err == nil {
		err = catalog.CheckTraces(set.IDs, set.Filter)
	}
	if err != nil {
		c.unindexed++
		return
	}
	if r.Claim != "" { // do not keep the whole body for them
		set.IDs, set.Filter = bytes.Clone(set.IDs), bytes.Clone(set.Filter)
	}
	reg.TraceIDs, reg.TraceFilter = set.IDs, set.Filter
}

// bury makes a skip and a dead letter of a record.
func (c *contents) bury(r *bus.Record, at bus.Copy, reason error) {
	c.Skips = append(c.Skips, catalog.Skip{Seq: at.Seq, Rec: at.Rec, Reason: catalog.SkipUnreadable})
	c.dead = append(c.dead, bus.DeadLetter{
		Copy: at, BlockID: r.BlockID, StreamID: r.StreamID, ProcessID: r.ProcessID, View: view,
		Reason: fmt.Sprintf("unreadable %s: %v", r.Kind, reason),
	})
}

// point makes the blocks point into a pack, whose frames lie at the given offsets.
func (c *contents) point(pack *catalog.Pack, offsets []int64, begun int64) {
	c.Pack, c.ObjectsSince = pack, begun
	for i, p := range c.places {
		if p.offset >= 0 {
			c.Blocks[i].PackOffset = offsets[p.frame] + int64(p.offset)
		}
	}
}

// keys are the keys of the commit's blocks, in order.
func (c *contents) keys() []catalog.BlockKey {
	keys := make([]catalog.BlockKey, len(c.Blocks))
	for i := range c.Blocks {
		keys[i] = blockKey(&c.Blocks[i])
	}
	return keys
}

// dropExisting puts skips in place of the blocks that exist, and forgets adopted bodies that no block is in any more.
func (c *contents) dropExisting(exist []bool) {
	blocks, places, adopted := c.Blocks[:0], c.places[:0], c.Adopted[:0] // filled no faster than read
	for i, b := range c.Blocks {
		at := c.places[i]
		if exist[i] {
			c.Skips = append(c.Skips, catalog.Skip{Seq: at.seq, Rec: at.rec, Reason: catalog.SkipDuplicate})
			continue
		}
		if b.Adopted > 0 {
			adopted = append(adopted, c.Adopted[b.Adopted-1])
			b.Adopted = int32(len(adopted))
		}
		blocks, places = append(blocks, b), append(places, at)
	}
	c.Blocks, c.places, c.Adopted = blocks, places, adopted
}

// blockKey is the key as the catalog compares it.
func blockKey(b *catalog.BlockReg) catalog.BlockKey {
	return catalog.BlockKey{StreamID: b.StreamID, BeginTime: catalog.TruncateToMicroseconds(b.BeginTime), BlockID: b.ID}
}

// microseconds returns nanoseconds; a stamp outside their range is damage that a CRC cannot show, and is clamped.
func microseconds(us int64) int64 {
	const limit = (1<<63 - 1) / 1000
	return max(-limit, min(us, limit)) * 1000
}
