package query

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// A trace's spans are found in three steps. The index says which blocks may have events of the trace. Their bodies say which spans begin it
// in their process: those with the property trace_id. Views that are built just in time have these spans, and all that are below them.

// Bounds of trace_spans.
const (
	// maxTraceBlocks bounds the blocks that are read for a trace.
	maxTraceBlocks = 512
	// maxTraceReads bounds those that are read at a time.
	maxTraceReads = 4
	// traceMargin widens the time of a trace's blocks: the clock of a process is an estimate.
	traceMargin = time.Second
	// traceKey is the property of a span that begins a trace in its process.
	traceKey = "trace_id"
)

// tracePart is what the blocks of one process say about a trace.
type tracePart struct {
	process catalog.ProcessRow
	names   map[telemetry.ID]string // of threads, by their streams
	within  Range                   // of the events in its blocks
	spans   map[traceSpan]*traceProperties
}

// traceSpan names a span of a process: by the stream, or no stream for an asynchronous one, and its id there.
type traceSpan struct {
	stream telemetry.ID
	id     int64
}

// traceProperties are the properties of a span.
type traceProperties struct {
	list  []telemetry.Property // in their order; the last of a key counts
	first bool                 // the span begins the trace in its process
}

// traceBlock is what is kept of a block that may have events of a trace.
type traceBlock struct {
	row        catalog.BlockRow
	stream     *catalog.StreamRow
	properties []wire.SpanProperties
	events     bool  // there are ends of spans, and their ticks are known
	from, to   int64 // the least and the greatest of these ticks
}

// traceSpansRelation is the result of trace_spans(trace).
func (r *run) traceSpansRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	t, _ := tables.Function(f.Name)
	if r.unread() || r.st.Kind == dialect.Explain {
		return emptyRelation(t), nil
	}
	id, err := traceArgument(f)
	if err != nil {
		return "", err
	}
	blocks, err := r.traceBlocks(ctx, id)
	if err != nil {
		return "", err
	}
	if len(blocks) == 0 {
		r.notes = append(r.notes, "no block with spans in the index of traces has trace "+hex.EncodeToString(id[:])+inRange(r.req.Range))
		return emptyRelation(t), nil
	}
	parts, err := r.traceParts(ctx, id, blocks)
	if err != nil {
		return "", err
	}
	if len(parts) == 0 {
		r.notes = append(r.notes, "no span begins trace "+hex.EncodeToString(id[:])+" in the blocks that may have it"+inRange(r.req.Range))
		return emptyRelation(t), nil
	}
	batch := propertyBatch(parts)
	defer batch.Release()
	file, err := r.s.snapshots.folder.write("trace-properties", batch)
	if err != nil {
		return "", err
	}
	r.hold(file.release)
	return r.traceRelations(ctx, t, parts, scan([]string{file.path}))
}

func inRange(r *Range) string {
	if r == nil {
		return ""
	}
	return " in the range"
}

// traceArgument returns the trace that trace_spans is called with.
func traceArgument(f dialect.FunctionRef) (id [16]byte, err error) {
	if len(f.Args) < 1 {
		return id, fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	text, _ := f.Args[0].(string)
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%s: %q is no trace id", f.Name, text)
	}
	return [16]byte(b), nil
}

