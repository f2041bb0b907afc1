package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pierrec/lz4/v4"
)

// A compressed buffer is one LZ4 frame (version 1):
//
//	magic 04 22 4D 18 | FLG | BD | [content size u64] | [dictionary id u32] | header checksum | blocks | 00 00 00 00 | [content checksum u32]
//	block := size u32 (top bit: stored as is) | bytes | [block checksum u32]
//
// The frame is walked here, and only the blocks are left to the lz4 package: what follows the first frame is ignored, an empty
// input is an error, blocks are decompressed straight into the output (for linked blocks its last 64 KiB are the dictionary), and the
// output grows by what was really decompressed, never by the frame's claim about its content.
const (
	frameMagic     = 0x184D2204
	frameWindow    = 64 << 10
	minHeader      = 7 // magic, FLG, BD, header checksum
	flagVersion    = 0xc0
	version1       = 0x40
	flagIndep      = 0x20
	flagBlockSum   = 0x10
	flagSize       = 0x08
	flagContentSum = 0x04
	flagReserved   = 0x02
	flagDictionary = 0x01
	blockStored    = 1 << 31
)

var (
	errFrameEmpty    = errors.New("LZ4: empty input")
	errFrameMagic    = errors.New("LZ4: not a frame")
	errFrameHeader   = errors.New("LZ4: bad frame header")
	errFrameShort    = errors.New("LZ4: frame is truncated")
	errFrameBlock    = errors.New("LZ4: block is larger than its frame allows")
	errFrameChecksum = errors.New("LZ4: checksum mismatch")
	errFrameSize     = errors.New("LZ4: content size mismatch")
)

// frame is a parsed frame header.
type frame struct {
	flags       byte
	maxBlock    int
	contentSize uint64
	body        []byte // what follows the header
}

func parseFrame(src []byte) (f frame, err error) {
	switch {
	case len(src) == 0:
		return f, errFrameEmpty
	case len(src) < minHeader:
		return f, errFrameShort
	case binary.LittleEndian.Uint32(src) != frameMagic:
		return f, errFrameMagic
	}
	f.flags = src[4]
	bd := src[5]
	if f.flags&flagVersion != version1 || f.flags&flagReserved != 0 || bd&0x8f != 0 || bd>>4 < 4 {
		return f, errFrameHeader
	}
	f.maxBlock = 1 << (8 + 2*(bd>>4)) // 64 KiB, 256 KiB, 1 MiB, 4 MiB
	n := 6
	if f.flags&flagSize != 0 {
		if len(src) < n+8 {
			return f, errFrameShort
		}
		f.contentSize = binary.LittleEndian.Uint64(src[n:])
		n += 8
	}
	if f.flags&flagDictionary != 0 {
		n += 4 // without the dictionary, a block that refers to it fails below
	}
	if len(src) < n+1 {
		return f, errFrameShort
	}
	if byte(xxh32(src[4:n])>>8) != src[n] {
		return f, errFrameChecksum
	}
	f.body = src[n+1:]
	return f, nil
}

// expander is the state of decompressing one frame.
type expander struct {
	frame
	dst   []byte
	limit int
	sized bool // dst has room for exactly the whole frame
}

// Decompress decompresses the first LZ4 frame of src into dst[:0], growing it as needed. More than limit bytes are an error, and so is
// an empty src; what follows the frame is ignored.
func Decompress(dst, src []byte, limit int) ([]byte, error) { return decompress(dst, src, limit) }

// decompress decompresses the first frame of src into dst[:0], growing it as needed, and returns the result. More than limit bytes
// are an error.
func decompress(dst, src []byte, limit int) ([]byte, error) {
	f, err := parseFrame(src)
	if err != nil {
		return dst[:0], err
	}
	x := expander{frame: f, dst: dst[:0], limit: limit}
	src, err = x.blocks(f.body)
	switch {
	case err != nil:
	case f.flags&flagSize != 0 && f.contentSize != uint64(len(x.dst)):
		err = errFrameSize
	case f.flags&flagContentSum != 0 && len(src) < 4:
		err = errFrameShort
	case f.flags&flagContentSum != 0 && binary.LittleEndian.Uint32(src) != xxh32(x.dst):
		err = errFrameChecksum
	}
	return x.dst, err
}

// next splits the first block off src; more is false at the end mark.
func (f *frame) next(src []byte) (block, rest []byte, stored, more bool, err error) {
	if len(src) < 4 {
		return nil, nil, false, false, errFrameShort
	}
	size := binary.LittleEndian.Uint32(src)
	src = src[4:]
	if size == 0 {
		return nil, src, false, false, nil
	}
	n, sum := int(size&^blockStored), 0
	if n > f.maxBlock {
		return nil, nil, false, false, errFrameBlock
	}
	if f.flags&flagBlockSum != 0 {
		sum = 4
	}
	if len(src) < n+sum {
		return nil, nil, false, false, errFrameShort
	}
	if sum > 0 && binary.LittleEndian.Uint32(src[n:]) != xxh32(src[:n]) {
		return nil, nil, false, false, errFrameChecksum
	}
	return src[:n], src[n+sum:], size&blockStored != 0, true, nil
}

