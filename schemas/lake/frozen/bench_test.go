package frozen_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// fleet returns n blocks of a day as a fleet makes them: streams that live for some hours and send a block every few seconds, packs
// of a hundred blocks.
func fleet(n int) []catalog.BlockRow {
	rnd := rand.New(rand.NewPCG(5, 5))
	rows := make([]catalog.BlockRow, 0, n)
	for len(rows) < n {
		stream, process := telemetry.NewID(), telemetry.NewID()
		begin := day + rnd.Int64N(20*3600*1e9)
		length := int64(5e9) + rnd.Int64N(5e9)
		ticks, offset := rnd.Int64N(1e12), int64(0)
		for range min(n-len(rows), 100+rnd.IntN(500)) {
			var b catalog.BlockRow
			b.ID, b.StreamID, b.ProcessID = telemetry.NewID(), stream, process
			b.BeginTime, b.EndTime = catalog.TruncateToMicroseconds(begin), catalog.TruncateToMicroseconds(begin+length)
			b.BeginTicks, b.EndTicks = ticks, ticks+length*3
			b.NbObjects, b.ObjectOffset = int32(200+rnd.IntN(800)), offset
			b.InsertTime = catalog.TruncateToMicroseconds(b.EndTime + 5e6 + rnd.Int64N(50e6))
			pack := (b.InsertTime - day) * int64(n) / 100 / (24 * 3600 * 1e9)
			b.PackSeq = uint64(pack)*30 + 29
			b.PackKey = fmt.Sprintf("packs/e/0/0/%08x/%020d-%08x-%04x-4000-8000-%012x.pack", b.PackSeq>>14, b.PackSeq-29, uint32(pack*2654435761), uint16(pack*40503), uint64(pack)*0x9E3779B97F4A7C15>>16)
			b.PackOffset, b.PackLength = rnd.Int64N(4<<20), 20_000+rnd.Int64N(20_000)
			b.PayloadSize, b.Shard = b.PackLength-150, catalog.ShardID{Class: 'e'}
			rows = append(rows, b)
			begin, ticks, offset = begin+length, ticks+length*3, offset+int64(b.NbObjects)
		}
	}
	return sorted(rows)
}

const benchRows = 1 << 20

var benchFleet = sync.OnceValue(func() []catalog.BlockRow { return fleet(benchRows) })

func BenchmarkWrite(b *testing.B) {
	rows := benchFleet()
	for b.Loop() {
		_, data := writeGroups(b, "a", rows, frozen.GroupRows)
		b.ReportMetric(float64(len(data))/float64(len(rows)), "B/row")
	}
	b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func benchReader(b *testing.B) (catalog.FrozenFile, *objects, []catalog.BlockRow) {
	rows := benchFleet()
	f, data := writeGroups(b, "a", rows, frozen.GroupRows)
	return f, &objects{files: map[string][]byte{"a": data}}, rows
}

func BenchmarkLookup(b *testing.B) {
	f, o, rows := benchReader(b)
	lookup := func(b *testing.B, r *frozen.Reader, i int) {
		found, err := r.Lookup(b.Context(), []catalog.FrozenFile{f}, []catalog.BlockKey{rows[i*7919%len(rows)].BlockKey()})
		if err != nil || !found[0] {
			b.Fatal(found, err)
		}
	}
	b.Run("cold", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			lookup(b, frozen.NewReader(o), i)
		}
	})
	b.Run("footer", func(b *testing.B) { // the footer is there, no row group is
		for i := 0; b.Loop(); i++ {
			r := frozen.NewReader(o)
			b.StopTimer()
			if _, err := r.Lookup(b.Context(), []catalog.FrozenFile{f}, []catalog.BlockKey{{StreamID: rows[0].StreamID, BeginTime: rows[0].BeginTime}}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			lookup(b, r, i+10)
		}
	})
	b.Run("warm", func(b *testing.B) {
		r := frozen.NewReader(o)
		for i := 0; b.Loop(); i++ {
			lookup(b, r, i)
		}
	})
}

func BenchmarkBlocks(b *testing.B) {
	f, o, rows := benchReader(b)
	r := frozen.NewReader(o)
	for i := 0; b.Loop(); i++ {
		s := rows[i*7919%len(rows)]
		got, err := r.Blocks(b.Context(), []catalog.FrozenFile{f}, s.StreamID, s.BeginTime, s.EndTime)
		if err != nil || len(got) == 0 {
			b.Fatal(len(got), err)
		}
	}
}
