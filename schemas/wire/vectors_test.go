package wire_test

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// vector is one captured request with what an independent decoder made of it.
type vector struct {
	File       string         `json:"file"`
	Path       string         `json:"path"`
	Body       map[string]any `json:"body"`
	Envelope   map[string]any `json:"envelope"`
	Tags       []string       `json:"tags"`
	Objects    []any          `json:"objects"`
	DepsSize   []int          `json:"dependencies_size"`
	ObjectsLen []int          `json:"objects_size"`
	NbDeps     int            `json:"nb_dependencies"`
	raw        []byte
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var scenarios = []string{"auth_retry", "images", "logs", "metrics", "spans", "synthetic_unreal"}

func readVectors(t testing.TB, scenario string) []vector {
	t.Helper()
	dir := filepath.Join("testdata", scenario)
	text, err := os.ReadFile(filepath.Join(dir, "decoded.json"))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var vs []vector
	if err := dec.Decode(&vs); err != nil {
		t.Fatal(err)
	}
	for i := range vs {
		if vs[i].raw, err = os.ReadFile(filepath.Join(dir, vs[i].File)); err != nil {
			t.Fatal(err)
		}
	}
	return vs
}

// streamsOf decodes the scenario's registrations: blocks may come before theirs.
func streamsOf(t testing.TB, vs []vector) map[telemetry.ID]telemetry.Stream {
	t.Helper()
	streams := map[telemetry.ID]telemetry.Stream{}
	for _, v := range vs {
		if strings.HasSuffix(v.Path, "insert_stream") {
			s, err := wire.DecodeStream(v.raw)
			if err != nil {
				t.Fatalf("%s: %v", v.File, err)
			}
			streams[s.ID] = s
		}
	}
	return streams
}

func TestCapturedRequestsDecodeToWhatTheyHold(t *testing.T) {
	for _, scenario := range scenarios {
		t.Run(scenario, func(t *testing.T) {
			vs := readVectors(t, scenario)
			streams := streamsOf(t, vs)
			blocks := 0
			for _, v := range vs {
				var got, want any
				switch filepath.Base(v.Path) {
				case "insert_process":
					p, err := wire.DecodeProcess(v.raw)
					if err != nil {
						t.Fatalf("%s: %v", v.File, err)
					}
					got, want = processJSON(p), normalProcess(v.Body)
				case "insert_stream":
					s, err := wire.DecodeStream(v.raw)
					if err != nil {
						t.Fatalf("%s: %v", v.File, err)
					}
					got, want = streamJSON(s), v.Body
				case "insert_block":
					blocks++
					got, want = blockJSON(t, v, streams), map[string]any{"envelope": normalEnvelope(v.Envelope), "objects": v.Objects}
				}
				if diff := cmp.Diff(normal(t, want), normal(t, got)); diff != "" {
					t.Errorf("%s: -want +got\n%s", v.File, diff)
				}
			}
			if blocks == 0 {
				t.Fatal("no blocks")
			}
		})
	}
}

func blockJSON(t *testing.T, v vector, streams map[telemetry.ID]telemetry.Stream) any {
	t.Helper()
	b, err := wire.DecodeBlock(v.raw)
	if err != nil {
		t.Fatalf("%s: %v", v.File, err)
	}
	env, size, err := wire.DecodeBlockEnvelope(v.raw)
	if err != nil || env != b.Block {
		t.Fatalf("%s: envelope %+v, %v; block %+v", v.File, env, err, b.Block)
	}
	payload := wire.AppendPayload(nil, b.Dependencies, b.Objects)
	if size != len(payload) || size != wire.PayloadSize(len(b.Dependencies), len(b.Objects)) {
		t.Errorf("%s: payload size %d, payload is %d bytes", v.File, size, len(payload))
	}
	if len(b.Dependencies) != v.DepsSize[0] || len(b.Objects) != v.ObjectsLen[0] {
		t.Errorf("%s: compressed sizes %d and %d, want %v and %v", v.File, len(b.Dependencies), len(b.Objects), v.DepsSize, v.ObjectsLen)
	}
	s, ok := streams[b.StreamID]
	if !ok {
		t.Fatalf("%s: no stream", v.File)
	}
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	objects := []any{}
	counts, err := d.Objects(&b, func(i int, o *wire.Object) error {
		if i != len(objects) {
			t.Errorf("%s: index %d of object %d", v.File, i, len(objects))
		}
		objects = append(objects, objectJSON(o))
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", v.File, err)
	}
	if counts.Rows != len(v.Objects) || counts.Rows != int(b.NbObjects) {
		t.Errorf("%s: %+v, want %d objects", v.File, counts, len(v.Objects))
	}
	return map[string]any{"envelope": envelopeJSON(&b.Block), "objects": objects}
}

// normal passes a value through JSON, so that numbers compare as they are written.
func normal(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var out any
	if err := dec.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return normalFloats(out)
}

// normalFloats writes numbers with a fraction or an exponent in one way.
func normalFloats(v any) any {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), ".e") {
			return "float " + strconv.FormatFloat(f, 'g', -1, 64)
		}
	case []any:
		for i := range v {
			v[i] = normalFloats(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = normalFloats(v[k])
		}
	}
	return v
}

func objectJSON(o *wire.Object) map[string]any {
	m := map[string]any{"__type": o.Type}
	for _, f := range o.Fields {
		m[f.Name] = valueJSON(f.Value)
	}
	return m
}

