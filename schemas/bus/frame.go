package bus

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Sizes and marks of the frame format; see the package comment.
const (
	frameVersion   = 1
	frameMagic     = "MMF"
	frameFixed     = 12 // magic, version, count, crc
	tableEntry     = 4  // one length in the table
	recordFixed    = 92 // a record before its body
	flagClaim      = 1  // the body is a claim key
	maxClaimLength = 1024
	// maxFrameRecords bounds what a header may claim; 64 MiB of the smallest records are fewer.
	maxFrameRecords = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frame is one message of the bus.
type Frame struct {
	Position
	// Data is the frame as it was published, never to be changed: records alias it, and packs store it verbatim.
	Data []byte
}

// recordHead is a record's fixed part as it stands in a frame.
type recordHead [recordFixed]byte

// encode fills h from r, its CRC included.
func (h *recordHead) encode(r *Record) {
	le := binary.LittleEndian
	h[4], h[5], h[6], h[7] = byte(r.Kind), byte(r.Tag), 0, 0
	if r.Claim != "" {
		h[6] = flagClaim
	}
	le.PutUint64(h[8:], uint64(r.InsertTimeUs))
	copy(h[16:], r.ProcessID[:])
	copy(h[32:], r.StreamID[:])
	copy(h[48:], r.BlockID[:])
	le.PutUint64(h[64:], uint64(r.BeginTime))
	le.PutUint64(h[72:], uint64(r.EndTime))
	le.PutUint64(h[80:], uint64(r.BodySize))
	le.PutUint32(h[88:], r.CRC)
	le.PutUint32(h[:], h.sum([]byte(r.Claim)))
}

// sum is the record's CRC: of its fixed part without the CRC itself, and of its claim key.
func (h *recordHead) sum(claim []byte) uint32 {
	return crc32.Update(crc32.Checksum(h[4:], castagnoli), castagnoli, claim)
}

// FrameSize returns how many bytes a frame of these records takes.
func FrameSize(records ...*Record) int {
	n := frameFixed
	for _, r := range records {
		n += tableEntry + recordFixed + len(r.stored())
	}
	return n
}

// stored returns how the body stands in a frame: itself, or its claim key.
func (r *Record) stored() []byte {
	if r.Claim != "" {
		return []byte(r.Claim)
	}
	return r.Body
}

// AppendFrame appends a frame of records, whose BodySize and CRC it sets for bodies that are not claimed.
func AppendFrame(dst []byte, records ...*Record) []byte {
	dst, table := appendFrameHeader(dst, len(records))
	var h recordHead
	for i, r := range records {
		r.seal()
		h.encode(r)
		dst = appendRecord(dst, table, i, &h, r.stored())
	}
	sealFrameHeader(dst, table, len(records))
	return dst
}

// seal sets what Publish promises about a body that is at hand.
func (r *Record) seal() {
	if r.Claim == "" {
		r.BodySize = int64(len(r.Body))
		r.CRC = crc32.Checksum(r.Body, castagnoli)
	}
}

// appendFrameHeader appends the header and an empty table for count records, and returns the table's index in dst.
func appendFrameHeader(dst []byte, count int) ([]byte, int) {
	dst = append(dst, frameMagic...)
	dst = append(dst, frameVersion)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(count))
	dst = append(dst, 0, 0, 0, 0)
	table := len(dst)
	for range count {
		dst = append(dst, 0, 0, 0, 0)
	}
	return dst, table
}

// appendRecord appends record i and notes its length in the table.
func appendRecord(dst []byte, table, i int, h *recordHead, stored []byte) []byte {
	dst = append(dst, h[:]...)
	dst = append(dst, stored...)
	binary.LittleEndian.PutUint32(dst[table+i*tableEntry:], uint32(recordFixed+len(stored)))
	return dst
}

// sealFrameHeader writes the CRC of the header and the table, which are complete now.
func sealFrameHeader(dst []byte, table, count int) {
	binary.LittleEndian.PutUint32(dst[table-4:], headerSum(dst[table-frameFixed:], count))
}

// headerSum is the CRC of a frame's header and table, without the CRC's own bytes.
func headerSum(frame []byte, count int) uint32 {
	sum := crc32.Checksum(frame[:8], castagnoli)
	return crc32.Update(sum, castagnoli, frame[frameFixed:frameFixed+count*tableEntry])
}

