package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/materializers/threadspans"
	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/query/calltree"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// edgesPerBlock is about what producers send of a busy thread.
const edgesPerBlock = 10_000

// benchSpans measures spans of threads that are built when they are asked for.
func benchSpans(ctx context.Context, b *bench) (rows []row, err error) {
	if rows, err = benchSpanParts(); err != nil {
		return rows, err
	}
	var large *loadgen.Thread
	err = b.withSpans(ctx, func(c *child, cl *client.Client) error {
		for _, edges := range spansSizes {
			more, err := b.spansOf(ctx, c, cl, edges)
			rows = append(rows, more...)
			if err != nil {
				return fmt.Errorf("%d edges: %w", edges, err)
			}
		}
		edges := b.memoryEdges()
		b.say("posting %s edges", count(edges))
		large, err = b.busyThread(ctx, c, edges)
		return err
	})
	if err != nil {
		return rows, err
	}
	// A new process, whose memory is not that of taking the blocks in.
	err = b.withSpans(ctx, func(c *child, cl *client.Client) error {
		more, err := b.spansMemory(ctx, c, cl, large)
		rows = append(rows, more...)
		return err
	})
	return rows, err
}

// withSpans runs f beside a server on the group's folder.
func (b *bench) withSpans(ctx context.Context, f func(*child, *client.Client) error) (err error) {
	c, err := b.startChild(ctx, "spans", "all")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	return f(c, cl)
}

// spansSizes are the threads whose spans are counted, so that the growth of the cost shows.
var spansSizes = []int{10_000, 100_000, 1_000_000, 10_000_000}

// busyThread posts a thread of so many edges, and waits until archive has it.
func (b *bench) busyThread(ctx context.Context, c *child, edges int) (*loadgen.Thread, error) {
	thread := loadgen.NewThread("bench", time.Now().Add(-time.Hour).Truncate(time.Hour), b.seed)
	for _, r := range thread.Registrations() {
		if err := postOne(ctx, c, r); err != nil {
			return nil, err
		}
	}
	for left := edges; left > 0; left -= edgesPerBlock {
		if err := postOne(ctx, c, thread.Block(min(left, edgesPerBlock))); err != nil {
			return nil, err
		}
	}
	_, err := c.caughtUp(ctx, false)
	return thread, err
}

func postOne(ctx context.Context, c *child, r loadgen.Request) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.http+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("post %s: %s", r.Path, resp.Status)
	}
	return nil
}

// spansRuns is how often what is built is asked for again, and a thread of a million edges is built; the median counts.
const spansRuns = 5

// spansOf measures the first and the next queries about threads of so many edges, and their trace.
func (b *bench) spansOf(ctx context.Context, c *child, cl *client.Client, edges int) ([]row, error) {
	runs := spansRuns
	if edges > 1_000_000 {
		runs = 1
	}
	var cold, again []time.Duration
	var thread *loadgen.Thread
	for range runs {
		var err error
		if thread, err = b.busyThread(ctx, c, edges); err != nil {
			return nil, err
		}
		took, err := sumSpans(ctx, cl, thread)
		if err != nil {
			return nil, err
		}
		cold = append(cold, took)
		for range spansRuns {
			if took, err = sumSpans(ctx, cl, thread); err != nil {
				return nil, err
			}
			again = append(again, took)
		}
	}
	name := fmt.Sprintf("count and sum over %s edges of a thread", count(edges))
	first, next := ms(percentile(cold, 50)), ms(percentile(again, 50))
	if edges != 1_000_000 {
		rows := []row{
			row{Name: name + ", cold", Figure: first, Unit: "ms"}.noting("%.0f ns an edge", first*1e6/float64(edges)),
			{Name: name + ", again", Figure: next, Unit: "ms"},
		}
		return rows, nil
	}
	rows := []row{
		atMost(name+", cold", first, "ms", 500).beside("upstream, another day", 890).noting("p50 of %d threads; %.0f ns an edge", runs, first*1e6/float64(edges)),
		atMost(name+", again", next, "ms", 50).beside("upstream, another day", 200),
	}
	trace, err := b.traceOf(ctx, c, cl, thread, edges)
	return append(rows, trace...), err
}

