package engine

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	duckdb "github.com/duckdb/duckdb-go-bindings"
)

// column turns DuckDB vectors into one Arrow array. bind shows it the vector of the next chunk,
// append copies rows of that vector, finish makes the array of all rows since the last finish.
//
// Vectors of a result are flat: the rows lie in memory one after the other, fixed-width values
// as Arrow has them, texts as stringT. A NULL row's value is undefined and must not be read.
type column interface {
	bind(v duckdb.Vector)
	// size returns the bytes of text in rows, to bound batches; 0 for fixed widths.
	size(from, n int) int
	append(from, n int) *Error
	// finish returns data that the caller must release.
	finish() *array.Data
}

// vector is the bound chunk and the rows that were appended, common to all columns.
type vector struct {
	data  unsafe.Pointer
	valid unsafe.Pointer // bit mask of valid rows; nil = all

	rows  int
	nulls int
	bits  []byte // Arrow's mask; nil as long as no row was NULL
}

func (v *vector) bind(d duckdb.Vector) {
	v.data, v.valid = duckdb.VectorGetData(d), duckdb.VectorGetValidity(d)
}

func (v *vector) size(_, _ int) int { return 0 }

func (v *vector) isNull(row int) bool { return v.valid != nil && !bitSet(v.valid, row) }

// appendValidity counts n rows and copies their mask.
func (v *vector) appendValidity(from, n int) {
	if v.valid == nil {
		if v.bits != nil {
			v.bits = appendOnes(v.bits, v.rows, n)
		}
		v.rows += n
		return
	}
	if v.bits == nil {
		v.bits = appendOnes(make([]byte, 0, batchRows/8), 0, v.rows)
	}
	for i := from; i < from+n; i++ {
		if v.rows&7 == 0 {
			v.bits = append(v.bits, 0)
		}
		if bitSet(v.valid, i) {
			v.bits[v.rows>>3] |= 1 << (v.rows & 7)
		} else {
			v.nulls++
		}
		v.rows++
	}
}

// appendOnes appends n set bits to a mask of rows bits.
func appendOnes(bits []byte, rows, n int) []byte {
	for ; n > 0 && rows&7 != 0; n-- {
		bits[rows>>3] |= 1 << (rows & 7)
		rows++
	}
	for ; n >= 8; n -= 8 {
		bits = append(bits, 0xff)
	}
	if n > 0 {
		bits = append(bits, 1<<n-1)
	}
	return bits
}

// markNull makes the last appended row but back NULL.
func (v *vector) markNull(row int) {
	if v.bits == nil {
		v.bits = appendOnes(make([]byte, 0, batchRows/8), 0, v.rows)
	}
	if v.bits[row>>3]>>(row&7)&1 != 0 {
		v.bits[row>>3] &^= 1 << (row & 7)
		v.nulls++
	}
}

// take makes an array's data of the rows so far and the given buffers after the mask.
func (v *vector) take(t arrow.DataType, children []arrow.ArrayData, buffers ...[]byte) *array.Data {
	all := make([]*memory.Buffer, 1, 1+len(buffers))
	if v.nulls > 0 {
		all[0] = memory.NewBufferBytes(v.bits)
	}
	for _, b := range buffers {
		all = append(all, memory.NewBufferBytes(b))
	}
	data := array.NewData(t, v.rows, all, children, v.nulls, 0)
	v.rows, v.nulls, v.bits = 0, 0, nil
	return data
}

// raw returns the memory of n values of a width.
func (v *vector) raw(from, n, width int) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(v.data, from*width)), n*width)
}

// room is the capacity in rows to begin a batch with, given the rows of its first chunk: a chunk
// that is not full usually is the only one.
func room(n int) int {
	if n < chunkRows {
		return n
	}
	return batchRows + chunkRows
}

// fixed copies values that Arrow stores the same way.
type fixed struct {
	vector
	t     arrow.DataType
	width int
	buf   []byte
}

