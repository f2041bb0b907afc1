package query_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/workers/freezer"
)

// frozenDay is the day of the first blocks of these tests, long enough ago to be frozen.
var frozenDay = catalog.DayOf(time.Now().UnixNano()) - 30

// daysOfBlocks returns n blocks of processes P1 and P2 that began on a number of days, with lengths and delays of all kinds.
func daysOfBlocks(rnd *rand.Rand, days, n int) []catalog.BlockReg {
	blocks := make([]catalog.BlockReg, n)
	for i := range blocks {
		b := &blocks[i]
		stream := rnd.IntN(8) + 1
		b.ID, b.StreamID, b.ProcessID = telemetry.NewID(), querytest.StreamID(stream), querytest.P1
		begin := (frozenDay + catalog.Day(rnd.IntN(days))).Begin() + rnd.Int64N(24*3600e6)*1000
		b.BeginTime, b.EndTime = begin, begin+rnd.Int64N(3600e6)*1000
		b.InsertTime = b.EndTime + rnd.Int64N(48*3600e6)*1000 // up to two days late
		b.BeginTicks, b.EndTicks, b.NbObjects, b.ObjectOffset = rnd.Int64N(1e9), rnd.Int64N(1e9), int32(i), int64(i)*7
		b.PackOffset, b.PackLength, b.PayloadSize = int64(i), 10, int64(i)
	}
	return blocks
}

// register makes P1 with its eight streams known.
func register(t *testing.T, e *querytest.Env) {
	t.Helper()
	process := catalog.ProcessReg{Process: telemetry.Process{ID: querytest.P1, Exe: "game"}, InsertTime: querytest.T0}
	var streams []catalog.StreamReg
	for n := range 8 {
		streams = append(streams, catalog.StreamReg{
			Stream:     telemetry.Stream{ID: querytest.StreamID(n + 1), ProcessID: querytest.P1, Tags: []string{"cpu"}},
			InsertTime: querytest.T0, DependenciesCBOR: []byte{0x80}, ObjectsCBOR: []byte{0x80},
		})
	}
	e.Archive(t, []catalog.ProcessReg{process}, streams, nil)
}

func newFreezer(t *testing.T, e *querytest.Env, change func(*freezer.Config)) *freezer.Freezer {
	t.Helper()
	cfg := freezer.DefaultConfig()
	cfg.LateRows, cfg.SweepRows = 1, 50
	if change != nil {
		change(&cfg)
	}
	f, err := freezer.New(cfg, e.Catalog, e.Lake, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func freeze(t *testing.T, f *freezer.Freezer) {
	t.Helper()
	if err := f.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Whatever is frozen, each query answers as before.
func TestBlocksAnswerTheSameWhenFrozen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	e := querytest.Start(t, querytest.Options{})
	register(t, e)
	blocks := daysOfBlocks(rnd, 6, 3000)
	for part := range slices.Chunk(blocks, 500) {
		e.Archive(t, nil, nil, part)
	}
	c := e.Dial(t, "")
	clock := func(hours int) time.Time {
		return time.Unix(0, frozenDay.Begin()).Add(time.Duration(hours) * time.Hour).UTC()
	}
	answers := func() []string {
		var all []string
		for _, opts := range []client.QueryOptions{
			{},
			{Begin: clock(0), End: clock(24)},
			{Begin: clock(30), End: clock(31)},
			{Begin: clock(24), End: clock(24)},
			{Begin: clock(-24), End: clock(-1)},
			{Begin: clock(100), End: clock(500)},
			{Begin: clock(191), End: clock(1000)}, // only what came late
		} {
			for _, sql := range []string{
				"SELECT * FROM blocks ORDER BY block_id",
				"SELECT count(*), sum(nb_objects), min(begin_time), max(end_time), min(insert_time) FROM blocks",
				"SELECT stream_id, count(*), sum(payload_size) FROM blocks WHERE begin_time >= '" + clock(40).Format(time.RFC3339) + "' GROUP BY stream_id ORDER BY stream_id",
				`SELECT block_id, object_offset, "streams.tags", "processes.exe" FROM blocks WHERE block_id = '` + blocks[17].ID.String() + "'",
			} {
				got, err := ask(t.Context(), c, sql, opts)
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				all = append(all, got)
			}
		}
		return all
	}
	want := answers()
	if n := strings.Count(want[0], "\n") + 1; n != 3000 {
		t.Fatalf("%d blocks", n)
	}
	same := func(when string) {
		t.Helper()
		if got := answers(); !slices.Equal(got, want) {
			t.Fatalf("%s (-want +got):\n%.3000s", when, cmp.Diff(want, got))
		}
	}
	f := newFreezer(t, e, func(c *freezer.Config) { c.FileRows = 200 })
	freeze(t, f)
	same("not viewed yet, so nothing is frozen")
	e.View(t)
	freeze(t, f)
	if s := f.Stats(); s.Rows != 3000 || s.Files < 12 {
		t.Fatalf("freezer: %+v", s)
	}
	same("all is frozen")

	late := daysOfBlocks(rnd, 6, 200)
	e.Archive(t, nil, nil, late)
	want = answers()
	if n := strings.Count(want[0], "\n") + 1; n != 3200 {
		t.Fatalf("%d blocks", n)
	}
	e.View(t)
	freeze(t, f)
	same("late ones are frozen too")
	if _, running := e.Service.OldestCommit(); running {
		t.Error("a query that has ended still pins its partitions")
	}
	if got, err := ask(t.Context(), c, "SELECT sum(num_rows) FROM list_partitions() WHERE view_set_name = 'blocks'", client.QueryOptions{}); err != nil || got != "3200" {
		t.Errorf("%s rows in partitions of blocks, %v", got, err)
	}
}

// While blocks come and days are frozen, a query never sees a block twice, and none is missing.
func TestQueriesWhileDaysAreFrozen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 9))
	e := querytest.Start(t, querytest.Options{})
	register(t, e)
	var archived, announced atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	f := newFreezer(t, e, nil)
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := f.Freeze(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	var queries atomic.Int64
	check := func(c *client.Client) error {
		least := archived.Load()
		got, err := ask(t.Context(), c, "SELECT count(*), count(DISTINCT block_id) FROM blocks", client.QueryOptions{})
		if err != nil {
			return err
		}
		all, different, _ := strings.Cut(got, ",")
		n, err := strconv.ParseInt(all, 10, 64)
		if err != nil || all != different || n < least || n > announced.Load() {
			return fmt.Errorf("%s blocks, %s different ones, of at least %d and at most %d", all, different, least, announced.Load())
		}
		queries.Add(1)
		return nil
	}
	for range 2 {
		c := e.Dial(t, "")
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := check(c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 60 {
		blocks := daysOfBlocks(rnd, 4, 1+rnd.IntN(60))
		announced.Add(int64(len(blocks)))
		e.Archive(t, nil, nil, blocks)
		archived.Add(int64(len(blocks)))
		if rnd.IntN(3) == 0 {
			e.View(t)
		}
	}
	cancel()
	wg.Wait()
	if err := check(e.Dial(t, "")); err != nil {
		t.Error(err)
	}
	if f.Stats().Freezes == 0 || queries.Load() < 5 {
		t.Errorf("%d freezes beside %d queries", f.Stats().Freezes, queries.Load())
	}
	t.Logf("%d queries beside %d freezes of %d blocks", queries.Load(), f.Stats().Freezes, archived.Load())
}
