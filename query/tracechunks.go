package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// traceFunction is perfetto_trace_chunks(process, types, begin, end). Its spans come out of the engine thread by thread, and go through
// the writer as chunks to the client; what is in memory is a batch of each.
const traceFunction = "perfetto_trace_chunks"

// Bounds of traces.
const (
	// traceBatchBytes and traceBatchRows are when chunks, of which most have some hundred bytes, are sent together.
	traceBatchBytes = 256 << 10
	traceBatchRows  = 1024
	// traceAhead is how many batches may wait for the client.
	traceAhead = 4
	// maxTraceFile bounds a trace that a statement does more with than show it.
	maxTraceFile = 2 << 30
)

// trace is a trace to write.
type trace struct {
	process catalog.ProcessRow
	types   string
	within  Range
	spans   processSpans
}

// errTraceFile is why a trace is not written to a file.
var errTraceFile = &Error{
	Code:    codeExhausted,
	Message: fmt.Sprintf("Resources exhausted: the trace has more than %d bytes", int64(maxTraceFile)),
	Help:    "select chunk_id and chunk_data as they are, without conditions, or ask for a shorter time range",
}

// streams reports whether the statement only shows what comes out of a trace's writer.
func (r *run) streams() bool { return r.st.Stream != nil && r.st.Kind == dialect.Select && !r.dry }

// tracer is what a trace is written from.
type tracer interface {
	// options must return the options of the trace's writer.
	options() perfetto.Options
	// write must write the trace, but not end it.
	write(ctx context.Context, conn *engine.Conn, w *perfetto.Writer) error
}

// tracer has built what a function's trace is written from.
func (r *run) tracer(ctx context.Context, f dialect.FunctionRef) (tracer, error) {
	if f.Name == storyFunction {
		return r.story(ctx, f)
	}
	if len(f.Args) < 4 {
		return nil, fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	id, _ := f.Args[0].(string)
	types, _ := f.Args[1].(string)
	var within Range
	within.Begin, _ = f.Args[2].(int64)
	within.End, _ = f.Args[3].(int64)
	r.noteReversed(&within)
	return r.spansToTrace(ctx, id, types, within)
}

// spansToTrace has the spans of a process built that a trace shows: thread, async, both, or none of them for "".
func (r *run) spansToTrace(ctx context.Context, process, types string, within Range) (*trace, error) {
	id, err := telemetry.ParseID(process)
	if err != nil {
		return nil, err
	}
	t := &trace{types: types, within: within}
	fresh, cancel := context.WithTimeout(ctx, r.s.cfg.FreshenTimeout)
	defer cancel()
	p, err := r.s.process(ctx, fresh, id)
	var unknown *Error
	switch {
	case errors.As(err, &unknown):
		return nil, &Error{Code: codeInvalid, Message: "Execution error: Trace generation failed: Process " + id.String() + " not found", Help: r.whoElse(ctx, wish{view: "async_events", id: id})}
	case err != nil:
		return nil, err
	}
	t.process = *p
	if types == "" {
		return t, nil
	}
	t.spans, err = r.spansOfProcess(ctx, id, types, &t.within)
	t.spans.threads = slices.DeleteFunc(t.spans.threads, func(th thread) bool { return !th.sent(&t.within) })
	return t, r.traceFailed(ctx, err)
}

// traceFailed names what failed, where it is not the query that ended.
func (r *run) traceFailed(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	e := r.s.errorOf(ctx, err, r.st)
	const failed = "Trace generation failed: "
	if class, rest, ok := strings.Cut(e.Message, ": "); ok && !strings.HasPrefix(rest, failed) {
		e.Message = class + ": " + failed + rest
	}
	return e
}

// traceRelation is the result of perfetto_trace_chunks for a statement that does anything with it: a file of all chunks.
func (r *run) traceRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	table, _ := tables.Function(f.Name)
	if r.unread() || r.st.Kind == dialect.Explain {
		return emptyRelation(table), nil
	}
	t, err := r.tracer(ctx, f)
	if err != nil {
		return "", err
	}
	conn, err := r.s.parts.Engine.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // the connection is thrown away
	w, err := r.s.snapshots.folder.create("trace", table.FileSchema())
	if err != nil {
		return "", err
	}
	defer w.abort()
	size := int64(0)
	c := newTraceBatches(table.FileSchema(), func(batch arrow.RecordBatch) error {
		defer batch.Release()
		if size += int64(len(batch.Column(1).(*array.Binary).ValueBytes())); size > maxTraceFile {
			return errTraceFile
		}
		return w.writeGroup(batch)
	})
	defer c.release()
	if err := r.writeTrace(ctx, t, conn, c.add); err != nil {
		return "", r.traceFailed(ctx, err)
	}
	if err := c.flush(); err != nil {
		return "", err
	}
	file, err := w.finish()
	if err != nil {
		return "", err
	}
	r.hold(file.release)
	return "SELECT " + columnList(table, "") + " FROM " + scan([]string{file.path}), nil
}

