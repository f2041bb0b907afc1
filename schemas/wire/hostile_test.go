package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// cborMap writes a map with definite heads; values are encoded items.
func cborMap(pairs ...[]byte) []byte {
	return append([]byte{0xa0 | byte(len(pairs)/2)}, bytes.Join(pairs, nil)...)
}

func cborText(s string) []byte {
	if len(s) < 24 {
		return append([]byte{0x60 | byte(len(s))}, s...)
	}
	return append([]byte{0x78, byte(len(s))}, s...)
}

const someID = "0634ee82-b747-5e34-8aac-e22e091284ea"

// blockFields are the fields of a sound block; a test replaces some.
func blockFields() map[string][]byte {
	return map[string][]byte{
		"block_id": cborText(someID), "stream_id": cborText(someID), "process_id": cborText(someID),
		"begin_time": cborText("2025-01-02T03:04:05Z"), "end_time": cborText("2025-01-02T03:04:06.5+01:00"),
		"begin_ticks": {0x20}, "end_ticks": {0x01}, "object_offset": {0x00}, "nb_objects": {0x05},
		"payload": cborMap(cborText("dependencies"), []byte{0x41, 1}, cborText("objects"), []byte{0x42, 2, 3}),
	}
}

func blockBody(change map[string][]byte, extra ...[]byte) []byte {
	fields := blockFields()
	for k, v := range change {
		fields[k] = v
		if v == nil {
			delete(fields, k)
		}
	}
	var pairs [][]byte
	for k, v := range fields {
		pairs = append(pairs, cborText(k), v)
	}
	return cborMap(append(pairs, extra...)...)
}

func TestBlocksThatAreNotAreRefused(t *testing.T) {
	if _, err := wire.DecodeBlock(blockBody(nil)); err != nil {
		t.Fatal(err)
	}
	text := cborText
	deep := append(bytes.Repeat([]byte{0x81}, 20), 0x00)
	cases := map[string][]byte{
		"empty":                {},
		"array":                {0x80},
		"not a map":            text("block"),
		"missing nb_objects":   blockBody(map[string][]byte{"nb_objects": nil}),
		"missing payload":      blockBody(map[string][]byte{"payload": nil}),
		"duplicate key":        blockBody(nil, text("end_ticks"), []byte{0x02}),
		"key of another type":  blockBody(nil, []byte{0x01}, []byte{0x02}),
		"id as bytes":          blockBody(map[string][]byte{"block_id": append([]byte{0x50}, make([]byte, 16)...)}),
		"id that is none":      blockBody(map[string][]byte{"stream_id": text("nobody")}),
		"null id":              blockBody(map[string][]byte{"stream_id": {0xf6}}),
		"bad time":             blockBody(map[string][]byte{"begin_time": text("2025-02-30T00:00:00Z")}),
		"time without zone":    blockBody(map[string][]byte{"begin_time": text("2025-02-03T00:00:00")}),
		"time as number":       blockBody(map[string][]byte{"end_time": {0x05}}),
		"float ticks":          blockBody(map[string][]byte{"end_ticks": {0xf9, 0x3c, 0x00}}),
		"ticks beyond int64":   blockBody(map[string][]byte{"end_ticks": {0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0}}),
		"negative nb_objects":  blockBody(map[string][]byte{"nb_objects": {0x20}}),
		"huge nb_objects":      blockBody(map[string][]byte{"nb_objects": {0x1a, 0x80, 0, 0, 0}}),
		"negative offset":      blockBody(map[string][]byte{"object_offset": {0x20}}),
		"payload as bytes":     blockBody(map[string][]byte{"payload": {0x41, 0}}),
		"payload without half": blockBody(map[string][]byte{"payload": cborMap(text("objects"), []byte{0x40})}),
		"payload as text":      blockBody(map[string][]byte{"payload": cborMap(text("objects"), text("x"), text("dependencies"), []byte{0x40})}),
		"payload of words":     blockBody(map[string][]byte{"payload": cborMap(text("objects"), []byte{0x81, 0x19, 1, 0}, text("dependencies"), []byte{0x40})}),
		"lying array":          blockBody(map[string][]byte{"payload": cborMap(text("objects"), []byte{0x9b, 0, 0, 0, 9, 0, 0, 0, 0}, text("dependencies"), []byte{0x40})}),
		"lying string":         blockBody(map[string][]byte{"payload": cborMap(text("objects"), []byte{0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})}),
		"deep nesting":         blockBody(nil, text("unknown"), deep),
		"deep tags":            blockBody(nil, text("unknown"), append(bytes.Repeat([]byte{0xc1}, 20), 0x00)),
		"many entries":         blockBody(nil, text("unknown"), append([]byte{0x9a, 0, 3, 0, 0}, make([]byte, 0x30000)...)),
		"key not UTF-8":        blockBody(nil, []byte{0x61, 0xff}, []byte{0x02}),
		"reserved head":        blockBody(nil, text("unknown"), []byte{0x1c}),
		"stray break":          blockBody(nil, text("unknown"), []byte{0xff}),
	}
	for name, body := range cases {
		if _, err := wire.DecodeBlock(body); err == nil {
			t.Errorf("%s: passes", name)
		}
		if _, _, err := wire.DecodeBlockEnvelope(body); err == nil {
			t.Errorf("%s: passes as an envelope", name)
		}
	}
	body := blockBody(nil)
	for n := range body {
		if _, err := wire.DecodeBlock(body[:n]); err == nil {
			t.Fatalf("block cut to %d of %d bytes passes", n, len(body))
		}
	}
}

