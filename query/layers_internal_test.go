package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// registryWorld is a catalog with shards that commit at random, layers over it, and an engine that compares.
type registryWorld struct {
	catalog *sqlite.DB
	folder  *cacheFolder
	engine  *engine.Engine
	shards  []*registryShard
}

// registryShard makes archive commits of a few processes and streams of which most things happen early or late: blocks before
// registrations, registrations that come twice, blocks that name another process than their stream's.
type registryShard struct {
	catalog *sqlite.DB
	id      catalog.ShardID
	rnd     *rand.Rand
	seq     uint64
	blocks  int
}

func newRegistryWorld(t *testing.T, seed uint64) *registryWorld {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	w := &registryWorld{}
	var err error
	if w.catalog, err = sqlite.Open(t.Context(), filepath.Join(dir, "catalog.sqlite"), log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.catalog.Close() })
	if w.folder, err = openCacheFolder(filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	c := engine.DefaultConfig()
	c.TempDir, c.AllowedDirs = filepath.Join(dir, "temp"), []string{dir}
	if w.engine, err = engine.Open(c, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.engine.Close() })
	for i, id := range []catalog.ShardID{{Class: 'e'}, {Class: 'r'}, {Class: 'e', Shard: 1}} {
		w.shards = append(w.shards, &registryShard{catalog: w.catalog, id: id, rnd: rand.New(rand.NewPCG(seed, uint64(i))), blocks: i << 20})
	}
	return w
}

// layers returns layers of both tables that are joined after few rows.
func (w *registryWorld) layers(t *testing.T, change func(*layerSource)) (processes, streams *layers) {
	t.Helper()
	make := func(name string, source layerSource) *layers {
		change(&source)
		l := newLayers(tables.Must(name), w.folder, source, slog.New(slog.DiscardHandler))
		l.bounds.page, l.bounds.small, l.bounds.ratio, l.bounds.inline, l.bounds.reload = 7, 2, 2, 12, 40
		t.Cleanup(l.close)
		return l
	}
	return make("processes", processSource(w.catalog)), make("streams", streamSource(w.catalog))
}

const worldProcesses, worldStreams = 100, 300

func worldID(kind byte, n int) telemetry.ID {
	return telemetry.ID{kind, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

// commit archives a few random things.
func (s *registryShard) commit(ctx context.Context) error {
	c := &catalog.ArchiveCommit{
		Shard: s.id, From: s.seq, To: s.seq + 1, Epoch: 1,
		Pack: &catalog.Pack{Shard: s.id, FirstSeq: s.seq + 1, LastSeq: s.seq + 1, Key: fmt.Sprintf("packs/%s/%d", s.id, s.seq), Size: 1},
	}
	s.seq++
	now := time.Now().UnixNano()
	for range s.rnd.IntN(4) {
		n := s.rnd.IntN(worldStreams)
		process := n % worldProcesses
		if s.rnd.IntN(5) == 0 {
			process = s.rnd.IntN(worldProcesses)
		}
		s.blocks++
		c.Blocks = append(c.Blocks, catalog.BlockReg{
			Block:      telemetry.Block{ID: worldID('b', s.blocks), StreamID: worldID('s', n), ProcessID: worldID('p', process), BeginTime: now - int64(s.rnd.IntN(1e9)), EndTime: now, EndTicks: int64(s.blocks)},
			InsertTime: now + int64(s.blocks)*1000, PackLength: 1,
		})
	}
	for range s.rnd.IntN(3) {
		n := s.rnd.IntN(worldProcesses)
		c.Processes = append(c.Processes, catalog.ProcessReg{
			Process:    telemetry.Process{ID: worldID('p', n), Exe: fmt.Sprint("exe", s.rnd.IntN(9)), StartTime: now, Properties: []telemetry.Property{{Key: "n", Value: fmt.Sprint(n)}}},
			InsertTime: now,
		})
	}
	for range s.rnd.IntN(4) {
		n := s.rnd.IntN(worldStreams)
		c.Streams = append(c.Streams, catalog.StreamReg{
			Stream:           telemetry.Stream{ID: worldID('s', n), ProcessID: worldID('p', n%worldProcesses), Tags: []string{"log", fmt.Sprint(s.rnd.IntN(3))}[:1+s.rnd.IntN(2)], Format: telemetry.FormatTransit},
			DependenciesCBOR: fmt.Append(nil, "dependencies", s.rnd.IntN(3)), ObjectsCBOR: []byte("objects"), InsertTime: now,
		})
	}
	return s.catalog.CommitArchive(ctx, c)
}

// compare reports rows in which layers and the whole table, written at once, differ. Nothing may be archived meanwhile.
func (w *registryWorld) compare(ctx context.Context, l *layers) error {
	files, err := l.take(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			f.release()
		}
	}()
	whole, err := w.whole(ctx, l)
	if err != nil {
		return err
	}
	defer whole.release()
	return w.sameRows(ctx, l.table, layerScan(files), scan([]string{whole.path}))
}

// whole writes a table from all rows of the catalog, read at once.
func (w *registryWorld) whole(ctx context.Context, l *layers) (*cachedFile, error) {
	var batch arrow.RecordBatch
	if l.table.No == tables.NoProcesses {
		rows, err := w.catalog.Processes(ctx, nil)
		if err != nil {
			return nil, err
		}
		batch = processBatch(l.schema, rows)
	} else {
		rows, err := w.catalog.Streams(ctx, nil)
		if err != nil {
			return nil, err
		}
		batch = streamBatch(l.schema, rows)
	}
	defer batch.Release()
	return w.folder.write("whole", batch)
}

// sameRows reports rows that only one of two FROM items has, or has more often.
func (w *registryWorld) sameRows(ctx context.Context, t *tables.Table, got, want string) error {
	conn, err := w.engine.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	columns := "SELECT " + columnList(t, "") + "," + rowNo + " FROM "
	differ := func(a, b string) string {
		return "SELECT " + rowNo + " FROM (" + columns + a + " EXCEPT ALL " + columns + b + ")"
	}
	rows, err := conn.Query(ctx, "SELECT list("+rowNo+")::VARCHAR FROM ("+differ(got, want)+" UNION ALL "+differ(want, got)+") HAVING count(*) > 0", engine.QueryOptions{})
	if err != nil {
		return err
	}
	defer rows.Close()
	switch batch, err := rows.Next(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("rows %s of %s differ", batch.Column(0).ValueStr(0), t.Name)
	}
}

// files returns the names in the folder.
func (w *registryWorld) files(t *testing.T) string {
	t.Helper()
	list, err := os.ReadDir(w.folder.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.Name())
	}
	return strings.Join(names, " ")
}