// blocks decompresses all blocks of src and returns what follows the end mark.
func (x *expander) blocks(src []byte) ([]byte, error) {
	for {
		block, rest, stored, more, err := x.next(src)
		if err != nil || !more {
			return rest, err
		}
		need := len(block)
		if !stored {
			need = min(x.maxBlock, len(block)*MaxExpansion)
		}
		if cap(x.dst)-len(x.dst) < need && !x.sized {
			if err := x.grow(need, src); err != nil {
				return nil, err
			}
		}
		if err := x.append(block, stored); err != nil {
			return nil, err
		}
		src = rest
	}
}

// grow makes room for need more bytes, or for all that src holds when the output is large: doubling would then cost more memory than
// the result.
func (x *expander) grow(need int, src []byte) error {
	size := len(x.dst) + need
	if size <= sizeFirst {
		x.dst = grow(x.dst, need)
		return nil
	}
	total, err := x.measure(src)
	if err != nil {
		return err
	}
	bigger := make([]byte, len(x.dst), total)
	copy(bigger, x.dst)
	x.dst, x.sized = bigger, true
	return nil
}

// measure returns the length of the whole output, src being the blocks that are still to come.
func (x *expander) measure(src []byte) (int, error) {
	total := len(x.dst)
	for {
		block, rest, stored, more, err := x.next(src)
		if err != nil || !more {
			return total, err
		}
		if stored {
			total += len(block)
		} else {
			total += expandedSize(block)
		}
		if total > x.limit {
			return 0, limitError(x.limit)
		}
		src = rest
	}
}

// append decompresses one block to the end of the output.
func (x *expander) append(block []byte, stored bool) error {
	start := len(x.dst)
	n := len(block)
	if stored {
		x.dst = append(x.dst, block...)
	} else {
		var dict []byte
		if x.flags&flagIndep == 0 {
			dict = x.dst[max(0, start-frameWindow):]
		}
		var err error
		end := min(cap(x.dst), start+x.maxBlock)
		if n, err = lz4.UncompressBlockWithDict(block, x.dst[start:end], dict); err != nil {
			return fmt.Errorf("LZ4: %w", err)
		}
	}
	if start+n > x.limit {
		return limitError(x.limit)
	}
	x.dst = x.dst[:start+n]
	return nil
}

// expandedSize returns how long a compressed block becomes, from its tokens alone. For a broken block it is any number: decompressing
// says so.
func expandedSize(b []byte) int {
	total := 0
	for len(b) > 0 {
		token := b[0]
		literals, rest := lengthOf(int(token>>4), b[1:])
		total += literals
		if literals+2 > len(rest) { // the last sequence has no match
			break
		}
		match, rest := lengthOf(int(token&15), rest[literals+2:])
		total += match + 4
		b = rest
	}
	return total
}

func lengthOf(n int, b []byte) (int, []byte) {
	if n < 15 {
		return n, b
	}
	for i, c := range b {
		n += int(c)
		if c != 255 {
			return n, b[i+1:]
		}
	}
	return n, nil
}

// sizeFirst is the length of output above which a frame is measured before memory is taken for it.
const sizeFirst = 16 << 20

// MaxExpansion bounds what a byte of compressed input can become: a length byte of a match adds 255 bytes at most.
const MaxExpansion = 256

// grow returns dst with room for n more bytes and at least twice the room it had.
func grow(dst []byte, n int) []byte {
	bigger := make([]byte, len(dst), max(2*cap(dst), len(dst)+n))
	copy(bigger, dst)
	return bigger
}

func limitError(limit int) error { return fmt.Errorf("LZ4: more than %d bytes decompressed", limit) }

// Compress appends src as one LZ4 frame: independent blocks as large as fit src, up to 4 MiB, with a content checksum.
func Compress(dst, src []byte) []byte { return appendFrame(dst, src, lz4.Fast) }

// CompressHigh is Compress with a slow search for matches: ten to fifty times the time for four fifths of the bytes. It suits
// payloads that are made once and sent often.
func CompressHigh(dst, src []byte) []byte { return appendFrame(dst, src, lz4.Level9) }

func appendFrame(dst, src []byte, level lz4.CompressionLevel) []byte {
	code := byte(4)
	for code < 7 && len(src) > 1<<(8+2*code) {
		code++
	}
	maxBlock := 1 << (8 + 2*code)
	dst = binary.LittleEndian.AppendUint32(dst, frameMagic)
	dst = append(dst, version1|flagIndep|flagContentSum, code<<4)
	dst = append(dst, byte(xxh32(dst[len(dst)-2:])>>8))
	for rest := src; len(rest) > 0; {
		n := min(len(rest), maxBlock)
		dst = appendCompressed(dst, rest[:n], level)
		rest = rest[n:]
	}
	dst = append(dst, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, xxh32(src))
}

// appendCompressed appends one block, stored when compressing does not make it smaller.
func appendCompressed(dst, src []byte, level lz4.CompressionLevel) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	bound := lz4.CompressBlockBound(len(src))
	if cap(dst)-len(dst) < bound {
		dst = grow(dst, bound)
	}
	n, err := compressBlock(src, dst[len(dst):len(dst)+bound], level)
	if err != nil || n == 0 || n >= len(src) {
		binary.LittleEndian.PutUint32(dst[start:], uint32(len(src))|blockStored)
		return append(dst, src...)
	}
	binary.LittleEndian.PutUint32(dst[start:], uint32(n))
	return dst[:len(dst)+n]
}

func compressBlock(src, dst []byte, level lz4.CompressionLevel) (int, error) {
	if level == lz4.Fast {
		return lz4.CompressBlock(src, dst, nil)
	}
	return lz4.CompressBlockHC(src, dst, level, nil, nil)
}
