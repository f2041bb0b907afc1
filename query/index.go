package query

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// partitionIndex holds the live partitions in memory, so that a query finds its files without asking a database.
// It follows the catalog by commit number. Readers see immutable snapshots.
type partitionIndex struct {
	catalog Catalog
	current atomic.Pointer[partitions]

	turn turn             // of refresh
	in   map[int64]string // part number → view, of every partition held
}

// partitions is the live set at one commit number.
type partitions struct {
	commitNo int64
	views    map[string]*viewPartitions
}

// viewPartitions are the global partitions of one view, the greatest MaxTime first. The times are kept beside the rows
// because a scan of them touches a tenth of the memory.
type viewPartitions struct {
	rows     []*catalog.Partition
	min, max []int64
}

func newPartitionIndex(c Catalog) *partitionIndex {
	x := &partitionIndex{catalog: c, turn: newTurn(), in: make(map[int64]string)}
	x.current.Store(&partitions{views: map[string]*viewPartitions{}})
	return x
}

// refresh brings the index to the catalog's commit number as of a moment after the call, and returns the live set.
func (x *partitionIndex) refresh(ctx context.Context) (live *partitions, err error) {
	err = x.turn.do(ctx, func() error {
		live, err = x.follow(ctx)
		return err
	})
	return live, err
}

// follow is refresh for the one whose turn it is.
func (x *partitionIndex) follow(ctx context.Context) (*partitions, error) {
	old := x.current.Load()
	delta, err := x.catalog.Partitions(ctx, old.commitNo)
	if err != nil {
		return nil, fmt.Errorf("read partitions since commit %d: %w", old.commitNo, err)
	}
	if !delta.Full && delta.CommitNo == old.commitNo {
		return old, nil
	}
	next := x.apply(old, delta)
	x.current.Store(next)
	return next, nil
}

// apply returns the live set after a delta. Views that the delta does not touch are shared with the old set.
func (x *partitionIndex) apply(old *partitions, delta catalog.PartitionDelta) *partitions {
	next := &partitions{commitNo: delta.CommitNo, views: make(map[string]*viewPartitions, len(old.views)+1)}
	if delta.Full {
		clear(x.in)
	} else {
		maps.Copy(next.views, old.views)
	}
	added := make(map[string][]*catalog.Partition)
	for i := range delta.Added {
		p := &delta.Added[i]
		if _, held := x.in[p.PartNo]; held || p.Instance != 0 {
			continue
		}
		x.in[p.PartNo] = p.View
		added[p.View] = append(added[p.View], p)
	}
	gone := make(map[string]map[int64]bool)
	for _, no := range delta.Retired {
		view, held := x.in[no]
		if !held {
			continue
		}
		delete(x.in, no)
		if gone[view] == nil {
			gone[view] = make(map[int64]bool)
		}
		gone[view][no] = true
	}
	for view := range gone {
		if added[view] == nil {
			added[view] = []*catalog.Partition{}
		}
	}
	for view, rows := range added {
		next.views[view] = merge(next.views[view], rows, gone[view])
	}
	return next
}

// newestFirst orders partitions for the engine and for the search by time.
func newestFirst(a, b *catalog.Partition) int {
	if c := cmp.Compare(b.MaxTime, a.MaxTime); c != 0 {
		return c
	}
	return cmp.Compare(b.PartNo, a.PartNo)
}

// merge returns v with added and without gone, in order, in one pass.
func merge(v *viewPartitions, added []*catalog.Partition, gone map[int64]bool) *viewPartitions {
	slices.SortFunc(added, newestFirst)
	var held []*catalog.Partition
	if v != nil {
		held = v.rows
	}
	n := len(held) + len(added)
	out := &viewPartitions{rows: make([]*catalog.Partition, 0, n), min: make([]int64, 0, n), max: make([]int64, 0, n)}
	take := func(p *catalog.Partition) {
		if !gone[p.PartNo] {
			out.rows = append(out.rows, p)
			out.min = append(out.min, p.MinTime)
			out.max = append(out.max, p.MaxTime)
		}
	}
	for len(held) > 0 && len(added) > 0 {
		if newestFirst(held[0], added[0]) <= 0 {
			take(held[0])
			held = held[1:]
		} else {
			take(added[0])
			added = added[1:]
		}
	}
	for _, p := range held {
		take(p)
	}
	for _, p := range added {
		take(p)
	}
	return out
}

// prune returns the partitions of a view whose times meet [begin, end], newest first. With a process bit >= 0 those that
// cannot hold the process are left out.
func (s *partitions) prune(view string, begin, end int64, bit int) []*catalog.Partition {
	v := s.views[view]
	if v == nil {
		return nil
	}
	n := sort.Search(len(v.max), func(i int) bool { return v.max[i] < begin })
	var out []*catalog.Partition
	for i, least := range v.min[:n] {
		if least > end {
			continue
		}
		if p := v.rows[i]; bit < 0 || mayHold(p.Procs, bit) {
			out = append(out, p)
		}
	}
	return out
}

// all returns every partition, view by view.
func (s *partitions) all() []*catalog.Partition {
	names := make([]string, 0, len(s.views))
	for name := range s.views {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []*catalog.Partition
	for _, name := range names {
		out = append(out, s.views[name].rows...)
	}
	return out
}

// mayHold reports whether a file with this bitmap may hold rows of the process with this bit.
func mayHold(bitmap []byte, bit int) bool {
	return len(bitmap) != catalog.ProcessBitmapBytes || bitmap[bit>>3]&(1<<(bit&7)) != 0
}
