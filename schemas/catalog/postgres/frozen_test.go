package postgres

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

var raw0 = catalog.ShardID{Class: 'r'}

// archiveRaw commits n blocks that began within a day, a pack at each sequence number.
func archiveRaw(t *testing.T, db *DB, seq uint64, day catalog.Day, n int) {
	t.Helper()
	c := &catalog.ArchiveCommit{
		Shard: raw0, From: seq - 1, To: seq, Epoch: 1,
		Pack: &catalog.Pack{Shard: raw0, FirstSeq: seq, LastSeq: seq, Key: fmt.Sprint("packs/", seq), Size: 1},
	}
	for i := range n {
		begin := day.Begin() + int64(i)*int64(time.Minute)
		c.Blocks = append(c.Blocks, catalog.BlockReg{
			Block:      telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.ID{1}, ProcessID: telemetry.ID{2}, BeginTime: begin, EndTime: begin + 1e9},
			InsertTime: begin + 2e9,
		})
	}
	if err := db.CommitArchive(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// freezeDay freezes the rows of a day up to a position, and returns how many.
func freezeDay(t *testing.T, db *DB, day catalog.Day, upTo uint64) int64 {
	t.Helper()
	files, err := db.Frozen(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &catalog.FreezeCommit{
		FreezeSpan: catalog.FreezeSpan{From: day.Begin(), To: day.End(), UpTo: map[catalog.ShardID]uint64{raw0: upTo}}, Version: files.Version,
	}
	for b, err := range db.FreezableBlocks(t.Context(), c.FreezeSpan) {
		if err != nil {
			t.Fatal(err)
		}
		if b.PackSeq > upTo || b.PackKey == "" {
			t.Fatalf("row %+v", b)
		}
		c.Moved++
	}
	c.Added = []catalog.FrozenFile{{
		Partition: catalog.Partition{View: catalog.FrozenView, Key: fmt.Sprint("views/blocks/", telemetry.NewID()), Rows: c.Moved, Size: 9, MinTime: day.Begin(), MaxTime: day.End()},
		MaxBegin:  day.End(), MaxEnd: day.End(), TailSize: 1,
	}}
	if _, err := db.CommitFreeze(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c.Moved
}

func names(t *testing.T, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func rowsLeft(t *testing.T, db *DB) int {
	t.Helper()
	rows, _, err := db.BlocksSince(t.Context(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

// A day whose rows are all frozen loses them at once, also those that came before its partition was made; a day of which rows are
// left loses the others one by one.
func TestFreezeOfADayPartition(t *testing.T) {
	url := database(t)
	db := open(t, url)
	conn := raw(t, url)
	day := catalog.DayOf(time.Now().Add(-10 * 24 * time.Hour).UnixNano())
	const file = "SELECT pg_relation_filenode(oid)::text FROM pg_class WHERE relname = '%s'"
	archiveRaw(t, db, 1, day, 50)
	archiveRaw(t, db, 2, day+1, 50)
	archiveRaw(t, db, 3, day+1, 30)
	before := names(t, conn, fmt.Sprintf(file, partitionOf(int64(day))))
	if len(before) != 1 {
		t.Fatal("the day has no partition")
	}
	if n := freezeDay(t, db, day, 3); n != 50 || rowsLeft(t, db) != 80 {
		t.Fatalf("%d rows frozen, %d left", n, rowsLeft(t, db))
	}
	if after := names(t, conn, fmt.Sprintf(file, partitionOf(int64(day)))); slices.Equal(after, before) {
		t.Error("the partition was not truncated")
	}
	if n := freezeDay(t, db, day+1, 2); n != 50 || rowsLeft(t, db) != 30 {
		t.Fatalf("%d rows frozen, %d left", n, rowsLeft(t, db))
	}
	archiveRaw(t, db, 4, day+2, 10)
	if n := freezeDay(t, db, day+1, 4); n != 30 || rowsLeft(t, db) != 10 {
		t.Fatalf("%d rows frozen, %d left", n, rowsLeft(t, db))
	}
}

// A reader that holds the partition does not stop a freeze, nor does the freeze stop readers for longer than its lock timeout.
func TestFreezeBesideAReader(t *testing.T) {
	url := database(t)
	db := open(t, url)
	conn := raw(t, url)
	day := catalog.DayOf(time.Now().Add(-10 * 24 * time.Hour).UnixNano())
	archiveRaw(t, db, 1, day, 50)
	exec(t, conn, "BEGIN")
	exec(t, conn, "SELECT count(*) FROM blocks")
	if n := freezeDay(t, db, day, 1); n != 50 || rowsLeft(t, db) != 0 {
		t.Fatalf("%d rows frozen, %d left", n, rowsLeft(t, db))
	}
	exec(t, conn, "COMMIT")
}

// Old days' partitions go when they are empty, so that there are never many.
func TestSweepDropsOldPartitions(t *testing.T) {
	url := database(t)
	db := open(t, url)
	conn := raw(t, url)
	today := int64(catalog.DayOf(time.Now().UnixNano()))
	for _, ago := range []int64{daysBefore - 1, daysBefore + 5, daysBefore + 6, daysBefore + 7} {
		if err := db.makePartition(t.Context(), today-ago); err != nil {
			t.Fatal(err)
		}
	}
	full := catalog.Day(today - daysBefore - 6)
	archiveRaw(t, db, 1, full, 5)
	for more := true; more; {
		var err error
		if more, err = db.SweepFrozen(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	const partitions = "SELECT relname::text FROM pg_class WHERE relname ~ '^blocks_[0-9]{8}$'"
	want := []string{partitionOf(int64(full)), partitionOf(today - daysBefore + 1)}
	if got := names(t, conn, partitions); !slices.Equal(got, want) {
		t.Fatalf("partitions %v, want %v", got, want)
	}
	if n := freezeDay(t, db, full, 1); n != 5 {
		t.Fatalf("%d rows frozen", n)
	}
	// A user of blocks is not waited for.
	exec(t, conn, "BEGIN")
	exec(t, conn, "SELECT count(*) FROM blocks")
	if more, err := db.SweepFrozen(t.Context(), 1); more || err != nil {
		t.Fatal(more, err)
	}
	exec(t, conn, "COMMIT")
	if more, err := db.SweepFrozen(t.Context(), 1); !more || err != nil {
		t.Fatal(more, err)
	}
	if got := names(t, conn, partitions); !slices.Equal(got, want[1:]) {
		t.Fatalf("partitions %v", got)
	}
}

// While a freeze is under way a commit with an old block waits, and one without does not.
func TestFreezeHoldsUpOldBlocksOnly(t *testing.T) {
	url := database(t)
	db := open(t, url)
	conn := raw(t, url)
	exec(t, conn, "BEGIN")
	exec(t, conn, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(freezeLock)))
	young := catalog.DayOf(time.Now().Add(-24 * time.Hour).UnixNano())
	archiveRaw(t, db, 1, young, 5)
	done := make(chan struct{})
	go func() {
		defer close(done)
		archiveRaw(t, db, 2, young-20, 5)
	}()
	waiting := func() bool {
		return len(names(t, conn, "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")) == 1
	}
	for deadline := time.Now().Add(10 * time.Second); !waiting(); {
		select {
		case <-done:
			t.Fatal("the old block did not wait")
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	exec(t, conn, "COMMIT")
	<-done
}

// A reader that slept through more freezes than are kept cannot be told what went.
func TestOldFreezesAreForgotten(t *testing.T) {
	url := database(t)
	db := open(t, url)
	conn := raw(t, url)
	exec(t, conn, `INSERT INTO freezes(version, previous, from_time, to_time, class, gen, shard, seq)
SELECT v, v - 1, 0, 0, '{r}', '{0}', '{0}', '{1}' FROM generate_series(1, $1::bigint) AS v`, catalog.KeptFreezes+2)
	exec(t, conn, "UPDATE clock SET commit_no = $1, frozen_no = $1", catalog.KeptFreezes+2)
	day := catalog.DayOf(time.Now().Add(-10 * 24 * time.Hour).UnixNano())
	archiveRaw(t, db, 1, day, 5)
	freezeDay(t, db, day, 1)
	all, err := db.Freezes(t.Context(), 3)
	if err != nil || len(all) != catalog.KeptFreezes || all[0].Version != 4 {
		t.Fatalf("%d freezes, %v", len(all), err)
	}
	if last := all[len(all)-1]; last.From != day.Begin() || last.To != day.End() || last.UpTo[raw0] != 1 {
		t.Fatalf("%+v", last)
	}
	if _, err := db.Freezes(t.Context(), 2); !errors.Is(err, catalog.ErrStale) {
		t.Fatal(err)
	}
}
