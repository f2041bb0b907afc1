package archive

import (
	"log/slog"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// FuzzRead feeds bodies as foreign as can be: whatever they are, each record becomes exactly one row, or one skip with its
// dead letter, and the rows lie inside the frame.
func FuzzRead(f *testing.F) {
	block := telemetry.Block{ID: telemetry.ID{1}, StreamID: telemetry.ID{2}, ProcessID: telemetry.ID{3}}
	process := telemetry.Process{ID: telemetry.ID{3}}
	deps, objs := wire.LogTypes()
	stream := telemetry.Stream{ID: telemetry.ID{2}, ProcessID: telemetry.ID{3}, Dependencies: deps, Objects: objs, Tags: []string{"log"}}
	f.Add(uint8(bus.KindBlock), wire.AppendBlock(nil, &block, []byte("d"), []byte("o")))
	f.Add(uint8(bus.KindBlock), wire.AppendBlockTraces(nil, &block, nil, []byte("o"), wire.TraceSet{IDs: make([]byte, 16*wire.MaxTraceIDs)}))
	f.Add(uint8(bus.KindBlock), wire.AppendBlockTraces(nil, &block, nil, []byte("o"), wire.TraceSet{Filter: make([]byte, 64<<10)}))
	f.Add(uint8(bus.KindBlock), wire.AppendBlockTraces(nil, &block, nil, []byte("o"), wire.TraceSet{IDs: make([]byte, 17)}))
	f.Add(uint8(bus.KindProcess), wire.AppendProcess(nil, &process))
	f.Add(uint8(bus.KindStream), wire.AppendStream(nil, &stream))
	f.Add(uint8(9), []byte{0xbf, 0xff})
	a := &Archive{cfg: DefaultConfig(), log: slog.New(slog.DiscardHandler), hook: func(step) error { return nil }}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		r := &bus.Record{Kind: bus.Kind(kind), ProcessID: telemetry.ID{3}, StreamID: telemetry.ID{2}, BlockID: telemetry.ID{1}, Body: body}
		frame := bus.Frame{Position: bus.Position{Shard: bus.Shard{Class: bus.Eager}, Seq: 7}, Data: bus.AppendFrame(nil, r, r)}
		o := &owner{shard: newShard(a, frame.Shard), epoch: 1}
		o.batch.reset(bus.Position{Shard: frame.Shard, Seq: 6})
		o.batch.add(frame)
		c, err := o.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Processes) + len(c.Streams) + len(c.Blocks) + len(c.Skips); n != 2 {
			t.Fatalf("2 records became %d rows", n)
		}
		if len(c.Blocks) > 1 {
			t.Fatal("one block twice")
		}
		c.point(&catalog.Pack{}, []int64{100}, 0)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Blocks {
			from := b.PackOffset - 100
			if from < 0 || from+b.PackLength > int64(len(frame.Data)) || string(frame.Data[from:from+b.PackLength]) != string(body) {
				t.Fatalf("body of %d bytes at %d of a frame of %d", b.PackLength, from, len(frame.Data))
			}
		}
	})
}