func valueJSON(v wire.Value) any {
	switch v.Kind {
	case wire.ValueU8, wire.ValueU32, wire.ValueU64:
		return v.Uint()
	case wire.ValueI64:
		return v.Int()
	case wire.ValueF64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return map[string]string{"__f64": strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))}
		}
		return json.Number(strconv.FormatFloat(v.Float(), 'e', -1, 64))
	case wire.ValueText:
		return strings.Clone(v.Text)
	case wire.ValueObject:
		return objectJSON(v.Object)
	case wire.ValueProperties:
		members := [][2]string{}
		for _, p := range v.Properties {
			members = append(members, [2]string{p.Key, p.Value})
		}
		return map[string]any{"__type": "property_set", "members": members}
	case wire.ValueBlob:
		n := min(len(v.Blob), 96)
		return map[string]any{"__bytes_len": len(v.Blob), "__base64_first_96": base64.StdEncoding.EncodeToString(v.Blob[:n])}
	}
	return nil
}

func timeJSON(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func normalTime(s any) string {
	t, err := time.Parse(time.RFC3339Nano, s.(string))
	if err != nil {
		return err.Error()
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func propertiesJSON(props []telemetry.Property) map[string]string {
	m := map[string]string{}
	for _, p := range props {
		m[p.Key] = p.Value
	}
	return m
}

func processJSON(p telemetry.Process) any {
	var parent any
	if !p.ParentID.IsZero() {
		parent = p.ParentID.String()
	}
	return map[string]any{
		"process_id": p.ID.String(), "exe": p.Exe, "username": p.Username, "realname": p.Realname, "computer": p.Computer,
		"distro": p.Distro, "cpu_brand": p.CPUBrand, "tsc_frequency": p.TSCFrequency, "start_time": timeJSON(p.StartTime),
		"start_ticks": p.StartTicks, "parent_process_id": parent, "properties": propertiesJSON(p.Properties),
	}
}

func normalProcess(m map[string]any) any {
	m["start_time"] = normalTime(m["start_time"])
	if m["parent_process_id"] == "" {
		m["parent_process_id"] = nil
	}
	return m
}

func typesJSON(types []telemetry.Type) any {
	list := []any{}
	for _, u := range types {
		members := []any{}
		for _, m := range u.Members {
			members = append(members, map[string]any{
				"name": m.Name, "type_name": m.TypeName, "offset": m.Offset, "size": m.Size, "is_reference": m.IsReference,
			})
		}
		list = append(list, map[string]any{"name": u.Name, "size": u.Size, "is_reference": u.IsReference, "members": members})
	}
	return list
}

func streamJSON(s telemetry.Stream) any {
	return map[string]any{
		"process_id": s.ProcessID.String(), "stream_id": s.ID.String(), "dependencies_metadata": typesJSON(s.Dependencies),
		"objects_metadata": typesJSON(s.Objects), "tags": s.Tags, "properties": propertiesJSON(s.Properties),
	}
}

func envelopeJSON(b *telemetry.Block) any {
	return map[string]any{
		"block_id": b.ID.String(), "stream_id": b.StreamID.String(), "process_id": b.ProcessID.String(),
		"begin_time": timeJSON(b.BeginTime), "begin_ticks": b.BeginTicks, "end_time": timeJSON(b.EndTime), "end_ticks": b.EndTicks,
		"object_offset": b.ObjectOffset, "nb_objects": b.NbObjects,
	}
}

func normalEnvelope(m map[string]any) any {
	m["begin_time"], m["end_time"] = normalTime(m["begin_time"]), normalTime(m["end_time"])
	m["block_id"] = strings.ToLower(m["block_id"].(string))
	return m
}

func TestMalformedBlocksGetTheirVerdict(t *testing.T) {
	dir := filepath.Join("testdata", "synthetic_malformed")
	text, err := os.ReadFile(filepath.Join(dir, "expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	var expect map[string]struct {
		Case string `json:"case"`
		OK   bool   `json:"expect_ok"`
	}
	if err := json.Unmarshal(text, &expect); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(filepath.Join(dir, "002-insert_stream.cbor"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := wire.DecodeStream(body)
	if err != nil {
		t.Fatal(err)
	}
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	clock, err := telemetry.NewClock(telemetry.Process{TSCFrequency: 1}, telemetry.Block{})
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range expect {
		body, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		b, err := wire.DecodeBlock(body)
		if err != nil {
			t.Errorf("%s %s: envelope: %v", file, want.Case, err)
			continue
		}
		_, err = d.Objects(&b, func(int, *wire.Object) error { return nil })
		check(t, want.Case, want.OK, err, "objects")
		_, err = d.Measures(&b, clock, func(*telemetry.Measure) error { return nil })
		check(t, want.Case, want.OK, err, "measures")
		if !strings.HasPrefix(want.Case, "ok_log_string") { // their record has no level: sound bytes, but no row
			_, err = d.Logs(&b, func(*telemetry.LogEntry) error { return nil })
			check(t, want.Case, want.OK, err, "logs")
		}
	}
}

func check(t *testing.T, name string, ok bool, err error, how string) {
	t.Helper()
	if (err == nil) != ok {
		t.Errorf("%s as %s: error %v, want ok = %v", name, how, err, ok)
	}
	if corrupt, is := err.(*wire.CorruptError); err != nil && (!is || corrupt.Block.IsZero()) { //nolint:errorlint // the type itself is promised
		t.Errorf("%s as %s: %T %v", name, how, err, err)
	}
	if err != nil && testing.Verbose() {
		t.Logf("%s as %s: %v", name, how, err)
	}
}
