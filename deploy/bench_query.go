package deploy

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// storageBlocks is the load of the storage figures, whose messages vary.
const storageBlocks = 900

func benchStorage(ctx context.Context, b *bench) (rows []row, err error) {
	c, err := b.startChild(ctx, "storage", "all")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	r, err := b.load(ctx, c, "--duration", "0s", "--blocks", fmt.Sprint(int(storageBlocks*b.scale)), "--processes", "16", "--varying", "--seed", fmt.Sprint(b.seed))
	if err != nil {
		return rows, err
	}
	s, err := c.settled(ctx)
	if err != nil {
		return rows, err
	}
	rows = append(rows, atMost("storage: packs and Parquet", float64(s.Catalog.PackBytes+s.Catalog.PartitionBytes)/float64(r.AckedEvents), "B/event", 10).
		beside("upstream", 18.9).noting("a third each of logs, measures, span edges, varying messages; packs %.1f, Parquet %.1f",
		float64(s.Catalog.PackBytes)/float64(r.AckedEvents), float64(s.Catalog.PartitionBytes)/float64(r.AckedEvents)))
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return rows, err
	}
	defer cl.Close()
	for view, mark := range map[string]float64{"log_entries": 16, "measures": math.NaN()} {
		size, err := number(ctx, cl, "SELECT CAST(sum(file_size) AS DOUBLE) / CAST(sum(num_rows) AS DOUBLE) FROM list_partitions() WHERE view_set_name = '"+view+"'")
		if err != nil {
			return rows, err
		}
		if math.IsNaN(mark) {
			rows = append(rows, row{Name: view + " Parquet", Figure: size, Unit: "B/row"})
			continue
		}
		rows = append(rows, atMost(view+" Parquet", size, "B/row", mark).beside("DuckDB, sorted", 16.2))
	}
	return rows, nil
}

// settled waits until views have caught up and merges have come to rest.
func (c *child) settled(ctx context.Context) (childStatus, error) {
	const quiet = 3 * time.Second
	last, since := int64(-1), time.Now()
	for {
		s, err := c.caughtUp(ctx, true)
		if err != nil {
			return s, err
		}
		if s.Catalog.Partitions != last {
			last, since = s.Catalog.Partitions, time.Now()
		}
		if time.Since(since) > quiet {
			return s, nil
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return s, err
		}
	}
}

// number runs a statement whose answer is one float.
func number(ctx context.Context, c *client.Client, sql string) (float64, error) {
	rows, err := c.Query(ctx, sql, client.QueryOptions{})
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	batch, err := rows.Next()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", sql, err)
	}
	defer batch.Release()
	column, ok := batch.Column(0).(*array.Float64)
	if !ok || column.Len() != 1 {
		return 0, fmt.Errorf("%s: not one float but %s", sql, batch.Column(0).DataType())
	}
	return column.Value(0), nil
}

// The partitions that are pruned: as many hours, each of one process.
const (
	prunePartitions = 100_000
	pruneRuns       = 50
)

func benchPrune(ctx context.Context, b *bench) (rows []row, err error) {
	folder := filepath.Join(b.dir, "prune")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	first := time.Now().Add(-prunePartitions * time.Minute).Truncate(time.Minute)
	if err := makePartitions(ctx, filepath.Join(folder, "catalog.db"), first); err != nil {
		return nil, fmt.Errorf("make partitions: %w", err)
	}
	c, err := b.startChild(ctx, "prune", "all")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	p50, err := b.pruneToNone(ctx, c, first)
	if err != nil {
		return rows, err
	}
	one, err := b.selectOne(ctx, c)
	if err != nil {
		return rows, err
	}
	return append(rows, atMost("100 k partitions pruned to none, whole query, p50", ms(p50), "ms", 20).beside("SELECT 1", ms(one))), nil
}

// pruneToNone measures queries over the gaps of half a minute between partitions, where nothing is left to open after pruning.
func (b *bench) pruneToNone(ctx context.Context, c *child, first time.Time) (time.Duration, error) {
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	var all []time.Duration
	rng := rand.New(rand.NewPCG(b.seed, 3))
	for range pruneRuns {
		gap := first.Add(time.Duration(rng.IntN(prunePartitions))*time.Minute + 40*time.Second)
		begin := time.Now()
		if _, err := drain(ctx, cl, "SELECT count(*) FROM log_entries", client.QueryOptions{Begin: gap, End: gap.Add(10 * time.Second)}); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begin))
	}
	return percentile(all, 50), nil
}

