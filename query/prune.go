package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// lifetimeMargin widens the time in which a process's files are looked for: the clock of a process is an estimate, and
// an event may lie a little outside its block.
const lifetimeMargin = time.Hour

// relations brings the statement's tables up to date and returns the statements that make them relations.
func (r *run) relations(ctx context.Context) (views, warnings []string, err error) {
	ctx, span := relationsSpan.Start(ctx)
	defer span.End()
	st := r.st
	if err := r.s.available(st); err != nil {
		return nil, nil, err
	}
	processes := make([]*catalog.ProcessRow, len(st.Instances)) // a schema does not depend on whose rows they are
	if !r.dry {
		fresh, cancel := context.WithTimeout(ctx, r.s.cfg.FreshenTimeout) // for all that the query waits for owners
		defer cancel()
		if processes, err = r.s.instances(ctx, fresh, st); err != nil {
			return nil, nil, err
		}
		n := needsOf(st, processes)
		if r.s.parts.Bus != nil {
			fresh, span := freshenSpan.Start(fresh)
			r.warn(freshen(fresh, r.s.parts.Bus, n.asks(r.s.parts.Bus, r.req.Range))...)
			span.End()
		}
	}
	built, err := r.justInTime(ctx)
	if err != nil {
		return nil, nil, err
	}
	fleets, err := r.fleets(ctx)
	if err != nil {
		return nil, nil, err
	}
	var live *partitions
	if readsPartitions(st) {
		if live, err = r.s.index.refresh(ctx); err != nil {
			return nil, nil, err
		}
		r.hold(r.s.pins.hold(live.commitNo))
	}
	add := func(name, body string, err error) error {
		if err == nil {
			views = append(views, createView(name, body))
		}
		return err
	}
	for _, t := range st.Tables {
		body, err := r.table(ctx, t.Table, live)
		if err := add(t.ViewName, body, err); err != nil {
			return nil, nil, err
		}
	}
	for i, v := range st.Instances {
		body, ready := built[v.ViewName]
		if !ready {
			body, err = r.instance(ctx, v, processes[i], live)
		}
		if err := add(v.ViewName, body, err); err != nil {
			return nil, nil, err
		}
	}
	for i, f := range st.Fleets {
		if err := add(f.ViewName, fleets[i], nil); err != nil {
			return nil, nil, err
		}
	}
	for _, f := range st.Functions {
		if r.streams() {
			if r.traced, err = r.tracer(ctx, f); err != nil {
				return nil, nil, err
			}
			continue
		}
		body, err := r.function(ctx, f, live)
		if err := add(f.ViewName, body, err); err != nil {
			return nil, nil, err
		}
	}
	for _, which := range st.Internals {
		if err := add(which.ViewName(), r.s.names.internalRelation(which), nil); err != nil {
			return nil, nil, err
		}
	}
	return views, r.warnings, nil
}

// eager reports whether rows of a view are written as blocks come.
func eager(t *tables.Table) bool {
	return t.No == tables.NoLogEntries || t.No == tables.NoMeasures || t.No == tables.NoLogStats
}

// needsOf lists what the statement's owners must commit.
func needsOf(st *dialect.Statement, processes []*catalog.ProcessRow) *needs {
	n := &needs{archive: len(st.Fleets) > 0}
	for _, t := range st.Tables {
		if eager(t.Table) {
			n.addView(t.Name, nil)
		} else {
			n.archive = true
		}
	}
	for _, f := range st.Functions {
		if f.Name == "span_streams" || f.Name == "trace_spans" {
			n.archive = true
		}
	}
	for i, v := range st.Instances {
		if justInTime(v.Table) {
			continue // whoever builds it asks
		}
		if processes[i] == nil {
			n.addView(v.Set, nil)
		} else {
			n.addView(v.Set, &processes[i].ID)
		}
	}
	n.archive = n.archive || slices.Contains(st.Calls, payloadName)
	for _, f := range st.Functions {
		n.archive = n.archive || f.Name == "parse_block"
	}
	return n
}

func readsPartitions(st *dialect.Statement) bool {
	for _, t := range st.Tables {
		if eager(t.Table) {
			return true
		}
	}
	for _, f := range st.Functions {
		if f.Name == "list_partitions" {
			return true
		}
	}
	return slices.ContainsFunc(st.Instances, func(v dialect.InstanceRef) bool { return !justInTime(v.Table) })
}

// table is the relation of a global table.
func (r *run) table(ctx context.Context, t *tables.Table, live *partitions) (string, error) {
	switch t.No {
	case tables.NoProcesses:
		from, err := r.layers(ctx, r.s.snapshots.processes)
		return layerRelation(t, from, r.req.Range), err
	case tables.NoStreams:
		from, err := r.layers(ctx, r.s.snapshots.streams)
		return layerRelation(t, from, r.req.Range), err
	case tables.NoBlocks:
		return r.blocks(ctx, t)
	}
	begin, end := r.bounds(t)
	parts := live.prune(t.Name, begin, end, -1)
	paths, err := r.paths(ctx, parts)
	if err != nil {
		return "", err
	}
	return fileRelation(t, paths, needed(t, r.req.Range, parts)), nil
}

