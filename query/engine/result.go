package engine

import (
	"context"
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	duckdb "github.com/duckdb/duckdb-go-bindings"
)

// Result streams the rows of one statement. It is for one goroutine.
type Result interface {
	// Schema is what clients see.
	Schema() *arrow.Schema
	// Next returns the next batch, which the caller must release, or io.EOF.
	Next() (arrow.RecordBatch, error)
	// Close ends the statement, also before the last row. It may be called twice.
	Close() error
}

const (
	// batchRows is the number of rows from which a batch is sent.
	batchRows = 8192
	// batchBytes is the size of texts from which a batch is sent. A batch is past it by one
	// chunk of at most as many bytes, or by one huge row.
	batchBytes = 2 << 20
)

// chunkRows is the number of rows of a full chunk of DuckDB.
const chunkRows = 2048

// stream is the Result of a statement.
type stream struct {
	ctx     context.Context
	link    *link
	stmt    duckdb.PreparedStatement
	res     duckdb.Result
	schema  *arrow.Schema
	columns []column

	chunk    duckdb.DataChunk // being converted
	from, to int              // its rows that are not yet converted
	err      error            // what Next goes on returning
	closed   bool
}

var _ Result = (*stream)(nil)

func (l *link) query(ctx context.Context, sql string, opts QueryOptions) (*stream, error) {
	s := &stream{ctx: ctx, link: l}
	if err := l.run(ctx, func() *Error { return s.start(sql, opts) }); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// start prepares and executes up to the first rows.
func (s *stream) start(sql string, opts QueryOptions) *Error {
	var err *Error
	if s.stmt, err = s.link.prepare(sql); err != nil {
		return err
	}
	var pending duckdb.PendingResult
	defer duckdb.DestroyPending(&pending)
	//nolint:staticcheck // the only interface that does not hold all rows in memory
	if duckdb.PendingPreparedStreaming(s.stmt, &pending) != duckdb.StateSuccess {
		return parseError(duckdb.PendingError(pending))
	}
	if duckdb.ExecutePending(pending, &s.res) != duckdb.StateSuccess {
		return resultError(&s.res)
	}
	n := int(duckdb.ColumnCount(&s.res))
	names, types := make([]string, n), make([]duckdb.LogicalType, n)
	for i := range n {
		names[i] = duckdb.ColumnName(&s.res, duckdb.IdxT(i))
		types[i] = duckdb.ColumnLogicalType(&s.res, duckdb.IdxT(i))
	}
	defer destroyTypes(types)
	s.schema, s.columns, err = plan(names, types, opts)
	return err
}

func (s *stream) Schema() *arrow.Schema { return s.schema }

func (s *stream) Next() (arrow.RecordBatch, error) {
	if s.err != nil {
		return nil, s.err
	}
	rows, size := 0, 0
	for rows < batchRows && size < batchBytes {
		if s.from == s.to {
			if err := s.fetch(); err != nil {
				s.err = err
				break
			}
		}
		n, bytes := s.fit(batchBytes)
		for _, c := range s.columns {
			if err := c.append(s.from, n); err != nil {
				s.err = err
				s.discard()
				return nil, err
			}
		}
		s.from += n
		rows += n
		size += bytes
	}
	if s.err != nil && (!errors.Is(s.err, io.EOF) || rows == 0) {
		s.discard()
		return nil, s.err
	}
	return s.batch(rows)
}

// fetch gets the next chunk and shows it to the columns; io.EOF after the last.
func (s *stream) fetch() error {
	duckdb.DestroyDataChunk(&s.chunk)
	s.from, s.to = 0, 0
	for s.to == 0 {
		last := false
		err := s.link.run(s.ctx, func() *Error {
			//nolint:staticcheck // the only call that tells an error from the end
			if duckdb.StreamFetchChunk(s.res, &s.chunk) != duckdb.StateSuccess {
				if duckdb.ResultError(&s.res) == "" {
					last = true
					return nil
				}
				return resultError(&s.res)
			}
			s.to = int(duckdb.DataChunkGetSize(s.chunk))
			last = s.to == 0
			return nil
		})
		if err != nil {
			return err
		}
		if last {
			duckdb.DestroyDataChunk(&s.chunk)
			return io.EOF
		}
	}
	for i, c := range s.columns {
		c.bind(duckdb.DataChunkGetVector(s.chunk, duckdb.IdxT(i)))
	}
	return nil
}

// fit returns how many of the chunk's rows to take at once so that their texts stay below the
// limit (at least one row), and the size of the texts.
func (s *stream) fit(limit int) (rows, size int) {
	for rows = s.to - s.from; ; rows /= 2 {
		size = 0
		for _, c := range s.columns {
			size += c.size(s.from, rows)
		}
		if size <= limit || rows == 1 {
			return rows, size
		}
	}
}

func (s *stream) batch(rows int) (arrow.RecordBatch, error) {
	arrays := make([]arrow.Array, len(s.columns))
	for i, c := range s.columns {
		data := c.finish()
		arrays[i] = array.MakeFromData(data)
		data.Release()
	}
	batch := array.NewRecordBatch(s.schema, arrays, int64(rows))
	for _, a := range arrays {
		a.Release()
	}
	return batch, nil
}

// discard forgets what was appended to a batch that failed.
func (s *stream) discard() {
	for _, c := range s.columns {
		c.finish().Release()
	}
}

func (s *stream) Close() error {
	s.close()
	return nil
}

func (s *stream) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.err == nil {
		s.err = io.EOF
	}
	s.columns = nil
	duckdb.DestroyDataChunk(&s.chunk)
	duckdb.DestroyResult(&s.res)
	duckdb.DestroyPrepare(&s.stmt)
}
