package lake_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// TestLakeAndCatalogTogether archives packs, an oversize body and partitions with a real catalog, then collects: everything
// that a row names stays and is readable by position; orphans and long-retired partitions go.
func TestLakeAndCatalogTogether(t *testing.T) {
	dir := t.TempDir()
	l, err := lake.Open(t.Context(), "file://"+filepath.Join(dir, "lake"), lake.Options{CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	defer closeLake(t, l)
	cat, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cat.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := cat.OpenGeneration(t.Context(), catalog.Generation{ShardID: eager0, Stream: "s", Created: 1, FirstSeq: 1}); err != nil {
		t.Fatal(err)
	}
	lease, err := cat.AcquireLease(t.Context(), "archive/e/1", "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}

	var all []bus.Frame
	claim := lake.ClaimKey(telemetry.NewID())
	if err := l.Put(t.Context(), claim, []byte("a body too large for a frame")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		fs := frames(uint64(i*10+1), 10, 2000)
		pack := mustPutPack(t, l, fs)
		mustPutPack(t, l, fs) // of a commit that failed: an orphan
		commit := &catalog.ArchiveCommit{Shard: eager0, From: uint64(i * 10), To: uint64(i*10 + 10), Epoch: lease.Epoch, Pack: &pack}
		if i == 1 {
			commit.Adopted = []catalog.Pack{{Shard: eager0, FirstSeq: 15, LastSeq: 15, Key: claim, Size: 28, Created: 1, Adopted: true}}
			commit.Blocks = []catalog.BlockReg{{
				Block:      telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.NewID(), BeginTime: 1000, EndTime: 2000},
				InsertTime: 3000, PackLength: 28, PayloadSize: 20, Adopted: 1,
			}}
		}
		if err := cat.CommitArchive(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
		all = append(all, fs...)
	}
	live, retired, orphan := lake.ViewKey("log_entries", 0, nil), lake.ViewKey("log_entries", 0, nil), lake.ViewKey("log_entries", 0, nil)
	for _, key := range []string{live, retired, orphan} {
		if err := l.Put(t.Context(), key, []byte("parquet")); err != nil {
			t.Fatal(err)
		}
	}
	retirePartition(t, cat, live, retired)
	before := listKeys(t, l)

	// Young orphans stay; a row that was retired just now does too.
	if got, err := l.GC(t.Context(), cat, lake.GCOptions{}); err != nil || got.Orphans+got.Retired != 0 {
		t.Errorf("right away: %+v, %v", got, err)
	}
	if d := cmp.Diff(before, listKeys(t, l)); d != "" {
		t.Errorf("right away: %s", d)
	}
	got, err := l.GC(t.Context(), cat, lake.GCOptions{Ahead: 2 * time.Hour, ClaimOnBus: func(lake.Object) bool { return false }})
	if err != nil || got.Orphans != 4 || got.Retired != 1 || got.Failures != 0 {
		t.Errorf("later: %+v, %v; want 4 orphans and 1 retired", got, err)
	}
	if left := listKeys(t, l); len(left) != 5 || !slices.Contains(left, claim) || !slices.Contains(left, live) {
		t.Errorf("left: %q", left)
	}
	packs := &lake.Packs{Lake: l, Catalog: cat}
	for after := uint64(0); after < 30; after += 7 {
		fs, err := packs.NextFrames(t.Context(), position(after))
		if err != nil || len(fs) == 0 || !sameFrame(fs[0], all[after]) {
			t.Errorf("frames after %d: %d, %v", after, len(fs), err)
		}
	}
}

// retirePartition commits two partitions and retires the second.
func retirePartition(t *testing.T, cat catalog.Catalog, live, retired string) {
	t.Helper()
	part := func(key string) catalog.Partition {
		return catalog.Partition{View: "log_entries", MinTime: 1, MaxTime: 2, MinInsert: 1, MaxInsert: 2, Rows: 1, Size: 7, SchemaVer: 1, Key: key}
	}
	if _, err := cat.CommitView(t.Context(), &catalog.ViewCommit{Added: []catalog.Partition{part(live), part(retired)}}); err != nil {
		t.Fatal(err)
	}
	delta, err := cat.Partitions(t.Context(), 0)
	if err != nil || len(delta.Added) != 2 {
		t.Fatalf("partitions = %+v, %v", delta, err)
	}
	for _, p := range delta.Added {
		if p.Key == retired {
			if _, err := cat.CommitView(t.Context(), &catalog.ViewCommit{Retired: []int64{p.PartNo}}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkNextFrames is a reader that continues from packs: catalog, 4 MiB pack, checks.
func BenchmarkNextFrames(b *testing.B) {
	l, err := lake.Open(b.Context(), "file://"+b.TempDir(), lake.Options{CacheDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	rows := &packList{}
	for i := range 4 {
		p, _, err := l.PutPack(b.Context(), eager0, frames(uint64(i*5+1), 5, 816<<10))
		if err != nil {
			b.Fatal(err)
		}
		rows.packs = append(rows.packs, p)
	}
	packs := &lake.Packs{Lake: l, Catalog: rows, CacheBytes: -1}
	b.SetBytes(4 * rows.packs[0].Size)
	b.ReportAllocs()
	for b.Loop() {
		for after := uint64(0); ; {
			fs, err := packs.NextFrames(b.Context(), position(after))
			if err != nil {
				b.Fatal(fmt.Errorf("after %d: %w", after, err))
			}
			if fs == nil {
				break
			}
			after = fs[len(fs)-1].Seq
		}
	}
}
