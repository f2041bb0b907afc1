package wire_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func prop(key, value string) telemetry.Property { return telemetry.Property{Key: key, Value: value} }

var props = []telemetry.Property{prop("cluster", "vectors"), prop("empty", ""), prop("ünï", "日本")}

func TestEnvelopesRoundTrip(t *testing.T) {
	start := time.Date(2026, 11, 20, 21, 41, 4, 0, time.UTC).UnixNano()
	for _, fraction := range []int64{0, 1, 10_000_000, 123_000, 999_999_999} {
		for _, parent := range []telemetry.ID{{}, telemetry.NewID()} {
			want := telemetry.Process{
				ID: telemetry.NewID(), Exe: "/opt/app", Username: "u", Realname: "r", Computer: "c", Distro: "d", CPUBrand: "b",
				TSCFrequency: fraction, StartTime: start + fraction, StartTicks: -fraction, ParentID: parent, Properties: props,
			}
			got, err := wire.DecodeProcess(wire.AppendProcess(nil, &want))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("process: %v\n%s", err, diff)
			}
		}
	}
	for name, types := range layouts {
		deps, objs := types()
		want := telemetry.Stream{
			ID: telemetry.NewID(), ProcessID: telemetry.NewID(), Dependencies: deps, Objects: objs, Tags: []string{name, "second"},
			Properties: props, Format: telemetry.FormatTransit,
		}
		got, err := wire.DecodeStream(append(wire.AppendStream(nil, &want), "trailing bytes"...))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("stream %s: %v\n%s", name, err, diff)
		}
		back, err := wire.DecodeTypes(wire.AppendTypes(nil, objs))
		if diff := cmp.Diff(objs, back); err != nil || diff != "" {
			t.Errorf("types %s: %v\n%s", name, err, diff)
		}
	}
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65_535, 65_536, 70_000} {
		want := wire.BlockBody{
			Block: telemetry.Block{
				ID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.NewID(), BeginTime: start + int64(n), EndTime: start + 7,
				BeginTicks: -47_294 - int64(n), EndTicks: 1 << 40, ObjectOffset: int64(n) << 20, NbObjects: 1<<31 - 1,
			},
			Dependencies: make([]byte, n), Objects: []byte(strings.Repeat("o", n)),
		}
		body := wire.AppendBlock(nil, &want.Block, want.Dependencies, want.Objects)
		got, err := wire.DecodeBlock(body)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("block: %v\n%s", err, diff)
		}
		env, size, err := wire.DecodeBlockEnvelope(body)
		if err != nil || env != want.Block || size != len(wire.AppendPayload(nil, want.Dependencies, want.Objects)) {
			t.Errorf("envelope %+v, payload size %d, %v", env, size, err)
		}
	}
}

var layouts = map[string]func() (deps, objs []telemetry.Type){
	"log": wire.LogTypes, "metrics": wire.MetricsTypes, "cpu": wire.CPUTypes, "image": wire.ImageTypes, "net": wire.NetTypes,
}

func TestReadyMadeLayoutsAreThoseOfTheRustClient(t *testing.T) {
	l := readLoad(t)
	for tag, types := range map[telemetry.Tag]func() (deps, objs []telemetry.Type){
		telemetry.TagLog: wire.LogTypes, telemetry.TagMetrics: wire.MetricsTypes, telemetry.TagCPU: wire.CPUTypes,
	} {
		deps, objs := types()
		for part, pair := range map[string][2][]telemetry.Type{
			"dependencies": {l.streams[tag].Dependencies, deps}, "objects": {l.streams[tag].Objects, objs},
		} {
			want, got := byName(pair[0]), byName(pair[1]) // secondary types come in any order
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: -captured +ours\n%s", tag, part, diff)
			}
		}
	}
}

// byName lists what matters of types: names of types behind references do not.
func byName(types []telemetry.Type) map[string]telemetry.Type {
	m := map[string]telemetry.Type{}
	for _, u := range types {
		u.Members = append([]telemetry.Member(nil), u.Members...)
		for i := range u.Members {
			if u.Members[i].IsReference {
				u.Members[i].TypeName = ""
			}
		}
		m[u.Name] = u
	}
	return m
}

