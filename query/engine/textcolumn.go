package engine

import (
	"math"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/micromegas-go/micromegas/query/functions/jsonb"
)

// texts is a vector of stringT.
type texts struct{ vector }

func (c *texts) at(row int) *stringT { return (*stringT)(unsafe.Add(c.data, 16*row)) }

func (c *texts) size(from, n int) int {
	total := 0
	for i := from; i < from+n; i++ {
		if !c.isNull(i) {
			total += int(uint32(c.at(i)[0]))
		}
	}
	return total
}

// buffers are the offsets and the bytes of an Arrow text array.
type buffers struct {
	offsets []int32
	data    []byte
	hint    int // bytes of the last batch: the next one is likely to be as large
}

// begin makes room when n rows begin a batch.
func (b *buffers) begin(n int) {
	if b.offsets == nil {
		b.offsets = append(make([]int32, 0, room(n)+1), 0)
		b.data = make([]byte, 0, b.hint)
	}
}

func (b *buffers) take() (offsets, data []byte) {
	b.begin(0)
	offsets, data = arrow.Int32Traits.CastToBytes(b.offsets), b.data
	b.hint = len(data) + len(data)/8
	b.offsets, b.data = nil, nil
	return offsets, data
}

// text copies VARCHAR to Utf8 and BLOB to Binary.
type text struct {
	texts
	buffers
	t arrow.DataType
}

func (c *text) append(from, n int) *Error {
	c.begin(n)
	c.appendValidity(from, n)
	data, offsets := c.data, c.offsets
	values := unsafe.Slice((*stringT)(c.texts.data), from+n)
	for i := from; i < from+n; i++ {
		if c.valid == nil || bitSet(c.valid, i) {
			data = append(data, values[i].text()...)
		}
		offsets = append(offsets, int32(len(data)))
	}
	c.data, c.offsets = data, offsets
	if len(data) > math.MaxInt32 {
		return tooLarge()
	}
	return nil
}

func (c *text) finish() *array.Data {
	offsets, data := c.buffers.take()
	return c.vector.take(c.t, nil, offsets, data)
}

// printed makes Utf8 of values that print as text: UUID, ENUM.
type printed[From any] struct {
	vector
	buffers
	print func(From) string
}

func (c *printed[From]) append(from, n int) *Error {
	c.begin(n)
	c.appendValidity(from, n)
	values := unsafe.Slice((*From)(c.vector.data), from+n)
	for i := from; i < from+n; i++ {
		if !c.isNull(i) {
			c.buffers.data = append(c.buffers.data, c.print(values[i])...)
		}
		c.offsets = append(c.offsets, int32(len(c.buffers.data)))
	}
	return nil
}

func (c *printed[From]) finish() *array.Data {
	offsets, data := c.buffers.take()
	return c.vector.take(arrow.BinaryTypes.String, nil, offsets, data)
}

// fixedBinary copies BLOBs that all have the same length.
type fixedBinary struct {
	texts
	t   *arrow.FixedSizeBinaryType
	buf []byte
}

func (c *fixedBinary) append(from, n int) *Error {
	c.appendValidity(from, n)
	for i := from; i < from+n; i++ {
		if c.isNull(i) {
			c.buf = append(c.buf, make([]byte, c.t.ByteWidth)...)
			continue
		}
		s := c.at(i).text()
		if len(s) != c.t.ByteWidth {
			return internalError("a binary value has %d bytes, its column %d", len(s), c.t.ByteWidth)
		}
		c.buf = append(c.buf, s...)
	}
	return nil
}

func (c *fixedBinary) finish() *array.Data {
	buf := c.buf
	c.buf = nil
	return c.take(c.t, nil, buf)
}

// encoder makes a value's bytes of a stored text.
type encoder func(dst []byte, text string) ([]byte, error)

func verbatim(dst []byte, text string) ([]byte, error) { return append(dst, text...), nil }

// binaryJSON is the encoder of JSON columns. A JSON value that is no document (DuckDB may hold
// any text under that type) becomes a JSON string.
func binaryJSON(dst []byte, text string) ([]byte, error) {
	out, err := jsonb.AppendText(dst, text)
	if err == nil {
		return out, nil
	}
	v := jsonb.StringValue(text)
	return jsonb.Append(dst, &v)
}

const (
	// internSlots is the size of an interner's table of a chunk's pointers, a power of two.
	internSlots = 256
	// internBytes bounds the values that an interner keeps over batches.
	internBytes = 1 << 20
)

