package materializers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/logs"
	"github.com/micromegas-go/micromegas/materializers/measures"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// env is a house with real parts: bus, catalog, lake and archive.
type env struct {
	t    testing.TB
	bus  *bus.Bus
	nats *bustest.Env
	cat  *sqlite.DB
	lake *lake.Lake
	log  *slog.Logger
}

func newEnv(t testing.TB, change ...func(*bus.Config)) *env {
	t.Helper()
	e := &env{t: t, log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		e.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx := t.Context()
	dir := t.TempDir()
	var err error
	if e.cat, err = sqlite.Open(ctx, filepath.Join(dir, "catalog.db"), e.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.cat.Close() })
	uri, err := lake.FolderURI(filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	if e.lake, err = lake.Open(ctx, uri, lake.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.lake.Close() })
	e.nats = bustest.NewEnv(t)
	busCfg := bus.DefaultConfig()
	for _, f := range change {
		f(&busCfg)
	}
	if e.bus, err = bus.Open(ctx, e.nats.Connect(t), archive.Generations{Catalog: e.cat}, e.lake, busCfg, e.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.bus.Close() })
	return e
}

// background runs something until stop, which waits for its end.
func (e *env) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			e.t.Errorf("background work: %v", err)
		}
	}
	e.t.Cleanup(stop)
	return stop
}

func (e *env) startArchive() (stop func()) {
	a, err := archive.New(archive.DefaultConfig(), e.bus, e.cat, e.lake, "archive", e.log)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.background(a.Run)
}

func config() materializers.Config {
	c := materializers.DefaultConfig()
	c.FlushPause = time.Millisecond
	c.Recheck = 50 * time.Millisecond
	c.MergeEvery = 20 * time.Millisecond
	c.BacklogLag = 1000 * time.Hour // insert times of tests are old; tests of the backlog say otherwise
	c.BacklogEvery = 20 * time.Millisecond
	return c
}

func views() []materializers.View { return []materializers.View{logs.View(), measures.View()} }

func (e *env) newMaterializers(owner string, cfg materializers.Config) *materializers.Materializers {
	m, err := materializers.New(cfg, e.bus, e.cat, e.lake, owner, views(), e.log)
	if err != nil {
		e.t.Fatal(err)
	}
	o := ownership.DefaultConfig()
	o.RetryMin = 5 * time.Millisecond
	m.SetOwnership(o)
	return m
}

func (e *env) startViews(cfg materializers.Config) (stop func()) {
	return e.background(e.newMaterializers("views", cfg).Run)
}

// post publishes a client's body as the gateway does.
func (e *env) post(kind bus.Kind, tag telemetry.Tag, body []byte, insertTime int64) {
	e.t.Helper()
	r := bus.Record{Kind: kind, Tag: tag, Body: body, InsertTimeUs: insertTime / 1000}
	switch kind {
	case bus.KindProcess:
		p, err := wire.DecodeProcess(body)
		if err != nil {
			e.t.Fatal(err)
		}
		r.ProcessID = p.ID
	case bus.KindStream:
		s, err := wire.DecodeStream(body)
		if err != nil {
			e.t.Fatal(err)
		}
		r.ProcessID, r.StreamID = s.ProcessID, s.ID
	case bus.KindBlock:
		b, _, err := wire.DecodeBlockEnvelope(body)
		if err != nil {
			e.t.Fatal(err)
		}
		r.ProcessID, r.StreamID, r.BlockID, r.BeginTime, r.EndTime = b.ProcessID, b.StreamID, b.ID, b.BeginTime, b.EndTime
	}
	if err := e.bus.Publish(e.t.Context(), bus.Eager, &r); err != nil {
		e.t.Fatal(err)
	}
}

// flush waits until everything posted is in the views, and returns the answer; of several shards, what they have together.
func (e *env) flush() bus.FlushReply {
	e.t.Helper()
	var all bus.FlushReply
	for _, shard := range e.bus.Shards() {
		if shard.Class != bus.Eager {
			continue
		}
		reply := e.ask(shard, bus.FlushRequest{})
		all.CommitNo, all.Parked, all.Backlog = max(all.CommitNo, reply.CommitNo), all.Parked+reply.Parked, all.Backlog || reply.Backlog
	}
	return all
}

