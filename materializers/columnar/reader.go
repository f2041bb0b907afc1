package columnar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// File is a Parquet file that a Writer made, open for reading.
type File struct {
	table *tables.Table
	file  *file.Reader
	ids   []int32 // scratch: numbers of the page's dictionary in the column's dictionary
	nums  []int64
	index []int32
}

// OpenFile opens a file of table t. It must not be used after data changes.
func OpenFile(t *tables.Table, data []byte) (f *File, err error) {
	defer recovered(&err)
	r, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("open file of %s: %w", t.Name, err)
	}
	sc := r.MetaData().Schema
	if sc.NumColumns() != len(t.Columns) {
		return nil, fmt.Errorf("open file of %s: %d columns, want %d", t.Name, sc.NumColumns(), len(t.Columns))
	}
	for i := range t.Columns {
		c := sc.Column(i)
		if c.Name() != t.Columns[i].Name || c.MaxDefinitionLevel() != 0 || c.MaxRepetitionLevel() != 0 || c.PhysicalType() != physicalType(t.Columns[i].Type) {
			return nil, fmt.Errorf("open file of %s: column %d is %s, want required %s", t.Name, i, c, t.Columns[i].Name)
		}
	}
	return &File{table: t, file: r}, nil
}

func physicalType(t tables.Type) parquet.Type {
	switch t {
	case tables.TS, tables.I64:
		return parquet.Types.Int64
	case tables.I32, tables.U32:
		return parquet.Types.Int32
	case tables.Bool:
		return parquet.Types.Boolean
	case tables.F64:
		return parquet.Types.Double
	}
	return parquet.Types.ByteArray
}

// maxRowGroupRows bounds what a damaged footer can make the reader allocate.
const maxRowGroupRows = 1 << 20

// RowGroups returns the number of row groups.
func (f *File) RowGroups() int { return f.file.NumRowGroups() }

// NumRows returns the number of rows.
func (f *File) NumRows() int64 { return f.file.NumRows() }

// ReadRowGroup appends the rows of row group g to rows. After an error rows is as before, but for values that no row uses.
func (f *File) ReadRowGroup(g int, rows *Rows) (err error) {
	before := rows.Len()
	defer func() {
		if err != nil {
			rows.Truncate(before)
		}
	}()
	defer recovered(&err)
	group := f.file.RowGroup(g)
	n := group.NumRows()
	if n < 0 || n > maxRowGroupRows {
		return fmt.Errorf("%w: row group of %d rows", errCorrupt, n)
	}
	rows.Grow(int(n))
	for i := range rows.Columns {
		pages, err := group.GetColumnPageReader(i)
		if err != nil {
			return fmt.Errorf("read column %s: %w", f.table.Columns[i].Name, err)
		}
		if err := f.readColumn(pages, f.table.Columns[i].Type, &rows.Columns[i], n); err != nil {
			return fmt.Errorf("read column %s: %w", f.table.Columns[i].Name, err)
		}
	}
	return nil
}

// recovered turns a panic of the Parquet library over damaged bytes into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = errors.Join(*err, fmt.Errorf("%w: %v", errCorrupt, r))
	}
}

// readColumn appends the n values of a column chunk.
func (f *File) readColumn(pages file.PageReader, t tables.Type, c *Column, n int64) error {
	f.ids, f.nums = f.ids[:0], f.nums[:0]
	left := n
	for pages.Next() {
		switch page := pages.Page().(type) {
		case *file.DictionaryPage:
			if err := f.readDictionary(page, t, c); err != nil {
				return err
			}
		case *file.DataPageV1:
			count := int64(page.NumValues())
			if count < 0 || count > left {
				return fmt.Errorf("%w: %d values, %d expected", errCorrupt, count, left)
			}
			if err := f.readPage(page, t, c, int(count)); err != nil {
				return err
			}
			left -= count
		default:
			return fmt.Errorf("%w: page of type %T", errCorrupt, page)
		}
	}
	if err := pages.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if left != 0 {
		return fmt.Errorf("%w: %d values are missing", errCorrupt, left)
	}
	return nil
}

func (f *File) readDictionary(page *file.DictionaryPage, t tables.Type, c *Column) error {
	n := int(page.NumValues())
	if c.Kind == Text {
		return readBytes(page.Data(), n, func(v []byte) { f.ids = append(f.ids, c.Dict.Intern(string(v))) })
	}
	var err error
	f.nums, err = readNumbers(f.nums, page.Data(), n, t)
	return err
}

// readNumbers appends n PLAIN numbers; floats as their bits.
func readNumbers(dst []int64, src []byte, n int, t tables.Type) ([]int64, error) {
	width := 8
	if narrow(t) {
		width = 4
	}
	if n < 0 || n > len(src)/width {
		return dst, fmt.Errorf("%w: %d numbers in %d bytes", errCorrupt, n, len(src))
	}
	for i := range n {
		if width == 4 {
			dst = append(dst, extend(int64(binary.LittleEndian.Uint32(src[4*i:])), t))
		} else {
			dst = append(dst, int64(binary.LittleEndian.Uint64(src[8*i:])))
		}
	}
	return dst, nil
}

// extend returns the number of a type whose low bits are in v.
func extend(v int64, t tables.Type) int64 {
	switch t {
	case tables.I32:
		return int64(int32(v))
	case tables.U32:
		return int64(uint32(v))
	}
	return v
}

func (f *File) readPage(page *file.DataPageV1, t tables.Type, c *Column, n int) (err error) {
	switch encoding := parquet.Encoding(page.Encoding()); {
	case encoding == parquet.Encodings.RLEDict && c.Kind == Text:
		from := len(c.Index)
		if c.Index, err = readIndices(c.Index, page.Data(), n, len(f.ids)); err != nil {
			return err
		}
		for i := from; i < len(c.Index); i++ {
			c.Index[i] = f.ids[c.Index[i]]
		}
	case encoding == parquet.Encodings.RLEDict:
		if f.index, err = readIndices(f.index[:0], page.Data(), n, len(f.nums)); err != nil {
			return err
		}
		for _, i := range f.index {
			c.number(f.nums[i])
		}
	case encoding == parquet.Encodings.DeltaBinaryPacked && c.Kind == Int:
		from := len(c.Ints)
		c.Ints, err = readDelta(c.Ints, page.Data(), n)
		if narrow(t) {
			for i := from; i < len(c.Ints); i++ {
				c.Ints[i] = extend(c.Ints[i], t)
			}
		}
	case encoding == parquet.Encodings.Plain && t == tables.Bool:
		c.Ints, err = readBools(c.Ints, page.Data(), n)
	case encoding == parquet.Encodings.Plain && c.Kind == Text:
		return readBytes(page.Data(), n, func(v []byte) { c.Index = append(c.Index, c.Dict.Append(string(v))) })
	case encoding == parquet.Encodings.Plain:
		from := len(f.nums)
		if f.nums, err = readNumbers(f.nums, page.Data(), n, t); err != nil {
			return err
		}
		for _, v := range f.nums[from:] {
			c.number(v)
		}
		f.nums = f.nums[:from]
	default:
		return fmt.Errorf("%w: encoding %s", errCorrupt, encoding)
	}
	return err
}

// number appends a number, given as bits for a Float column.
func (c *Column) number(v int64) {
	if c.Kind == Float {
		c.Floats = append(c.Floats, math.Float64frombits(uint64(v)))
		return
	}
	c.Ints = append(c.Ints, v)
}