var errSource = errors.New("the catalog is away")

// TestLayersAreTheWholeTable: however commits, looks, failures of the catalog and forgotten changes follow each other, the layers have exactly the
// rows that the catalog has.
func TestLayersAreTheWholeTable(t *testing.T) {
	const seed, steps = 7, 120
	w := newRegistryWorld(t, seed)
	rnd := rand.New(rand.NewPCG(seed, 99))
	var fail, forget atomic.Bool
	processes, streams := w.layers(t, func(s *layerSource) {
		changed, rows := s.changed, s.rows
		s.changed = func(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
			c, err := changed(ctx, after, limit)
			if forget.Load() {
				c.All, c.IDs = true, nil
			}
			return c, err
		}
		s.rows = func(ctx context.Context, ids []telemetry.ID) (arrow.RecordBatch, error) {
			if fail.Load() {
				return nil, errSource
			}
			return rows(ctx, ids)
		}
	})
	most := 0
	for step := range steps {
		for range rnd.IntN(4) {
			if err := w.shards[rnd.IntN(len(w.shards))].commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		fail.Store(rnd.IntN(8) == 0)
		forget.Store(rnd.IntN(50) == 0)
		for _, l := range []*layers{processes, streams}[rnd.IntN(2):] {
			if err := w.compare(t.Context(), l); err != nil && (!fail.Load() || !errors.Is(err, errSource)) {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			l.mu.Lock()
			most = max(most, len(l.list))
			l.mu.Unlock()
		}
	}
	if most < 3 {
		t.Errorf("never more than %d layers", most)
	}
	processes.close()
	streams.close()
	if left := w.files(t); left != "" {
		t.Errorf("left in the folder: %s", left)
	}
	if _, err := processes.take(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("after close: %v", err)
	}
}

// TestLayersAreAsNewAsTheCall: while owners commit and others ask, each call sees every block that was archived before it.
func TestLayersAreAsNewAsTheCall(t *testing.T) {
	w := newRegistryWorld(t, 8)
	processes, streams := w.layers(t, func(*layerSource) {})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var owners, askers sync.WaitGroup
	var done atomic.Bool
	for _, s := range w.shards {
		owners.Go(func() {
			for range 80 {
				if err := s.commit(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, l := range []*layers{processes, streams, processes, streams} {
		askers.Go(func() {
			for !done.Load() {
				if err := w.atLeast(ctx, l); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	owners.Wait()
	done.Store(true)
	askers.Wait()
	for _, l := range []*layers{processes, streams} {
		if err := w.compare(ctx, l); err != nil {
			t.Error(err)
		}
	}
}

// atLeast takes layers and reports rows of the catalog as it was before that are newer than theirs, and rows that are in two layers.
func (w *registryWorld) atLeast(ctx context.Context, l *layers) error {
	before, err := w.whole(ctx, l)
	if err != nil {
		return err
	}
	defer before.release()
	files, err := l.take(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		defer f.release()
	}
	conn, err := w.engine.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	sql := "SELECT count(*) FROM " + scan([]string{before.path}) + " o LEFT JOIN (SELECT " + rowNo + ", max(last_update_time) AS last, count(*) AS n FROM " + layerScan(files) + " x GROUP BY ALL) l USING (" + rowNo + ") " +
		"WHERE l.last IS NULL OR l.last < o.last_update_time OR l.n > 1"
	rows, err := conn.Query(ctx, sql, engine.QueryOptions{})
	if err != nil {
		return err
	}
	defer rows.Close()
	batch, err := rows.Next()
	if err != nil {
		return err
	}
	if bad := batch.Column(0).ValueStr(0); bad != "0" {
		return fmt.Errorf("%s rows of %s are older than the call, or there twice", bad, l.table.Name)
	}
	return nil
}

// TestFirstLookOutlivesItsQuery: a query that has no time to wait for a large table leaves its reading to the next one.
func TestFirstLookOutlivesItsQuery(t *testing.T) {
	w := newRegistryWorld(t, 9)
	for range 20 {
		if err := w.shards[0].commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var looks atomic.Int32
	began, gate := make(chan struct{}), make(chan struct{})
	processes, _ := w.layers(t, func(s *layerSource) {
		positions := s.positions
		s.positions = func(ctx context.Context) (map[catalog.ShardID]uint64, error) {
			if looks.Add(1) == 1 {
				close(began)
			}
			<-gate
			return positions(ctx)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := processes.take(ctx)
		gaveUp <- err
	}()
	<-began
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(gate)
	if err := w.compare(t.Context(), processes); err != nil {
		t.Fatal(err)
	}
	if n := looks.Load(); n != 1 {
		t.Errorf("everything was read %d times", n)
	}
}
