package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Just-in-time views are built by whichever process takes the request on the bus. The answer says which files hold the rows, and a query
// reads these and no others; it never looks for partitions of such views itself.

// wish is an instance of a just-in-time view for a range of time, both ends included.
type wish struct {
	view       string
	id         telemetry.ID
	begin, end int64
}

// wishFor is a view's instance for a query's range.
func wishFor(view string, id telemetry.ID, r *Range) wish {
	if r == nil {
		return wish{view, id, math.MinInt64, math.MaxInt64} // all that there is
	}
	return wish{view, id, r.Begin, r.End}
}

// granted is what to read for a wish.
type granted struct {
	bus.MaterializeReply
	paths []string // where the engine finds Files
}

// maxMaterializes bounds the instances that one query has built at a time.
const maxMaterializes = 8

// justInTime reports whether a view is built when somebody asks.
func justInTime(t *tables.Table) bool { return t.Instance != tables.None && !t.Global }

// materialize has instances built, and pins the files for the query. The caller gets an answer for each wish; one that was granted
// before, in another place of the statement, is not asked for again.
func (r *run) materialize(ctx context.Context, wishes []wish) (map[wish]*granted, error) {
	out := make(map[wish]*granted, len(wishes))
	var distinct []wish
	for _, w := range wishes {
		switch {
		case out[w] != nil:
		case r.granted[w] != nil:
			out[w] = r.granted[w]
		default:
			out[w] = &granted{}
			distinct = append(distinct, w)
		}
	}
	if len(distinct) == 0 {
		return out, nil
	}
	ctx, span := materializeSpan.Start(ctx)
	defer span.End()
	releases := make([]func(), len(distinct))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxMaterializes)
	for i, w := range distinct {
		to := out[w]
		g.Go(func() (err error) {
			releases[i], err = r.grant(gctx, w, to)
			return err
		})
	}
	err := g.Wait()
	for _, release := range releases {
		if release != nil {
			r.hold(release)
		}
	}
	if err != nil {
		return out, err
	}
	if r.granted == nil {
		r.granted = map[wish]*granted{}
	}
	for _, w := range distinct {
		r.granted[w] = out[w]
	}
	r.noteCut(distinct, out)
	return out, nil
}

// maxNotedName bounds the name of a span in a note, in bytes.
const maxNotedName = 60

// noteCut says which spans end where the hours that a range touches end, because what their threads sent later was not looked at.
func (r *run) noteCut(wishes []wish, all map[wish]*granted) {
	var first *telemetry.Span
	var of wish
	threads := 0
	for _, w := range wishes {
		if !all[w].Later {
			continue
		}
		if i := slices.IndexFunc(all[w].Open, func(s telemetry.Span) bool { return s.ID >= 0 }); i >= 0 { // not the root
			if threads++; first == nil {
				first, of = &all[w].Open[i], w
			}
		}
	}
	if first == nil {
		return
	}
	note := fmt.Sprintf("span %q of stream %s", dialect.Clip(first.Name, maxNotedName), of.id)
	if threads > 1 {
		note += fmt.Sprintf(", and spans of %d more threads,", threads-1)
	}
	r.notes = append(r.notes, note+" may last longer than to "+clock(first.End)+", the end of the blocks of the hours that the range touches: a range that reaches further shows its end")
}

// noteReversed says that a range has no instant in it.
func (r *run) noteReversed(within *Range) {
	if within != nil && within.Begin > within.End {
		r.notes = append(r.notes, "the range ends before it begins: from "+clock(within.Begin)+" to "+clock(within.End))
	}
}

// grant has one instance built. The release is to be held also after an error, unless it is nil.
func (r *run) grant(ctx context.Context, w wish, to *granted) (release func(), err error) {
	if r.s.parts.Bus == nil {
		return nil, r.refused(ctx, w, bus.ErrNoOwner)
	}
	to.MaterializeReply, err = r.s.parts.Bus.Materialize(ctx, bus.MaterializeRequest{View: w.view, Instance: w.id, Begin: w.begin, End: w.end}, r.building.of(w))
	if err != nil {
		return nil, r.refused(ctx, w, err)
	}
	r.building.end(w)
	if len(to.Files) == 0 {
		return nil, nil
	}
	release = r.s.pins.hold(to.CommitNo)
	refs := make([]lake.Ref, len(to.Files))
	for i, f := range to.Files {
		refs[i] = lake.Ref{Key: f.Key, Size: f.Size}
	}
	if to.paths, err = r.s.parts.Files.LocalPaths(ctx, refs); err != nil {
		return release, fmt.Errorf("files of %s: %w", w.view, err)
	}
	return release, nil
}

