package deploy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// t0 is the fixture's moment zero; "at" counts from it.
var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func at(seconds float64) int64 { return t0.UnixNano() + int64(seconds*1e9+0.5) }

func fixtureID(t *testing.T, text string) telemetry.ID {
	t.Helper()
	id, err := telemetry.ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func processID(t *testing.T, n int) telemetry.ID {
	return fixtureID(t, fmt.Sprintf("%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d-%[1]d%[1]d%[1]d%[1]d-4%[1]d%[1]d%[1]d-8%[1]d%[1]d%[1]d-%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d%[1]d", n))
}

func streamID(t *testing.T, n int) telemetry.ID {
	return fixtureID(t, fmt.Sprintf("aaaaaaaa-0000-4000-8000-00000000000%d", n))
}

func blockID(t *testing.T, n int) telemetry.ID {
	return fixtureID(t, fmt.Sprintf("bbbbbbbb-0000-4000-8000-0000000000%02d", n))
}

// fixtureProcesses are P1 … P3 with their times of registration.
func fixtureProcesses(t *testing.T) []catalog.ProcessReg {
	p := func(n int, exe, user, real, computer, distro, cpu string, frequency int64, start float64, ticks int64, insert float64) catalog.ProcessReg {
		return catalog.ProcessReg{InsertTime: at(insert), Process: telemetry.Process{
			ID: processID(t, n), Exe: exe, Username: user, Realname: real, Computer: computer, Distro: distro, CPUBrand: cpu,
			TSCFrequency: frequency, StartTime: at(start), StartTicks: ticks,
		}}
	}
	p1 := p(1, "game.exe", "alice", "Alice A", "PC1", "Windows 11", "CPU X", 1e9, 0, 1000000, 1)
	p1.Properties = []telemetry.Property{{Key: "build-version", Value: "1.2.3"}, {Key: "platform", Value: "win64"}}
	p2 := p(2, "server", "svc", "Service", "SRV1", "Linux", "CPU Y", 0, 60, 500, 60.5)
	p2.ParentID = p1.ID
	p3 := p(3, "checkout", "otel", "otel", "POD1", "Linux", "CPU Z", 1e9, 200, 0, 201.5)
	p3.Properties = []telemetry.Property{{Key: "service.name", Value: "checkout"}}
	return []catalog.ProcessReg{p1, p2, p3}
}

// fixtureStreams are S1 … S8.
func fixtureStreams(t *testing.T) []catalog.StreamReg {
	s := func(n, process int, tag string, insert float64, types func() (deps, objs []telemetry.Type), properties ...telemetry.Property) catalog.StreamReg {
		r := catalog.StreamReg{InsertTime: at(insert), Stream: telemetry.Stream{
			ID: streamID(t, n), ProcessID: processID(t, process), Tags: []string{tag}, Properties: properties, Format: telemetry.FormatTransit,
		}}
		r.Dependencies, r.Objects = types()
		r.DependenciesCBOR, r.ObjectsCBOR = wire.AppendTypes(nil, r.Dependencies), wire.AppendTypes(nil, r.Objects)
		return r
	}
	none := func() (deps, objs []telemetry.Type) { return nil, nil }
	otlp := s(8, 3, "trace", 201.6, none)
	otlp.Format = "otlp/v1/traces"
	return []catalog.StreamReg{
		s(1, 1, "log", 1.1, wire.LogTypes),
		s(2, 1, "metrics", 1.1, wire.MetricsTypes),
		s(3, 1, "cpu", 1.1, wire.CPUTypes, telemetry.Property{Key: "thread-id", Value: "1234"}, telemetry.Property{Key: "thread-name", Value: "main"}),
		s(4, 1, "cpu", 1.1, wire.CPUTypes, telemetry.Property{Key: "thread-id", Value: "1235"}),
		s(5, 1, "image", 1.1, wire.ImageTypes),
		s(6, 1, "net", 1.1, wire.NetTypes),
		s(7, 2, "log", 60.6, wire.LogTypes),
		otlp,
	}
}

// fixtureBlock is a block, its class and its events.
type fixtureBlock struct {
	class       bus.Class
	insert      int64
	payloadSize int64
	block       telemetry.Block
	events      deploytest.Emitter
}

func fixtureBlocks(t *testing.T) []fixtureBlock {
	b := func(n, stream, process int, begin, end float64, beginTicks, endTicks int64, objects int32, offset int64, insert float64) fixtureBlock {
		return fixtureBlock{class: bus.Raw, insert: at(insert), payloadSize: int64(1000 + n), block: telemetry.Block{
			ID: blockID(t, n), StreamID: streamID(t, stream), ProcessID: processID(t, process),
			BeginTime: at(begin), EndTime: at(end), BeginTicks: beginTicks, EndTicks: endTicks, NbObjects: objects, ObjectOffset: offset,
		}}
	}
	blocks := []fixtureBlock{
		b(1, 1, 1, 1, 60, 1e9, 60e9, 4, 0, 61),
		b(2, 1, 1, 60, 120, 60e9, 120e9, 2, 4, 121),
		b(3, 7, 2, 60, 180, 0, 120000000, 2, 0, 181),
		b(4, 2, 1, 1, 60, 1e9, 60e9, 7, 0, 62),
		b(5, 3, 1, 5, 6, 5e9, 6e9, 8, 0, 63),
		b(6, 3, 1, 6, 7, 6e9, 7e9, 4, 8, 64),
		b(7, 4, 1, 10, 11, 10e9, 11e9, 3, 0, 65),
		b(8, 4, 1, 11, 12, 11e9, 12e9, 4, 3, 66),
		b(9, 5, 1, 70, 71, 70e9, 71e9, 1, 0, 122),
		b(10, 6, 1, 80, 81, 80e9, 81e9, 8, 0, 123),
		b(11, 8, 3, 200, 201, 0, 1e9, 2, 0, 202),
	}
	p1 := func(seconds float64) int64 { return 1000000 + at(seconds) - t0.UnixNano() }
	e := &blocks[0].events
	e.Log(p1(1), 4, "game::boot", "starting")
	e.Log(1000000+2500000001, 3, "game::net", "slow peer", "peer", "bob", "ms", "250")
	e.Log(p1(30), 2, "game::net", "disconnect", "peer", "bob")
	e.Log(1000000+59999999999, 4, "game::boot", "ready")
	e = &blocks[1].events
	e.Log(p1(61), 5, "game::ai", "tick 1")
	e.Log(p1(119), 1, "game::core", "crash", "Peer", "eve")
	e = &blocks[2].events
	e.Log(1000500, 4, "srv", "listening")
	e.Log(90000500, 2, "srv", "timeout")
	e = &blocks[3].events
	for i := range 3 {
		e.Float(p1(float64(10+10*i)), "game::perf", "frame_time", "ms", float64(1+i))
	}
	e.Integer(p1(30.5), "game::perf", "fps", "count", 60)
	e.Float(p1(40), "game::perf", "frame_time", "ms", 11)
	e.Float(p1(50), "game::perf", "frame_time", "ms", 12, "map", "Oslo")
	e.Integer(p1(55), "game::load", "load_time", "ticks", 1500000000)
	for i := range blocks[:4] {
		blocks[i].class = bus.Eager
	}
	fixtureSpans(blocks, p1)
	return blocks
}

// fixtureSpans appends the events of B05 to B10.
func fixtureSpans(blocks []fixtureBlock, p1 func(seconds float64) int64) {
	var (
		frame   = deploytest.Scope{Name: "Frame", Target: "game::loop", File: "loop.cpp", Line: 10}
		update  = deploytest.Scope{Name: "Update", Target: "game::loop", File: "loop.cpp", Line: 20}
		physics = deploytest.Scope{Name: "Physics", Target: "game::phys", File: "phys.cpp", Line: 30}
		render  = deploytest.Scope{Name: "Render", Target: "game::gfx", File: "gfx.cpp", Line: 40}
		worker  = deploytest.Scope{Name: "Worker", Target: "game::jobs", File: "jobs.cpp", Line: 50}
		job     = deploytest.Scope{Name: "Job", Target: "game::jobs", File: "jobs.cpp", Line: 60}
		load    = deploytest.Scope{Name: "load", Target: "game::io", File: "io.rs", Line: 70}
		read    = deploytest.Scope{Name: "read", Target: "game::io", File: "io.rs", Line: 80}
	)
	e := &blocks[4].events
	e.Begin(p1(5), frame)
	e.Begin(p1(5.1), update)
	e.End(p1(5.2), update)
	e.Begin(p1(5.3), update)
	e.Begin(p1(5.35), physics)
	e.End(p1(5.4), physics)
	e.End(p1(5.5), update)
	e.Begin(p1(5.9), render)
	e = &blocks[5].events
	e.End(p1(6.1), render)
	e.End(p1(6.5), frame)
	e.Begin(p1(6.6), frame)
	e.End(p1(6.8), frame)
	e = &blocks[6].events
	e.Begin(p1(10.2), worker)
	e.Begin(p1(10.4), job)
	e.End(p1(10.6), job)
	e = &blocks[7].events
	e.BeginAsync(p1(11.1), load, wire.AsyncSpan{ID: 100})
	e.BeginAsync(p1(11.2), read, wire.AsyncSpan{ID: 101, Parent: 100, Depth: 1})
	e.EndAsync(p1(11.4), read, wire.AsyncSpan{ID: 101, Parent: 100, Depth: 1})
	e.EndAsync(p1(11.9), load, wire.AsyncSpan{ID: 100})
	blocks[8].events.Image(p1(70), "shot1", "image/png", []byte{0x89, 0x50, 0x4e, 0x47})
	e = &blocks[9].events
	e.NetConnection(p1(80), "conn1", true)
	e.NetBegin(wire.NetObjectBegin, p1(80.001), "Pawn")
	e.NetProperty(p1(80.002), "hp", 32)
	e.NetProperty(p1(80.003), "pos", 96)
	e.NetEnd(wire.NetObjectEnd, p1(80.004), 140)
	e.NetBegin(wire.NetRPCBegin, p1(80.005), "Fire")
	e.NetEnd(wire.NetRPCEnd, p1(80.006), 64)
	e.NetEnd(wire.NetConnectionEnd, p1(80.007), 220)
}

// startFixture starts a server on a home into which the fixture was archived with its own insert times.
func startFixture(t *testing.T, h *querytest.Home) *process {
	t.Helper()
	loadFixture(t, h)
	p := startServeAt(t, h)
	deploytest.Eventually(t, 30*time.Second, "the fixture's rows in the views", func() bool {
		return p.count("SELECT count(*) FROM log_entries") == 8 && p.count("SELECT count(*) FROM measures") == 7
	})
	return p
}

// startServeAt starts a server on a home.
func startServeAt(t testing.TB, h *querytest.Home, args ...string) *process {
	t.Helper()
	cmd := exec.Command(deploytest.Binary(t), deploytest.ServeArgs(h.Dir(), args...)...)
	cmd.Env = append(os.Environ(), h.Env...)
	return startCommand(t, h.Dir(), cmd)
}

// loadFixture writes the fixture as archive does: a pack a class, then the catalog's rows. The bus never saw it, so a
// server that opens the home finds a bus that was lost and goes on with a new generation.
func loadFixture(t *testing.T, h *querytest.Home) {
	t.Helper()
	ctx := t.Context()
	cat := h.OpenCatalog(t)
	defer cat.Close()
	l := h.OpenLake(t)
	defer l.Close()
	blocks := fixtureBlocks(t)
	archiveFixture(ctx, t, cat, l, bus.Eager, blocks, fixtureProcesses(t), fixtureStreams(t))
	archiveFixture(ctx, t, cat, l, bus.Raw, blocks, nil, nil)
}

func archiveFixture(ctx context.Context, t *testing.T, cat catalog.Catalog, l *lake.Lake, class bus.Class, blocks []fixtureBlock, processes []catalog.ProcessReg, streams []catalog.StreamReg) {
	t.Helper()
	shard := catalog.ShardID{Class: byte(class)}
	if err := cat.OpenGeneration(ctx, catalog.Generation{ShardID: shard, Stream: "lost-" + string(class), Created: 1, FirstSeq: 1}); err != nil {
		t.Fatal(err)
	}
	lease, err := cat.AcquireLease(ctx, "archive/"+string(class)+"/0", "fixture", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var records []*bus.Record
	var rows []catalog.BlockReg
	for _, p := range processes {
		records = append(records, &bus.Record{Kind: bus.KindProcess, InsertTimeUs: p.InsertTime / 1000, ProcessID: p.ID, Body: wire.AppendProcess(nil, &p.Process)})
	}
	for _, s := range streams {
		records = append(records, &bus.Record{Kind: bus.KindStream, Tag: telemetry.TagOf(s.Tags), InsertTimeUs: s.InsertTime / 1000, ProcessID: s.ProcessID, StreamID: s.ID, Body: wire.AppendStream(nil, &s.Stream)})
	}
	tags := map[telemetry.ID]telemetry.Tag{}
	for _, s := range fixtureStreams(t) {
		tags[s.ID] = telemetry.TagOf(s.Tags)
	}
	for _, b := range blocks {
		if b.class != class {
			continue
		}
		rows = append(rows, catalog.BlockReg{Block: b.block, InsertTime: b.insert, PayloadSize: b.payloadSize})
		records = append(records, &bus.Record{
			Kind: bus.KindBlock, Tag: tags[b.block.StreamID], InsertTimeUs: b.insert / 1000, ProcessID: b.block.ProcessID, StreamID: b.block.StreamID,
			BlockID: b.block.ID, BeginTime: b.block.BeginTime, EndTime: b.block.EndTime, Body: b.events.Body(b.block),
		})
	}
	frame := bus.Frame{Position: bus.Position{Shard: bus.Shard{Class: class}, Seq: 1}, Data: bus.AppendFrame(nil, records...)}
	pack, offsets, err := l.PutPack(ctx, shard, []bus.Frame{frame})
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, r := range frame.Records() {
		if r.Kind == bus.KindBlock {
			rows[next].PackOffset, rows[next].PackLength = offsets[0]+int64(r.Offset), int64(len(r.Body))
			next++
		}
	}
	err = cat.CommitArchive(ctx, &catalog.ArchiveCommit{
		Shard: shard, From: 0, To: 1, Epoch: lease.Epoch, Pack: &pack, Processes: processes, Streams: streams, Blocks: rows,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.ReleaseLease(ctx, lease); err != nil {
		t.Fatal(err)
	}
}

func folderURI(t *testing.T, dir string) string {
	t.Helper()
	uri, err := lake.FolderURI(dir)
	if err != nil {
		t.Fatal(err)
	}
	return uri
}
