package lake

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// The layout of a pack (all integers little endian), see LAYOUT.md:
//
//	head     8 bytes   packHead
//	frames             one after the other, verbatim
//	index    24 bytes for each frame: sequence number u64, offset u64, length u32, CRC-32C of the frame u32
//	trailer  32 bytes  class u8, 3 zero bytes, generation u32, shard u32, frame count u32, version u32,
//	                   CRC-32C of the index and of the trailer before this field u32, packTail
const (
	packHead     = "mmpack\x00\x01"
	packTail     = "kcapmm\x00\x01"
	packVersion  = 1
	indexEntry   = 24
	trailerBytes = 32
	trailerCRC   = 20 // offset of the CRC in the trailer
)

// MaxPackBytes bounds a pack: the catalog keeps offsets in it as 32-bit integers.
const MaxPackBytes = 1 << 30

// maxPooledPack is the largest buffer that is kept for the next pack. An archive commit is about 4 MiB.
const maxPooledPack = 8 << 20

// ErrCorrupt says that the bytes of a pack are not what was written.
var ErrCorrupt = errors.New("corrupt pack")

// FrameEntry is where one frame lies in a pack.
type FrameEntry struct {
	Seq    uint64
	Offset int64
	Length int64
	CRC    uint32
}

// PackIndex is what the end of a pack says.
type PackIndex struct {
	Shard  catalog.ShardID
	Frames []FrameEntry
}

// PutPack writes frames of one shard and generation, in order of their sequence numbers, as one durable object. It returns
// the catalog's row (without a number) and the offset of each frame's first byte in the object.
func (l *Lake) PutPack(ctx context.Context, s catalog.ShardID, frames []bus.Frame) (catalog.Pack, []int64, error) {
	size, err := packSize(s, frames)
	if err != nil {
		return catalog.Pack{}, nil, err
	}
	buf := l.packBuffer(size)
	defer l.returnPackBuffer(buf)
	offsets := make([]int64, len(frames))
	*buf = appendPack((*buf)[:0], s, frames, offsets)

	first, last := frames[0].Seq, frames[len(frames)-1].Seq
	p := catalog.Pack{Shard: s, FirstSeq: first, LastSeq: last, Key: PackKey(s, first), Size: int64(size), Created: time.Now().UnixNano()}
	if err := l.Put(ctx, p.Key, *buf); err != nil {
		return catalog.Pack{}, nil, err
	}
	return p, offsets, nil
}

// packSize checks the frames and returns the pack's exact size.
func packSize(s catalog.ShardID, frames []bus.Frame) (int, error) {
	if len(frames) == 0 {
		return 0, errors.New("pack: no frames")
	}
	size := int64(len(packHead) + len(frames)*indexEntry + trailerBytes)
	for i := range frames {
		f := &frames[i]
		if shardOf(f.Position) != s {
			return 0, fmt.Errorf("pack of %s: frame %s is not of it", s, f.Position)
		}
		if i > 0 && f.Seq <= frames[i-1].Seq {
			return 0, fmt.Errorf("pack of %s: frame %d after frame %d", s, f.Seq, frames[i-1].Seq)
		}
		size += int64(len(f.Data))
	}
	if size > MaxPackBytes {
		return 0, fmt.Errorf("pack of %s: %d bytes, at most %d are allowed", s, size, MaxPackBytes)
	}
	return int(size), nil
}

func shardOf(p bus.Position) catalog.ShardID {
	return catalog.ShardID{Class: byte(p.Class), Gen: p.Gen, Shard: p.Shard.Shard}
}

func (l *Lake) packBuffer(size int) *[]byte {
	if b, ok := l.buffers.Get().(*[]byte); ok && cap(*b) >= size {
		return b
	}
	b := make([]byte, 0, size)
	return &b
}

func (l *Lake) returnPackBuffer(b *[]byte) {
	if cap(*b) <= maxPooledPack {
		l.buffers.Put(b)
	}
}

func appendPack(dst []byte, s catalog.ShardID, frames []bus.Frame, offsets []int64) []byte {
	dst = append(dst, packHead...)
	for i := range frames {
		offsets[i] = int64(len(dst))
		dst = append(dst, frames[i].Data...)
	}
	index := len(dst)
	le := binary.LittleEndian
	for i := range frames {
		dst = le.AppendUint64(dst, frames[i].Seq)
		dst = le.AppendUint64(dst, uint64(offsets[i]))
		dst = le.AppendUint32(dst, uint32(len(frames[i].Data)))
		dst = le.AppendUint32(dst, crcOf(frames[i].Data))
	}
	dst = append(dst, s.Class, 0, 0, 0)
	dst = le.AppendUint32(dst, uint32(s.Gen))
	dst = le.AppendUint32(dst, uint32(s.Shard))
	dst = le.AppendUint32(dst, uint32(len(frames)))
	dst = le.AppendUint32(dst, packVersion)
	dst = le.AppendUint32(dst, crcOf(dst[index:]))
	return append(dst, packTail...)
}

// ReadPack reads all frames of a pack and checks every byte of it. The frames share one buffer.
func (l *Lake) ReadPack(ctx context.Context, key string) ([]bus.Frame, error) {
	data, err := l.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	frames, err := ParsePack(data)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", key, err)
	}
	return frames, nil
}

