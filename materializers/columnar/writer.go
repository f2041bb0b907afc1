package columnar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

const (
	// zstdLevel 1 wrote 1.3 M log rows/s at 12 B each, level 3 1.2 M at 9.3, LZ4 1.5 M at 21.
	zstdLevel = 1
	// maxPageBytes is where a data page of plain text or numbers ends, before compression.
	maxPageBytes = 1 << 20
	// maxStatBytes is the longest text that is written as a least or greatest value.
	maxStatBytes = 256
	// createdBy names the writer in the footer.
	createdBy = "micromegas-go"
)

var magic = []byte("PAR1")

// Writer makes Parquet files of one table, one after the other. It holds scratch memory, and is for one goroutine.
type Writer struct {
	table  *tables.Table
	schema *schema.Schema
	props  *parquet.WriterProperties

	sink      sink
	meta      *metadata.FileMetaDataBuilder
	rowGroups int16
	rows      int64

	local  []int32 // number in the row group's dictionary of each value + 1; all zero between columns
	used   []int32 // values of the row group's dictionary
	index  []int32
	ints   []int64
	values []int64
	page   []byte
	packed bytes.Buffer
	seen   intSet

	distinct distinct
}

// sink is the file being written.
type sink struct{ bytes.Buffer }

// Tell returns the number of bytes written.
func (s *sink) Tell() int64 { return int64(s.Len()) }

// NewWriter returns a writer of files of a table.
func NewWriter(t *tables.Table) (*Writer, error) {
	root, opts, err := fileSchema(t)
	if err != nil {
		return nil, fmt.Errorf("make schema of %s: %w", t.Name, err)
	}
	w := &Writer{table: t, schema: schema.NewSchema(root), props: parquet.NewWriterProperties(opts...)}
	w.Begin()
	return w, nil
}

// fileSchema returns the file's columns, and how they are encoded where not by dictionary.
func fileSchema(t *tables.Table) (*schema.GroupNode, []parquet.WriterProperty, error) {
	opts := []parquet.WriterProperty{
		parquet.WithVersion(parquet.V2_LATEST), parquet.WithDataPageVersion(parquet.DataPageV1), parquet.WithCreatedBy(createdBy),
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(zstdLevel),
	}
	nodes := make(schema.FieldList, len(t.Columns))
	for i := range t.Columns {
		c := &t.Columns[i]
		physical, logical := parquet.Types.ByteArray, schema.LogicalType(schema.StringLogicalType{})
		switch c.Type {
		case tables.Str, tables.DStr:
		case tables.DBin:
			logical = schema.JSONLogicalType{}
		case tables.TS:
			physical = parquet.Types.Int64
			logical = schema.NewTimestampLogicalType(false, schema.TimeUnitNanos)
		case tables.I64:
			physical, logical = parquet.Types.Int64, schema.NewIntLogicalType(64, true)
		case tables.I32:
			physical, logical = parquet.Types.Int32, schema.NewIntLogicalType(32, true)
		case tables.U32:
			physical, logical = parquet.Types.Int32, schema.NewIntLogicalType(32, false)
		case tables.Bool:
			physical, logical = parquet.Types.Boolean, schema.NoLogicalType{}
		case tables.Bin:
			logical = schema.NoLogicalType{}
		case tables.F64:
			physical, logical = parquet.Types.Double, schema.NoLogicalType{}
		default:
			return nil, nil, fmt.Errorf("column %s: type %s is not supported", c.Name, c.Type)
		}
		if physical == parquet.Types.Int64 || physical == parquet.Types.Int32 {
			opts = append(opts, parquet.WithEncodingFor(c.Name, parquet.Encodings.DeltaBinaryPacked))
		}
		node, err := schema.NewPrimitiveNodeLogical(c.Name, parquet.Repetitions.Required, logical, physical, -1, -1)
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
		nodes[i] = node
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, nodes, -1)
	return root, opts, err
}

// Begin starts a new file; one that was not finished is dropped.
func (w *Writer) Begin() {
	w.sink.Buffer = bytes.Buffer{} // the last file's bytes belong to its owner
	w.sink.Write(magic)
	w.meta = metadata.NewFileMetadataBuilder(w.schema, w.props, nil)
	w.rowGroups, w.rows = 0, 0
}

// Rows returns the number of rows written to the file so far, Bytes the size.
func (w *Writer) Rows() int64 { return w.rows }

