package materializers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Merging. Commits leave small files. The merger keeps few: in each bucket of each table it merges files of one level as soon as there
// are MergeFiles of them, into one of the next level, so a row is rewritten once a level: log_8(files) times. When a bucket is over,
// it merges what is left into as few files as MergeBytes allows, but never a file twice as large as all that would join it,
// so that late rows do not rewrite a bucket again and again.

// group is the live files of one bucket of one table.
type group struct {
	view   string
	bucket int64
}

// merger follows the live partitions of the eager tables.
type merger struct {
	m        *Materializers
	tables   map[string]tableFiles
	orders   map[string]columnar.Order
	commitNo int64
	groups   map[group]map[int64]catalog.Partition
	byNo     map[int64]group
}

// merge runs while this process holds the merger's lease. Correctness does not depend on the lease: a commit that retires a file
// which is not live any more fails.
func (m *Materializers) merge(ctx context.Context, _ catalog.Lease) error {
	g := &merger{m: m, tables: map[string]tableFiles{}, orders: map[string]columnar.Order{}}
	add := func(t *tables.Table, o columnar.Order) error {
		files, err := newTableFiles(t, o)
		g.tables[t.Name], g.orders[t.Name] = files, o
		return err
	}
	for _, v := range m.views {
		if err := add(v.Table, v.Order); err != nil {
			return err
		}
		for _, d := range v.Derived {
			if err := add(d.Table, d.Order); err != nil {
				return err
			}
		}
	}
	g.clear()
	for ctx.Err() == nil {
		if err := g.round(ctx); err != nil {
			if ctx.Err() != nil {
				break
			}
			m.stats.update(func(s *Stats) { s.MergeFailures++ })
			return err
		}
		timer := time.NewTimer(m.cfg.MergeEvery)
		select {
		case <-ctx.Done():
		case <-m.nudge:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

func (g *merger) clear() {
	g.groups, g.byNo = map[group]map[int64]catalog.Partition{}, map[int64]group{}
}

// round catches up with the catalog and does all merges that are due.
func (g *merger) round(ctx context.Context) error {
	for {
		if err := g.follow(ctx); err != nil {
			return err
		}
		merged := false
		for key, files := range g.groups {
			inputs := g.choose(key, files, time.Now())
			if len(inputs) < 2 {
				continue
			}
			err := g.mergeFiles(ctx, key, inputs)
			if errors.Is(err, catalog.ErrStale) {
				g.m.log.Info("files to merge were retired by another", "view", key.view, "bucket", key.bucket)
				g.commitNo = 0
				g.clear()
				break
			}
			if err != nil {
				return fmt.Errorf("merge %d files of %s: %w", len(inputs), key.view, err)
			}
			merged = true
		}
		if !merged {
			return nil
		}
	}
}

// follow takes over what changed in the catalog.
func (g *merger) follow(ctx context.Context) error {
	delta, err := g.m.catalog.Partitions(ctx, g.commitNo)
	if err != nil {
		return fmt.Errorf("read partitions: %w", err)
	}
	if delta.Full {
		g.clear()
	}
	for _, no := range delta.Retired {
		g.remove(no)
	}
	for _, p := range delta.Added {
		if _, ok := g.tables[p.View]; !ok || p.Instance != 0 {
			continue
		}
		key := group{p.View, p.Bucket}
		if g.groups[key] == nil {
			g.groups[key] = map[int64]catalog.Partition{}
		}
		g.groups[key][p.PartNo] = p
		g.byNo[p.PartNo] = key
	}
	g.commitNo = delta.CommitNo
	return nil
}

func (g *merger) remove(no int64) {
	key, ok := g.byNo[no]
	if !ok {
		return
	}
	delete(g.byNo, no)
	delete(g.groups[key], no)
	if len(g.groups[key]) == 0 {
		delete(g.groups, key)
	}
}

// dominant: a file with this many times the rows of all smaller ones together is left alone. So a bucket that late rows keep
// trickling into grows by half with each rewrite, and keeps a handful of files.
const dominant = 2

// choose returns the files of a bucket that are to be merged now.
func (g *merger) choose(key group, files map[int64]catalog.Partition, now time.Time) []catalog.Partition {
	if len(files) < 2 {
		return nil
	}
	small := make([]catalog.Partition, 0, len(files))
	levels := map[int16]int{}
	for _, p := range files {
		if p.Size < g.m.cfg.MergeBytes {
			small = append(small, p)
			levels[p.Level]++
		}
	}
	for level, n := range levels {
		if n >= g.m.cfg.MergeFiles {
			same := slices.DeleteFunc(small, func(p catalog.Partition) bool { return p.Level != level })
			return g.bounded(same)
		}
	}
	if !g.closed(key, small, now) {
		return nil
	}
	bySize(small)
	var sum int64
	n := 0
	for i, p := range small {
		if p.Rows <= dominant*sum {
			n = i + 1
		}
		sum += p.Rows
	}
	return g.bounded(small[:n])
}

// bySize orders files by rows.
func bySize(files []catalog.Partition) {
	slices.SortFunc(files, func(a, b catalog.Partition) int {
		return cmp.Or(cmp.Compare(a.Rows, b.Rows), cmp.Compare(a.PartNo, b.PartNo))
	})
}

// closed reports whether no more files of a bucket are expected: its time and the grace are over, and the newest file is that old.
func (g *merger) closed(key group, files []catalog.Partition, now time.Time) bool {
	grace := g.m.cfg.MergeGrace
	if key.bucket != OverflowBucket && now.Before(time.Unix(0, key.bucket).Add(BucketLength+grace)) {
		return false
	}
	for _, p := range files {
		if now.UnixNano()-p.MaxInsert < int64(grace) {
			return false
		}
	}
	return true
}

// bounded cuts a list of inputs so that they are held in memory: at most MergeFiles files, of together 2 MergeBytes.
func (g *merger) bounded(files []catalog.Partition) []catalog.Partition {
	slices.SortFunc(files, func(a, b catalog.Partition) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.PartNo, b.PartNo))
	})
	var sum int64
	for i, p := range files {
		sum += p.Size
		if i >= g.m.cfg.MergeFiles || sum > 2*g.m.cfg.MergeBytes {
			return files[:i]
		}
	}
	return files
}