// Records iterates over the frame's records in order; the index is Copy.Rec. Every checksum is verified: a record that
// is not usable has Err set, and the others are served nevertheless. A frame whose header is damaged is one such record.
func (f Frame) Records() iter.Seq2[int, Record] {
	return func(yield func(int, Record) bool) {
		count, err := frameCount(f.Data)
		if err != nil {
			yield(0, Record{Err: err})
			return
		}
		begin := frameFixed + count*tableEntry
		for i := range count {
			length := int(binary.LittleEndian.Uint32(f.Data[frameFixed+i*tableEntry:]))
			rest := f.Data[min(begin, len(f.Data)):]
			r := Record{Err: fmt.Errorf("record %d of %d bytes in a frame cut at %d: %w", i, length, len(f.Data), ErrUnreadable)}
			if length <= len(rest) {
				r = parseRecord(rest[:length:length], begin)
			}
			if !yield(i, r) {
				return
			}
			begin += length
		}
	}
}

// frameCount checks a frame's header and table and returns how many records they announce.
func frameCount(data []byte) (int, error) {
	if len(data) < frameFixed || string(data[:3]) != frameMagic {
		return 0, fmt.Errorf("%d bytes that are no frame: %w", len(data), ErrUnreadable)
	}
	if data[3] != frameVersion {
		return 0, fmt.Errorf("frame version %d, known is %d: %w", data[3], frameVersion, ErrUnreadable)
	}
	count := binary.LittleEndian.Uint32(data[4:])
	if count == 0 || count > maxFrameRecords || int64(count)*tableEntry > int64(len(data)-frameFixed) {
		return 0, fmt.Errorf("frame of %d bytes announces %d records: %w", len(data), count, ErrUnreadable)
	}
	if headerSum(data, int(count)) != binary.LittleEndian.Uint32(data[8:]) {
		return 0, fmt.Errorf("frame header checksum differs: %w", ErrUnreadable)
	}
	return int(count), nil
}

// parseRecord reads the record whose bytes are b, which begins at offset in its frame.
func parseRecord(b []byte, offset int) Record {
	if len(b) < recordFixed {
		return Record{Err: fmt.Errorf("record of %d bytes: %w", len(b), ErrUnreadable)}
	}
	le := binary.LittleEndian
	h, stored := (*recordHead)(b), b[recordFixed:]
	var claim []byte
	if b[6]&flagClaim != 0 {
		claim = stored[:min(len(stored), maxClaimLength)]
	}
	if h.sum(claim) != le.Uint32(b) {
		return Record{Err: fmt.Errorf("record header checksum differs: %w", ErrUnreadable)}
	}
	r := Record{
		Kind:         Kind(b[4]),
		Tag:          telemetry.Tag(b[5]),
		InsertTimeUs: int64(le.Uint64(b[8:])),
		ProcessID:    telemetry.ID(b[16:32]),
		StreamID:     telemetry.ID(b[32:48]),
		BlockID:      telemetry.ID(b[48:64]),
		BeginTime:    int64(le.Uint64(b[64:])),
		EndTime:      int64(le.Uint64(b[72:])),
		BodySize:     int64(le.Uint64(b[80:])),
		CRC:          le.Uint32(b[88:]),
	}
	switch {
	case b[6]&^flagClaim != 0 || b[7] != 0:
		r.Err = fmt.Errorf("record flags %#x %#x are not known: %w", b[6], b[7], ErrUnreadable)
	case b[6]&flagClaim != 0 && (len(stored) == 0 || len(stored) > maxClaimLength):
		r.Err = fmt.Errorf("claim key of %d bytes: %w", len(stored), ErrUnreadable)
	case b[6]&flagClaim != 0:
		r.Claim = string(stored)
	case int64(len(stored)) != r.BodySize:
		r.Err = fmt.Errorf("body of %d bytes, announced %d: %w", len(stored), r.BodySize, ErrUnreadable)
	case crc32.Checksum(stored, castagnoli) != r.CRC:
		r.Err = fmt.Errorf("body checksum of %s %s differs: %w", r.Kind, r.id(), ErrUnreadable)
	default:
		r.Body, r.Offset = stored, offset+recordFixed
	}
	return r
}

// id returns what identifies the record among its kind.
func (r *Record) id() telemetry.ID {
	switch r.Kind {
	case KindProcess:
		return r.ProcessID
	case KindStream:
		return r.StreamID
	}
	return r.BlockID
}

// CheckBody returns an error that matches ErrUnreadable unless body is the claimed body of r.
func (r *Record) CheckBody(body []byte) error {
	if int64(len(body)) != r.BodySize || crc32.Checksum(body, castagnoli) != r.CRC {
		return fmt.Errorf("claimed body %s of %s %s: %d bytes, announced %d, or checksum differs: %w",
			r.Claim, r.Kind, r.id(), len(body), r.BodySize, ErrUnreadable)
	}
	return nil
}
