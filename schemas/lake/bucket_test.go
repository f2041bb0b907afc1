package lake_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

func newFolder(t *testing.T, dir string) *lake.Folder {
	t.Helper()
	b, err := lake.NewFolder(dir, lake.OS())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuckets(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		laketest.Run(t, func(t *testing.T) lake.Bucket { return newFolder(t, filepath.Join(t.TempDir(), "made", "here")) })
	})
	t.Run("memory", func(t *testing.T) {
		laketest.Run(t, func(*testing.T) lake.Bucket { return lake.NewCloud(memblob.OpenBucket(nil)) })
	})
	t.Run("faults", func(t *testing.T) {
		laketest.Run(t, func(*testing.T) lake.Bucket { return laketest.NewFaults(lake.NewCloud(memblob.OpenBucket(nil))) })
	})
}

func TestFolderListsOnlyItsObjects(t *testing.T) {
	dir := t.TempDir()
	b := newFolder(t, dir)
	if err := b.Put(t.Context(), "packs/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".hidden", ".tmp/left", "packs/.swp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("y"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "packs", "link")); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if got := strings.Join(keys, " "); got != "packs/a" {
		t.Errorf("listed %q, want packs/a only", got)
	}
}

func TestFolderLeavesNoTemporaryFileBehind(t *testing.T) {
	dir := t.TempDir()
	b := newFolder(t, dir)
	if err := b.Put(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	// The name is taken by a folder, so the last step fails.
	if err := b.Put(t.Context(), "a", []byte("x")); err == nil {
		t.Error("an object replaced a folder")
	}
	if err := b.Put(t.Context(), "a/b/c", []byte("x")); err == nil {
		t.Error("an object became a folder")
	}
	left, err := os.ReadDir(filepath.Join(dir, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFolderSweepsOldTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	b := newFolder(t, dir)
	for _, name := range []string{"old", "new"} {
		if err := os.WriteFile(filepath.Join(dir, ".tmp", name), []byte("y"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hourAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".tmp", "old"), hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	n, err := b.SweepTemp(t.Context(), hourAgo.Add(time.Minute))
	if n != 1 || err != nil {
		t.Errorf("SweepTemp = %d, %v; want 1", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".tmp", "new")); err != nil {
		t.Errorf("the new one is gone: %v", err)
	}
}

func TestOpenURIs(t *testing.T) {
	dir := t.TempDir()
	uri, err := lake.FolderURI(filepath.Join(dir, "with space"))
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{uri, "file://" + dir, "file://localhost" + dir, "mem://"} {
		l, err := lake.Open(t.Context(), good, lake.Options{})
		if err != nil {
			t.Errorf("Open(%s): %v", good, err)
			continue
		}
		if err := l.Put(t.Context(), "packs/x", []byte("1")); err != nil {
			t.Errorf("Put in %s: %v", good, err)
		}
		if err := l.Ping(t.Context()); err != nil {
			t.Errorf("Ping of %s: %v", good, err)
		}
		if (l.Root() == "") != (good == "mem://") {
			t.Errorf("Root of %s = %q", good, l.Root())
		}
		cache := l.CacheDir()
		if err := l.Close(); err != nil {
			t.Errorf("Close of %s: %v", good, err)
		}
		if _, err := os.Stat(cache); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("temporary cache folder of %s is still there", good)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "relative/path", dir, "file://relative/path", "file:relative", "file://host" + dir, "s3://secret-key@bucket", "mem://x",
		"file://" + dir + "?a=b", "file://user:secret@" + dir, "file://" + file, ":", "http://x",
	} {
		l, err := lake.Open(t.Context(), bad, lake.Options{})
		if err == nil {
			t.Errorf("Open(%q) succeeded", bad)
			_ = l.Close()
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) error shows a credential: %v", bad, err)
		}
	}
}

func TestLakeRefusesBadKeys(t *testing.T) {
	l := openMem(t)
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "../x", ".tmp/x", "a/.b", "a\\b", "a b", "a\x00", "ä", "a:b", "a?b",
		strings.Repeat("a", 513), strings.Repeat("a", 256), "%2e%2e/x",
	} {
		if err := l.Put(t.Context(), key, nil); err == nil {
			t.Errorf("Put(%.20q) succeeded", key)
		}
		if _, err := l.Get(t.Context(), key); err == nil || errors.Is(err, lake.ErrNotFound) {
			t.Errorf("Get(%.20q) error = %v", key, err)
		}
		if err := l.Delete(t.Context(), key); err == nil {
			t.Errorf("Delete(%.20q) succeeded", key)
		}
		if _, err := l.LocalPath(t.Context(), key); err == nil || errors.Is(err, lake.ErrNotFound) {
			t.Errorf("LocalPath(%.20q) error = %v", key, err)
		}
	}
	for _, prefix := range []string{"/", "../", "a//", ".tmp"} {
		for _, err := range l.List(t.Context(), prefix) {
			if err == nil {
				t.Errorf("List(%q) gave an object", prefix)
			}
		}
	}
}

func openMem(t *testing.T) *lake.Lake {
	t.Helper()
	l, err := lake.Open(t.Context(), "mem://", lake.Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLake(t, l) })
	return l
}

func closeLake(t *testing.T, l *lake.Lake) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Errorf("close lake: %v", err)
	}
}
