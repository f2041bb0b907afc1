package query

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// A statement over the spans of many threads is answered in three steps. The engine says which threads are meant: it runs the
// statement's conditions on their owners. The materializers say what building these would cost, and too much is refused before
// any of it is done. Then they build, and one relation reads all files and joins each row with its owner by the name of its file.

// Columns of the layers of streams that no query sees. They are NULL for a stream that is no thread, or has no block.
const (
	threadNameColumn = "thread_name"
	firstTimeColumn  = "thread_first_time" // of its blocks
	lastTimeColumn   = "thread_last_time"
)

func threadFields() []arrow.Field {
	at := tables.TS.FileType()
	return []arrow.Field{
		{Name: threadNameColumn, Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: firstTimeColumn, Type: at, Nullable: true},
		{Name: lastTimeColumn, Type: at, Nullable: true},
	}
}

// thread appends the threadFields of a stream.
func (c *columnBuilder) thread(s *catalog.StreamRow) {
	if !s.HasBlocks || telemetry.TagOf(s.Tags) != telemetry.TagCPU || s.Format != telemetry.FormatTransit {
		c.null()
		c.null()
		c.null()
		return
	}
	c.text(telemetry.ThreadName(s.ID.String(), s.Properties))
	c.time(s.FirstTime)
	c.time(s.LastTime)
}

// fleetThread is a thread whose spans a statement wants.
type fleetThread struct {
	id    telemetry.ID
	share float64  // the thread is in each sample of more than this
	owner []string // values of tables.OwnerColumns
	cost  int64    // blocks to decode
	spans *granted
}

// process is the first of tables.OwnerColumns.
func (t *fleetThread) process() string { return t.owner[0] }

