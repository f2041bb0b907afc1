// Package filesink is the sink that appends requests to a file, or to any io.Writer, and the reader of such files. Package spool keeps its
// requests in the same frames.
//
// A file is a sequence of frames without a head of its own, so that files may be put together. Integers are little-endian:
//
//	magic    4 bytes  "MGRQ"
//	length   u32      of the body
//	crc      u32      CRC-32C (Castagnoli) of everything behind it, the body included
//	version  u8       1
//	kind     u8       sdk.Kind
//	class    u8       sdk.Class
//	zero     u8
//	events   u32
//	since    i64      when the request was sent, ns since the Unix epoch
//	process  16 bytes
//	stream   16 bytes
//	block    16 bytes
//	body     length bytes
//
// A frame that the end of the file cuts short, or that does not begin with the magic, ends the file for a reader: it is what a crash left
// of the last write. A frame whose checksum is wrong is skipped.
package filesink

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

const (
	magic      = "MGRQ"
	version    = 1
	headerSize = 76
	crcOffset  = 8
	// MaxBody is the longest body that a frame may hold: a gateway takes a tenth of it. What is longer is no frame.
	MaxBody = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frame is a request in a file.
type Frame struct {
	sdk.Request
	Since time.Time // when it was sent
}

// Size returns how many bytes a frame with a body of n bytes takes.
func Size(n int) int64 { return headerSize + int64(n) }

// AppendFrame appends a frame. The body must not be longer than MaxBody.
func AppendFrame(dst []byte, f *Frame) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, magic...)
	dst = le.AppendUint32(dst, uint32(len(f.Body)))
	dst = append(dst, 0, 0, 0, 0) // crc
	dst = append(dst, version, byte(f.Kind), byte(f.Class), 0)
	dst = le.AppendUint32(dst, uint32(min(max(f.Events, 0), math.MaxInt32)))
	dst = le.AppendUint64(dst, uint64(f.Since.UnixNano()))
	dst = append(dst, f.ProcessID[:]...)
	dst = append(dst, f.StreamID[:]...)
	dst = append(dst, f.BlockID[:]...)
	dst = append(dst, f.Body...)
	le.PutUint32(dst[start+crcOffset:], crc32.Checksum(dst[start+crcOffset+4:], castagnoli))
	return dst
}

// Reader reads frames.
type Reader struct {
	r       *bufio.Reader
	offset  int64 // behind the last frame
	damaged int
	torn    bool
}

// NewReader returns a reader of the frames that r holds.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Offset returns where the last frame that Next saw ends: up to there the file is whole.
func (r *Reader) Offset() int64 { return r.offset }

// Torn reports whether the file ended in something that is no frame.
func (r *Reader) Torn() bool { return r.torn }

// Damaged returns how many frames had a wrong checksum and were skipped.
func (r *Reader) Damaged() int { return r.damaged }

// Next returns the next frame, whose body belongs to the caller, or io.EOF.
func (r *Reader) Next() (Frame, error) {
	for {
		f, ok, err := r.frame()
		if err != nil {
			return Frame{}, err
		}
		if ok {
			return f, nil
		}
		r.damaged++
	}
}

// frame reads a frame; false: its checksum is wrong.
func (r *Reader) frame() (f Frame, ok bool, err error) {
	var header [headerSize]byte
	n, err := io.ReadFull(r.r, header[:])
	if err != nil {
		return f, false, r.end(n > 0, err)
	}
	length := binary.LittleEndian.Uint32(header[4:])
	if string(header[:4]) != magic || header[12] != version || length > MaxBody {
		return f, false, r.end(true, io.EOF)
	}
	body, err := readBody(r.r, int64(length))
	if err != nil {
		return f, false, r.end(true, err)
	}
	r.offset += headerSize + int64(length)
	crc := crc32.Update(crc32.Checksum(header[crcOffset+4:], castagnoli), castagnoli, body)
	if crc != binary.LittleEndian.Uint32(header[crcOffset:]) {
		return f, false, nil
	}
	f.Kind, f.Class = sdk.Kind(header[13]), sdk.Class(header[14])
	f.Events = int(binary.LittleEndian.Uint32(header[16:]))
	f.Since = time.Unix(0, int64(binary.LittleEndian.Uint64(header[20:])))
	copy(f.ProcessID[:], header[28:])
	copy(f.StreamID[:], header[44:])
	copy(f.BlockID[:], header[60:])
	f.Body = body
	return f, true, nil
}

// readBody allocates no more than the file holds, whatever the frame claims.
func readBody(r io.Reader, n int64) ([]byte, error) {
	const trusted = 1 << 20
	if n <= trusted {
		body := make([]byte, n)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// end turns the end of the file into io.EOF, and anything else into an error.
func (r *Reader) end(torn bool, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		r.torn = r.torn || torn
		return io.EOF
	}
	return fmt.Errorf("read frame at %d: %w", r.offset, err)
}
