package deploy

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"google.golang.org/protobuf/proto"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/client/output"
	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const perfettoUsage = `perfetto --process ID[,ID…] --begin TIME [flags]

Writes the spans of a process, thread by thread, as a trace for https://ui.perfetto.dev. With a server running (micromegas serve):

  micromegas query "SELECT process_id, exe, start_time FROM processes ORDER BY start_time DESC LIMIT 10"
  micromegas perfetto --process ID --begin 5m -o trace.pb
  micromegas perfetto --process ID,ID --begin 5m --with all -o story.pb

With --with, and for several processes, the trace has what the list names, and slices that nest as their times say.`

// Bounds of the command.
const (
	// maxInspected is the size to which a trace is read again, to say that there are no spans in it.
	maxInspected = 64 << 10
	// traceBuffer is what is collected before it is written to the file.
	traceBuffer = 256 << 10
)

// spanTypes are the values of --types.
var spanTypes = []string{"both", "thread", "async"}

// perfettoFlags are what perfetto is told.
type perfettoFlags struct {
	processes  []telemetry.ID
	begin, end time.Time
	types      string
	with       string // "" = spans as perfetto_trace_chunks has them
	out        string
	url, key   string
}

func runPerfetto(ctx context.Context, std stdio, args []string) error {
	f, err := parsePerfetto(std, args)
	if err != nil {
		return err
	}
	if f.out == "-" {
		return f.toStandardOutput(ctx, std)
	}
	return f.toFile(ctx, std)
}

// parsePerfetto reads args and says what is wrong with them before a server is asked.
func parsePerfetto(std stdio, args []string) (*perfettoFlags, error) {
	f := &perfettoFlags{}
	fs := flag.NewFlagSet("perfetto", flag.ContinueOnError)
	process := fs.String("process", "", "`ID` of the process, or several with commas between")
	begin := fs.String("begin", "", "first `time` of the trace: RFC 3339, or how long ago, such as 90s, 15m, 1h or 7d")
	end := fs.String("end", "now", "last `time` of the trace: as --begin, or now")
	fs.StringVar(&f.out, "o", "", "`file` to write, - for standard output (default trace-ID.pb)")
	fs.StringVar(&f.types, "types", "both", "spans: thread, async, or both")
	fs.StringVar(&f.with, "with", "", "what the trace has, a `list` with commas between: threads, async, logs, measures, net, images, or all (default for several processes: what --types says)")
	fs.StringVar(&f.url, "url", "grpc://127.0.0.1:50051", "`address` of a FlightSQL server")
	fs.StringVar(&f.key, "key", os.Getenv("MICROMEGAS_API_KEY"), "API `key` (MICROMEGAS_API_KEY)")
	words, err := parseMixed(fs, std, perfettoUsage, args)
	if err != nil {
		return nil, err
	}
	if len(words) > 0 {
		return nil, fmt.Errorf("%q is no flag: micromegas perfetto --process ID --begin 5m", words[0])
	}
	if f.processes, err = parseProcesses(*process); err != nil {
		return nil, err
	}
	if *begin == "" {
		return nil, errors.New("no --begin: say from when on, such as --begin 5m for the last five minutes")
	}
	if f.begin, f.end, err = timeRange(*begin, *end, time.Now()); err != nil {
		return nil, err
	}
	if !slices.Contains(spanTypes, f.types) {
		return nil, fmt.Errorf("--types %q: it is one of %s", f.types, strings.Join(spanTypes, ", "))
	}
	if f.with != "" && f.types != "both" {
		return nil, fmt.Errorf("--types %s and --with %s: --with says which spans, too: threads, async, or both", f.types, f.with)
	}
	if f.with == "" && len(f.processes) > 1 {
		f.with = map[string]string{"both": "threads,async", "thread": "threads", "async": "async"}[f.types]
	}
	if info, err := os.Stat(f.out); err == nil && info.IsDir() {
		return nil, fmt.Errorf("-o %s is a folder: name a file", f.out)
	}
	if f.out == "" {
		f.out = "trace-" + f.processes[0].String() + ".pb"
	}
	return f, nil
}

func parseProcesses(text string) ([]telemetry.ID, error) {
	const list = `micromegas query "SELECT process_id, exe, start_time FROM processes ORDER BY start_time DESC LIMIT 10" lists them`
	if text == "" {
		return nil, errors.New("no --process: " + list)
	}
	var all []telemetry.ID
	for one := range strings.SplitSeq(text, ",") {
		id, err := telemetry.ParseID(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("--process %q is no process id: %s", one, list)
		}
		all = append(all, id)
	}
	return all, nil
}

// toFile writes the trace beside its place and moves it there when it is complete.
func (f *perfettoFlags) toFile(ctx context.Context, std stdio) error {
	part := f.out + ".part"
	file, err := os.Create(part)
	if err != nil {
		return fmt.Errorf("-o %s: %w", f.out, err)
	}
	trace, err := f.write(ctx, std, file)
	if cerr := file.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("-o %s: %w", f.out, cerr)
	}
	if err == nil {
		err = os.Rename(part, f.out)
	}
	if err != nil {
		os.Remove(part)
		return err
	}
	f.report(std, std.out, f.out, trace)
	return nil
}

