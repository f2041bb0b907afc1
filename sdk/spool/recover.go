package spool

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
)

// readRecords calls fn for each record of a journal, up to its end or to the first one that is not whole. The payload is valid during the
// call only.
func readRecords(path string, fn func(kind byte, payload []byte)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	var head [recordHead]byte
	var buf []byte
	for left := info.Size(); ; {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil
		}
		n := int64(binary.LittleEndian.Uint32(head[:]))
		if left -= recordHead + n; n < 1 || n > maxRecord || left < 0 {
			return nil
		}
		if int64(cap(buf)) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := io.ReadFull(r, buf); err != nil || crc32.Checksum(buf, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			return nil
		}
		fn(buf[0], buf[1:])
	}
}

// recovery is what a journal says.
type recovery struct {
	registrations map[telemetry.ID][]byte // by the id of the stream or process
	blocks        map[telemetry.ID]*recovered
	order         []telemetry.ID // of blocks, as they began
}

// recovered is a block of a dead process.
type recovered struct {
	head       telemetry.Block
	deps, objs []byte
}

// recoverRequests makes requests of the blocks that the journal of a dead process holds, each stream's registrations before its blocks.
// since is when the journal was last written.
func recoverRequests(path string) (rs []sdk.Request, since time.Time, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, since, err
	}
	v := recovery{registrations: map[telemetry.ID][]byte{}, blocks: map[telemetry.ID]*recovered{}}
	if err := readRecords(path, v.add); err != nil {
		return nil, since, err
	}
	registered := map[telemetry.ID]bool{}
	for _, id := range v.order {
		b := v.blocks[id]
		if b == nil || b.head.NbObjects == 0 {
			continue
		}
		rs = v.register(rs, registered, &b.head)
		rs = append(rs, sdk.Request{
			Kind: sdk.KindBlock, Class: v.class(b.head.StreamID), Events: int(b.head.NbObjects),
			ProcessID: b.head.ProcessID, StreamID: b.head.StreamID, BlockID: id,
			Body: wire.AppendBlock(nil, &b.head, wire.Compress(nil, b.deps), wire.Compress(nil, b.objs)),
		})
	}
	return rs, info.ModTime(), nil
}

// register appends the registrations that a block needs and that are not there yet.
func (v *recovery) register(rs []sdk.Request, registered map[telemetry.ID]bool, b *telemetry.Block) []sdk.Request {
	for _, r := range []sdk.Request{
		{Kind: sdk.KindProcess, ProcessID: b.ProcessID, Body: v.registrations[b.ProcessID]},
		{Kind: sdk.KindStream, ProcessID: b.ProcessID, StreamID: b.StreamID, Body: v.registrations[b.StreamID]},
	} {
		id := r.ProcessID
		if r.Kind == sdk.KindStream {
			id = r.StreamID
		}
		if len(r.Body) > 0 && !registered[id] {
			registered[id] = true
			rs = append(rs, r)
		}
	}
	return rs
}

// class returns the class of a stream's blocks.
func (v *recovery) class(stream telemetry.ID) sdk.Class {
	s, err := wire.DecodeStream(v.registrations[stream])
	if err != nil {
		return sdk.ClassSpans
	}
	switch telemetry.TagOf(s.Tags) {
	case telemetry.TagLog:
		return sdk.ClassLogs
	case telemetry.TagMetrics:
		return sdk.ClassMetrics
	}
	return sdk.ClassSpans
}

// add reads a record. What makes no sense is ignored: its checksum was right, so another version wrote it.
func (v *recovery) add(kind byte, payload []byte) {
	if len(payload) < 16 {
		return
	}
	id, rest := telemetry.ID(payload[:16]), payload[16:]
	switch kind {
	case recordProcess, recordStream:
		v.registrations[id] = append([]byte(nil), rest...)
	case recordForget:
		delete(v.blocks, id)
	case recordGrowth:
		if len(payload) < growthHead-1 {
			return
		}
		b := v.blocks[id]
		if b == nil {
			b = &recovered{}
			v.blocks[id] = b
			v.order = append(v.order, id)
		}
		b.grow(id, rest)
	}
}

// grow adds a growth, given without the id of its block.
func (b *recovered) grow(id telemetry.ID, p []byte) {
	le := binary.LittleEndian
	number := func(i int) int64 { return int64(le.Uint64(p[32+8*i:])) }
	n := int64(le.Uint32(p[76:]))
	rest := p[80:]
	if n > int64(len(rest)) {
		return
	}
	b.head = telemetry.Block{
		ID: id, StreamID: telemetry.ID(p[:16]), ProcessID: telemetry.ID(p[16:32]),
		BeginTime: number(0), EndTime: number(1), BeginTicks: number(2), EndTicks: number(3), ObjectOffset: number(4),
		NbObjects: int32(le.Uint32(p[72:])),
	}
	b.deps = append(b.deps, rest[:n]...)
	b.objs = append(b.objs, rest[n:]...)
}
