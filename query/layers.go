package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// layers keep a table of the catalog whose rows change in place in Parquet files: the lowest has all rows as they once were, and each
// one above has the rows that changed since. What a row is, the highest layer says that has it. Each layer is ordered by the
// rows' numbers in the catalog. What is in memory does not grow with the table, but for the ids of the rows that changed since the last look.
//
// That no change is missed: positions are those of an answer of the catalog, and every row in the layers was read after that answer, or did
// not change between its reading and these positions. The rows that the next answer names are read after it, and override what is there.
// A row that is newer than positions is named by the next answer, and read again.
type layers struct {
	table  *tables.Table
	schema *arrow.Schema // of the files: rowNo and the table's columns
	folder *cacheFolder
	source layerSource
	bounds layerBounds
	log    *slog.Logger

	ctx  context.Context // of the goroutines below; close cancels it
	stop context.CancelFunc
	work sync.WaitGroup // a look and a join

	mu     sync.Mutex
	closed bool
	look   *look     // under way
	begun  time.Time // when the last look that succeeded began: the files are as new as every call before
	list   []layer   // the lowest first; empty before the first look
	join   *join     // under way
	// positions belong to the look under way.
	positions map[catalog.ShardID]uint64
}

// layer is one file.
type layer struct {
	file *cachedFile
	rows int64
}

// rowNo is the column of the files that holds a row's number in the catalog.
const rowNo = "row_no"

// layerBounds say when what is done.
type layerBounds struct {
	// page is how many rows are in memory at a time.
	page int
	// A new layer swallows the one below that has at most small rows, whose writing costs no more than opening the file, or at most ratio times
	// as many as the new one: at once when these are at most inline rows, else while queries go on.
	small, ratio, inline int64
	// All rows are read instead of those that changed when more than reload rows did, and more than one of reloadShare.
	reload, reloadShare int64
}

// defaultLayerBounds: a stream's row holds its layouts, some 10 KB, so a page is some 20 MB. 16 k rows are joined in some 100 ms. With this
// ratio a million rows lie in some five files, and a row that changed once is rewritten some twenty times until it is in the lowest one.
func defaultLayerBounds() layerBounds {
	return layerBounds{page: 2 << 10, small: 512, ratio: 8, inline: 16 << 10, reload: 10_000, reloadShare: 4}
}

// layerSource is where the rows come from.
type layerSource struct {
	positions func(ctx context.Context) (map[catalog.ShardID]uint64, error)
	changed   func(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error)
	// rows returns the rows with the given ids, in order of their numbers.
	rows func(ctx context.Context, ids []telemetry.ID) (arrow.RecordBatch, error)
	// page returns the rows of up to limit numbers above no, and the last of these numbers; no itself after the last one.
	page func(ctx context.Context, no int64, limit int) (arrow.RecordBatch, int64, error)
}

func newLayers(t *tables.Table, folder *cacheFolder, source layerSource, log *slog.Logger) *layers {
	l := &layers{table: t, schema: layerSchema(t), folder: folder, source: source, bounds: defaultLayerBounds(), log: log}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// layerSchema is the columns of a table after the number of the row, and what no query sees.
func layerSchema(t *tables.Table) *arrow.Schema {
	fields := append([]arrow.Field{{Name: rowNo, Type: arrow.PrimitiveTypes.Int64}}, t.FileSchema().Fields()...)
	if t.No == tables.NoStreams {
		fields = append(fields, threadFields()...)
	}
	return arrow.NewSchema(fields, nil)
}

// look is one reading of what changed. It goes on when the queries that wait for it give up: the first one of a large table may take
// longer than a query may, and the next query finds it done.
type look struct {
	begun time.Time
	done  chan struct{}
	err   error // set before done is closed
}

// take returns the files of a table that is as new as the call, the highest layer first. The caller must release them. Calls that wait
// for a look that began before them share the next one.
func (l *layers) take(ctx context.Context) ([]*cachedFile, error) {
	called := time.Now()
	for {
		files, look := l.current(called)
		if look == nil {
			return files, nil
		}
		select {
		case <-look.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", l.table.Name, ctx.Err())
		}
		if look.err != nil && (look.begun.After(called) || isAway(look.err)) { // the next one would hang as long
			return nil, fmt.Errorf("bring %s up to date: %w", l.table.Name, look.err)
		}
	}
}

// current returns the files when they are as new as a call, else the look to wait for.
func (l *layers) current(called time.Time) ([]*cachedFile, *look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) > 0 && l.begun.After(called) {
		files := make([]*cachedFile, 0, len(l.list))
		for _, g := range slices.Backward(l.list) {
			g.file.retain()
			files = append(files, g.file)
		}
		return files, nil
	}
	if l.look != nil {
		return nil, l.look
	}
	k := &look{begun: time.Now(), done: make(chan struct{})}
	if l.closed {
		k.err = errClosed
		close(k.done)
		return nil, k
	}
	l.look = k
	l.work.Go(func() { l.run(k) })
	return nil, k
}

