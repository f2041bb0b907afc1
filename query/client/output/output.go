package output

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// Format is how rows are written.
type Format string

// The formats.
const (
	Table   Format = "table"   // for people
	CSV     Format = "csv"     // with a header line; NULL is empty
	JSON    Format = "json"    // an array with an object a row
	Arrow   Format = "arrow"   // IPC stream
	Parquet Format = "parquet" // one file
)

// Formats lists all, in the order of help texts.
func Formats() []Format { return []Format{Table, CSV, JSON, Arrow, Parquet} }

// ParseFormat returns the format of that name.
func ParseFormat(name string) (Format, error) {
	names := make([]string, 0, len(Formats()))
	for _, f := range Formats() {
		if strings.EqualFold(name, string(f)) {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("format %q is none of %s", name, strings.Join(names, ", "))
}

// Source is where rows come from; *client.Rows is one.
type Source interface {
	Schema() *arrow.Schema
	// Next must return io.EOF after the last batch. A batch is read before the next is asked for.
	Next() (arrow.RecordBatch, error)
}

// writer takes the batches of one answer.
type writer interface {
	write(batch arrow.RecordBatch) error
	// close ends the output: nothing was cut off.
	close() error
}

// Write writes all rows and returns how many there were. After an error the output may end in the middle.
func Write(w io.Writer, format Format, rows Source) (int64, error) {
	buffered := bufio.NewWriterSize(w, 64<<10)
	out, err := newWriter(buffered, format, rows.Schema())
	if err != nil {
		return 0, err
	}
	n, err := copyRows(out, rows)
	if err == nil {
		err = out.close()
	}
	if ferr := buffered.Flush(); err == nil && ferr != nil {
		err = fmt.Errorf("write %s: %w", format, ferr)
	}
	return n, err
}

func copyRows(out writer, rows Source) (int64, error) {
	n := int64(0)
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if err := out.write(batch); err != nil {
			return n, err
		}
		n += batch.NumRows()
	}
}

func newWriter(w io.Writer, format Format, schema *arrow.Schema) (writer, error) {
	switch format {
	case Table:
		return newTableWriter(w, schema), nil
	case CSV:
		return newCSVWriter(w, schema)
	case JSON:
		return newJSONWriter(w, schema), nil
	case Arrow:
		return &arrowWriter{ipc.NewWriter(w, ipc.WithSchema(schema))}, nil
	case Parquet:
		return newParquetWriter(w, schema)
	}
	return nil, fmt.Errorf("format %q is not known", format)
}

type arrowWriter struct{ w *ipc.Writer }

func (a *arrowWriter) write(b arrow.RecordBatch) error { return a.w.Write(b) }

func (a *arrowWriter) close() error { return a.w.Close() }

// parquetWriter writes durations as whole nanoseconds, which Parquet has no type for.
type parquetWriter struct {
	w      *pqarrow.FileWriter
	schema *arrow.Schema
}

func newParquetWriter(w io.Writer, schema *arrow.Schema) (writer, error) {
	fields := schema.Fields()
	for i := range fields {
		if fields[i].Type.ID() == arrow.DURATION {
			fields[i].Type = arrow.PrimitiveTypes.Int64
		}
	}
	schema = arrow.NewSchema(fields, nil)
	// The struct hides a Close method of w: the caller closes it.
	f, err := pqarrow.NewFileWriter(schema, struct{ io.Writer }{w},
		parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd)),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, fmt.Errorf("start the Parquet file: %w", err)
	}
	return &parquetWriter{f, schema}, nil
}

func (p *parquetWriter) write(b arrow.RecordBatch) error {
	columns := make([]arrow.Array, b.NumCols())
	for i, c := range b.Columns() {
		columns[i] = c
		if c.DataType().ID() == arrow.DURATION {
			d := c.Data()
			plain := array.NewData(arrow.PrimitiveTypes.Int64, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset())
			columns[i] = array.NewInt64Data(plain)
			plain.Release()
			defer columns[i].Release()
		}
	}
	plain := array.NewRecordBatch(p.schema, columns, b.NumRows())
	defer plain.Release()
	return p.w.WriteBuffered(plain)
}

func (p *parquetWriter) close() error { return p.w.Close() }
