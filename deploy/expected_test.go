package deploy_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vectorsDir holds requests of real clients, with what an independent decoder found in them.
const vectorsDir = "../schemas/wire/testdata"

// request is one recorded request.
type request struct {
	route string // insert_process, insert_stream, insert_block
	body  []byte
	want  decoded
}

// decoded is one element of a scenario's decoded.json.
type decoded struct {
	File     string           `json:"file"`
	Path     string           `json:"path"`
	Body     map[string]any   `json:"body"`
	Envelope envelope         `json:"envelope"`
	Tags     []string         `json:"tags"`
	Objects  []map[string]any `json:"objects"`
}

type envelope struct {
	BlockID   string      `json:"block_id"`
	StreamID  string      `json:"stream_id"`
	ProcessID string      `json:"process_id"`
	BeginTime string      `json:"begin_time"`
	EndTime   string      `json:"end_time"`
	EndTicks  json.Number `json:"end_ticks"`
	NbObjects int         `json:"nb_objects"`
}

// readScenario returns a scenario's requests in recorded order.
func readScenario(t testing.TB, name string) []request {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectorsDir, name, "decoded.json"))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var all []decoded
	if err := dec.Decode(&all); err != nil {
		t.Fatalf("decoded.json of %s: %v", name, err)
	}
	requests := make([]request, len(all))
	for i, d := range all {
		body, err := os.ReadFile(filepath.Join(vectorsDir, name, d.File))
		if err != nil {
			t.Fatal(err)
		}
		requests[i] = request{route: strings.TrimPrefix(d.Path, "/ingestion/"), body: body, want: d}
	}
	return requests
}

// shuffled returns every request twice, in an order drawn from seed.
func shuffled(requests []request, seed uint64) []request {
	twice := slices.Concat(requests, requests)
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(twice), func(i, j int) { twice[i], twice[j] = twice[j], twice[i] })
	return twice
}

// expectation is what the views must hold after some requests, as sorted lines of text.
type expectation struct {
	logs, measures, processes, streams, blocks []string
}

// expect works out the rows from what the independent decoder found, by the rules of the wire protocol: the clock of a
// block, the overrides of tagged events, the conversion of ticks.
func expect(t testing.TB, requests []request) expectation {
	t.Helper()
	processes, streams, blocks := map[string]map[string]any{}, map[string]map[string]any{}, map[string]decoded{}
	for _, r := range requests {
		switch r.route {
		case "insert_process":
			processes[text(r.want.Body, "process_id")] = r.want.Body
		case "insert_stream":
			streams[text(r.want.Body, "stream_id")] = r.want.Body
		case "insert_block":
			blocks[strings.ToLower(r.want.Envelope.BlockID)] = r.want
		}
	}
	var e expectation
	for id, p := range processes {
		e.processes = append(e.processes, line(id, text(p, "exe"), text(p, "computer"), text(p, "tsc_frequency"), text(p, "start_ticks"), propertiesText(stringMap(p["properties"]))))
	}
	for id, s := range streams {
		e.streams = append(e.streams, line(id, text(s, "process_id"), fmt.Sprint(s["tags"]), propertiesText(stringMap(s["properties"]))))
	}
	for id, b := range blocks {
		env := b.Envelope
		p := processes[env.ProcessID]
		if p == nil {
			t.Fatalf("block %s has no process", id)
		}
		e.blocks = append(e.blocks, line(id, env.StreamID, env.ProcessID, fmt.Sprint(env.NbObjects)))
		c := clockOf(t, p, env)
		for _, o := range b.Objects {
			switch b.Tags[0] {
			case "log":
				e.logs = append(e.logs, logLine(env, c, o))
			case "metrics":
				e.measures = append(e.measures, measureLine(env, c, o))
			}
		}
	}
	for _, lines := range [][]string{e.logs, e.measures, e.processes, e.streams, e.blocks} {
		slices.Sort(lines)
	}
	return e
}

func line(cells ...string) string { return strings.Join(cells, " | ") }

func text(m map[string]any, key string) string {
	if m[key] == nil {
		return ""
	}
	return fmt.Sprint(m[key])
}

func stringMap(v any) map[string]string {
	m := map[string]string{}
	if object, ok := v.(map[string]any); ok {
		for k, v := range object {
			m[k] = fmt.Sprint(v)
		}
	}
	return m
}