var errClosed = errors.New("the query service is closed")

func (l *layers) run(k *look) {
	err := l.refresh()
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.err = err; err == nil {
		l.begun = k.begun
	}
	l.look = nil
	close(k.done)
}

// refresh reads what changed.
func (l *layers) refresh() error {
	if l.positions == nil {
		at, err := l.source.positions(l.ctx)
		if err != nil {
			return err
		}
		return l.reload(at)
	}
	limit := max(l.bounds.reload, l.lowest()/l.bounds.reloadShare)
	c, err := l.source.changed(l.ctx, l.positions, int(limit))
	if err != nil {
		return err
	}
	if c.All {
		return l.reload(c.Positions)
	}
	if len(c.IDs) > 0 {
		if err := l.add(c.IDs); err != nil {
			return err
		}
	}
	l.positions = c.Positions
	return nil
}

// lowest returns the length of the lowest layer.
func (l *layers) lowest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list[0].rows
}

// reload reads all rows, after the positions were read.
func (l *layers) reload(positions map[catalog.ShardID]uint64) error {
	no := int64(0)
	all, err := l.write(func(w *parquetWriter) (more bool, err error) {
		batch, last, err := l.source.page(l.ctx, no, l.bounds.page)
		if err != nil {
			return false, err
		}
		defer batch.Release()
		more, no = last != no, last
		return more, w.write(batch)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replace(0, len(l.list), all)
	l.positions = positions
	return nil
}

// fetch reads the rows with the given ids, in order of their numbers.
func (l *layers) fetch(ids []telemetry.ID) (layer, error) {
	parts := slices.Collect(slices.Chunk(ids, l.bounds.page))
	return l.write(func(w *parquetWriter) (more bool, err error) {
		batch, err := l.source.rows(l.ctx, parts[0])
		if err != nil {
			return false, err
		}
		defer batch.Release()
		parts = parts[1:]
		return len(parts) > 0, w.write(batch)
	})
}

// write makes a layer of what next writes, call by call.
func (l *layers) write(next func(*parquetWriter) (more bool, err error)) (layer, error) {
	w, err := l.folder.create(l.table.Name, l.schema)
	if err != nil {
		return layer{}, err
	}
	defer w.abort()
	for more := true; more; {
		if more, err = next(w); err != nil {
			return layer{}, err
		}
	}
	f, err := w.finish()
	return layer{f, w.rows}, err
}

// replace puts a layer in the place of those in [from, to). The lock must be held.
func (l *layers) replace(from, to int, g layer) {
	for _, old := range l.list[from:to] {
		old.file.release()
	}
	l.list = slices.Concat(l.list[:from], []layer{g}, l.list[to:])
}

// close ends what is under way and removes the files.
func (l *layers) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	l.work.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.list {
		g.file.release()
	}
	l.list = nil
}

// layerScan writes the FROM item that reads layers, the highest first: of each the rows that no higher one has.
func layerScan(files []*cachedFile) string {
	if len(files) == 1 {
		return scan([]string{files[0].path})
	}
	var b strings.Builder
	var higher []string
	for i, f := range files {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		b.WriteString("SELECT * FROM " + scan([]string{f.path}) + " l")
		if i > 0 {
			b.WriteString(" ANTI JOIN " + scan(higher) + " h USING (" + rowNo + ")")
		}
		higher = append(higher, f.path)
	}
	return "(" + b.String() + ")"
}
