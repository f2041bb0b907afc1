package columnar

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errCorrupt is what all decoding of pages fails with.
var errCorrupt = errors.New("columnar: corrupt page")

// readIndices appends n dictionary indices below limit to dst.
func readIndices(dst []int32, src []byte, n, limit int) ([]int32, error) {
	if len(src) == 0 || src[0] > 32 {
		return dst, fmt.Errorf("%w: width of indices", errCorrupt)
	}
	width := int(src[0])
	src = src[1:]
	end := len(dst) + n
	for len(dst) < end {
		header, k := binary.Uvarint(src)
		if k <= 0 || header>>1 == 0 || header>>1 > 1<<31 {
			return dst, fmt.Errorf("%w: header of a run", errCorrupt)
		}
		src = src[k:]
		count := int(header >> 1)
		if header&1 == 0 {
			size := (width + 7) / 8
			if len(src) < size {
				return dst, fmt.Errorf("%w: value of a run", errCorrupt)
			}
			var v uint32
			for b := range size {
				v |= uint32(src[b]) << (8 * b)
			}
			src = src[size:]
			if int64(v) >= int64(limit) {
				return dst, fmt.Errorf("%w: index %d of %d values", errCorrupt, v, limit)
			}
			for range min(count, end-len(dst)) {
				dst = append(dst, int32(v))
			}
			continue
		}
		size := count * width // bytes of count groups of eight
		if size > len(src) {
			return dst, fmt.Errorf("%w: packed indices", errCorrupt)
		}
		var err error
		if dst, err = unpackIndices(dst, src[:size], min(count*8, end-len(dst)), width, limit); err != nil {
			return dst, err
		}
		src = src[size:]
	}
	return dst, nil
}

func unpackIndices(dst []int32, src []byte, n, width, limit int) ([]int32, error) {
	var acc uint64
	have := 0
	mask := uint64(1)<<width - 1
	for range n {
		for have < width {
			acc |= uint64(src[0]) << have
			src = src[1:]
			have += 8
		}
		v := acc & mask
		acc >>= width
		have -= width
		if v >= uint64(limit) {
			return dst, fmt.Errorf("%w: index %d of %d values", errCorrupt, v, limit)
		}
		dst = append(dst, int32(v))
	}
	return dst, nil
}

// readDelta appends n integers of DELTA_BINARY_PACKED to dst.
func readDelta(dst []int64, src []byte, n int) ([]int64, error) {
	var header [3]uint64
	for i := range header {
		v, k := binary.Uvarint(src)
		if k <= 0 {
			return dst, fmt.Errorf("%w: header of differences", errCorrupt)
		}
		header[i], src = v, src[k:]
	}
	if header != [3]uint64{deltaBlock, deltaMinis, uint64(n)} {
		return dst, fmt.Errorf("%w: differences of shape %v for %d values", errCorrupt, header, n)
	}
	last, k := binary.Varint(src)
	if k <= 0 {
		return dst, fmt.Errorf("%w: first value", errCorrupt)
	}
	src = src[k:]
	if n == 0 {
		return dst, nil
	}
	dst = append(dst, last)
	for left := n - 1; left > 0; {
		least, k := binary.Varint(src)
		if k <= 0 || len(src) < k+deltaMinis {
			return dst, fmt.Errorf("%w: block of differences", errCorrupt)
		}
		widths := src[k : k+deltaMinis]
		src = src[k+deltaMinis:]
		for m := 0; m < deltaMinis && left > 0; m++ {
			width := int(widths[m])
			size := width * deltaMiniblock / 8
			if width > 64 || size > len(src) {
				return dst, fmt.Errorf("%w: miniblock", errCorrupt)
			}
			count := min(left, deltaMiniblock)
			for i := range count {
				last += least + int64(bitsAt(src[:size], i*width, width))
				dst = append(dst, last)
			}
			src = src[size:]
			left -= count
		}
	}
	return dst, nil
}

// readBools appends n PLAIN booleans as 0 or 1.
func readBools(dst []int64, src []byte, n int) ([]int64, error) {
	if n > 8*len(src) {
		return dst, fmt.Errorf("%w: %d booleans in %d bytes", errCorrupt, n, len(src))
	}
	for i := range n {
		dst = append(dst, int64(src[i/8]>>(i%8)&1))
	}
	return dst, nil
}

// bitsAt returns the width bits at offset.
func bitsAt(src []byte, offset, width int) uint64 {
	if width == 0 {
		return 0
	}
	i, shift := offset/8, offset%8
	if i+9 <= len(src) {
		v := binary.LittleEndian.Uint64(src[i:]) >> shift
		if shift > 0 {
			v |= uint64(src[i+8]) << (64 - shift)
		}
		return v & (^uint64(0) >> (64 - width))
	}
	var v uint64
	for b := range width {
		at := offset + b
		v |= uint64(src[at/8]>>(at%8)&1) << b
	}
	return v
}

// readBytes calls fn with n PLAIN byte strings.
func readBytes(src []byte, n int, fn func([]byte)) error {
	for range n {
		if len(src) < 4 {
			return fmt.Errorf("%w: length of a value", errCorrupt)
		}
		size := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if uint64(size) > uint64(len(src)) {
			return fmt.Errorf("%w: value of %d bytes", errCorrupt, size)
		}
		fn(src[:size])
		src = src[size:]
	}
	return nil
}