func (f *perfettoFlags) toStandardOutput(ctx context.Context, std stdio) error {
	if file, ok := std.out.(*os.File); ok && output.IsTerminal(file) {
		return errors.New("-o -: a trace is not for reading on a terminal; send it into a file or a pipe")
	}
	trace, err := f.write(ctx, std, std.out)
	if err != nil {
		return err
	}
	f.report(std, std.err, "the trace", trace)
	return nil
}

// report says what there is and what to do with it.
func (f *perfettoFlags) report(std stdio, w io.Writer, name string, trace *traceWriter) {
	for _, warning := range trace.warnings {
		fmt.Fprintf(std.err, "warning: %s\n", warning)
	}
	fmt.Fprintf(w, "%s: %s\n", name, megabytes(trace.size.Load()))
	if trace.empty() {
		fmt.Fprintf(w, "There are no spans in it. This shows when the process sent any:\n"+
			"  micromegas query \"SELECT min(begin_time), max(end_time), count(*) FROM blocks WHERE process_id = '%s' AND list_contains(\\\"streams.tags\\\", 'cpu')\"\n", f.processes[0])
		return
	}
	fmt.Fprint(w, "Open https://ui.perfetto.dev and drop the file onto the page; it is read in the browser and goes nowhere else.\n")
}

// write asks the server for the trace and writes its chunks to w.
func (f *perfettoFlags) write(ctx context.Context, std stdio, w io.Writer) (*traceWriter, error) {
	c, err := client.Dial(f.url, client.Options{BearerToken: f.key})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	trace := &traceWriter{w: bufio.NewWriterSize(w, traceBuffer)}
	opts := client.QueryOptions{Begin: f.begin, End: f.end}
	var progress *output.Progress
	if file, ok := std.err.(*os.File); ok && output.IsTerminal(file) {
		progress = output.NewProgress(file)
		defer progress.Stop()
		progress.Describe(func() string { return megabytes(trace.size.Load()) })
		opts.Progress = progress.Building
	}
	rows, err := c.Query(ctx, f.sql(), opts)
	if err != nil {
		return nil, unreachable(f.url, err)
	}
	defer rows.Close()
	var source output.Source = rows
	if progress != nil {
		source = progress.Watch(rows, false)
	}
	if err := trace.copyAll(source); err != nil {
		return nil, err
	}
	trace.warnings = rows.Warnings()
	return trace, nil
}

func (f *perfettoFlags) sql() string {
	function, ids, what := "perfetto_trace_chunks", f.processes[0].String(), f.types
	if f.with != "" {
		function, what = "perfetto_trace", f.with
		for _, id := range f.processes[1:] {
			ids += "," + id.String()
		}
	}
	return fmt.Sprintf("SELECT chunk_id, chunk_data FROM %s('%s', '%s', TIMESTAMP '%s', TIMESTAMP '%s')",
		function, ids, strings.ReplaceAll(what, "'", "''"), f.begin.UTC().Format(time.RFC3339Nano), f.end.UTC().Format(time.RFC3339Nano))
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// traceWriter writes chunks in their order.
type traceWriter struct {
	w    *bufio.Writer
	next int32        // id of the next chunk
	size atomic.Int64 // bytes so far
	head []byte       // all of them, while they are few

	warnings []string
}

// copyAll writes all chunks of an answer.
func (t *traceWriter) copyAll(rows output.Source) error {
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := t.copyBatch(batch); err != nil {
			return err
		}
	}
	if t.size.Load() == 0 {
		return errors.New("the server sent no trace")
	}
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

func (t *traceWriter) copyBatch(batch arrow.RecordBatch) error {
	if batch.NumCols() != 2 {
		return fmt.Errorf("the server sent %d columns, not chunk_id and chunk_data", batch.NumCols())
	}
	ids, isInt := batch.Column(0).(*array.Int32)
	data, isBinary := batch.Column(1).(binaries)
	if !isInt || !isBinary {
		return fmt.Errorf("the server sent columns of types %s and %s", batch.Column(0).DataType(), batch.Column(1).DataType())
	}
	for i := range ids.Len() {
		if ids.Value(i) != t.next {
			return fmt.Errorf("chunk %d came where chunk %d should: the trace is incomplete", ids.Value(i), t.next)
		}
		t.next++
		if err := t.copyChunk(data.Value(i)); err != nil {
			return fmt.Errorf("write trace: %w", err)
		}
	}
	return nil
}

// binaries is a column of bytes, of whatever width its offsets have.
type binaries interface {
	Value(i int) []byte
}

func (t *traceWriter) copyChunk(chunk []byte) error {
	if size := t.size.Add(int64(len(chunk))); size <= maxInspected {
		t.head = append(t.head, chunk...)
	}
	_, err := t.w.Write(chunk)
	return err
}

// empty reports whether the trace has no events. A large one has some; so has, for the user's peace, one that cannot be read.
func (t *traceWriter) empty() bool {
	if t.size.Load() > maxInspected {
		return false
	}
	var trace tracepb.Trace
	if err := proto.Unmarshal(t.head, &trace); err != nil {
		return false
	}
	return !slices.ContainsFunc(trace.Packet, func(p *tracepb.TracePacket) bool { return p.TrackEvent != nil })
}