// needed returns the part of a query's range that some of the files reach beyond: a side that all files respect needs no
// filter, and a count, for one, then reads no times at all.
func needed(t *tables.Table, r *Range, parts []*catalog.Partition) *Range {
	if r == nil {
		return nil
	}
	open := Range{Begin: math.MinInt64, End: math.MaxInt64}
	first := t.Range.FirstEnd(r.Begin)
	for _, p := range parts {
		if p.MinTime < first {
			open.Begin = r.Begin
		}
		if p.MaxTime > r.End {
			open.End = r.End
		}
	}
	return &open
}

// bounds returns the times that a partition of a table must meet.
func (r *run) bounds(t *tables.Table) (begin, end int64) {
	if r.req.Range == nil {
		return math.MinInt64, math.MaxInt64
	}
	return t.Range.FirstEnd(r.req.Range.Begin), r.req.Range.End
}

// layers returns the FROM item that reads a table of the catalog, as new as the call.
func (r *run) layers(ctx context.Context, l *layers) (string, error) {
	files, err := l.take(ctx)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		r.hold(f.release)
	}
	return layerScan(files), nil
}

// blockFiles are the files that table blocks is read from, and the FROM items of streams and processes that fit them.
type blockFiles struct {
	rows, frozen       []string
	streams, processes string
}

// blocks is the relation of table blocks.
func (r *run) blocks(ctx context.Context, t *tables.Table) (string, error) {
	f, err := r.blockFiles(ctx, t)
	if err != nil {
		return "", err
	}
	return blocksRelation(t, f.rows, f.frozen, f.streams, f.processes, r.req.Range), nil
}

// blockFiles returns the catalog's rows of blocks and the frozen ones, as of one frozen version. Blocks are taken before streams and
// processes, so that what a block needs is there if it is anywhere.
func (r *run) blockFiles(ctx context.Context, t *tables.Table) (f blockFiles, err error) {
	segments, live, err := r.s.snapshots.blocks.take(ctx, r.req.Range)
	if err != nil {
		return f, err
	}
	f.rows = make([]string, len(segments))
	for i, s := range segments {
		r.hold(s.release)
		f.rows[i] = s.path
	}
	r.hold(r.s.pins.hold(live.commitNo))
	begin, end := r.bounds(t)
	if f.frozen, err = r.paths(ctx, live.prune(catalog.FrozenView, begin, end, -1)); err != nil {
		return f, err
	}
	if f.streams, err = r.layers(ctx, r.s.snapshots.streams); err != nil {
		return f, err
	}
	f.processes, err = r.layers(ctx, r.s.snapshots.processes)
	return f, err
}

// instance is the relation of view_instance: the global files that may hold the process's rows, filtered.
func (r *run) instance(ctx context.Context, v dialect.InstanceRef, p *catalog.ProcessRow, live *partitions) (string, error) {
	if p == nil {
		return r.table(ctx, v.Table, live)
	}
	now, err := r.s.findProcess(ctx, p.ID) // its last time may have moved since
	if err != nil {
		return "", err
	}
	if now != nil {
		p = now
	}
	begin, end := r.bounds(v.Table)
	if p.HasBlocks {
		begin = max(begin, saturatingAdd(p.FirstTime, -int64(lifetimeMargin)))
		end = min(end, saturatingAdd(p.LastTime, int64(lifetimeMargin)))
	}
	parts := live.prune(v.Set, begin, end, processBit(p.ID))
	paths, err := r.paths(ctx, parts)
	if err != nil {
		return "", err
	}
	return fileRelation(v.Table, paths, needed(v.Table, r.req.Range, parts), `"process_id" = `+quoteText(p.ID.String())), nil
}

