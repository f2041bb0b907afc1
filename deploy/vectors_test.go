package deploy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/deploy/pyclient"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// pythonReader runs statements through the unmodified Python client.
type pythonReader struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
	enc *json.Encoder
}

// pythonAnswer is what read.py prints.
type pythonAnswer struct {
	Columns [][2]string `json:"columns"`
	Rows    [][]any     `json:"rows"`
	Error   string      `json:"error"`
	Kind    string      `json:"kind"`
}

func startPython(t testing.TB, p *process) *pythonReader {
	t.Helper()
	cmd := exec.Command(pyclient.Python(t), "testdata/read.py", "grpc://"+p.Flight)
	var errs strings.Builder
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("read.py: %v\n%s", err, errs.String())
		}
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	return &pythonReader{t: t, in: in, out: lines, enc: json.NewEncoder(in)}
}

// ask runs sql; begin and end are RFC 3339 times, or "" for all of time.
func (r *pythonReader) ask(sql, begin, end string) pythonAnswer {
	r.t.Helper()
	request := map[string]any{"sql": sql}
	if begin != "" {
		request["begin"], request["end"] = begin, end
	}
	if err := r.enc.Encode(request); err != nil {
		r.t.Fatal(err)
	}
	if !r.out.Scan() {
		r.t.Fatalf("read.py ended: %v", r.out.Err())
	}
	dec := json.NewDecoder(strings.NewReader(r.out.Text()))
	dec.UseNumber()
	var a pythonAnswer
	if err := dec.Decode(&a); err != nil {
		r.t.Fatalf("read.py printed %q: %v", r.out.Text(), err)
	}
	return a
}

// lines runs sql and returns its rows as sorted text, cells as line joins them.
func (r *pythonReader) lines(sql string) []string {
	r.t.Helper()
	a := r.ask(sql, "", "")
	if a.Error != "" {
		r.t.Fatalf("%s: %s", sql, a.Error)
	}
	lines := make([]string, len(a.Rows))
	for i, row := range a.Rows {
		cells := make([]string, len(row))
		for c, v := range row {
			cells[c] = fmt.Sprint(v)
			if a.Columns[c][1] == "double" {
				cells[c] = floatText(pythonFloat(v))
			}
		}
		lines[i] = line(cells...)
	}
	slices.Sort(lines)
	return lines
}

// pythonFloat reads what read.py prints for a float.
func pythonFloat(v any) float64 {
	if s, ok := v.(string); ok {
		return float(map[string]any{"__f64": s})
	}
	return float(v)
}

// The statements that read each view as expect prints it.
const (
	logsSQL      = "SELECT time, process_id, stream_id, block_id, level, target, msg, jsonb_format_json(properties) FROM log_entries"
	measuresSQL  = "SELECT time, process_id, stream_id, block_id, target, name, unit, value, jsonb_format_json(properties) FROM measures"
	processesSQL = "SELECT process_id, exe, computer, tsc_frequency, start_ticks, jsonb_format_json(properties) FROM processes"
	streamsSQL   = "SELECT stream_id, process_id, '[' || array_to_string(tags, ' ') || ']', jsonb_format_json(properties) FROM streams"
	blocksSQL    = "SELECT block_id, stream_id, process_id, nb_objects FROM blocks"
)

// recordedScenarios are the captured and hand-built conversations of whole clients.
var recordedScenarios = []string{"logs", "metrics", "auth_retry", "synthetic_unreal", "spans", "images"}

// TestRecordedClientsReadBack posts what real clients sent and reads it back with the unmodified Python client: in
// recorded order, and with every request twice and shuffled.
func TestRecordedClientsReadBack(t *testing.T) {
	var recorded []request
	for _, name := range recordedScenarios {
		recorded = append(recorded, readScenario(t, name)...)
	}
	want := expect(t, recorded)
	for name, requests := range map[string][]request{
		"recorded order":      recorded,
		"twice, shuffled (1)": shuffled(recorded, 1),
		"twice, shuffled (2)": shuffled(recorded, 2),
	} {
		testReadBack := func(t *testing.T, h *querytest.Home) {
			p := startServeAt(t, h)
			postAll(t, p, requests)
			py := startPython(t, p)
			compare(t, "log_entries", py.lines(logsSQL), want.logs)
			compare(t, "measures", py.lines(measuresSQL), want.measures)
			compare(t, "processes", py.lines(processesSQL), want.processes)
			compare(t, "streams", py.lines(streamsSQL), want.streams)
			compare(t, "blocks", py.lines(blocksSQL), want.blocks)
		}
		t.Run(name, func(t *testing.T) { querytest.EachHome(t, deploytest.NewDataDir, testReadBack) })
	}
}

