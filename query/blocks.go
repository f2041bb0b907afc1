package query

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Bounds of segments of blocks.
const (
	// segmentRows is the length at which a segment is left alone.
	segmentRows = 512 << 10
	// blocksPage is how many rows are read from the catalog at a time.
	blocksPage = 64 << 10
)

// blockSegments holds the narrow rows of table blocks in Parquet files that are appended to as archive moves on.
//
// A new segment swallows the last ones while they are no more than twice its length. So lengths fall geometrically, as
// the digits of a counter: a million blocks that came one by one lie in some twenty files, and each row was rewritten
// some twenty times.
type blockSegments struct {
	catalog Catalog
	folder  *cacheFolder
	schema  *arrow.Schema

	mu        sync.Mutex
	positions map[catalog.ShardID]uint64
	list      []*segment
}

// segment is one file of blocks.
type segment struct {
	file                *cachedFile
	rows                int64
	minBegin, maxInsert int64
}

func newBlockSegments(c Catalog, folder *cacheFolder) *blockSegments {
	return &blockSegments{catalog: c, folder: folder, schema: narrowBlocks()}
}

// narrowBlocks returns the columns of table blocks that are the block's own.
func narrowBlocks() *arrow.Schema {
	t := tables.Must("blocks")
	own := slices.DeleteFunc(slices.Clone(t.FileSchema().Fields()), func(f arrow.Field) bool { return foreignColumn(f.Name) })
	return arrow.NewSchema(own, nil)
}

// take returns the segments that hold every block archived before the call and that may meet the range, newest first.
// The caller must release their files.
func (s *blockSegments) take(ctx context.Context, r *Range) ([]*cachedFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(ctx); err != nil {
		return nil, err
	}
	var out []*cachedFile
	for _, g := range slices.Backward(s.list) {
		if r == nil || g.minBegin <= r.End && g.maxInsert >= r.Begin {
			g.file.retain()
			out = append(out, g.file)
		}
	}
	return out, nil
}

// advance reads what archive added.
func (s *blockSegments) advance(ctx context.Context) error {
	for {
		rows, next, err := s.catalog.BlocksSince(ctx, s.positions, blocksPage)
		if err != nil {
			return fmt.Errorf("read new blocks: %w", err)
		}
		if len(rows) > 0 {
			if err := s.add(rows); err != nil {
				return err
			}
		}
		s.positions = next
		if len(rows) < blocksPage {
			return nil
		}
	}
}

// add appends a segment and swallows the short ones before it.
func (s *blockSegments) add(rows []catalog.BlockRow) error {
	batch := s.batch(rows)
	defer func() { batch.Release() }()
	g := &segment{rows: batch.NumRows(), minBegin: math.MaxInt64, maxInsert: math.MinInt64}
	for i := range rows {
		g.minBegin = min(g.minBegin, rows[i].BeginTime)
		g.maxInsert = max(g.maxInsert, rows[i].InsertTime)
	}
	keep := len(s.list)
	for keep > 0 && s.list[keep-1].rows <= 2*g.rows && s.list[keep-1].rows+g.rows <= segmentRows {
		keep--
		old := s.list[keep]
		joined, err := s.join(old.file.path, batch)
		if err != nil {
			return err
		}
		batch.Release()
		batch = joined
		g.rows += old.rows
		g.minBegin = min(g.minBegin, old.minBegin)
		g.maxInsert = max(g.maxInsert, old.maxInsert)
	}
	file, err := s.folder.write("blocks", batch)
	if err != nil {
		return err
	}
	g.file = file
	for _, old := range s.list[keep:] {
		old.file.release()
	}
	s.list = append(s.list[:keep:keep], g)
	return nil
}

// batch makes rows in order of insert time.
func (s *blockSegments) batch(rows []catalog.BlockRow) arrow.RecordBatch {
	slices.SortFunc(rows, func(a, b catalog.BlockRow) int {
		if c := cmp.Compare(a.InsertTime, b.InsertTime); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	c := newColumnBuilder(s.schema, len(rows))
	for i := range rows {
		b := &rows[i]
		c.text(b.ID.String())
		c.text(b.StreamID.String())
		c.text(b.ProcessID.String())
		c.time(b.BeginTime)
		c.int64(b.BeginTicks)
		c.time(b.EndTime)
		c.int64(b.EndTicks)
		c.int32(b.NbObjects)
		c.int64(b.ObjectOffset)
		c.int64(b.PayloadSize)
		c.time(b.InsertTime)
	}
	return c.batch()
}

// join returns the rows of a segment's file followed by those of batch.
func (s *blockSegments) join(path string, batch arrow.RecordBatch) (arrow.RecordBatch, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a segment of blocks: %w", err)
	}
	defer f.Close()
	table, err := pqarrow.ReadTable(context.Background(), f, parquet.NewReaderProperties(memory.DefaultAllocator),
		pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("read a segment of blocks: %w", err)
	}
	defer table.Release()
	cols := make([]arrow.Array, batch.NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range cols {
		parts := append(slices.Clone(table.Column(i).Data().Chunks()), batch.Column(i))
		if cols[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("join segments of blocks: %w", err)
		}
	}
	return array.NewRecordBatch(s.schema, cols, table.NumRows()+batch.NumRows()), nil
}

func (s *blockSegments) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.list {
		g.file.release()
	}
	s.list, s.positions = nil, nil
}
