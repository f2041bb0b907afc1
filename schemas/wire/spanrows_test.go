package wire_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func TestScopeHashes(t *testing.T) {
	for _, s := range []wire.Scope{
		{Name: "A", Filename: "m.rs", Target: "demo", Line: 10, Hash: 2829913111},
		{Name: "B", Filename: "m.rs", Target: "demo", Line: 20, Hash: 840414780},
		{Name: "C", Filename: "m.rs", Target: "demo", Line: 30, Hash: 1713967322},
		{Name: "main-7", Hash: 5163312},
		{Hash: 2658107796},
	} {
		if got := wire.ScopeHash(s.Name, s.Filename, s.Target, s.Line); got != s.Hash {
			t.Errorf("%+v: got %d", s, got)
		}
	}
}

// spanRow is an event of spans with its scope, as Spans and as Objects tell it.
type spanRow struct {
	Index          int
	Ticks          int64
	End            bool
	Scope          wire.Scope
	Async          bool
	Span, Parent   uint64
	Depth          uint32
	PropertiesJSON string
}

// spanRows decodes a block by Spans, its rows in the block's order.
func spanRows(d *wire.Decoder, b *wire.BlockBody, dst *wire.SpanBlock) ([]spanRow, wire.Counts, error) {
	counts, err := d.Spans(b, dst)
	rows := make([]spanRow, dst.Objects)
	for _, e := range dst.Threads {
		rows[e.Index] = spanRow{Index: int(e.Index), Ticks: e.Ticks, End: e.Edge.IsEnd(), Scope: dst.Scopes[e.Edge.Scope()]}
	}
	for _, e := range dst.Asyncs {
		rows[e.Index] = spanRow{
			Index: int(e.Index), Ticks: e.Ticks, End: e.Edge.IsEnd(), Scope: dst.Scopes[e.Edge.Scope()],
			Async: true, Span: e.Span, Parent: e.Parent, Depth: e.Depth,
		}
	}
	for _, e := range dst.Properties {
		rows[e.Index] = spanRow{Index: int(e.Index), Ticks: e.Ticks, Async: e.Async, Span: e.Span, PropertiesJSON: e.Set.JSON}
	}
	return rows, counts, err
}

// slowSpan makes the row of an event of spans from its object.
func slowSpan(index int, o *wire.Object) spanRow {
	row := spanRow{Index: index, Ticks: o.Field("time").Int(), Async: strings.Contains(o.Type, "Async")}
	if set := o.Field("properties"); set.Kind == wire.ValueProperties {
		row.Span, row.PropertiesJSON = o.Field("span").Uint(), telemetry.PropertiesJSON(set.Properties)
		return row
	}
	row.End = strings.HasPrefix(o.Type, "End")
	row.Span, row.Parent, row.Depth = o.Field("span_id").Uint(), o.Field("parent_span_id").Uint(), uint32(o.Field("depth").Uint())
	for _, name := range []string{"thread_span_desc", "thread_span_location", "span_desc", "span_location"} {
		if desc := o.Field(name).Object; desc != nil {
			name := o.Field("name")
			if name.Kind == wire.ValueNone {
				name = desc.Field("name")
			}
			s := wire.Scope{
				Name: name.Text, Target: desc.Field("target").Text, Filename: desc.Field("file").Text, Line: uint32(desc.Field("line").Uint()),
			}
			s.Hash = wire.ScopeHash(s.Name, s.Filename, s.Target, s.Line)
			row.Scope = s
		}
	}
	return row
}

