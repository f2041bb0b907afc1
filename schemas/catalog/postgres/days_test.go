package postgres

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/catalogtest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// The times of catalogtest are long ago: here they have days of their own.
func TestConformanceWithDays(t *testing.T) {
	catalogtest.Run(t, func(t *testing.T) catalog.Catalog {
		db := open(t, database(t))
		db.days.now = func() int64 { return 1_700_000_000_000_000_000 }
		return db
	})
}

// blocksPerTable counts the rows of each partition that has any.
func blocksPerTable(t *testing.T, url string) map[string]int {
	t.Helper()
	rows, err := raw(t, url).Query(t.Context(), "SELECT tableoid::regclass::text, count(*)::int FROM blocks GROUP BY 1")
	if err != nil {
		t.Fatal(err)
	}
	type count struct {
		Table string
		N     int
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[count])
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]int{}
	for _, c := range all {
		m[c.Table] = c.N
	}
	return m
}

// at makes a commit of one block for each time.
func (h *house) at(times ...int64) *catalog.ArchiveCommit {
	c := h.commit(len(times))
	for i, t := range times {
		c.Blocks[i].BeginTime, c.Blocks[i].EndTime = t, t
	}
	return c
}

func TestBlocksLieInTheirDays(t *testing.T) {
	url := database(t)
	db, h := open(t, url), newHouse(5, 2)
	now := time.Now().UTC()
	day := func(n int) int64 { return now.AddDate(0, 0, n).UnixNano() }
	if err := db.CommitArchive(t.Context(), h.at(day(0), day(0), day(-1), day(-31), day(1), day(-500), day(30), math.MaxInt64, math.MinInt64, 0)); err != nil {
		t.Fatal(err)
	}
	name := func(n int) string { return "blocks_" + now.AddDate(0, 0, n).Format("20060102") }
	want := map[string]int{name(0): 2, name(-1): 1, name(-31): 1, name(1): 1, "blocks_default": 5}
	got := blocksPerTable(t, url)
	for table, n := range want {
		if got[table] != n {
			t.Errorf("%s has %d rows, want %d", table, got[table], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("rows in %v", got)
	}
	// When a day that lay in the future comes near, its blocks move into its partition.
	db.days.now = func() int64 { return day(30) }
	if err := db.CommitArchive(t.Context(), h.at(day(30))); err != nil {
		t.Fatal(err)
	}
	if got := blocksPerTable(t, url); got[name(30)] != 2 || got["blocks_default"] != 4 {
		t.Errorf("rows in %v", got)
	}
	rows, _, err := db.BlocksSince(t.Context(), nil, 0)
	if err != nil || len(rows) != 11 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// Several processes meet blocks of new days at the same moment: nobody's commit fails, and each day has one partition.
func TestDaysAreMadeByManyAtOnce(t *testing.T) {
	url := database(t)
	const processes, commits = 8, 6
	var wg sync.WaitGroup
	now := time.Now().UTC()
	for p := range processes {
		wg.Go(func() {
			db, h := open(t, url), newHouse(5, 2)
			h.shard.Shard = int32(p)
			for n := range commits {
				d := now.AddDate(0, 0, -n).UnixNano()
				c := h.at(d, d, math.MinInt64+int64(n)*1e9)
				if err := db.CommitArchive(t.Context(), c); err != nil {
					t.Error(err)
				}
				keys := []catalog.BlockKey{{StreamID: c.Blocks[0].StreamID, BeginTime: d, BlockID: c.Blocks[0].ID}}
				if exist, err := db.ExistingBlocks(t.Context(), keys); err != nil || !exist[0] {
					t.Errorf("block %v, %v", exist, err)
				}
			}
		})
	}
	wg.Wait()
	got := blocksPerTable(t, url)
	if len(got) != commits+1 || got["blocks_default"] != processes*commits {
		t.Errorf("rows in %v", got)
	}
}

// While somebody reads what must be locked, blocks go to the common partition, and to their own when it can be made.
func TestPartitionThatCannotBeMadeFailsNoCommit(t *testing.T) {
	url := database(t)
	db, h := open(t, url), newHouse(5, 2)
	reader, err := raw(t, url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), "SELECT count(*) FROM blocks"); err != nil {
		t.Fatal(err)
	}
	today := time.Now().UnixNano()
	if err := db.CommitArchive(t.Context(), h.at(today, today)); err != nil {
		t.Fatal(err)
	}
	if got := blocksPerTable(t, url); got["blocks_default"] != 2 {
		t.Errorf("rows in %v", got)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.CommitArchive(t.Context(), h.at(today)); err != nil { // not tried again so soon
		t.Fatal(err)
	}
	if got := blocksPerTable(t, url); got["blocks_default"] != 3 {
		t.Errorf("rows in %v", got)
	}
	db.days.wait = time.Time{}
	if err := db.CommitArchive(t.Context(), h.at(today)); err != nil {
		t.Fatal(err)
	}
	if got := blocksPerTable(t, url); got["blocks_default"] != 0 || got[partitionOf(floorDay(today))] != 4 {
		t.Errorf("rows in %v", got)
	}
}

func TestMadeUpTimesMakeNoDays(t *testing.T) {
	now := time.Now().UnixNano()
	d := days{now: func() int64 { return now }}
	var blocks []catalog.BlockReg
	for n := range 10_000 {
		blocks = append(blocks, catalog.BlockReg{Block: telemetry.Block{BeginTime: now + int64(n-5000)*nsPerDay}})
	}
	if got := d.missing(blocks); len(got) != daysBefore+daysAfter+1 {
		t.Errorf("%d days", len(got))
	}
	f := func(t0 int64, want int64) {
		t.Helper()
		if got := floorDay(t0); got != want {
			t.Errorf("day of %d is %d, want %d", t0, got, want)
		}
	}
	f(0, 0)
	f(nsPerDay-1, 0)
	f(-1, -1)
	f(-nsPerDay, -1)
	f(-nsPerDay-1, -2)
	f(math.MinInt64, -106752)
	f(math.MaxInt64, 106751)
	var known []int64
	for n := range 1000 {
		d.learn([]int64{int64(n)})
		known = append(known, int64(n))
	}
	if len(d.made) > len(known)/2 || !slices.Contains(known, 999) || !d.made[999] {
		t.Errorf("%d days are kept", len(d.made))
	}
}