// interner numbers distinct texts and keeps their encoded values. A column read from Parquet
// dictionaries repeats the same pointers within a chunk, so most rows cost one comparison.
type interner struct {
	encode encoder
	slots  []internSlot
	chunk  uint32 // pointers of other chunks mean nothing

	ids    map[string]int32
	ends   []int32
	values []byte
}

type internSlot struct {
	key   stringT
	chunk uint32
	id    int32
}

func (n *interner) nextChunk() {
	if n.slots == nil {
		n.slots = make([]internSlot, internSlots)
		n.ids = make(map[string]int32)
	}
	n.chunk++
}

func (n *interner) reset() {
	clear(n.ids)
	n.ends, n.values = nil, nil
	n.chunk++ // ids in the slots are gone
}

func (n *interner) id(s *stringT) (int32, *Error) {
	key := *s
	slot := &n.slots[hashText(key, stringT{})&(internSlots-1)]
	if slot.chunk == n.chunk && slot.key == key {
		return slot.id, nil
	}
	content := s.text()
	id, ok := n.ids[content]
	if !ok {
		var err error
		if n.values, err = n.encode(n.values, content); err != nil {
			return 0, &Error{Class: Resource, Message: "encode JSON: " + err.Error(), Position: -1, cause: err}
		}
		if len(n.values) > math.MaxInt32 {
			return 0, tooLarge()
		}
		id = int32(len(n.ends))
		n.ends = append(n.ends, int32(len(n.values)))
		n.ids[string([]byte(content))] = id
	}
	*slot = internSlot{key, n.chunk, id}
	return id, nil
}

func (n *interner) value(id int32) []byte {
	begin := int32(0)
	if id > 0 {
		begin = n.ends[id-1]
	}
	return n.values[begin:n.ends[id]]
}

// encoded copies texts to Binary through an encoder.
type encoded struct {
	texts
	buffers
	interner
}

func (c *encoded) bind(d duckdb.Vector) {
	c.texts.bind(d)
	c.nextChunk()
}

func (c *encoded) append(from, n int) *Error {
	c.begin(n)
	c.appendValidity(from, n)
	for i := from; i < from+n; i++ {
		if !c.isNull(i) {
			id, err := c.id(c.at(i))
			if err != nil {
				return err
			}
			c.data = append(c.data, c.value(id)...)
			if len(c.data) > math.MaxInt32 {
				return tooLarge()
			}
			if len(c.values) > internBytes {
				c.interner.reset()
			}
		}
		c.offsets = append(c.offsets, int32(len(c.data)))
	}
	return nil
}

func (c *encoded) finish() *array.Data {
	offsets, data := c.buffers.take()
	return c.vector.take(arrow.BinaryTypes.Binary, nil, offsets, data)
}

// dictionary numbers texts, a dictionary for each batch.
type dictionary struct {
	texts
	interner
	t       *arrow.DictionaryType
	indexes []int32
}

func (c *dictionary) bind(d duckdb.Vector) {
	c.texts.bind(d)
	c.nextChunk()
}

func (c *dictionary) append(from, n int) *Error {
	c.appendValidity(from, n)
	if c.indexes == nil {
		c.indexes = make([]int32, 0, room(n))
	}
	for i := from; i < from+n; i++ {
		id := int32(0)
		if !c.isNull(i) {
			var err *Error
			if id, err = c.id(c.at(i)); err != nil {
				return err
			}
		}
		c.indexes = append(c.indexes, id)
	}
	return nil
}

func (c *dictionary) finish() *array.Data {
	values := vector{rows: len(c.ends)}
	offsets := append(make([]int32, 0, len(c.ends)+1), 0)
	offsets = append(offsets, c.ends...)
	dict := values.take(c.t.ValueType, nil, arrow.Int32Traits.CastToBytes(offsets), c.values)
	defer dict.Release()
	c.interner.reset()

	indexes := arrow.Int32Traits.CastToBytes(c.indexes)
	if c.t.IndexType.ID() == arrow.INT16 {
		// A batch has fewer rows than int16 has values.
		narrow := make([]int16, len(c.indexes))
		for i, x := range c.indexes {
			narrow[i] = int16(x)
		}
		indexes = arrow.Int16Traits.CastToBytes(narrow)
	}
	c.indexes = nil
	plain := c.vector.take(c.t, nil, indexes)
	defer plain.Release()
	return array.NewDataWithDictionary(c.t, plain.Len(), plain.Buffers(), plain.NullN(), 0, dict)
}