// makePartitions fills a new catalog in a file with partitions.
func makePartitions(ctx context.Context, path string, first time.Time) (err error) {
	db, err := sqlite.Open(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fillPartitions(ctx, db, first)
}

// fillPartitions makes partitions that have no files: pruning must not open any.
func fillPartitions(ctx context.Context, db catalog.Catalog, first time.Time) error {
	const perCommit = 10_000
	for done := 0; done < prunePartitions; done += perCommit {
		commit := catalog.ViewCommit{Consumer: catalog.ConsumerViews}
		for i := done; i < done+perCommit; i++ {
			begin := first.Add(time.Duration(i) * time.Minute).UnixNano()
			end := begin + int64(30*time.Second)
			procs := make([]byte, 128)
			bit := catalog.ProcessBit(telemetry.NewID())
			procs[bit>>3] |= 1 << (bit & 7)
			commit.Added = append(commit.Added, catalog.Partition{
				View: "log_entries", Bucket: begin, MinTime: begin, MaxTime: end, MinInsert: begin, MaxInsert: end, Rows: 1000, Size: 14_000, SchemaVer: 1,
				Procs: procs, Key: fmt.Sprintf("views/log_entries/none/%d.parquet", i),
			})
		}
		if _, err := db.CommitView(ctx, &commit); err != nil {
			return err
		}
	}
	return nil
}

// dashboard are the queries that dashboards ask, with upstream's time in ms over 25.3 M log rows and 36.6 M measures, measured
// on another day on a machine of the same kind.
var dashboard = []struct {
	name     string
	sql      string
	upstream float64
}{
	{"one", "SELECT 1", 4.4},
	{"count", "SELECT COUNT(*) FROM log_entries", 103},
	{"levels", "SELECT level, COUNT(*) c FROM log_entries GROUP BY level ORDER BY level", 295},
	{"by_proc", "SELECT process_id, COUNT(*) c, MAX(time) t FROM log_entries GROUP BY process_id ORDER BY c DESC LIMIT 10", 479},
	{"like", "SELECT COUNT(*) FROM log_entries WHERE msg LIKE '%backend-3%timeout%'", 1038},
	{"errors", "SELECT time, target, msg FROM log_entries WHERE level<=2 ORDER BY time DESC LIMIT 100", 476},
	{"bin", "SELECT date_bin(INTERVAL '1 minute', time) t, level, COUNT(*) c FROM log_entries GROUP BY t, level ORDER BY t", 758},
	{"m_avg", "SELECT name, COUNT(*) c, AVG(value) a, MAX(value) m FROM measures GROUP BY name", 1052},
	{"m_bin", "SELECT date_bin(INTERVAL '1 second', time) t, AVG(value) a FROM measures WHERE name='frame_time' GROUP BY t ORDER BY t", 607},
	{"m_pct", "SELECT process_id, approx_percentile_cont(value, 0.99) p FROM measures WHERE name='frame_time' GROUP BY process_id", 1109},
	{"distinct", "SELECT COUNT(DISTINCT msg) FROM log_entries WHERE level<=3", 419},
	{"procs", "SELECT exe, COUNT(*) FROM processes GROUP BY exe", 43},
	{"blocks", "SELECT process_id, SUM(nb_objects) s FROM blocks GROUP BY process_id ORDER BY s DESC LIMIT 5", 44},
}

// The load of the query figures.
const (
	dashboardBlocks    = 8100 // of each family
	dashboardProcesses = 130
	dashboardRuns      = 3
	streamedRows       = 10_000_000
	upstreamGeomean    = 248.0 // ms over dashboard
)

func benchQuery(ctx context.Context, b *bench) (rows []row, err error) {
	c, err := b.startChild(ctx, "query", "all")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	begin := time.Now()
	r, err := b.load(ctx, c, "--duration", "0s", "--blocks", fmt.Sprint(int(2*dashboardBlocks*b.scale)), "--processes", fmt.Sprint(dashboardProcesses), "--mix", "log,metrics")
	if err != nil {
		return rows, err
	}
	s, err := c.settled(ctx)
	if err != nil {
		return rows, err
	}
	b.say("%d rows loaded and settled in %.0f s: %d files, %d MiB", r.AckedEvents, time.Since(begin).Seconds(), s.Catalog.Partitions, s.Catalog.PartitionBytes>>20)
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return rows, err
	}
	defer cl.Close()
	more, err := b.dashboardRows(ctx, cl, s)
	if rows = append(rows, more...); err != nil {
		return rows, err
	}
	more, err = b.processRows(ctx, cl)
	if rows = append(rows, more...); err != nil {
		return rows, err
	}
	more, err = b.streamRows(ctx, c, cl)
	return append(rows, more...), err
}

