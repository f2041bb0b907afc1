package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/query/calltree"
	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// maxTreeReaders bounds the threads of a call tree that are read at a time. Each takes a place of the engine and holds it while it reads,
// and waits for nothing else meanwhile; the query itself takes its place when all are done. So no two queries wait for each other.
const maxTreeReaders = 2

// callRelation is the result of call_tree(processes, types) or call_names(processes, types): a file of the rows.
func (r *run) callRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	t, _ := tables.Function(f.Name)
	if r.unread() || r.st.Kind == dialect.Explain {
		return emptyRelation(t), nil
	}
	tree, err := r.callTree(ctx, f)
	if err != nil {
		return "", err
	}
	var batch arrow.RecordBatch
	if f.Name == "call_names" {
		batch = nameBatch(t.FileSchema(), tree.Names())
	} else {
		batch = pathBatch(t.FileSchema(), tree.Paths())
	}
	defer batch.Release()
	if batch.NumRows() == 0 {
		return emptyRelation(t), nil
	}
	file, err := r.s.snapshots.folder.write("calls", batch)
	if err != nil {
		return "", err
	}
	r.hold(file.release)
	return "SELECT " + columnList(t, "") + " FROM " + scan([]string{file.path}), nil
}

// callTree adds up the spans that a function over calls names. Functions of a statement that name the same ones share a tree.
func (r *run) callTree(ctx context.Context, f dialect.FunctionRef) (*calltree.Tree, error) {
	key := fmt.Sprintf("%q", f.Args)
	if tree := r.trees[key]; tree != nil {
		return tree, nil
	}
	processes, err := callArguments(f)
	if err != nil {
		return nil, err
	}
	if r.req.Range == nil {
		return nil, &Error{Code: codeInternal, Message: "External error: Failed to query thread spans: " + errNoRange.Error(), Help: "give the query a time range"}
	}
	threads, err := r.threads(ctx, processes...)
	if err != nil {
		return nil, err
	}
	wishes := make([]wish, len(threads))
	for i := range threads {
		wishes[i] = wishFor("thread_spans", threads[i].stream.ID, r.req.Range)
	}
	all, err := r.materialize(ctx, wishes)
	if err != nil {
		return nil, err
	}
	var spans []*granted
	for _, w := range wishes {
		r.warn(all[w].Warnings...)
		if len(all[w].paths)+len(all[w].Open) > 0 {
			spans = append(spans, all[w])
		}
	}
	tree, err := r.addUp(ctx, spans)
	if err != nil {
		return nil, err
	}
	r.noteCalls(ctx, processes, threads, tree)
	if r.trees == nil {
		r.trees = map[string]*calltree.Tree{}
	}
	r.trees[key] = tree
	return tree, nil
}

// noteCalls says what a tree has not.
func (r *run) noteCalls(ctx context.Context, processes []telemetry.ID, threads []thread, tree *calltree.Tree) {
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	seen := map[telemetry.ID]bool{}
	for i := range threads {
		s := &threads[i].stream
		first, last, seen[s.ProcessID] = min(first, s.FirstTime), max(last, s.LastTime), true
	}
	for _, id := range processes {
		if !seen[id] {
			r.notes = append(r.notes, r.noThreads(ctx, id))
		}
	}
	stats := tree.Stats()
	if stats.Spans == 0 && len(threads) > 0 {
		r.notes = append(r.notes, fmt.Sprintf("no spans in the range; the threads' blocks are from %s to %s", clock(first), clock(last)))
	}
	if stats.Folded > 0 {
		r.notes = append(r.notes, fmt.Sprintf("%d of %d spans are in paths named %s: there are more paths or scopes than a tree keeps apart", stats.Folded, stats.Spans, calltree.Other))
	}
}

