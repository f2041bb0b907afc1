package lake

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"
)

func TestCacheEvictsTheLeastRecentlyUsedAfterTheHold(t *testing.T) {
	b := NewCloud(memblob.OpenBucket(nil))
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := openCache(filepath.Join(t.TempDir(), "objects"), 250, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if err := b.Put(t.Context(), key, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	paths := map[string]string{}
	for _, key := range []string{"a", "b", "a"} {
		if paths[key], err = c.local(t.Context(), Ref{Key: key, Size: 100}); err != nil {
			t.Fatal(err)
		}
	}
	c.mu.Lock()
	for _, e := range c.byID {
		f := e.Value.(*fileCopy)
		f.held = f.held.Add(-CopyHold - time.Second)
	}
	c.mu.Unlock()
	if paths["c"], err = c.local(t.Context(), Ref{Key: "c", Size: -1}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, err := os.Stat(paths[key]); (err == nil) != want {
			t.Errorf("copy of %s is there: %t, want %t", key, err == nil, want)
		}
	}
	if s := c.snapshot(); s.Bytes != 200 || len(c.byID) != 2 || c.order.Len() != 2 {
		t.Errorf("counts %d bytes, %d copies", c.stats.Bytes, len(c.byID))
	}
}