// Bytes returns the size of the file so far, without its footer.
func (w *Writer) Bytes() int { return w.sink.Len() }

// WriteRowGroup appends one row group of the rows named in sel, in that order.
func (w *Writer) WriteRowGroup(rows *Rows, sel []int32) error {
	group := w.meta.AppendRowGroup()
	for i := range rows.Columns {
		chunk := group.NextColumnChunk()
		pager, err := file.NewPageWriter(&w.sink, compress.Codecs.Zstd, zstdLevel, chunk, w.rowGroups, int16(i), memory.DefaultAllocator, false, nil, nil)
		if err != nil {
			return fmt.Errorf("open column %s: %w", w.table.Columns[i].Name, err)
		}
		if err := w.writeColumn(chunk, pager, w.table.Columns[i].Type, &rows.Columns[i], sel); err != nil {
			return fmt.Errorf("write column %s: %w", w.table.Columns[i].Name, err)
		}
	}
	group.SetNumRows(len(sel))
	if err := group.Finish(0, w.rowGroups); err != nil {
		return fmt.Errorf("finish row group: %w", err)
	}
	w.rowGroups++
	w.rows += int64(len(sel))
	return nil
}

// Finish writes the footer and returns the file, which belongs to the caller. Begin must come next.
func (w *Writer) Finish() ([]byte, error) {
	meta, err := w.meta.Finish()
	if err != nil {
		return nil, fmt.Errorf("make footer: %w", err)
	}
	n, err := meta.WriteTo(&w.sink, nil)
	if err != nil {
		return nil, fmt.Errorf("write footer: %w", err)
	}
	w.sink.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	w.sink.Write(magic)
	return w.sink.Bytes(), nil
}

func (w *Writer) writeColumn(chunk *metadata.ColumnChunkMetaDataBuilder, pager file.PageWriter, t tables.Type, c *Column, sel []int32) error {
	switch c.Kind {
	case Text:
		return w.writeText(chunk, pager, t, c, sel)
	case Int:
		w.ints = w.ints[:0]
		for _, row := range sel {
			w.ints = append(w.ints, c.Ints[row])
		}
		if t == tables.Bool {
			return w.writeBools(chunk, pager)
		}
		return w.writeInts(chunk, pager, t)
	default:
		w.ints = w.ints[:0]
		for _, row := range sel {
			w.ints = append(w.ints, int64(math.Float64bits(c.Floats[row])))
		}
		return w.writeFloats(chunk, pager)
	}
}

// writeText writes a column of text: as a dictionary, unless the column is one whose values need not repeat, and they do not.
func (w *Writer) writeText(chunk *metadata.ColumnChunkMetaDataBuilder, pager file.PageWriter, t tables.Type, c *Column, sel []int32) error {
	w.localise(c, sel)
	w.release()
	if !t.Dictionary() && !w.recurs(t, c) {
		if err := w.writePlainText(pager, c, sel); err != nil {
			return err
		}
		return pager.Close(false, false)
	}
	if len(w.used) > 0 {
		chunk.SetStats(textStats(c, w.used))
	}
	w.page = w.page[:0]
	for _, id := range w.used {
		w.page = appendBytes(w.page, c.Dict.Value(id))
	}
	return w.writeDictionary(pager, len(w.used))
}

// maxDistinct: text that need not repeat is written as a dictionary when each value stands for this many rows or more. The engine
// looks at each value of a dictionary once.
const maxDistinct = 3

// recurs reports whether the values of w.index, which need not repeat, do so. It makes w.used their different values then.
func (w *Writer) recurs(t tables.Type, c *Column) bool {
	if limit := len(w.index) / maxDistinct; len(w.used) > limit {
		if !w.distinct.find(c, w.used, limit) {
			return false
		}
		for i, n := range w.index {
			w.index[i] = w.distinct.number[n]
		}
		w.used = append(w.used[:0], w.distinct.values...)
	}
	return t != tables.Bin || w.usedBytes(c) <= maxTextDictBytes
}

// usedBytes returns the size of the values in w.used.
func (w *Writer) usedBytes(c *Column) int {
	n := 0
	for _, id := range w.used {
		n += len(c.Dict.Value(id))
	}
	return n
}

