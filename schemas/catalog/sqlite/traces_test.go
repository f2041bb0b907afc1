package sqlite

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/catalogtest"
)

func TestOldTracesAreDropped(t *testing.T) {
	db := openInternal(t)
	db.writer.traceIDs, db.writer.traceFilterBytes = 100, 20*catalog.TraceFilterUnit // nothing is written yet
	if err := db.writer.do(t.Context(), func(t *tx) error {                          // the numbers go from one era into the next
		_, err := t.exec("INSERT INTO trace_blocks(block_no, stream_no, begin_time, block_id, end_time, insert_time, ids) VALUES(?, 0, 0, x'', 0, 0, x'')", int64(1<<eraBits-60))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	catalogtest.TraceBounds(t, db, 100, 20)
	left := 0
	if err := db.read.QueryRowContext(t.Context(), "SELECT count(*) FROM trace_ids t LEFT JOIN trace_blocks b USING(block_no) WHERE b.block_no IS NULL").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d ids of no block, %v", left, err)
	}
}

// Of blocks that an earlier version archived nobody knows the trace ids.
func TestTracesOfEarlierBlocks(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "catalog.sqlite")
	reopen := func() *DB {
		db, err := Open(ctx, path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	for _, blocks := range []bool{false, true} {
		db := reopen()
		if blocks {
			c := &catalog.ArchiveCommit{To: 1, Pack: &catalog.Pack{Key: "packs/1"}}
			if err := db.CommitArchive(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		err := db.writer.do(ctx, func(t *tx) error {
			return t.execScript(`DROP TABLE trace_ids; DROP TABLE trace_blocks; DROP TABLE trace_filters; DROP TABLE trace_dropped;
ALTER TABLE processes DROP COLUMN last_ticks_time; PRAGMA user_version = 6`)
		})
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		db = reopen()
		since, err := db.TraceSince(ctx)
		if err != nil || blocks != (since > 0) || since > time.Now().Add(2*time.Second).UnixNano() || blocks && since < time.Now().Add(-time.Minute).UnixNano() {
			t.Errorf("complete since %d, with blocks %v, %v", since, blocks, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
