package materializers_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// request is one captured request, as an independent decoder saw it.
type request struct {
	File     string         `json:"file"`
	Path     string         `json:"path"`
	Status   int            `json:"status_returned"`
	Body     map[string]any `json:"body"`
	Envelope map[string]any `json:"envelope"`
	Tags     []string       `json:"tags"`
	Objects  []any          `json:"objects"`
}

func readRequests(t *testing.T, scenario string) []request {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../schemas/wire/testdata", scenario, "decoded.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []request
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

func number(v any) int64 {
	n, _ := v.(json.Number).Int64()
	return n
}

func instant(t *testing.T, v any) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, v.(string))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// float reads a number, or {"__f64": "inf"} for those that JSON does not have.
func float(t *testing.T, v any) float64 {
	t.Helper()
	text := fmt.Sprint(v)
	if special, ok := v.(map[string]any); ok {
		text = special["__f64"].(string)
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// expected is the rows that a scenario's objects give by the rules of the format's specification.
type expected struct{ logs, measures []string }

func (x *expected) add(t *testing.T, process map[string]any, r request) {
	t.Helper()
	begin := instant(t, process["start_time"]).Truncate(time.Microsecond)
	freq := float64(number(process["tsc_frequency"]))
	if freq == 0 {
		seconds := float64(instant(t, r.Envelope["end_time"]).Truncate(time.Microsecond).Sub(begin)) / 1e9
		freq = math.Round(float64(number(r.Envelope["end_ticks"])) / seconds)
	}
	for _, object := range r.Objects {
		o := object.(map[string]any)
		ticks := float64(number(o["time"]) - number(process["start_ticks"]))
		at := begin.UnixNano() + int64(math.Round(ticks*(1e9/freq)))
		props := map[string]string{}
		if set, ok := o["properties"].(map[string]any); ok {
			for _, p := range set["members"].([]any) {
				props[p.([]any)[0].(string)] = p.([]any)[1].(string)
			}
		}
		desc, _ := o["desc"].(map[string]any)
		pick := func(name string) any {
			if v, ok := o[name]; ok {
				return v
			}
			return desc[name]
		}
		common := fmt.Sprintf("%q %q %q %d", lower(r, "process_id"), lower(r, "stream_id"), lower(r, "block_id"), at)
		if slices.Contains(r.Tags, "log") {
			msg := o["msg"]
			if msg == nil {
				msg = desc["fmt_str"]
			}
			x.logs = append(x.logs, fmt.Sprintf("%s %q %s %q %q", common, override(props, "target", pick("target")), level(props, pick("level")), msg, jsonObject(props)))
			continue
		}
		if slices.Contains(r.Tags, "metrics") {
			unit := override(props, "unit", desc["unit"])
			value := float(t, o["value"])
			if strings.Contains(o["__type"].(string), "Integer") && unit == "ticks" {
				unit, value = "seconds", float64(number(o["value"]))*(1000/freq)/1000
			}
			x.measures = append(x.measures, fmt.Sprintf("%s %q %q %q %x %q", common, override(props, "target", desc["target"]),
				override(props, "name", desc["name"]), unit, bits(value), jsonObject(props)))
		}
	}
}

func lower(r request, key string) string { return strings.ToLower(r.Envelope[key].(string)) }

func override(props map[string]string, key string, v any) string {
	if p, ok := props[key]; ok {
		return p
	}
	return v.(string)
}

func level(props map[string]string, v any) string {
	if p, ok := props["level"]; ok {
		return fmt.Sprint(1 + slices.Index([]string{"fatal", "error", "warning", "info", "debug", "trace"}, p))
	}
	return v.(json.Number).String()
}

func jsonObject(props map[string]string) string {
	var b []byte
	for i, key := range slices.Sorted(maps.Keys(props)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(telemetry.AppendJSONString(b, key), ':')
		b = telemetry.AppendJSONString(b, props[key])
	}
	return "{" + string(b) + "}"
}

var kinds = map[string]bus.Kind{"insert_process": bus.KindProcess, "insert_stream": bus.KindStream, "insert_block": bus.KindBlock}

// postFile posts a captured request; a block's tag is unknown to the gateway, as when the block is the first of its stream.
func postFile(e *env, scenario, file, path string) {
	e.t.Helper()
	body, err := os.ReadFile(filepath.Join("../schemas/wire/testdata", scenario, file))
	if err != nil {
		e.t.Fatal(err)
	}
	e.post(kinds[filepath.Base(path)], telemetry.TagUnknown, body, time.Now().UnixNano())
}

// Captured requests, in the order and with the retries of the client, become the rows that the specification gives.
func TestCapturedScenarios(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	var want expected
	for _, scenario := range []string{"logs", "metrics", "auth_retry", "synthetic_unreal", "spans", "images"} {
		requests := readRequests(t, scenario)
		var process map[string]any
		seen := map[any]bool{}
		for _, r := range requests {
			if strings.HasSuffix(r.Path, "insert_process") {
				process = r.Body
			}
			postFile(e, scenario, r.File, r.Path)
			if strings.HasSuffix(r.Path, "insert_block") && !seen[r.Envelope["block_id"]] {
				seen[r.Envelope["block_id"]] = true
				want.add(t, process, r)
			}
		}
	}
	e.flush()
	e.eventually("building", func() bool { return e.flush().Parked == 0 })
	logs := e.rows("log_entries", "process_id", "stream_id", "block_id", "time", "target", "level", "msg", "properties")
	if diff := cmp.Diff(sorted(want.logs), logs); diff != "" {
		t.Error(diff)
	}
	values := e.rows("measures", "process_id", "stream_id", "block_id", "time", "target", "name", "unit", "value", "properties")
	if diff := cmp.Diff(sorted(want.measures), values); diff != "" {
		t.Error(diff)
	}
	if len(logs) < 30 || len(values) < 25 {
		t.Errorf("%d log entries, %d measures", len(logs), len(values))
	}
}

// Each malformed block is one dead letter, and so is each sound one that lacks what its rows need.
func TestMalformedBlocks(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.CommitAge = 20 * time.Millisecond
	e.startViews(cfg)
	text, err := os.ReadFile("../schemas/wire/testdata/synthetic_malformed/expect.json")
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
	const scenario = "synthetic_malformed"
	postFile(e, scenario, "001-insert_process.cbor", "insert_process")
	postFile(e, scenario, "002-insert_stream.cbor", "insert_stream")
	dead := 0
	for file, x := range expect {
		if !x.OK || strings.HasPrefix(x.Case, "ok_log_string") { // these have no level
			dead++
		}
		postFile(e, scenario, file, "insert_block")
	}
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(3, time.Second))
	e.flush()
	letters := func() []bus.DeadLetter {
		all, err := e.bus.ReadDeadLetters(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	e.eventually("dead letters", func() bool { return len(letters()) >= dead })
	e.flush()
	if n := len(letters()); n != dead {
		t.Errorf("%d dead letters, want %d: %+v", n, dead, letters())
	}
	for _, l := range letters() {
		if kind, details, _ := strings.Cut(l.Reason, ": "); kind != "corrupt" || details == "" {
			t.Errorf("reason %q", l.Reason)
		}
	}
	if n := len(e.rows("log_entries")); n != 3 {
		t.Errorf("%d rows of the block after them, want 3", n)
	}
}
