package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// merger writes files of rows in order of their numbers as one such file. Of rows with the same number the file that was opened first wins.
//
// For example, of the numbers 1 4 9 in the first file and 1 2 3 4 5 in the second it writes 1 (first), 2 3 (second, one run), 4 (first),
// 5 (second), 9 (first).
type merger struct {
	page    int // rows to write at a time
	readers []*rowReader
	pending []rowRun
	rows    int // of pending
}

// rowRun is rows [from, to) of a batch, on which it has a reference.
type rowRun struct {
	batch    arrow.RecordBatch
	from, to int
}

// open adds a file.
func (m *merger) open(ctx context.Context, path string) error {
	r, err := openRows(ctx, path, m.page)
	if err != nil {
		return err
	}
	m.readers = append(m.readers, r)
	return nil
}

// run writes all rows to w, whose schema must be that of the files.
func (m *merger) run(ctx context.Context, w *parquetWriter) error {
	for {
		next := m.least()
		if next == nil {
			return m.flush(ctx, w)
		}
		until, err := m.override(next)
		if err != nil {
			return err
		}
		to := next.at + sort.Search(len(next.numbers)-next.at, func(i int) bool { return next.numbers[next.at+i] >= until })
		next.batch.Retain()
		m.pending = append(m.pending, rowRun{next.batch, next.at, to})
		m.rows += to - next.at
		if err := next.skipTo(to); err != nil {
			return err
		}
		if m.rows >= m.page {
			if err := m.flush(ctx, w); err != nil {
				return err
			}
		}
	}
}

// least returns the reader whose row comes next; nil at the end.
func (m *merger) least() (next *rowReader) {
	for _, r := range m.readers {
		if !r.done() && (next == nil || r.number() < next.number()) {
			next = r
		}
	}
	return next
}

// override passes the rows of other readers in whose place comes next's row, and returns the least number that any of them has left.
func (m *merger) override(next *rowReader) (until int64, err error) {
	until = math.MaxInt64
	for _, r := range m.readers {
		if r == next || r.done() {
			continue
		}
		if r.number() == next.number() {
			if err := r.skipTo(r.at + 1); err != nil {
				return 0, err
			}
		}
		if !r.done() {
			until = min(until, r.number())
		}
	}
	return until, nil
}

// flush writes the pending rows as one batch.
func (m *merger) flush(ctx context.Context, w *parquetWriter) error {
	if err := ctx.Err(); err != nil || m.rows == 0 {
		return err
	}
	defer m.drop()
	columns := make([]arrow.Array, w.schema.NumFields())
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range columns {
		var err error
		if columns[i], err = m.column(i, w.schema.Field(i).Type); err != nil {
			return fmt.Errorf("join rows: %w", err)
		}
	}
	batch := array.NewRecordBatch(w.schema, columns, int64(m.rows))
	defer batch.Release()
	return w.write(batch)
}

// column returns one column of the pending rows.
func (m *merger) column(i int, t arrow.DataType) (arrow.Array, error) {
	parts := make([]arrow.Array, len(m.pending))
	for k, r := range m.pending {
		parts[k] = array.NewSlice(r.batch.Column(i), int64(r.from), int64(r.to))
	}
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	column, err := array.Concatenate(parts, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	defer column.Release()
	return retype(column, t), nil
}

// retype returns a column that was read under the type with which it was written: Parquet gives JSON back as bytes, and lists with
// another name for their elements. What is in memory is the same.
func retype(column arrow.Array, t arrow.DataType) arrow.Array {
	d := column.Data()
	typed := array.NewData(t, d.Len(), d.Buffers(), d.Children(), d.NullN(), d.Offset())
	defer typed.Release()
	return array.MakeFromData(typed)
}

func (m *merger) drop() {
	for _, r := range m.pending {
		r.batch.Release()
	}
	m.pending, m.rows = m.pending[:0], 0
}

// close frees what is left.
func (m *merger) close() {
	m.drop()
	for _, r := range m.readers {
		r.close()
	}
}

// rowReader reads a file of rows in order of their numbers.
type rowReader struct {
	file    *file.Reader
	records pqarrow.RecordReader
	batch   arrow.RecordBatch // nil at the end
	numbers []int64           // of the batch
	at      int
}

func openRows(ctx context.Context, path string, page int) (r *rowReader, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open rows: %w", err)
	}
	r = &rowReader{}
	if r.file, err = file.NewParquetReader(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open rows of %s: %w", path, err), f.Close())
	}
	defer func() {
		if err != nil {
			r.close()
			r, err = nil, fmt.Errorf("read rows of %s: %w", path, err)
		}
	}()
	arrowFile, err := pqarrow.NewFileReader(r.file, pqarrow.ArrowReadProperties{BatchSize: int64(page)}, memory.DefaultAllocator)
	if err != nil {
		return r, err
	}
	if r.records, err = arrowFile.GetRecordReader(ctx, nil, nil); err != nil {
		return r, err
	}
	return r, r.next()
}

func (r *rowReader) done() bool { return r.batch == nil }

// number returns the number of the row that comes next.
func (r *rowReader) number() int64 { return r.numbers[r.at] }

// skipTo goes to a row of the batch, or to the next batch.
func (r *rowReader) skipTo(at int) error {
	r.at = at
	if at < len(r.numbers) {
		return nil
	}
	return r.next()
}

// next reads the next batch.
func (r *rowReader) next() error {
	if r.batch != nil {
		r.batch.Release()
		r.batch = nil
	}
	for {
		batch, err := r.records.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if batch.NumRows() == 0 {
			continue
		}
		numbers, ok := batch.Column(0).(*array.Int64)
		if !ok {
			return fmt.Errorf("%s is no column of numbers", batch.ColumnName(0))
		}
		batch.Retain() // until the one after it is read
		r.batch, r.numbers, r.at = batch, numbers.Int64Values(), 0
		return nil
	}
}

func (r *rowReader) close() {
	if r.batch != nil {
		r.batch.Release()
	}
	if r.records != nil {
		r.records.Release()
	}
	_ = r.file.Close() // it was only read
}