func (c *fixed) append(from, n int) *Error {
	if c.buf == nil {
		c.buf = make([]byte, 0, room(n)*c.width)
	}
	c.appendValidity(from, n)
	c.buf = append(c.buf, c.raw(from, n, c.width)...)
	return nil
}

func (c *fixed) finish() *array.Data {
	buf := c.buf
	c.buf = nil
	return c.take(c.t, nil, buf)
}

// boolean packs bytes into bits.
type boolean struct {
	vector
	buf []byte
}

func (c *boolean) append(from, n int) *Error {
	for i, b := range c.raw(from, n, 1) {
		row := c.rows + i
		if row&7 == 0 {
			c.buf = append(c.buf, 0)
		}
		if b != 0 {
			c.buf[row>>3] |= 1 << (row & 7)
		}
	}
	c.appendValidity(from, n)
	return nil
}

func (c *boolean) finish() *array.Data {
	buf := c.buf
	c.buf = nil
	return c.take(arrow.FixedWidthTypes.Boolean, nil, buf)
}

// mapped computes each value of type To from one of type From; ok false makes it NULL.
type mapped[From, To any] struct {
	vector
	t       arrow.DataType
	convert func(From) (to To, ok bool, err *Error)
	buf     []To
}

func (c *mapped[From, To]) append(from, n int) *Error {
	first := c.rows
	c.appendValidity(from, n)
	values := unsafe.Slice((*From)(c.data), from+n)
	for i := from; i < from+n; i++ {
		var to To
		if !c.isNull(i) {
			v, ok, err := c.convert(values[i])
			if err != nil {
				return err
			}
			if !ok {
				c.markNull(first + i - from)
			}
			to = v
		}
		c.buf = append(c.buf, to)
	}
	return nil
}

func (c *mapped[From, To]) finish() *array.Data {
	var zero To
	buf := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(c.buf))), len(c.buf)*int(unsafe.Sizeof(zero)))
	c.buf = nil
	return c.take(c.t, nil, buf)
}

// scaled multiplies a timestamp to nanoseconds; what overflows, infinities too, is NULL.
func scaled(factor int64) func(int64) (int64, bool, *Error) {
	limit := int64(math.MaxInt64) / factor
	return func(v int64) (int64, bool, *Error) {
		return v * factor, v <= limit && v >= -limit, nil
	}
}

// huge is DuckDB's 128-bit integer.
type huge struct {
	lower uint64
	upper int64
}

func (h huge) float() float64 { return float64(h.upper)*(1<<64) + float64(h.lower) }

// hugeToInt is for sums of integers, whose type is HUGEINT although they rarely need it.
func hugeToInt(h huge) (int64, bool, *Error) {
	if h.upper != int64(h.lower)>>63 {
		return 0, false, &Error{Class: Execution, Message: "integer result is out of the range of Int64", Position: -1}
	}
	return int64(h.lower), true, nil
}

func uhugeToInt(h huge) (int64, bool, *Error) {
	if h.upper != 0 || h.lower > math.MaxInt64 {
		return hugeToInt(huge{0, 1})
	}
	return int64(h.lower), true, nil
}

// interval is DuckDB's.
type interval struct {
	months, days int32
	micros       int64
}

func intervalToArrow(i interval) (arrow.MonthDayNanoInterval, bool, *Error) {
	ok := i.micros <= math.MaxInt64/1000 && i.micros >= math.MinInt64/1000
	return arrow.MonthDayNanoInterval{Months: i.months, Days: i.days, Nanoseconds: i.micros * 1000}, ok, nil
}

const (
	nanosPerDay  = 24 * 3600 * 1e9
	daysPerMonth = 30 // as DuckDB counts when it compares intervals
)

func intervalToDuration(i interval) (int64, bool, *Error) {
	days := int64(i.months)*daysPerMonth + int64(i.days)
	total := float64(days)*nanosPerDay + float64(i.micros)*1000
	return days*nanosPerDay + i.micros*1000, math.Abs(total) < math.MaxInt64, nil
}

