package frozen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	createdBy = "micromegas-go"
	// zstdLevel 1: block ids are two thirds of a file, and no level makes random digits smaller.
	zstdLevel = 1
	// maxDictionary keeps the dictionary of a row group whole: 64 k ids or keys of packs.
	maxDictionary = 16 << 20
)

// File is a complete file, and its row of the catalog but for View, Level, Bucket and Key.
type File struct {
	Data []byte
	Row  catalog.FrozenFile
}

// Writer makes one file. It holds the file and the rows of a row group, and is for one goroutine.
type Writer struct {
	buf   bytes.Buffer
	out   *file.Writer
	index index
	rows  []catalog.BlockRow // of the row group under way
	full  int                // rows of a whole row group
	sum   catalog.FrozenFile
	last  catalog.BlockKey

	texts []parquet.ByteArray
	arena []byte
	ints  []int64
	short []int32
}

// NewWriter returns a Writer of an empty file.
func NewWriter() (*Writer, error) {
	root, err := fileSchema()
	if err != nil {
		return nil, fmt.Errorf("schema of a frozen file: %w", err)
	}
	opts := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_LATEST), parquet.WithDataPageVersion(parquet.DataPageV1), parquet.WithCreatedBy(createdBy),
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(zstdLevel), parquet.WithDictionaryPageSizeLimit(maxDictionary),
	}
	for _, c := range columns {
		switch c.kind {
		case plainText:
			opts = append(opts, parquet.WithDictionaryFor(c.name, false))
		case timestamp, wide:
			opts = append(opts, parquet.WithDictionaryFor(c.name, false), parquet.WithEncodingFor(c.name, parquet.Encodings.DeltaBinaryPacked))
		case dictText, narrow:
		}
	}
	w := &Writer{full: GroupRows, index: index{Version: Version}}
	w.sum = catalog.FrozenFile{
		Partition: catalog.Partition{
			MinTime: math.MaxInt64, MinInsert: math.MaxInt64, MaxInsert: math.MinInt64, SchemaVer: Version, Procs: make([]byte, catalog.ProcessBitmapBytes),
		},
		MaxBegin: math.MinInt64, MaxEnd: math.MinInt64,
	}
	w.out, err = file.NewParquetWriterWithError(&w.buf, root, file.WithWriterProps(parquet.NewWriterProperties(opts...)))
	if err != nil {
		return nil, fmt.Errorf("begin a frozen file: %w", err)
	}
	return w, nil
}

// Rows returns the number of rows that were appended.
func (w *Writer) Rows() int64 { return w.sum.Rows }

// Append adds rows, whose keys must rise strictly, also from call to call. They are not kept.
func (w *Writer) Append(rows ...catalog.BlockRow) error {
	for i := range rows {
		k := rows[i].BlockKey()
		if w.sum.Rows > 0 && w.last.Compare(k) >= 0 {
			return fmt.Errorf("row %v follows %v", k, w.last)
		}
		if w.sum.Rows == 0 {
			w.sum.FirstStream = k.StreamID
		}
		w.last = k
		w.add(&rows[i])
		if w.rows = append(w.rows, rows[i]); len(w.rows) == w.full {
			if err := w.group(); err != nil {
				return err
			}
		}
	}
	return nil
}

// add takes a row into the summary.
func (w *Writer) add(b *catalog.BlockRow) {
	s := &w.sum
	s.Rows++
	s.MinTime, s.MaxBegin, s.MaxEnd = min(s.MinTime, b.BeginTime), max(s.MaxBegin, b.BeginTime), max(s.MaxEnd, b.EndTime, b.BeginTime)
	s.MinInsert, s.MaxInsert = min(s.MinInsert, b.InsertTime), max(s.MaxInsert, b.InsertTime)
	bit := catalog.ProcessBit(b.ProcessID)
	s.Procs[bit>>3] |= 1 << (bit & 7)
}

// Finish completes the file, which must have rows. The Writer is of no use afterwards.
func (w *Writer) Finish() (File, error) {
	if w.sum.Rows == 0 {
		return File{}, errors.New("a frozen file without rows")
	}
	if len(w.rows) > 0 {
		if err := w.group(); err != nil {
			return File{}, err
		}
	}
	meta, err := json.Marshal(w.index)
	if err != nil {
		return File{}, err
	}
	if err := w.out.AppendKeyValueMetadata(metaKey, string(meta)); err != nil {
		return File{}, fmt.Errorf("index of a frozen file: %w", err)
	}
	body := w.buf.Len()
	if err := w.out.Close(); err != nil {
		return File{}, fmt.Errorf("finish a frozen file: %w", err)
	}
	f := File{Data: w.buf.Bytes(), Row: w.sum}
	f.Row.LastStream = w.last.StreamID
	f.Row.MaxTime = max(f.Row.MaxInsert, f.Row.MinTime)
	f.Row.Size, f.Row.TailSize = int64(len(f.Data)), int64(len(f.Data)-body)
	f.Row.TailCRC = crc32.Checksum(f.Data[body:], castagnoli)
	return f, nil
}