func TestBlocksInAllTheirForms(t *testing.T) {
	want, err := wire.DecodeBlock(blockBody(nil))
	if err != nil {
		t.Fatal(err)
	}
	text := cborText
	payload := func(deps, objs []byte) map[string][]byte {
		return map[string][]byte{"payload": append(append(append(append([]byte{0xbf}, text("objects")...), objs...), append(text("dependencies"), deps...)...), 0xff)}
	}
	indefinite := append([]byte{0xbf}, blockBody(nil)[1:]...)
	for name, body := range map[string][]byte{
		"indefinite map":      append(indefinite, 0xff),
		"byte arrays":         blockBody(payload([]byte{0x81, 1}, []byte{0x82, 2, 0x18, 3})),
		"indefinite arrays":   blockBody(payload([]byte{0x9f, 1, 0xff}, []byte{0x9f, 2, 3, 0xff})),
		"chunked bytes":       blockBody(payload([]byte{0x5f, 0x41, 1, 0xff}, []byte{0x5f, 0x41, 2, 0x40, 0x41, 3, 0xff})),
		"chunked key":         blockBody(map[string][]byte{"nb_objects": nil}, append([]byte{0x7f, 0x63}, "nb_\x67objects\xff"...), []byte{0x05}),
		"tagged":              append([]byte{0xd9, 0xd9, 0xf7}, blockBody(nil)...),
		"wide heads":          blockBody(map[string][]byte{"nb_objects": {0x1b, 0, 0, 0, 0, 0, 0, 0, 5}}),
		"unknown keys":        blockBody(nil, text("more"), cborMap(text("a"), []byte{0x9f, 0xf4, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0x61, 'x', 0xff, 0xff})),
		"upper-case id":       blockBody(map[string][]byte{"block_id": text(strings.ToUpper(someID))}),
		"time with a space":   blockBody(map[string][]byte{"begin_time": text("2025-01-02 03:04:05z")}),
		"time with an offset": blockBody(map[string][]byte{"begin_time": text("2025-01-02T02:04:05.000000000000-01:00")}),
	} {
		got, err := wire.DecodeBlock(body)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
		env, size, err := wire.DecodeBlockEnvelope(body)
		if err != nil || env != want.Block || size != wire.PayloadSize(1, 2) {
			t.Errorf("%s: %+v, %d, %v", name, env, size, err)
		}
	}
}

