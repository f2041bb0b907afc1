package query

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// asyncReach is how long before and after the instant the begin and the end of an asynchronous span are looked for: they are two events, of
// which neither need be near. A query's range that reaches further widens it.
const asyncReach = time.Hour

// spansAroundRelation is the result of spans_around(process, time, margin). It does not look at the query's range for threads: a span is
// open at an instant whatever a query asks about. An asynchronous span that began or ended further away than asyncReach, and
// outside of the query's range, is left out without a word: to know of it takes the search that asyncReach saves.
func (r *run) spansAroundRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	t, _ := tables.Function(f.Name)
	if r.unread() {
		return emptyRelation(t), nil
	}
	id, within, err := aroundArguments(f)
	if err != nil {
		return "", err
	}
	threads, err := r.threads(ctx, id)
	if err != nil {
		return "", err
	}
	wishes := make([]wish, len(threads), len(threads)+1)
	for i := range threads {
		wishes[i] = wishFor("thread_spans", threads[i].stream.ID, &within)
	}
	async := wishFor("async_events", id, asyncWindow(within, r.req.Range))
	all, err := r.materialize(ctx, append(wishes, async))
	if err != nil {
		return "", err
	}
	var scans []string
	add := func(stream, name, relation string) {
		sql := fmt.Sprintf("SELECT %s AS stream_id, %s AS thread_name, %s FROM (%s)", quoteText(stream), quoteForeign(name), columnList(tables.Must("thread_spans"), ""), relation)
		if r.st.InOrder {
			sql = `SELECT * FROM (` + sql + ` ORDER BY "depth", "begin", "id")`
		}
		scans = append(scans, sql)
	}
	for i, w := range wishes {
		r.warn(all[w].Warnings...)
		if len(all[w].paths)+len(all[w].Open) > 0 {
			add(threads[i].stream.ID.String(), threads[i].name, grantedRelation(tables.Must("thread_spans"), all[w], &within, false))
		}
	}
	r.warn(all[async].Warnings...)
	if len(all[async].paths) > 0 {
		open := where(rangeConditions(tables.Must("thread_spans"), &within, "")...)
		add("", asyncSpans, "SELECT * FROM ("+asyncRelation(all[async], nil, "")+")"+open)
	}
	if len(scans) == 0 {
		for i, w := range wishes {
			threads[i].spans = all[w]
		}
		r.noteThreads(ctx, id, processSpans{threads: threads, async: all[async]})
		return emptyRelation(t), nil
	}
	return strings.Join(scans, " UNION ALL "), nil
}

// asyncWindow is where the events of the asynchronous spans are looked for that are open within a range.
func asyncWindow(within Range, asked *Range) *Range {
	w := Range{saturatingAdd(within.Begin, -int64(asyncReach)), saturatingAdd(within.End, int64(asyncReach))}
	if asked != nil {
		w.Begin, w.End = min(w.Begin, asked.Begin), max(w.End, asked.End)
	}
	return &w
}

// aroundArguments returns the process and the range that spans_around is called with.
func aroundArguments(f dialect.FunctionRef) (id telemetry.ID, within Range, err error) {
	if len(f.Args) < 3 {
		return id, within, fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	text, _ := f.Args[0].(string)
	if id, err = telemetry.ParseID(text); err != nil {
		return id, within, fmt.Errorf("%s: %w", f.Name, err)
	}
	at, _ := f.Args[1].(int64)
	margin, _ := f.Args[2].(int64)
	return id, Range{saturatingAdd(at, -margin), saturatingAdd(at, margin)}, nil
}