func saturatingAdd(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// function is the relation of a table function's result.
func (r *run) function(ctx context.Context, f dialect.FunctionRef, live *partitions) (string, error) {
	switch f.Name {
	case "list_view_sets":
		return r.s.names.viewSetsRelation(), nil
	case "process_spans":
		return r.processSpansRelation(ctx, f)
	case "span_streams":
		return r.spanStreamsRelation(ctx, f)
	case "instance_cost":
		return r.instanceCostRelation(ctx, f)
	case "spans_around":
		return r.spansAroundRelation(ctx, f)
	case "call_tree", "call_names":
		return r.callRelation(ctx, f)
	case "trace_spans":
		return r.traceSpansRelation(ctx, f)
	case traceFunction, storyFunction:
		return r.traceRelation(ctx, f)
	case "parse_block":
		return r.parsedRelation(ctx, f)
	}
	return r.partitionsRelation(ctx, live) // available let no other through
}

// partitionsRelation is the result of list_partitions(). What it tells of instances by their numbers gets their ids here.
func (r *run) partitionsRelation(ctx context.Context, live *partitions) (string, error) {
	t, _ := tables.Function("list_partitions")
	file, instances, err := r.s.snapshots.takePartitions(ctx, r.s.parts.Catalog, live)
	if err != nil {
		return "", err
	}
	r.hold(file.release)
	if !instances {
		return "SELECT " + columnList(t, "") + " FROM " + scan([]string{file.path}), nil
	}
	streams, err := r.layers(ctx, r.s.snapshots.streams)
	if err != nil {
		return "", err
	}
	processes, err := r.layers(ctx, r.s.snapshots.processes)
	if err != nil {
		return "", err
	}
	columns := strings.Replace(columnList(t, "f."), `f."view_instance_id"`, `COALESCE(s.stream_id, p.process_id, f."view_instance_id") AS "view_instance_id"`, 1)
	return "SELECT " + columns + " FROM " + scan([]string{file.path}) + " f" +
		" LEFT JOIN " + streams + " s ON f." + streamNo + " = s." + rowNo +
		" LEFT JOIN " + processes + " p ON f." + processNo + " = p." + rowNo, nil
}

// paths returns where the engine finds the files of partitions, in their order.
func (r *run) paths(ctx context.Context, parts []*catalog.Partition) ([]string, error) {
	if r.dry && len(parts) > 1 {
		parts = parts[:1] // all files of a view have one schema
	}
	files := make([]lake.Ref, len(parts))
	for i, p := range parts {
		files[i] = lake.Ref{Key: p.Key, Size: p.Size}
	}
	paths, err := r.s.parts.Files.LocalPaths(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("files of %s: %w", parts[0].View, err)
	}
	return paths, nil
}

// instances returns the processes that view_instance names, nil for the global instance.
func (s *Service) instances(ctx, fresh context.Context, st *dialect.Statement) ([]*catalog.ProcessRow, error) {
	out := make([]*catalog.ProcessRow, len(st.Instances))
	for i, v := range st.Instances {
		if v.ID == "global" || justInTime(v.Table) {
			continue
		}
		id, err := telemetry.ParseID(v.ID)
		if err != nil {
			return nil, fmt.Errorf("instance %q: %w", v.ID, err)
		}
		if out[i], err = s.process(ctx, fresh, id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// errNoProcess is the text that clients know.
var errNoProcess = errors.New("find_process: select from processes: no rows returned by a query that expected to return at least one row")

// process returns a registered process. One that is not known yet may have been acked a moment ago: archive is asked first,
// until fresh ends.
func (s *Service) process(ctx, fresh context.Context, id telemetry.ID) (*catalog.ProcessRow, error) {
	p, err := s.findProcess(ctx, id)
	if err != nil || p != nil {
		return p, err
	}
	help := "no process " + id.String() + " is registered; SELECT process_id, exe FROM processes lists those that are"
	if s.parts.Bus != nil {
		shard := s.parts.Bus.ShardOf(bus.Eager, id)
		doubts := freshen(fresh, s.parts.Bus, []ask{{shard, bus.FlushRequest{Target: bus.TargetArchive, Process: id}}})
		help = strings.Join(append([]string{help}, doubts...), "; ")
		if p, err = s.findProcess(ctx, id); err != nil || p != nil {
			return p, err
		}
	}
	return nil, &Error{Code: codeInternal, Message: "External error: " + errNoProcess.Error(), Help: help}
}

func (s *Service) findProcess(ctx context.Context, id telemetry.ID) (*catalog.ProcessRow, error) {
	rows, err := s.parts.Catalog.Processes(ctx, []telemetry.ID{id})
	if err != nil {
		return nil, fmt.Errorf("find process %s: %w", id, err)
	}
	if len(rows) == 0 || rows[0].Registered == 0 {
		return nil, nil //nolint:nilnil // a process that is not there is no failure yet
	}
	return &rows[0], nil
}

// available refuses what statements may name but this release does not build.
func (s *Service) available(st *dialect.Statement) error {
	for _, v := range st.Instances {
		if v.Table.No == tables.NoOtelSpans {
			return notAvailable("view set %s is not available in this release", v.Set)
		}
	}
	for _, f := range st.Functions {
		switch f.Name {
		case "list_view_sets", "list_partitions", "process_spans", "parse_block", traceFunction, storyFunction:
		case "span_streams", "instance_cost", "spans_around", "call_tree", "call_names":
		case "trace_spans":
			if s.parts.Traces == nil {
				return notAvailable("table function %s is not available in this release", f.Name)
			}
		default:
			return notAvailable("table function %s is not available in this release", f.Name)
		}
	}
	for _, name := range st.Calls {
		if name != payloadName {
			return notAvailable("function %s is not available in this release", name)
		}
	}
	return nil
}

func notAvailable(format string, args ...any) error {
	return &Error{Code: codeUnimplemented, Phase: phasePlan, Message: "This feature is not implemented: " + fmt.Sprintf(format, args...)}
}

// processBit is the bit of a process in the bitmaps of partitions.
func processBit(id telemetry.ID) int { return catalog.ProcessBit(id) }
