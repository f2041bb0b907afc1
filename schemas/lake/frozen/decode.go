package frozen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// footer is what a file says of itself, checked.
type footer struct {
	key    string
	file   *file.Reader // knows the metadata; it reads nothing
	groups []group
}

// group is a row group.
type group struct {
	rows                       int64
	first, last                catalog.BlockKey
	minBegin, maxBegin, maxEnd int64
	begin, end                 []int64 // of the column chunks in the object
	crc                        []uint32
}

// parseFooter reads a footer from the end of an object.
func parseFooter(f *catalog.FrozenFile, tail []byte) (ft *footer, err error) {
	defer recovered(&err)
	if sum := crc32.Checksum(tail, castagnoli); sum != f.TailCRC {
		return nil, fmt.Errorf("checksum of the footer is %08x, not %08x", sum, f.TailCRC)
	}
	r, err := file.NewParquetReader(window{bytes.NewReader(tail), f.Size - f.TailSize})
	if err != nil {
		return nil, err
	}
	if n := r.MetaData().Schema.NumColumns(); n != numColumns {
		return nil, fmt.Errorf("%d columns, not %d", n, numColumns)
	}
	text := r.MetaData().KeyValueMetadata().FindValue(metaKey)
	if text == nil {
		return nil, errors.New("no index")
	}
	var x index
	if err := json.Unmarshal([]byte(*text), &x); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	if x.Version != Version || len(x.Groups) != r.NumRowGroups() || len(x.Groups) > maxGroups {
		return nil, fmt.Errorf("index of version %d with %d row groups of %d", x.Version, len(x.Groups), r.NumRowGroups())
	}
	ft = &footer{key: f.Key, file: r, groups: make([]group, len(x.Groups))}
	for g := range ft.groups {
		if err := ft.parseGroup(g, &x.Groups[g]); err != nil {
			return nil, fmt.Errorf("row group %d: %w", g, err)
		}
	}
	return ft, nil
}

func (ft *footer) parseGroup(g int, x *indexGroup) error {
	meta := ft.file.MetaData().RowGroup(g)
	out := group{rows: meta.NumRows(), minBegin: x.MinBegin, maxBegin: x.MaxBegin, maxEnd: x.MaxEnd, crc: x.CRC}
	if out.rows < 1 || out.rows > GroupRows || len(x.CRC) != numColumns || meta.NumColumns() != numColumns {
		return fmt.Errorf("%d rows, %d columns", out.rows, meta.NumColumns())
	}
	var err error
	if out.first, err = x.First.parse(); err != nil {
		return err
	}
	if out.last, err = x.Last.parse(); err != nil {
		return err
	}
	for i := range numColumns {
		c, err := meta.ColumnChunk(i)
		if err != nil {
			return err
		}
		begin := c.DataPageOffset()
		if c.HasDictionaryPage() {
			begin = min(begin, c.DictionaryPageOffset())
		}
		end := begin + c.TotalCompressedSize()
		if begin < 0 || end < begin || i > 0 && begin != out.end[i-1] {
			return fmt.Errorf("column %s lies at %d to %d", columns[i].name, begin, end)
		}
		out.begin, out.end = append(out.begin, begin), append(out.end, end)
	}
	ft.groups[g] = out
	return nil
}

func (k indexKey) parse() (out catalog.BlockKey, err error) {
	out.BeginTime = k.Begin
	if out.StreamID, err = telemetry.ParseID(k.Stream); err != nil {
		return out, err
	}
	out.BlockID, err = telemetry.ParseID(k.Block)
	return out, err
}

// window is the part of an object that was read, at its place.
type window struct {
	*bytes.Reader
	base int64
}

// ReadAt reads at an offset of the object.
func (w window) ReadAt(p []byte, off int64) (int, error) {
	if off < w.base {
		return 0, fmt.Errorf("%w: read at %d of what begins at %d", io.ErrUnexpectedEOF, off, w.base)
	}
	return w.Reader.ReadAt(p, off-w.base)
}

// Seek is asked for the end only: the object's.
func (w window) Seek(off int64, whence int) (int64, error) {
	n, err := w.Reader.Seek(off, whence)
	return n + w.base, err
}

// chunks are column chunks of a row group, as they lie in the object.
type chunks struct {
	*footer
	group int
	data  []byte
	base  int64
}

// check compares the checksums of the columns [from, to).
func (c *chunks) check(from, to int) error {
	g := &c.groups[c.group]
	for i := from; i < to; i++ {
		if sum := crc32.Checksum(c.data[g.begin[i]-c.base:g.end[i]-c.base], castagnoli); sum != g.crc[i] {
			return fmt.Errorf("checksum of column %s is %08x, not %08x", columns[i].name, sum, g.crc[i])
		}
	}
	return nil
}

// open returns a reader of the row group.
func (c *chunks) open() (*file.RowGroupReader, error) {
	r, err := file.NewParquetReader(window{bytes.NewReader(c.data), c.base}, file.WithMetadata(c.file.MetaData()))
	if err != nil {
		return nil, err
	}
	return r.RowGroup(c.group), nil
}