// fleets has the spans built that the statement wants of many threads, and returns the relations of Statement.Fleets.
func (r *run) fleets(ctx context.Context) ([]string, error) {
	out := make([]string, len(r.st.Fleets))
	if r.unread() || len(out) == 0 {
		for i, f := range r.st.Fleets {
			out[i] = emptyRelation(f.Table)
		}
		return out, nil
	}
	if r.req.Range == nil {
		return nil, &Error{Code: codeInternal, Message: "External error: " + errNoRange.Error(), Help: "give the query a time range"}
	}
	chosen, err := r.chooseThreads(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.buildFleet(ctx, union(chosen)); err != nil {
		return nil, err
	}
	for i, f := range r.st.Fleets {
		r.noteFleet(f, chosen[i])
		if out[i], err = r.fleetRelation(f.Table, chosen[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// chooseThreads returns for each of Statement.Fleets the threads that are meant. A thread of several is one value.
func (r *run) chooseThreads(ctx context.Context) ([][]*fleetThread, error) {
	owners, err := r.ownersRelation(ctx)
	if err != nil {
		return nil, err
	}
	c, err := r.s.parts.Engine.Conn(ctx)
	if err != nil {
		if errors.Is(context.Cause(ctx), errTooLong) {
			return nil, errNoPlace
		}
		return nil, err
	}
	defer c.Close() //nolint:errcheck // the connection is thrown away
	if err := c.Exec(ctx, createView(dialect.OwnersView, owners)); err != nil {
		return nil, fmt.Errorf("make the relation of threads: %w", err)
	}
	known := map[telemetry.ID]*fleetThread{}
	out := make([][]*fleetThread, len(r.st.Fleets))
	for i := range r.st.Fleets {
		if out[i], err = r.choose(ctx, c, &r.st.Fleets[i], known); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ownersRelation has a row for each thread with blocks in the query's range: the columns of tables.OwnerColumns.
func (r *run) ownersRelation(ctx context.Context) (string, error) {
	streams, err := r.layers(ctx, r.s.snapshots.streams)
	if err != nil {
		return "", err
	}
	processes, err := r.layers(ctx, r.s.snapshots.processes) // after the streams: what a stream needs is there
	if err != nil {
		return "", err
	}
	conditions := []string{"s." + threadNameColumn + " IS NOT NULL"}
	if r.req.Range.End < math.MaxInt64 {
		conditions = append(conditions, "s."+firstTimeColumn+" <= "+timeConstant(r.req.Range.End))
	}
	if r.req.Range.Begin > minEngineTime {
		conditions = append(conditions, "s."+lastTimeColumn+" >= "+timeConstant(firstEnd(r.req.Range)))
	}
	return "SELECT s.process_id, p.exe, p.username, p.computer, p.properties AS process_properties, s.stream_id, s." + threadNameColumn + " AS thread_name" +
		" FROM " + streams + " s JOIN " + processes + " p ON s.process_id = p.process_id" + where(conditions...), nil
}

// shareOf places an id in [0, 1), evenly and always at the same place.
func shareOf(id telemetry.ID) float64 {
	sum := sha256.Sum256(id[:])
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// choose runs a statement about owners and takes the sample: at least one thread, where there is one.
func (r *run) choose(ctx context.Context, c *engine.Conn, f *dialect.FleetRef, known map[telemetry.ID]*fleetThread) ([]*fleetThread, error) {
	var columns []string
	for _, column := range tables.OwnerColumns() {
		columns = append(columns, "CAST(o."+quoteName(column.Name)+" AS VARCHAR)") // JSON as text
	}
	sql := "SELECT " + strings.Join(columns, ",") + " FROM " + quoteName(dialect.OwnersView) + " o SEMI JOIN (" + f.Owners + ") w ON o.stream_id = w.stream_id"
	result, err := c.Query(ctx, sql, engine.QueryOptions{})
	if err != nil {
		return nil, err
	}
	defer result.Close() //nolint:errcheck // it was read
	t := taker{sample: f.Sample, most: r.s.cfg.FleetStreams, known: known, processes: map[string]bool{}}
	for {
		batch, err := result.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = t.take(batch)
			batch.Release()
		}
		if err != nil {
			return nil, fmt.Errorf("read threads: %w", err)
		}
	}
	return t.taken()
}

// taker keeps the threads of a sample, and counts those that are too many.
type taker struct {
	sample    float64
	most      int
	known     map[telemetry.ID]*fleetThread
	list      []*fleetThread
	least     *fleetThread // the first thread outside of the sample
	shares    []float64    // of all threads in the sample
	processes map[string]bool
}

// take reads owners.
func (t *taker) take(batch arrow.RecordBatch) error {
	columns := make([]*array.String, batch.NumCols())
	for i, c := range batch.Columns() {
		s, ok := c.(*array.String)
		if !ok {
			return fmt.Errorf("column %s is of type %s", batch.ColumnName(i), c.DataType()) //nolint:err113 // never the client's fault
		}
		columns[i] = s
	}
	for row := range int(batch.NumRows()) {
		id, err := telemetry.ParseID(columns[streamColumn].Value(row))
		if err != nil {
			return fmt.Errorf("stream %q: %w", columns[streamColumn].Value(row), err)
		}
		share := shareOf(id)
		inside := share < t.sample
		if inside {
			t.shares = append(t.shares, share)
			t.processes[strings.Clone(columns[0].Value(row))] = true
		}
		if inside && len(t.list) == t.most || !inside && (len(t.list) > 0 || t.least != nil && t.least.share <= share) {
			continue
		}
		thread := t.known[id]
		if thread == nil {
			thread = &fleetThread{id: id, share: share}
			for _, c := range columns {
				thread.owner = append(thread.owner, strings.Clone(c.Value(row)))
			}
			t.known[id] = thread
		}
		if inside {
			t.list = append(t.list, thread)
		} else {
			t.least = thread
		}
	}
	return nil
}

// streamColumn is the place of stream_id in tables.OwnerColumns.
const streamColumn = 5

// taken returns the sample.
func (t *taker) taken() ([]*fleetThread, error) {
	if len(t.shares) > t.most {
		slices.Sort(t.shares)
		return nil, tooMuch(fmt.Sprintf("the spans of %d threads of %d processes would be read, and the budget is %d threads", len(t.shares), len(t.processes), t.most),
			t.shares[t.most])
	}
	if len(t.list) == 0 && t.least != nil {
		t.list = append(t.list, t.least)
	}
	slices.SortFunc(t.list, func(a, b *fleetThread) int { return a.id.Compare(b.id) })
	return t.list, nil
}

// tooMuch refuses a statement over many threads. A sample of the given share would not be too much.
func tooMuch(message string, fits float64) *Error {
	help := "ask for a shorter time range, or for fewer processes: WHERE exe = … AND process_id = …"
	if percent := roundDown(fits * 100); percent > 0 {
		help += "; a sample of the threads would fit: FROM thread_spans TABLESAMPLE " + strconv.FormatFloat(percent, 'f', -1, 64) + " PERCENT"
	}
	return &Error{Code: codeExhausted, Message: "Resources exhausted: " + message, Help: help}
}

// roundDown keeps two digits of a percentage.
func roundDown(percent float64) float64 {
	if percent <= 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(percent))-1)
	return math.Floor(percent/unit) * unit
}

// union returns the threads of all lists, each once.
func union(lists [][]*fleetThread) []*fleetThread {
	var all []*fleetThread
	for _, list := range lists {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b *fleetThread) int { return a.id.Compare(b.id) })
	return slices.Compact(all)
}

// buildFleet has the spans of threads built unless that costs too much.
func (r *run) buildFleet(ctx context.Context, threads []*fleetThread) error {
	began := time.Now()
	if err := r.price(ctx, threads); err != nil {
		return err
	}
	log := r.s.log.With("query_id", r.id, "threads", len(threads), "processes", processesOf(threads), "blocks", blocksOf(threads))
	log.Debug("spans of many threads priced", "duration", time.Since(began))
	if err := r.affordable(threads); err != nil {
		return err
	}
	began = time.Now()
	var stale, fresh []*fleetThread
	for _, t := range threads {
		if t.spans == nil {
			stale = append(stale, t)
		} else {
			fresh = append(fresh, t)
		}
	}
	wishes := make([]wish, len(stale))
	for i, t := range stale {
		wishes[i] = wishFor("thread_spans", t.id, r.req.Range)
		r.building.expect(wishes[i], t.cost)
	}
	all, err := r.materialize(ctx, wishes)
	if err != nil {
		return err
	}
	for i, t := range stale {
		t.spans = all[wishes[i]]
	}
	if err := r.fetchFleet(ctx, fresh); err != nil {
		return err
	}
	found := make([]wish, len(fresh))
	for i, t := range fresh {
		found[i] = wishFor("thread_spans", t.id, r.req.Range)
		all[found[i]] = t.spans
	}
	r.noteCut(found, all)
	for _, t := range threads {
		r.warn(t.spans.Warnings...)
	}
	log.Debug("spans of many threads built", "stale", len(stale), "duration", time.Since(began))
	return nil
}

// price asks what building the spans of threads costs. The answer about a thread that costs nothing is what to read.
func (r *run) price(ctx context.Context, threads []*fleetThread) error {
	releases := make([]func(), len(threads))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxMaterializes)
	for i, t := range threads {
		g.Go(func() error {
			w := wishFor("thread_spans", t.id, r.req.Range)
			if r.s.parts.Bus == nil {
				return r.refused(gctx, w, bus.ErrNoOwner)
			}
			reply, err := r.s.parts.Bus.Materialize(gctx, bus.MaterializeRequest{View: w.view, Instance: w.id, Begin: w.begin, End: w.end, Dry: true}, nil)
			if err != nil {
				return r.refused(gctx, w, err)
			}
			if t.cost = reply.BuiltBlocks; t.cost == 0 {
				t.spans = &granted{MaterializeReply: reply}
				releases[i] = r.s.pins.hold(reply.CommitNo)
			}
			return nil
		})
	}
	err := g.Wait()
	for _, release := range releases {
		if release != nil {
			r.hold(release)
		}
	}
	return err
}

// fetchFleet finds the files of threads whose spans were built before.
func (r *run) fetchFleet(ctx context.Context, threads []*fleetThread) error {
	var refs []lake.Ref
	for _, t := range threads {
		for _, f := range t.spans.Files {
			refs = append(refs, lake.Ref{Key: f.Key, Size: f.Size})
		}
	}
	if len(refs) == 0 {
		return nil
	}
	paths, err := r.s.parts.Files.LocalPaths(ctx, refs)
	if err != nil {
		return fmt.Errorf("files of thread_spans: %w", err)
	}
	for _, t := range threads {
		t.spans.paths, paths = paths[:len(t.spans.Files)], paths[len(t.spans.Files):]
	}
	return nil
}

// affordable refuses threads that cost more than the budget.
func (r *run) affordable(threads []*fleetThread) error {
	budget := r.s.cfg.FleetBlocks
	blocks := blocksOf(threads)
	if blocks <= budget {
		return nil
	}
	costly := slices.DeleteFunc(slices.Clone(threads), func(t *fleetThread) bool { return t.cost == 0 })
	slices.SortFunc(costly, func(a, b *fleetThread) int { return cmp.Compare(a.share, b.share) })
	fits, sum := 0.0, int64(0)
	for _, t := range costly {
		if sum += t.cost; sum > budget {
			fits = t.share
			break
		}
	}
	if costly[0].cost > budget {
		fits = 0 // a sample has at least one
	}
	return tooMuch(fmt.Sprintf("%d blocks of %d threads of %d processes would have to be decoded, and the budget is %d blocks",
		blocks, len(costly), processesOf(costly), budget), fits)
}

func blocksOf(threads []*fleetThread) int64 {
	sum := int64(0)
	for _, t := range threads {
		sum += t.cost
	}
	return sum
}

func processesOf(threads []*fleetThread) int {
	distinct := map[string]bool{}
	for _, t := range threads {
		distinct[t.process()] = true
	}
	return len(distinct)
}

// noteFleet tells that an answer is of a sample, or of nobody.
func (r *run) noteFleet(f dialect.FleetRef, threads []*fleetThread) {
	if len(threads) == 0 {
		r.notes = append(r.notes, "no thread that the statement means has blocks in the range")
	} else if f.Sample < 1 {
		r.notes = append(r.notes, fmt.Sprintf("%d blocks of %d threads of %d processes decoded, %s%% sampled",
			blocksOf(threads), len(threads), processesOf(threads), strconv.FormatFloat(f.Sample*100, 'g', 6, 64)))
	}
}

// Columns of the file that says whose a file of spans is.
const (
	fileColumn       = "spans_file" // where the engine finds it; spans have a column filename of their own
	depthShiftColumn = "depth_shift"
	shiftFromColumn  = "shift_from"
)

// fleetRelation reads the spans of threads beside the columns of their owners.
func (r *run) fleetRelation(t *tables.Table, threads []*fleetThread) (string, error) {
	var scans []string
	files, paths := filesOf(threads)
	if len(files) > 0 {
		whose, err := r.writeOnce("fleet", ownerBatch(threads))
		if err != nil {
			return "", err
		}
		conditions := rangeConditions(t, neededOfFiles(t, r.req.Range, files), "f.")
		scans = append(scans, "SELECT "+fleetColumns(t, slices.ContainsFunc(files, func(f bus.MaterializedFile) bool { return f.DepthShift != 0 }))+
			" FROM "+strings.TrimSuffix(scan(paths), ")")+", filename = "+quoteText(fileColumn)+") f JOIN "+scan([]string{whose})+" o USING ("+fileColumn+")"+where(conditions...))
	}
	if slices.ContainsFunc(threads, func(t *fleetThread) bool { return len(t.spans.Open) > 0 }) {
		open, err := r.writeOnce("open", openBatch(t, threads))
		if err != nil {
			return "", err
		}
		scans = append(scans, "SELECT "+columnList(t, "")+" FROM "+scan([]string{open}))
	}
	if len(scans) == 0 {
		return emptyRelation(t), nil
	}
	return strings.Join(scans, " UNION ALL "), nil
}

// filesOf returns the files of threads with where they are.
func filesOf(threads []*fleetThread) (files []bus.MaterializedFile, paths []string) {
	for _, t := range threads {
		files, paths = append(files, t.spans.Files...), append(paths, t.spans.paths...)
	}
	return files, paths
}

// writeOnce writes a file for this query alone.
func (r *run) writeOnce(name string, batch arrow.RecordBatch) (path string, err error) {
	defer batch.Release()
	f, err := r.s.snapshots.folder.write(name, batch)
	if err != nil {
		return "", err
	}
	r.hold(f.release)
	return f.path, nil
}

// fleetColumns writes the columns of a Fleet: the owner's from o, the others from f, with what must be added to depths.
func fleetColumns(t *tables.Table, shifted bool) string {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		name := quoteName(t.Columns[i].Name)
		switch {
		case i < len(tables.OwnerColumns()):
			names[i] = "o." + name
		case shifted && t.Columns[i].Name == "depth":
			names[i] = fmt.Sprintf(`CAST(f."depth" + CASE WHEN f.%s >= o.%s THEN o.%s ELSE 0 END AS UINTEGER) AS "depth"`, quoteName(t.Range.Begin), shiftFromColumn, depthShiftColumn)
		default:
			names[i] = "f." + name
		}
	}
	return strings.Join(names, ",")
}

// plainFields are columns as a file has them, without dictionaries.
func plainFields(columns []tables.Column) []arrow.Field {
	t := tables.Table{Columns: columns}
	fields := t.FileSchema().Fields()
	for i := range fields {
		if d, ok := fields[i].Type.(*arrow.DictionaryType); ok {
			fields[i].Type = d.ValueType
		}
	}
	return fields
}

// ownerBatch has a row for each file of spans: whose it is.
func ownerBatch(threads []*fleetThread) arrow.RecordBatch {
	fields := append(plainFields(tables.OwnerColumns()), arrow.Field{Name: fileColumn, Type: arrow.BinaryTypes.String},
		arrow.Field{Name: depthShiftColumn, Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: shiftFromColumn, Type: tables.TS.FileType()})
	c := newColumnBuilder(arrow.NewSchema(fields, nil), len(threads))
	for _, t := range threads {
		for i, f := range t.spans.Files {
			c.owner(t)
			c.text(t.spans.paths[i])
			c.int32(f.DepthShift)
			c.time(max(f.ShiftFrom, minEngineTime+1))
		}
	}
	return c.batch()
}

// openBatch has the spans that are open at the end of the range.
func openBatch(table *tables.Table, threads []*fleetThread) arrow.RecordBatch {
	c := newColumnBuilder(arrow.NewSchema(plainFields(table.Columns), nil), len(threads))
	for _, t := range threads {
		for i := range t.spans.Open {
			s := &t.spans.Open[i]
			c.owner(t)
			c.int64(s.ID)
			c.int64(s.Parent)
			c.uint32(s.Depth)
			c.uint32(s.Hash)
			c.time(s.Begin)
			c.time(s.End)
			c.int64(s.End - s.Begin)
			c.foreign(s.Name)
			c.foreign(s.Target)
			c.foreign(s.Filename)
			c.uint32(s.Line)
		}
	}
	return c.batch()
}

// owner appends the columns of a thread's owner.
func (c *columnBuilder) owner(t *fleetThread) {
	for _, v := range t.owner {
		c.foreign(v)
	}
}

// foreign appends a text that may be any bytes: the engine takes UTF-8 only.
func (c *columnBuilder) foreign(s string) { c.text(strings.ToValidUTF8(s, "\uFFFD")) }
