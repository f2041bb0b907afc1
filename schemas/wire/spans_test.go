package wire_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func traceIDs(n int, random bool) [][16]byte {
	ids := make([][16]byte, n)
	for i := range ids {
		if random {
			id := telemetry.NewID()
			ids[i] = id
			continue
		}
		binary.BigEndian.PutUint64(ids[i][8:], uint64(i+1)) // as makers of 64-bit ids pad them
	}
	return ids
}

func TestTraceSets(t *testing.T) {
	for _, n := range []int{0, 1, 256, 257, 5000, 50_000} {
		for _, random := range []bool{true, false} {
			ids := traceIDs(2*n, random)
			s := wire.NewTraceSet(slices.Clone(ids[:n]))
			b := telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.NewID(), NbObjects: 1}
			body := wire.AppendBlockTraces(nil, &b, wire.Compress(nil, nil), wire.Compress(nil, []byte("x")), s)
			back, err := wire.DecodeBlockTraces(body)
			if err != nil {
				t.Fatal(err)
			}
			if read, err := wire.DecodeBlock(body); err != nil || read.Block != b {
				t.Fatalf("the block is %+v, %v", read.Block, err)
			}
			for _, id := range ids[:n] {
				if !back.MayHold(id) {
					t.Fatalf("of %d ids %x is missing", n, id)
				}
			}
			wrong := 0
			for _, id := range ids[n:] {
				if back.MayHold(id) {
					wrong++
				}
			}
			if n <= 256 && wrong > 0 || wrong > n/50+5 {
				t.Errorf("of %d ids %d others are found too", n, wrong)
			}
		}
	}
}

func TestTraceSetsAreChecked(t *testing.T) {
	b := telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.NewID(), NbObjects: 1}
	for name, s := range map[string]wire.TraceSet{
		"half an id":      {IDs: make([]byte, 24)},
		"too many ids":    {IDs: make([]byte, 257*16)},
		"a small filter":  {Filter: make([]byte, 512)},
		"an odd filter":   {Filter: make([]byte, 3000)},
		"a filter beyond": {Filter: make([]byte, 128<<10)},
	} {
		if _, err := wire.DecodeBlockTraces(wire.AppendBlockTraces(nil, &b, nil, nil, s)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := wire.DecodeBlockTraces([]byte{0xa1}); err == nil {
		t.Error("cut body: no error")
	}
}

// A reader of this format sees the properties; the events around them are as they would be without.
func TestSpanProperties(t *testing.T) {
	deps, objs := wire.SpanTypes()
	d, err := wire.NewDecoder(deps, objs, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	var db, ob []byte
	db = wire.AppendStaticString(db, wire.CPUDepStaticString, 1, "name")
	db = wire.AppendStaticString(db, wire.CPUDepStaticString, 2, "value")
	db = wire.AppendSpanRecord(db, &wire.Metadata{ID: 3, Name: 1, Target: 1, Module: 1, File: 1})
	db = wire.AppendSpanPropertySet(db, 4, [2]wire.StaticRef{{ID: 1, Len: 4}, {ID: 2, Len: 5}})
	ob = wire.AppendThreadSpan(ob, wire.CPUBeginThreadSpan, 3, 10)
	ob = wire.AppendSpanProperties(ob, wire.SpanThreadProperties, 77, 4, 11)
	ob = wire.AppendSpanProperties(ob, wire.SpanAsyncProperties, 78, 4, 12)
	ob = wire.AppendThreadSpan(ob, wire.CPUEndThreadSpan, 3, 13)
	body := wire.BlockBody{Dependencies: wire.Compress(nil, db), Objects: wire.Compress(nil, ob)}
	var types []string
	_, err = d.Objects(&body, func(_ int, o *wire.Object) error {
		types = append(types, o.Type)
		if p := o.Field("properties").Properties; len(p) > 0 {
			if p[0] != (telemetry.Property{Key: "name", Value: "value"}) || o.Field("span").Uint() != uint64(75+len(types)) {
				t.Errorf("%+v", o)
			}
		}
		return nil
	})
	want := []string{"BeginThreadSpanEvent", wire.ThreadSpanPropertiesEvent, wire.AsyncSpanPropertiesEvent, "EndThreadSpanEvent"}
	if err != nil || len(types) != 4 || types[1] != want[1] || types[2] != want[2] || types[3] != want[3] {
		t.Fatalf("%v, %v", types, err)
	}
}
