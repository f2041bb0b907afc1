package spool

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

// A journal is a sequence of records, integers little-endian:
//
//	length u32   of what follows the checksum
//	crc    u32   CRC-32C of it
//	type   u8
//	registration (1 process, 2 stream): id 16 bytes, body
//	growth (3): block, stream, process 16 bytes each; begin time, end time, begin ticks, end ticks, object offset i64 each;
//	    objects in the block u32; length of the dependencies u32; dependencies; objects
//	forget (4): block 16 bytes
//
// A record that is cut short or whose checksum is wrong ends the journal. Registrations are kept under the id of their stream or process and
// stand before the first growth that needs them.
const (
	recordProcess = 1 + iota
	recordStream
	recordGrowth
	recordForget
)

const (
	recordHead = 8
	growthHead = 1 + 3*16 + 5*8 + 4 + 4
	// maxRecord bounds what a reader believes a record to be long.
	maxRecord = 1 << 30
	// rewindBytes is how large a journal that holds nothing must be to be emptied: less often, and registrations are written once.
	rewindBytes = 1 << 20
	keepBuffer  = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal is the journal of this process.
type journal struct {
	home *home
	max  int64

	mu      sync.Mutex
	closed  bool
	f       *os.File
	size    int64 // of f
	open    map[telemetry.ID]*openBlock
	blocks  map[telemetry.ID]*openBlock // those that the file holds something of
	streams map[telemetry.ID]*registration
	buf     []byte
	errors  int64
}

// openBlock is a block in the journal.
type openBlock struct {
	id, stream, process telemetry.ID
	sent                bool
	broken              bool // a growth of it is missing: later ones would not fit
}

// registration is that of a stream and its process.
type registration struct {
	process, stream []byte
	written         bool // in the file
}

func newJournal(h *home, maxBytes int64) *journal {
	return &journal{
		home: h, max: maxBytes, open: map[telemetry.ID]*openBlock{}, blocks: map[telemetry.ID]*openBlock{},
		streams: map[telemetry.ID]*registration{},
	}
}

// append adds to the open block of a stream.
func (j *journal) append(g *sdk.Growth) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	reg := j.streams[g.Head.StreamID]
	if reg == nil {
		reg = &registration{process: g.Process, stream: g.Stream}
		j.streams[g.Head.StreamID] = reg
	}
	b := j.open[g.Head.StreamID]
	if b != nil && b.id != g.Head.ID { // nobody said that the last one was cut
		j.cut(b)
		b = nil
	}
	if b == nil {
		b = &openBlock{id: g.Head.ID, stream: g.Head.StreamID, process: g.Head.ProcessID}
		j.open[b.stream], j.blocks[b.id] = b, b
	}
	if b.broken {
		return
	}
	j.buf = j.buf[:0]
	if !reg.written {
		j.buf = appendRegistration(j.buf, recordProcess, b.process, reg.process)
		j.buf = appendRegistration(j.buf, recordStream, b.stream, reg.stream)
	}
	j.buf = appendGrowth(j.buf, g)
	if j.size+int64(len(j.buf)) > j.max {
		j.compact()
		if j.size+int64(len(j.buf)) > j.max {
			b.broken = true
			j.errors++
			return
		}
	}
	if !j.write(j.buf) {
		b.broken = true
		return
	}
	reg.written = true
	if cap(j.buf) > keepBuffer {
		j.buf = nil
	}
}

// cutStream ends the open block of a stream.
func (j *journal) cutStream(streamID telemetry.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if b := j.open[streamID]; b != nil {
		j.cut(b)
	}
}

// cut forgets a block, unless it was sent: then the sink says when.
func (j *journal) cut(b *openBlock) {
	delete(j.open, b.stream)
	if !b.sent {
		j.forget(b)
	}
}

