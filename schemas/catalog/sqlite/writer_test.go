package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func openInternal(t *testing.T) *DB {
	t.Helper()
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "catalog.sqlite"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// hold keeps the writer busy until the returned function is called, so that what is queued meanwhile shares a group.
func hold(t *testing.T, db *DB) (release func()) {
	t.Helper()
	began, gate := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = db.writer.do(context.Background(), func(*tx) error {
			close(began)
			<-gate
			return errors.New("rolled back")
		})
	}()
	<-began
	return func() {
		close(gate)
		<-done
	}
}

// together runs the functions as commits of one group and returns their errors.
func together(t *testing.T, db *DB, fns ...func(*tx) error) []error {
	t.Helper()
	release := hold(t, db)
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		c := &commit{ctx: t.Context(), fn: fn, result: make(chan error, 1)}
		db.writer.queue <- c
		wg.Go(func() { errs[i] = <-c.result })
	}
	release()
	wg.Wait()
	return errs
}

func set(k string) func(*tx) error {
	return func(t *tx) error {
		_, err := t.exec("INSERT INTO lake(k, v) VALUES(?, '')", k)
		return err
	}
}

func settings(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.read.QueryRowContext(t.Context(), "SELECT count(*) FROM lake").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOneFailureInAGroupIsAlone(t *testing.T) {
	db := openInternal(t)
	no := errors.New("no")
	after := []string{}
	note := func(what string, err error) func(*tx) error {
		return func(t *tx) error {
			t.afterCommit(func() { after = append(after, what) })
			return errors.Join(set(what)(t), err)
		}
	}
	errs := together(t, db, note("a", nil), note("b", no), note("c", nil), set("a"))
	if errs[0] != nil || !errors.Is(errs[1], no) || errs[2] != nil || errs[3] == nil {
		t.Fatalf("%v", errs)
	}
	if n := settings(t, db); n != 2 || len(after) != 2 {
		t.Fatalf("%d settings, after %v", n, after)
	}
}

func TestCancelledWhileWaitingIsNotBegun(t *testing.T) {
	db := openInternal(t)
	release := hold(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	c := &commit{ctx: ctx, fn: set("a"), result: make(chan error, 1)}
	db.writer.queue <- c
	cancel()
	release()
	if err := <-c.result; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := settings(t, db); n != 0 {
		t.Fatalf("%d settings", n)
	}
}

// A full disk fails the whole group, without effect, and everything works again when there is room.
func TestFullDisk(t *testing.T) {
	db := openInternal(t)
	limit := func(pages string) {
		t.Helper()
		if err := db.writer.do(t.Context(), func(t *tx) error {
			_, err := t.queryInt("PRAGMA max_page_count = " + pages)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	limit("1") // SQLite makes that the present size
	commit := archiveOf(300)
	errs := together(t, db, set("a"), func(*tx) error { return nil })
	if errs[0] != nil {
		t.Fatal(errs) // still fits a page that is there
	}
	if err := db.CommitArchive(t.Context(), commit); err == nil || errors.Is(err, catalog.ErrConflict) {
		t.Fatalf("a commit to a full disk: %v", err)
	}
	c, err := db.Checkpoint(t.Context(), catalog.ConsumerArchive, commit.Shard)
	if err != nil || c.Seq != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	limit("1000000")
	if err := db.CommitArchive(t.Context(), commit); err != nil {
		t.Fatal(err)
	}
	if s, err := db.Stats(t.Context()); err != nil || s.Blocks != 300 || s.Streams != 300 {
		t.Fatalf("%+v, %v", s, err)
	}
	if n := settings(t, db); n != 1 {
		t.Fatalf("%d settings", n)
	}
}

func archiveOf(blocks int) *catalog.ArchiveCommit {
	c := &catalog.ArchiveCommit{Shard: catalog.ShardID{Class: 'e'}, To: 1, Epoch: 1, Pack: &catalog.Pack{Key: "packs/1", FirstSeq: 1, LastSeq: 1}}
	for i := range blocks {
		c.Blocks = append(c.Blocks, catalog.BlockReg{Block: telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.NewID(), BeginTime: int64(i) * 1e6}})
	}
	return c
}

// The numbers of rows that were rolled back are not remembered.
func TestRolledBackStubsAreForgotten(t *testing.T) {
	db := openInternal(t)
	first := archiveOf(5)
	if err := db.CommitArchive(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := archiveOf(5)
	second.From, second.To = 1, 2
	second.Blocks = append(second.Blocks, first.Blocks[0])
	if err := db.CommitArchive(t.Context(), second); !errors.Is(err, catalog.ErrDuplicateBlocks) {
		t.Fatal(err)
	}
	other := archiveOf(5) // takes the numbers that the second had
	other.From, other.To = 1, 2
	if err := db.CommitArchive(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	second.From, second.To, second.Blocks = 2, 3, second.Blocks[:5]
	if err := db.CommitArchive(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	rows, _, err := db.BlocksSince(t.Context(), nil, 0)
	if err != nil || len(rows) != 15 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	streams := map[telemetry.ID]telemetry.ID{}
	for _, c := range []*catalog.ArchiveCommit{first, other, second} {
		for _, b := range c.Blocks {
			streams[b.ID] = b.StreamID
		}
	}
	for _, r := range rows {
		if streams[r.ID] != r.StreamID {
			t.Errorf("block %s in stream %s, want %s", r.ID, r.StreamID, streams[r.ID])
		}
	}
}

func TestNumbersAreBounded(t *testing.T) {
	n := newNumbers()
	for i := range 3 {
		more := newNumbers()
		for range maxCachedNumbers / 2 {
			more.processes[telemetry.NewID()] = int64(i)
		}
		n.learn(more)
	}
	if len(n.processes) > maxCachedNumbers {
		t.Fatalf("%d numbers", len(n.processes))
	}
}

func TestGroupsCoverAllRows(t *testing.T) {
	for n := range 200 {
		at := 0
		err := inGroups(n, func(from, to int) error {
			if from != at || to <= from {
				return fmt.Errorf("group %d..%d at %d", from, to, at)
			}
			at = to
			return nil
		})
		if err != nil || at != n {
			t.Fatalf("%d rows: %d, %v", n, at, err)
		}
	}
}