// writeTrace writes a trace. What has no place in it is known when the answer's warnings are sent already, and goes to the log.
func (r *run) writeTrace(ctx context.Context, t tracer, conn *engine.Conn, emit func(chunk []byte) error) error {
	w := perfetto.New(emit, t.options())
	err := t.write(ctx, conn, w)
	if err == nil {
		err = w.End()
	}
	if n := w.Stats().Skipped; n > 0 {
		r.s.log.Info("spans or values have no place in a trace", "query_id", r.id, "left_out", n)
	}
	return err
}

func (t *trace) options() perfetto.Options { return perfetto.Options{} }

func (t *trace) write(ctx context.Context, conn *engine.Conn, w *perfetto.Writer) error {
	return t.writeSpans(ctx, conn, w.Process(t.process.ID, t.process.Exe))
}

// writeSpans writes the threads of a process, their spans, and then the asynchronous ones.
func (t *trace) writeSpans(ctx context.Context, conn *engine.Conn, p *perfetto.Process) error {
	tracks := make([]*perfetto.Track, len(t.spans.threads))
	for i := range t.spans.threads {
		th := &t.spans.threads[i]
		tracks[i] = p.Thread(th.stream.ID, th.name, property(th.stream.Properties, "thread-id"))
	}
	var async *perfetto.Track
	if t.spans.async != nil {
		async = p.Async()
	}
	for i, track := range tracks {
		if err := t.writeThread(ctx, conn, t.spans.threads[i].spans, track); err != nil {
			return err
		}
	}
	if g := t.spans.async; g != nil && len(g.paths) > 0 {
		return eachSpan(ctx, conn, asyncRelation(g, &t.within, writtenOrder), async.Span)
	}
	return nil
}

// writeThread writes the spans of a thread in order of their begins: those of files, one after the other as they are, and in between those
// that belong elsewhere: the ones that are open, and the few of each file that began before it. Nothing is sorted but these.
func (t *trace) writeThread(ctx context.Context, conn *engine.Conn, g *granted, track *perfetto.Track) error {
	early, err := t.carried(ctx, conn, g, slices.Clone(g.Open))
	if err != nil {
		return err
	}
	return t.writeFiles(ctx, conn, g, early, track)
}

// writeFiles writes the rows that begin after what the files before have, with early in between.
func (t *trace) writeFiles(ctx context.Context, conn *engine.Conn, g *granted, early []telemetry.Span, track *perfetto.Track) error {
	slices.SortStableFunc(early, compareSpans)
	before := func(s *telemetry.Span) error { // writes what comes before s, all for nil
		for len(early) > 0 && (s == nil || compareSpans(early[0], *s) < 0) {
			if err := track.Span(&early[0]); err != nil {
				return err
			}
			early = early[1:]
		}
		return nil
	}
	for i, own := range ownTimes(g.Files) {
		var conditions []string
		if i > 0 {
			conditions = []string{`"begin" > ` + timeConstant(own)}
		}
		err := eachSpan(ctx, conn, t.fileRelation(g, i, conditions...), func(s *telemetry.Span) error {
			if err := before(s); err != nil {
				return err
			}
			return track.Span(s)
		})
		if err != nil {
			return err
		}
	}
	return before(nil)
}

