package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// The span types that functions over a process take.
const (
	threadSpans = "thread"
	asyncSpans  = "async"
	bothSpans   = "both"
)

// thread is a thread of a process with its spans.
type thread struct {
	stream catalog.StreamRow
	name   string
	spans  *granted
}

// processSpans is what functions over the spans of a process read.
type processSpans struct {
	threads []thread // ordered by the text of their streams' ids
	async   *granted // nil = not wanted
}

// sent reports whether a thread may have sent blocks of a range.
func (t *thread) sent(within *Range) bool {
	return within == nil || t.stream.FirstTime <= within.End && t.stream.LastTime >= firstEnd(within)
}

// firstEnd returns the least end, as the catalog keeps it, of a block that may have events of a range: they may come up to a microsecond later.
func firstEnd(within *Range) int64 { return catalog.TruncateToMicroseconds(within.Begin) }

// spansOfProcess has the spans of a process built: those of its threads, of its asynchronous operations, or both. A process that is not
// registered has no threads, and one that sent no blocks of the range no spans.
func (r *run) spansOfProcess(ctx context.Context, id telemetry.ID, types string, within *Range) (processSpans, error) {
	var out processSpans
	var err error
	if out.threads, err = r.threads(ctx, id); err != nil {
		return out, err
	}
	var wishes []wish
	if types != asyncSpans {
		for i := range out.threads {
			if th := &out.threads[i]; th.sent(within) { // of the thousands that a process may have had, few did in a short time
				wishes = append(wishes, wishFor("thread_spans", th.stream.ID, within))
			}
		}
	}
	async := wishFor("async_events", id, within)
	if types != threadSpans {
		wishes = append(wishes, async)
	}
	all, err := r.materialize(ctx, wishes)
	if err != nil {
		return out, err
	}
	for i := range out.threads {
		th := &out.threads[i]
		th.spans = all[wishFor("thread_spans", th.stream.ID, within)]
		if th.spans == nil {
			th.spans = &granted{}
		}
		r.warn(th.spans.Warnings...)
	}
	if types != threadSpans {
		out.async = all[async]
		r.warn(out.async.Warnings...)
	}
	return out, nil
}

// threads returns the threads of processes that sent blocks, those included that were acknowledged before the query.
func (r *run) threads(ctx context.Context, ids ...telemetry.ID) ([]thread, error) {
	if b := r.s.parts.Bus; b != nil {
		fresh, cancel := context.WithTimeout(ctx, r.s.cfg.FreshenTimeout)
		defer cancel()
		var list []ask
		for _, id := range ids {
			for _, class := range []bus.Class{bus.Eager, bus.Raw} {
				list = append(list, ask{b.ShardOf(class, id), bus.FlushRequest{Target: bus.TargetArchive, Process: id}})
			}
		}
		r.warn(freshen(fresh, b, list)...)
	}
	rows, err := r.s.parts.Catalog.ProcessStreams(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up the threads of processes: %w", err)
	}
	var out []thread
	for i := range rows {
		if s := &rows[i]; s.Registered != 0 && s.HasBlocks && telemetry.TagOf(s.Tags) == telemetry.TagCPU {
			out = append(out, thread{stream: *s, name: telemetry.ThreadName(s.ID.String(), s.Properties)})
		}
	}
	slices.SortFunc(out, func(a, b thread) int { return a.stream.ID.Compare(b.stream.ID) })
	return out, nil
}

// processSpansRelation is the result of process_spans(process, types).
func (r *run) processSpansRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	t, _ := tables.Function(f.Name)
	if r.unread() {
		return emptyRelation(t), nil
	}
	id, types, err := spanArguments(f)
	if err != nil {
		return "", err
	}
	if types != asyncSpans && r.req.Range == nil {
		return "", &Error{
			Code: codeInternal, Message: "External error: Failed to query thread spans: " + errNoRange.Error(), Help: "give the query a time range",
		}
	}
	p, err := r.spansOfProcess(ctx, id, types, r.req.Range)
	if err != nil {
		return "", err
	}
	var scans []string
	spans := tables.Must("thread_spans")
	for i := range p.threads {
		if th := &p.threads[i]; len(th.spans.paths)+len(th.spans.Open) > 0 {
			scans = append(scans, fmt.Sprintf("SELECT %s AS stream_id, %s AS thread_name, %s FROM (%s)",
				quoteText(th.stream.ID.String()), quoteForeign(th.name), columnList(spans, ""), grantedRelation(spans, th.spans, r.req.Range, r.st.InOrder)))
		}
	}
	if p.async != nil && len(p.async.paths) > 0 {
		order := ""
		if r.st.InOrder {
			order = spanOrder
		}
		scans = append(scans, "SELECT '' AS stream_id, 'async' AS thread_name, "+columnList(spans, "")+" FROM ("+asyncRelation(p.async, r.req.Range, order)+")")
	}
	if len(scans) == 0 {
		r.noteThreads(ctx, id, p)
		return emptyRelation(t), nil
	}
	return strings.Join(scans, " UNION ALL "), nil
}

// noteThreads tells why a process has no spans at all where nothing is missing: no thread of its had a block in the range.
func (r *run) noteThreads(ctx context.Context, id telemetry.ID, p processSpans) {
	if len(p.threads) == 0 && p.async == nil {
		r.notes = append(r.notes, r.noThreads(ctx, id))
		return
	}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range p.threads {
		th := &p.threads[i]
		if th.spans.Blocks > 0 {
			return
		}
		first, last = min(first, th.stream.FirstTime), max(last, th.stream.LastTime)
	}
	if first <= last && (p.async == nil || p.async.Blocks == 0) {
		r.notes = append(r.notes, fmt.Sprintf("no %s blocks of process %s in the range; its blocks are from %s to %s", telemetry.TagCPU, id, clock(first), clock(last)))
	}
}

// noThreads says why a process has no threads.
func (r *run) noThreads(ctx context.Context, id telemetry.ID) string {
	if p, err := r.s.findProcess(ctx, id); err == nil && p == nil {
		return r.whoElse(ctx, wish{view: "async_events", id: id})
	}
	return "process " + id.String() + " has no threads with spans"
}

// asyncRelation joins the begins and ends of asynchronous spans, both of which must lie in the range. Columns are those of thread_spans;
// "" is no order.
func asyncRelation(g *granted, r *Range, order string) string {
	return asyncSpansOf(grantedRelation(tables.Must("async_events"), g, r, false), order)
}

// asyncSpansOf is asyncRelation for a relation of events.
func asyncSpansOf(events, order string) string {
	sql := `SELECT b.span_id AS "id", b.parent_span_id AS "parent", b."depth", b."hash", b."time" AS "begin", e."time" AS "end",` +
		` epoch_ns(e."time") - epoch_ns(b."time") AS "duration", b."name", b."target", b."filename", b."line"` +
		` FROM (` + events + `) b JOIN (` + events + `) e ON b.span_id = e.span_id` +
		` WHERE b.event_type = 'begin' AND e.event_type = 'end' AND b."time" < e."time"`
	if order != "" {
		sql += " ORDER BY " + order
	}
	return sql
}

// spanArguments returns the process and the types that a function over spans is called with. The dialect has checked them.
func spanArguments(f dialect.FunctionRef) (id telemetry.ID, types string, err error) {
	if len(f.Args) < 2 {
		return id, "", fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	text, _ := f.Args[0].(string)
	types, _ = f.Args[1].(string)
	if id, err = telemetry.ParseID(text); err != nil {
		return id, "", fmt.Errorf("%s: %w", f.Name, err)
	}
	return id, types, nil
}

var errArguments = errors.New("arguments are missing")