func slowSpans(t testing.TB, d *wire.Decoder, b *wire.BlockBody) []spanRow {
	t.Helper()
	rows := []spanRow{}
	if _, err := d.Objects(b, func(i int, o *wire.Object) error {
		rows = append(rows, slowSpan(i, o))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestSpansAgreeWithObjects(t *testing.T) {
	var dst wire.SpanBlock
	each(t, telemetry.TagCPU, func(name string, d *wire.Decoder, b *wire.BlockBody, _ telemetry.Clock) {
		want := slowSpans(t, d, b)
		got, counts, err := spanRows(d, b, &dst)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || counts != (wire.Counts{Rows: int(b.NbObjects)}) {
			t.Errorf("%s: %+v, %v\n%s", name, counts, err, diff)
		}
	})
}

// spanEvents holds an event of each type, and one that no reader knows.
func spanEvents() (types func() (deps, objs []telemetry.Type), block *wire.BlockBody) {
	deps := spanSites(3)
	deps = wire.AppendSpanPropertySet(deps, 5, [2]wire.StaticRef{{ID: 1}, {ID: 2}}, [2]wire.StaticRef{{ID: 2}, {ID: 3}})
	name := wire.StaticRef{ID: 3001, Len: 20}
	async := wire.AsyncSpan{ID: 1<<63 + 5, Parent: 4, Depth: 1<<32 - 1}
	objs := wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, 1000, 10)
	objs = wire.AppendSpanProperties(objs, wire.SpanThreadProperties, 77, 5, 11)
	objs = wire.AppendThreadNamedSpan(objs, wire.CPUBeginThreadNamedSpan, 2002, name, 12)
	objs = wire.AppendAsyncSpan(objs, wire.CPUBeginAsyncSpan, 1001, async, 13)
	objs = append(objs, wire.SpanAsyncProperties+1, 1, 2, 3, 4)
	objs = wire.AppendThreadNamedSpan(objs, wire.CPUEndThreadNamedSpan, 2002, name, -14)
	objs = wire.AppendAsyncNamedSpan(objs, wire.CPUEndAsyncNamedSpan, 2000, name, async, 15)
	objs = wire.AppendSpanProperties(objs, wire.SpanAsyncProperties, 1<<63+5, 5, 16)
	objs = wire.AppendThreadSpan(objs, wire.CPUEndThreadSpan, 1000, 17)
	types = func() (deps, objs []telemetry.Type) {
		deps, objs = wire.SpanTypes()
		return deps, append(objs, telemetry.Type{Name: "FutureEvent", Size: 4})
	}
	block = pack(deps, objs)
	block.NbObjects = 9
	return types, block
}

func TestSpanEventsOfAllTypes(t *testing.T) {
	types, block := spanEvents()
	d := decoderOf(t, types)
	want := slowSpans(t, d, block)
	want[4] = spanRow{}
	dst := wire.SpanBlock{WantProperties: true}
	got, counts, err := spanRows(d, block, &dst)
	if diff := cmp.Diff(want, got); err != nil || diff != "" || counts != (wire.Counts{Rows: 8, Unknown: 1}) {
		t.Errorf("%+v, %v\n%s", counts, err, diff)
	}
	if len(dst.Scopes) != 4 || len(dst.Threads) != 4 || len(dst.Asyncs) != 2 || len(dst.Properties) != 2 {
		t.Errorf("%d scopes, %d events of threads, %d asynchronous, %d properties", len(dst.Scopes), len(dst.Threads), len(dst.Asyncs), len(dst.Properties))
	}
	want[1], want[7] = spanRow{}, spanRow{}
	dst.WantProperties = false
	got, counts, err = spanRows(d, block, &dst)
	if diff := cmp.Diff(want, got); err != nil || diff != "" || counts != (wire.Counts{Rows: 6, Unknown: 1}) {
		t.Errorf("without properties: %+v, %v\n%s", counts, err, diff)
	}
}

func TestSpansThatNobodyWantsAreChecked(t *testing.T) {
	types, block := spanEvents()
	d := decoderOf(t, types)
	all, dst := wire.SpanBlock{}, wire.SpanBlock{SkipThreads: true}
	if _, err := d.Spans(block, &all); err != nil {
		t.Fatal(err)
	}
	counts, err := d.Spans(block, &dst)
	if err != nil || counts != (wire.Counts{Rows: 2, Unknown: 1}) || len(dst.Threads) != 0 || len(dst.Scopes) != 2 || dst.Objects != 9 {
		t.Errorf("without threads: %+v, %v", counts, err)
	}
	for i := range all.Asyncs {
		got, want := dst.Asyncs[i], all.Asyncs[i]
		if dst.Scopes[got.Edge.Scope()] != all.Scopes[want.Edge.Scope()] || got.Span != want.Span || got.Index != want.Index {
			t.Errorf("without threads: %+v, want %+v", got, want)
		}
	}
	dst = wire.SpanBlock{SkipAsyncs: true}
	counts, err = d.Spans(block, &dst)
	if diff := cmp.Diff(all.Threads, dst.Threads); err != nil || counts != (wire.Counts{Rows: 4, Unknown: 1}) || len(dst.Asyncs) != 0 || diff != "" {
		t.Errorf("without asynchronous spans: %+v, %v\n%s", counts, err, diff)
	}
	bad := pack(spanSites(1), wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, 9, 1))
	if _, err := d.Spans(bad, &wire.SpanBlock{SkipThreads: true}); err == nil {
		t.Error("a reference to nothing passes where threads are skipped")
	}
}

func TestTextsOfSpansOutliveTheirBlock(t *testing.T) {
	types, block := spanEvents()
	d := decoderOf(t, types)
	dst := wire.SpanBlock{WantProperties: true}
	first, _, err := spanRows(d, block, &dst)
	if err != nil {
		t.Fatal(err)
	}
	want := slowSpans(t, d, block)
	want[4] = spanRow{}
	for range 3 {
		other := pack(wire.AppendStaticString(nil, wire.CPUDepStaticString, 1, strings.Repeat("z", 4000)), nil)
		if _, err := d.Spans(other, &dst); err != nil || dst.Objects != 0 || len(dst.Scopes) != 0 {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
}

func TestNamesOfSpansAreCleaned(t *testing.T) {
	long := strings.Repeat("é", 300)
	deps := wire.AppendStaticString(nil, wire.CPUDepStaticString, 1, "a\x00b")
	deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, 2, long)
	deps = wire.AppendSpanRecord(deps, &wire.Metadata{ID: 3, Name: 1, Target: 2, Module: 1, File: 2, Line: 7})
	objs := wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, 3, 1)
	var dst wire.SpanBlock
	_, counts, err := spanRows(decoderOf(t, wire.CPUTypes), pack(deps, objs), &dst)
	if err != nil || counts != (wire.Counts{Rows: 1, Cut: 1, NULs: 1}) {
		t.Errorf("%+v, %v", counts, err)
	}
	cut := long[:2*wire.MaxNameChars]
	want := []wire.Scope{{Name: "a\uFFFDb", Target: cut, Filename: cut, Line: 7, Hash: wire.ScopeHash("a\uFFFDb", cut, cut, 7)}}
	if diff := cmp.Diff(want, dst.Scopes); diff != "" {
		t.Error(diff)
	}
}

func TestSpansDoNotAllocate(t *testing.T) {
	for name, add := range map[string]func([]byte, int, int64) []byte{"thread": threadEvents, "named": namedEvents, "async": asyncEvents} {
		d, block := decoderOf(t, wire.CPUTypes), benchBlock(5000, add)
		var dst wire.SpanBlock
		if n := testing.AllocsPerRun(5, func() {
			if _, err := d.Spans(block, &dst); err != nil {
				t.Error(err)
			}
		}); n > 2 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if cap(dst.Threads)+cap(dst.Asyncs) != 5000 {
			t.Errorf("%s: room for %d and %d events", name, cap(dst.Threads), cap(dst.Asyncs))
		}
	}
}

// netTypes are the types of net events with the members that hold their names.
var netTypes = map[string]struct {
	kind wire.NetKind
	name string
}{
	"NetConnectionBeginEvent": {wire.NetKindConnectionBegin, "connection_name"},
	"NetConnectionEndEvent":   {wire.NetKindConnectionEnd, ""},
	"NetObjectBeginEvent":     {wire.NetKindObjectBegin, "object_name"},
	"NetObjectEndEvent":       {wire.NetKindObjectEnd, ""},
	"NetRPCBeginEvent":        {wire.NetKindRPCBegin, "function_name"},
	"NetRPCEndEvent":          {wire.NetKindRPCEnd, ""},
	"NetPropertyEvent":        {wire.NetKindProperty, "property_name"},
}

func slowNets(t testing.TB, d *wire.Decoder, b *wire.BlockBody) (rows []wire.NetEvent) {
	t.Helper()
	if _, err := d.Objects(b, func(i int, o *wire.Object) error {
		row := wire.NetEvent{
			Kind: netTypes[o.Type].kind, Index: int32(i), Ticks: o.Field("time").Int(), Name: o.Field(netTypes[o.Type].name).Text,
			Bits: uint32(o.Field("bit_size").Uint()), Outgoing: o.Field("is_outgoing").Uint() != 0,
		}
		if row.Kind != 0 {
			rows = append(rows, row)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

// unreal returns the synthetic blocks of a family with their decoders.
func unreal(t testing.TB, tag telemetry.Tag) (d *wire.Decoder, b *wire.BlockBody) {
	t.Helper()
	vs := readVectors(t, "synthetic_unreal")
	streams := streamsOf(t, vs)
	for _, v := range vs {
		body, err := wire.DecodeBlock(v.raw)
		if s := streams[body.StreamID]; err == nil && telemetry.TagOf(s.Tags) == tag {
			d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			return d, &body
		}
	}
	t.Fatalf("no block of %s", tag)
	return nil, nil
}

func TestNetEventsAgreeWithObjects(t *testing.T) {
	d, b := unreal(t, telemetry.TagNet)
	var dst wire.NetBlock
	counts, err := d.Nets(b, &dst)
	if diff := cmp.Diff(slowNets(t, d, b), dst.Events); err != nil || diff != "" || counts != (wire.Counts{Rows: int(b.NbObjects)}) || dst.Objects != 7 {
		t.Errorf("%+v, %v\n%s", counts, err, diff)
	}
	want := []wire.NetEvent{{Kind: wire.NetKindConnectionBegin, Name: "IpConnection_0", Outgoing: true}, {Kind: wire.NetKindObjectBegin, Name: "BP_Pawn_C_1", Index: 1}}
	for i := range want {
		want[i].Ticks = dst.Events[i].Ticks
	}
	if diff := cmp.Diff(want, dst.Events[:2]); diff != "" {
		t.Error(diff)
	}
}

func TestNetEventsOfAllTypes(t *testing.T) {
	deps := wire.AppendStaticStringDependency(nil, wire.NetDepStaticStringDependency, 1, "thing")
	deps = wire.AppendStaticStringDependency(deps, wire.NetDepStaticStringDependency, 2, "other")
	one, two := wire.StaticRef{ID: 1}, wire.StaticRef{ID: 2}
	objs := wire.AppendNetConnectionBegin(nil, 1, one, true)
	objs = wire.AppendNetConnectionBegin(objs, 1, two, false)
	objs = wire.AppendNetBegin(objs, wire.NetObjectBegin, 2, two)
	objs = append(objs, 7, 1, 2)
	objs = wire.AppendNetProperty(objs, 3, one, 1<<32-1)
	objs = wire.AppendNetBegin(objs, wire.NetRPCBegin, 4, two)
	objs = wire.AppendNetEnd(objs, wire.NetRPCEnd, 5, 64)
	objs = wire.AppendNetEnd(objs, wire.NetObjectEnd, 6, 96)
	objs = wire.AppendNetEnd(objs, wire.NetConnectionEnd, 7, 128)
	d := decoderOf(t, func() (deps, objs []telemetry.Type) {
		deps, objs = wire.NetTypes()
		return deps, append(objs, telemetry.Type{Name: "FutureEvent", Size: 2})
	})
	b := pack(deps, objs)
	var dst wire.NetBlock
	counts, err := d.Nets(b, &dst)
	if diff := cmp.Diff(slowNets(t, d, b), dst.Events); err != nil || diff != "" || counts != (wire.Counts{Rows: 8, Unknown: 1}) || dst.Objects != 9 {
		t.Errorf("%+v, %v\n%s", counts, err, diff)
	}
}

// imageRow is an Image that may be kept.
type imageRow struct {
	Index              int
	Ticks              int64
	Name, Format, Data string
}

func imageRows(d *wire.Decoder, b *wire.BlockBody) (rows []imageRow, c wire.Counts, err error) {
	c, err = d.Images(b, func(i int, m *wire.Image) error {
		rows = append(rows, imageRow{i, m.Ticks, m.Name, m.Format, string(m.Data)})
		return nil
	})
	return rows, c, err
}

func TestImagesAgreeWithObjects(t *testing.T) {
	images := 0
	check := func(name string, d *wire.Decoder, b *wire.BlockBody) {
		var want []imageRow
		if _, err := d.Objects(b, func(i int, o *wire.Object) error {
			want = append(want, imageRow{
				i, o.Field("time").Int(), strings.Clone(o.Field("name").Text), strings.Clone(o.Field("format").Text), string(o.Field("data").Blob),
			})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		got, counts, err := imageRows(d, b)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || counts != (wire.Counts{Rows: int(b.NbObjects)}) {
			t.Errorf("%s: %+v, %v\n%s", name, counts, err, diff)
		}
		images += len(got)
	}
	d, b := unreal(t, telemetry.TagImage)
	check("unreal", d, b)
	vs := readVectors(t, "images")
	streams := streamsOf(t, vs)
	for _, v := range vs {
		b, err := wire.DecodeBlock(v.raw)
		if err != nil {
			continue
		}
		s := streams[b.StreamID]
		d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		check(v.File, d, &b)
	}
	if images < 4 {
		t.Errorf("%d images only", images)
	}
}

func TestNamesOfImagesAreCleaned(t *testing.T) {
	deps, objs := wire.ImageTypes()
	d, err := wire.NewDecoder(deps, append(objs, telemetry.Type{Name: "FutureEvent"}), wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", 300)
	buf := wire.AppendImage(nil, 1, "a\x00b", long, nil)
	buf = wire.AppendImage(buf, 2, "c\xff", "png", []byte{1, 0, 2})
	buf = sized(buf, 1, []byte("anything"))
	buf = wire.AppendImage(buf, 3, strings.Repeat("\xff", 300), "", []byte{3})
	got, counts, err := imageRows(d, pack(nil, buf))
	want := []imageRow{
		{0, 1, "a\uFFFDb", long[:2*wire.MaxNameChars], ""},
		{1, 2, "c\uFFFD", "png", "\x01\x00\x02"},
		{3, 3, strings.Repeat("\uFFFD", wire.MaxNameChars), "", "\x03"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" || counts != (wire.Counts{Rows: 3, Unknown: 1, Cut: 2, NULs: 1}) {
		t.Errorf("%+v, %v\n%s", counts, err, diff)
	}
	stop := errors.New("enough")
	if _, err := d.Images(pack(nil, buf), func(int, *wire.Image) error { return stop }); err != stop { //nolint:errorlint // unwrapped is promised
		t.Errorf("got %v", err)
	}
}

// spansNetsImages decodes a block in the three ways, and wants lists to be empty after an error.
func spansNetsImages(t *testing.T, d *wire.Decoder, b *wire.BlockBody) (spans, sets, nets, images error) {
	t.Helper()
	all := wire.SpanBlock{WantProperties: true}
	var some wire.SpanBlock
	var net wire.NetBlock
	_, _, sets = spanRows(d, b, &all)
	_, _, spans = spanRows(d, b, &some)
	if spans != nil && len(some.Threads)+len(some.Asyncs)+len(some.Scopes)+some.Objects > 0 {
		t.Errorf("%v leaves spans", spans)
	}
	_, nets = d.Nets(b, &net)
	if nets != nil && len(net.Events)+net.Objects > 0 {
		t.Errorf("%v leaves net events", nets)
	}
	_, _, images = imageRows(d, b)
	_, skipped := d.Spans(b, &wire.SpanBlock{SkipThreads: true, SkipAsyncs: true})
	if spans == nil && skipped != nil {
		t.Errorf("%v only where all is skipped", skipped)
	}
	if spans == nil && sets == nil && diffThreads(&all, &some) {
		t.Error("events differ with and without properties")
	}
	return spans, sets, nets, images
}

func diffThreads(a, b *wire.SpanBlock) bool {
	return cmp.Diff(a.Threads, b.Threads) != "" || cmp.Diff(a.Asyncs, b.Asyncs) != "" || cmp.Diff(a.Scopes, b.Scopes) != "" || a.Objects != b.Objects
}

func TestMalformedBlocksGetTheirVerdictAsSpans(t *testing.T) {
	dir := filepath.Join("testdata", "synthetic_malformed")
	var expect map[string]struct {
		Case string `json:"case"`
		OK   bool   `json:"expect_ok"`
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "expect.json")), &expect); err != nil {
		t.Fatal(err)
	}
	s, err := wire.DecodeStream(readFile(t, filepath.Join(dir, "002-insert_stream.cbor")))
	if err != nil {
		t.Fatal(err)
	}
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range expect {
		b, err := wire.DecodeBlock(readFile(t, filepath.Join(dir, file)))
		if err != nil {
			t.Fatal(err)
		}
		spans, sets, nets, images := spansNetsImages(t, d, &b)
		check(t, want.Case, want.OK, spans, "spans")
		check(t, want.Case, want.OK, sets, "spans with properties")
		check(t, want.Case, want.OK, nets, "nets")
		check(t, want.Case, want.OK, images, "images")
	}
}

func TestTruncatedSpansAreCorrupt(t *testing.T) {
	types, whole := spanEvents()
	d := decoderOf(t, types)
	objs, err := wire.Decompress(nil, whole.Objects, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	deps, err := wire.Decompress(nil, whole.Dependencies, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var dst wire.SpanBlock
	sound := 0
	for n := range objs {
		if _, err := d.Spans(pack(deps, objs[:n]), &dst); err == nil {
			sound++
		}
	}
	if sound != 9 { // between two events
		t.Errorf("%d of %d cuts pass", sound, len(objs))
	}
	for n := range whole.Objects {
		b := *whole
		b.Objects = whole.Objects[:n]
		if _, err := d.Spans(&b, &dst); err == nil {
			t.Fatalf("objects cut to %d bytes pass", n)
		}
	}
	for n := range deps {
		if _, err := d.Spans(pack(deps[:n], objs), &dst); err == nil {
			t.Fatalf("dependencies cut to %d bytes pass", n)
		}
	}
}

func TestReferencesOfSpansAreChecked(t *testing.T) {
	deps := wire.AppendSpanPropertySet(spanSites(2), 5)
	name := wire.StaticRef{ID: 3000}
	async := wire.AsyncSpan{ID: 1}
	for what, objs := range map[string][]byte{
		"unknown record":        wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, 9, 1),
		"text as record":        wire.AppendThreadSpan(nil, wire.CPUEndThreadSpan, 3000, 1),
		"location as record":    wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, 2000, 1),
		"set as record":         wire.AppendAsyncSpan(nil, wire.CPUBeginAsyncSpan, 5, async, 1),
		"unknown location":      wire.AppendThreadNamedSpan(nil, wire.CPUBeginThreadNamedSpan, 9, name, 1),
		"unknown name":          wire.AppendAsyncNamedSpan(nil, wire.CPUBeginAsyncNamedSpan, 2000, wire.StaticRef{ID: 9}, async, 1),
		"record as name":        wire.AppendThreadNamedSpan(nil, wire.CPUBeginThreadNamedSpan, 2000, wire.StaticRef{ID: 1000}, 1),
		"unknown set":           wire.AppendSpanProperties(nil, wire.SpanThreadProperties, 1, 9, 1),
		"text as set":           wire.AppendSpanProperties(nil, wire.SpanAsyncProperties, 1, 3000, 1),
		"type beyond the table": append([]byte{77}, make([]byte, 16)...),
	} {
		spans, sets, _, _ := spansNetsImages(t, decoderOf(t, wire.SpanTypes), pack(deps, objs))
		check(t, what, false, spans, "spans")
		check(t, what, false, sets, "spans with properties")
	}
}

func TestScopesAreBounded(t *testing.T) {
	deps, types := wire.CPUTypes()
	d, err := wire.NewDecoder(deps, types, wire.Limits{MaxText: 100 * 1000})
	if err != nil {
		t.Fatal(err)
	}
	block := func(n int) *wire.BlockBody {
		var b, objs []byte
		b = spanSites(1)
		for i := range n {
			b = wire.AppendStaticString(b, wire.CPUDepStaticString, uint64(10_000+i), "a name of its own")
			objs = wire.AppendThreadNamedSpan(objs, wire.CPUBeginThreadNamedSpan, 2000, wire.StaticRef{ID: uint64(10_000 + i)}, 1)
		}
		return pack(b, objs)
	}
	var dst wire.SpanBlock
	if _, err := d.Spans(block(500), &dst); err != nil || len(dst.Scopes) != 500 {
		t.Errorf("%d scopes, %v", len(dst.Scopes), err)
	}
	if _, err := d.Spans(block(2000), &dst); err == nil || !strings.Contains(err.Error(), "too many scopes") {
		t.Errorf("got %v", err)
	}
}

// Members of events lie where the stream says, and what a row needs must be there.
func TestLayoutsOfSpansAreTheirStreams(t *testing.T) {
	ref := func(name string, at uint32) telemetry.Member {
		return telemetry.Member{Name: name, TypeName: "x", Offset: at, Size: 8, IsReference: true}
	}
	member := func(name, typ string, at, size uint32) telemetry.Member {
		return telemetry.Member{Name: name, TypeName: typ, Offset: at, Size: size}
	}
	deps, _ := wire.CPUTypes()
	decode := func(typ telemetry.Type, body []byte) (*wire.SpanBlock, error) {
		d, err := wire.NewDecoder(deps, []telemetry.Type{typ}, wire.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		dst := new(wire.SpanBlock)
		_, err = d.Spans(pack(spanSites(1), append([]byte{0}, body...)), dst)
		return dst, err
	}
	moved := telemetry.Type{Name: "EndThreadSpanEvent", Size: 28, Members: []telemetry.Member{
		member("time", "uint64", 4, 8), ref("thread_span_desc", 12), ref("extra", 20),
	}}
	body := u64(u64(u64(u32(nil, 0), 42), 1000), 3000)
	dst, err := decode(moved, body)
	want := []wire.ThreadEvent{{Ticks: 42, Edge: wire.NewEdge(0, true)}}
	if diff := cmp.Diff(want, dst.Threads); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := decode(moved, u64(u64(u64(u32(nil, 0), 42), 1000), 9)); err == nil {
		t.Error("another reference to nothing passes")
	}
	for what, m := range map[string][]telemetry.Member{
		"no time":             {ref("thread_span_desc", 0)},
		"time of 32 bits":     {ref("thread_span_desc", 0), member("time", "u32", 8, 4)},
		"record by value":     {member("thread_span_desc", "u64", 0, 8), member("time", "i64", 8, 8)},
		"member beyond bytes": {ref("thread_span_desc", 0), member("time", "i64", 12, 8)},
	} {
		if _, err := decode(telemetry.Type{Name: "EndThreadSpanEvent", Size: 16, Members: m}, u64(u64(nil, 1000), 1)); err == nil {
			t.Errorf("%s passes", what)
		}
	}
	other := telemetry.Type{Name: "EndThreadSpanEvent", Size: 16, IsReference: true, Members: []telemetry.Member{ref("id", 0)}}
	if dst, err := decode(other, u64(u64(nil, 1000), 1)); err != nil || dst.Objects != 1 || len(dst.Threads) != 0 {
		t.Errorf("an event that stands for a dependency: %v", err)
	}
}