func TestTimesAreReadToTheNanosecond(t *testing.T) {
	for _, s := range []string{
		"1970-01-01T00:00:00Z", "2100-12-31T23:59:59.999999999Z", "2000-02-29T12:00:00.5+14:00", "1969-12-31T23:59:59.000000001Z",
		"2025-03-01T00:00:00-00:00", "1900-03-01T00:00:00.1Z", "1999-12-31T23:59:59.123456789-11:30",
	} {
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		b, err := wire.DecodeBlock(blockBody(map[string][]byte{"begin_time": cborText(s)}))
		if err != nil || b.BeginTime != want.UnixNano() {
			t.Errorf("%s: %d, want %d, %v", s, b.BeginTime, want.UnixNano(), err)
		}
	}
	for s, want := range map[string]int64{"9999-12-31T23:59:59Z": 1<<63 - 1, "0001-01-01T00:00:00Z": -1 << 63} {
		b, err := wire.DecodeBlock(blockBody(map[string][]byte{"begin_time": cborText(s)}))
		if err != nil || b.BeginTime != want {
			t.Errorf("%s: %d, want %d, %v", s, b.BeginTime, want, err)
		}
	}
	for _, s := range []string{"2025-13-01T00:00:00Z", "2025-00-01T00:00:00Z", "2025-01-01T24:00:00Z", "2025-01-01T00:00:00.Z", "2025-01-01T00:00:00+1:00", "2025-1-01T00:00:00Z ", "+025-01-01T00:00:00Z"} {
		if _, err := wire.DecodeBlock(blockBody(map[string][]byte{"begin_time": cborText(s)})); err == nil {
			t.Errorf("%s passes", s)
		}
	}
}