func count(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%d M", n/1_000_000)
	}
	return fmt.Sprintf("%d k", n/1000)
}

func sumSpans(ctx context.Context, cl *client.Client, t *loadgen.Thread) (time.Duration, error) {
	sql := fmt.Sprintf("SELECT count(*), sum(duration) FROM view_instance('thread_spans', '%s')", t.Stream.ID)
	begin := time.Now()
	_, err := drain(ctx, cl, sql, client.QueryOptions{Begin: time.Unix(0, t.Process.StartTime), End: t.End()})
	return time.Since(begin), err
}

// traceOf measures the trace of a thread whose spans are built, and the size of its files.
func (b *bench) traceOf(ctx context.Context, c *child, cl *client.Client, t *loadgen.Thread, edges int) ([]row, error) {
	before, err := c.cpu()
	if err != nil {
		return nil, err
	}
	const runs = 4
	for range runs {
		if err := drainTrace(ctx, cl, t); err != nil {
			return nil, err
		}
	}
	after, err := c.cpu()
	if err != nil {
		return nil, err
	}
	rate := runs * float64(edges) / 2 / (after - before).Seconds() / 1e6
	rows := []row{atLeast("Perfetto trace of spans that are built, server", rate, "M spans/s/core", 1).beside("upstream, another day", 0.24)}
	size, err := number(ctx, cl, fmt.Sprintf("SELECT CAST(sum(file_size) AS DOUBLE) / %d FROM list_partitions() WHERE view_instance_id = '%s'", edges, t.Stream.ID))
	if err != nil {
		return rows, err
	}
	return append(rows, atMost("thread_spans Parquet", size, "B/edge", 8)), nil
}

func drainTrace(ctx context.Context, cl *client.Client, t *loadgen.Thread) error {
	const layout = "2006-01-02T15:04:05.999999999Z07:00"
	sql := fmt.Sprintf("SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('%s', 'thread', TIMESTAMP '%s', TIMESTAMP '%s')",
		t.Process.ID, time.Unix(0, t.Process.StartTime).UTC().Format(layout), t.End().UTC().Format(layout))
	_, err := drain(ctx, cl, sql, client.QueryOptions{})
	return err
}

// memoryEdges is the range over which the server's memory is looked at: 20 M spans.
func (b *bench) memoryEdges() int { return max(edgesPerBlock, int(40_000_000*b.scale)) }

func (b *bench) spansMemory(ctx context.Context, c *child, cl *client.Client, thread *loadgen.Thread) ([]row, error) {
	edges := b.memoryEdges()
	if err := c.resetPeak(); err != nil {
		return nil, err
	}
	before, _, err := c.memory()
	if err != nil {
		return nil, err
	}
	took, err := sumSpans(ctx, cl, thread)
	if err != nil {
		return nil, err
	}
	_, built, err := c.memory()
	if err != nil {
		return nil, err
	}
	rows := []row{atMost(fmt.Sprintf("resident memory while %s spans of a thread are built, peak", count(edges/2)), float64(built)/(1<<20), "MiB", 512).
		noting("%.1f s; %d MiB before; the engine's own share is bounded by --query-memory", took.Seconds(), before>>20)}
	if err := c.resetPeak(); err != nil {
		return rows, err
	}
	begin := time.Now()
	if err := drainTrace(ctx, cl, thread); err != nil {
		return rows, err
	}
	_, traced, err := c.memory()
	return append(rows, atMost(fmt.Sprintf("resident memory while a trace of %s spans is written, peak", count(edges/2)), float64(traced)/(1<<20), "MiB", 512).
		beside("upstream, 507 k spans, another day", 491).noting("%.1f s", time.Since(begin).Seconds())), err
}

