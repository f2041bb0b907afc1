package query_test

import (
	"context"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/materializers/threadspans"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// lateBus is a bus that is opened upon the catalog of a service that was made with it.
type lateBus struct{ *bus.Bus }

// TestFleetOverTheBus has archive and the materializers in the house that producers and queries reach over the bus.
func TestFleetOverTheBus(t *testing.T) {
	late := &lateBus{}
	env := querytest.Start(t, querytest.Options{Bus: late, Config: func(c *query.Config) { c.FleetBlocks = 2 }})
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	late.Bus, err = bus.Open(t.Context(), bustest.NewEnv(t).Connect(t), archive.Generations{Catalog: env.Catalog}, env.Lake, bus.DefaultConfig(), log)
	check(err)
	t.Cleanup(func() { late.Close() })
	archiver, err := archive.New(archive.DefaultConfig(), late.Bus, env.Catalog, env.Lake, "archive", log)
	check(err)
	materializer, err := justintime.New(justintime.DefaultConfig(), justintime.Parts{
		Bus: late.Bus, Catalog: env.Catalog, Blocks: locate.New(env.Catalog, env.Lake), Objects: env.Lake, Owner: "test", Log: log,
	}, []justintime.View{threadspans.View()})
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	for _, run := range []func(context.Context) error{archiver.Run, materializer.Run} {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})

	publish := func(class bus.Class, r *bus.Record) {
		t.Helper()
		r.InsertTimeUs = querytest.At(1) / 1000
		check(late.Publish(t.Context(), class, r))
	}
	for i, process := range []telemetry.ID{querytest.P1, querytest.P2} {
		p := telemetry.Process{
			ID: process, Exe: []string{"game", "server"}[i], TSCFrequency: 1_000_000_000, StartTime: querytest.At(0), StartTicks: 1_000_000,
			Properties: []telemetry.Property{{Key: "build", Value: []string{"7", "8"}[i]}},
		}
		publish(bus.Eager, &bus.Record{Kind: bus.KindProcess, ProcessID: process, Body: wire.AppendProcess(nil, &p)})
		for k, name := range []string{"main", "net"} {
			no := 2*i + k + 3
			s := telemetry.Stream{
				ID: querytest.StreamID(no), ProcessID: process, Tags: []string{"cpu"}, Format: telemetry.FormatTransit,
				Properties: []telemetry.Property{{Key: "thread-name", Value: name}, {Key: "thread-id", Value: "1"}},
			}
			s.Dependencies, s.Objects = wire.CPUTypes()
			publish(bus.Eager, &bus.Record{Kind: bus.KindStream, ProcessID: process, StreamID: s.ID, Body: wire.AppendStream(nil, &s)})
			body := ofProcess(t, process, spanBody(no, no, 5, 6, 0, b("Worker", 5), b("Job", 5.1), e("Job", 5.2), e("Worker", 5.8)))
			publish(bus.Raw, &bus.Record{
				Kind: bus.KindBlock, Tag: telemetry.TagCPU, ProcessID: process, StreamID: s.ID, BlockID: querytest.BlockID(no),
				BeginTime: querytest.At(5), EndTime: querytest.At(6), Body: body,
			})
		}
	}

	a := spanAsker{t, env.Dial(t, "")}
	all := span(0, 3600)
	a.fails("SELECT * FROM thread_spans", all, codes.ResourceExhausted, "4 blocks of 4 threads of 2 processes would have to be decoded, and the budget is 2 blocks")
	a.rows("SELECT exe, thread_name, count(*) FROM thread_spans WHERE exe = 'game' AND depth > 0 GROUP BY ALL ORDER BY ALL", all, "game,main-1,2", "game,net-1,2")
	a.rows("SELECT exe, thread_name, sum(duration) FROM thread_spans WHERE property_get(process_properties, 'build') = '8' AND name = 'Job' GROUP BY ALL ORDER BY ALL", all,
		"server,main-1,100000000", "server,net-1,100000000")
	a.rows("SELECT count(*), count(DISTINCT stream_id), count(DISTINCT process_id) FROM thread_spans", all, "12,4,2")
}