// traceBlocks reads the blocks that may have spans of a trace.
func (r *run) traceBlocks(ctx context.Context, id [16]byte) ([]*traceBlock, error) {
	w := wishFor("", telemetry.ID{}, r.req.Range)
	keys, err := patiently(ctx, func(ctx context.Context) ([]catalog.BlockKey, error) {
		return r.s.parts.Traces.TraceBlocks(ctx, id, w.begin, w.end, func(filter []byte) bool { return wire.TraceSet{Filter: filter}.MayHold(id) })
	})
	if err != nil {
		return nil, fmt.Errorf("look up trace: %w", err)
	}
	if err := r.warnOfDropped(ctx); err != nil {
		return nil, err
	}
	streams, err := r.cpuStreams(ctx, keys)
	if err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(keys, func(k catalog.BlockKey) bool { return streams[k.StreamID] == nil })
	if len(keys) > maxTraceBlocks {
		r.warn(fmt.Sprintf("%d blocks may have spans of the trace; those after the first %d were not looked at", len(keys), maxTraceBlocks))
		slices.SortFunc(keys, func(a, b catalog.BlockKey) int { return cmp.Compare(a.BeginTime, b.BeginTime) })
		keys = keys[:maxTraceBlocks]
	}
	out := make([]*traceBlock, len(keys))
	doubts := make([]string, len(keys))
	locator := locate.New(r.s.parts.Catalog, r.s.parts.Files)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxTraceReads)
	for i, k := range keys {
		g.Go(func() (err error) {
			out[i], err = readTraceBlock(gctx, locator, k, streams[k.StreamID])
			if _, ok := errors.AsType[*wire.CorruptError](err); ok {
				out[i], doubts[i], err = nil, fmt.Sprintf("block %s was left out: %v", k.BlockID, err), nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r.warn(slices.DeleteFunc(doubts, func(s string) bool { return s == "" })...)
	return slices.DeleteFunc(out, func(b *traceBlock) bool { return b == nil }), nil
}

// warnOfDropped says that the index of traces may have dropped blocks of the range. It is asked after the look-up, during which it may drop some.
func (r *run) warnOfDropped(ctx context.Context) error {
	since, err := patiently(ctx, r.s.parts.Traces.TraceSince)
	if err != nil {
		return fmt.Errorf("look up since when traces are indexed: %w", err)
	}
	if since != 0 && (r.req.Range == nil || firstEnd(r.req.Range) < since) {
		r.warn("the index of traces is complete since " + clock(since) + ": spans from before may be missing")
	}
	return nil
}

// cpuStreams returns those of the blocks' streams that carry spans.
func (r *run) cpuStreams(ctx context.Context, keys []catalog.BlockKey) (map[telemetry.ID]*catalog.StreamRow, error) {
	out := map[telemetry.ID]*catalog.StreamRow{}
	var ids []telemetry.ID
	for _, k := range keys {
		if _, ok := out[k.StreamID]; !ok {
			out[k.StreamID] = nil
			ids = append(ids, k.StreamID)
		}
	}
	if len(ids) == 0 {
		return out, nil
	}
	rows, err := r.s.parts.Catalog.Streams(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up the streams of a trace: %w", err)
	}
	for i := range rows {
		if s := &rows[i]; s.Registered != 0 && telemetry.TagOf(s.Tags) == telemetry.TagCPU {
			out[s.ID] = s
		}
	}
	return out, nil
}

// readTraceBlock reads a block, nil if it is not there any more.
func readTraceBlock(ctx context.Context, l *locate.Locator, k catalog.BlockKey, s *catalog.StreamRow) (*traceBlock, error) {
	rows, err := l.Begun(ctx, k.StreamID, k.BeginTime, k.BeginTime+1)
	if err != nil {
		return nil, fmt.Errorf("find block %s: %w", k.BlockID, err)
	}
	at := slices.IndexFunc(rows, func(b catalog.BlockRow) bool { return b.ID == k.BlockID })
	if at < 0 {
		return nil, nil //nolint:nilnil // what retention took is no failure
	}
	b := &traceBlock{row: rows[at], stream: s, from: math.MaxInt64, to: math.MinInt64}
	body, err := l.Body(ctx, &b.row)
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", k.BlockID, err)
	}
	d, err := decoderOf(s)
	if err != nil {
		return nil, fmt.Errorf("layouts of stream %s: %w", k.StreamID, err)
	}
	block, err := wire.DecodeBlock(body)
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", k.BlockID, err)
	}
	spans := wire.SpanBlock{WantProperties: true}
	if _, err := d.Spans(&block, &spans); err != nil {
		return nil, fmt.Errorf("read block %s: %w", k.BlockID, err)
	}
	for i := range spans.Asyncs {
		b.meet(spans.Asyncs[i].Ticks)
	}
	for i := range spans.Threads {
		b.meet(spans.Threads[i].Ticks)
	}
	b.properties = spans.Properties
	return b, nil
}

// meet notes the ticks of an event.
func (b *traceBlock) meet(ticks int64) {
	b.events, b.from, b.to = true, min(b.from, ticks), max(b.to, ticks)
}

// decoderOf returns a decoder of a stream's blocks.
func decoderOf(s *catalog.StreamRow) (*wire.Decoder, error) {
	deps, err := wire.DecodeTypes(slices.Clone(s.DependenciesCBOR))
	if err != nil {
		return nil, err
	}
	objs, err := wire.DecodeTypes(slices.Clone(s.ObjectsCBOR))
	if err != nil {
		return nil, err
	}
	return wire.NewDecoder(deps, objs, wire.DefaultLimits)
}

// traceParts sorts out what the blocks say, process by process. Processes in which no span begins the trace are left out.
func (r *run) traceParts(ctx context.Context, id [16]byte, blocks []*traceBlock) ([]*tracePart, error) {
	slices.SortFunc(blocks, func(a, b *traceBlock) int {
		return cmp.Or(a.row.StreamID.Compare(b.row.StreamID), cmp.Compare(a.row.ObjectOffset, b.row.ObjectOffset), a.row.ID.Compare(b.row.ID))
	})
	parts := map[telemetry.ID]*tracePart{}
	var ids []telemetry.ID
	for _, b := range blocks {
		if id := b.stream.ProcessID; parts[id] == nil {
			parts[id] = &tracePart{names: map[telemetry.ID]string{}, within: Range{math.MaxInt64, math.MinInt64}, spans: map[traceSpan]*traceProperties{}}
			ids = append(ids, id)
		}
	}
	processes, err := r.s.parts.Catalog.Processes(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up the processes of a trace: %w", err)
	}
	for i := range processes {
		parts[processes[i].ID].process = processes[i]
	}
	for _, b := range blocks {
		parts[b.stream.ProcessID].add(id, b)
	}
	var out []*tracePart
	for _, id := range ids {
		if p := parts[id]; p.process.Registered != 0 && p.begins() {
			out = append(out, p)
		}
	}
	return out, nil
}

// add adds what a block says.
func (p *tracePart) add(id [16]byte, b *traceBlock) {
	p.names[b.row.StreamID] = telemetry.ThreadName(b.row.StreamID.String(), b.stream.Properties)
	p.meet(b.row.BeginTime)
	p.meet(b.row.EndTime)
	if clock, err := telemetry.NewClock(p.process.Process, b.row.Block); err == nil && b.events {
		p.meet(clock.Time(b.from))
		p.meet(clock.Time(b.to))
	}
	for i := range b.properties {
		set := &b.properties[i]
		key := traceSpan{b.row.StreamID, int64(set.Span)}
		if set.Async {
			key.stream = telemetry.ID{}
		}
		s := p.spans[key]
		if s == nil {
			s = &traceProperties{}
			p.spans[key] = s
		}
		s.list = append(s.list, set.Set.Props...)
		s.first = s.first || isTrace(id, set.Set)
	}
}

// meet widens the range of the part's events to an instant.
func (p *tracePart) meet(ns int64) {
	p.within.Begin, p.within.End = min(p.within.Begin, ns), max(p.within.End, ns)
}

// begins reports whether some span begins the trace in the process.
func (p *tracePart) begins() bool {
	for _, s := range p.spans {
		if s.first {
			return true
		}
	}
	return false
}

// isTrace reports whether a set says that its span begins the trace.
func isTrace(id [16]byte, set *telemetry.PropertySet) bool {
	for _, p := range set.Props {
		if p.Key == traceKey && len(p.Value) == 2*len(id) {
			got, err := hex.DecodeString(p.Value)
			return err == nil && [16]byte(got) == id
		}
	}
	return false
}

// propertyBatch makes rows of the properties of the parts' spans.
func propertyBatch(parts []*tracePart) arrow.RecordBatch {
	c := newColumnBuilder(arrow.NewSchema([]arrow.Field{
		{Name: "process_id", Type: arrow.BinaryTypes.String},
		{Name: "stream_id", Type: arrow.BinaryTypes.String},
		{Name: "span_id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "first", Type: arrow.PrimitiveTypes.Int64},
		{Name: "properties", Type: tables.DBin.FileType()},
	}, nil), 0)
	for _, p := range parts {
		for span, s := range p.spans {
			c.text(p.process.ID.String())
			c.text(streamText(span.stream))
			c.int64(span.id)
			if s.first {
				c.int64(1)
			} else {
				c.int64(0)
			}
			c.text(clean(telemetry.PropertiesJSON(s.list)))
		}
	}
	return c.batch()
}

// streamText is a stream in the file of properties; asynchronous spans have none.
func streamText(id telemetry.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// traceRelations has the parts' spans built and writes the relation of those that are of the trace; properties is the FROM item of
// propertyBatch.
func (r *run) traceRelations(ctx context.Context, t *tables.Table, parts []*tracePart, properties string) (string, error) {
	var wishes []wish
	var scans []func(map[wish]*granted) string
	for _, p := range parts {
		within := &Range{saturatingAdd(p.within.Begin, -int64(traceMargin)), saturatingAdd(p.within.End, int64(traceMargin))}
		for _, stream := range p.beginsIn() {
			w := wishFor("thread_spans", stream, within)
			if stream.IsZero() {
				w = wishFor("async_events", p.process.ID, within)
			}
			wishes = append(wishes, w)
			scans = append(scans, func(all map[wish]*granted) string { return p.relation(all[w], stream, within, properties) })
		}
	}
	all, err := r.materialize(ctx, wishes)
	if err != nil {
		return "", err
	}
	var out []string
	for i, w := range wishes {
		r.warn(all[w].Warnings...)
		if len(all[w].paths)+len(all[w].Open) > 0 {
			out = append(out, scans[i](all))
		}
	}
	if len(out) == 0 {
		return emptyRelation(t), nil
	}
	return "SELECT * FROM (" + strings.Join(out, " UNION ALL ") + `) ORDER BY "begin", "id"`, nil
}

// beginsIn returns the streams in which spans begin the trace, no stream for asynchronous ones.
func (p *tracePart) beginsIn() []telemetry.ID {
	var out []telemetry.ID
	for span, s := range p.spans {
		if s.first && !slices.Contains(out, span.stream) {
			out = append(out, span.stream)
		}
	}
	slices.SortFunc(out, telemetry.ID.Compare)
	return out
}

// relation writes the spans of one kind that are of the trace: those that begin it, and all that have one of the trace as parent. UNION keeps
// each once, so parents that a client made a ring of end.
func (p *tracePart) relation(g *granted, stream telemetry.ID, within *Range, properties string) string {
	// The root of a thread has the parent 0, as a child of span 0 has: only spans below the root have a parent. Asynchronous spans count from 1.
	kind, child, spans := threadSpans, ` AND s."depth" > 0`, `SELECT *, `+quoteText(stream.String())+` AS stream_id FROM (`+grantedRelation(tables.Must("thread_spans"), g, within, false)+`)`
	if stream.IsZero() {
		kind, child, spans = asyncSpans, "", p.asyncRelation(g, within)
	}
	own := `(SELECT span_id, "first", properties FROM ` + properties + ` WHERE process_id = ` + quoteText(p.process.ID.String()) + ` AND stream_id = ` + quoteText(streamText(stream)) + `)`
	return `SELECT * FROM (WITH RECURSIVE s AS MATERIALIZED (` + spans + `), t AS (SELECT ` + tracedColumns("") + ` FROM s WHERE "id" IN (SELECT span_id FROM ` + own + ` WHERE "first" = 1)` +
		` UNION SELECT ` + tracedColumns("s.") + ` FROM s JOIN t ON s."parent" = t."id"` + child + `)` +
		` SELECT ` + quoteText(p.process.ID.String()) + ` AS process_id, ` + quoteForeign(p.process.Exe) + ` AS exe, t.stream_id, ` + p.nameColumn() + ` AS thread_name, ` +
		quoteText(kind) + ` AS kind, t."id", t."parent", t."begin", t."end", t."duration", t."name", t."target", t."filename", t."line",` +
		` COALESCE(p.properties, CAST('{}' AS JSON)) AS "properties" FROM t LEFT JOIN ` + own + ` p ON t."id" = p.span_id)`
}

// tracedColumns writes the columns of a span that do not depend on whose it is.
func tracedColumns(prefix string) string {
	names := []string{"stream_id", "id", "parent", "begin", "end", "duration", "name", "target", "filename", "line"}
	for i := range names {
		names[i] = prefix + quoteName(names[i])
	}
	return strings.Join(names, ",")
}

// asyncRelation joins begins and ends. A span without an end is cut at the end of the part's range.
func (p *tracePart) asyncRelation(g *granted, within *Range) string {
	events := grantedRelation(tables.Must("async_events"), g, within, false)
	end := `COALESCE(e."time", greatest(b."time", ` + timeConstant(p.within.End) + `))`
	return `SELECT b.stream_id, b.span_id AS "id", b.parent_span_id AS "parent", b."time" AS "begin", ` + end + ` AS "end", epoch_ns(` + end + `) - epoch_ns(b."time") AS "duration",` +
		` b."name", b."target", b."filename", b."line" FROM (` + events + `) b LEFT JOIN (SELECT * FROM (` + events + `) WHERE event_type = 'end') e` +
		` ON b.span_id = e.span_id WHERE b.event_type = 'begin'`
}

// nameColumn writes the name of the thread of column stream_id.
func (p *tracePart) nameColumn() string {
	var b strings.Builder
	b.WriteString("CASE t.stream_id")
	for id, name := range p.names {
		b.WriteString(" WHEN " + quoteText(id.String()) + " THEN " + quoteForeign(name))
	}
	b.WriteString(" ELSE t.stream_id END")
	return b.String()
}
