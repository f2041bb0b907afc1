package justintime

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// build builds the slices that are stale, in order. While one is written and committed the blocks of the next are decoded. Each commit
// stands for itself: work that ends in the middle goes on from there when it is asked for again.
func (s *Service) build(ctx context.Context, p *plan, lease catalog.Lease, progress func(bus.MaterializeProgress)) error {
	if len(p.slices) == 0 {
		return nil
	}
	tell := newTeller(p.staleBlocks(), progress)
	defer tell.stop()
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(1) // the writer
	e, err := s.enter(work, p, tell)
	for i := 0; err == nil && i < len(p.slices); i++ {
		c := p.slices[i]
		if p.isFresh(c, e) {
			e = c.kept.leaves()
			continue
		}
		var made *made
		if made, err = s.make(work, p, c, e, tell); err != nil {
			break
		}
		e = made.stored.leaves()
		g.Go(func() error { return s.finish(work, p, c, made, lease) })
	}
	// What the writer failed with is why the rest was cut off.
	if werr := g.Wait(); werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	if err != nil {
		return err
	}
	return s.dropExtra(ctx, p, lease)
}

// enter returns upon what the first slice is built: if the partition before is not there, what the blocks before would leave.
func (s *Service) enter(ctx context.Context, p *plan, tell *teller) (entry, error) {
	e := p.entry
	if e.ready || !p.view.Chained || p.isFresh(p.slices[0], e) {
		return e, nil
	}
	tell.more(int64(len(p.before)))
	rows := columnar.NewRows(p.view.Table)
	b, err := p.view.Begin(rows, &p.in.Instance, nil)
	if err != nil {
		return e, broken(err)
	}
	if err := s.addAll(ctx, p, b, p.before, tell, func(*QuarantineError) {}); err != nil {
		return e, err
	}
	left, err := b.End()
	e.carry, e.ready = left.Carry, true
	return e, broken(err)
}

// addAll gives blocks to a builder. left is called with the reason of each that is left out.
func (s *Service) addAll(ctx context.Context, p *plan, b Builder, blocks []catalog.BlockRow, tell *teller, left func(*QuarantineError)) error {
	return s.decode(ctx, p, blocks, func(j *job) error {
		err := j.err
		if err == nil {
			err = b.Add(&j.block, j.decoded)
		}
		tell.done.Add(1)
		if q, ok := errors.AsType[*QuarantineError](err); ok {
			left(q)
			return nil
		}
		return err
	})
}

// made is a partition on its way into the catalog.
type made struct {
	rows    *columnar.Rows
	leaving Leaving
	stored  stored
	part    catalog.Partition
}

// make decodes the blocks of a slice and makes its rows.
func (s *Service) make(ctx context.Context, p *plan, c *slice, e entry, tell *teller) (*made, error) {
	m := &made{rows: columnar.NewRows(p.view.Table)}
	b, err := p.view.Begin(m.rows, &p.in.Instance, e.carry)
	if err != nil {
		return nil, broken(err)
	}
	err = s.addAll(ctx, p, b, c.blocks, tell, func(q *QuarantineError) { m.quarantine(s, p, q) })
	if err != nil {
		return nil, err
	}
	if m.leaving, err = b.End(); err != nil {
		return nil, fmt.Errorf("end partition of %s: %w", p.view.Table.Name, broken(err))
	}
	l := &m.leaving
	key := l.Key
	if key == nil {
		key = l.Carry
	}
	sum := sha256.Sum256(key)
	m.stored.Entry, m.stored.Key, m.stored.Carry, m.stored.Note, m.stored.Open = e.name, hexHash(sum[:]), l.Carry, l.Note, int64(l.Open)
	if p.view.Clock == ProcessClock && p.in.process.TSCFrequency <= 0 {
		m.stored.ClockTicks, m.stored.ClockTime = p.in.process.LastTicks, p.in.process.LastTicksTime
	}
	return m, nil
}

// quarantine notes a block that is left out.
func (m *made) quarantine(s *Service, p *plan, q *QuarantineError) {
	s.stats.quarantined.Add(1)
	s.log.Warn("block left out of a view", "view", p.view.Table.Name, "block", q.Block.String(), "reason", q.Reason)
	if len(m.stored.Quarantined) == maxQuarantined {
		m.stored.Hidden++
		return
	}
	m.stored.Quarantined = append(m.stored.Quarantined, quarantined{q.Block.String(), q.Reason})
}

