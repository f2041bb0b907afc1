package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/micromegas-go/micromegas/sdk"
)

// How the benchmarks of the library run: many short runs, of which the best counts, since other processes disturb long ones.
const (
	sdkBenchTime     = "30ms"
	sdkBenchRuns     = "12"
	sdkSteadySeconds = 20 // of each of sdkSteadyRuns, of which the one with the least CPU counts; lost events count in all
	sdkSteadyRuns    = 3
	sdkPeers         = "sdk/peers" // the module with the benchmarks
	sdkOurs          = "micromegas"
)

// benchSDK runs the benchmarks of the library, which are a module of their own, from the source tree.
func benchSDK(ctx context.Context, b *bench) ([]row, error) {
	tree, err := sourceTree()
	if err != nil {
		return []row{row{Name: "SDK: calling goroutine and background"}.noting("not measured: %v", err)}, nil
	}
	peers := filepath.Join(tree, filepath.FromSlash(sdkPeers))
	b.say("benchmarks, %s runs of %s each", sdkBenchRuns, sdkBenchTime)
	results, err := goBench(ctx, peers, ".")
	if err != nil {
		return nil, err
	}
	near, err := goBench(ctx, filepath.Join(tree, "sdk"), "^BenchmarkClock$|^Benchmark(Log|LogArgs|Int|Span|ContextSpan|ContextSpanChild)$/^near$")
	if err != nil {
		return nil, err
	}
	rows := sdkCallRows(results, near)
	rows = append(rows, sdkLatencyRows(results)...)
	steady, err := b.sdkSteady(ctx, peers)
	return append(rows, steady...), err
}

// sourceTree returns the folder of the module, when this program runs in or below it and there is a Go tool.
func sourceTree() (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("no go tool on PATH")
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(sdkPeers), "go.mod"))
		if err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return "", fmt.Errorf("no source tree with %s here", sdkPeers)
		}
		dir = parent
	}
}

// goBench runs the benchmarks of the package in a folder.
func goBench(ctx context.Context, dir, pattern string) (benchResults, error) {
	out, err := goCommand(ctx, dir, "test", "-run", "^$", "-bench", pattern, "-benchmem", "-benchtime", sdkBenchTime, "-count", sdkBenchRuns, "-cpu", "2", "-timeout", "60m", ".")
	if err != nil {
		return nil, err
	}
	return parseBench(string(out)), nil
}

// goCommand runs the Go tool in a folder and returns its output.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s%s", args[0], dir, err, stderr.Bytes(), out.Bytes())
	}
	return out.Bytes(), nil
}

// benchResults are figures by unit, by the name of the benchmark without "Benchmark" and GOMAXPROCS. Of several runs, the least counts.
type benchResults map[string]map[string]float64

// parseBench reads the output of go test -bench; other lines are skipped.
func parseBench(out string) benchResults {
	results := benchResults{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		name, ok := strings.CutPrefix(strings.Join(fields[:min(1, len(fields))], ""), "Benchmark")
		if !ok || len(fields) < 4 {
			continue
		}
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		name = strings.ReplaceAll(name, "_", " ")
		if results[name] == nil {
			results[name] = map[string]float64{}
		}
		for pair := range slices.Chunk(fields[2:], 2) {
			v, err := strconv.ParseFloat(pair[0], 64)
			if err != nil || len(pair) < 2 {
				break
			}
			if least, ok := results[name][pair[1]]; !ok || v < least {
				results[name][pair[1]] = v
			}
		}
	}
	return results
}

// sdkWork is a benchmark of the library and its mark.
type sdkWork struct {
	name   string
	bench  string  // in sdk/peers: bench/library/goroutines
	near   string  // in sdk
	clocks float64 // the mark is so many clock reads
	plus   float64 // and so many ns; NaN = no mark
	allocs float64 // at most
}

var sdkWorks = []sdkWork{
	{"log, static", "Log", "Log/near", 1, 3, 0},
	{"log, 3 arguments", "LogArgs", "LogArgs/near", 0, 20, 0},
	{"log, level off", "Disabled", "", 0, 2, 0},
	{"measure, integer", "Measure", "Int/near", 1, 3, 0},
	{"counter", "Counter", "", 0, math.NaN(), 0},
	{"span on a track, begin + end", "Span", "Span/near", 2, 4, 0},
	{"span in a context, without parent", "ContextSpan", "ContextSpan/near", 0, 45, 1},
	{"span in a context, with parent", "ContextSpanChild", "ContextSpanChild/near", 0, 45, 1},
}

// sdkCallRows are about the goroutine that records. The clock is that of the package itself, unless the other one was quicker: a slow reading
// would make marks easier.
func sdkCallRows(results, near benchResults) []row {
	const ns, allocs = "ns/op", "allocs/op"
	clock := results["Clock/"+sdkOurs+"/1"][ns]
	if own, ok := near["Clock"]; ok {
		clock = min(clock, own[ns])
	}
	rows := []row{
		row{Name: "SDK: clock read", Figure: clock, Unit: "ns"}.beside("time.Now", results["Clock/time.Now/1"][ns]).
			noting("best of %s runs of %s, here and below; bursts that fit the buffers, emptied off the clock", sdkBenchRuns, sdkBenchTime),
	}
	for _, w := range sdkWorks {
		for _, goroutines := range []string{"1", "2"} {
			ours, ok := results[w.bench+"/"+sdkOurs+"/"+goroutines]
			if !ok {
				continue
			}
			r := row{Name: "SDK: " + w.name, Figure: ours[ns], Unit: "ns"}
			switch mark := w.clocks*clock + w.plus; {
			case goroutines != "1":
				r.Name += ", two goroutines, per event of both"
			case !math.IsNaN(mark):
				r = atMost(r.Name, ours[ns], "ns", math.Round(mark*10)/10)
				met := ours[ns] <= mark && ours[allocs] <= w.allocs
				r.Met = &met
				r.Mark += fmt.Sprintf(", %v allocs", w.allocs)
			}
			notes := []string{fmt.Sprintf("%v allocs", ours[allocs])}
			if v, ok := near[w.near]; ok && goroutines == "1" {
				notes = append(notes, fmt.Sprintf("%s to lines that no other core read", figureText(v[ns])))
			}
			rows = append(rows, r.besideBest(results, w.bench, goroutines, notes))
		}
	}
	return rows
}

