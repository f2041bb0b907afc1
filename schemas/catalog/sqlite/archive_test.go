package sqlite

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Of the blocks that an earlier version archived the last time stands for that of the last ticks, until a block with more ticks comes.
func TestLastTicksOfEarlierBlocks(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "catalog.sqlite")
	var db *DB
	reopen := func() {
		t.Helper()
		var err error
		if db, err = Open(ctx, path, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	archive := func(n byte, ticks, end int64) {
		t.Helper()
		b := telemetry.Block{ID: telemetry.ID{n}, StreamID: telemetry.ID{1}, ProcessID: telemetry.ID{1}, EndTicks: ticks, EndTime: end}
		err := db.CommitArchive(ctx, &catalog.ArchiveCommit{
			Shard: catalog.ShardID{Class: 'e'}, From: uint64(n), To: uint64(n) + 1, Pack: &catalog.Pack{Key: "packs/" + string('0'+n)}, Blocks: []catalog.BlockReg{{Block: b}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(ticks, time int64) {
		t.Helper()
		rows, err := db.Processes(ctx, nil)
		if err != nil || len(rows) != 1 || rows[0].LastTicks != ticks || rows[0].LastTicksTime != time {
			t.Fatalf("processes %+v, %v, want ticks %d of %d", rows, err, ticks, time)
		}
	}
	reopen()
	archive(0, 50, 5000)
	archive(1, 20, 9000)
	want(50, 5000)
	err := db.writer.do(ctx, func(t *tx) error {
		return t.execScript("ALTER TABLE processes DROP COLUMN last_ticks_time; PRAGMA user_version = 7")
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	reopen()
	defer db.Close()
	want(50, 9000)
	archive(2, 30, 3000)
	want(50, 9000)
	archive(3, 60, 6000)
	want(60, 6000)
}
