package deploy_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
)

var (
	emitted  = sdk.NewLog(sdk.Info, "goroutine %d event %d of %s")
	numbered = sdk.NewInt("numbered", "count")
	halved   = sdk.NewFloat("halved", "percent")
	counted  = sdk.NewCounter("counted", "count")
	work     = sdk.NewSpan("work")
	part     = sdk.NewSpan("part")
)

// What a program emits through the library is what queries answer: each row once, with its values, from goroutines that the scheduler
// moves about.
func TestRowsOfTheLibrary(t *testing.T) {
	p := startServe(t, t.TempDir())
	cfg := httpsink.DefaultConfig()
	cfg.URL = p.HTTP
	sink, err := httpsink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := sdk.Start(t.Context(), sdk.Config{Sink: sink, BlockBytes: 16 << 10, Memory: 256 << 20}); err != nil {
		t.Fatal(err)
	}
	defer sdk.Stop(context.Background())
	id := sdk.ProcessID()

	const goroutines, events = 6, 3000
	var wg sync.WaitGroup
	for g := range goroutines {
		track := sdk.NewTrack(fmt.Sprint("worker ", g))
		shard := sdk.Props("goroutine", fmt.Sprint(g))
		wg.Go(func() {
			defer track.Close()
			for i := range events {
				span := work.Begin(track)
				emitted.With(shard).Log(sdk.Int(g), sdk.Int(i), sdk.String("many"))
				if i%7 == 0 { // on a thread of its own for a while, then on any
					runtime.LockOSThread()
					runtime.Gosched()
					runtime.UnlockOSThread()
				}
				numbered.Record(int64(g*events + i))
				halved.With(shard).Record(float64(i) / 2)
				inner := part.Begin(track)
				counted.Add(1)
				runtime.Gosched()
				inner.End()
				ctx, request := work.Start(context.Background())
				emitted.LogIn(ctx, sdk.Int(g), sdk.Int(i), sdk.String("a request"))
				request.End()
				span.End()
			}
		})
	}
	wg.Wait()
	if err := sdk.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	for reason, n := range sdk.Stats().Dropped {
		if n > 0 && reason != "late" {
			t.Errorf("%d dropped: %s", n, reason)
		}
	}

	const all = goroutines * events
	f := func(what, sql string, want int) {
		t.Helper()
		if n := p.count(strings.ReplaceAll(sql, "$id", "'"+id+"'")); n != want {
			t.Errorf("%s: %d, not %d", what, n, want)
		}
	}
	f("entries", "SELECT count(*) FROM log_entries WHERE process_id = $id", 2*all)
	f("messages", "SELECT count(DISTINCT msg) FROM log_entries WHERE process_id = $id", 2*all)
	f("messages as they were made", `SELECT count(*) FROM log_entries WHERE process_id = $id AND level = 4 AND regexp_matches(msg, '^goroutine [0-5] event [0-9]+ of many$')
AND property_get(properties, 'goroutine') = split_part(msg, ' ', 2)`, all)
	f("entries inside spans", "SELECT count(*) FROM log_entries WHERE process_id = $id AND length(property_get(properties, 'trace_id')) = 32", all)
	f("values", "SELECT count(DISTINCT value) FROM measures WHERE process_id = $id AND name = 'numbered' AND unit = 'count'", all)
	f("sum of values", "SELECT CAST(sum(value) AS BIGINT) FROM measures WHERE process_id = $id AND name = 'numbered'", all*(all-1)/2)
	f("halves of one goroutine", "SELECT CAST(sum(value) * 2 AS BIGINT) FROM measures WHERE process_id = $id AND name = 'halved' AND property_get(properties, 'goroutine') = '3'", events*(events-1)/2)
	f("count", "SELECT CAST(sum(value) AS BIGINT) FROM measures WHERE process_id = $id AND name = 'counted'", all)
	f("edges of tracks", `SELECT CAST(sum(nb_objects) AS BIGINT) FROM blocks WHERE process_id = $id AND list_contains("streams.tags", 'cpu') AND property_get("streams.properties", 'thread-name') LIKE 'worker %'`, 4*all)
	f("edges and traces of requests", `SELECT CAST(sum(nb_objects) AS BIGINT) FROM blocks WHERE process_id = $id AND property_get("streams.properties", 'thread-name') = 'async'`, 3*all)
	f("tracks", "SELECT count(DISTINCT property_get(properties, 'thread-name')) FROM streams WHERE process_id = $id", goroutines+1)
}