// wholeRange covers everything, as the published figures do: the range headers are there and exclude nothing.
var wholeRange = client.QueryOptions{Begin: time.Unix(0, 0), End: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}

func (b *bench) dashboardRows(ctx context.Context, cl *client.Client, s childStatus) (rows []row, err error) {
	peers := b.dashboardPeers(ctx, cl)
	logs := 0.0
	for _, q := range dashboard {
		best := time.Duration(math.MaxInt64)
		for range dashboardRuns {
			begin := time.Now()
			if _, err := drain(ctx, cl, q.sql, wholeRange); err != nil {
				return rows, fmt.Errorf("query %s: %w", q.name, err)
			}
			best = min(best, time.Since(begin))
		}
		logs += math.Log(ms(best))
		r := row{Name: "query " + q.name, Figure: ms(best), Unit: "ms"}.beside("upstream, another day", q.upstream)
		if p, ok := peers[q.name]; ok {
			r = r.noting("same Parquet: DataFusion 55 %s ms, DuckDB shell %s ms", figureText(p.DataFusion), figureText(p.DuckDB))
		}
		rows = append(rows, r)
	}
	rows = append(rows, ratioRows(rows, peers)...)
	geomean := math.Exp(logs / float64(len(dashboard)))
	total := atMost("dashboard queries, geometric mean", geomean, "ms", 0.7*upstreamGeomean).beside("upstream, another day", upstreamGeomean).
		noting("%.1f M rows in %d files", float64(s.Catalog.PartitionRows)/1e6, s.Catalog.Partitions)
	if b.scale != 1 {
		total.Mark, total.Met = "", nil
	}
	return append(rows, total), nil
}

// ratioRows compares the queries that other engines ran over the same files: the geometric mean of the ratios.
func ratioRows(queries []row, peers map[string]peerTimes) (rows []row) {
	for _, engine := range []struct {
		name string
		mark float64
		time func(peerTimes) float64
	}{
		{"DataFusion 55", 1.0, func(p peerTimes) float64 { return p.DataFusion }},
		{"DuckDB's own shell", 1.2, func(p peerTimes) float64 { return p.DuckDB }},
	} {
		logs, n := 0.0, 0
		for _, q := range queries {
			if p := engine.time(peers[strings.TrimPrefix(q.Name, "query ")]); p > 0 {
				logs += math.Log(q.Figure / p)
				n++
			}
		}
		if n > 0 {
			rows = append(rows, atMost("dashboard queries ÷ "+engine.name+", same Parquet", math.Exp(logs/float64(n)), "×", engine.mark).
				noting("geometric mean of %d ratios, FlightSQL included", n))
		}
	}
	return rows
}

// peerTimes are the best times of other engines over the same files, in ms.
type peerTimes struct{ DataFusion, DuckDB float64 }

