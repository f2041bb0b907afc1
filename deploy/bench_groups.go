package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// decodeTime is how long each family of blocks is decoded; the best of decodeRuns counts.
const (
	decodeTime = time.Second
	decodeRuns = 3
)

func benchDecode(_ context.Context, b *bench) ([]row, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var rows []row
	for _, tag := range []telemetry.Tag{telemetry.TagLog, telemetry.TagMetrics} {
		perSecond, perBlock, err := decodeRate(tag)
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{Name: "decode " + tag.String() + " blocks", Figure: perSecond / 1e6, Unit: "M rows/s/core"}.noting("LZ4 included, %.0f rows a block", perBlock))
	}
	return rows, nil
}

func decodeRate(tag telemetry.Tag) (perSecond, perBlock float64, err error) {
	load, err := loadgen.New(loadgen.Config{Mix: []telemetry.Tag{tag}})
	if err != nil {
		return 0, 0, err
	}
	var process telemetry.Process
	var decoder *wire.Decoder
	for _, r := range load.Registrations(0) {
		switch r.Path {
		case loadgen.ProcessPath:
			if process, err = wire.DecodeProcess(r.Body); err != nil {
				return 0, 0, err
			}
		case loadgen.StreamPath:
			s, err := wire.DecodeStream(r.Body)
			if err != nil {
				return 0, 0, err
			}
			if telemetry.TagOf(s.Tags) != tag {
				continue
			}
			if decoder, err = wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits); err != nil {
				return 0, 0, err
			}
		}
	}
	r, err := load.Next(nil)
	if err != nil {
		return 0, 0, err
	}
	body, err := wire.DecodeBlock(r.Body)
	if err != nil {
		return 0, 0, err
	}
	clock, err := telemetry.NewClock(process, body.Block)
	if err != nil {
		return 0, 0, err
	}
	decode := func() (wire.Counts, error) {
		if tag == telemetry.TagLog {
			return decoder.Logs(&body, func(*telemetry.LogEntry) error { return nil })
		}
		return decoder.Measures(&body, clock, func(*telemetry.Measure) error { return nil })
	}
	for range decodeRuns {
		n, begin := 0, time.Now()
		for time.Since(begin) < decodeTime {
			c, err := decode()
			if err != nil {
				return 0, 0, err
			}
			n += c.Rows
		}
		perSecond = max(perSecond, float64(n)/time.Since(begin).Seconds())
	}
	return perSecond, float64(body.NbObjects), nil
}

// The idle server is looked at for idleTime after settleTime.
const (
	settleTime   = 3 * time.Second
	idleTime     = 10 * time.Second
	selectOneRun = 300
)

func benchIdle(ctx context.Context, b *bench) (rows []row, err error) {
	c, err := b.startChild(ctx, "idle", "all")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	rows = append(rows, atMost("ready after start, empty folder", c.ready.Seconds(), "s", 1))
	if err := wait(ctx, settleTime); err != nil {
		return rows, err
	}
	before, err := c.cpu()
	if err != nil {
		return rows, err
	}
	if err := wait(ctx, idleTime); err != nil {
		return rows, err
	}
	after, err := c.cpu()
	if err != nil {
		return rows, err
	}
	memory, _, err := c.memory()
	if err != nil {
		return rows, err
	}
	rows = append(rows,
		atMost("idle CPU", float64(after-before)/float64(idleTime)*100, "% of a core", 0.5),
		atMost("idle memory (RSS)", float64(memory)/(1<<20), "MiB", 150))
	p50, err := b.selectOne(ctx, c)
	if err != nil {
		return rows, err
	}
	rows = append(rows, atMost("SELECT 1, warm, p50 (Go client)", ms(p50), "ms", 4).beside("upstream, another day, Python", 4.4))
	if b.python != "" {
		var answer struct{ P50 float64 }
		if err := b.runPython(ctx, &answer, "select-one", c.flight); err != nil {
			return rows, err
		}
		rows = append(rows, atMost("SELECT 1, warm, p50 (Python client)", answer.P50, "ms", 4).beside("upstream, another day", 4.4))
	}
	return rows, nil
}