// addUp adds up the spans of threads.
func (r *run) addUp(ctx context.Context, threads []*granted) (*calltree.Tree, error) {
	readers := make([]treeReader, min(maxTreeReaders, len(threads)))
	todo := make(chan *granted, len(threads))
	for _, g := range threads {
		todo <- g
	}
	close(todo)
	g, ctx := errgroup.WithContext(ctx)
	for i := range readers {
		readers[i] = treeReader{run: r, tree: calltree.New(calltree.Options{}), scopes: map[uint32]int32{}}
		g.Go(func() error { return readers[i].read(ctx, todo) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	tree := calltree.New(calltree.Options{})
	for i := range readers {
		if i == 0 {
			tree = readers[0].tree
		} else {
			tree.Merge(readers[i].tree)
		}
	}
	return tree, nil
}

// treeReader reads threads out of the engine into a tree of its own.
type treeReader struct {
	run     *run
	tree    *calltree.Tree
	conn    *engine.Conn
	scopes  map[uint32]int32 // of a thread: numbers in the tree, by hash
	open    []telemetry.Span // of a thread, in order: those that are not added yet
	columns calltree.Columns // of a batch, reused
}

// read takes a place of the engine when there is a thread to read, and reads threads until there are no more.
func (t *treeReader) read(ctx context.Context, todo <-chan *granted) (err error) {
	g, more := <-todo
	if !more {
		return nil
	}
	if t.conn, err = t.run.place(ctx); err != nil {
		return err
	}
	defer t.conn.Close() //nolint:errcheck // the connection is thrown away
	for ; more; g, more = <-todo {
		t.tree.Thread()
		if err := t.thread(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// thread adds a thread: the spans of files, with those that are open in between, since the engine would sort all to put them in their
// places. Scopes are read first, each once: the texts of each span would cost more than all the rest, and a span's hash says which it is,
// unless two scopes have the same.
func (t *treeReader) thread(ctx context.Context, g *granted) error {
	t.open = slices.Clone(g.Open)
	slices.SortStableFunc(t.open, compareSpans)
	closed := granted{MaterializeReply: g.MaterializeReply, paths: g.paths}
	closed.Open = nil
	if len(closed.paths) > 0 {
		if err := t.files(ctx, &closed); err != nil {
			return err
		}
	}
	t.addOpen(len(t.open))
	return nil
}

// files adds the spans of files.
func (t *treeReader) files(ctx context.Context, g *granted) error {
	spans := tables.Must("thread_spans")
	clear(t.scopes)
	rows := 0
	err := t.each(ctx, `SELECT DISTINCT "hash","name","target","filename","line" FROM (`+grantedRelation(spans, g, t.run.req.Range, false)+`)`,
		func(batch arrow.RecordBatch) error {
			scopes, err := scopesOf(batch, 0)
			for i := range int(batch.NumRows()) {
				if err == nil {
					t.scopes[scopes.hash.Value(i)] = t.number(&scopes, i)
				}
			}
			rows += int(batch.NumRows())
			return err
		})
	if err != nil {
		return err
	}
	columns := `"hash"`
	if len(t.scopes) < rows {
		columns = `"hash","name","target","filename","line"`
	}
	return t.each(ctx, `SELECT "id","depth","begin","end",`+columns+` FROM (`+grantedRelation(spans, g, t.run.req.Range, true)+`)`, t.add)
}

// each calls f for the batches of a statement's rows.
func (t *treeReader) each(ctx context.Context, sql string, f func(arrow.RecordBatch) error) error {
	result, err := t.conn.Query(ctx, sql, engine.QueryOptions{})
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
		err = f(batch)
		batch.Release()
		if err != nil {
			return err
		}
	}
}

// add adds the rows of a batch.
func (t *treeReader) add(batch arrow.RecordBatch) error {
	id, ok1 := batch.Column(0).(*array.Int64)
	depth, ok2 := batch.Column(1).(*array.Uint32)
	begin, ok3 := batch.Column(2).(*array.Timestamp)
	end, ok4 := batch.Column(3).(*array.Timestamp)
	scopes, err := scopesOf(batch, 4)
	if !ok1 || !ok2 || !ok3 || !ok4 || err != nil {
		return unexpectedColumns(batch)
	}
	c := &t.columns
	c.Begin, c.End, c.Scope = c.Begin[:0], c.End[:0], c.Scope[:0]
	c.ID, c.Depth = id.Int64Values(), depth.Uint32Values()
	for i, hash := range scopes.hash.Uint32Values() {
		from, to := t.cut(int64(begin.Value(i)), int64(end.Value(i)))
		c.Begin, c.End = append(c.Begin, from), append(c.End, to)
		if scopes.name == nil {
			c.Scope = append(c.Scope, t.scopes[hash])
		} else {
			c.Scope = append(c.Scope, t.number(&scopes, i))
		}
	}
	from := 0
	for len(t.open) > 0 {
		open := &t.open[0]
		to := from + sort.Search(len(c.ID)-from, func(i int) bool {
			i += from
			return compareSpans(*open, telemetry.Span{Begin: int64(begin.Value(i)), Depth: c.Depth[i], ID: c.ID[i]}) < 0
		})
		if to == len(c.ID) {
			break
		}
		t.tree.AddColumns(between(c, from, to))
		t.addOpen(1)
		from = to
	}
	t.tree.AddColumns(between(c, from, len(c.ID)))
	return nil
}

// between returns some rows.
func between(c *calltree.Columns, from, to int) calltree.Columns {
	return calltree.Columns{ID: c.ID[from:to], Begin: c.Begin[from:to], End: c.End[from:to], Depth: c.Depth[from:to], Scope: c.Scope[from:to]}
}

// cut returns what of a span lies in the query's range: what was spent outside is no time of it.
func (t *treeReader) cut(begin, end int64) (from, to int64) {
	within := t.run.req.Range
	return max(begin, within.Begin), min(end, within.End)
}

// addOpen adds the next open spans.
func (t *treeReader) addOpen(n int) {
	for _, s := range t.open[:n] {
		s.Begin, s.End = t.cut(s.Begin, s.End)
		t.tree.Add(&s)
	}
	t.open = t.open[n:]
}

// scopeColumns are the columns of scopes in a batch; those behind hash may be missing.
type scopeColumns struct {
	hash                   *array.Uint32
	name, target, filename *array.String
	line                   *array.Uint32
}

// scopesOf returns the columns of scopes, of which the first is at a place.
func scopesOf(batch arrow.RecordBatch, at int) (c scopeColumns, err error) {
	var ok [5]bool
	if c.hash, ok[0] = batch.Column(at).(*array.Uint32); !ok[0] {
		return c, unexpectedColumns(batch)
	}
	if int(batch.NumCols()) == at+1 {
		return c, nil
	}
	c.name, ok[1] = batch.Column(at + 1).(*array.String)
	c.target, ok[2] = batch.Column(at + 2).(*array.String)
	c.filename, ok[3] = batch.Column(at + 3).(*array.String)
	c.line, ok[4] = batch.Column(at + 4).(*array.Uint32)
	if ok != [5]bool{true, true, true, true, true} {
		return c, unexpectedColumns(batch)
	}
	return c, nil
}

func unexpectedColumns(batch arrow.RecordBatch) error {
	return fmt.Errorf("read spans: unexpected columns %s", batch.Schema())
}

// number returns the number of the scope in a row.
func (t *treeReader) number(c *scopeColumns, row int) int32 {
	return t.tree.Scope(c.name.Value(row), c.target.Value(row), c.filename.Value(row), c.line.Value(row), c.hash.Value(row))
}

func pathBatch(schema *arrow.Schema, paths []calltree.Path) arrow.RecordBatch {
	c := newColumnBuilder(schema, len(paths))
	for i := range paths {
		p := &paths[i]
		c.int64(p.ID)
		c.int64(p.Parent)
		c.uint32(p.Depth)
		c.text(p.Name)
		c.text(p.Target)
		c.text(p.Filename)
		c.uint32(p.Line)
		c.uint32(p.Hash)
		c.sums(p.Calls, p.Total, p.Self, p.Min, p.Max)
	}
	return c.batch()
}

func nameBatch(schema *arrow.Schema, names []calltree.Name) arrow.RecordBatch {
	c := newColumnBuilder(schema, len(names))
	for i := range names {
		n := &names[i]
		c.text(n.Name)
		c.sums(n.Calls, n.Total, n.Self, n.Min, n.Max)
	}
	return c.batch()
}

func (c *columnBuilder) sums(values ...int64) {
	for _, v := range values {
		c.int64(v)
	}
}

// callArguments returns the processes that a function over calls is called with.
func callArguments(f dialect.FunctionRef) ([]telemetry.ID, error) {
	if len(f.Args) < 2 {
		return nil, fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	text, _ := f.Args[0].(string)
	var processes []telemetry.ID
	for one := range strings.SplitSeq(text, ",") {
		id, err := telemetry.ParseID(one)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		processes = append(processes, id)
	}
	return processes, nil
}
