package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one figure of `bench`.
type row struct {
	Name       string   `json:"name"`
	Figure     float64  `json:"figure"`
	Unit       string   `json:"unit"`
	Mark       string   `json:"mark"` // what was promised, such as "≤ 4"
	Met        *bool    `json:"met"`  // nil: the row has no mark
	Peer       string   `json:"peer,omitempty"`
	PeerFigure *float64 `json:"peer_figure,omitempty"`
	Note       string   `json:"note,omitempty"`
}

// atMost and atLeast make a row with its verdict.
func atMost(name string, figure float64, unit string, mark float64) row {
	met := figure <= mark
	return row{Name: name, Figure: figure, Unit: unit, Mark: fmt.Sprintf("≤ %v", mark), Met: &met}
}

func atLeast(name string, figure float64, unit string, mark float64) row {
	met := figure >= mark
	return row{Name: name, Figure: figure, Unit: unit, Mark: fmt.Sprintf("≥ %v", mark), Met: &met}
}

// beside adds what the row is compared with.
func (r row) beside(peer string, figure float64) row {
	r.Peer, r.PeerFigure = peer, &figure
	return r
}

func (r row) noting(format string, args ...any) row {
	r.Note = fmt.Sprintf(format, args...)
	return r
}

// benchmark is a group of rows that are measured together.
type benchmark struct {
	name string
	help string
	run  func(ctx context.Context, b *bench) ([]row, error)
}

// benchmarks lists the groups in the order in which they run.
func benchmarks() []benchmark {
	return []benchmark{
		{"decode", "blocks decoded, one core", benchDecode},
		{"idle", "ready time, idle CPU and memory, SELECT 1", benchIdle},
		{"ingest", "gateway + bus + archive + catalog: CPU a block, latency of the ack", benchIngest},
		{"views", "blocks to committed Parquet: rows a second and core", benchViews},
		{"fresh", "ack to visible row at 50,000 events a second", benchFresh},
		{"storage", "bytes an event over the lake", benchStorage},
		{"prune", "100,000 partitions pruned", benchPrune},
		{"query", "dashboard queries, and 10 M rows streamed", benchQuery},
		{"spans", "spans of threads: built when asked for, traces, memory", benchSpans},
		{"sdk", "the client library beside others; needs the source tree and the go tool", benchSDK},
	}
}

// bench is what the groups share.
type bench struct {
	dir      string // temporary; a folder a group
	progress io.Writer
	log      *slog.Logger
	python   string  // interpreter with the outside clients, "" without
	scale    float64 // of the loads; 1 is what the marks are stated for
	seed     uint64
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "  "+format+"\n", args...)
}

func runBench(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print an array of {name, figure, unit, mark, met, peer, peer_figure, note}")
	asMarkdown := fs.Bool("markdown", false, "print a table in Markdown")
	apart := fs.Bool("distributed", false, "measure processes with roles of their own over PostgreSQL, an S3 server and NATS servers, which are started on this machine")
	only := fs.String("only", "", "comma-separated `groups` to run: "+groupNames(benchmarks())+"; with --distributed: "+groupNames(distributedBenchmarks()))
	scale := fs.Float64("scale", 1, "share of the load that the marks are stated for")
	python := fs.String("python", os.Getenv("MICROMEGAS_BENCH_PYTHON"), "`interpreter` with micromegas, duckdb and datafusion, to measure them beside (MICROMEGAS_BENCH_PYTHON)")
	keep := fs.String("dir", "", "`folder` for the data, kept afterwards; default: a temporary one")
	if err := parseFlags(fs, std, "bench [flags]", args); err != nil {
		return err
	}
	all := benchmarks()
	if *apart {
		all = distributedBenchmarks()
	}
	groups, err := chooseGroups(all, *only)
	if err != nil {
		return err
	}
	dir := *keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "micromegas-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	b := &bench{dir: dir, progress: std.err, log: slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelError})), python: *python, scale: *scale, seed: 1}
	fmt.Fprintf(std.err, "%s\n", machine())
	var rows []row
	var errs []error
	for _, g := range groups {
		fmt.Fprintf(std.err, "%s: %s\n", g.name, g.help)
		more, err := g.run(ctx, b)
		rows = append(rows, more...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	switch {
	case *asJSON:
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		errs = append(errs, enc.Encode(rows))
	case *asMarkdown:
		errs = append(errs, printMarkdown(std.out, rows))
	default:
		errs = append(errs, printRows(std.out, rows))
	}
	return errors.Join(errs...)
}

func groupNames(groups []benchmark) string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	return strings.Join(names, ", ")
}

func chooseGroups(all []benchmark, only string) ([]benchmark, error) {
	if only == "" {
		return all, nil
	}
	var chosen []benchmark
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(g benchmark) bool { return g.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no group %q; the groups are %s", name, groupNames(all))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

var columns = []string{"what", "figure", "unit", "mark", "met", "beside", "note"}

// cells returns the columns of a row.
func (r row) cells() []string {
	met := "–"
	if r.Met != nil {
		met = map[bool]string{true: "yes", false: "missed"}[*r.Met]
	}
	peer := ""
	if r.PeerFigure != nil {
		peer = fmt.Sprintf("%s %s", r.Peer, figureText(*r.PeerFigure))
	}
	return []string{r.Name, figureText(r.Figure), r.Unit, r.Mark, met, peer, r.Note}
}

func printRows(w io.Writer, rows []row) error {
	fmt.Fprintf(w, "%s\n\n", machine())
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(columns, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r.cells(), "\t"))
	}
	return t.Flush()
}

func printMarkdown(w io.Writer, rows []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| %s |\n|%s\n", machine(), strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, r := range rows {
		cells := r.cells()
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// figureText prints three significant digits without an exponent.
func figureText(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f >= 100 || f <= -100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	case f >= 0.1:
		return fmt.Sprintf("%.2f", f)
	default:
		return fmt.Sprintf("%.3f", f)
	}
}

// machine names where and when figures were taken.
func machine() string {
	model := "unknown CPU"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s · %d cores of %s · %s/%s · %s", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// percentile returns the p-th percentile of ds, which it sorts; 0 for none.
func percentile(ds []time.Duration, p float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(float64(len(ds))*p/100))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