// group writes the row group under way.
func (w *Writer) group() error {
	g := indexGroup{
		First: indexKeyOf(w.rows[0].BlockKey()), Last: indexKeyOf(w.rows[len(w.rows)-1].BlockKey()),
		MinBegin: math.MaxInt64, MaxBegin: math.MinInt64, MaxEnd: math.MinInt64, CRC: make([]uint32, numColumns),
	}
	for i := range w.rows {
		b := &w.rows[i]
		g.MinBegin, g.MaxBegin, g.MaxEnd = min(g.MinBegin, b.BeginTime), max(g.MaxBegin, b.BeginTime), max(g.MaxEnd, b.EndTime, b.BeginTime)
	}
	group, err := w.out.AppendRowGroupChecked()
	if err != nil {
		return fmt.Errorf("begin a row group: %w", err)
	}
	for i := range columns {
		begin := w.buf.Len()
		if err := w.column(group, i); err != nil {
			return fmt.Errorf("column %s: %w", columns[i].name, err)
		}
		g.CRC[i] = crc32.Checksum(w.buf.Bytes()[begin:], castagnoli)
	}
	if err := group.Close(); err != nil {
		return fmt.Errorf("finish a row group: %w", err)
	}
	w.index.Groups = append(w.index.Groups, g)
	clear(w.rows)
	w.rows = w.rows[:0]
	return nil
}

func (w *Writer) column(group file.SerialRowGroupWriter, i int) error {
	chunk, err := group.NextColumn()
	if err != nil {
		return err
	}
	switch c := chunk.(type) {
	case *file.ByteArrayColumnChunkWriter:
		_, err = c.WriteBatch(w.textsOf(i), nil, nil)
	case *file.Int64ColumnChunkWriter:
		w.ints = w.ints[:0]
		for r := range w.rows {
			w.ints = append(w.ints, int64Value(&w.rows[r], i))
		}
		_, err = c.WriteBatch(w.ints, nil, nil)
	case *file.Int32ColumnChunkWriter:
		w.short = w.short[:0]
		for r := range w.rows {
			w.short = append(w.short, *int32Of(&w.rows[r], i))
		}
		_, err = c.WriteBatch(w.short, nil, nil)
	default:
		err = fmt.Errorf("unknown writer %T", chunk)
	}
	return errors.Join(err, chunk.Close())
}

// textsOf returns the values of a column of text.
func (w *Writer) textsOf(i int) []parquet.ByteArray {
	w.texts, w.arena = w.texts[:0], w.arena[:0]
	ends := w.short[:0] // the buffer moves while it grows
	for r := range w.rows {
		b := &w.rows[r]
		switch i {
		case colStream:
			w.arena = b.StreamID.AppendText(w.arena)
		case colBlock:
			w.arena = b.ID.AppendText(w.arena)
		case colProcess:
			w.arena = b.ProcessID.AppendText(w.arena)
		case colPackKey:
			w.arena = append(w.arena, b.PackKey...)
		default:
			w.arena = append(w.arena, b.Shard.Class)
		}
		ends = append(ends, int32(len(w.arena)))
	}
	begin := int32(0)
	for _, end := range ends {
		w.texts = append(w.texts, w.arena[begin:end:end])
		begin = end
	}
	w.short = ends
	return w.texts
}

// int64Value returns the value of a column of 64 bits.
func int64Value(b *catalog.BlockRow, i int) int64 {
	if i == colPackSeq {
		return int64(b.PackSeq)
	}
	return *int64Of(b, i)
}

// setInt64 is the opposite of int64Value.
func setInt64(b *catalog.BlockRow, i int, v int64) {
	if i == colPackSeq {
		b.PackSeq = uint64(v)
		return
	}
	*int64Of(b, i) = v
}

// int64Of returns where a row keeps the value of a signed column of 64 bits.
func int64Of(b *catalog.BlockRow, i int) *int64 {
	switch i {
	case colBegin:
		return &b.BeginTime
	case colBeginTicks:
		return &b.BeginTicks
	case colEnd:
		return &b.EndTime
	case colEndTicks:
		return &b.EndTicks
	case colObjectOffset:
		return &b.ObjectOffset
	case colPayloadSize:
		return &b.PayloadSize
	case colInsert:
		return &b.InsertTime
	case colPackOffset:
		return &b.PackOffset
	case colPackLength:
		return &b.PackLength
	}
	panic("frozen: no such column of 64 bits")
}

// int32Of returns where a row keeps the value of a column of 32 bits.
func int32Of(b *catalog.BlockRow, i int) *int32 {
	switch i {
	case colNbObjects:
		return &b.NbObjects
	case colGeneration:
		return &b.Shard.Gen
	case colShard:
		return &b.Shard.Shard
	}
	panic("frozen: no such column of 32 bits")
}