// ParsePack reads the frames of a pack in memory and checks every byte. The frames alias data.
func ParsePack(data []byte) ([]bus.Frame, error) {
	if len(data) < len(packHead) || string(data[:len(packHead)]) != packHead {
		return nil, fmt.Errorf("%w: no pack head", ErrCorrupt)
	}
	index, err := parseIndex(data, int64(len(data)))
	if err != nil {
		return nil, err
	}
	frames := make([]bus.Frame, len(index.Frames))
	for i, e := range index.Frames {
		f, err := index.frame(e, data[e.Offset:e.Offset+e.Length:e.Offset+e.Length])
		if err != nil {
			return nil, err
		}
		frames[i] = f
	}
	return frames, nil
}

// frame checks the bytes of one frame.
func (x *PackIndex) frame(e FrameEntry, data []byte) (bus.Frame, error) {
	if int64(len(data)) != e.Length || crcOf(data) != e.CRC {
		return bus.Frame{}, fmt.Errorf("%w: frame %s:%d does not match its CRC", ErrCorrupt, x.Shard, e.Seq)
	}
	shard := bus.Shard{Class: bus.Class(x.Shard.Class), Shard: x.Shard.Shard}
	return bus.Frame{Position: bus.Position{Shard: shard, Gen: x.Shard.Gen, Seq: e.Seq}, Data: data}, nil
}

// tailGuess is how much ReadPackIndex asks for at once: the index of ~680 frames.
const tailGuess = 16 << 10

// ReadPackIndex reads the end of a pack, whose size the catalog knows, so that single frames can be read.
func (l *Lake) ReadPackIndex(ctx context.Context, key string, size int64) (*PackIndex, error) {
	n := min(size, tailGuess)
	for {
		tail, err := l.GetRange(ctx, key, size-n, n)
		if err != nil {
			return nil, err
		}
		need, err := indexBytes(tail, size)
		if err != nil {
			l.Distrust(key, size-n, n)
			return nil, fmt.Errorf("pack %s: %w", key, err)
		}
		if need > n {
			n = need
			continue
		}
		index, err := parseIndex(tail, size)
		if err != nil {
			l.Distrust(key, size-n, n)
			return nil, fmt.Errorf("pack %s: %w", key, err)
		}
		return index, nil
	}
}

// ReadFrame reads one frame of a pack and checks it.
func (l *Lake) ReadFrame(ctx context.Context, key string, index *PackIndex, e FrameEntry) (bus.Frame, error) {
	data, err := l.GetRange(ctx, key, e.Offset, e.Length)
	if err != nil {
		return bus.Frame{}, err
	}
	f, err := index.frame(e, data)
	if err != nil {
		l.Distrust(key, e.Offset, e.Length)
		return bus.Frame{}, fmt.Errorf("pack %s: %w", key, err)
	}
	return f, nil
}

// indexBytes is the length of index and trailer of a pack of that size that ends in tail.
func indexBytes(tail []byte, size int64) (int64, error) {
	if len(tail) < trailerBytes || size < int64(len(packHead)+trailerBytes) {
		return 0, fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, size)
	}
	trailer := tail[len(tail)-trailerBytes:]
	if string(trailer[trailerBytes-len(packTail):]) != packTail {
		return 0, fmt.Errorf("%w: no pack tail", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(trailer[16:]); v != packVersion {
		return 0, fmt.Errorf("%w: pack version %d, this program reads %d", ErrCorrupt, v, packVersion)
	}
	n := int64(binary.LittleEndian.Uint32(trailer[12:]))*indexEntry + trailerBytes
	if n > size-int64(len(packHead)) {
		return 0, fmt.Errorf("%w: an index of %d bytes in a pack of %d", ErrCorrupt, n, size)
	}
	return n, nil
}

// parseIndex reads the index at the end of tail, the last bytes of a pack of that size. The frames must fill the
// pack from its head to the index without a gap, in order.
func parseIndex(tail []byte, size int64) (*PackIndex, error) {
	n, err := indexBytes(tail, size)
	if err != nil {
		return nil, err
	}
	if n > int64(len(tail)) {
		return nil, fmt.Errorf("%w: index cut off", ErrCorrupt)
	}
	raw := tail[int64(len(tail))-n:]
	trailer := raw[n-trailerBytes:]
	le := binary.LittleEndian
	if crcOf(raw[:n-trailerBytes+trailerCRC]) != le.Uint32(trailer[trailerCRC:]) {
		return nil, fmt.Errorf("%w: index does not match its CRC", ErrCorrupt)
	}
	gen, shard, count := le.Uint32(trailer[4:]), le.Uint32(trailer[8:]), int(le.Uint32(trailer[12:]))
	if gen > math.MaxInt32 || shard > math.MaxInt32 || count == 0 {
		return nil, fmt.Errorf("%w: generation %d, shard %d, %d frames", ErrCorrupt, gen, shard, count)
	}
	x := &PackIndex{Shard: catalog.ShardID{Class: trailer[0], Gen: int32(gen), Shard: int32(shard)}, Frames: make([]FrameEntry, count)}
	end := int64(len(packHead))
	for i := range x.Frames {
		e := raw[i*indexEntry:]
		f := FrameEntry{Seq: le.Uint64(e), Offset: int64(le.Uint64(e[8:])), Length: int64(le.Uint32(e[16:])), CRC: le.Uint32(e[20:])}
		if f.Offset != end || i > 0 && f.Seq <= x.Frames[i-1].Seq {
			return nil, fmt.Errorf("%w: frame %d out of place", ErrCorrupt, f.Seq)
		}
		end += f.Length
		x.Frames[i] = f
	}
	if end != size-n {
		return nil, fmt.Errorf("%w: frames end at %d, index begins at %d", ErrCorrupt, end, size-n)
	}
	return x, nil
}
