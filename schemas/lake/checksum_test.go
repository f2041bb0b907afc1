package lake_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

// damaged asks for an object in both ways that read it whole; each must refuse it.
func damaged(t *testing.T, l *lake.Lake, f lake.Ref, what string) {
	t.Helper()
	if _, err := l.LocalPaths(t.Context(), []lake.Ref{f}); !errors.Is(err, lake.ErrDamaged) {
		t.Errorf("%s: LocalPaths: %v, want ErrDamaged", what, err)
	}
	if _, err := l.Get(t.Context(), f.Key); !errors.Is(err, lake.ErrDamaged) {
		t.Errorf("%s: Get: %v, want ErrDamaged", what, err)
	}
}

// TestDamagedFilesOfAFolder flips each bit of a view's file and cuts it at each length, while the lake is open and has seen it whole.
func TestDamagedFilesOfAFolder(t *testing.T) {
	l := openLake(t, "file://"+t.TempDir(), lake.Options{})
	data := laketest.Bytes(1, 200)
	f := lake.Ref{Key: lake.ViewKey("measures", 0, data), Size: int64(len(data))}
	if err := l.Put(t.Context(), f.Key, data); err != nil {
		t.Fatal(err)
	}
	path, err := l.LocalPath(t.Context(), f.Key)
	if err != nil {
		t.Fatal(err)
	}
	// A file system's clock may be too coarse to tell two writes apart.
	now := time.Now()
	write := func(b []byte) {
		t.Helper()
		now = now.Add(time.Second)
		if err := errors.Join(os.WriteFile(path, b, 0o644), os.Chtimes(path, now, now)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range data {
		for bit := range 8 {
			bad := slices.Clone(data)
			bad[i] ^= 1 << bit
			write(bad)
			damaged(t, l, f, "a flipped bit")
		}
		write(data[:i])
		damaged(t, l, f, "a cut file")
	}
	write(data)
	if got, err := l.LocalPaths(t.Context(), []lake.Ref{f}); err != nil || got[0] != path {
		t.Errorf("the file as it was: %q, %v", got, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := l.LocalPaths(t.Context(), []lake.Ref{f}); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("a file that is gone: %v, want ErrNotFound", err)
	}
}

// TestDamageAmongMany: one bad file fails the call that names it, and no other.
func TestDamageAmongMany(t *testing.T) {
	l := openLake(t, "file://"+t.TempDir(), lake.Options{})
	var refs []lake.Ref
	for i := range 40 {
		data := laketest.Bytes(uint64(i), 1000)
		refs = append(refs, lake.Ref{Key: lake.ViewKey("measures", 0, data), Size: 1000})
		if err := l.Put(t.Context(), refs[i].Key, data); err != nil {
			t.Fatal(err)
		}
	}
	flip(t, filepath.Join(l.Root(), filepath.FromSlash(refs[20].Key)), 500, 4)
	damaged(t, l, refs[20], "one of 40")
	if _, err := l.LocalPaths(t.Context(), refs); !errors.Is(err, lake.ErrDamaged) {
		t.Errorf("40 files, one of them damaged: %v", err)
	}
	sound := slices.Delete(slices.Clone(refs), 20, 21)
	if paths, err := l.LocalPaths(t.Context(), sound); err != nil || len(paths) != 39 {
		t.Errorf("the other 39: %d paths, %v", len(paths), err)
	}
}

// TestDamagedObjectsOfAStore: what a store hands out must be what was put, whether it comes as a whole or in pieces.
func TestDamagedObjectsOfAStore(t *testing.T) {
	l, _ := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	for _, size := range []int{1000, 8<<20 + 1} {
		data := laketest.Bytes(1, size)
		f := lake.Ref{Key: lake.ViewKey("measures", 0, data), Size: int64(size)}
		data[size/2] ^= 1
		if err := l.Put(t.Context(), f.Key, data); err != nil {
			t.Fatal(err)
		}
		damaged(t, l, f, "another object under the key")
		data[size/2] ^= 1
		if err := l.Put(t.Context(), f.Key, data); err != nil {
			t.Fatal(err)
		}
		if _, err := l.LocalPaths(t.Context(), []lake.Ref{f}); err != nil {
			t.Errorf("the object as it was: %v", err)
		}
	}
}

// TestKeysWithoutChecksum: files of earlier versions are read as they are.
func TestKeysWithoutChecksum(t *testing.T) {
	l := openLake(t, "file://"+t.TempDir(), lake.Options{})
	for _, key := range []string{"views/measures/2026-11-28/1500-0b5c2a86-5b0e-4a44-8f0e-4c0d8a6f0a11.parquet", "views/clock/0b5c2a86-5b0e-4a44-8f0e-4c0d8a6f0a11", "views/a.parquet"} {
		if err := l.Put(t.Context(), key, []byte("older")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.LocalPaths(t.Context(), []lake.Ref{{Key: key, Size: 5}}); err != nil {
			t.Error(err)
		}
		if got, err := l.Get(t.Context(), key); err != nil || string(got) != "older" {
			t.Errorf("%s: %q, %v", key, got, err)
		}
		if _, err := l.LocalPaths(t.Context(), []lake.Ref{{Key: key, Size: 6}}); !errors.Is(err, lake.ErrDamaged) {
			t.Errorf("%s, cut: %v, want ErrDamaged", key, err)
		}
	}
}
