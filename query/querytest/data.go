package querytest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Archive commits registrations and blocks as one step of an archive owner. The blocks' pack does not exist.
func (e *Env) Archive(t testing.TB, processes []catalog.ProcessReg, streams []catalog.StreamReg, blocks []catalog.BlockReg) {
	t.Helper()
	c := &catalog.ArchiveCommit{
		Shard: e.shard, From: e.seq, To: e.seq + 1, Epoch: 1,
		Pack:      &catalog.Pack{Shard: e.shard, FirstSeq: e.seq + 1, LastSeq: e.seq + 1, Key: fmt.Sprintf("packs/%d", e.seq), Size: 1},
		Processes: processes, Streams: streams, Blocks: blocks,
	}
	for { // no block comes twice, so a freeze meanwhile changes nothing
		files, err := e.Catalog.Frozen(t.Context(), 0, 0)
		if err == nil {
			c.Frozen = files.Version
			err = e.Catalog.CommitArchive(t.Context(), c)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, catalog.ErrFrozen) {
			t.Fatal(err)
		}
	}
	e.seq++
}

// View moves the views' checkpoint to archive's: blocks may be frozen from then on.
func (e *Env) View(t testing.TB) {
	t.Helper()
	at, err := e.Catalog.Checkpoint(t.Context(), catalog.ConsumerViews, e.shard)
	if err != nil {
		t.Fatal(err)
	}
	c := &catalog.ViewCommit{Consumer: catalog.ConsumerViews, Moves: []catalog.Move{{Shard: e.shard, From: at.Seq, To: e.seq, Epoch: 1}}}
	if _, err := e.Catalog.CommitView(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// Row is one row of a table: values by column name. A column without a value is NULL, or empty where it may not be NULL.
// Values are string, int64 (also times), int32, float64 or bool.
type Row map[string]any

// Partition writes rows as one file of a view and commits it. It returns the commit number.
func (e *Env) Partition(t testing.TB, view string, rows ...Row) int64 {
	t.Helper()
	table := tables.Must(view)
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.FileSchema())
	defer b.Release()
	p := catalog.Partition{
		View: view, Rows: int64(len(rows)), Procs: make([]byte, catalog.ProcessBitmapBytes),
		MinTime: math.MaxInt64, MaxTime: math.MinInt64, MinInsert: math.MaxInt64, MaxInsert: math.MinInt64,
	}
	for _, row := range rows {
		for i := range table.Columns {
			appendValue(t, b.Field(i), &table.Columns[i], row[table.Columns[i].Name])
		}
		p.MinTime = min(p.MinTime, row[table.Range.Begin].(int64))
		p.MaxTime = max(p.MaxTime, row[table.Range.End].(int64))
		insert, ok := row["insert_time"].(int64)
		if !ok {
			insert = p.MaxTime
		}
		p.MinInsert, p.MaxInsert = min(p.MinInsert, insert), max(p.MaxInsert, insert)
		id, err := telemetry.ParseID(row["process_id"].(string))
		if err != nil {
			t.Fatal(err)
		}
		bit := catalog.ProcessBit(id)
		p.Procs[bit>>3] |= 1 << (bit & 7)
	}
	batch := b.NewRecordBatch()
	defer batch.Release()
	return e.PartitionFile(t, p, batch)
}

// PartitionFile writes a batch as the file of a partition and commits it. The partition's key and size are set here.
func (e *Env) PartitionFile(t testing.TB, p catalog.Partition, batch arrow.RecordBatch) int64 {
	t.Helper()
	var file bytes.Buffer
	w, err := pqarrow.NewFileWriter(batch.Schema(), &file,
		parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(120_000)),
		pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.Key, p.Size = lake.ViewKey(p.View, p.MinTime, file.Bytes()), int64(file.Len())
	if err := e.Lake.Put(t.Context(), p.Key, file.Bytes()); err != nil {
		t.Fatal(err)
	}
	no, err := e.Catalog.CommitView(t.Context(), &catalog.ViewCommit{Consumer: catalog.ConsumerViews, Added: []catalog.Partition{p}})
	if err != nil {
		t.Fatal(err)
	}
	return no
}

func appendValue(t testing.TB, b array.Builder, c *tables.Column, v any) {
	t.Helper()
	if v == nil {
		if c.Nullable {
			b.AppendNull()
			return
		}
		v = zero(c.Type)
	}
	switch f := b.(type) {
	case *array.StringBuilder:
		f.Append(v.(string))
	case *array.BinaryDictionaryBuilder:
		check(t, f.AppendString(v.(string)))
	case *array.ExtensionBuilder:
		f.Builder.(*array.StringBuilder).Append(v.(string))
	case *array.TimestampBuilder:
		f.Append(arrow.Timestamp(v.(int64)))
	case *array.Int64Builder:
		f.Append(v.(int64))
	case *array.Int32Builder:
		f.Append(v.(int32))
	case *array.Float64Builder:
		f.Append(v.(float64))
	default:
		t.Fatalf("column %s: no values of %T", c.Name, b)
	}
}

func zero(c tables.Type) any {
	switch c {
	case tables.DBin:
		return "{}"
	case tables.TS, tables.I64:
		return int64(0)
	case tables.I32:
		return int32(0)
	case tables.F64:
		return float64(0)
	}
	return ""
}

// Cells returns the values of all rows as text, for comparisons.
func Cells(batches []arrow.RecordBatch) [][]string {
	var out [][]string
	for _, b := range batches {
		for row := range int(b.NumRows()) {
			cells := make([]string, b.NumCols())
			for i, c := range b.Columns() {
				cells[i] = c.ValueStr(row)
			}
			out = append(out, cells)
		}
	}
	return slices.Clip(out)
}
