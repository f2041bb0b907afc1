package materializers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// What partitions say about their files.
const (
	// schemaVersion counts changes of the columns of eager views.
	schemaVersion = 1
	// sortVersion counts changes of the order of rows in files.
	sortVersion = 1
)

// tableFiles writes files of one table.
type tableFiles struct {
	table  *tables.Table
	sorter *columnar.Sorter
	writer *columnar.Writer
}

func newTableFiles(t *tables.Table, o columnar.Order) (tableFiles, error) {
	w, err := columnar.NewWriter(t)
	return tableFiles{table: t, sorter: columnar.NewSorter(o), writer: w}, err
}

// viewFiles writes the files of a view and of what is derived from it.
type viewFiles struct {
	view    *View
	own     tableFiles
	derived []tableFiles
	rows    []*columnar.Rows // of derived tables
	buckets map[int64][]int32
	sel     []int32
	yield   func() // called before each file; nil = by nobody
}

func newViewFiles(v *View) (*viewFiles, error) {
	own, err := newTableFiles(v.Table, v.Order)
	if err != nil {
		return nil, err
	}
	f := &viewFiles{view: v, own: own, buckets: map[int64][]int32{}}
	for _, d := range v.Derived {
		files, err := newTableFiles(d.Table, d.Order)
		if err != nil {
			return nil, err
		}
		f.derived = append(f.derived, files)
		f.rows = append(f.rows, columnar.NewRows(d.Table))
	}
	return f, nil
}

// built is a file that is not written to the lake yet.
type built struct {
	catalog.Partition
	data []byte
}

// make sorts and encodes the rows of all segments that are not dropped, a file per bucket and table.
func (f *viewFiles) make(rows *columnar.Rows, view int, segments []segment, cfg Config) ([]built, error) {
	f.split(rows, view, segments, cfg.MaxBuckets)
	buckets := make([]int64, 0, len(f.buckets))
	for b := range f.buckets {
		buckets = append(buckets, b)
	}
	slices.Sort(buckets)
	var files []built
	for _, bucket := range buckets {
		if f.yield != nil {
			f.yield()
		}
		sel := f.buckets[bucket]
		file, err := f.own.write(rows, sel, bucket, groupRows(rows, cfg))
		if err != nil {
			return nil, err
		}
		files = append(files, file)
		for i, d := range f.view.Derived {
			f.rows[i].Reset()
			d.Append(f.rows[i], rows, sel)
			f.sel = columnar.Identity(f.sel, f.rows[i].Len())
			more, err := f.derived[i].write(f.rows[i], f.sel, bucket, groupRows(f.rows[i], cfg))
			if err != nil {
				return nil, err
			}
			more.MinInsert, more.MaxInsert = file.MinInsert, file.MaxInsert
			files = append(files, more)
		}
	}
	return files, nil
}

// groupRows returns how many rows a row group has: fewer than RowGroupRows where rows are long, since a merge holds a whole row
// group of each input.
func groupRows(rows *columnar.Rows, cfg Config) int {
	if rows.Len() == 0 {
		return cfg.RowGroupRows
	}
	average := max(1, rows.Bytes()/rows.Len())
	return max(1, min(cfg.RowGroupRows, cfg.MergeMemory/average))
}

// split chooses the rows of each bucket, in order of arrival within a process and in order of the blocks' first time, so that the
// sorter finds them sorted.
func (f *viewFiles) split(rows *columnar.Rows, view int, segments []segment, maxBuckets int) {
	clear(f.buckets)
	mine := make([]*segment, 0, len(segments))
	for i := range segments {
		if s := &segments[i]; s.view == view && !s.dropped {
			mine = append(mine, s)
		}
	}
	slices.SortStableFunc(mine, func(a, b *segment) int { return cmp.Compare(a.minTime, b.minTime) })
	times := rows.Columns[ColumnTime].Ints
	for _, s := range mine {
		first, last := bucketOf(s.minTime, s.insertTime), bucketOf(s.maxTime, s.insertTime)
		if first == last {
			f.add(first, s.begin, s.end, maxBuckets)
			continue
		}
		for row := s.begin; row < s.end; row++ {
			f.add(bucketOf(times[row], s.insertTime), row, row+1, maxBuckets)
		}
	}
}

func (f *viewFiles) add(bucket int64, begin, end, maxBuckets int) {
	sel, ok := f.buckets[bucket]
	if !ok && len(f.buckets) >= maxBuckets {
		bucket = OverflowBucket
		sel = f.buckets[bucket]
	}
	for row := begin; row < end; row++ {
		sel = append(sel, int32(row))
	}
	f.buckets[bucket] = sel
}

// write sorts and encodes one file.
func (t *tableFiles) write(rows *columnar.Rows, sel []int32, bucket int64, groupRows int) (built, error) {
	t.sorter.Sort(rows, sel)
	t.writer.Begin()
	var summary columnar.Summary
	for group := range slices.Chunk(sel, groupRows) {
		if err := t.writer.WriteRowGroup(rows, group); err != nil {
			return built{}, fmt.Errorf("write %s: %w", t.table.Name, err)
		}
		summary.Add(rows, group)
	}
	data, err := t.writer.Finish()
	if err != nil {
		return built{}, fmt.Errorf("write %s: %w", t.table.Name, err)
	}
	return newBuilt(t.table, bucket, 0, data, summary), nil
}

func newBuilt(t *tables.Table, bucket int64, level int16, data []byte, s columnar.Summary) built {
	return built{data: data, Partition: catalog.Partition{
		View: t.Name, Level: level, Bucket: bucket, MinTime: s.MinTime, MaxTime: s.MaxTime, MinInsert: s.MinInsert, MaxInsert: s.MaxInsert,
		Rows: s.Rows, Size: int64(len(data)), SchemaVer: schemaVersion, Sort: sortVersion, Procs: s.Processes,
		Key: lake.ViewKey(t.Name, max(bucket, 0), data),
	}}
}

// putFiles makes files durable in the lake. They do not exist before a commit names them.
func putFiles(ctx context.Context, objects Objects, files []built) error {
	for i := range files {
		if err := objects.Put(ctx, files[i].Key, files[i].data); err != nil {
			return fmt.Errorf("put %s: %w", files[i].Key, err)
		}
		files[i].data = nil
	}
	return nil
}
