package columnar

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Parquet's encodings of values: the hybrid of runs and bit packing for dictionary indices, DELTA_BINARY_PACKED for
// integers, PLAIN for the rest. All little endian.

// minRun is the shortest run that is written as one: shorter ones are cheaper in a packed group of eight.
const minRun = 8

// indexWidth returns the bits that an index into n values takes; at least one, since some readers take zero for an error.
func indexWidth(n int) int {
	return max(1, bits.Len(uint(max(0, n-1))))
}

// appendIndices appends dictionary indices, preceded by their width as data pages have it.
func appendIndices(dst []byte, values []int32, width int) []byte {
	dst = append(dst, byte(width))
	for i := 0; i < len(values); {
		run := runLength(values[i:])
		if run >= minRun {
			dst = binary.AppendUvarint(dst, uint64(run)<<1)
			for b := 0; b < width; b += 8 {
				dst = append(dst, byte(uint32(values[i])>>b))
			}
			i += run
			continue
		}
		end := packedEnd(values, i)
		groups := (end - i + 7) / 8
		dst = binary.AppendUvarint(dst, uint64(groups)<<1|1)
		dst = appendPacked(dst, values[i:end], groups*8, width)
		i = end
	}
	return dst
}

// runLength returns how many values equal the first one.
func runLength(values []int32) int {
	v := values[0]
	n := 1
	for n < len(values) && values[n] == v {
		n++
	}
	return n
}

// packedEnd returns where the packed groups that start at begin end: where a run begins at a group boundary, or the values end.
func packedEnd(values []int32, begin int) int {
	end := begin + 8
	for end+minRun <= len(values) {
		if v := values[end]; v == values[end+1] && v == values[end+7] && runLength(values[end:end+minRun]) == minRun {
			return end
		}
		end += 8
	}
	if end+8 > len(values) {
		return len(values)
	}
	return end
}

// appendPacked appends values with width bits each, and zeros up to total values, which is a multiple of eight.
func appendPacked(dst []byte, values []int32, total, width int) []byte {
	var acc uint64
	have := 0
	for _, v := range values {
		acc |= uint64(uint32(v)) << have
		have += width
		if have >= 32 {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(acc))
			acc >>= 32
			have -= 32
		}
	}
	have += (total - len(values)) * width
	for ; have > 0; have -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// Sizes of DELTA_BINARY_PACKED: a block of 128 differences in four miniblocks, as most writers have it.
const (
	deltaBlock     = 128
	deltaMinis     = 4
	deltaMiniblock = deltaBlock / deltaMinis
)

// appendDelta appends integers as DELTA_BINARY_PACKED. Differences wrap, which the decoder undoes: at 64 bits, or at 32 if the column
// is narrow, since its packed differences may not be wider.
func appendDelta(dst []byte, values []int64, narrow bool) []byte {
	dst = binary.AppendUvarint(dst, deltaBlock)
	dst = binary.AppendUvarint(dst, deltaMinis)
	dst = binary.AppendUvarint(dst, uint64(len(values)))
	if len(values) == 0 {
		return append(dst, 0)
	}
	first := values[0]
	if narrow {
		first = int64(int32(first))
	}
	dst = binary.AppendVarint(dst, first)
	var deltas [deltaBlock]int64
	for i := 1; i < len(values); i += deltaBlock {
		n := min(deltaBlock, len(values)-i)
		least := int64(math.MaxInt64)
		last := values[i-1]
		for k, v := range values[i : i+n] {
			delta := v - last
			if narrow {
				delta = int64(int32(delta))
			}
			deltas[k] = delta
			least = min(least, delta)
			last = v
		}
		dst = appendDeltaBlock(dst, deltas[:n], least)
	}
	return dst
}

func appendDeltaBlock(dst []byte, deltas []int64, least int64) []byte {
	dst = binary.AppendVarint(dst, least)
	widths := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for m := 0; m*deltaMiniblock < len(deltas); m++ {
		mini := deltas[m*deltaMiniblock : min(len(deltas), (m+1)*deltaMiniblock)]
		var all uint64
		for _, d := range mini {
			all |= uint64(d) - uint64(least)
		}
		width := bits.Len64(all)
		dst[widths+m] = byte(width)
		dst = appendMiniblock(dst, mini, least, width)
	}
	return dst
}

// appendMiniblock appends 32 values of width bits: the differences above least, and zeros.
func appendMiniblock(dst []byte, mini []int64, least int64, width int) []byte {
	if width == 0 {
		return dst
	}
	var acc uint64
	have := 0
	for k := range deltaMiniblock {
		var v uint64
		if k < len(mini) {
			v = uint64(mini[k]) - uint64(least)
		}
		acc |= v << have
		if have+width >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			acc = v >> (64 - have) // a shift by 64 gives 0
			have += width - 64
		} else {
			have += width
		}
	}
	for ; have > 0; have -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// appendInt64s appends integers as PLAIN.
func appendInt64s(dst []byte, values []int64) []byte {
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v))
	}
	return dst
}

// appendInt32s appends the low halves of integers as PLAIN.
func appendInt32s(dst []byte, values []int64) []byte {
	for _, v := range values {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	return dst
}

// appendBools appends 0 and 1 as PLAIN, a bit each.
func appendBools(dst []byte, values []int64) []byte {
	for i, v := range values {
		if i%8 == 0 {
			dst = append(dst, 0)
		}
		dst[len(dst)-1] |= byte(v&1) << (i % 8)
	}
	return dst
}

// appendBytes appends a byte string as PLAIN.
func appendBytes(dst, value []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	return append(dst, value...)
}