// unknown is the text that clients know for an instance that is not registered.
func unknown(view string) string {
	switch view {
	case "thread_spans":
		return "Stream not found"
	case "images", "otel_spans":
		return errNoProcess.Error()
	default:
		return "Process not found"
	}
}

// refused turns the failure of a wish into the query's.
func (r *run) refused(ctx context.Context, w wish, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("materialize %s: %w", w.view, err)
	}
	if errors.Is(err, bus.ErrNoOwner) {
		return &Error{
			Code: codeUnavailable, Message: "External error: no process materializes " + w.view, Err: err,
			Help: "start a process with the role that materializes, then ask again",
		}
	}
	var e *bus.MaterializeError
	if !errors.As(err, &e) {
		return fmt.Errorf("materialize %s: %w", w.view, err)
	}
	switch e.Code {
	case bus.UnknownInstance:
		return &Error{Code: codeInternal, Message: "External error: " + unknown(w.view), Help: r.whoElse(ctx, w), Err: err}
	case bus.UnknownView:
		return notAvailable("view set %s is not available in this release", w.view)
	case bus.TooMuch:
		return &Error{Code: codeExhausted, Message: "Resources exhausted: " + e.Message, Help: "ask for a shorter time range", Err: err}
	case bus.Busy, bus.Interrupted:
		return &Error{
			Code: codeUnavailable, Message: "External error: " + w.view + " could not be built now: " + e.Message,
			Help: "what was built meanwhile is kept: try again", Err: err,
		}
	default:
		return &Error{Code: codeInternal, Message: "External error: " + w.view + " could not be built: " + e.Message, Err: err}
	}
}

// Bounds of the hint at ids that were perhaps meant.
const (
	nearPrefix = 4   // letters that they must have in common with what was given
	nearRead   = 256 // ids with that prefix that are compared
	nearShown  = 5
)

// whoElse says which instances there are in the place of one that is not. It fails silently: the error that it explains counts.
func (r *run) whoElse(ctx context.Context, w wish) string {
	kind, other, from := "process", "stream", r.s.snapshots.processes
	if t, _ := r.s.names.Table(w.view); t.Instance == tables.Stream {
		kind, other, from = other, kind, r.s.snapshots.streams
	}
	id := w.id.String()
	if r.isOther(ctx, w, other) {
		if other == "process" {
			return fmt.Sprintf("%s is a process: its threads are SELECT stream_id FROM streams WHERE process_id = '%s' AND array_has(tags, 'cpu')", id, id)
		}
		return fmt.Sprintf("%s is a stream: its process is SELECT process_id FROM streams WHERE stream_id = '%s'", id, id)
	}
	near := r.near(ctx, from, kind+"_id", id)
	if len(near) == 0 {
		return fmt.Sprintf("no %s %s is registered; SELECT %s_id FROM %s lists those that are", kind, id, kind, from.table.Name)
	}
	return fmt.Sprintf("no %s %s is registered; did you mean %s?", kind, id, strings.Join(near, " or "))
}

// isOther reports whether an id is that of a process where a stream was expected, or the other way round.
func (r *run) isOther(ctx context.Context, w wish, other string) bool {
	if other == "process" {
		p, err := r.s.findProcess(ctx, w.id)
		return err == nil && p != nil
	}
	rows, err := r.s.parts.Catalog.Streams(ctx, []telemetry.ID{w.id})
	return err == nil && len(rows) > 0 && rows[0].Registered != 0
}

// near returns registered ids that begin as id does, the most alike first.
func (r *run) near(ctx context.Context, l *layers, column, id string) []string {
	files, err := l.take(ctx)
	if err != nil {
		return nil
	}
	defer func() {
		for _, f := range files {
			f.release()
		}
	}()
	c, err := r.s.parts.Engine.Conn(ctx)
	if err != nil {
		return nil
	}
	defer c.Close() //nolint:errcheck // the connection is thrown away
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE prefix(%s, %s) LIMIT %d", column, layerScan(files), column, quoteText(id[:nearPrefix]), nearRead)
	result, err := c.Query(ctx, sql, engine.QueryOptions{})
	if err != nil {
		return nil
	}
	defer result.Close() //nolint:errcheck // it was read
	var ids []string
	for {
		batch, err := result.Next()
		if err != nil {
			break
		}
		for i := range int(batch.NumRows()) {
			ids = append(ids, batch.Column(0).ValueStr(i))
		}
		batch.Release()
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(common(b, id), common(a, id)), strings.Compare(a, b))
	})
	return ids[:min(len(ids), nearShown)]
}