func TestRegistrationsAreCleaned(t *testing.T) {
	long := strings.Repeat("é", 300)
	p := telemetry.Process{Exe: "a\x00b", Username: long, Properties: []telemetry.Property{
		prop("micromegas.audience", "mine"), prop("k\x00", "v\x00"), prop(long, "x"),
	}}
	got, err := wire.DecodeProcess(wire.AppendProcess(nil, &p))
	if err != nil {
		t.Fatal(err)
	}
	want := telemetry.Process{Exe: "a\uFFFDb", Username: long[:2*255], Properties: []telemetry.Property{
		prop("k\uFFFD", "v\uFFFD"), prop(long[:2*255], "x"),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEnvelopeAllocatesNothing(t *testing.T) {
	l := readLoad(t)
	for tag, bodies := range l.blocks {
		if n := testing.AllocsPerRun(20, func() {
			if _, _, err := wire.DecodeBlockEnvelope(bodies[0]); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", tag, n)
		}
	}
}

func TestRowsOfCapturedLoadDoNotAllocate(t *testing.T) {
	l := readLoad(t)
	d, b := l.decoder(t, telemetry.TagLog), l.block(t, telemetry.TagLog)
	rows := 0
	n := testing.AllocsPerRun(5, func() {
		c, err := d.Logs(b, func(*telemetry.LogEntry) error { return nil })
		if err != nil {
			t.Error(err)
		}
		rows = c.Rows
	})
	if rows < 3_000 || n > 30 {
		t.Errorf("%d rows, %v allocations", rows, n)
	}
}

func u64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }
func u32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

// sized appends an instance that brings its size.
func sized(b []byte, index byte, body []byte) []byte {
	return append(u32(append(b, index), uint32(len(body))), body...)
}

func TestLegacyLogEventsAreRead(t *testing.T) {
	deps, objs := wire.LogTypes()
	objs = append([]telemetry.Type{{Name: "LogStringEvent"}, {Name: "LogStringInteropEventV2"}, {Name: "TaggedLogInteropEvent"}}, objs...)
	d, err := wire.NewDecoder(deps, objs, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	ref := u32(u32(u64(nil, idTarget), 6), 2)
	buf := sized(nil, 0, append(u64(u64(nil, idRecord), 1), "oldest"...))
	buf = sized(buf, 1, append(append(u32(u64(nil, 2), 3), ref...), "older"...))
	tagged := append(append(u64(nil, 3), 6), ref...)
	buf = sized(buf, 2, append(append(u32(append(u64(tagged, idSet), 1), 6), 'Z', 0), "\xeb\x00\x3d\xd8"...)) // Z, ë, half a pair
	got, _, err := logs(d, pack(logDeps("target", "not used"), buf))
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{1, 5, "target", "oldest", "{}"},
		{2, 3, "target", "older", "{}"},
		{3, 6, "target", "Zë\uFFFD", `{"target":"not used"}`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTextsAreRepairedAndCut(t *testing.T) {
	name := strings.Repeat("ñ", 256)
	deps := wire.AppendStaticString(nil, wire.DepStaticString, idFormat, "static\x00text")
	deps = wire.AppendStaticString(deps, wire.DepStaticString, idTarget, name)
	deps = wire.AppendStaticString(deps, wire.DepStaticString, idModule, "")
	deps = wire.AppendStaticStringDependency(deps, wire.DepStaticStringDependency, idName, "in\x00terop")
	deps = wire.AppendLogMetadata(deps, &wire.Metadata{ID: idRecord, Message: idFormat, Target: idTarget, Module: idModule, File: idModule, Level: 4})
	long := strings.Repeat("é", wire.MaxMessageBytes/2+1)
	objs := wire.AppendLogStaticStr(nil, idRecord, 1)
	objs = wire.AppendLogStaticStr(objs, idRecord, 2)
	objs = wire.AppendLogString(objs, idRecord, 3, "a\xffb\xe2\x82c\xf0\x9f\x9ad\xed\xa0\x80")
	objs = wire.AppendLogString(objs, idRecord, 4, long)
	objs = wire.AppendLogString(objs, idRecord, 5, "n\x00l")
	objs = wire.AppendLogInterop(objs, 6, 4, wire.StaticRef{ID: idName}, "")
	objs = wire.AppendLogInterop(objs, 7, 4, wire.StaticRef{ID: idName}, "")
	got, counts, err := logs(decoderOf(t, wire.LogTypes), pack(deps, objs))
	if err != nil {
		t.Fatal(err)
	}
	target := name[:2*255]
	want := []entry{
		{1, 4, target, "static\x00text", "{}"},
		{2, 4, target, "static\x00text", "{}"},
		{3, 4, target, "a\uFFFDb\uFFFDc\uFFFDd\uFFFD\uFFFD\uFFFD", "{}"},
		{4, 4, target, long[:wire.MaxMessageBytes], "{}"},
		{5, 4, target, "n\x00l", "{}"},
		{6, 4, "in\uFFFDterop", "", "{}"},
		{7, 4, "in\uFFFDterop", "", "{}"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want := (wire.Counts{Rows: 7, Cut: 2, NULs: 1}); counts != want {
		t.Errorf("%+v, want %+v", counts, want)
	}
}

func TestUnknownEventsAreSkippedAndCounted(t *testing.T) {
	deps, objs := wire.LogTypes()
	objs = append(objs, telemetry.Type{Name: "FutureEvent"}, telemetry.Type{Name: "FutureStatic", Size: 4})
	d, err := wire.NewDecoder(deps, objs, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	buf := sized(nil, byte(len(objs)-2), []byte("anything"))
	buf = append(append(buf, byte(len(objs)-1)), 1, 2, 3, 4)
	buf = wire.AppendLogStaticStr(buf, idRecord, 1)
	got, counts, err := logs(d, pack(logDeps("k", "v"), buf))
	if err != nil || len(got) != 1 || counts != (wire.Counts{Rows: 1, Unknown: 2}) {
		t.Errorf("%v, %+v, %v", got, counts, err)
	}
}

func TestErrorsOfTheCallerPass(t *testing.T) {
	l := readLoad(t)
	stop := errors.New("enough")
	calls := 0
	_, err := l.decoder(t, telemetry.TagLog).Logs(l.block(t, telemetry.TagLog), func(*telemetry.LogEntry) error {
		calls++
		return stop
	})
	if calls != 1 || err != stop { //nolint:errorlint // unwrapped is promised
		t.Errorf("%d calls, %v", calls, err)
	}
}

// corrupt decodes b in every way and wants errors.
func corrupt(t *testing.T, name string, d *wire.Decoder, b *wire.BlockBody, wholeToo bool) {
	t.Helper()
	var ce *wire.CorruptError
	if testing.Verbose() {
		_, _, err := logs(d, b)
		t.Logf("%s: %v", name, err)
	}
	if _, _, err := logs(d, b); !errors.As(err, &ce) || ce.Block != b.ID {
		t.Errorf("%s: logs: %v", name, err)
	}
	if _, err := d.Objects(b, func(int, *wire.Object) error { return nil }); wholeToo && !errors.As(err, &ce) {
		t.Errorf("%s: objects: %v", name, err)
	}
}

func TestTypesThatContainThemselvesAreRefused(t *testing.T) {
	inner := telemetry.Type{Name: "Loop", Size: 16, Members: []telemetry.Member{{Name: "again", TypeName: "Loop", Size: 16}}}
	wide := telemetry.Type{Name: "Wide", Size: 255}
	for i := range 255 {
		wide.Members = append(wide.Members, telemetry.Member{Name: strings.Repeat("m", i+1), TypeName: "Wider", Size: 1})
	}
	wider := telemetry.Type{Name: "Wider", Size: 1}
	for range 200 {
		wider.Members = append(wider.Members, telemetry.Member{Name: "m", TypeName: "u8", Size: 1})
	}
	d, err := wire.NewDecoder(nil, []telemetry.Type{inner, wide, wider}, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range []telemetry.Type{inner, wide, wider} {
		corrupt(t, u.Name, d, pack(nil, append([]byte{byte(i)}, make([]byte, u.Size)...)), true)
	}
}

func TestBoundsOfABlock(t *testing.T) {
	deps, objs := wire.LogTypes()
	limits := wire.Limits{MaxBuffer: 1 << 20, MaxDependencies: 100, MaxText: 10_000, MaxMessages: 1_000}
	d, err := wire.NewDecoder(deps, objs, limits)
	if err != nil {
		t.Fatal(err)
	}
	corrupt(t, "large objects", d, pack(nil, make([]byte, 1<<20+1)), true)
	corrupt(t, "large dependencies", d, pack(make([]byte, 1<<20+1), nil), true)

	var many []byte
	for i := range 101 {
		many = wire.AppendStaticString(many, wire.DepStaticString, uint64(i), "x")
	}
	corrupt(t, "many dependencies", d, pack(many, nil), true)

	var rows []byte
	for i := range 200 {
		rows = wire.AppendLogStaticStr(rows, idRecord, int64(i))
	}
	corrupt(t, "long messages", d, pack(logDeps("k", "v"), rows), false)

	text := wire.AppendStaticStringDependency(nil, wire.DepStaticStringDependency, 1, strings.Repeat("v", 1_000))
	repeated := make([][2]wire.StaticRef, 20)
	for i := range repeated {
		repeated[i] = [2]wire.StaticRef{{ID: 1}, {ID: 1}}
	}
	corrupt(t, "much property text", d, pack(wire.AppendPropertySet(text, 2, repeated...), nil), false)

	var lossy []byte
	for i := range 20 {
		lossy = wire.AppendStaticStringDependency(lossy, wire.DepStaticStringDependency, uint64(i), strings.Repeat("\xff", 1_000))
	}
	corrupt(t, "much converted text", d, pack(lossy, nil), true)
}

func TestOverlongStringsCannotMultiply(t *testing.T) {
	corrupt(t, "overrun", decoderOf(t, wire.LogTypes), pack(overrunning(4_000, 10_000), nil), true)
}

// overrunning makes n strings of which each declares nothing of its content, and all share the tail of the buffer.
func overrunning(n, tail int) []byte {
	var b []byte
	for i := range n {
		rest := uint32((n-i-1)*18 + tail)
		b = u32(append(b, wire.DepStaticStringDependency), 13)
		b = u32(append(u64(b, uint64(i)), 2), rest)
	}
	return append(b, bytes.Repeat([]byte{0}, tail)...)
}

func TestRecordsThatReferToRecordsAreBounded(t *testing.T) {
	node := telemetry.Type{Name: "Node", Size: 24, Members: []telemetry.Member{
		{Name: "id", TypeName: "u64", Size: 8},
		{Name: "a", TypeName: "Node*", Offset: 8, Size: 8, IsReference: true},
		{Name: "b", TypeName: "Node*", Offset: 16, Size: 8, IsReference: true},
	}}
	d, err := wire.NewDecoder([]telemetry.Type{{Name: "StaticString"}, node}, nil, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	deps := wire.AppendStaticString(nil, 0, 1, "leaf")
	for i := range uint64(40) {
		deps = u64(u64(u64(append(deps, 1), i+2), i+1), i+1)
	}
	if _, err := d.Objects(pack(deps, nil), func(int, *wire.Object) error { return nil }); err == nil {
		t.Error("a graph of records whose tree is endless passes")
	}
}

func TestDecompressionBombsCostLittle(t *testing.T) {
	deps, objs := wire.LogTypes()
	d, err := wire.NewDecoder(deps, objs, wire.Limits{MaxBuffer: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	bomb := pack(nil, make([]byte, 64<<20+1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	corrupt(t, "bomb", d, bomb, true)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 3*32<<20 { // three attempts at most
		t.Errorf("refusing took %d MB", grown>>20)
	}
}

func FuzzEnvelopes(f *testing.F) {
	for _, scenario := range scenarios {
		for _, v := range readVectors(f, scenario) {
			if len(v.raw) < 4096 {
				f.Add(v.raw)
			}
		}
	}
	f.Add(blockBody(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := wire.DecodeBlock(body)
		env, size, envErr := wire.DecodeBlockEnvelope(body)
		if (err == nil) != (envErr == nil) || err == nil && (env != b.Block || size != wire.PayloadSize(len(b.Dependencies), len(b.Objects))) {
			t.Fatalf("block %+v, %v; envelope %+v, %v", b.Block, err, env, envErr)
		}
		if err == nil && b.BeginTime == min(max(b.BeginTime, 0), 1<<62) && b.EndTime == min(max(b.EndTime, 0), 1<<62) {
			again, err := wire.DecodeBlock(wire.AppendBlock(nil, &b.Block, b.Dependencies, b.Objects))
			if err != nil || again.Block != b.Block || !bytes.Equal(again.Objects, b.Objects) {
				t.Fatalf("%+v comes back as %+v, %v", b.Block, again.Block, err)
			}
		}
		if p, err := wire.DecodeProcess(body); err == nil && p.StartTime == min(max(p.StartTime, 0), 1<<62) {
			again, err := wire.DecodeProcess(wire.AppendProcess(nil, &p))
			if diff := cmp.Diff(p, again); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
		}
		if s, err := wire.DecodeStream(body); err == nil {
			again, err := wire.DecodeStream(wire.AppendStream(nil, &s))
			if diff := cmp.Diff(s, again); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
		}
	})
}

// linkedFrame is a frame without checksums: some bytes as they are, then data as two compressed blocks that may refer to what is
// before them.
func linkedFrame(data []byte) []byte {
	frame := []byte{0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0}
	frame = append(u32(frame, 1<<31|16), "sixteen letters."...)
	for _, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		if len(half) > 0 {
			frame = append(u32(frame, uint32(len(half))), half...)
		}
	}
	return u32(frame, 0)
}

func TestLinkedBlocksSeeWhatIsBeforeThem(t *testing.T) {
	// No literals, a match of 4 at distance 16 and 5 last literals; the second block reaches back into the first.
	block := "\x00\x10\x00\x50other"
	got, err := wire.Decompress(nil, linkedFrame([]byte(block+block)), 100)
	if want := "sixteen letters.sixtother" + "etteother"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := wire.Decompress(nil, linkedFrame([]byte("\x00\x11\x00\x50other\x00\xff\xff\x50other")), 100); err == nil {
		t.Error("a match before the beginning passes")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(wire.Compress(nil, nil))
	f.Add(wire.Compress(nil, bytes.Repeat([]byte("block "), 100)))
	l := readLoad(f)
	f.Add(l.block(f, telemetry.TagCPU).Dependencies)
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 20
		out, err := wire.Decompress(nil, data, limit)
		if err == nil && len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
		if out, err := wire.Decompress(nil, linkedFrame(data), limit); err == nil && len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
		again, err := wire.Decompress(nil, append(wire.Compress(nil, data), 1, 2, 3), max(len(data), 1))
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%d bytes come back as %d, %v", len(data), len(again), err)
		}
	})
}

// fuzzLimits keep one input under a second.
var fuzzLimits = wire.Limits{MaxBuffer: 1 << 20, MaxDependencies: 10_000, MaxText: 1 << 20, MaxMessages: 1 << 20}

// decodeAll decodes a block in every way. Rows need records with certain members, so a block that is whole as objects may still fail as
// rows; what makes rows must be whole.
func decodeAll(t *testing.T, d *wire.Decoder, b *wire.BlockBody) {
	clock, err := telemetry.NewClock(telemetry.Process{TSCFrequency: 1e9}, telemetry.Block{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Objects(b, func(_ int, o *wire.Object) error { objectJSON(o); return nil })
	whole := err == nil || strings.Contains(err.Error(), "nest too much") || strings.Contains(err.Error(), "too m")
	if _, _, errLogs := logs(d, b); errLogs == nil && !whole {
		t.Fatalf("logs pass where objects say %v", err)
	}
	spans, sets, nets, images := spansNetsImages(t, d, b)
	if (spans == nil || sets == nil || nets == nil || images == nil) && !whole {
		t.Fatalf("spans %v, with properties %v, nets %v, images %v where objects say %v", spans, sets, nets, images, err)
	}
	d.Measures(b, clock, func(m *telemetry.Measure) error { _ = m.Name + m.Unit + m.Target; return nil }) //nolint:errcheck // any answer will do
}

// FuzzObjects decodes arbitrary buffers by the layouts of both client families.
func FuzzObjects(f *testing.F) {
	var streams []telemetry.Stream
	for _, scenario := range scenarios {
		vs := readVectors(f, scenario)
		byID := streamsOf(f, vs)
		index := map[telemetry.ID]byte{}
		for id, s := range byID {
			index[id] = byte(len(streams))
			streams = append(streams, s)
		}
		for _, v := range vs {
			b, err := wire.DecodeBlock(v.raw)
			if err != nil || len(v.raw) > 2048 {
				continue
			}
			deps, err := wire.Decompress(nil, b.Dependencies, 1<<20)
			if err != nil {
				f.Fatal(err)
			}
			objs, err := wire.Decompress(nil, b.Objects, 1<<20)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(index[b.StreamID], deps, objs)
		}
	}
	types, block := spanEvents()
	var withSets telemetry.Stream
	withSets.Dependencies, withSets.Objects = types()
	streams = append(streams, withSets)
	deps, err := wire.Decompress(nil, block.Dependencies, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	objs, err := wire.Decompress(nil, block.Objects, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(len(streams)-1), deps, objs)
	f.Fuzz(func(t *testing.T, stream byte, deps, objs []byte) {
		s := streams[int(stream)%len(streams)]
		d, err := wire.NewDecoder(s.Dependencies, s.Objects, fuzzLimits)
		if err != nil {
			t.Fatal(err)
		}
		decodeAll(t, d, pack(deps, objs))
		decodeAll(t, d, pack(deps, objs)) // with what the first pass left
	})
}

// FuzzLayouts decodes fixed buffers by arbitrary layouts.
func FuzzLayouts(f *testing.F) {
	deps, objs := wire.LogTypes()
	f.Add(wire.AppendTypes(nil, deps), wire.AppendTypes(nil, objs), logDeps("k", "v"), wire.AppendLogTagged(nil, idRecord, idSet, 1, "m"))
	s, err := wire.DecodeStream(readFile(f, "testdata/synthetic_malformed/002-insert_stream.cbor"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire.AppendTypes(nil, s.Dependencies), wire.AppendTypes(nil, s.Objects), logDeps("k", "v"), []byte{0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, deps, objs, depsBuf, objsBuf []byte) {
		depTypes, err := wire.DecodeTypes(deps)
		if err != nil {
			return
		}
		objTypes, err := wire.DecodeTypes(objs)
		if err != nil {
			return
		}
		d, err := wire.NewDecoder(depTypes, objTypes, fuzzLimits)
		if err != nil {
			return
		}
		decodeAll(t, d, pack(depsBuf, objsBuf))
	})
}
