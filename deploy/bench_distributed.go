package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/postgres"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// distributedBenchmarks are the groups of `bench --distributed`: processes with roles of their own over PostgreSQL, an S3 server and
// NATS servers, all on this machine.
func distributedBenchmarks() []benchmark {
	return []benchmark{
		{"apart", "ingestion over processes: CPU a block, by part", benchApart},
		{"shards", "how ingestion's cost grows with 1, 2, 4 shards", benchShards},
		{"builders", "how building grows with 1, 2, 3 materializers", benchBuilders},
		{"acks", "ack to visible row at 50,000 events a second, 3 materializers", benchAcks},
		{"cold", "a query over 100 partitions in a bucket 20 ms away", benchCold},
		{"large", "1 M block rows and 100,000 partitions", benchLarge},
		{"fleet", "10 k, 100 k and 1 M registered processes", benchFleet},
	}
}

// servers are what a deployment stands on.
type servers struct {
	bench  *bench
	folder string
	pg     *parts.Postgres
	s3     *parts.S3
	way    *parts.HTTPFaults // to the bucket
	nats   *parts.NATS
	args   []string // of every process
	all    []*child
}

// startServers starts them in a folder of the bench.
func (b *bench) startServers(ctx context.Context, folder string, natsServers int, args ...string) (s *servers, err error) {
	s = &servers{bench: b, folder: folder, args: args}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	dir := filepath.Join(b.dir, folder)
	if s.pg, err = parts.StartPostgres(ctx, filepath.Join(dir, "postgres"), parts.PostgresOptions{}); err != nil {
		return s, err
	}
	if s.s3, err = parts.StartS3(ctx, filepath.Join(dir, "s3")); err != nil {
		return s, err
	}
	if s.way, err = parts.StartHTTPFaults(s.s3.Endpoint()); err != nil {
		return s, err
	}
	if s.nats, err = parts.StartNATS(ctx, filepath.Join(dir, "nats"), natsServers); err != nil {
		return s, err
	}
	return s, nil
}

// start starts a process with roles. It reaches the bucket directly unless far, which is through the proxy that delays.
func (s *servers) start(ctx context.Context, name, roles string, far bool) (*child, error) {
	endpoint := s.s3.Endpoint()
	if far {
		endpoint = s.way.URL()
	}
	dir := filepath.Join(s.bench.dir, s.folder, name)
	cmd, err := selfCommand(ctx, append([]string{"serve", "--data", dir, "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--roles", roles}, s.args...)...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(),
		"MICROMEGAS_SQL_CONNECTION_STRING="+s.pg.URL("micromegas"),
		"MICROMEGAS_OBJECT_STORE_URI="+s.s3.URIAt(endpoint, "lake"),
		"MICROMEGAS_NATS_URL="+s.nats.URLs())
	cmd.Env = append(cmd.Env, s.s3.Env()...)
	s.s3.URI("lake") // makes the bucket
	c, err := launch(cmd, dir)
	if err == nil {
		s.all = append(s.all, c)
	}
	return c, err
}

// stop ends the processes that still run, then the servers.
func (s *servers) stop() error {
	var errs []error
	for _, c := range s.all {
		if c.running() {
			errs = append(errs, c.stop())
		}
	}
	if s.nats != nil {
		errs = append(errs, s.nats.Stop())
	}
	if s.way != nil {
		errs = append(errs, s.way.Stop())
	}
	if s.s3 != nil {
		errs = append(errs, s.s3.Stop())
	}
	if s.pg != nil {
		errs = append(errs, s.pg.Stop())
	}
	return errors.Join(errs...)
}

// usage is the CPU time used so far, by part.
type usage struct{ ours, postgres, nats, s3 time.Duration }

func (u usage) minus(o usage) usage {
	return usage{u.ours - o.ours, u.postgres - o.postgres, u.nats - o.nats, u.s3 - o.s3}
}

func (u usage) String() string {
	return fmt.Sprintf("ours %v, PostgreSQL %v, NATS %v, S3 %v", u.ours, u.postgres, u.nats, u.s3)
}

// perBlock is the CPU time a block, by part.
func (u usage) perBlock(blocks int64) usage {
	n := time.Duration(max(blocks, 1))
	return usage{u.ours / n, u.postgres / n, u.nats / n, u.s3 / n}
}