// finish writes the file of a slice and commits its partition.
func (s *Service) finish(ctx context.Context, p *plan, c *slice, m *made, lease catalog.Lease) error {
	begun := time.Now()
	data, err := s.encode(p, c, m)
	if err != nil {
		return broken(err)
	}
	if err := s.step("before put"); err != nil {
		return err
	}
	if len(data) > 0 {
		if err := s.parts.Objects.Put(ctx, m.part.Key, data); err != nil {
			return fmt.Errorf("put %s: %w", m.part.Key, err)
		}
	}
	if err := s.step("before commit"); err != nil {
		return err
	}
	commit := &catalog.ViewCommit{Added: []catalog.Partition{m.part}, Guard: &lease, ObjectsSince: begun.UnixNano()}
	if c.have != nil {
		commit.Retired = []int64{c.have.PartNo}
	}
	if _, err := s.parts.Catalog.CommitView(ctx, commit); err != nil {
		return fmt.Errorf("commit a partition of %s: %w", p.view.Table.Name, err)
	}
	if err := s.step("after commit"); err != nil {
		return err
	}
	s.stats.partitions.Add(1)
	s.stats.rows.Add(int64(m.rows.Len()))
	part := m.part // not a pointer into m, which has the rows
	c.have, c.kept, c.same = &part, m.stored, true
	return nil
}

// encode makes the file and the catalog's row of a slice. There is no file of no rows.
func (s *Service) encode(p *plan, c *slice, m *made) ([]byte, error) {
	t := p.view.Table
	data, err := s.encodeRows(t, m)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", t.Name, err)
	}
	part := &m.part
	*part = catalog.Partition{
		View: t.Name, Instance: p.in.no, Level: c.no, Bucket: c.hour, SchemaVer: schemaVersion, Sort: partitionSort,
		Rows: int64(m.rows.Len() + m.leaving.Open), Key: lake.ViewKey(t.Name, c.hour, data), Size: int64(len(data)), SrcHash: c.hash,
		Objects: c.objects, MaxSortKey: m.leaving.LastKey,
		MinInsert: math.MaxInt64, MaxInsert: math.MinInt64,
	}
	part.MinTime, part.MaxTime = m.bounds(t.Index(t.Range.Begin), t.Index(t.Range.End), c)
	for i := range c.blocks {
		part.MinInsert, part.MaxInsert = min(part.MinInsert, c.blocks[i].InsertTime), max(part.MaxInsert, c.blocks[i].InsertTime)
	}
	if part.State, err = json.Marshal(&m.stored); err != nil {
		return nil, fmt.Errorf("state of a partition of %s: %w", t.Name, err)
	}
	return data, nil
}

// encodeRows makes the file of a slice's rows, nil when there are none.
func (s *Service) encodeRows(t *tables.Table, m *made) ([]byte, error) {
	if m.rows.Len() == 0 {
		return nil, nil
	}
	w, err := columnar.NewWriter(t)
	if err != nil {
		return nil, err
	}
	sel := m.leaving.Order
	if sel == nil {
		sel = make([]int32, m.rows.Len())
		for i := range sel {
			sel[i] = int32(i)
		}
	}
	for group := range slices.Chunk(sel, s.cfg.RowGroupRows) {
		if err := w.WriteRowGroup(m.rows, group); err != nil {
			return nil, err
		}
	}
	return w.Finish()
}

// bounds returns the times of the rows, or of the blocks when there are no rows.
func (m *made) bounds(begin, end int, c *slice) (least, greatest int64) {
	if m.rows.Len() > 0 {
		least = slices.Min(m.rows.Columns[begin].Ints)
		return least, max(least, slices.Max(m.rows.Columns[end].Ints)) // a producer may say that something ended before it began
	}
	least, greatest = c.blocks[0].BeginTime, c.blocks[0].BeginTime
	for i := range c.blocks {
		least, greatest = min(least, c.blocks[i].BeginTime), max(greatest, c.blocks[i].EndTime)
	}
	return least, greatest
}

// dropExtra retires the partitions of slices that are not there any more.
func (s *Service) dropExtra(ctx context.Context, p *plan, lease catalog.Lease) error {
	if len(p.extra) == 0 {
		return nil
	}
	commit := &catalog.ViewCommit{Guard: &lease}
	for i := range p.extra {
		commit.Retired = append(commit.Retired, p.extra[i].PartNo)
	}
	if _, err := s.parts.Catalog.CommitView(ctx, commit); err != nil {
		return fmt.Errorf("retire partitions of %s: %w", p.view.Table.Name, err)
	}
	p.extra = nil
	return nil
}

// teller reports progress.
type teller struct {
	total, done atomic.Int64
	quit        chan struct{}
	ended       chan struct{}
}

// tellEvery is how often progress is reported.
const tellEvery = 250 * time.Millisecond

func newTeller(total int64, progress func(bus.MaterializeProgress)) *teller {
	t := &teller{quit: make(chan struct{}), ended: make(chan struct{})}
	t.total.Store(total)
	go func() {
		defer close(t.ended)
		ticker := time.NewTicker(tellEvery)
		defer ticker.Stop()
		for {
			select {
			case <-t.quit:
				return
			case <-ticker.C:
				done := t.done.Load()
				progress(bus.MaterializeProgress{Blocks: max(done, t.total.Load()), Done: done})
			}
		}
	}()
	return t
}

func (t *teller) more(n int64) { t.total.Add(n) }

func (t *teller) stop() {
	close(t.quit)
	<-t.ended
}