// uuidBytes undoes DuckDB's flipped top bit and gives the 16 bytes.
func uuidText(h huge) string {
	upper := uint64(h.upper) ^ 1<<63
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", upper>>32, upper>>16&0xffff, upper&0xffff, h.lower>>48, h.lower&(1<<48-1))
}

// null is a column without a type.
type null struct{ vector }

func (c *null) append(_, n int) *Error {
	c.rows += n
	return nil
}

func (c *null) finish() *array.Data {
	n := c.rows
	c.rows = 0
	return array.NewData(arrow.Null, n, []*memory.Buffer{nil}, nil, n, 0)
}

// list is a LIST, MAP or, with a size, an ARRAY. The child's rows are copied in the lists' order.
type list struct {
	vector
	t       arrow.DataType
	array   int // elements of each ARRAY; 0 for lists
	child   column
	offsets []int32
}

func (c *list) bind(d duckdb.Vector) {
	if c.array > 0 {
		c.valid = duckdb.VectorGetValidity(d)
		c.child.bind(duckdb.ArrayVectorGetChild(d))
		return
	}
	c.vector.bind(d)
	c.child.bind(duckdb.ListVectorGetChild(d))
}

// entry returns a row's elements.
func (c *list) entry(row int) (from, n int) {
	if c.isNull(row) {
		return 0, 0
	}
	if c.array > 0 {
		return row * c.array, c.array
	}
	e := (*[2]uint64)(unsafe.Add(c.data, 16*row))
	return int(e[0]), int(e[1])
}

// elementSize is what an element of a list counts in size beside its texts: lists make rows
// large without any text.
const elementSize = 8

func (c *list) size(from, n int) int {
	total := 0
	for i := from; i < from+n; i++ {
		at, length := c.entry(i)
		if length > 0 {
			total += c.child.size(at, length) + elementSize*length
		}
	}
	return total
}

func (c *list) append(from, n int) *Error {
	c.appendValidity(from, n)
	if c.offsets == nil {
		c.offsets = append(c.offsets, 0)
	}
	// Neighbours in the child vector are copied together.
	begin, end := 0, 0
	last := int64(c.offsets[len(c.offsets)-1])
	for i := from; i < from+n; i++ {
		at, length := c.entry(i)
		if length > 0 {
			if at != end {
				if err := c.appendChild(begin, end); err != nil {
					return err
				}
				begin, end = at, at
			}
			end += length
		}
		if last += int64(length); last > math.MaxInt32 {
			return tooLarge()
		}
		c.offsets = append(c.offsets, int32(last))
	}
	return c.appendChild(begin, end)
}

func (c *list) appendChild(begin, end int) *Error {
	if begin == end {
		return nil
	}
	return c.child.append(begin, end-begin)
}

func tooLarge() *Error {
	return &Error{Class: Resource, Message: "a row is too large to send", Position: -1}
}

func (c *list) finish() *array.Data {
	if c.offsets == nil {
		c.offsets = []int32{0}
	}
	child := c.child.finish()
	defer child.Release()
	offsets := arrow.Int32Traits.CastToBytes(c.offsets)
	c.offsets = nil
	return c.take(c.t, []arrow.ArrayData{child}, offsets)
}

// structure is a STRUCT.
type structure struct {
	vector
	t        arrow.DataType
	children []column
}

func (c *structure) bind(d duckdb.Vector) {
	c.valid = duckdb.VectorGetValidity(d)
	for i, child := range c.children {
		child.bind(duckdb.StructVectorGetChild(d, duckdb.IdxT(i)))
	}
}

func (c *structure) size(from, n int) int {
	total := 0
	for _, child := range c.children {
		total += child.size(from, n)
	}
	return total
}

func (c *structure) append(from, n int) *Error {
	c.appendValidity(from, n)
	for _, child := range c.children {
		if err := child.append(from, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *structure) finish() *array.Data {
	children := make([]arrow.ArrayData, len(c.children))
	for i, child := range c.children {
		data := child.finish()
		defer data.Release()
		children[i] = data
	}
	return c.take(c.t, children)
}