// benchSpanParts measures what building and adding up spans is made of, in this process on one core.
func benchSpanParts() ([]row, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := loadgen.NewThread("bench", time.Now().Truncate(time.Hour), 1)
	block, err := wire.DecodeBlock(thread.Block(edgesPerBlock).Body)
	if err != nil {
		return nil, err
	}
	d, err := wire.NewDecoder(thread.Stream.Dependencies, thread.Stream.Objects, wire.DefaultLimits)
	if err != nil {
		return nil, err
	}
	spans := &wire.SpanBlock{SkipAsyncs: true}
	decode, err := rate(edgesPerBlock, func() error {
		_, err := d.Spans(&block, spans)
		return err
	})
	if err != nil {
		return nil, err
	}
	built := 0
	tree, err := rate(1, func() (err error) {
		built, err = buildTree(thread, &block, spans)
		return err
	})
	if err != nil {
		return nil, err
	}
	columns, names := treeColumns(thread, &block, spans)
	adding, err := rate(len(columns.ID), func() error { return addUp(columns, names) })
	return []row{
		atLeast("decode cpu blocks", decode, "M events/s/core", 5).noting("LZ4 included, %d events a block", edgesPerBlock),
		atLeast("call tree of a thread from decoded events", tree*float64(built), "M spans/s/core", 2),
		atLeast("spans added up by path", adding, "M spans/s/core", 2),
	}, err
}

// rate returns millions of things a second: n for each call.
func rate(n int, f func() error) (best float64, err error) {
	for range decodeRuns {
		done, begin := 0, time.Now()
		for time.Since(begin) < decodeTime {
			if err := f(); err != nil {
				return 0, err
			}
			done += n
		}
		best = max(best, float64(done)/time.Since(begin).Seconds()/1e6)
	}
	return best, nil
}

// treeBlocks is how many times the block is built into one partition, about as many as one has.
const treeBlocks = 25

func instanceOf(t *loadgen.Thread) *justintime.Instance {
	return &justintime.Instance{
		Process: &materializers.Process{Process: t.Process},
		Streams: map[telemetry.ID]*justintime.Stream{t.Stream.ID: {ID: t.Stream.ID, Text: t.Stream.ID.String(), Properties: t.Stream.Properties}},
	}
}

// buildTree makes rows of the block's events, and returns how many.
func buildTree(t *loadgen.Thread, block *wire.BlockBody, spans *wire.SpanBlock) (int, error) {
	rows, err := treeRows(t, block, spans)
	return rows.Len(), err
}

func treeRows(t *loadgen.Thread, block *wire.BlockBody, spans *wire.SpanBlock) (*columnar.Rows, error) {
	view := threadspans.View()
	rows := columnar.NewRows(view.Table)
	b, err := view.Begin(rows, instanceOf(t), nil)
	if err != nil {
		return rows, err
	}
	clock, err := telemetry.NewClock(t.Process, block.Block)
	if err != nil {
		return rows, err
	}
	for i := range treeBlocks {
		row := &catalog.BlockRow{Block: block.Block}
		row.ObjectOffset = int64(i) * edgesPerBlock
		if err := b.Add(&justintime.Block{BlockRow: row, Clock: clock}, spans); err != nil {
			return rows, err
		}
	}
	_, err = b.End()
	return rows, err
}

// treeColumns returns the rows of one block as the call tree takes them.
func treeColumns(t *loadgen.Thread, block *wire.BlockBody, spans *wire.SpanBlock) (c calltree.Columns, names []string) {
	rows, err := treeRows(t, block, spans)
	if err != nil {
		return c, nil
	}
	index := map[string]int32{}
	for i := range rows.Len() {
		name := rows.Text(7, i)
		n, ok := index[name]
		if !ok {
			n = int32(len(names))
			index[name] = n
			names = append(names, name)
		}
		c.ID = append(c.ID, rows.Columns[0].Ints[i])
		c.Depth = append(c.Depth, uint32(rows.Columns[2].Ints[i]))
		c.Begin = append(c.Begin, rows.Columns[4].Ints[i])
		c.End = append(c.End, rows.Columns[5].Ints[i])
		c.Scope = append(c.Scope, n)
	}
	return c, names
}

func addUp(c calltree.Columns, names []string) error {
	t := calltree.New(calltree.Options{})
	number := make([]int32, len(names))
	for i, name := range names {
		number[i] = t.Scope(name, "", "", 0, uint32(i))
	}
	scopes := make([]int32, len(c.Scope))
	for i, n := range c.Scope {
		scopes[i] = number[n]
	}
	c.Scope = scopes
	t.Thread()
	t.AddColumns(c)
	if t.Stats().Spans == 0 {
		return errors.New("no spans")
	}
	return nil
}