// pack makes a block of two uncompressed buffers.
func pack(deps, objs []byte) *wire.BlockBody {
	return &wire.BlockBody{Block: telemetry.Block{ID: telemetry.NewID()}, Dependencies: wire.Compress(nil, deps), Objects: wire.Compress(nil, objs)}
}

func decoderOf(t testing.TB, types func() (deps, objs []telemetry.Type)) *wire.Decoder {
	t.Helper()
	deps, objs := types()
	d, err := wire.NewDecoder(deps, objs, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	idFormat = iota + 1
	idTarget
	idModule
	idFile
	idRecord
	idKey
	idValue
	idSet
	idName
	idUnit
	idEmptySet
)

// sharedDeps are the dependencies of a log or metrics block.
func sharedDeps(key, value string) []byte {
	b := wire.AppendStaticString(nil, wire.DepStaticString, idFormat, "value {n}")
	b = wire.AppendStaticString(b, wire.DepStaticString, idTarget, "target")
	b = wire.AppendStaticString(b, wire.DepStaticString, idModule, "module")
	b = wire.AppendStaticString(b, wire.DepStaticString, idFile, "file.go")
	b = wire.AppendStaticString(b, wire.DepStaticString, idName, "name")
	b = wire.AppendStaticString(b, wire.DepStaticString, idUnit, "ticks")
	b = wire.AppendStaticStringDependency(b, wire.DepStaticStringDependency, idKey, key)
	b = wire.AppendStaticStringDependency(b, wire.DepStaticStringDependency, idValue, value)
	b = wire.AppendPropertySet(b, idSet, [2]wire.StaticRef{{ID: idKey}, {ID: idValue}})
	return wire.AppendPropertySet(b, idEmptySet)
}

var metadata = wire.Metadata{
	ID: idRecord, Message: idFormat, Name: idName, Unit: idUnit, Target: idTarget, Module: idModule, File: idFile, Line: 7, Level: 5,
}

func logDeps(key, value string) []byte {
	return wire.AppendLogMetadata(sharedDeps(key, value), &metadata)
}

// entry is a LogEntry that may be kept.
type entry struct {
	Ticks             int64
	Level             int32
	Target, Msg, JSON string
}

func logs(d *wire.Decoder, b *wire.BlockBody) ([]entry, wire.Counts, error) {
	var rows []entry
	counts, err := d.Logs(b, func(e *telemetry.LogEntry) error {
		rows = append(rows, entry{e.Ticks, e.Level, e.Target, strings.Clone(e.Msg), e.Properties.JSON})
		return nil
	})
	return rows, counts, err
}

func TestLogEventsRoundTrip(t *testing.T) {
	target := wire.StaticRef{ID: idTarget, Len: 6}
	objs := wire.AppendLogStaticStr(nil, idRecord, 1)
	objs = wire.AppendLogString(objs, idRecord, 2, "value 2 ✓")
	objs = wire.AppendLogTagged(objs, idRecord, idSet, 3, "tagged")
	objs = wire.AppendLogTagged(objs, idRecord, idEmptySet, 4, "")
	objs = wire.AppendLogStaticInterop(objs, 5, 2, target, wire.StaticRef{ID: idFormat, Len: 9})
	objs = wire.AppendLogInterop(objs, 6, 3, target, "interop")
	got, counts, err := logs(decoderOf(t, wire.LogTypes), pack(logDeps("k", "v"), objs))
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{1, 5, "target", "value {n}", "{}"},
		{2, 5, "target", "value 2 ✓", "{}"},
		{3, 5, "target", "tagged", `{"k":"v"}`},
		{4, 5, "target", "", "{}"},
		{5, 2, "target", "value {n}", "{}"},
		{6, 3, "target", "interop", "{}"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want := (wire.Counts{Rows: 6}); counts != want {
		t.Errorf("%+v", counts)
	}
}

func TestPropertiesOverrideColumns(t *testing.T) {
	objs := wire.AppendLogTagged(nil, idRecord, idSet, 1, "m")
	d := decoderOf(t, wire.LogTypes)
	for _, row := range []struct {
		key, value string
		want       entry
	}{
		{"target", "other", entry{1, 5, "other", "m", `{"target":"other"}`}},
		{"level", "warning", entry{1, 3, "target", "m", `{"level":"warning"}`}},
		{"level", "fatal", entry{1, 1, "target", "m", `{"level":"fatal"}`}},
		{"Level", "warn", entry{1, 5, "target", "m", `{"Level":"warn"}`}},
	} {
		got, _, err := logs(d, pack(logDeps(row.key, row.value), objs))
		if diff := cmp.Diff([]entry{row.want}, got); err != nil || diff != "" {
			t.Errorf("%s=%s: %v\n%s", row.key, row.value, err, diff)
		}
	}
	if _, _, err := logs(d, pack(logDeps("level", "warn"), objs)); err == nil {
		t.Error("a level that is none passes")
	}
}

func TestMeasuresRoundTrip(t *testing.T) {
	objs := wire.AppendIntegerMetric(nil, idRecord, 1, 2_500)
	objs = wire.AppendFloatMetric(objs, idRecord, 2, 2.5)
	objs = wire.AppendTaggedIntegerMetric(objs, idRecord, idSet, 3, 1<<63)
	objs = wire.AppendTaggedFloatMetric(objs, idRecord, idSet, 4, -0.5)
	clock, err := telemetry.NewClock(telemetry.Process{TSCFrequency: 1000}, telemetry.Block{})
	if err != nil {
		t.Fatal(err)
	}
	d := decoderOf(t, wire.MetricsTypes)
	type row struct {
		Ticks                    int64
		Value                    float64
		Target, Name, Unit, JSON string
	}
	for _, c := range []struct {
		key, value string
		want       []row
	}{
		{"k", "v", []row{
			{1, 2.5, "target", "name", "seconds", "{}"},
			{2, 2.5, "target", "name", "ticks", "{}"},
			{3, float64(-1<<63) * (1000.0 / 1000) / 1000, "target", "name", "seconds", `{"k":"v"}`},
			{4, -0.5, "target", "name", "ticks", `{"k":"v"}`},
		}},
		{"unit", "count", []row{
			{1, 2.5, "target", "name", "seconds", "{}"},
			{2, 2.5, "target", "name", "ticks", "{}"},
			{3, 1 << 63, "target", "name", "count", `{"unit":"count"}`},
			{4, -0.5, "target", "name", "count", `{"unit":"count"}`},
		}},
	} {
		var got []row
		deps := wire.AppendMetricMetadata(sharedDeps(c.key, c.value), &metadata)
		counts, err := d.Measures(pack(deps, objs), clock, func(m *telemetry.Measure) error {
			got = append(got, row{m.Ticks, m.Value, m.Target, m.Name, m.Unit, m.Properties.JSON})
			return nil
		})
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" || counts.Rows != 4 {
			t.Errorf("%s: %v\n%s", c.key, err, diff)
		}
	}
}

// objects decodes a block whole.
func objects(t *testing.T, d *wire.Decoder, b *wire.BlockBody) []any {
	t.Helper()
	var list []any
	if _, err := d.Objects(b, func(_ int, o *wire.Object) error {
		list = append(list, objectJSON(o))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestSpansImagesAndNetRoundTrip(t *testing.T) {
	text := func(b []byte, id uint64, s string) []byte {
		return wire.AppendStaticString(b, wire.CPUDepStaticString, id, s)
	}
	deps := text(text(text(text(nil, idName, "span"), idTarget, "target"), idModule, "module"), idFile, "file.go")
	deps = wire.AppendSpanRecord(deps, &metadata)
	location := metadata
	location.ID = idFormat
	deps = wire.AppendSpanLocation(deps, &location)
	name := wire.StaticRef{ID: idName, Len: 4}
	async := wire.AsyncSpan{ID: 3, Parent: 2, Depth: 1}
	objs := wire.AppendThreadSpan(nil, wire.CPUBeginThreadSpan, idRecord, 1)
	objs = wire.AppendThreadNamedSpan(objs, wire.CPUEndThreadNamedSpan, idFormat, name, 2)
	objs = wire.AppendAsyncSpan(objs, wire.CPUEndAsyncSpan, idRecord, async, 3)
	objs = wire.AppendAsyncNamedSpan(objs, wire.CPUBeginAsyncNamedSpan, idFormat, name, async, 4)
	place := map[string]any{"target": "target", "module_path": "module", "file": "file.go", "line": 7, "lod": 5}
	with := func(m map[string]any, more map[string]any) map[string]any {
		out := maps.Clone(m)
		maps.Copy(out, more)
		return out
	}
	record := with(place, map[string]any{"__type": "SpanRecord", "id": idRecord, "name": "span"})
	spot := with(place, map[string]any{"__type": "SpanLocationRecord", "id": idFormat})
	ids := map[string]any{"span_id": 3, "parent_span_id": 2, "depth": 1}
	want := []any{
		map[string]any{"__type": "BeginThreadSpanEvent", "thread_span_desc": record, "time": 1},
		map[string]any{"__type": "EndThreadNamedSpanEvent", "thread_span_location": spot, "name": "span", "time": 2},
		with(ids, map[string]any{"__type": "EndAsyncSpanEvent", "span_desc": record, "time": 3}),
		with(ids, map[string]any{"__type": "BeginAsyncNamedSpanEvent", "span_location": spot, "name": "span", "time": 4}),
	}
	if diff := cmp.Diff(normal(t, want), normal(t, objects(t, decoderOf(t, wire.CPUTypes), pack(deps, objs)))); diff != "" {
		t.Error(diff)
	}

	objs = wire.AppendImage(nil, 9, "shot é", "png", []byte{1, 2, 3})
	want = []any{map[string]any{
		"__type": "ImageEvent", "time": 9, "name": "shot é", "format": "png",
		"data": map[string]any{"__bytes_len": 3, "__base64_first_96": "AQID"},
	}}
	if diff := cmp.Diff(normal(t, want), normal(t, objects(t, decoderOf(t, wire.ImageTypes), pack(nil, objs)))); diff != "" {
		t.Error(diff)
	}

	deps = wire.AppendStaticStringDependency(nil, wire.NetDepStaticStringDependency, idName, "thing")
	objs = wire.AppendNetConnectionBegin(nil, 1, name, true)
	objs = wire.AppendNetBegin(objs, wire.NetObjectBegin, 2, name)
	objs = wire.AppendNetProperty(objs, 3, name, 32)
	objs = wire.AppendNetBegin(objs, wire.NetRPCBegin, 4, name)
	objs = wire.AppendNetEnd(objs, wire.NetRPCEnd, 5, 64)
	objs = wire.AppendNetEnd(objs, wire.NetObjectEnd, 6, 96)
	objs = wire.AppendNetEnd(objs, wire.NetConnectionEnd, 7, 128)
	want = []any{
		map[string]any{"__type": "NetConnectionBeginEvent", "time": 1, "connection_name": "thing", "is_outgoing": 1},
		map[string]any{"__type": "NetObjectBeginEvent", "time": 2, "object_name": "thing"},
		map[string]any{"__type": "NetPropertyEvent", "time": 3, "property_name": "thing", "bit_size": 32},
		map[string]any{"__type": "NetRPCBeginEvent", "time": 4, "function_name": "thing"},
		map[string]any{"__type": "NetRPCEndEvent", "time": 5, "bit_size": 64},
		map[string]any{"__type": "NetObjectEndEvent", "time": 6, "bit_size": 96},
		map[string]any{"__type": "NetConnectionEndEvent", "time": 7, "bit_size": 128},
	}
	if diff := cmp.Diff(normal(t, want), normal(t, objects(t, decoderOf(t, wire.NetTypes), pack(deps, objs)))); diff != "" {
		t.Error(diff)
	}
}
