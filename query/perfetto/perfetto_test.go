package perfetto_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/query/perfetto/perfettotest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const exe = "/opt/demo/bin/app"

var (
	process = id("11111111-2222-3333-4444-555555555555")
	stream  = id("aaaaaaaa-0000-0000-0000-000000000001")
)

func id(s string) telemetry.ID {
	id, err := telemetry.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// chunks collects what a Writer hands out.
type chunks struct {
	bytes []byte
	sizes []int
}

func (c *chunks) emit(chunk []byte) error {
	c.bytes = append(c.bytes, chunk...)
	c.sizes = append(c.sizes, len(chunk))
	return nil
}

func (c *chunks) hash() string {
	sum := sha256.Sum256(c.bytes)
	return hex.EncodeToString(sum[:])
}

// write runs a script of calls on a Writer and ends the trace.
func write(t testing.TB, opts perfetto.Options, script func(w *perfetto.Writer)) *chunks {
	t.Helper()
	c := &chunks{}
	w := perfetto.New(c.emit, opts)
	script(w)
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	if got := w.Stats().Bytes; got != int64(len(c.bytes)) {
		t.Errorf("counted %d bytes of %d", got, len(c.bytes))
	}
	return c
}

func span(begin, end int64, name, target, file string, line uint32) *telemetry.Span {
	return &telemetry.Span{Begin: begin, End: end, Name: name, Target: target, Filename: file, Line: line}
}

// tree is a small thread: a root, A with two Bs of different places in it, and another B.
func tree() []*telemetry.Span {
	return []*telemetry.Span{
		span(0, 1000, "main-7", "", "", 0),
		span(100, 500, "A", "demo", "m.rs", 10),
		span(150, 200, "B", "demo", "m.rs", 20),
		span(250, 300, "C", "demo", "m.rs", 30),
		span(600, 700, "B", "demo", "m.rs", 20),
	}
}

// tiny is the smallest trace with all of a kind.
func tiny(types string) func(w *perfetto.Writer) {
	return func(w *perfetto.Writer) {
		p := w.Process(process, exe)
		thread := p.Thread(stream, "main-7", "7")
		var async *perfetto.Track
		if types != "thread" {
			async = p.Async()
		}
		if types != "async" {
			for _, s := range tree() {
				thread.Span(s)
			}
		}
		if types != "thread" {
			async.Span(span(120, 460, "fetch", "demo", "m.rs", 50))
		}
	}
}

func TestTinyTrace(t *testing.T) {
	for _, tt := range []struct {
		types string
		sizes []int
		hash  string // of fields in the order of their tags
	}{
		{"both", []int{49, 47, 48, 485}, "ce4079c43bbd5a5d94e690f8af192ef3e25161250f3d100ea39e19334b8e1e5a"},
		{"thread", []int{49, 47, 399}, ""},
		{"async", []int{49, 47, 48, 96}, ""},
	} {
		got := write(t, perfetto.Options{}, tiny(tt.types))
		if diff := cmp.Diff(tt.sizes, got.sizes); diff != "" {
			t.Errorf("%s: chunks (-want +got):\n%s", tt.types, diff)
		}
		if tt.hash != "" && got.hash() != tt.hash {
			t.Errorf("%s: SHA-256 %s, want %s", tt.types, got.hash(), tt.hash)
		}
		again := write(t, perfetto.Options{}, tiny(tt.types))
		if got.hash() != again.hash() {
			t.Errorf("%s: equal calls gave different bytes", tt.types)
		}
	}
}

func TestTinyTraceIsReadByOthers(t *testing.T) {
	got := perfettotest.Read(t, write(t, perfetto.Options{}, tiny("both")).bytes)
	const processUUID, threadUUID, asyncUUID = 5802704441791654211, 216841093224443453, 13898420550583662304
	tracks := []perfettotest.Track{
		{UUID: processUUID, Kind: "process", Name: exe, Pid: 496150851},
		{UUID: threadUUID, Parent: processUUID, Kind: "thread", Name: "main-7", Pid: 496150851, Tid: 7},
		{UUID: asyncUUID, Parent: processUUID, Kind: "track", Name: "Async Operations"},
	}
	if diff := cmp.Diff(tracks, got.Tracks); diff != "" {
		t.Errorf("tracks (-want +got):\n%s", diff)
	}
	var packets []string
	for _, p := range got.Packets[3:] {
		kind := map[int]string{1: "B", 2: "E"}[p.Type]
		plus := func(field string) string { return strings.Repeat("+", len(p.Introduces[field])) }
		packets = append(packets, fmt.Sprintf("%d %s %d%s %d%s %d%s", p.Time, kind, p.Name, plus("event_names"),
			p.Category[0], plus("event_categories"), p.Location, plus("source_locations")))
	}
	want := []string{
		"0 B 1+ 1+ 1+", "1000 E 1 1 1", "100 B 2+ 2+ 2+", "500 E 2 2 2", "150 B 3+ 2 3+", "200 E 3 2 3",
		"250 B 4+ 2 4+", "300 E 4 2 4", "600 B 3 2 3", "700 E 3 2 3", "120 B 5+ 2 5+", "460 E 5 2 5",
	}
	if diff := cmp.Diff(want, packets); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	slices := []perfettotest.Slice{
		{Track: threadUUID, End: 1000, Name: "main-7"},
		{Track: threadUUID, Begin: 100, End: 500, Depth: 1, Parent: "main-7", Name: "A", Category: "demo", File: "m.rs", Line: 10},
		{Track: threadUUID, Begin: 150, End: 200, Depth: 2, Parent: "A", Name: "B", Category: "demo", File: "m.rs", Line: 20},
		{Track: threadUUID, Begin: 250, End: 300, Depth: 2, Parent: "A", Name: "C", Category: "demo", File: "m.rs", Line: 30},
		{Track: threadUUID, Begin: 600, End: 700, Depth: 1, Parent: "main-7", Name: "B", Category: "demo", File: "m.rs", Line: 20},
		{Track: asyncUUID, Begin: 120, End: 460, Name: "fetch", Category: "demo", File: "m.rs", Line: 50},
	}
	if diff := cmp.Diff(slices, got.Slices); diff != "" {
		t.Errorf("slices (-want +got):\n%s", diff)
	}
}

func TestChunksEndWhereTheyShould(t *testing.T) {
	equal := write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		thread := w.Process(process, exe).Thread(stream, "main-7", "7")
		for i := range int64(25) {
			thread.Span(span(1000*i, 1000*i+500, "A", "demo", "m.rs", 10))
		}
	})
	long := write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		thread := w.Process(process, exe).Thread(stream, "main-7", "7")
		for i := range int64(4) {
			thread.Span(span(1000*i, 1000*i+500, fmt.Sprint(i)+strings.Repeat("x", 3000), "demo", "m.rs", 10))
		}
	})
	none := write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		w.Process(process, exe).Async()
	})
	for _, tt := range []struct {
		name string
		got  *chunks
		want []int
	}{
		{"25 spans", equal, []int{49, 47, 630, 607, 310}},
		{"long names", long, []int{49, 47, 9210, 3103}},
		{"no threads", none, []int{49, 48}},
	} {
		if diff := cmp.Diff(tt.want, tt.got.sizes); diff != "" {
			t.Errorf("%s: chunks (-want +got):\n%s", tt.name, diff)
		}
	}
}
