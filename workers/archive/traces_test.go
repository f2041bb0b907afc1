package archive_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func traceID(n int) [16]byte { return id('t', n) }

// tracedRecord is blockRecord with trace ids from..to-1 in its envelope.
func tracedRecord(n, size int, tag telemetry.Tag, from, to int) *bus.Record {
	r := blockRecord(n, 1, 1, size)
	b, _, err := wire.DecodeBlockEnvelope(r.Body)
	if err != nil {
		panic(err)
	}
	var ids [][16]byte
	for t := from; t < to; t++ {
		ids = append(ids, traceID(t))
	}
	r.Tag, r.Body = tag, wire.AppendBlockTraces(nil, &b, nil, make([]byte, size), wire.NewTraceSet(ids))
	return r
}

// blocksOf returns the blocks that hold a trace, or may, by the catalog.
func (w *world) blocksOf(trace int) (ids []telemetry.ID) {
	w.t.Helper()
	keys, err := w.cat.TraceBlocks(context.Background(), traceID(trace), math.MinInt64, math.MaxInt64, func(filter []byte) bool {
		return wire.TraceSet{Filter: filter}.MayHold(traceID(trace))
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys {
		ids = append(ids, k.BlockID)
	}
	return ids
}

func TestTraceIDsAreIndexed(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	damaged := tracedRecord(6, 100, telemetry.TagLog, 7, 9)
	head, tail, _ := bytes.Cut(damaged.Body, append([]byte("trace_ids"), 0x58, 32))                 // a string of 32 bytes
	damaged.Body = append(slices.Concat(head, []byte("trace_ids"), []byte{0x58, 31}), tail[:31]...) // not two whole ids
	good := []*bus.Record{
		tracedRecord(1, 100, telemetry.TagLog, 1, 3),
		tracedRecord(2, 100, telemetry.TagCPU, 2, 4),
		tracedRecord(3, 100, telemetry.TagMetrics, 2, 4), // has none by its kind
		tracedRecord(4, 100, telemetry.TagCPU, 1000, 1000+wire.MaxTraceIDs+1),
		tracedRecord(5, 3<<20, telemetry.TagLog, 1, 3), // a body to adopt
		damaged,
		blockRecord(7, 1, 1, 100),
		tracedRecord(8, 3<<20, telemetry.TagCPU, 5000, 15_000),
		tracedRecord(9, 100, telemetry.TagUnknown, 3, 4), // its stream was registered at another gateway a moment ago
	}
	w.publish(bus.Eager, append(good, good[:5]...)...) // some of them twice
	w.flush(eager)
	w.archived(good)

	expect := func(trace int, want ...int) {
		t.Helper()
		var ids []telemetry.ID
		for _, n := range want {
			ids = append(ids, id('b', n))
		}
		if got := w.blocksOf(trace); !slices.Equal(got, ids) {
			t.Errorf("trace %d is in %v, want %v", trace, got, ids)
		}
	}
	expect(1, 1, 5)
	expect(2, 1, 2, 5)
	expect(3, 2, 9)
	expect(7) // damaged
	for trace := 1000; trace < 1000+wire.MaxTraceIDs+1; trace++ {
		if !slices.Contains(w.blocksOf(trace), id('b', 4)) {
			t.Fatalf("trace %d is not found", trace)
		}
	}
	if !slices.Contains(w.blocksOf(14_999), id('b', 8)) {
		t.Error("the last of 10,000 traces is not found")
	}
	if st := a.Stats().Shards[0]; st.Blocks != 9 || st.Unindexed != 1 || st.Unreadable != 0 {
		t.Errorf("stats %+v", st)
	}
	stats, err := w.cat.Stats(t.Context())
	if err != nil || stats.TraceIDs != 7 || stats.TraceFilters != 2 || stats.TraceSince != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// What the format allows the catalog takes: otherwise a client could stop a shard.
func TestCatalogTakesAllTraceSets(t *testing.T) {
	for _, n := range []int{0, 1, wire.MaxTraceIDs, wire.MaxTraceIDs + 1, 200_000} {
		var ids [][16]byte
		for i := range n {
			ids = append(ids, traceID(i))
		}
		if s := wire.NewTraceSet(ids); catalog.CheckTraces(s.IDs, s.Filter) != nil {
			t.Errorf("%d ids, filter of %d bytes", n, len(s.Filter))
		}
	}
}
