package engine

/*
#include <stdint.h>
#include <stdlib.h>

typedef uint64_t idx;

// DuckDB's own, from duckdb.h: the handles are opaque pointers.
extern void duckdb_unsafe_vector_assign_string_element_len(void *vector, idx index, const char *str, idx len);

// mm_assign writes text i, data[ends[i-1]:ends[i]], to row rows[i]: one call from Go for a
// whole chunk.
static void mm_assign(void *vector, const char *data, const uint32_t *rows, const uint64_t *ends, idx n) {
	uint64_t begin = 0;
	for (idx i = 0; i < n; i++) {
		duckdb_unsafe_vector_assign_string_element_len(vector, rows[i], data + begin, ends[i] - begin);
		begin = ends[i];
	}
}

extern void mmScalarRun(void *info, void *chunk, void *output);

static void *mm_scalar_run(void) { return (void *)mmScalarRun; }
*/
import "C"

import (
	"fmt"
	"runtime/cgo"
	"runtime/debug"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/micromegas-go/micromegas/query/functions"
)

// registration keeps a registered function reachable from DuckDB's threads.
type registration struct {
	handle cgo.Handle
	memory unsafe.Pointer // C memory that holds the handle
}

func (r registration) free() {
	r.handle.Delete()
	C.free(r.memory)
}

// register makes a function known to every connection of the instance.
func register(conn duckdb.Connection, s *functions.Waiting) (registration, error) {
	f := duckdb.CreateScalarFunction()
	defer duckdb.DestroyScalarFunction(&f)
	duckdb.ScalarFunctionSetName(f, s.Name)
	for _, p := range s.Params {
		t := logicalType(p)
		duckdb.ScalarFunctionAddParameter(f, t)
		duckdb.DestroyLogicalType(&t)
	}
	t := logicalType(s.Result)
	defer duckdb.DestroyLogicalType(&t)
	duckdb.ScalarFunctionSetReturnType(f, t)

	r := registration{handle: cgo.NewHandle(s), memory: C.malloc(C.size_t(unsafe.Sizeof(cgo.Handle(0))))}
	*(*cgo.Handle)(r.memory) = r.handle
	duckdb.ScalarFunctionSetExtraInfo(f, r.memory, nil)
	duckdb.ScalarFunctionSetFunction(f, C.mm_scalar_run())
	if s.All != nil {
		duckdb.ScalarFunctionSetVolatile(f)
	}
	if duckdb.RegisterScalarFunction(conn, f) != duckdb.StateSuccess {
		r.free()
		return registration{}, fmt.Errorf("register function %s: DuckDB refuses it", s.Name)
	}
	return r, nil
}

// logicalType must be destroyed by the caller.
func logicalType(t functions.Type) duckdb.LogicalType {
	switch t {
	case functions.JSON:
		return jsonType()
	case functions.Blob:
		return duckdb.CreateLogicalType(duckdb.TypeBlob)
	case functions.Bool:
		return duckdb.CreateLogicalType(duckdb.TypeBoolean)
	case functions.Int32:
		return duckdb.CreateLogicalType(duckdb.TypeInteger)
	case functions.Int64:
		return duckdb.CreateLogicalType(duckdb.TypeBigInt)
	case functions.Uint32:
		return duckdb.CreateLogicalType(duckdb.TypeUInteger)
	case functions.Float64:
		return duckdb.CreateLogicalType(duckdb.TypeDouble)
	case functions.TextList:
		return listType(duckdb.CreateLogicalType(duckdb.TypeVarchar))
	case functions.JSONList:
		return listType(jsonType())
	default:
		return duckdb.CreateLogicalType(duckdb.TypeVarchar)
	}
}

// jsonAlias is how DuckDB tells JSON from other texts.
const jsonAlias = "JSON"

func jsonType() duckdb.LogicalType {
	t := duckdb.CreateLogicalType(duckdb.TypeVarchar)
	duckdb.LogicalTypeSetAlias(t, jsonAlias)
	return t
}

func listType(child duckdb.LogicalType) duckdb.LogicalType {
	defer duckdb.DestroyLogicalType(&child)
	return duckdb.CreateListType(child)
}

//export mmScalarRun
func mmScalarRun(info, chunk, output unsafe.Pointer) {
	fi := duckdb.FunctionInfo{Ptr: info}
	// A panic must not unwind through DuckDB's frames.
	defer func() {
		if r := recover(); r != nil {
			duckdb.ScalarFunctionSetError(fi, fmt.Sprintf("panic: %v\n%s", r, debug.Stack()))
		}
	}()
	s := (*(*cgo.Handle)(duckdb.ScalarFunctionGetExtraInfo(fi))).Value().(*functions.Waiting)
	call := scalarCall{scalar: s, out: output}
	if s.All == nil {
		call.row = s.New()
	}
	if err := call.run(duckdb.DataChunk{Ptr: chunk}); err != nil {
		duckdb.ScalarFunctionSetError(fi, err.Error())
	}
}

