package lake_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/lake"
)

// brokenFS fails one kind of step, as a full or dying disk does.
type brokenFS struct {
	lake.FS
	step string
}

func (b *brokenFS) fail(step string) error {
	if b.step == step {
		return syscall.ENOSPC
	}
	return nil
}

func (b *brokenFS) Mkdir(path string) error {
	return errors.Join(b.fail("mkdir"), b.FS.Mkdir(path))
}

func (b *brokenFS) Rename(from, to string) error {
	if err := b.fail("rename"); err != nil {
		return err
	}
	return b.FS.Rename(from, to)
}

func (b *brokenFS) SyncDir(path string) error {
	if err := b.fail("syncdir"); err != nil {
		return err
	}
	return b.FS.SyncDir(path)
}

func (b *brokenFS) Create(path string) (lake.File, error) {
	if err := b.fail("create"); err != nil {
		return nil, err
	}
	f, err := b.FS.Create(path)
	return &brokenFile{f, b}, err
}

type brokenFile struct {
	lake.File
	fs *brokenFS
}

func (f *brokenFile) Write(p []byte) (int, error) {
	if err := f.fs.fail("write"); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f *brokenFile) Sync() error  { return errors.Join(f.fs.fail("sync"), f.File.Sync()) }
func (f *brokenFile) Close() error { return errors.Join(f.fs.fail("close"), f.File.Close()) }

// TestFolderReportsEveryFailedStep: a Put that could not finish says so, leaves no temporary file, keeps what was there
// before whole, and succeeds when the disk is well again.
func TestFolderReportsEveryFailedStep(t *testing.T) {
	for _, step := range []string{"create", "write", "sync", "close", "mkdir", "rename", "syncdir"} {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			fsys := &brokenFS{FS: lake.OS()}
			b, err := lake.NewFolder(dir, fsys)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Put(t.Context(), "packs/old", []byte("old")); err != nil {
				t.Fatal(err)
			}
			fsys.step = step
			for _, key := range []string{"packs/old", "views/new"} {
				if step == "mkdir" && key == "packs/old" {
					continue // its folder is there and known
				}
				if err := b.Put(t.Context(), key, []byte("new")); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("put %s: %v, want no space", key, err)
				}
			}
			if got, err := b.Read(t.Context(), "packs/old", 0, -1); err != nil || string(got) != "old" && string(got) != "new" {
				t.Errorf("the old object reads %q, %v", got, err)
			}
			if left, err := os.ReadDir(filepath.Join(dir, ".tmp")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			fsys.step = ""
			for _, key := range []string{"packs/old", "views/new"} {
				if err := b.Put(t.Context(), key, []byte("new")); err != nil {
					t.Errorf("put %s afterwards: %v", key, err)
				}
				if got, err := b.Read(t.Context(), key, 0, -1); err != nil || string(got) != "new" {
					t.Errorf("%s afterwards reads %q, %v", key, got, err)
				}
			}
		})
	}
}
