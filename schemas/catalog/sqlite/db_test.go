package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/catalogtest"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func open(t *testing.T, path string) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestConformance(t *testing.T) {
	catalogtest.Run(t, func(t *testing.T) catalog.Catalog {
		return open(t, filepath.Join(t.TempDir(), "catalog.sqlite"))
	})
}

var shard = catalog.ShardID{Class: 'e'}

func archiveStep(from uint64) *catalog.ArchiveCommit {
	return &catalog.ArchiveCommit{
		Shard: shard, From: from, To: from + 1, Epoch: 1,
		Pack:   &catalog.Pack{Shard: shard, FirstSeq: from + 1, LastSeq: from + 1, Key: fmt.Sprint("packs/", from)},
		Blocks: []catalog.BlockReg{{Block: telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.ID{1}, ProcessID: telemetry.ID{2}, BeginTime: int64(from)}}},
	}
}

func TestCommitsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.sqlite")
	for life := range uint64(3) {
		db := open(t, path)
		c, err := db.Checkpoint(t.Context(), catalog.ConsumerArchive, shard)
		if err != nil || c.Seq != life {
			t.Fatalf("life %d begins at %+v, %v", life, c, err)
		}
		if err := db.CommitArchive(t.Context(), archiveStep(life)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What the files hold when a commit returns is enough: nothing waits for Close.
func TestCommitIsInTheFilesWhenItReturns(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "catalog.sqlite"))
	defer db.Close()
	for seq := range uint64(50) {
		if err := db.CommitArchive(t.Context(), archiveStep(seq)); err != nil {
			t.Fatal(err)
		}
		if seq%10 != 9 {
			continue
		}
		copied := t.TempDir()
		for _, name := range []string{"catalog.sqlite", "catalog.sqlite-wal"} { // as after a kill: no -shm
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(copied, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again := open(t, filepath.Join(copied, "catalog.sqlite"))
		s, err := again.Stats(t.Context())
		if err != nil || s.Blocks != int64(seq)+1 {
			t.Fatalf("after %d commits: %+v, %v", seq+1, s, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A log whose end was torn off by a crash opens with a prefix of the commits.
func TestTornLogOpensWithAPrefix(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "catalog.sqlite"))
	for seq := range uint64(20) {
		if err := db.CommitArchive(t.Context(), archiveStep(seq)); err != nil {
			t.Fatal(err)
		}
	}
	main, err := os.ReadFile(filepath.Join(dir, "catalog.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(filepath.Join(dir, "catalog.sqlite-wal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	last := uint64(20)
	for _, cut := range []int{1, 5000, 20_000, 50_000} {
		torn := t.TempDir()
		path := filepath.Join(torn, "catalog.sqlite")
		if err := errors.Join(os.WriteFile(path, main, 0o600), os.WriteFile(path+"-wal", wal[:len(wal)-cut], 0o600)); err != nil {
			t.Fatal(err)
		}
		db := open(t, path)
		c, err := db.Checkpoint(t.Context(), catalog.ConsumerArchive, shard)
		if err != nil {
			t.Fatal(err)
		}
		s, err := db.Stats(t.Context())
		if err != nil || c.Seq > last || uint64(s.Blocks) != c.Seq || uint64(s.Packs) != c.Seq {
			t.Fatalf("cut %d: checkpoint %+v, %+v, %v", cut, c, s, err)
		}
		last = c.Seq
		if err := db.CommitArchive(t.Context(), archiveStep(c.Seq)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewerCatalogIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.sqlite")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "version 1000") {
		t.Fatalf("got %v", err)
	}
}

func TestForeignFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.sqlite")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a foreign file was opened")
	}
	if _, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "no", "folder", "catalog.sqlite"), slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a catalog was opened in a folder that does not exist")
	}
}

func TestPathsNeedNoQuoting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%20é&x=y")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := open(t, filepath.Join(dir, "catalog.sqlite")).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "catalog.sqlite")); err != nil {
		t.Fatal(err)
	}
}
