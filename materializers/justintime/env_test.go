package justintime_test

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

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/materializers/netspans"
	"github.com/micromegas-go/micromegas/materializers/threadspans"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// env is a house with real parts: bus, catalog, lake and archive.
type env struct {
	t    testing.TB
	bus  *bus.Bus
	cat  *sqlite.DB
	lake *lake.Lake
	log  *slog.Logger

	process telemetry.Process
	stream  telemetry.Stream
}

// day is when the blocks of tests begin.
var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano()

func newEnv(t testing.TB) *env {
	t.Helper()
	e := &env{t: t, log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		e.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx := t.Context()
	dir := t.TempDir()
	var err error
	e.cat, err = sqlite.Open(ctx, filepath.Join(dir, "catalog.db"), e.log)
	e.check(err)
	t.Cleanup(func() { e.cat.Close() })
	uri, err := lake.FolderURI(filepath.Join(dir, "lake"))
	e.check(err)
	e.lake, err = lake.Open(ctx, uri, lake.Options{})
	e.check(err)
	t.Cleanup(func() { e.lake.Close() })
	nats := bustest.NewEnv(t)
	e.bus, err = bus.Open(ctx, nats.Connect(t), archive.Generations{Catalog: e.cat}, e.lake, bus.DefaultConfig(), e.log)
	e.check(err)
	t.Cleanup(func() { e.bus.Close() })
	a, err := archive.New(archive.DefaultConfig(), e.bus, e.cat, e.lake, "archive", e.log)
	e.check(err)
	e.background(a.Run)

	e.process = telemetry.Process{ID: telemetry.NewID(), Exe: "game", TSCFrequency: 1e9, StartTime: day}
	e.stream = telemetry.Stream{
		ID: telemetry.NewID(), ProcessID: e.process.ID, Tags: []string{"cpu"}, Format: telemetry.FormatTransit,
		Properties: []telemetry.Property{{Key: "thread-id", Value: "7"}, {Key: "thread-name", Value: "main"}},
	}
	e.stream.Dependencies, e.stream.Objects = wire.CPUTypes()
	e.register()
	return e
}

// register publishes the registrations.
func (e *env) register() {
	e.t.Helper()
	e.publish(bus.Eager, &bus.Record{Kind: bus.KindProcess, ProcessID: e.process.ID, Body: wire.AppendProcess(nil, &e.process)})
	e.publish(bus.Eager, &bus.Record{Kind: bus.KindStream, ProcessID: e.process.ID, StreamID: e.stream.ID, Body: wire.AppendStream(nil, &e.stream)})
}

func (e *env) check(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) publish(class bus.Class, r *bus.Record) {
	e.t.Helper()
	if r.InsertTimeUs == 0 {
		r.InsertTimeUs = day / 1000
	}
	e.check(e.bus.Publish(e.t.Context(), class, r))
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

// config has small slices, so that few blocks make many.
func config() justintime.Config {
	c := justintime.DefaultConfig()
	c.SliceObjects = 12
	c.Context = 3
	c.LeasePoll = 5 * time.Millisecond
	return c
}

func (e *env) service(owner string, cfg justintime.Config) *justintime.Service {
	e.t.Helper()
	s, err := justintime.New(cfg, justintime.Parts{
		Bus: e.bus, Catalog: e.cat, Blocks: locate.New(e.cat, e.lake), Objects: e.lake, Owner: owner, Log: e.log,
	}, []justintime.View{threadspans.View(), netspans.View()})
	e.check(err)
	return s
}

// event is the begin or the end of a span: its scope's letter, and when, in seconds since the process's start.
type event struct {
	end    bool
	letter byte
	at     float64
}

// block is a block of the thread: from and to in seconds.
type block struct {
	id       telemetry.ID
	from, to float64
	offset   int64
	events   []event
	claim    func(*telemetry.Block) // what it says otherwise
}

func ticks(seconds float64) int64 { return int64(math.Round(seconds * 1e9)) }

// body returns the body that a client posts.
func (e *env) body(b *block) []byte {
	var deps, objs []byte
	known := map[byte]uint64{}
	text := func(id uint64, s string) uint64 {
		deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, id, s)
		return id
	}
	for _, v := range b.events {
		if known[v.letter] == 0 {
			n := uint64(len(known)*10 + 10)
			m := wire.Metadata{ID: n, Name: text(n+1, string(v.letter)), Target: text(n+2, "demo"), Module: text(n+3, "demo"), File: text(n+4, "m.rs"), Line: uint32(v.letter)}
			deps = wire.AppendSpanRecord(deps, &m)
			known[v.letter] = n
		}
		index := uint8(wire.CPUBeginThreadSpan)
		if v.end {
			index = wire.CPUEndThreadSpan
		}
		objs = wire.AppendThreadSpan(objs, index, known[v.letter], ticks(v.at))
	}
	return wire.AppendBlock(nil, e.envelope(b), wire.Compress(nil, deps), wire.Compress(nil, objs))
}

func (e *env) envelope(b *block) *telemetry.Block {
	if b.id.IsZero() {
		b.id = telemetry.NewID()
	}
	v := &telemetry.Block{
		ID: b.id, StreamID: e.stream.ID, ProcessID: e.process.ID, BeginTime: day + ticks(b.from), EndTime: day + ticks(b.to),
		BeginTicks: ticks(b.from), EndTicks: ticks(b.to), ObjectOffset: b.offset, NbObjects: int32(len(b.events)),
	}
	if b.claim != nil {
		b.claim(v)
	}
	return v
}

// post publishes a block as the gateway does.
func (e *env) post(b *block) { e.postBody(b, e.body(b)) }

func (e *env) postBody(b *block, body []byte) {
	v := e.envelope(b)
	e.publish(bus.Raw, &bus.Record{
		Kind: bus.KindBlock, Tag: telemetry.TagOf(e.stream.Tags), ProcessID: v.ProcessID, StreamID: v.StreamID, BlockID: v.ID, BeginTime: v.BeginTime, EndTime: v.EndTime, Body: body,
	})
}

// request asks for the thread's spans from one second to another.
func (e *env) request(from, to float64) bus.MaterializeRequest {
	return bus.MaterializeRequest{View: "thread_spans", Instance: e.stream.ID, Begin: day + ticks(from), End: day + ticks(to)}
}

// ask has a service materialize, until it does.
func (e *env) ask(s *justintime.Service, from, to float64) bus.MaterializeReply {
	e.t.Helper()
	r, err := s.Materialize(e.t.Context(), e.request(from, to), nil)
	e.check(err)
	return r
}

// rows returns what a reply says to read, in order of begins: id, parent, depth, begin and end in seconds, and the name.
func (e *env) rows(r bus.MaterializeReply) []string {
	e.t.Helper()
	all := slices.Clone(r.Open)
	for _, f := range r.Files {
		data, err := e.lake.Get(e.t.Context(), f.Key)
		e.check(err)
		if int64(len(data)) != f.Size {
			e.t.Errorf("file %s has %d bytes, not %d", f.Key, len(data), f.Size)
		}
		file, err := columnar.OpenFile(tables.Must("thread_spans"), data)
		e.check(err)
		rows := columnar.NewRows(tables.Must("thread_spans"))
		for g := range file.RowGroups() {
			e.check(file.ReadRowGroup(g, rows))
		}
		if int64(rows.Len()) != f.Rows {
			e.t.Errorf("file %s has %d rows, not %d", f.Key, rows.Len(), f.Rows)
		}
		c := rows.Columns
		for i := range rows.Len() {
			s := telemetry.Span{ID: c[0].Ints[i], Parent: c[1].Ints[i], Depth: uint32(c[2].Ints[i]), Begin: c[4].Ints[i], End: c[5].Ints[i], Name: rows.Text(7, i)}
			if s.Begin >= f.ShiftFrom {
				s.Depth += uint32(f.DepthShift)
			}
			if s.Begin < f.MinTime || s.End > f.MaxTime {
				e.t.Errorf("file %s: span %+v is outside of %d to %d", f.Key, s, f.MinTime, f.MaxTime)
			}
			all = append(all, s)
		}
	}
	var out []string
	slices.SortStableFunc(all, func(a, b telemetry.Span) int {
		switch {
		case a.Begin != b.Begin:
			return int(min(max(a.Begin-b.Begin, -1), 1))
		case a.Depth != b.Depth:
			return int(a.Depth) - int(b.Depth)
		}
		return int(a.ID - b.ID)
	})
	for _, s := range all {
		out = append(out, fmt.Sprintf("%d %d %d %.3f %.3f %s", s.ID, s.Parent, s.Depth, float64(s.Begin-day)/1e9, float64(s.End-day)/1e9, s.Name))
	}
	return out
}

func (e *env) wantRows(what string, got, want []string) {
	e.t.Helper()
	if !slices.Equal(got, want) {
		e.t.Fatalf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// partitions returns the thread's partitions.
func (e *env) partitions() []catalog.Partition {
	e.t.Helper()
	rows, err := e.cat.Streams(e.t.Context(), []telemetry.ID{e.stream.ID})
	e.check(err)
	all, err := e.cat.InstancePartitions(e.t.Context(), "thread_spans", rows[0].No)
	e.check(err)
	return all
}

// code returns the kind of an error.
func code(err error) bus.MaterializeCode {
	if e, ok := errors.AsType[*bus.MaterializeError](err); ok {
		return e.Code
	}
	return ""
}

func (e *env) retire(partNo int64) {
	_, err := e.cat.CommitView(e.t.Context(), &catalog.ViewCommit{Retired: []int64{partNo}})
	e.check(err)
}
