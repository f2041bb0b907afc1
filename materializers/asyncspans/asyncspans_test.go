package asyncspans_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers/asyncspans"
	"github.com/micromegas-go/micromegas/materializers/viewtest"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func TestCapturedEvents(t *testing.T) {
	in := viewtest.Read(t, "../../schemas/wire/testdata/spans")
	parts := []*viewtest.Part{in.Build(t, asyncspans.View())}
	count := func(columns ...string) map[string]int {
		m := map[string]int{}
		for _, line := range viewtest.Lines(parts, columns...) {
			m[line]++
		}
		return m
	}
	if diff := cmp.Diff(map[string]int{"begin": 10, "end": 10}, count("event_type")); diff != "" {
		t.Error(diff)
	}
	streams := map[string]int{}
	for stream, n := range count("stream_id") {
		streams[stream[:8]] = n
	}
	if diff := cmp.Diff([]int{7, 13}, slices.Sorted(maps.Values(streams))); diff != "" || len(streams) != 2 {
		t.Errorf("%v %s", streams, diff)
	}
	for span, n := range count("span_id") {
		if n != 2 {
			t.Errorf("span %s has %d events", span, n)
		}
	}
	var twelve []string
	depths := map[string]int{}
	for _, line := range viewtest.Lines(parts, "span_id", "event_type", "stream_id", "time", "depth", "parent_span_id") {
		f := strings.Fields(line)
		if f[0] == "12" {
			f[2] = f[2][:8]
			twelve = append(twelve, strings.Join(f, " "))
		}
		depths[f[0]+" "+f[4]]++
	}
	wantDepths := map[string]int{}
	for _, d := range []string{"12 0", "14 0", "13 2", "15 2", "16 2", "18 2", "20 2", "21 2", "17 3", "19 3"} {
		wantDepths[d] = 2
	}
	if diff := cmp.Diff(wantDepths, depths); diff != "" {
		t.Error(diff)
	}
	want := []string{"12 begin ba6902f4 1795212287795768507 0 0", "12 end 6c2f7022 1795212287837223921 0 0"}
	if diff := cmp.Diff(want, twelve); diff != "" {
		t.Error(diff)
	}
	times := viewtest.Lines(parts, "time")
	if !slices.IsSorted(times) || fmt.Sprint(parts[0].Leaving.LastKey) != times[len(times)-1] {
		t.Errorf("times %v, the last one %d", times, parts[0].Leaving.LastKey)
	}
	for _, line := range viewtest.Lines(parts, "block_id") {
		if !slices.ContainsFunc(in.Blocks, func(b viewtest.Block) bool { return b.ID.String() == line }) {
			t.Errorf("block %s", line)
		}
	}
}

// spanDeps are a record, 10, and a location, 11, whose spans are named by 4.
func spanDeps() []byte {
	var b []byte
	for i, s := range []string{"load", "game::io", "io.rs", "named"} {
		b = wire.AppendStaticString(b, wire.CPUDepStaticString, uint64(i+1), s)
	}
	m := wire.Metadata{ID: 10, Name: 1, Target: 2, Module: 2, File: 3, Line: 70}
	b = wire.AppendSpanRecord(b, &m)
	m.ID, m.Line = 11, 80
	return wire.AppendSpanLocation(b, &m)
}

func TestRowsOfAllEvents(t *testing.T) {
	in := viewtest.NewInstance()
	one, two := in.AddStream("cpu", wire.CPUTypes), in.AddStream("cpu", wire.SpanTypes)
	big := wire.AsyncSpan{ID: 1<<64 - 1, Parent: 1 << 63, Depth: 1<<32 - 1}
	objs := wire.AppendAsyncSpan(nil, wire.CPUBeginAsyncSpan, 10, big, 50)
	objs = wire.AppendThreadSpan(objs, wire.CPUBeginThreadSpan, 10, 51)
	objs = wire.AppendAsyncNamedSpan(objs, wire.CPUBeginAsyncNamedSpan, 11, wire.StaticRef{ID: 4}, wire.AsyncSpan{ID: 2}, 20)
	in.AddBlock(one, 0, 60, 0, spanDeps(), objs)
	deps := wire.AppendSpanPropertySet(spanDeps(), 12)
	objs = wire.AppendAsyncNamedSpan(nil, wire.CPUEndAsyncNamedSpan, 11, wire.StaticRef{ID: 4}, wire.AsyncSpan{ID: 2}, 50)
	objs = wire.AppendSpanProperties(objs, wire.SpanAsyncProperties, 2, 12, 51)
	objs = wire.AppendAsyncSpan(objs, wire.CPUEndAsyncSpan, 10, big, 50)
	in.AddBlock(two, 10, 60, 0, deps, objs)
	in.AddBlock(one, 60, 70, 3, spanDeps(), wire.AppendThreadSpan(nil, wire.CPUEndThreadSpan, 10, 65)) // none of its events is asynchronous
	parts := []*viewtest.Part{in.Build(t, asyncspans.View())}
	first, second := in.Blocks[0].ID.String(), in.Blocks[1].ID.String()
	load := fmt.Sprintf("-1 -9223372036854775808 4294967295 %d load io.rs game::io 70", wire.ScopeHash("load", "io.rs", "game::io", 70))
	named := fmt.Sprintf("2 0 0 %d named io.rs game::io 80", wire.ScopeHash("named", "io.rs", "game::io", 80))
	want := []string{
		one.String() + " " + first + " 20 begin " + named,
		one.String() + " " + first + " 50 begin " + load,
		two.String() + " " + second + " 50 end " + named,
		two.String() + " " + second + " 50 end " + load,
	}
	got := viewtest.Lines(parts, asyncspans.View().Table.ColumnNames()...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestThreadsOnlyMakeNoRows(t *testing.T) {
	in := viewtest.NewInstance()
	stream := in.AddStream("cpu", wire.CPUTypes)
	in.AddBlock(stream, 0, 10, 0, spanDeps(), wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, 10, 5))
	p := in.Build(t, asyncspans.View())
	if p.Rows.Len() != 0 || p.Leaving.LastKey != 0 || len(p.Quarantined) != 0 {
		t.Errorf("%+v", p)
	}
}

func TestBlocksThatCannotBeRead(t *testing.T) {
	in := viewtest.NewInstance()
	in.MaxRows = 1
	stream := in.AddStream("cpu", wire.CPUTypes)
	event := wire.AppendAsyncSpan(nil, wire.CPUBeginAsyncSpan, 10, wire.AsyncSpan{ID: 1}, 5)
	in.AddBlock(stream, 0, 10, 0, spanDeps(), slices.Concat(event, event))
	in.AddBlock(stream, 10, 20, 2, nil, event)
	in.AddBlock(stream, 20, 30, 3, spanDeps(), event)
	p := in.Build(t, asyncspans.View())
	if p.Rows.Len() != 1 || len(p.Quarantined) != 2 {
		t.Errorf("%d rows, left out: %v", p.Rows.Len(), p.Quarantined)
	}
}

func BenchmarkBuild(b *testing.B) {
	const events = 10_000
	in := viewtest.NewInstance()
	stream := in.AddStream("cpu", wire.CPUTypes)
	var objs []byte
	for i := range events {
		objs = wire.AppendAsyncSpan(objs, uint8(wire.CPUBeginAsyncSpan+i%2), 10, wire.AsyncSpan{ID: uint64(i / 2)}, int64(i))
	}
	in.AddBlock(stream, 0, events, 0, spanDeps(), objs)
	build := in.Builder(b, asyncspans.View())
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		rows += build()
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