// memoSlots is the size of a call's memo, a power of two: properties and paths repeat, and a
// chunk has 2048 rows.
const memoSlots = 512

const (
	memoTrial = 64 // rows after which a memo without hits is given up
	memoPays  = 8  // one hit in so many rows pays for the others
)

// stringT is DuckDB's string: the length, then 12 bytes of content or 4 of it and a pointer.
// Two with the same 16 bytes are the same text as long as their vector lives.
type stringT [2]uint64

func (s *stringT) text() string {
	n := uint32(s[0])
	if n <= inlineText {
		return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(s), 4)), n)
	}
	return unsafe.String(*(**byte)(unsafe.Add(unsafe.Pointer(s), 8)), n)
}

// inlineText is the longest text that a stringT holds itself.
const inlineText = 12

// scalarCall runs one function over one chunk.
type scalarCall struct {
	scalar *functions.Waiting
	row    functions.Row
	out    unsafe.Pointer // the output vector

	data  [functions.MaxArgs]unsafe.Pointer
	valid [functions.MaxArgs]unsafe.Pointer
	args  functions.Args
	res   functions.Out

	memo   []memoEntry
	copies []copyRow // rows whose result is another row's

	// Texts to write, in one call at the end.
	heap []byte
	ends []uint64
	rows []uint32
}

type memoEntry struct {
	key [2]stringT
	row int32 // row + 1 of the result; 0 = empty
}

type copyRow struct{ from, to int32 }

func (c *scalarCall) run(chunk duckdb.DataChunk) error {
	n := int(duckdb.DataChunkGetSize(chunk))
	for i := range c.scalar.Params {
		v := duckdb.DataChunkGetVector(chunk, duckdb.IdxT(i))
		c.data[i], c.valid[i] = duckdb.VectorGetData(v), duckdb.VectorGetValidity(v)
	}
	if isList(c.scalar.Result) {
		return c.runLists(n)
	}
	out := duckdb.Vector{Ptr: c.out}
	outData := duckdb.VectorGetData(out)
	duckdb.VectorEnsureValidityWritable(out)
	outValid := (*[1 << 20]uint64)(duckdb.VectorGetValidity(out))
	if c.scalar.All != nil {
		return c.runAll(n, outData, outValid)
	}
	memoize := c.memoizable()
	for i := range n {
		if !c.load(i) {
			outValid[i>>6] &^= 1 << (i & 63)
			continue
		}
		if memoize {
			from, hit := c.remember(i)
			if hit {
				c.copies = append(c.copies, copyRow{from, int32(i)})
				continue
			}
			memoize = i < memoTrial || len(c.copies) > i/memoPays
		}
		c.res = functions.Out{}
		if err := c.row(&c.args, &c.res); err != nil {
			return err
		}
		if c.res.Null {
			outValid[i>>6] &^= 1 << (i & 63)
			continue
		}
		c.store(outData, i)
	}
	c.flush(c.out)
	c.copyRows(outData, outValid)
	return nil
}

// runAll is run for functions that take a chunk at once.
func (c *scalarCall) runAll(n int, outData unsafe.Pointer, outValid *[1 << 20]uint64) error {
	var args []functions.Args
	var at []int
	for i := range n {
		if !c.load(i) {
			outValid[i>>6] &^= 1 << (i & 63)
			continue
		}
		args, at = append(args, c.args), append(at, i)
	}
	results := make([]functions.Out, len(args))
	if err := c.scalar.All(args, results); err != nil {
		return err
	}
	for k, i := range at {
		if c.res = results[k]; c.res.Null {
			outValid[i>>6] &^= 1 << (i & 63)
			continue
		}
		c.store(outData, i)
	}
	c.flush(c.out)
	return nil
}

func isList(t functions.Type) bool { return t == functions.TextList || t == functions.JSONList }

// memoizable reports whether results are worth keeping: one or two texts in, a text out.
func (c *scalarCall) memoizable() bool {
	for _, p := range c.scalar.Params {
		if p != functions.Text {
			return false
		}
	}
	return len(c.scalar.Params) <= 2
}

// load reads the arguments of row i; it reports false when one is NULL.
func (c *scalarCall) load(i int) bool {
	for p, t := range c.scalar.Params {
		if m := c.valid[p]; m != nil && !bitSet(m, i) {
			return false
		}
		switch t {
		case functions.Float64:
			c.args.Float[p] = *(*float64)(unsafe.Add(c.data[p], 8*i))
		case functions.Int64:
			c.args.Int[p] = *(*int64)(unsafe.Add(c.data[p], 8*i))
		default:
			c.args.Text[p] = (*stringT)(unsafe.Add(c.data[p], 16*i)).text()
		}
	}
	return true
}

func bitSet(mask unsafe.Pointer, i int) bool {
	return *(*uint64)(unsafe.Add(mask, i>>6<<3))>>(i&63)&1 != 0
}