// localise numbers the values that sel uses in order of first use, in w.used, and sets w.index.
func (w *Writer) localise(c *Column, sel []int32) {
	if need := c.Dict.Len() - len(w.local); need > 0 {
		w.local = append(w.local, make([]int32, need)...)
	}
	w.used, w.index = w.used[:0], w.index[:0]
	local, index, from := w.local, w.index, c.Index
	for _, row := range sel {
		id := from[row]
		n := local[id]
		if n == 0 {
			w.used = append(w.used, id)
			n = int32(len(w.used))
			local[id] = n
		}
		index = append(index, n-1)
	}
	w.index = index
}

// release undoes localise.
func (w *Writer) release() {
	for _, id := range w.used {
		w.local[id] = 0
	}
}

func (w *Writer) writePlainText(pager file.PageWriter, c *Column, sel []int32) error {
	w.page = w.page[:0]
	begin := 0
	for i, row := range sel {
		w.page = appendBytes(w.page, c.Dict.Value(c.Index[row]))
		if len(w.page) >= maxPageBytes || i == len(sel)-1 {
			if err := w.writePage(pager, parquet.Encodings.Plain, i+1-begin); err != nil {
				return err
			}
			w.page, begin = w.page[:0], i+1
		}
	}
	return nil
}

// writeDictionary writes w.page as the dictionary of n values, and w.index as the data.
func (w *Writer) writeDictionary(pager file.PageWriter, n int) error {
	dict := file.NewDictionaryPage(memory.NewBufferBytes(w.page), int32(n), parquet.Encodings.Plain)
	if _, err := pager.WriteDictionaryPage(dict); err != nil {
		return fmt.Errorf("dictionary page: %w", err)
	}
	w.page = appendIndices(w.page[:0], w.index, indexWidth(n))
	if err := w.writePage(pager, parquet.Encodings.RLEDict, len(w.index)); err != nil {
		return err
	}
	return pager.Close(true, false)
}

// writeInts writes w.ints: as a dictionary when they repeat, else as differences.
func (w *Writer) writeInts(chunk *metadata.ColumnChunkMetaDataBuilder, pager file.PageWriter, t tables.Type) error {
	chunk.SetStats(intStats(w.ints, t))
	appendValues := appendInt64s
	if narrow(t) {
		appendValues = appendInt32s
	}
	if w.repeated() {
		w.page = appendValues(w.page[:0], w.values)
		return w.writeDictionary(pager, len(w.values))
	}
	w.page = appendDelta(w.page[:0], w.ints, narrow(t))
	if err := w.writePage(pager, parquet.Encodings.DeltaBinaryPacked, len(w.ints)); err != nil {
		return err
	}
	return pager.Close(false, false)
}

// narrow reports whether numbers of a type have 32 bits in files.
func narrow(t tables.Type) bool { return t == tables.I32 || t == tables.U32 }

// writeBools writes w.ints, which are 0 or 1.
func (w *Writer) writeBools(chunk *metadata.ColumnChunkMetaDataBuilder, pager file.PageWriter) error {
	if len(w.ints) > 0 {
		chunk.SetStats(numberStats(uint64(slices.Min(w.ints)), uint64(slices.Max(w.ints)), 1))
	}
	w.page = appendBools(w.page[:0], w.ints)
	if err := w.writePage(pager, parquet.Encodings.Plain, len(w.ints)); err != nil {
		return err
	}
	return pager.Close(false, false)
}

// writeFloats writes w.ints, which are bits of floats: as a dictionary when they repeat, else plain.
func (w *Writer) writeFloats(chunk *metadata.ColumnChunkMetaDataBuilder, pager file.PageWriter) error {
	if stats, ok := floatStats(w.ints); ok {
		chunk.SetStats(stats)
	}
	if w.repeated() {
		w.page = appendInt64s(w.page[:0], w.values)
		return w.writeDictionary(pager, len(w.values))
	}
	for begin := 0; begin < len(w.ints); begin += maxPageBytes / 8 {
		part := w.ints[begin:min(len(w.ints), begin+maxPageBytes/8)]
		w.page = appendInt64s(w.page[:0], part)
		if err := w.writePage(pager, parquet.Encodings.Plain, len(part)); err != nil {
			return err
		}
	}
	return pager.Close(false, false)
}

