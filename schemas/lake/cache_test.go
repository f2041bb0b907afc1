package lake_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gocloud.dev/blob/memblob"

	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

// openCounted is a lake over memory that counts and can fail.
func openCounted(t *testing.T, opts lake.Options) (*lake.Lake, *laketest.Faults) {
	t.Helper()
	f := laketest.NewFaults(lake.NewCloud(memblob.OpenBucket(nil)))
	if opts.CacheDir == "" {
		opts.CacheDir = t.TempDir()
	}
	l, err := lake.New(f, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l, f
}

func localBytes(t *testing.T, l *lake.Lake, key string) (string, []byte) {
	t.Helper()
	path, err := l.LocalPath(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestLocalPathOfFolderIsTheObject(t *testing.T) {
	dir := t.TempDir()
	l, err := lake.Open(t.Context(), "file://"+dir, lake.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeLake(t, l)
	key := lake.ViewKey("log_entries", 0, []byte("parquet"))
	if err := l.Put(t.Context(), key, []byte("parquet")); err != nil {
		t.Fatal(err)
	}
	path, data := localBytes(t, l, key)
	if path != filepath.Join(dir, key) || string(data) != "parquet" {
		t.Errorf("LocalPath = %s with %q", path, data)
	}
	if _, err := l.LocalPath(t.Context(), "views/none"); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("LocalPath of a missing object: %v, want ErrNotFound", err)
	}
}

func TestLocalCopyIsFetchedOnce(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	want := laketest.Bytes(1, 50_000)
	if err := l.Put(t.Context(), "views/a", want); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			path, err := l.LocalPath(t.Context(), "views/a")
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("copy differs: %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := faults.Count(laketest.OpRead); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
	if _, err := l.LocalPath(t.Context(), "views/none"); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("LocalPath of a missing object: %v, want ErrNotFound", err)
	}
}

func TestLocalCopyMayVanishOrRotAtAnyTime(t *testing.T) {
	cache := t.TempDir()
	l, faults := openCounted(t, lake.Options{CacheDir: cache})
	want := laketest.Bytes(2, 10_000)
	if err := l.Put(t.Context(), "views/a", want); err != nil {
		t.Fatal(err)
	}
	check := func(what string, l *lake.Lake) string {
		t.Helper()
		path, got := localBytes(t, l, "views/a")
		if !bytes.Equal(got, want) {
			t.Errorf("%s: copy differs", what)
		}
		return path
	}
	path := check("first", l)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("file removed", l)
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	check("file cut", l)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	check("folder removed", l)
	if n := faults.Count(laketest.OpRead); n != 4 {
		t.Errorf("fetched %d times, want 4", n)
	}

	reopen := func() *lake.Lake {
		t.Helper()
		again, err := lake.New(faults, lake.Options{CacheDir: cache})
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	check("kept over a restart", reopen())
	if n := faults.Count(laketest.OpRead); n != 4 {
		t.Errorf("fetched %d times after a restart, want 4 still", n)
	}
	rotten := bytes.Clone(want)
	rotten[777] ^= 1
	if err := os.WriteFile(path, rotten, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "half-written"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := reopen()
	check("rotten at a restart", again)
	if n := faults.Count(laketest.OpRead); n != 5 {
		t.Errorf("fetched %d times after rot, want 5", n)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "half-written")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-written file is still there: %v", err)
	}
	closeLake(t, l)
}

func TestLocalCopiesAreBounded(t *testing.T) {
	l, _ := openCounted(t, lake.Options{CacheBytes: 10_000})
	defer closeLake(t, l)
	for i := range 4 {
		if err := l.Put(t.Context(), fmt.Sprintf("views/%d", i), laketest.Bytes(uint64(i), 3000)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		localBytes(t, l, fmt.Sprintf("views/%d", i))
	}
	// All three may be about to be opened, so there is no room for a fourth.
	if _, err := l.LocalPath(t.Context(), "views/3"); !errors.Is(err, lake.ErrCacheFull) {
		t.Errorf("LocalPath beyond the bound: %v, want ErrCacheFull", err)
	}
	for i := range 3 {
		localBytes(t, l, fmt.Sprintf("views/%d", i))
	}
}

func TestLocalCopyFetchFails(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	if err := l.Put(t.Context(), "views/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	faults.Decide(func(op laketest.Op, _ string) laketest.Fault { return laketest.Fault{After: op == laketest.OpRead} })
	if _, err := l.LocalPath(t.Context(), "views/a"); !errors.Is(err, laketest.ErrInjected) {
		t.Errorf("LocalPath = %v, want the injected fault", err)
	}
	faults.Decide(nil)
	localBytes(t, l, "views/a")
}