// sent notes that a block is on its way.
func (j *journal) sent(r *sdk.Request) {
	if r.Kind != sdk.KindBlock {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if b := j.blocks[r.BlockID]; b != nil {
		b.sent = true
	}
}

// settled forgets a block that is delivered, dropped or on disk.
func (j *journal) settled(r *sdk.Request) {
	if r.Kind != sdk.KindBlock {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if b := j.blocks[r.BlockID]; b != nil {
		if j.open[b.stream] == b {
			delete(j.open, b.stream)
		}
		j.forget(b)
	}
}

func (j *journal) forget(b *openBlock) {
	delete(j.blocks, b.id)
	if j.f == nil {
		return
	}
	if len(j.blocks) == 0 && j.size >= rewindBytes && j.rewind() {
		return
	}
	j.buf = appendRecord(j.buf[:0], recordForget, func(dst []byte) []byte { return append(dst, b.id[:]...) })
	j.write(j.buf)
}

// rewind empties the file.
func (j *journal) rewind() bool {
	if err := j.f.Truncate(0); err != nil {
		j.errors++
		return false
	}
	j.size = 0
	for _, r := range j.streams {
		r.written = false
	}
	return true
}

// write appends records, all or none.
func (j *journal) write(records []byte) bool {
	err := j.ensure()
	if err == nil {
		if _, err = j.f.Write(records); err == nil {
			j.size += int64(len(records))
			return true
		}
		if j.f.Truncate(j.size) != nil {
			j.abandon()
		}
	}
	j.errors++
	return false
}

// ensure opens the file.
func (j *journal) ensure() error {
	if j.f != nil {
		return nil
	}
	folder, err := j.home.path()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(folder, journalName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	j.f, j.size = f, info.Size()
	return nil
}

// abandon leaves a file alone that ends in half a record: nothing can follow that. The blocks in it are recovered as far as they are there.
func (j *journal) abandon() {
	for _, b := range j.blocks {
		b.broken = true
	}
	j.closed = true
	j.f.Close()
	j.f = nil
}

// compact writes the journal anew, without what is forgotten.
func (j *journal) compact() {
	if j.f == nil || j.size == 0 {
		return
	}
	path := j.f.Name()
	var kept []byte
	err := readRecords(path, func(kind byte, payload []byte) {
		if kind == recordGrowth && len(payload) >= 16 && j.blocks[telemetry.ID(payload[:16])] == nil {
			return
		}
		if kind != recordForget {
			kept = appendRecord(kept, kind, func(dst []byte) []byte { return append(dst, payload...) })
		}
	})
	if err != nil || int64(len(kept)) > j.max/2 {
		return
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, kept, 0o600); err != nil {
		os.Remove(fresh)
		j.errors++
		return
	}
	j.f.Close() // first: some systems do not replace files that are open
	j.f = nil
	if err := os.Rename(fresh, path); err != nil {
		os.Remove(fresh)
		j.errors++
	}
	if err := j.ensure(); err != nil {
		j.errors++
	}
}

// close removes the journal, if it holds nothing any more.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.f == nil {
		return
	}
	path := j.f.Name()
	j.f.Close()
	j.f = nil
	if len(j.blocks) == 0 {
		os.Remove(path)
	}
}

func (j *journal) errorCount() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.errors
}

func appendRecord(dst []byte, kind byte, payload func([]byte) []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, kind)
	dst = payload(dst)
	record := dst[start+recordHead:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(record)))
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(record, castagnoli))
	return dst
}

func appendRegistration(dst []byte, kind byte, id telemetry.ID, body []byte) []byte {
	return appendRecord(dst, kind, func(dst []byte) []byte { return append(append(dst, id[:]...), body...) })
}

func appendGrowth(dst []byte, g *sdk.Growth) []byte {
	le := binary.LittleEndian
	return appendRecord(dst, recordGrowth, func(dst []byte) []byte {
		h := &g.Head
		dst = append(append(append(dst, h.ID[:]...), h.StreamID[:]...), h.ProcessID[:]...)
		for _, n := range [...]int64{h.BeginTime, h.EndTime, h.BeginTicks, h.EndTicks, h.ObjectOffset} {
			dst = le.AppendUint64(dst, uint64(n))
		}
		dst = le.AppendUint32(le.AppendUint32(dst, uint32(h.NbObjects)), uint32(len(g.Dependencies)))
		return append(append(dst, g.Dependencies...), g.Objects...)
	})
}