func postAll(t *testing.T, p *process, requests []request) {
	t.Helper()
	for _, r := range requests {
		code, err := p.Post(t.Context(), r.route, r.body)
		if err != nil || code != http.StatusOK {
			t.Fatalf("post %s: status %d, %v\n%s", r.want.File, code, err, p.LogTail())
		}
	}
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: %d rows, want %d", what, len(got), len(want))
	shown := 0
	for i := range max(len(got), len(want)) {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g == w {
			continue
		}
		t.Errorf("row %d of %s\n got %s\nwant %s", i, what, g, w)
		if shown++; shown == 3 {
			return
		}
	}
}

// TestMalformedBlocksBecomeDeadLetters posts every hand-built malformed block. The gateway takes what has a sound
// envelope; what does not decode is one dead letter, and everything else goes on.
func TestMalformedBlocksBecomeDeadLetters(t *testing.T) {
	p := startServe(t, deploytest.NewDataDir(t))
	requests, verdicts := readMalformed(t)
	postAll(t, p, requests)
	dead := 0
	for _, v := range verdicts {
		if !v.OK || slices.Contains(formNoRow, v.Case) {
			dead++
		}
	}
	if n := p.count("SELECT count(*) FROM blocks"); n != len(verdicts) {
		t.Errorf("%d blocks are listed, %d were posted", n, len(verdicts))
	}
	if n := p.count("SELECT count(*) FROM log_entries"); n != 0 {
		t.Errorf("%d rows from blocks that hold no log entry", n)
	}
	letters := func() (n int) {
		reasons, _ := p.Status()["dead_letters"].(map[string]any)
		for _, count := range reasons {
			n += int(count.(float64))
		}
		return n
	}
	deploytest.Eventually(t, 30*time.Second, fmt.Sprintf("%d dead letters", dead), func() bool { return letters() == dead })
	sound := readScenario(t, "logs")
	postAll(t, p, sound)
	if got, want := p.count("SELECT count(*) FROM log_entries WHERE exe = '/opt/acme/bin/telemetry-demo'"), len(expect(t, sound).logs); got != want {
		t.Errorf("a sound client after the malformed one has %d rows, want %d", got, want)
	}
	if n := letters(); n != dead {
		t.Errorf("%d dead letters in the end, want %d", n, dead)
	}
}

// formNoRow are the malformed blocks that decode, whose log entry refers to a record without level and target. The other
// sound ones hold events of unknown types only, which are skipped.
var formNoRow = []string{"ok_log_string_trailing_bytes_ignored", "ok_log_string_lossy_utf8"}

// verdict is what the upstream parser says of a malformed block.
type verdict struct {
	Case string `json:"case"`
	OK   bool   `json:"expect_ok"`
}

// readMalformed returns the hand-built requests in order, and the verdicts by block id.
func readMalformed(t *testing.T) ([]request, map[string]verdict) {
	t.Helper()
	dir := filepath.Join(vectorsDir, "synthetic_malformed")
	raw, err := os.ReadFile(filepath.Join(dir, "expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	var byFile map[string]verdict
	if err := json.Unmarshal(raw, &byFile); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.cbor"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var requests []request
	verdicts := map[string]verdict{}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		_, route, _ := strings.Cut(strings.TrimSuffix(name, ".cbor"), "-")
		requests = append(requests, request{route: route, body: body, want: decoded{File: name}})
		if v, ok := byFile[name]; ok {
			b, _, err := wire.DecodeBlockEnvelope(body)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			verdicts[b.ID.String()] = v
		}
	}
	return requests, verdicts
}
