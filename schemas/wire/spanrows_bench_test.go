package wire_test

import (
	"fmt"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// spanSites appends n records of spans and n locations, with ids from 1000 and from 2000, and n names with ids from 3000.
func spanSites(n int) []byte {
	text := func(b []byte, id int, s string) []byte {
		return wire.AppendStaticString(b, wire.CPUDepStaticString, uint64(id), s)
	}
	b := text(text(text(nil, 1, "service::engine"), 2, "service::engine::world"), 3, "src/engine/world.rs")
	for i := range n {
		b = text(b, 3000+i, fmt.Sprintf("World::update_step_%d", i))
		m := wire.Metadata{ID: uint64(1000 + i), Name: uint64(3000 + i), Target: 1, Module: 2, File: 3, Line: uint32(10 * i), Level: 2}
		b = wire.AppendSpanRecord(b, &m)
		m.ID = uint64(2000 + i)
		b = wire.AppendSpanLocation(b, &m)
	}
	return b
}

// benchBlock is a block of n events, each appended by add, over 60 sites.
func benchBlock(n int, add func(b []byte, i int, ticks int64) []byte) *wire.BlockBody {
	var objs []byte
	ticks := int64(7_129_329_302_512)
	for i := range n {
		ticks += int64(60 + i*7919%400)
		objs = add(objs, i, ticks)
	}
	b := pack(spanSites(60), objs)
	b.Block = telemetry.Block{ID: telemetry.NewID(), NbObjects: int32(n)}
	return b
}

// benchSite spreads events over 60 sites without an order that a branch predictor learns.
func benchSite(i int) uint64 { return uint64(i * 2654435761 >> 7 % 60) }

func threadEvents(b []byte, i int, ticks int64) []byte {
	return wire.AppendThreadSpan(b, uint8(wire.CPUBeginThreadSpan+i%2), 1000+benchSite(i/2), ticks)
}

func namedEvents(b []byte, i int, ticks int64) []byte {
	name := wire.StaticRef{ID: 3000 + benchSite(i/2), Len: 20}
	return wire.AppendThreadNamedSpan(b, uint8(wire.CPUBeginThreadNamedSpan+i%2), 2000+benchSite(i/6), name, ticks)
}

func asyncEvents(b []byte, i int, ticks int64) []byte {
	s := wire.AsyncSpan{ID: uint64(1 + i/2), Parent: uint64(i / 20), Depth: uint32(i % 5)}
	return wire.AppendAsyncSpan(b, uint8(wire.CPUBeginAsyncSpan+i%2), 1000+benchSite(i/2), s, ticks)
}

func benchmarkSpans(b *testing.B, add func(b []byte, i int, ticks int64) []byte) {
	b.Helper()
	const events = 10_000
	d, block := decoderOf(b, wire.CPUTypes), benchBlock(events, add)
	b.SetBytes(int64(len(block.Dependencies) + len(block.Objects)))
	b.ReportAllocs()
	var dst wire.SpanBlock
	for b.Loop() {
		if c, err := d.Spans(block, &dst); err != nil || c.Rows != events {
			b.Fatal(c, err)
		}
	}
	perRow(b, events)
}

func BenchmarkSpansThread(b *testing.B) { benchmarkSpans(b, threadEvents) }
func BenchmarkSpansNamed(b *testing.B)  { benchmarkSpans(b, namedEvents) }
func BenchmarkSpansAsync(b *testing.B)  { benchmarkSpans(b, asyncEvents) }

func BenchmarkNets(b *testing.B) {
	const events = 10_000
	deps := wire.AppendStaticStringDependency(nil, wire.NetDepStaticStringDependency, 1, "IpConnection_0")
	name := wire.StaticRef{ID: 1, Len: 14}
	var objs []byte
	for i := range events {
		switch i % 4 {
		case 0:
			objs = wire.AppendNetBegin(objs, wire.NetObjectBegin, int64(i), name)
		case 3:
			objs = wire.AppendNetEnd(objs, wire.NetObjectEnd, int64(i), 64)
		default:
			objs = wire.AppendNetProperty(objs, int64(i), name, 16)
		}
	}
	d, block := decoderOf(b, wire.NetTypes), pack(deps, objs)
	block.NbObjects = events
	b.SetBytes(int64(len(block.Dependencies) + len(block.Objects)))
	b.ReportAllocs()
	var dst wire.NetBlock
	for b.Loop() {
		if c, err := d.Nets(block, &dst); err != nil || c.Rows != events {
			b.Fatal(c, err)
		}
	}
	perRow(b, events)
}

func BenchmarkImages(b *testing.B) {
	const images = 20
	picture := make([]byte, 50_000)
	for i := range picture {
		picture[i] = byte(i * i >> 5)
	}
	var objs []byte
	for i := range images {
		objs = wire.AppendImage(objs, int64(i), "screenshot", "png", picture)
	}
	d, block := decoderOf(b, wire.ImageTypes), pack(nil, objs)
	b.SetBytes(int64(len(objs)))
	b.ReportAllocs()
	for b.Loop() {
		if c, err := d.Images(block, func(int, *wire.Image) error { return nil }); err != nil || c.Rows != images {
			b.Fatal(c, err)
		}
	}
	perRow(b, images)
}