// remember returns the earlier row with the same arguments, or notes this one.
func (c *scalarCall) remember(i int) (int32, bool) {
	if c.memo == nil {
		c.memo = make([]memoEntry, memoSlots)
	}
	var key [2]stringT
	for p := range c.scalar.Params {
		key[p] = *(*stringT)(unsafe.Add(c.data[p], 16*i))
	}
	e := &c.memo[hashText(key[0], key[1])&(memoSlots-1)]
	if e.row != 0 && e.key == key {
		return e.row - 1, true
	}
	*e = memoEntry{key, int32(i) + 1}
	return 0, false
}

func hashText(a, b stringT) uint64 {
	h := a[0]*0x9e3779b97f4a7c15 ^ a[1]*0xc2b2ae3d27d4eb4f ^ b[0]*0x165667b19e3779f9 ^ b[1]
	h *= 0xff51afd7ed558ccd
	return h ^ h>>32
}

func (c *scalarCall) store(outData unsafe.Pointer, i int) {
	switch c.scalar.Result {
	case functions.Bool:
		*(*byte)(unsafe.Add(outData, i)) = byte(c.res.Int)
	case functions.Int32, functions.Uint32:
		*(*uint32)(unsafe.Add(outData, 4*i)) = uint32(c.res.Int)
	case functions.Int64:
		*(*int64)(unsafe.Add(outData, 8*i)) = c.res.Int
	case functions.Float64:
		*(*float64)(unsafe.Add(outData, 8*i)) = c.res.Float
	default:
		if s := c.res.Text; len(s) <= inlineText {
			*(*stringT)(unsafe.Add(outData, 16*i)) = inlineString(s)
		} else {
			c.text(s, uint32(i))
		}
	}
}

func inlineString(s string) stringT {
	var t stringT
	b := (*[16]byte)(unsafe.Pointer(&t))
	*(*uint32)(unsafe.Pointer(&t)) = uint32(len(s))
	copy(b[4:], s)
	return t
}

// text notes a text to write to a row.
func (c *scalarCall) text(s string, row uint32) {
	c.heap = append(c.heap, s...)
	c.ends = append(c.ends, uint64(len(c.heap)))
	c.rows = append(c.rows, row)
}

// flush writes the noted texts.
func (c *scalarCall) flush(vector unsafe.Pointer) {
	if len(c.rows) == 0 {
		return
	}
	data := unsafe.SliceData(c.heap)
	if data == nil { // only empty texts
		data = new(byte)
	}
	C.mm_assign(vector, (*C.char)(unsafe.Pointer(data)), (*C.uint32_t)(unsafe.SliceData(c.rows)),
		(*C.uint64_t)(unsafe.SliceData(c.ends)), C.idx(len(c.rows)))
}

// copyRows gives rows the result of the row with the same arguments. A text's bytes belong to
// the vector, so a copied stringT is as good as the first.
func (c *scalarCall) copyRows(outData unsafe.Pointer, outValid *[1 << 20]uint64) {
	width := 16
	switch c.scalar.Result {
	case functions.Bool:
		width = 1
	case functions.Int32, functions.Uint32:
		width = 4
	case functions.Int64, functions.Float64:
		width = 8
	}
	for _, r := range c.copies {
		from, to := int(r.from), int(r.to)
		if outValid[from>>6]>>(from&63)&1 == 0 {
			outValid[to>>6] &^= 1 << (to & 63)
			continue
		}
		copy(unsafe.Slice((*byte)(unsafe.Add(outData, width*to)), width), unsafe.Slice((*byte)(unsafe.Add(outData, width*from)), width))
	}
}

// runLists is run for functions that return lists of texts.
func (c *scalarCall) runLists(n int) error {
	out := duckdb.Vector{Ptr: c.out}
	entries := unsafe.Slice((*[2]uint64)(duckdb.VectorGetData(out)), n)
	duckdb.VectorEnsureValidityWritable(out)
	outValid := (*[1 << 20]uint64)(duckdb.VectorGetValidity(out))
	total := uint64(0)
	for i := range n {
		entries[i] = [2]uint64{total, 0}
		null := !c.load(i)
		if !null {
			c.res = functions.Out{List: c.res.List[:0]}
			if err := c.row(&c.args, &c.res); err != nil {
				return err
			}
			null = c.res.Null
		}
		if null {
			outValid[i>>6] &^= 1 << (i & 63)
			continue
		}
		entries[i][1] = uint64(len(c.res.List))
		for _, s := range c.res.List {
			c.text(s, uint32(total))
			total++
		}
	}
	if duckdb.ListVectorReserve(out, duckdb.IdxT(total)) != duckdb.StateSuccess ||
		duckdb.ListVectorSetSize(out, duckdb.IdxT(total)) != duckdb.StateSuccess {
		return fmt.Errorf("%s: no memory for %d list elements", c.scalar.Name, total)
	}
	c.flush(duckdb.ListVectorGetChild(out).Ptr)
	return nil
}