func (b *bench) selectOne(ctx context.Context, c *child) (time.Duration, error) {
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	var all []time.Duration
	for range selectOneRun {
		begin := time.Now()
		if _, err := drain(ctx, cl, "SELECT 1", client.QueryOptions{}); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begin))
	}
	return percentile(all, 50), nil
}

// drain runs a statement and counts its rows.
func drain(ctx context.Context, c *client.Client, sql string, opts client.QueryOptions) (n int64, err error) {
	rows, err := c.Query(ctx, sql, opts)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			if w := rows.Warnings(); len(w) > 0 {
				return n, fmt.Errorf("warned: %s", strings.Join(w, "; "))
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += batch.NumRows()
		batch.Release()
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// The ingestion's load: as fast as 32 requests in flight go, then at a steady rate.
const (
	ingestSeconds  = 12
	steadySeconds  = 10
	steadyRate     = 50_000
	fdatasyncBytes = 34_000 // of a block
)

func benchIngest(ctx context.Context, b *bench) (rows []row, err error) {
	c, err := b.startChild(ctx, "ingest", "gateway,workers")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	disk, err := b.fdatasyncs(fdatasyncBytes, time.Second)
	if err != nil {
		return rows, err
	}
	before, err := c.cpu()
	if err != nil {
		return rows, err
	}
	r, err := b.load(ctx, c, "--duration", fmt.Sprintf("%ds", max(2, int(ingestSeconds*b.scale))), "--processes", "64")
	if err != nil {
		return rows, err
	}
	if _, err := c.caughtUp(ctx, false); err != nil {
		return rows, err
	}
	after, err := c.cpu()
	if err != nil {
		return rows, err
	}
	cpu := after - before
	rows = append(rows,
		atLeast("ingestion: gateway + synced bus + archive + catalog", float64(r.AckedEvents)/cpu.Seconds()/1e6, "M events/s/core", 12).
			beside("upstream, another day, unsynced", 8.0).noting("%d blocks, %.0f µs of CPU a block", r.AckedBlocks, float64(cpu.Microseconds())/float64(r.AckedBlocks)),
		row{Name: "ingestion, wall, load on the same cores", Figure: r.EventsPerSecond() / 1e6, Unit: "M events/s"}.beside("upstream, another day", 7.8),
		atMost("ack p50, 32 in flight", ms(r.P50), "ms", 2.5*ms(disk)+2).beside("fdatasync p50", ms(disk)).noting("aim 10; upstream, another day, unsynced: 12.5"),
		atMost("ack p99, 32 in flight", ms(r.P99), "ms", 10*(2.5*ms(disk)+2)).noting("aim 40; upstream, another day, unsynced: 39"))
	steady, err := b.load(ctx, c, "--duration", fmt.Sprintf("%ds", steadySeconds), "--rate", fmt.Sprint(steadyRate), "--processes", "16")
	if err != nil {
		return rows, err
	}
	rows = append(rows,
		atMost("ack p50 at 50 k events/s", ms(steady.P50), "ms", 2.5*ms(disk)+2).beside("fdatasync p50", ms(disk)).noting("aim 3; upstream, another day: 3.4"),
		atMost("ack p99 at 50 k events/s", ms(steady.P99), "ms", 10*(2.5*ms(disk)+2)).noting("aim 25; upstream, another day: 28"))
	held, err := b.folderBytes(filepath.Join("ingest", "bus"))
	if err != nil {
		return rows, err
	}
	if err := c.kill(); err != nil {
		return rows, err
	}
	if c, err = b.startChild(ctx, "ingest", "gateway,workers"); err != nil {
		return rows, err
	}
	return append(rows, atMost("ready after kill -9", c.ready.Seconds(), "s", 5).noting("%d MiB on the bus", held>>20)), nil
}

// viewBlocks is how many blocks of one family are built into Parquet.
const viewBlocks = 2400

func benchViews(ctx context.Context, b *bench) (rows []row, err error) {
	for _, f := range []struct {
		family string
		mark   float64
		peer   float64
	}{{"log", 1.0, 0.8}, {"metrics", 1.5, 1.08}} {
		rate, note, err := b.buildRate(ctx, f.family)
		if err != nil {
			return rows, err
		}
		rows = append(rows, atLeast(f.family+" blocks → committed Parquet", rate, "M rows/s/core", f.mark).beside("upstream, another day", f.peer).noting("%s", note))
	}
	return rows, nil
}

// buildRate archives blocks of one family without building views, then measures a server that builds them.
func (b *bench) buildRate(ctx context.Context, family string) (rate float64, note string, err error) {
	folder := "views-" + family
	c, err := b.startChild(ctx, folder, "gateway,workers")
	if err != nil {
		return 0, "", err
	}
	r, err := b.load(ctx, c, "--duration", "0s", "--blocks", fmt.Sprint(int(viewBlocks*b.scale)), "--processes", "32", "--mix", family)
	if err == nil {
		_, err = c.caughtUp(ctx, false)
	}
	if err = errors.Join(err, c.stop()); err != nil {
		return 0, "", err
	}
	if c, err = b.startChild(ctx, folder, "workers,materializers"); err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	begin := time.Now()
	s, err := c.caughtUp(ctx, true)
	if err != nil {
		return 0, "", err
	}
	cpu, err := c.cpu() // its start included
	if err != nil {
		return 0, "", err
	}
	note = fmt.Sprintf("%d rows in %.1f s; %d files, %.1f B/row, merges so far and start of the process included",
		r.AckedEvents, time.Since(begin).Seconds(), s.Catalog.Partitions, float64(s.Catalog.PartitionBytes)/float64(r.AckedEvents))
	return float64(r.AckedEvents) / cpu.Seconds() / 1e6, note, nil
}

// freshRuns is how many blocks are posted and queried at once.
const freshRuns = 200

func benchFresh(ctx context.Context, b *bench) (rows []row, err error) {
	c, err := b.startChild(ctx, "fresh", "all")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	beside, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() {
		_, err := b.load(beside, c, "--duration", "0s", "--rate", fmt.Sprint(steadyRate), "--processes", "16")
		loaded <- err
	}()
	defer func() {
		stop()
		if e := <-loaded; e != nil && beside.Err() == nil {
			err = errors.Join(err, e)
		}
	}()
	if err := wait(ctx, settleTime); err != nil {
		return rows, err
	}
	all, err := b.visible(ctx, c)
	if err != nil {
		return rows, err
	}
	return append(rows,
		atMost("ack → rows visible at 50 k events/s, p50", ms(percentile(all, 50)), "ms", 300).beside("upstream, another day, idle", 2000),
		atMost("ack → rows visible at 50 k events/s, p99", ms(percentile(all, 99)), "ms", 2000)), nil
}

// visible posts blocks of a process of its own and measures, from each ack, until a query returns all its rows.
func (b *bench) visible(ctx context.Context, c *child) ([]time.Duration, error) {
	load, err := loadgen.New(loadgen.Config{Mix: []telemetry.Tag{telemetry.TagLog}, Start: time.Now().UnixNano()})
	if err != nil {
		return nil, err
	}
	cl, err := client.Dial(c.flight, client.Options{})
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for _, r := range load.Registrations(0) {
		if err := c.post(ctx, r); err != nil {
			return nil, err
		}
	}
	var all []time.Duration
	for range freshRuns {
		r, err := load.Next(nil)
		if err != nil {
			return nil, err
		}
		if err := c.post(ctx, r); err != nil {
			return nil, err
		}
		begin := time.Now()
		opts := client.QueryOptions{Begin: time.Unix(0, r.Block.BeginTime).Add(-time.Minute), End: time.Unix(0, r.Block.EndTime).Add(time.Minute)}
		for {
			n, err := drain(ctx, cl, "SELECT time FROM log_entries WHERE block_id = '"+r.Block.ID.String()+"'", opts)
			if err != nil {
				return nil, err
			}
			if n == int64(r.Block.NbObjects) {
				break
			}
		}
		all = append(all, time.Since(begin))
	}
	return all, nil
}

func (c *child) post(ctx context.Context, r loadgen.Request) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.http+r.Path, strings.NewReader(string(r.Body)))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("post %s: status %d", r.Path, resp.StatusCode)
	}
	return nil
}