// keys decodes the key columns.
func (c *chunks) keys() (keys []catalog.BlockKey, err error) {
	defer recovered(&err)
	r, err := c.open()
	if err != nil {
		return nil, err
	}
	return readKeys(r)
}

func readKeys(r *file.RowGroupReader) ([]catalog.BlockKey, error) {
	keys := make([]catalog.BlockKey, r.NumRows())
	err := errors.Join(
		readTexts(r, colStream, func(row int, v []byte) (err error) {
			keys[row].StreamID, err = telemetry.ParseID(string(v))
			return err
		}),
		readInts(r, colBegin, func(row int, v int64) { keys[row].BeginTime = v }),
		readTexts(r, colBlock, func(row int, v []byte) (err error) {
			keys[row].BlockID, err = telemetry.ParseID(string(v))
			return err
		}),
	)
	return keys, err
}

// rows decodes the rows that choose names by their keys.
func (c *chunks) rows(choose func([]catalog.BlockKey) (from, to int)) (rows []catalog.BlockRow, err error) {
	defer recovered(&err)
	r, err := c.open()
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(r)
	if err != nil {
		return nil, err
	}
	from, to := choose(keys)
	if from >= to {
		return nil, nil
	}
	rows = make([]catalog.BlockRow, to-from)
	for i, k := range keys[from:to] {
		rows[i].StreamID, rows[i].BeginTime, rows[i].ID = k.StreamID, k.BeginTime, k.BlockID
	}
	for i := numKeyColumns; i < numColumns; i++ {
		if err := readColumn(r, i, rows, from); err != nil {
			return nil, fmt.Errorf("column %s: %w", columns[i].name, err)
		}
	}
	return rows, nil
}

// readColumn sets the values of a column in rows, of which the first is row from of the group.
func readColumn(r *file.RowGroupReader, i int, rows []catalog.BlockRow, from int) error {
	at := func(row int) *catalog.BlockRow {
		if row -= from; row >= 0 && row < len(rows) {
			return &rows[row]
		}
		return nil
	}
	switch columns[i].kind {
	case timestamp, wide:
		return readInts(r, i, func(row int, v int64) {
			if b := at(row); b != nil {
				setInt64(b, i, v)
			}
		})
	case narrow:
		return readInts(r, i, func(row int, v int64) {
			if b := at(row); b != nil {
				*int32Of(b, i) = int32(v)
			}
		})
	}
	shared := map[string]string{} // keys of packs stand in many rows
	return readTexts(r, i, func(row int, v []byte) (err error) {
		b := at(row)
		switch {
		case b == nil:
		case i == colProcess:
			b.ProcessID, err = telemetry.ParseID(string(v))
		case i == colPackKey:
			key, ok := shared[string(v)]
			if !ok {
				key = string(v)
				shared[key] = key
			}
			b.PackKey = key
		case len(v) == 1:
			b.Shard.Class = v[0]
		default:
			err = fmt.Errorf("class %q", v)
		}
		return err
	})
}

// readBatch is how many values are decoded at a time.
const readBatch = 4 << 10

// readInts calls set with each value of a column of numbers.
func readInts(r *file.RowGroupReader, i int, set func(row int, v int64)) error {
	chunk, err := r.Column(i)
	if err != nil {
		return err
	}
	switch c := chunk.(type) {
	case *file.Int64ColumnChunkReader:
		return readAll(r, c, make([]int64, readBatch), func(row int, v int64) error { set(row, v); return nil })
	case *file.Int32ColumnChunkReader:
		return readAll(r, c, make([]int32, readBatch), func(row int, v int32) error { set(row, int64(v)); return nil })
	}
	return fmt.Errorf("numbers of type %s", chunk.Type())
}

// readTexts calls set with each value of a column of text; the value is valid during the call only.
func readTexts(r *file.RowGroupReader, i int, set func(row int, v []byte) error) error {
	chunk, err := r.Column(i)
	if err != nil {
		return err
	}
	c, ok := chunk.(*file.ByteArrayColumnChunkReader)
	if !ok {
		return fmt.Errorf("text of type %s", chunk.Type())
	}
	return readAll(r, c, make([]parquet.ByteArray, readBatch), func(row int, v parquet.ByteArray) error { return set(row, v) })
}

// batches is a column reader of a type.
type batches[T any] interface {
	ReadBatch(batchSize int64, values []T, defLvls, repLvls []int16) (total int64, valuesRead int, err error)
}

func readAll[T any](r *file.RowGroupReader, c batches[T], buf []T, set func(row int, v T) error) error {
	row, rows := 0, int(min(r.NumRows(), math.MaxInt32))
	for row < rows {
		_, n, err := c.ReadBatch(int64(min(len(buf), rows-row)), buf, nil, nil)
		if err != nil {
			return err
		}
		if n <= 0 {
			return fmt.Errorf("%d values of %d", row, rows)
		}
		for _, v := range buf[:n] {
			if err := set(row, v); err != nil {
				return err
			}
			row++
		}
	}
	return nil
}

// recovered turns a panic of the Parquet library into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, fmt.Errorf("%v", r))
	}
}
