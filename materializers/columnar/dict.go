package columnar

import (
	"math"
	"math/bits"
	"strings"
	"unsafe"
)

// Dict is a list of byte strings with numbers from 0. Values added by Intern are there once;
// those added by Append are not looked for, for text that rarely repeats.
type Dict struct {
	bytes []byte
	ends  []uint32
	index map[string]int32
	size  int // bytes of the keys of index
	cache [cacheSize]cached
}

// cacheSize is the number of entries of the cache from a string's address to its number. It is direct mapped, so that a
// lookup is one compare; 256 entries hold the targets, names and property sets of a usual block.
const cacheSize = 256

type cached struct {
	addr  *byte
	size  int
	value int32
}

// dictEntryBytes is what an interned value costs beside its bytes: map entry, end, key header.
const dictEntryBytes = 64

// Len returns the number of values.
func (d *Dict) Len() int { return len(d.ends) }

// Value returns value i. It must not be changed, and holds until the next Reset.
func (d *Dict) Value(i int32) []byte {
	begin := uint32(0)
	if i > 0 {
		begin = d.ends[i-1]
	}
	return d.bytes[begin:d.ends[i]:d.ends[i]]
}

// text returns value i as a string that aliases the dictionary.
func (d *Dict) text(i int32) string {
	v := d.Value(i)
	return unsafe.String(unsafe.SliceData(v), len(v))
}

// Bytes returns about how much memory the values take.
func (d *Dict) Bytes() int {
	return len(d.bytes) + 4*len(d.ends) + d.size + dictEntryBytes*len(d.index)
}

// Reset removes all values and keeps the memory, unless it is more than maxKept values.
func (d *Dict) Reset() {
	if len(d.index) > maxKeptEntries {
		d.index = nil
	}
	clear(d.index)
	d.bytes, d.ends, d.size = d.bytes[:0], d.ends[:0], 0
	d.Forget()
}

// maxKeptEntries bounds the map that a dictionary keeps over a Reset: clearing a map costs its capacity.
const maxKeptEntries = 1 << 14

// MaxDictBytes bounds the values of a dictionary together.
const MaxDictBytes = math.MaxUint32

// Append adds s without looking for it, and returns its number. It panics beyond MaxDictBytes.
func (d *Dict) Append(s string) int32 {
	if len(s) > MaxDictBytes-len(d.bytes) {
		panic("columnar: values of a column are too long together")
	}
	d.bytes = append(d.bytes, s...)
	d.ends = append(d.ends, uint32(len(d.bytes)))
	return int32(len(d.ends) - 1)
}

// AppendBytes is Append for bytes.
func (d *Dict) AppendBytes(b []byte) int32 {
	return d.Append(unsafe.String(unsafe.SliceData(b), len(b))) // copied at once
}

// Intern returns the number of s, which it adds when it is not there.
func (d *Dict) Intern(s string) int32 {
	if i, ok := d.index[s]; ok {
		return i
	}
	if d.index == nil {
		d.index = make(map[string]int32)
	}
	i := d.Append(s)
	d.index[strings.Clone(s)] = i
	d.size += len(s)
	return i
}

// InternShared is Intern for a string whose bytes stay where they are, unchanged, until Forget: the number is found
// by address.
func (d *Dict) InternShared(s string) int32 {
	addr := unsafe.StringData(s)
	h := uint64(uintptr(unsafe.Pointer(addr))) * 0x9E3779B97F4A7C15
	c := &d.cache[h>>(64-bits.TrailingZeros(cacheSize))]
	if c.addr == addr && c.size == len(s) && addr != nil {
		return c.value
	}
	i := d.Intern(s)
	*c = cached{addr, len(s), i}
	return i
}

// Forget ends the validity of the addresses that InternShared has seen.
func (d *Dict) Forget() { d.cache = [cacheSize]cached{} }