// cpu measures every process that runs.
func (s *servers) cpu() (u usage, err error) {
	for _, c := range s.all {
		if !c.running() {
			continue
		}
		used, err := c.cpu()
		if err != nil {
			return u, err
		}
		u.ours += used
	}
	var errs [3]error
	u.postgres, errs[0] = s.pg.CPU()
	u.nats, errs[1] = s.nats.CPU()
	u.s3, errs[2] = s.s3.CPU()
	return u, errors.Join(errs[:]...)
}

// ingest posts for a while and returns what it took until everything was archived, and built where builders run.
func (s *servers) ingest(ctx context.Context, gateway *child, views bool, args ...string) (loadgen.Report, usage, error) {
	before, err := s.cpu()
	if err != nil {
		return loadgen.Report{}, usage{}, err
	}
	r, err := s.bench.load(ctx, gateway, args...)
	if err != nil {
		return r, usage{}, err
	}
	if _, err := gateway.caughtUp(ctx, views); err != nil {
		return r, usage{}, err
	}
	after, err := s.cpu()
	return r, after.minus(before), err
}

func (b *bench) seconds(n float64) string { return fmt.Sprintf("%ds", max(2, int(n*b.scale))) }

// benchApart ingests through a gateway and an archive that are processes of their own.
func benchApart(ctx context.Context, b *bench) (rows []row, err error) {
	for _, n := range []int{1, 3} {
		more, err := b.apart(ctx, n)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (b *bench) apart(ctx context.Context, natsServers int) (rows []row, err error) {
	s, err := b.startServers(ctx, fmt.Sprintf("apart-%d", natsServers), natsServers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	gateway, err := s.start(ctx, "gateway", "gateway", false)
	if err != nil {
		return nil, err
	}
	if _, err := s.start(ctx, "workers", "workers", false); err != nil {
		return nil, err
	}
	r, used, err := s.ingest(ctx, gateway, false, "--duration", b.seconds(ingestSeconds), "--processes", "64")
	if err != nil {
		return nil, err
	}
	perBlock := used.perBlock(r.AckedBlocks)
	perCore := func(d time.Duration) float64 { return float64(r.AckedEvents) / d.Seconds() / 1e6 }
	with := fmt.Sprintf("%d NATS servers", natsServers)
	rows = append(rows,
		atLeast("ingestion apart, "+with+": our processes and PostgreSQL", perCore(used.ours+used.postgres), "M events/s/core", 8).
			beside("upstream, another day, folder", 8.0).noting("%d blocks; a block: %v", r.AckedBlocks, perBlock),
		row{Name: "ingestion apart, " + with + ": NATS and S3 servers too", Figure: perCore(used.ours + used.postgres + used.nats + used.s3), Unit: "M events/s/core"},
		row{Name: "ingestion apart, " + with + ": wall, load and servers on the same cores", Figure: r.EventsPerSecond() / 1e6, Unit: "M events/s"}.
			noting("ack p50 %v, p99 %v, 32 in flight", r.P50.Round(time.Millisecond/10), r.P99.Round(time.Millisecond/10)),
		atMost("catalog a block, "+with, float64(perBlock.postgres.Nanoseconds())/1e3, "µs of PostgreSQL's CPU", 30))
	steady, err := b.load(ctx, gateway, "--duration", b.seconds(steadySeconds), "--rate", fmt.Sprint(steadyRate), "--processes", "16")
	if err != nil {
		return rows, err
	}
	return append(rows, row{Name: "ack p50 at 50 k events/s, " + with, Figure: ms(steady.P50), Unit: "ms"}.noting("p99 %v", steady.P99.Round(time.Millisecond/10))), nil
}

// benchShards ingests into more and more shards.
func benchShards(ctx context.Context, b *bench) (rows []row, err error) {
	for _, n := range []int{1, 2, 4} {
		r, err := b.shards(ctx, n)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) shards(ctx context.Context, n int) (r row, err error) {
	s, err := b.startServers(ctx, fmt.Sprintf("shards-%d", n), 1, "--bus-shards", fmt.Sprint(n))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	gateway, err := s.start(ctx, "gateway", "gateway", false)
	if err != nil {
		return r, err
	}
	if _, err := s.start(ctx, "workers", "workers", false); err != nil {
		return r, err
	}
	report, used, err := s.ingest(ctx, gateway, false, "--duration", b.seconds(ingestSeconds/2), "--processes", "64")
	if err != nil {
		return r, err
	}
	total := used.ours + used.postgres + used.nats + used.s3
	return row{Name: fmt.Sprintf("ingestion, %d shards a class: all CPU a block", n), Figure: float64((total / time.Duration(report.AckedBlocks)).Nanoseconds()) / 1e3, Unit: "µs"}.
		noting("a block: %v; %.1f M events/s wall, ack p50 %v", used.perBlock(report.AckedBlocks), report.EventsPerSecond()/1e6, report.P50.Round(time.Millisecond/10)), nil
}

// benchBuilders builds the same blocks with more and more processes.
func benchBuilders(ctx context.Context, b *bench) (rows []row, err error) {
	for _, n := range []int{1, 2, 3} {
		r, err := b.builders(ctx, n)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) builders(ctx context.Context, n int) (r row, err error) {
	s, err := b.startServers(ctx, fmt.Sprintf("builders-%d", n), 1)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	both, err := s.start(ctx, "both", "gateway,workers", false)
	if err != nil {
		return r, err
	}
	report, _, err := s.ingest(ctx, both, false, "--duration", "0s", "--blocks", fmt.Sprint(int(viewBlocks*b.scale)), "--processes", "32", "--mix", "log,metrics")
	if err != nil {
		return r, err
	}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	begun := time.Now()
	for i := range n {
		if _, err := s.start(ctx, fmt.Sprintf("builder-%d", i), "materializers", false); err != nil {
			return r, err
		}
	}
	if _, err := both.caughtUp(ctx, true); err != nil {
		return r, err
	}
	took := time.Since(begun)
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	used := after.minus(before)
	return row{Name: fmt.Sprintf("blocks → committed Parquet in S3, %d materializers", n), Figure: float64(report.AckedEvents) / (used.ours + used.postgres).Seconds() / 1e6, Unit: "M rows/s/core"}.
		noting("%d rows in %.1f s wall, their start included; %v", report.AckedEvents, took.Seconds(), used), nil
}

// benchAcks posts and asks at once while load flows.
func benchAcks(ctx context.Context, b *bench) (rows []row, err error) {
	s, err := b.startServers(ctx, "acks", 3)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	gateway, err := s.start(ctx, "gateway", "gateway", false)
	if err != nil {
		return nil, err
	}
	for i := range 3 {
		if _, err := s.start(ctx, fmt.Sprintf("materializers-%d", i), "materializers", false); err != nil {
			return nil, err
		}
	}
	if _, err := s.start(ctx, "workers", "workers", false); err != nil {
		return nil, err
	}
	query, err := s.start(ctx, "query", "query", false)
	if err != nil {
		return nil, err
	}
	beside, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() {
		_, err := b.load(beside, gateway, "--duration", "0s", "--rate", fmt.Sprint(steadyRate), "--processes", "16")
		loaded <- err
	}()
	defer func() {
		stop()
		if e := <-loaded; e != nil && ctx.Err() == nil && !errors.Is(beside.Err(), context.Canceled) {
			err = errors.Join(err, e)
		}
	}()
	if err := wait(ctx, settleTime); err != nil {
		return rows, err
	}
	all, err := b.visible(ctx, &child{http: gateway.http, flight: query.flight})
	if err != nil {
		return rows, err
	}
	var peaks []int64 // of the processes, as they were started
	for _, c := range s.all {
		_, peak, err := c.memory()
		if err != nil {
			return rows, err
		}
		peaks = append(peaks, peak>>20)
	}
	return append(rows,
		atMost("ack → rows visible, 3 materializers, NATS × 3, PostgreSQL, S3, p50", ms(percentile(all, 50)), "ms", 300),
		atMost("ack → rows visible, the same, p99", ms(percentile(all, 99)), "ms", 2000).
			noting("peak RSS of gateway, 3 materializers, workers, query: %d MiB", peaks)), nil
}

// The cold query reads as many files, one an hour, over a way with this latency.
const (
	coldPartitions = 100
	coldLatency    = 20 * time.Millisecond
	coldRuns       = 5
)

// benchCold compares a query whose files are in the bucket with the same one when they are in the cache.
func benchCold(ctx context.Context, b *bench) (rows []row, err error) {
	s, err := b.startServers(ctx, "cold", 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	writer, err := s.start(ctx, "writer", "gateway,workers,materializers", false)
	if err != nil {
		return nil, err
	}
	hour := time.Now().Truncate(time.Hour)
	for i := range coldPartitions {
		load, err := loadgen.New(loadgen.Config{Mix: []telemetry.Tag{telemetry.TagLog}, Start: hour.Add(-time.Duration(i) * time.Hour).UnixNano()})
		if err != nil {
			return nil, err
		}
		block, err := load.Next(nil)
		if err != nil {
			return nil, err
		}
		for _, r := range append(load.Registrations(0), block) {
			if err := writer.post(ctx, r); err != nil {
				return nil, err
			}
		}
	}
	state, err := writer.caughtUp(ctx, true)
	if err != nil {
		return nil, err
	}
	s.way.Set(parts.Faults{Latency: coldLatency}, 1)
	const sql = "SELECT level, count(*), max(msg), min(target) FROM log_entries GROUP BY level"
	var cold, warm []time.Duration
	for i := range coldRuns {
		query, err := s.start(ctx, fmt.Sprintf("query-%d", i), "query", true) // its cache is empty
		if err != nil {
			return nil, err
		}
		first, err := timed(ctx, query, "SELECT 1", sql, sql, sql)
		if err != nil {
			return nil, err
		}
		cold, warm = append(cold, first[1]), append(warm, first[2], first[3])
		if err := query.stop(); err != nil {
			return nil, err
		}
	}
	c, w := percentile(cold, 50), percentile(warm, 50)
	return append(rows,
		atMost("cold query over 100 partitions 20 ms away: more than warm", (c-w).Seconds(), "s", 0.5).
			noting("cold %v, warm %v; %d partitions of two views, %.1f MB", c.Round(time.Millisecond), w.Round(time.Millisecond), state.Catalog.Partitions, float64(state.Catalog.PartitionBytes)/1e6)), nil
}

// timed runs statements one after the other over all of time on one connection.
func timed(ctx context.Context, c *child, statements ...string) ([]time.Duration, error) {
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var took []time.Duration
	for _, sql := range statements {
		begun := time.Now()
		if _, err := drain(ctx, cl, sql, client.QueryOptions{}); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// The large catalog.
const (
	largeBlocks       = 1_000_000
	largeBlocksCommit = 5_000
)

// benchLarge plans queries, and ingests, over a catalog that is large.
func benchLarge(ctx context.Context, b *bench) (rows []row, err error) {
	s, err := b.startServers(ctx, "large", 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	gateway, err := s.start(ctx, "gateway", "gateway", false)
	if err != nil {
		return nil, err
	}
	if _, err := s.start(ctx, "workers", "workers", false); err != nil {
		return nil, err
	}
	small, smallUsed, err := s.ingest(ctx, gateway, false, "--duration", b.seconds(ingestSeconds/2), "--processes", "64")
	if err != nil {
		return nil, err
	}
	db, err := s.openCatalog(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	blocks := int(largeBlocks * b.scale)
	begun := time.Now()
	if err := seedBlocks(ctx, db, blocks, 1000, 1); err != nil {
		return nil, fmt.Errorf("make blocks: %w", err)
	}
	b.say("%d block rows made in %v", blocks, time.Since(begun).Round(time.Second))
	rowBytes, err := s.pg.Ask(ctx, "micromegas", "SELECT (sum(pg_total_relation_size(inhrelid)) / (SELECT count(*) FROM blocks))::bigint FROM pg_inherits WHERE inhparent = 'blocks'::regclass")
	if err != nil {
		return nil, err
	}
	first := time.Now().Add(-prunePartitions * time.Minute).Truncate(time.Minute)
	if err := fillPartitions(ctx, db, first); err != nil {
		return nil, fmt.Errorf("make partitions: %w", err)
	}
	large, largeUsed, err := s.ingest(ctx, gateway, false, "--duration", b.seconds(ingestSeconds/2), "--processes", "64")
	if err != nil {
		return nil, err
	}
	if _, err := s.start(ctx, "views", "materializers", false); err != nil {
		return nil, err
	}
	if _, err := gateway.caughtUp(ctx, true); err != nil {
		return nil, err
	}
	query, err := s.start(ctx, "query", "query", false)
	if err != nil {
		return nil, err
	}
	plan, err := b.pruneToNone(ctx, query, first)
	if err != nil {
		return nil, err
	}
	listed, err := timed(ctx, query, "SELECT count(*) FROM blocks", "SELECT count(*) FROM blocks")
	if err != nil {
		return nil, err
	}
	us := func(r loadgen.Report, u usage) float64 {
		return float64((u.ours + u.postgres).Microseconds()) / float64(r.AckedBlocks)
	}
	return append(rows,
		atMost("100 k partitions and 1 M blocks in PostgreSQL: whole query pruned to none, p50", ms(plan), "ms", 20),
		row{Name: "ingestion beside them, our processes and PostgreSQL", Figure: us(large, largeUsed), Unit: "µs a block"}.
			beside("the same while empty", us(small, smallUsed)).noting("PostgreSQL alone: %v, while empty %v", largeUsed.perBlock(large.AckedBlocks).postgres, smallUsed.perBlock(small.AckedBlocks).postgres),
		row{Name: "a block row in PostgreSQL, indexes included", Figure: float64(rowBytes), Unit: "B"},
		row{Name: "SELECT count(*) FROM blocks over them, again", Figure: ms(listed[1]), Unit: "ms"}.noting("the first after the start of a query process, which reads all rows: %v", listed[0].Round(time.Millisecond))), nil
}

func (s *servers) openCatalog(ctx context.Context) (catalog.Catalog, error) {
	return postgres.Open(ctx, s.pg.URL("micromegas"), slog.New(slog.DiscardHandler))
}

// seedShard is a shard that no process of the bench owns.
var seedShard = catalog.ShardID{Class: 'r', Shard: 200}

// seedBlocks archives blocks of made-up processes, a stream each, in commits as an archive makes them. Their bodies do not exist.
func seedBlocks(ctx context.Context, db catalog.Catalog, blocks, processes int, seed uint64) error {
	at, err := db.Checkpoint(ctx, catalog.ConsumerArchive, seedShard)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	ids := make([][2]telemetry.ID, processes)
	for i := range ids {
		ids[i] = [2]telemetry.ID{telemetry.NewID(), telemetry.NewID()}
	}
	now := time.Now().UnixNano()
	for done := 0; done < blocks; {
		n := min(largeBlocksCommit, blocks-done)
		c := &catalog.ArchiveCommit{
			Shard: seedShard, From: at.Seq, To: at.Seq + 1, Epoch: 1,
			Pack: &catalog.Pack{Shard: seedShard, FirstSeq: at.Seq + 1, LastSeq: at.Seq + 1, Key: fmt.Sprintf("packs/r/0/200/00000000/%020d-seed.pack", at.Seq+1), Size: int64(n) * 34_000, Created: now},
		}
		for i := range n {
			p := ids[rng.IntN(processes)]
			begin := now - rng.Int64N(int64(48*time.Hour))
			c.Blocks = append(c.Blocks, catalog.BlockReg{
				Block: telemetry.Block{
					ID: telemetry.NewID(), StreamID: p[1], ProcessID: p[0], BeginTime: begin, EndTime: begin + int64(200*time.Millisecond), NbObjects: 3840,
				},
				InsertTime: now, PackOffset: int64(i) * 34_000, PackLength: 34_000, PayloadSize: 33_000,
			})
		}
		if err := db.CommitArchive(ctx, c); err != nil {
			return err
		}
		at.Seq++
		done += n
	}
	return nil
}

// fleets are how many processes are registered, one step after the other.
var fleets = []int{10_000, 100_000, 1_000_000}

// benchFleet registers more and more processes, each with three streams, and measures what a catalog of them costs others.
func benchFleet(ctx context.Context, b *bench) (rows []row, err error) {
	s, err := b.startServers(ctx, "fleet", 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	gateway, err := s.start(ctx, "gateway", "gateway", false)
	if err != nil {
		return nil, err
	}
	if _, err := s.start(ctx, "workers", "workers,materializers", false); err != nil {
		return nil, err
	}
	query, err := s.start(ctx, "query", "query", false)
	if err != nil {
		return nil, err
	}
	db, err := s.openCatalog(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	registered := 0
	for _, n := range fleets {
		n = int(float64(n) * b.scale)
		begun := time.Now()
		if err := seedProcesses(ctx, db, n-registered); err != nil {
			return rows, fmt.Errorf("register %d processes: %w", n-registered, err)
		}
		perProcess := time.Since(begun) / time.Duration(max(n-registered, 1))
		registered = n
		r, err := s.fleetRow(ctx, gateway, query, n)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r.noting("%s; a registration with 3 streams took %v in commits of %d", r.Note, perProcess, seedProcessesCommit))
	}
	return rows, nil
}

func (s *servers) fleetRow(ctx context.Context, gateway, query *child, n int) (row, error) {
	const count = "SELECT count(*) FROM processes"
	first, err := timed(ctx, query, count)
	if err != nil {
		return row{}, err
	}
	report, used, err := s.ingest(ctx, gateway, true, "--duration", s.bench.seconds(6), "--processes", "64")
	if err != nil {
		return row{}, err
	}
	// An ingestion has moved the archive: the next statement sees new rows of processes.
	took, err := timed(ctx, query, count, count)
	if err != nil {
		return row{}, err
	}
	memory := func(c *child) int64 {
		now, _, err := c.memory()
		if err != nil {
			return 0
		}
		return now >> 20
	}
	return row{Name: fmt.Sprintf("%d processes registered: ingestion and views", n), Figure: float64((used.ours + used.postgres).Microseconds()) / float64(report.AckedBlocks), Unit: "µs a block"}.
		noting("SELECT count(*) FROM processes %v when all were registered a moment ago, %v when some have sent since, %v again; RSS gateway %d MiB, query %d MiB", first[0].Round(time.Millisecond), took[0].Round(time.Millisecond), took[1].Round(time.Millisecond), memory(gateway), memory(query)), nil
}

const seedProcessesCommit = 2_000

// seedProcesses registers made-up processes with a stream of each family.
func seedProcesses(ctx context.Context, db catalog.Catalog, n int) error {
	at, err := db.Checkpoint(ctx, catalog.ConsumerArchive, seedShard)
	if err != nil {
		return err
	}
	load, err := loadgen.New(loadgen.Config{})
	if err != nil {
		return err
	}
	template, err := registrations(load)
	if err != nil {
		return err
	}
	for done := 0; done < n; done += seedProcessesCommit {
		c := &catalog.ArchiveCommit{Shard: seedShard, From: at.Seq, To: at.Seq + 1, Epoch: 1}
		for range min(seedProcessesCommit, n-done) {
			p := template.process
			p.ID = telemetry.NewID()
			c.Processes = append(c.Processes, p)
			for _, r := range template.streams {
				r.ID, r.ProcessID = telemetry.NewID(), p.ID
				c.Streams = append(c.Streams, r)
			}
		}
		if err := db.CommitArchive(ctx, c); err != nil {
			return err
		}
		at.Seq++
	}
	return nil
}

// registered is a process with its streams, to be registered under other ids.
type registered struct {
	process catalog.ProcessReg
	streams []catalog.StreamReg
}

// registrations reads back what a load registers.
func registrations(load *loadgen.Load) (r registered, err error) {
	now := time.Now().UnixNano()
	for _, req := range load.Registrations(0) {
		if req.Path == loadgen.ProcessPath {
			p, err := wire.DecodeProcess(req.Body)
			if err != nil {
				return r, err
			}
			r.process = catalog.ProcessReg{Process: p, InsertTime: now}
			continue
		}
		s, err := wire.DecodeStream(req.Body)
		if err != nil {
			return r, err
		}
		r.streams = append(r.streams, catalog.StreamReg{
			Stream: s, InsertTime: now,
			DependenciesCBOR: wire.AppendTypes(nil, s.Dependencies), ObjectsCBOR: wire.AppendTypes(nil, s.Objects),
		})
	}
	return r, nil
}
