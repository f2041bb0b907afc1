package lake

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// PackCatalog is the part of the catalog that Packs needs.
type PackCatalog interface {
	// PacksAfter must return packs whose last sequence number is above seq, in order, without adopted bodies.
	PacksAfter(ctx context.Context, s catalog.ShardID, seq uint64, limit int) ([]catalog.Pack, error)
}

// DefaultPackCacheBytes bounds the packs that Packs keeps in memory: 16 packs of 4 MiB, so that readers of one shard
// that follow each other closely read each pack once.
const DefaultPackCacheBytes = 64 << 20

// Packs gives archived frames back to readers of the bus. The zero value of what is not exported is ready to use; it is safe
// for concurrent use and must not be copied.
type Packs struct {
	Lake    *Lake
	Catalog PackCatalog
	// CacheBytes bounds the packs kept in memory; 0 means DefaultPackCacheBytes, negative keeps none.
	CacheBytes int64

	mu    sync.Mutex
	byKey map[string]*list.Element // of *packRead
	order *list.List               // most recently used first
	bytes int64
}

var _ bus.PackSource = (*Packs)(nil)

// packRead is one pack, being read or read.
type packRead struct {
	pack   catalog.Pack
	done   chan struct{}
	frames []bus.Frame // set before done is closed
	err    error
}

// NextFrames returns the frames above after.Seq of the first pack that has one, nil when no pack has. The frames are
// shared: nobody may change their bytes.
func (p *Packs) NextFrames(ctx context.Context, after bus.Position) ([]bus.Frame, error) {
	packs, err := p.Catalog.PacksAfter(ctx, shardOf(after), after.Seq, 1)
	if err != nil {
		return nil, fmt.Errorf("packs after %s: %w", after, err)
	}
	if len(packs) == 0 {
		return nil, nil
	}
	frames, err := p.read(ctx, packs[0])
	if err != nil {
		return nil, fmt.Errorf("frames after %s: %w", after, err)
	}
	for i := range frames {
		if frames[i].Seq > after.Seq {
			return frames[i:], nil
		}
	}
	return nil, nil // not reached: the pack was checked against its row
}

func (p *Packs) read(ctx context.Context, pack catalog.Pack) ([]bus.Frame, error) {
	r, mine := p.join(pack)
	if mine {
		// Others wait for this read, so it outlives the caller that began it.
		go p.fill(context.WithoutCancel(ctx), r)
	}
	select {
	case <-r.done:
		return r.frames, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns the read of a pack, and whether the caller must fill it.
func (p *Packs) join(pack catalog.Pack) (*packRead, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byKey == nil {
		p.byKey, p.order = map[string]*list.Element{}, list.New()
	}
	if e, ok := p.byKey[pack.Key]; ok {
		p.order.MoveToFront(e)
		return e.Value.(*packRead), false
	}
	r := &packRead{pack: pack, done: make(chan struct{})}
	p.byKey[pack.Key] = p.order.PushFront(r)
	p.bytes += pack.Size
	return r, true
}

func (p *Packs) fill(ctx context.Context, r *packRead) {
	r.frames, r.err = p.Lake.ReadPack(ctx, r.pack.Key)
	if r.err == nil {
		r.err = checkRow(r.pack, r.frames)
	}
	close(r.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.err != nil { // not kept: the next reader tries again
		p.drop(p.byKey[r.pack.Key])
	}
	limit := p.CacheBytes
	if limit == 0 {
		limit = DefaultPackCacheBytes
	}
	for e := p.order.Back(); e != nil && p.bytes > limit; {
		prev := e.Prev()
		select {
		case <-e.Value.(*packRead).done:
			p.drop(e)
		default: // being read; its own end comes here again
		}
		e = prev
	}
}

// drop forgets a read. The caller holds mu.
func (p *Packs) drop(e *list.Element) {
	if e == nil {
		return
	}
	r := p.order.Remove(e).(*packRead)
	delete(p.byKey, r.pack.Key)
	p.bytes -= r.pack.Size
}

// checkRow compares a pack's frames with its row: a row must never lead to another pack's frames.
func checkRow(row catalog.Pack, frames []bus.Frame) error {
	first, last := frames[0].Position, frames[len(frames)-1].Position
	if shardOf(first) != row.Shard || first.Seq != row.FirstSeq || last.Seq != row.LastSeq {
		return fmt.Errorf("%w: pack %s holds %s to %d, its row says %s:%d to %d", ErrCorrupt, row.Key, first, last.Seq, row.Shard, row.FirstSeq, row.LastSeq)
	}
	return nil
}