// besideBest adds the fastest of the others, and the rest to the notes.
func (r row) besideBest(results benchResults, work, goroutines string, notes []string) row {
	var names []string
	for name := range results {
		parts := strings.Split(name, "/")
		if len(parts) == 3 && parts[0] == work && parts[1] != sdkOurs && parts[2] == goroutines {
			names = append(names, name)
		}
	}
	ns := func(name string) float64 { return results[name]["ns/op"] }
	slices.SortFunc(names, func(a, b string) int { return int(math.Copysign(1, ns(a)-ns(b))) })
	for i, name := range names {
		library := strings.Split(name, "/")[1]
		if i == 0 {
			r = r.beside(library, ns(name))
		}
		notes = append(notes, fmt.Sprintf("%s %s, %v allocs", library, figureText(ns(name)), results[name]["allocs/op"]))
	}
	r.Note = strings.Join(notes, "; ")
	return r
}

// sdkLatencyRows are percentiles of single calls.
func sdkLatencyRows(results benchResults) []row {
	var rows []row
	for _, name := range []string{"nothing", "log", "log with 3 arguments", "measure", "span on a track", "span in a context"} {
		if l, ok := results["Latency/"+name]; ok {
			rows = append(rows, row{Name: "SDK: " + name + ", single call, p99.9", Figure: l["p99.9-ns"], Unit: "ns"}.
				noting("p50 %s, max %s; the least of all runs each; two clock reads of %s taken off", figureText(l["p50-ns"]), figureText(l["max-ns"]), figureText(l["clock-ns"])))
		}
	}
	return rows
}

// sdkSteadyResult is what the program sdk/peers/steady prints.
type sdkSteadyResult struct {
	Sink       string           `json:"sink"`
	Seconds    float64          `json:"seconds"`
	Events     int64            `json:"events"`
	CallerNS   float64          `json:"caller_ns_per_event"`
	CPUPercent float64          `json:"cpu_percent_of_a_core"`
	LoopCPU    float64          `json:"loop_percent_of_a_core"`
	Background float64          `json:"background_ns_per_event"`
	PeakBytes  int64            `json:"peak_rss_bytes"`
	Dropped    map[string]int64 `json:"dropped"`
	SinkStats  sdk.SinkStats    `json:"sink_stats"`
	Posts      int64            `json:"posts"`
}

// sdkSteady measures 100,000 events a second.
func (b *bench) sdkSteady(ctx context.Context, peers string) ([]row, error) {
	program := filepath.Join(b.dir, "steady")
	if _, err := goCommand(ctx, peers, "build", "-o", program, "./steady"); err != nil {
		return nil, err
	}
	seconds := max(10, sdkSteadySeconds*b.scale)
	var rows []row
	for _, sink := range []string{"discard", "http"} {
		b.say("100,000 events a second, %d times %.0f s, sink %s", sdkSteadyRuns, seconds, sink)
		var best sdkSteadyResult
		var lost int64
		for n := range sdkSteadyRuns {
			r, err := runSteady(ctx, program, sink, seconds)
			if err != nil {
				return rows, fmt.Errorf("steady load, sink %s: %w", sink, err)
			}
			lost += r.lost()
			if n == 0 || r.Background < best.Background {
				best = r
			}
		}
		rows = append(rows, best.rows(lost)...)
	}
	return rows, nil
}

func runSteady(ctx context.Context, program, sink string, seconds float64) (r sdkSteadyResult, err error) {
	cmd := exec.CommandContext(ctx, program, "-sink", sink, "-seconds", strconv.FormatFloat(seconds, 'f', -1, 64))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	return r, json.Unmarshal(out, &r)
}

// lost counts events that were dropped, or neither dropped nor delivered.
func (r *sdkSteadyResult) lost() (n int64) {
	for _, d := range r.Dropped {
		n += d
	}
	for _, d := range r.SinkStats.Drops {
		n += d.Events
	}
	return max(n, r.Events-r.SinkStats.Events)
}

// rows are those of the run, and what was lost in all runs.
func (r *sdkSteadyResult) rows(lost int64) []row {
	name := "SDK: 100 k events/s, sink " + r.Sink + ", "
	acked := fmt.Sprintf("%d recorded, %d delivered in %d requests, %.1f bytes an event", r.Events, r.SinkStats.Events, r.SinkStats.Delivered, float64(r.SinkStats.Bytes)/float64(r.SinkStats.Events))
	if r.Posts > 0 {
		acked += fmt.Sprintf("; the server counted %d", r.Posts)
	}
	return []row{
		atMost(name+"background", r.Background, "CPU-ns/event", 100).noting("least of %d runs; caller %s ns an event, median batch", sdkSteadyRuns, figureText(r.CallerNS)),
		atMost(name+"CPU", r.CPUPercent-r.LoopCPU, "% of a core", 1.5).
			noting("whole process %s, of which %s is the loop that waits, measured without the library", figureText(r.CPUPercent), figureText(r.LoopCPU)),
		atMost(name+"memory (peak RSS)", float64(r.PeakBytes)/(1<<20), "MiB", 64),
		atMost(name+"events lost", float64(lost), "events", 0).noting("%s", acked),
	}
}