// properties returns the members of an event's property set; of two with one name the last counts.
func properties(o map[string]any) map[string]string {
	m := map[string]string{}
	set, ok := o["properties"].(map[string]any)
	if !ok {
		return m
	}
	members, _ := set["members"].([]any)
	for _, member := range members {
		pair := member.([]any)
		m[pair[0].(string)] = pair[1].(string)
	}
	return m
}

// propertiesText is JSON with sorted keys and nothing escaped that need not be.
func propertiesText(m map[string]string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// clock is the conversion of one block's ticks.
type clock struct {
	start      int64 // ns, truncated to µs
	startTicks int64
	frequency  float64
}

func clockOf(t testing.TB, p map[string]any, env envelope) clock {
	t.Helper()
	start := parseTime(t, text(p, "start_time"))
	c := clock{start: start / 1000 * 1000, startTicks: integer(p["start_ticks"]), frequency: float64(integer(p["tsc_frequency"]))}
	if c.frequency == 0 {
		ticks, err := env.EndTicks.Int64()
		if err != nil {
			t.Fatal(err)
		}
		seconds := float64(parseTime(t, env.EndTime)/1000*1000-c.start) / 1e9
		c.frequency = math.Round(float64(ticks) / seconds)
	}
	return c
}

func (c clock) time(ticks int64) int64 {
	return c.start + int64(math.Round(float64(ticks-c.startTicks)*(1e9/c.frequency)))
}

func parseTime(t testing.TB, s string) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixNano()
}

func integer(v any) int64 {
	n, err := v.(json.Number).Int64()
	if err != nil {
		return int64(unsigned(v))
	}
	return n
}

// unsigned reads a number of up to 64 bits.
func unsigned(v any) uint64 {
	u, err := strconv.ParseUint(v.(json.Number).String(), 10, 64)
	if err != nil {
		panic(err) // the vectors are ours
	}
	return u
}

func logLine(env envelope, c clock, o map[string]any) string {
	desc, _ := o["desc"].(map[string]any)
	target, level := text(o, "target"), text(o, "level")
	if desc != nil {
		target, level = text(desc, "target"), text(desc, "level")
	}
	msg := text(o, "msg")
	if o["__type"] == "LogStaticStrEvent" {
		msg = text(desc, "fmt_str")
	}
	props := properties(o)
	if o["__type"] == "TaggedLogString" {
		if v, ok := props["target"]; ok {
			target = v
		}
		if v, ok := props["level"]; ok {
			level = fmt.Sprint(1 + slices.Index([]string{"fatal", "error", "warning", "info", "debug", "trace"}, v))
		}
	}
	return line(fmt.Sprint(c.time(integer(o["time"]))), env.ProcessID, env.StreamID, strings.ToLower(env.BlockID), level, target, msg, propertiesText(props))
}

func measureLine(env envelope, c clock, o map[string]any) string {
	desc := o["desc"].(map[string]any)
	target, name, unit := text(desc, "target"), text(desc, "name"), text(desc, "unit")
	props := properties(o)
	for key, field := range map[string]*string{"target": &target, "name": &name, "unit": &unit} {
		if v, ok := props[key]; ok {
			*field = v
		}
	}
	isInteger := strings.Contains(o["__type"].(string), "Integer")
	var value float64
	switch {
	case isInteger && unit == "ticks":
		unit, value = "seconds", float64(integer(o["value"]))*(1000/c.frequency)/1000
	case isInteger:
		value = float64(unsigned(o["value"]))
	default:
		value = float(o["value"])
	}
	return line(fmt.Sprint(c.time(integer(o["time"]))), env.ProcessID, env.StreamID, strings.ToLower(env.BlockID), target, name, unit, floatText(value), propertiesText(props))
}

// float reads a number, or one of the texts that JSON has no number for.
func float(v any) float64 {
	switch v := v.(type) {
	case json.Number:
		f, _ := v.Float64()
		return f
	case map[string]any: // {"__f64": "nan"}
		switch v["__f64"] {
		case "inf":
			return math.Inf(1)
		case "-inf":
			return math.Inf(-1)
		}
	}
	return math.NaN()
}

func floatText(f float64) string { return fmt.Sprintf("%v", f) }