// ask puts one flush request to the views of a shard until it is answered.
func (e *env) ask(shard bus.Shard, req bus.FlushRequest) bus.FlushReply {
	e.t.Helper()
	req.Target = bus.TargetViews
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(e.t.Context(), 5*time.Second)
		reply, err := e.bus.Flush(ctx, shard, req)
		cancel()
		if err == nil && reply.Err == "" {
			return reply
		}
		busy := err == nil || errors.Is(err, bus.ErrNoOwner) || errors.Is(err, bus.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
		if !busy || time.Now().After(deadline) {
			e.t.Fatalf("flush: %v %s", err, reply.Err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// eventually polls until ok.
func (e *env) eventually(what string, ok func() bool) {
	e.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			e.t.Fatalf("%s did not happen in time", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (e *env) partitions() []catalog.Partition {
	e.t.Helper()
	delta, err := e.cat.Partitions(e.t.Context(), 0)
	if err != nil {
		e.t.Fatal(err)
	}
	return delta.Added
}

// rows returns all rows of a view as sorted lines, and checks each partition's row against its file.
func (e *env) rows(view string, columns ...string) []string {
	e.t.Helper()
	table := tables.Must(view)
	var lines []string
	for _, p := range e.partitions() {
		if p.View != view {
			continue
		}
		data, err := e.lake.Get(e.t.Context(), p.Key)
		if err != nil {
			e.t.Fatal(err)
		}
		f, err := columnar.OpenFile(table, data)
		if err != nil {
			e.t.Fatal(err)
		}
		rows := columnar.NewRows(table)
		for g := range f.RowGroups() {
			if err := f.ReadRowGroup(g, rows); err != nil {
				e.t.Fatal(err)
			}
		}
		e.checkPartition(p, rows, len(data))
		lines = append(lines, text(rows, columns)...)
	}
	slices.Sort(lines)
	return lines
}

func (e *env) checkPartition(p catalog.Partition, rows *columnar.Rows, size int) {
	e.t.Helper()
	times := rows.Columns[rows.Table.Index(rows.Table.Range.Begin)].Ints
	if p.Rows != int64(rows.Len()) || p.Size != int64(size) || p.MinTime != slices.Min(times) || p.MaxTime != slices.Max(times) {
		e.t.Errorf("partition %+v does not describe its file of %d rows", p, rows.Len())
	}
	if p.Bucket != materializers.OverflowBucket && (p.MinTime < p.Bucket || p.MaxTime >= p.Bucket+int64(materializers.BucketLength)) {
		e.t.Errorf("partition of bucket %d has times %d to %d", p.Bucket, p.MinTime, p.MaxTime)
	}
	for row := range rows.Len() {
		id, err := telemetry.ParseID(rows.Text(rows.Table.Index("process_id"), row))
		if bit := catalog.ProcessBit(id); err != nil || p.Procs[bit/8]>>(bit%8)&1 == 0 {
			e.t.Fatalf("process %s is not in the bitmap", id)
		}
	}
}

// text renders columns of rows, a line each; all columns when none are named.
func text(rows *columnar.Rows, columns []string) []string {
	if len(columns) == 0 {
		columns = rows.Table.ColumnNames()
	}
	lines := make([]string, rows.Len())
	for row := range lines {
		var b strings.Builder
		for _, name := range columns {
			i := rows.Table.Index(name)
			switch c := &rows.Columns[i]; c.Kind {
			case columnar.Text:
				fmt.Fprintf(&b, "%q ", rows.Text(i, row))
			case columnar.Int:
				fmt.Fprintf(&b, "%d ", c.Ints[row])
			default:
				fmt.Fprintf(&b, "%x ", bits(c.Floats[row]))
			}
		}
		lines[row] = strings.TrimSpace(b.String())
	}
	return lines
}

// bits returns the bits of a float; all NaNs are one.
func bits(f float64) uint64 {
	if math.IsNaN(f) {
		f = math.NaN()
	}
	return math.Float64bits(f)
}

// maker makes registrations and blocks of one process.
type maker struct {
	process      telemetry.Process
	logs, values telemetry.Stream
	blocks       int
}

// start is the time of the first events of tests: inside a bucket, with the bucket's end an hour ago.
var start = time.Now().Add(-2 * time.Hour).Truncate(materializers.BucketLength).Add(time.Minute).UnixNano()

func newMaker(n int) *maker {
	p := telemetry.Process{
		ID: telemetry.NewID(), Exe: fmt.Sprint("exe", n), Username: "user", Computer: "pc", TSCFrequency: 1e9,
		StartTime: start, Properties: []telemetry.Property{{Key: "n", Value: fmt.Sprint(n)}},
	}
	m := &maker{process: p}
	m.logs = telemetry.Stream{ID: telemetry.NewID(), ProcessID: p.ID, Tags: []string{"log"}, Format: telemetry.FormatTransit}
	m.logs.Dependencies, m.logs.Objects = wire.LogTypes()
	m.values = telemetry.Stream{ID: telemetry.NewID(), ProcessID: p.ID, Tags: []string{"metrics"}, Format: telemetry.FormatTransit}
	m.values.Dependencies, m.values.Objects = wire.MetricsTypes()
	return m
}

func (m *maker) postProcess(e *env) {
	e.t.Helper()
	e.post(bus.KindProcess, telemetry.TagUnknown, wire.AppendProcess(nil, &m.process), start)
}

func (m *maker) postStreams(e *env) {
	e.t.Helper()
	e.post(bus.KindStream, telemetry.TagUnknown, wire.AppendStream(nil, &m.logs), start)
	e.post(bus.KindStream, telemetry.TagUnknown, wire.AppendStream(nil, &m.values), start)
}

// Ids of strings and records in the blocks below.
const (
	idTarget = 100 + iota
	idFormat
	idRecord
)

// logBlock makes a block of n entries that begin at offset after the start, a millisecond apart.
func (m *maker) logBlock(n int, offset time.Duration) []byte {
	m.blocks++
	var deps, objs []byte
	deps = wire.AppendStaticString(deps, wire.DepStaticString, idTarget, "target")
	deps = wire.AppendStaticString(deps, wire.DepStaticString, idFormat, fmt.Sprint("static ", m.blocks))
	deps = wire.AppendLogMetadata(deps, &wire.Metadata{ID: idRecord, Message: idFormat, Target: idTarget, Module: idTarget, File: idTarget, Level: 4})
	for i := range n {
		ticks := int64(offset) + int64(i)*int64(time.Millisecond)
		if i%2 == 0 {
			objs = wire.AppendLogStaticStr(objs, idRecord, ticks)
		} else {
			objs = wire.AppendLogString(objs, idRecord, ticks, fmt.Sprint(m.process.Exe, " block ", m.blocks, " entry ", i))
		}
	}
	return m.block(m.logs.ID, n, offset, deps, objs)
}

// valueBlock makes a block of n measures.
func (m *maker) valueBlock(n int, offset time.Duration) []byte {
	m.blocks++
	var deps, objs []byte
	deps = wire.AppendStaticString(deps, wire.DepStaticString, idTarget, "target")
	for k := range 3 {
		deps = wire.AppendStaticString(deps, wire.DepStaticString, idFormat+uint64(k)*10, fmt.Sprint("metric", k))
		deps = wire.AppendMetricMetadata(deps, &wire.Metadata{ID: idRecord + uint64(k)*10, Name: idFormat + uint64(k)*10, Unit: idTarget, Target: idTarget, File: idTarget, Level: 4})
	}
	for i := range n {
		objs = wire.AppendFloatMetric(objs, idRecord+uint64(i%3)*10, int64(offset)+int64(i)*int64(time.Millisecond), float64(m.blocks)+float64(i)/1000)
	}
	return m.block(m.values.ID, n, offset, deps, objs)
}

func (m *maker) block(stream telemetry.ID, n int, offset time.Duration, deps, objs []byte) []byte {
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: stream, ProcessID: m.process.ID,
		BeginTime: start + int64(offset), EndTime: start + int64(offset) + int64(n)*int64(time.Millisecond),
		BeginTicks: int64(offset), EndTicks: int64(offset) + int64(n)*int64(time.Millisecond), NbObjects: int32(n),
	}
	return wire.AppendBlock(nil, &b, wire.Compress(nil, deps), wire.Compress(nil, objs))
}

func (m *maker) postLog(e *env, body []byte) {
	e.t.Helper()
	e.post(bus.KindBlock, telemetry.TagLog, body, start+int64(time.Hour)+int64(m.blocks)*1000)
}

func (m *maker) postValues(e *env, body []byte) {
	e.t.Helper()
	e.post(bus.KindBlock, telemetry.TagMetrics, body, start+int64(time.Hour)+int64(m.blocks)*1000)
}