// mergeFiles replaces files by what they hold, merged.
func (g *merger) mergeFiles(ctx context.Context, key group, inputs []catalog.Partition) error {
	begun := time.Now()
	// In order of time, so that rows with equal keys stay in order of arrival.
	slices.SortFunc(inputs, func(a, b catalog.Partition) int { return cmp.Compare(a.PartNo, b.PartNo) })
	outputs, err := g.rewrite(ctx, key, inputs)
	if err != nil {
		return err
	}
	if err := g.m.step("merge before commit"); err != nil {
		return err
	}
	c := &catalog.ViewCommit{Consumer: catalog.ConsumerViews, ObjectsSince: begun.UnixNano()}
	var rows int64
	for i := range outputs {
		c.Added = append(c.Added, outputs[i].Partition)
		rows += outputs[i].Rows
	}
	for _, p := range inputs {
		c.Retired = append(c.Retired, p.PartNo)
	}
	if _, err := g.m.catalog.CommitView(ctx, c); err != nil {
		return err
	}
	if err := g.m.step("merge after commit"); err != nil {
		return err
	}
	for _, p := range inputs {
		g.remove(p.PartNo)
	}
	g.m.stats.update(func(s *Stats) {
		s.Merges++
		s.MergedRows += rows
	})
	g.m.log.Debug("files merged", "view", key.view, "bucket", key.bucket, "inputs", len(inputs), "outputs", len(outputs), "rows", rows, "took", time.Since(begun))
	return nil
}

// rewrite merges the inputs into new objects.
func (g *merger) rewrite(ctx context.Context, key group, inputs []catalog.Partition) ([]built, error) {
	t := g.tables[key.view]
	level := int16(0)
	minInsert, maxInsert := inputs[0].MinInsert, inputs[0].MaxInsert
	files := make([]*columnar.File, len(inputs))
	for i, p := range inputs {
		data, err := g.m.objects.Get(ctx, p.Key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p.Key, err)
		}
		if files[i], err = columnar.OpenFile(t.table, data); err != nil {
			return nil, fmt.Errorf("read %s: %w", p.Key, err)
		}
		level = max(level, p.Level)
		minInsert, maxInsert = min(minInsert, p.MinInsert), max(maxInsert, p.MaxInsert)
	}
	var outputs []built
	limits := columnar.Limits{RowGroupRows: g.m.cfg.MergeRowGroupRows, RowGroupBytes: g.m.cfg.MergeMemory, FileBytes: int(g.m.cfg.MergeBytes)}
	err := columnar.Merge(g.orders[key.view], files, t.writer, limits, func(data []byte, s columnar.Summary) error {
		if s.MinInsert == 0 && s.MaxInsert == 0 { // a table without insert_time
			s.MinInsert, s.MaxInsert = minInsert, maxInsert
		}
		out := []built{newBuilt(t.table, key.bucket, level+1, data, s)}
		if err := putFiles(ctx, g.m.objects, out); err != nil {
			return err
		}
		outputs = append(outputs, out...)
		return ctx.Err()
	})
	return outputs, err
}