// carried appends the spans of files that began no later than what the files before have. One that began just then may be the parent of a span
// without duration there.
func (t *trace) carried(ctx context.Context, conn *engine.Conn, g *granted, to []telemetry.Span) ([]telemetry.Span, error) {
	var scans []string
	for i, own := range ownTimes(g.Files) {
		if i > 0 && g.Files[i].MinTime <= own {
			scans = append(scans, t.fileRelation(g, i, `"begin" <= `+timeConstant(own)))
		}
	}
	if len(scans) == 0 {
		return to, nil
	}
	err := eachSpan(ctx, conn, strings.Join(scans, " UNION ALL "), func(s *telemetry.Span) error {
		kept := *s
		kept.Name, kept.Target, kept.Filename = strings.Clone(s.Name), strings.Clone(s.Target), strings.Clone(s.Filename)
		to = append(to, kept)
		return nil
	})
	return to, err
}

// ownTimes returns for each file the time after which no earlier file has a row: the latest end in those before it.
func ownTimes(files []bus.MaterializedFile) []int64 {
	out := make([]int64, len(files))
	last := int64(math.MinInt64)
	for i := range files {
		out[i] = last
		last = max(last, files[i].MaxTime)
	}
	return out
}

// fileRelation reads one file of a thread within the trace's range.
func (t *trace) fileRelation(g *granted, i int, conditions ...string) string {
	table := tables.Must("thread_spans")
	conditions = append(conditions, rangeConditions(table, &t.within, "")...)
	return "SELECT " + shiftedColumns(table, &g.Files[i]) + " FROM " + scan(g.paths[i:i+1]) + where(conditions...)
}

func property(list []telemetry.Property, key string) string {
	for _, p := range list {
		if p.Key == key {
			return p.Value
		}
	}
	return ""
}

// eachSpan calls f for the rows of a relation with the columns of thread_spans. The span is valid during the call only, and so are its texts.
func eachSpan(ctx context.Context, conn *engine.Conn, relation string, f func(*telemetry.Span) error) error {
	result, err := conn.Query(ctx, `SELECT "id","parent","depth","begin","end","name","target","filename","line" FROM (`+relation+`)`, engine.QueryOptions{})
	if err != nil {
		return fmt.Errorf("read spans: %w", err)
	}
	defer result.Close() //nolint:errcheck // never fails
	for {
		batch, err := result.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read spans: %w", err)
		}
		err = spansOfBatch(batch, f)
		batch.Release()
		if err != nil {
			return err
		}
	}
}

// spansOfBatch calls f for the rows of a batch with the columns that eachSpan asks for.
func spansOfBatch(batch arrow.RecordBatch, f func(*telemetry.Span) error) error {
	id, ok1 := batch.Column(0).(*array.Int64)
	parent, ok2 := batch.Column(1).(*array.Int64)
	depth, ok3 := batch.Column(2).(*array.Uint32)
	begin, ok4 := batch.Column(3).(*array.Timestamp)
	end, ok5 := batch.Column(4).(*array.Timestamp)
	name, ok6 := batch.Column(5).(*array.String)
	target, ok7 := batch.Column(6).(*array.String)
	file, ok8 := batch.Column(7).(*array.String)
	line, ok9 := batch.Column(8).(*array.Uint32)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7 || !ok8 || !ok9 {
		return fmt.Errorf("read spans: unexpected columns %s", batch.Schema())
	}
	var s telemetry.Span
	for i := range int(batch.NumRows()) {
		s = telemetry.Span{
			ID: id.Value(i), Parent: parent.Value(i), Depth: depth.Value(i), Begin: int64(begin.Value(i)), End: int64(end.Value(i)),
			Name: name.Value(i), Target: target.Value(i), Filename: file.Value(i), Line: line.Value(i),
		}
		if err := f(&s); err != nil {
			return err
		}
	}
	return nil
}

