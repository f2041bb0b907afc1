package querytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// T0 is the time that the fixture counts from: 2026-03-01T10:00:00Z.
const T0 = 1_772_359_200_000_000_000

// At returns the time that many seconds after T0.
func At(seconds float64) int64 { return T0 + int64(seconds*1e9+0.5) }

// Clock returns the time that many seconds after T0 as a time.Time.
func Clock(seconds float64) time.Time { return time.Unix(0, At(seconds)).UTC() }

// The processes of the fixture. Unregistered has blocks and rows, but no registration.
var (
	P1           = mustID("11111111-1111-4111-8111-111111111111")
	P2           = mustID("22222222-2222-4222-8222-222222222222")
	P3           = mustID("33333333-3333-4333-8333-333333333333")
	Unregistered = mustID("44444444-4444-4444-8444-444444444444")
)

func mustID(text string) telemetry.ID {
	id, err := telemetry.ParseID(text)
	if err != nil {
		panic(err)
	}
	return id
}

// StreamID and BlockID return the ids of the fixture's streams and blocks.
func StreamID(n int) telemetry.ID { return mustID(fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", n)) }

// BlockID returns the id of block n.
func BlockID(n int) telemetry.ID { return mustID(fmt.Sprintf("bbbbbbbb-0000-4000-8000-%012d", n)) }

// Fixture loads three processes with eight streams, eleven blocks, and the rows of their logs and measures, in several
// commits and files.
func (e *Env) Fixture(t testing.TB) {
	t.Helper()
	e.Archive(t, fixtureProcesses(), fixtureStreams(), fixtureBlocks()[:6])
	e.Archive(t, nil, nil, fixtureBlocks()[6:])
	logs := fixtureLogs()
	e.Partition(t, "log_entries", logs[:4]...)
	e.Partition(t, "log_entries", logs[4:]...)
	e.Partition(t, "measures", fixtureMeasures()...)
	stats := fixtureStats()
	e.Partition(t, "log_stats", stats[:5]...)
	e.Partition(t, "log_stats", stats[5:]...)
}

func fixtureProcesses() []catalog.ProcessReg {
	return []catalog.ProcessReg{
		{
			Process: telemetry.Process{
				ID: P1, Exe: "game.exe", Username: "alice", Realname: "Alice A", Computer: "PC1", Distro: "Windows 11", CPUBrand: "CPU X",
				TSCFrequency: 1_000_000_000, StartTime: At(0), StartTicks: 1_000_000,
				Properties: []telemetry.Property{{Key: "build-version", Value: "1.2.3"}, {Key: "platform", Value: "win64"}},
			},
			InsertTime: At(1),
		},
		{
			Process: telemetry.Process{
				ID: P2, Exe: "server", Username: "svc", Realname: "Service", Computer: "SRV1", Distro: "Linux", CPUBrand: "CPU Y",
				StartTime: At(60), StartTicks: 500, ParentID: P1,
			},
			InsertTime: At(60.5),
		},
		{
			Process: telemetry.Process{
				ID: P3, Exe: "checkout", Username: "otel", Realname: "otel", Computer: "POD1", Distro: "Linux", CPUBrand: "CPU Z",
				TSCFrequency: 1_000_000_000, StartTime: At(200),
				Properties: []telemetry.Property{{Key: "service.name", Value: "checkout"}},
			},
			InsertTime: At(201.5),
		},
	}
}

func fixtureStreams() []catalog.StreamReg {
	stream := func(n int, process telemetry.ID, tag, format string, insert float64, properties ...telemetry.Property) catalog.StreamReg {
		return catalog.StreamReg{
			Stream:           telemetry.Stream{ID: StreamID(n), ProcessID: process, Tags: []string{tag}, Format: format, Properties: properties},
			DependenciesCBOR: []byte{0x80}, ObjectsCBOR: []byte{0x80}, InsertTime: At(insert),
		}
	}
	thread := func(key, value string) telemetry.Property { return telemetry.Property{Key: key, Value: value} }
	const transit = telemetry.FormatTransit
	return []catalog.StreamReg{
		stream(1, P1, "log", transit, 1.1),
		stream(2, P1, "metrics", transit, 1.1),
		stream(3, P1, "cpu", transit, 1.1, thread("thread-id", "1234"), thread("thread-name", "main")),
		stream(4, P1, "cpu", transit, 1.1, thread("thread-id", "1235")),
		stream(5, P1, "image", transit, 1.1),
		stream(6, P1, "net", transit, 1.1),
		stream(7, P2, "log", transit, 60.6),
		stream(8, P3, "trace", "otlp/v1/traces", 201.6),
	}
}

func fixtureBlocks() []catalog.BlockReg {
	block := func(n, stream int, process telemetry.ID, begin, end, insert float64, ticksPerSecond int64, objects int32, offset int64) catalog.BlockReg {
		b := catalog.BlockReg{InsertTime: At(insert), PayloadSize: 1000 + int64(n), PackLength: 1}
		b.Block = telemetry.Block{
			ID: BlockID(n), StreamID: StreamID(stream), ProcessID: process, BeginTime: At(begin), EndTime: At(end),
			EndTicks: int64(end) * ticksPerSecond, NbObjects: objects, ObjectOffset: offset,
		}
		return b
	}
	const ns = 1_000_000_000
	return []catalog.BlockReg{
		block(1, 1, P1, 1, 60, 61, ns, 4, 0),
		block(2, 1, P1, 60, 120, 121, ns, 2, 4),
		block(3, 7, P2, 60, 180, 181, 1_000_000, 2, 0),
		block(4, 2, P1, 1, 60, 62, ns, 7, 0),
		block(5, 3, P1, 5, 6, 63, ns, 8, 0),
		block(6, 3, P1, 6, 7, 64, ns, 4, 8),
		block(7, 4, P1, 10, 11, 65, ns, 3, 0),
		block(8, 4, P1, 11, 12, 66, ns, 4, 3),
		block(9, 5, P1, 70, 71, 122, ns, 1, 0),
		block(10, 6, P1, 80, 81, 123, ns, 8, 0),
		block(11, 8, P3, 200, 201, 202, ns, 2, 0),
	}
}

// Log makes a row of log_entries.
func Log(process telemetry.ID, at int64, level int32, target, msg, properties string) Row {
	row := Row{
		"process_id": process.String(), "stream_id": StreamID(1).String(), "block_id": BlockID(1).String(), "insert_time": at + 1e9, "time": at,
		"exe": "game.exe", "username": "alice", "computer": "PC1", "level": level, "target": target, "msg": msg, "properties": properties,
		"process_properties": `{"build-version":"1.2.3","platform":"win64"}`,
	}
	if process == P2 {
		row["exe"], row["username"], row["computer"], row["process_properties"] = "server", "svc", "SRV1", "{}"
	}
	return row
}

func fixtureLogs() []Row {
	return []Row{
		Log(P1, At(1), 4, "game::boot", "starting", "{}"),
		Log(P1, T0+2_500_000_001, 3, "game::net", "slow peer", `{"ms":"250","peer":"bob"}`),
		Log(P1, At(30), 2, "game::net", "disconnect", `{"peer":"bob"}`),
		Log(P1, T0+59_999_999_999, 4, "game::boot", "ready", "{}"),
		Log(P1, At(61), 5, "game::ai", "tick 1", "{}"),
		Log(P1, At(119), 1, "game::core", "crash", `{"Peer":"eve"}`),
		Log(P2, At(61), 4, "srv", "listening", "{}"),
		Log(P2, At(150), 2, "srv", "timeout", "{}"),
	}
}

func fixtureMeasures() []Row {
	measure := func(at float64, target, name, unit string, value float64, properties string) Row {
		row := Log(P1, At(at), 0, target, "", properties)
		row["name"], row["unit"], row["value"] = name, unit, value
		return row
	}
	return []Row{
		measure(10, "game::perf", "frame_time", "ms", 1, "{}"),
		measure(20, "game::perf", "frame_time", "ms", 2, "{}"),
		measure(30, "game::perf", "frame_time", "ms", 3, "{}"),
		measure(30.5, "game::perf", "fps", "count", 60, "{}"),
		measure(40, "game::perf", "frame_time", "ms", 11, "{}"),
		measure(50, "game::perf", "frame_time", "ms", 12, `{"map":"Oslo"}`),
		measure(55, "game::load", "load_time", "seconds", 1.5, "{}"),
	}
}

// fixtureStats counts the log entries by minute, process, level and target. The two entries of game::boot are counted
// in two files.
func fixtureStats() []Row {
	count := func(minute int, process telemetry.ID, level int32, target string, n int64) Row {
		return Row{"time_bin": At(float64(60 * minute)), "process_id": process.String(), "level": level, "target": target, "count": n}
	}
	return []Row{
		count(0, P1, 2, "game::net", 1), count(0, P1, 3, "game::net", 1), count(0, P1, 4, "game::boot", 1),
		count(1, P1, 1, "game::core", 1), count(1, P1, 5, "game::ai", 1),
		count(0, P1, 4, "game::boot", 1), count(1, P2, 4, "srv", 1), count(2, P2, 2, "srv", 1),
	}
}

// ExtraBlocks archives n more blocks of the fixture's first stream, in their own commit; step tells one call from another.
func (e *Env) ExtraBlocks(t testing.TB, step, n int) {
	t.Helper()
	var blocks []catalog.BlockReg
	for i := range n {
		at := 300 + float64(step) + float64(i)/10
		blocks = append(blocks, catalog.BlockReg{
			Block:      telemetry.Block{ID: BlockID(1000 + 10*step + i), StreamID: StreamID(1), ProcessID: P1, BeginTime: At(at), EndTime: At(at + 1)},
			InsertTime: At(at + 2), PackLength: 1,
		})
	}
	e.Archive(t, nil, nil, blocks)
}

// Blocks returns the number of blocks in the catalog.
func (e *Env) Blocks(t testing.TB) int64 {
	t.Helper()
	s, err := e.Catalog.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Blocks
}