// common returns how many bytes two texts begin alike with.
func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// note tells why a wish has no rows at all where nothing is missing: there was no block in the range.
func (r *run) note(ctx context.Context, w wish, g *granted) error {
	if g.Blocks > 0 {
		return nil
	}
	what, first, last := "", int64(math.MaxInt64), int64(math.MinInt64)
	if t, _ := r.s.names.Table(w.view); t.Instance == tables.Stream {
		what = "blocks of stream " + w.id.String()
		rows, err := r.s.parts.Catalog.Streams(ctx, []telemetry.ID{w.id})
		if err != nil {
			return fmt.Errorf("look up stream %s: %w", w.id, err)
		}
		if len(rows) > 0 && rows[0].HasBlocks {
			first, last = rows[0].FirstTime, rows[0].LastTime
		}
	} else {
		tag := tagOf(w.view)
		what = fmt.Sprintf("%s blocks of process %s", tag, w.id)
		rows, err := r.s.parts.Catalog.ProcessStreams(ctx, []telemetry.ID{w.id})
		if err != nil {
			return fmt.Errorf("look up the streams of process %s: %w", w.id, err)
		}
		for i := range rows {
			if rows[i].HasBlocks && telemetry.TagOf(rows[i].Tags) == tag {
				first, last = min(first, rows[i].FirstTime), max(last, rows[i].LastTime)
			}
		}
	}
	if first > last {
		r.notes = append(r.notes, "no "+what+": none has come yet")
	} else {
		r.notes = append(r.notes, fmt.Sprintf("no %s in the range; its blocks are from %s to %s", what, clock(first), clock(last)))
	}
	return nil
}

func clock(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// tagOf is the tag of the streams that a just-in-time view of processes is made of.
func tagOf(view string) telemetry.Tag {
	switch view {
	case "images":
		return telemetry.TagImage
	case "net_spans":
		return telemetry.TagNet
	default:
		return telemetry.TagCPU
	}
}

// errNoRange is the text that clients know.
var errNoRange = errors.New("query range mandatory for thread spans view")

// justInTime has the statement's just-in-time instances built, and returns their relations by the names of their views.
func (r *run) justInTime(ctx context.Context) (map[string]string, error) {
	wishes := map[string]wish{}
	var list []wish
	out := map[string]string{}
	for _, v := range r.st.Instances {
		if !justInTime(v.Table) {
			continue
		}
		if r.unread() {
			out[v.ViewName] = emptyRelation(v.Table)
			continue
		}
		if r.req.Range == nil && v.Table.No == tables.NoThreadSpans {
			return nil, &Error{Code: codeInternal, Message: "External error: " + errNoRange.Error(), Help: "give the query a time range"}
		}
		id, err := telemetry.ParseID(v.ID)
		if err != nil {
			return nil, fmt.Errorf("instance %q: %w", v.ID, err)
		}
		w := wishFor(v.Set, id, r.req.Range)
		wishes[v.ViewName] = w
		list = append(list, w)
	}
	all, err := r.materialize(ctx, list)
	if err != nil {
		return nil, err
	}
	for _, v := range r.st.Instances {
		w, ok := wishes[v.ViewName]
		if !ok {
			continue
		}
		g := all[w]
		r.warn(g.Warnings...)
		if err := r.note(ctx, w, g); err != nil {
			return nil, err
		}
		out[v.ViewName] = grantedRelation(v.Table, g, r.req.Range, r.st.InOrder)
	}
	return out, nil
}

// unread reports whether only the statement's columns are wanted, and nobody reads a row.
func (r *run) unread() bool { return r.dry || r.st.Kind == dialect.Describe }

// warn adds warnings, each once.
func (r *run) warn(list ...string) {
	for _, w := range list {
		if !slices.Contains(r.warnings, w) {
			r.warnings = append(r.warnings, w)
		}
	}
}