// traceBatches puts chunks into batches of rows.
type traceBatches struct {
	id    *array.Int32Builder
	data  *array.BinaryBuilder
	bytes int
	next  int32
	left  int64 // chunks that are wanted; negative = all

	schema *arrow.Schema
	send   func(arrow.RecordBatch) error // owns the batch
}

func newTraceBatches(schema *arrow.Schema, send func(arrow.RecordBatch) error) *traceBatches {
	return &traceBatches{
		id: array.NewInt32Builder(memory.DefaultAllocator), data: array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary),
		left: -1, schema: schema, send: send,
	}
}

// errEnough ends the writing of a trace of which no more chunks are wanted.
var errEnough = errors.New("enough chunks")

func (b *traceBatches) add(chunk []byte) error {
	if b.left == 0 {
		return errEnough
	}
	b.left--
	if b.id.Len() == 0 { // growing step by step takes an eighth of the time of a trace
		b.id.Reserve(traceBatchRows)
		b.data.Reserve(traceBatchRows)
		b.data.ReserveData(traceBatchBytes + len(chunk))
	}
	b.id.Append(b.next)
	b.data.Append(chunk)
	b.next++
	b.bytes += len(chunk)
	if b.bytes >= traceBatchBytes || b.id.Len() >= traceBatchRows {
		return b.flush()
	}
	return nil
}

// flush sends what there is.
func (b *traceBatches) flush() error {
	rows := b.id.Len()
	if rows == 0 {
		return nil
	}
	b.bytes = 0
	columns := []arrow.Array{b.id.NewArray(), b.data.NewArray()}
	batch := array.NewRecordBatch(b.schema, columns, int64(rows))
	for _, c := range columns {
		c.Release()
	}
	return b.send(batch)
}

func (b *traceBatches) release() {
	b.id.Release()
	b.data.Release()
}

// traceStream is the Result of a statement that shows columns of a trace as they are.
type traceStream struct {
	schema  *arrow.Schema
	columns []int // of the function, by position
	batches chan arrow.RecordBatch
	stop    context.CancelFunc
	err     error // set before batches is closed
}

var _ engine.Result = (*traceStream)(nil)

// streamTrace begins to write a trace with the run's connection.
func (r *run) streamTrace(ctx context.Context, t tracer, p *dialect.Projection) engine.Result {
	table, _ := tables.Function(traceFunction)
	ctx, stop := context.WithCancel(ctx)
	s := &traceStream{batches: make(chan arrow.RecordBatch, traceAhead), stop: stop}
	var fields []arrow.Field
	for _, c := range p.Columns {
		f := table.ArrowSchema(r.req.PreserveDictionary).Field(c.Index)
		f.Name = c.Name
		fields = append(fields, f)
		s.columns = append(s.columns, c.Index)
	}
	s.schema = arrow.NewSchema(fields, nil)
	b := newTraceBatches(table.FileSchema(), func(batch arrow.RecordBatch) error {
		select {
		case s.batches <- batch:
			return nil
		case <-ctx.Done():
			batch.Release()
			return fmt.Errorf("send trace: %w", ctx.Err())
		}
	})
	b.left = p.Limit
	go func() {
		defer close(s.batches)
		defer b.release()
		err := r.writeTrace(ctx, t, r.conn, b.add)
		if err == nil || errors.Is(err, errEnough) {
			err = b.flush()
		}
		s.err = r.traceFailed(ctx, err)
	}()
	return s
}

// Schema implements engine.Result.
func (s *traceStream) Schema() *arrow.Schema { return s.schema }

// Next implements engine.Result.
func (s *traceStream) Next() (arrow.RecordBatch, error) {
	batch, ok := <-s.batches
	if !ok {
		if s.err != nil {
			return nil, s.err
		}
		return nil, io.EOF
	}
	defer batch.Release()
	columns := make([]arrow.Array, len(s.columns))
	for i, c := range s.columns {
		columns[i] = batch.Column(c)
	}
	return array.NewRecordBatch(s.schema, columns, batch.NumRows()), nil
}

// Close implements engine.Result. The connection is free afterwards.
func (s *traceStream) Close() error {
	s.stop()
	for batch := range s.batches {
		batch.Release()
	}
	return nil
}