// dashboardPeers runs the dashboard queries in the outside engines over the live files, where there is an interpreter.
func (b *bench) dashboardPeers(ctx context.Context, cl *client.Client) map[string]peerTimes {
	if b.python == "" {
		b.say("no --python: other engines are not measured beside")
		return nil
	}
	files := map[string][]string{}
	for _, view := range []string{"log_entries", "measures"} {
		paths, err := texts(ctx, cl, "SELECT file_path FROM list_partitions() WHERE view_set_name = '"+view+"' AND file_path IS NOT NULL")
		if err != nil {
			b.say("list files of %s: %v", view, err)
			return nil
		}
		for _, p := range paths {
			files[view] = append(files[view], filepath.Join(b.dir, "query", "lake", p))
		}
	}
	queries := map[string]string{}
	for _, q := range dashboard {
		if strings.Contains(q.sql, "log_entries") || strings.Contains(q.sql, "measures") {
			queries[q.name] = q.sql
		}
	}
	input, err := json.Marshal(map[string]any{"files": files, "queries": queries, "runs": dashboardRuns})
	if err != nil {
		return nil
	}
	path := filepath.Join(b.dir, "peers.json")
	if err := os.WriteFile(path, input, 0o644); err != nil {
		b.say("write %s: %v", path, err)
		return nil
	}
	var answer map[string]peerTimes
	if err := b.runPython(ctx, &answer, "dashboard", path); err != nil {
		b.say("other engines: %v", err)
	}
	return answer
}

// texts runs a statement of one text column.
func texts(ctx context.Context, c *client.Client, sql string) (all []string, err error) {
	rows, err := c.Query(ctx, sql, client.QueryOptions{})
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		column, ok := batch.Column(0).(*array.String)
		if !ok {
			batch.Release()
			return nil, fmt.Errorf("%s: not text but %s", sql, batch.Column(0).DataType())
		}
		for i := range column.Len() {
			all = append(all, strings.Clone(column.Value(i)))
		}
		batch.Release()
	}
}

// processRuns is how many processes' logs are read, one after the other.
const processRuns = 20

// processRows reads all logs of one process, of which the load has less than an hour.
func (b *bench) processRows(ctx context.Context, cl *client.Client) ([]row, error) {
	ids, err := texts(ctx, cl, fmt.Sprintf("SELECT process_id FROM processes ORDER BY process_id LIMIT %d", processRuns))
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	var read int64
	for _, id := range ids {
		begin := time.Now()
		n, err := drain(ctx, cl, "SELECT time, level, target, msg FROM view_instance('log_entries', '"+id+"') ORDER BY time", wholeRange)
		if err != nil {
			return nil, fmt.Errorf("logs of process %s: %w", id, err)
		}
		all, read = append(all, time.Since(begin)), read+n
	}
	return []row{
		atMost("logs of one process in order, warm, p50", ms(percentile(all, 50)), "ms", 150).noting("%d rows each", read/int64(max(1, len(ids)))),
		atMost("logs of one process in order, warm, p99", ms(percentile(all, 99)), "ms", 1000),
	}, nil
}

func (b *bench) streamRows(ctx context.Context, c *child, cl *client.Client) (rows []row, err error) {
	sql := fmt.Sprintf("SELECT time, process_id, level, target, msg FROM log_entries LIMIT %d", streamedRows)
	if err := wait(ctx, settleTime); err != nil {
		return nil, err
	}
	before, _, err := c.memory()
	if err != nil {
		return nil, err
	}
	if err := c.resetPeak(); err != nil {
		return nil, err
	}
	begin := time.Now()
	n, err := drain(ctx, cl, sql, wholeRange)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	elapsed := time.Since(begin)
	_, peak, err := c.memory()
	if err != nil {
		return nil, err
	}
	rows = append(rows,
		atLeast("rows streamed to the Go client", float64(n)/elapsed.Seconds()/1e6, "M rows/s", 1.5).noting("%d rows of time, process_id, level, target, msg; stretch 4", n),
		atMost("memory of the server above before, streaming", float64(peak-before)/(1<<20), "MiB", 256).beside("upstream, another day", 348))
	if b.python == "" {
		return rows, nil
	}
	var answer struct{ Rows, Seconds float64 }
	if err := b.runPython(ctx, &answer, "stream", c.flight, sql); err != nil {
		return rows, err
	}
	return append(rows, atLeast("rows streamed to the Python client", answer.Rows/answer.Seconds/1e6, "M rows/s", 1.5).beside("upstream, another day", 3.7)), nil
}

//go:embed bench_peers.py
var peersScript string

// runPython runs a sub-command of the peers script and decodes what it prints.
func (b *bench) runPython(ctx context.Context, answer any, args ...string) error {
	cmd := exec.CommandContext(ctx, b.python, append([]string{"-c", peersScript}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("python %s: %w: %s", args[0], err, errs.String())
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return fmt.Errorf("python %s printed %q: %w", args[0], out, err)
	}
	return nil
}
