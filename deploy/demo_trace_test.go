package deploy_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/perfetto/perfettotest"
)

// The trace of ten minutes is one command, which prints what it compared:
//
//	go test ./deploy -run TestTraceOfDemo -v -timeout 30m -trace.for 10m
var traceFor = flag.Duration("trace.for", 4*time.Second, "how long TestTraceOfDemo records")

// TestTraceOfDemo records the demo, and a second server that sends its own telemetry to the first, and compares the traces of both processes
// with the rows that SQL gives: the same slices on the same tracks.
func TestTraceOfDemo(t *testing.T) {
	dir := deploytest.NewDataDir(t)
	args := deploytest.ServeArgs(dir)
	args[0] = "demo"
	p := startCommand(t, dir, exec.Command(deploytest.Binary(t), args...))
	other := startServe(t, deploytest.NewDataDir(t), "--telemetry", p.HTTP)
	asking := time.NewTicker(200 * time.Millisecond)
	defer asking.Stop()
	begin := time.Now()
	for range asking.C { // so that the second one has something to record
		other.count("SELECT count(*) FROM log_entries")
		if time.Since(begin) > *traceFor {
			break
		}
	}
	// What comes later is not in the range, so both readings are of the same spans.
	end := time.Now().Add(-time.Second)
	begin = begin.Add(500 * time.Millisecond)
	var processes []string
	deploytest.Eventually(t, 90*time.Second, "all spans of two processes", func() bool {
		processes = p.mustQuery("SELECT DISTINCT process_id FROM streams WHERE array_has(tags, 'cpu')")
		behind := p.count("SELECT count(*) FROM (SELECT stream_id, max(end_time) AS last FROM blocks WHERE array_has(\"streams.tags\", 'cpu') GROUP BY stream_id) WHERE last <= TIMESTAMP '" + rfc(end) + "'")
		return len(processes) == 2 && behind == 0
	})
	total := 0
	for _, process := range processes {
		total += compareTrace(t, p, process, begin, end)
	}
	if total < 100 {
		t.Errorf("only %d spans", total)
	}
	compareStory(t, p, processes, begin, end)
	findTrace(t, p)
}

// findTrace goes from a log line to the spans of its trace, and to what was open on the threads of its process then.
func findTrace(t *testing.T, p *process) {
	t.Helper()
	entries := p.mustQuery("SELECT property_get(properties, 'trace_id') AS trace, process_id, time FROM log_entries WHERE property_get(properties, 'trace_id') IS NOT NULL AND target = 'demo/front' ORDER BY time LIMIT 20")
	if len(entries) != 20 {
		t.Fatalf("%d log entries with a trace", len(entries))
	}
	entry := strings.Split(entries[19], "|")
	if n := p.count("SELECT count(*) FROM trace_spans('" + entry[0] + "') WHERE duration > 0"); n < 2 {
		t.Errorf("%d spans of trace %s", n, entry[0])
	}
	if n := p.count("SELECT count(*) FROM trace_spans('00000000000000000000000000000001')"); n != 0 {
		t.Errorf("%d spans of a trace that is none", n)
	}
	if n := p.count("SELECT count(DISTINCT thread_name) FROM spans_around('" + entry[1] + "', TIMESTAMP '" + entry[2] + "')"); n < 3 {
		t.Errorf("something is open on %d threads at %s", n, entry[2])
	}
}

// compareStory looks at the trace of both processes with all that they sent: as many log entries, values and images as SQL counts.
func compareStory(t *testing.T, p *process, processes []string, begin, end time.Time) {
	t.Helper()
	trace := perfettotest.Read(t, writeTrace(t, p, begin, end, "--process", strings.Join(processes, ","), "--with", "all"))
	count := func(view string) (n int) {
		for _, process := range processes {
			n += p.count(fmt.Sprintf("SELECT count(*) FROM view_instance('%s', '%s') WHERE time BETWEEN TIMESTAMP '%s' AND TIMESTAMP '%s'", view, process, rfc(begin), rfc(end)))
		}
		return n
	}
	logs, images, values := count("log_entries"), count("images"), count("measures")
	if len(trace.Instants) != logs+images || len(trace.Values) != values || logs == 0 || values == 0 {
		t.Errorf("the trace has %d instants and %d values, want %d log entries, %d images and %d measures", len(trace.Instants), len(trace.Values), logs, images, values)
	}
	pids := map[int32]bool{}
	for _, track := range trace.Tracks {
		if track.Kind == "process" {
			pids[track.Pid] = true
		}
	}
	if len(pids) != len(processes) {
		t.Errorf("%d processes, want %d", len(pids), len(processes))
	}
	t.Logf("both processes: %d slices, %d instants, %d values on %d tracks", len(trace.Slices), len(trace.Instants), len(trace.Values), len(trace.Tracks))
}

// writeTrace runs the command perfetto and returns the file.
func writeTrace(t *testing.T, p *process, begin, end time.Time, args ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.pb")
	args = append([]string{"perfetto", "--url", "grpc://" + p.Flight, "--begin", rfc(begin), "--end", rfc(end), "-o", file}, args...)
	if out, err := exec.Command(deploytest.Binary(t), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func rfc(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// compareTrace compares the slices of a process's trace with the rows of process_spans, and returns how many there are.
func compareTrace(t *testing.T, p *process, process string, begin, end time.Time) int {
	t.Helper()
	data := writeTrace(t, p, begin, end, "--process", process)
	trace := perfettotest.Read(t, data)
	names := map[uint64]string{}
	for _, track := range trace.Tracks {
		names[track.UUID] = track.Name
	}
	var slicesOf []string
	for _, s := range trace.Slices {
		slicesOf = append(slicesOf, line(strings.Replace(names[s.Track], "Async Operations", "async", 1), fmt.Sprint(s.Begin), fmt.Sprint(s.End), s.Name, s.Category, s.File, fmt.Sprint(s.Line)))
	}
	slicesOf = settled(slicesOf, end)
	rows := spanLines(t, p, process, begin, end)
	t.Logf("process %s: %d slices on %d tracks in %d bytes, %d rows", process, len(slicesOf), len(trace.Tracks), len(data), len(rows))
	compare(t, "slices of "+process, slicesOf, rows)
	return len(rows)
}

// spanLines returns the spans of a process as SQL gives them, sorted.
func spanLines(t *testing.T, p *process, process string, begin, end time.Time) []string {
	t.Helper()
	c, err := client.Dial("grpc://"+p.Flight, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rows, err := c.Query(ctx, fmt.Sprintf(`SELECT thread_name || ' | ' || arrow_cast(begin,'Int64') || ' | ' || arrow_cast("end",'Int64') || ' | ' || name || ' | ' || target || ' | ' ||
filename || ' | ' || line AS l FROM process_spans('%s','both')`, process), client.QueryOptions{Begin: begin, End: end})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = deploytest.AppendRows(lines, batch)
		batch.Release()
	}
	return settled(lines, end)
}

// settled sorts spans, and takes asynchronous ones apart: on their one track a reader cannot tell which end is whose, where spans of one
// name overlap. Those that end after the range are left out: threads go on, and each reading finds them open for longer.
func settled(lines []string, end time.Time) []string {
	var out []string
	for _, l := range lines {
		cells := strings.Split(l, " | ")
		switch at, _ := strconv.ParseInt(cells[2], 10, 64); {
		case at > end.UnixNano():
		case cells[0] == "async":
			out = append(out, line("async begin", cells[1], line(cells[3:]...)), line("async end", cells[2], line(cells[3:]...)))
		default:
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}
