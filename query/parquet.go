package query

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// snapshotRowGroup is the length of row groups in the service's own files: what the engine hands to one thread.
const snapshotRowGroup = 64 << 10

// cacheFolder names files in the service's own folder, each once.
type cacheFolder struct {
	dir  string
	next atomic.Uint64
}

// openCacheFolder makes the folder and removes what an earlier run left in it.
func openCacheFolder(dir string) (*cacheFolder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the query cache: %w", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the query cache: %w", err)
	}
	var errs []error
	for _, f := range left {
		if filepath.Ext(f.Name()) == ".parquet" {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, f.Name())))
		}
	}
	return &cacheFolder{dir: dir}, errors.Join(errs...)
}

// write stores a batch as a new Parquet file and returns it with one reference.
func (c *cacheFolder) write(name string, batch arrow.RecordBatch) (*cachedFile, error) {
	w, err := c.create(name, batch.Schema())
	if err != nil {
		return nil, err
	}
	defer w.abort()
	if err := w.write(batch); err != nil {
		return nil, err
	}
	return w.finish()
}

// create begins a new Parquet file. The caller must finish or abort it.
func (c *cacheFolder) create(name string, schema *arrow.Schema) (*parquetWriter, error) {
	path := filepath.Join(c.dir, name+"-"+strconv.FormatUint(c.next.Add(1), 10)+".parquet")
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	w, err := pqarrow.NewFileWriter(schema, f,
		parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(snapshotRowGroup)),
		pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close(), removeIfThere(path))
	}
	return &parquetWriter{path: path, schema: schema, w: w}, nil
}

// parquetWriter writes one file in batches. What is in memory is a row group as it is encoded. The file is not synced: what it holds is made again
// from the catalog.
type parquetWriter struct {
	path   string
	schema *arrow.Schema
	w      *pqarrow.FileWriter // nil when it is finished or aborted
	rows   int64
}

func (w *parquetWriter) write(batch arrow.RecordBatch) error {
	if batch.NumRows() == 0 {
		return nil
	}
	if err := w.w.WriteBuffered(batch); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	w.rows += batch.NumRows()
	return nil
}

// writeGroup writes a batch as a row group of its own. Rows so large that a row group of the usual length would not fit into memory are
// written so.
func (w *parquetWriter) writeGroup(batch arrow.RecordBatch) error {
	if batch.NumRows() == 0 {
		return nil
	}
	if err := w.w.Write(batch); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	w.rows += batch.NumRows()
	return nil
}

// finish returns the file with one reference.
func (w *parquetWriter) finish() (*cachedFile, error) {
	err := w.w.Close() // closes the file
	w.w = nil
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", w.path, err), removeIfThere(w.path))
	}
	f := &cachedFile{path: w.path}
	f.refs.Store(1)
	return f, nil
}

// abort removes the file unless it is finished.
func (w *parquetWriter) abort() {
	if w.w == nil {
		return
	}
	_ = w.w.Close() // nobody reads it
	_ = removeIfThere(w.path)
	w.w = nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// cachedFile is a file that queries share. It is removed when the last reference is released.
type cachedFile struct {
	path string
	refs atomic.Int64
}

func (f *cachedFile) retain() { f.refs.Add(1) }

func (f *cachedFile) release() {
	if f.refs.Add(-1) == 0 {
		_ = os.Remove(f.path) // a file that cannot be removed now is removed at the next start
	}
}

// columnBuilder appends values to the columns of one batch. Values are given column by column in the schema's order, so
// that a table's rows read like its definition.
type columnBuilder struct {
	b  *array.RecordBuilder
	at int
}

func newColumnBuilder(schema *arrow.Schema, rows int) *columnBuilder {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	b.Reserve(rows)
	return &columnBuilder{b: b}
}

// batch returns what was appended and frees the builder.
func (c *columnBuilder) batch() arrow.RecordBatch {
	defer c.b.Release()
	return c.b.NewRecordBatch()
}

// field returns the builder of the next column.
func (c *columnBuilder) field() array.Builder {
	f := c.b.Field(c.at)
	c.at = (c.at + 1) % len(c.b.Fields())
	return f
}

func (c *columnBuilder) text(s string) {
	switch f := c.field().(type) {
	case *array.StringBuilder:
		f.Append(s)
	case *array.ExtensionBuilder:
		f.Builder.(*array.StringBuilder).Append(s)
	default:
		panic(fmt.Sprintf("query: text for a column of %s", f.Type()))
	}
}

func (c *columnBuilder) bytes(b []byte) {
	if b == nil {
		b = []byte{}
	}
	c.field().(*array.BinaryBuilder).Append(b)
}

func (c *columnBuilder) time(ns int64) {
	c.field().(*array.TimestampBuilder).Append(arrow.Timestamp(ns))
}

// timeUnless appends NULL when there is none.
func (c *columnBuilder) timeUnless(none bool, ns int64) {
	if none {
		c.null()
		return
	}
	c.time(ns)
}

func (c *columnBuilder) int64(v int64) { c.field().(*array.Int64Builder).Append(v) }

func (c *columnBuilder) uint32(v uint32) { c.field().(*array.Uint32Builder).Append(v) }

func (c *columnBuilder) int32(v int32) { c.field().(*array.Int32Builder).Append(v) }

func (c *columnBuilder) null() { c.field().AppendNull() }

func (c *columnBuilder) texts(list []string) {
	f := c.field().(*array.ListBuilder)
	f.Append(true)
	items := f.ValueBuilder().(*array.StringBuilder)
	for _, s := range list {
		items.Append(s)
	}
}