// repeated reports whether w.ints are few values, and sets w.values and w.index then. It gives up when it has met more than one value in
// eight rows, and one in 256 of all rows beside: what repeats need not repeat at once.
func (w *Writer) repeated() bool {
	w.seen.reset()
	w.values, w.index = w.values[:0], w.index[:0]
	if len(w.ints) == 0 {
		return false
	}
	last, lastID := w.ints[0]+1, int32(0)
	for i, v := range w.ints {
		if v != last {
			id := w.seen.add(v, int32(len(w.values)))
			if int(id) == len(w.values) {
				if len(w.values) >= intSetMax || len(w.values) > 16+len(w.ints)/256+i/8 {
					return false
				}
				w.values = append(w.values, v)
			}
			last, lastID = v, id
		}
		w.index = append(w.index, lastID)
	}
	return true
}

// writePage compresses and writes w.page as a data page of n values.
func (w *Writer) writePage(pager file.PageWriter, encoding parquet.Encoding, n int) error {
	w.packed.Reset()
	body := pager.Compress(&w.packed, w.page)
	page := file.NewDataPageV1WithConfig(memory.NewBufferBytes(body), parquet.Encodings.RLE, parquet.Encodings.RLE, file.DataPageConfig{
		Num: int32(n), Encoding: encoding, UncompressedSize: int32(len(w.page)), FirstRowIndex: -1,
	})
	defer page.Release()
	if _, err := pager.WriteDataPage(page); err != nil {
		return fmt.Errorf("data page: %w", err)
	}
	return nil
}

// textStats returns the bounds of the values in used.
func textStats(c *Column, used []int32) metadata.EncodedStatistics {
	least, greatest := c.Dict.Value(used[0]), c.Dict.Value(used[0])
	for _, id := range used[1:] {
		v := c.Dict.Value(id)
		if bytes.Compare(v, least) < 0 {
			least = v
		}
		if bytes.Compare(v, greatest) > 0 {
			greatest = v
		}
	}
	s := metadata.EncodedStatistics{HasNullCount: true, HasMin: true, Min: bytes.Clone(least), HasMax: true, Max: bytes.Clone(greatest)}
	s.ApplyStatSizeLimits(maxStatBytes)
	return s
}

func intStats(values []int64, t tables.Type) metadata.EncodedStatistics {
	if len(values) == 0 {
		return metadata.EncodedStatistics{HasNullCount: true}
	}
	least, greatest := values[0], values[0]
	for _, v := range values {
		least, greatest = min(least, v), max(greatest, v)
	}
	width := 8
	if narrow(t) {
		width = 4
	}
	s := numberStats(uint64(least), uint64(greatest), width)
	s.Signed = t != tables.U32
	return s
}

// floatStats returns the bounds of floats given as bits; none when one is NaN. Zeros are bounded by -0 and +0.
func floatStats(values []int64) (metadata.EncodedStatistics, bool) {
	if len(values) == 0 {
		return metadata.EncodedStatistics{}, false
	}
	least, greatest := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		f := math.Float64frombits(uint64(v))
		if math.IsNaN(f) {
			return metadata.EncodedStatistics{}, false
		}
		least, greatest = min(least, f), max(greatest, f)
	}
	if least == 0 {
		least = math.Copysign(0, -1)
	}
	return numberStats(math.Float64bits(least), math.Float64bits(greatest+0), 8), true // -0 + 0 = +0
}

func numberStats(least, greatest uint64, width int) metadata.EncodedStatistics {
	return metadata.EncodedStatistics{
		HasNullCount: true, Signed: true,
		HasMin: true, Min: binary.LittleEndian.AppendUint64(nil, least)[:width],
		HasMax: true, Max: binary.LittleEndian.AppendUint64(nil, greatest)[:width],
	}
}

const (
	// intSetMax is how many different numbers a dictionary of numbers may have.
	intSetMax   = 1024
	intSetSlots = 4 * intSetMax
)

// intSet numbers integers in order of first use.
type intSet struct {
	keys  [intSetSlots]int64
	ids   [intSetSlots]int32 // number + 1; 0 = free
	taken []uint16
}

func (s *intSet) reset() {
	for _, slot := range s.taken {
		s.ids[slot] = 0
	}
	s.taken = s.taken[:0]
}

// add returns the number of v, which becomes next when v is new.
func (s *intSet) add(v int64, next int32) int32 {
	slot := uint64(v) * 0x9E3779B97F4A7C15 >> (64 - 12)
	for s.ids[slot] != 0 {
		if s.keys[slot] == v {
			return s.ids[slot] - 1
		}
		slot = (slot + 1) % intSetSlots
	}
	s.keys[slot], s.ids[slot] = v, next+1
	s.taken = append(s.taken, uint16(slot))
	return next
}
