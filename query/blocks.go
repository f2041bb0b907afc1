package query

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"

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

// blockSegments holds the narrow rows of table blocks that are not frozen in Parquet files that are appended to as archive moves on.
//
// A new segment swallows the last ones while they are no more than twice its length. So lengths fall geometrically, as
// the digits of a counter: a million blocks that came one by one lie in some twenty files, and each row was rewritten
// some twenty times.
//
// Rows leave when they are frozen, and are in files of the lake from then on: partitions of table blocks. A query must see
// both as they were at one frozen version, lest it see a block twice or not at all. Rows that were read while the version was
// v fit the files of v, and versions only grow: so the segments are of a version if it stands both before their rows are read and
// afterwards. When it moved, the rows of the freezes between are dropped, which their spans name exactly; see freeze.go.
type blockSegments struct {
	catalog Catalog
	index   *partitionIndex
	folder  *cacheFolder
	schema  *arrow.Schema

	turn      turn                       // of all below
	started   bool                       // version is known
	version   int64                      // of the frozen rows that are not in the segments
	positions map[catalog.ShardID]uint64 // of the rows read
	list      []*segment
	shards    []catalog.ShardID // by the number that stands for them in the segments
}

// segment is one file of blocks.
type segment struct {
	file                          *cachedFile
	rows                          int64
	minBegin, maxBegin, maxInsert int64
	last                          map[catalog.ShardID]uint64 // the furthest position of each shard
}

// Columns of segments that no query sees: a row's position.
const (
	shardColumn   = "shard_no"
	packSeqColumn = "pack_seq"
)

func newBlockSegments(c Catalog, index *partitionIndex, folder *cacheFolder) *blockSegments {
	return &blockSegments{catalog: c, index: index, folder: folder, schema: segmentSchema(), turn: newTurn()}
}

// segmentSchema returns the columns of table blocks that are the block's own, and its position.
func segmentSchema() *arrow.Schema {
	return arrow.NewSchema(append(ownFields(),
		arrow.Field{Name: shardColumn, Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: packSeqColumn, Type: arrow.PrimitiveTypes.Int64}), nil)
}

// ownFields returns the columns of table blocks that are the block's own. Frozen files have them too.
func ownFields() []arrow.Field {
	return slices.DeleteFunc(slices.Clone(tables.Must("blocks").FileSchema().Fields()), func(f arrow.Field) bool { return foreignColumn(f.Name) })
}

// take returns the segments that may meet the range, newest first, and a live set of partitions: together with its files of frozen
// rows they hold every block archived before the call, once. The caller must release the segments' files.
func (s *blockSegments) take(ctx context.Context, r *Range) (out []*cachedFile, live *partitions, err error) {
	err = s.turn.do(ctx, func() error {
		if live, err = s.refresh(ctx); err != nil {
			return err
		}
		for _, g := range slices.Backward(s.list) {
			if r == nil || g.minBegin <= r.End && g.maxInsert >= r.Begin {
				g.file.retain()
				out = append(out, g.file)
			}
		}
		return nil
	})
	return out, live, err
}

// refresh brings the segments up to date, and returns a live set of their version.
func (s *blockSegments) refresh(ctx context.Context) (*partitions, error) {
	if !s.started {
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	for {
		if err := s.advance(ctx); err != nil {
			return nil, err
		}
		live, err := s.index.refresh(ctx)
		if err != nil {
			return nil, err
		}
		if live.frozenVersion() == s.version {
			return live, nil
		}
		if err := s.dropFrozen(ctx); err != nil {
			return nil, err
		}
	}
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
	g := newSegment()
	for i := range rows {
		b := &rows[i]
		g.note(b.BeginTime, b.InsertTime, b.Shard, b.PackSeq)
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
		g.join(old)
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

// start notes the version before the first row is read.
func (s *blockSegments) start(ctx context.Context) error {
	live, err := s.index.refresh(ctx)
	if err == nil {
		s.version, s.started = live.frozenVersion(), true
	}
	return err
}

func newSegment() *segment {
	return &segment{minBegin: math.MaxInt64, maxBegin: math.MinInt64, maxInsert: math.MinInt64, last: map[catalog.ShardID]uint64{}}
}

// note counts a row in.
func (g *segment) note(begin, insert int64, s catalog.ShardID, seq uint64) {
	g.rows++
	g.minBegin, g.maxBegin, g.maxInsert = min(g.minBegin, begin), max(g.maxBegin, begin), max(g.maxInsert, insert)
	g.last[s] = max(g.last[s], seq)
}

// join counts the rows of another segment in.
func (g *segment) join(o *segment) {
	g.rows += o.rows
	g.minBegin, g.maxBegin, g.maxInsert = min(g.minBegin, o.minBegin), max(g.maxBegin, o.maxBegin), max(g.maxInsert, o.maxInsert)
	for s, seq := range o.last {
		g.last[s] = max(g.last[s], seq)
	}
}

// shardNo returns the number that stands for a shard in the segments.
func (s *blockSegments) shardNo(id catalog.ShardID) int32 {
	i := slices.Index(s.shards, id)
	if i < 0 {
		i = len(s.shards)
		s.shards = append(s.shards, id)
	}
	return int32(i)
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
		c.int32(s.shardNo(b.Shard))
		c.int64(int64(b.PackSeq))
	}
	return c.batch()
}

// join returns the rows of a segment's file followed by those of batch.
func (s *blockSegments) join(path string, batch arrow.RecordBatch) (arrow.RecordBatch, error) {
	table, err := readSegment(path)
	if err != nil {
		return nil, err
	}
	defer table.Release()
	return s.concatenate(table.NumRows()+batch.NumRows(), func(i int) []arrow.Array {
		return append(slices.Clone(table.Column(i).Data().Chunks()), batch.Column(i))
	})
}

// readSegment reads a segment's file. The caller must release the table.
func readSegment(path string) (arrow.Table, error) {
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
	return table, nil
}

// concatenate makes a batch of so many rows whose columns are the parts of each.
func (s *blockSegments) concatenate(rows int64, parts func(column int) []arrow.Array) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, s.schema.NumFields())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range cols {
		var err error
		if cols[i], err = array.Concatenate(parts(i), memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("join segments of blocks: %w", err)
		}
	}
	return array.NewRecordBatch(s.schema, cols, rows), nil
}

// clear forgets all rows.
func (s *blockSegments) clear() {
	for _, g := range s.list {
		g.file.release()
	}
	s.list, s.positions, s.started = nil, nil, false
}

// close removes the files. No call may be under way.
func (s *blockSegments) close() { s.clear() }
