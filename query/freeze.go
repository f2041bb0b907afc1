package query

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// frozenVersion returns the commit number of the last freeze before the live set: each freeze adds a file at least, and only a
// later one retires it.
func (s *partitions) frozenVersion() int64 {
	v := s.views[catalog.FrozenView]
	if v == nil {
		return 0
	}
	version := int64(0)
	for _, p := range v.rows {
		version = max(version, p.Added)
	}
	return version
}

// dropFrozen removes from the segments the rows of all freezes since their version. A reader that missed too many starts over.
func (s *blockSegments) dropFrozen(ctx context.Context) error {
	freezes, err := s.catalog.Freezes(ctx, s.version)
	if errors.Is(err, catalog.ErrStale) {
		s.clear()
		return s.start(ctx)
	}
	if err != nil {
		return fmt.Errorf("read what was frozen: %w", err)
	}
	for i := 0; i < len(s.list); {
		kept, err := s.without(s.list[i], freezes)
		switch {
		case err != nil: // the version stays, and the next call goes on
			return fmt.Errorf("drop frozen blocks: %w", err)
		case kept == nil:
			s.list[i].file.release()
			s.list = slices.Delete(s.list, i, i+1)
			continue
		case kept != s.list[i]:
			s.list[i].file.release()
			s.list[i] = kept
		}
		i++
	}
	if n := len(freezes); n > 0 {
		s.version = freezes[n-1].Version
	}
	return nil
}

// without returns a segment without the rows of freezes: itself when it has none of them, nil when no other row is left.
func (s *blockSegments) without(g *segment, freezes []catalog.Freeze) (*segment, error) {
	met := slices.DeleteFunc(slices.Clone(freezes), func(f catalog.Freeze) bool { return f.To < g.minBegin || f.From > g.maxBegin })
	if len(met) == 0 {
		return g, nil
	}
	if slices.ContainsFunc(met, g.within) {
		return nil, nil //nolint:nilnil // all rows are frozen
	}
	table, err := readSegment(g.file.path)
	if err != nil {
		return nil, err
	}
	defer table.Release()
	batches := array.NewTableReader(table, -1)
	defer batches.Release()
	kept := newSegment()
	columns := make([][]arrow.Array, s.schema.NumFields()) // the rows that stay, in runs
	defer func() {
		for _, runs := range columns {
			for _, run := range runs {
				run.Release()
			}
		}
	}()
	for batches.Next() {
		b := batches.RecordBatch()
		s.sift(kept, b, met, func(from, to int) {
			for i := range columns {
				columns[i] = append(columns[i], array.NewSlice(b.Column(i), int64(from), int64(to)))
			}
		})
	}
	switch {
	case batches.Err() != nil:
		return nil, batches.Err()
	case kept.rows == 0:
		return nil, nil //nolint:nilnil // all rows are frozen
	case kept.rows == g.rows:
		return g, nil
	}
	batch, err := s.concatenate(kept.rows, func(i int) []arrow.Array { return columns[i] })
	if err != nil {
		return nil, err
	}
	defer batch.Release()
	kept.file, err = s.folder.write("blocks", batch)
	return kept, err
}

// within reports whether one freeze took all rows of a segment, as far as the segment's bounds tell.
func (g *segment) within(f catalog.Freeze) bool {
	if g.minBegin < f.From || g.maxBegin > f.To {
		return false
	}
	for s, seq := range g.last {
		if seq > f.UpTo[s] {
			return false
		}
	}
	return true
}

// sift finds the runs of rows of a batch that no freeze took, and notes the rows in kept.
func (s *blockSegments) sift(kept *segment, b arrow.RecordBatch, freezes []catalog.Freeze, run func(from, to int)) {
	begin := column[*array.Timestamp](s.schema, b, "begin_time")
	insert := column[*array.Timestamp](s.schema, b, "insert_time")
	shard := column[*array.Int32](s.schema, b, shardColumn)
	seq := column[*array.Int64](s.schema, b, packSeqColumn)
	from := 0
	for i := range int(b.NumRows()) {
		row := catalog.BlockRow{Shard: s.shards[shard.Value(i)], PackSeq: uint64(seq.Value(i))}
		row.BeginTime = int64(begin.Value(i))
		if !slices.ContainsFunc(freezes, func(f catalog.Freeze) bool { return f.Holds(&row) }) {
			kept.note(row.BeginTime, int64(insert.Value(i)), row.Shard, row.PackSeq)
			continue
		}
		if from < i {
			run(from, i)
		}
		from = i + 1
	}
	if from < int(b.NumRows()) {
		run(from, int(b.NumRows()))
	}
}

// column returns a column of a segment, which has the type that its schema says.
func column[T arrow.Array](s *arrow.Schema, b arrow.RecordBatch, name string) T {
	return b.Column(s.FieldIndices(name)[0]).(T)
}
