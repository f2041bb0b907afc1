// Package laketest is what any bucket of the lake must do, as tests, and the faults that tests of the stages above inject:
// failing, slow and torn operations, and power loss under a folder bucket.
package laketest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Run tests a kind of bucket. Open makes a new, empty one; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) lake.Bucket) {
	tests := map[string]func(t *testing.T, b lake.Bucket){
		"put then read":                    putThenRead,
		"read ranges":                      readRanges,
		"missing objects":                  missingObjects,
		"put replaces":                     putReplaces,
		"put does not keep the buffer":     putDoesNotKeep,
		"delete":                           deleteObjects,
		"list in order of keys":            listInOrder,
		"list ends when the reader leaves": listEnds,
		"cancelled context":                cancelledContext,
		"puts of one key are whole":        putsAreWhole,
		"many puts at once":                manyPuts,
	}
	for name, test := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			b := open(t)
			defer func() {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			test(t, b)
		})
	}
}

// Bytes makes n bytes that differ by seed.
func Bytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

func mustPut(t *testing.T, b lake.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), key, data); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func mustRead(t *testing.T, b lake.Bucket, key string) []byte {
	t.Helper()
	data, err := b.Read(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return data
}

func putThenRead(t *testing.T, b lake.Bucket) {
	for i, size := range []int{0, 1, 4095, 65536, 5 << 20} {
		key := fmt.Sprintf("packs/e/%d/a-%d.pack", i, size)
		want := Bytes(uint64(i), size)
		mustPut(t, b, key, want)
		if got := mustRead(t, b, key); !bytes.Equal(got, want) {
			t.Errorf("object of %d bytes came back different (%d bytes)", size, len(got))
		}
		o, err := b.Stat(t.Context(), key)
		if err != nil || o.Size != int64(size) || o.Key != key || o.ModTime.IsZero() {
			t.Errorf("Stat(%s) = %+v, %v", key, o, err)
		}
	}
}

func readRanges(t *testing.T, b lake.Bucket) {
	data := Bytes(1, 1000)
	mustPut(t, b, "a/b", data)
	for _, c := range []struct {
		off, n int64
		want   []byte // nil: an error
	}{
		{0, 1000, data},
		{0, -1, data},
		{10, 20, data[10:30]},
		{999, 1, data[999:]},
		{990, -1, data[990:]},
		{990, 11, nil},
		{0, 1001, nil},
		{1001, 1, nil},
		{2000, -1, nil},
		{-1, 5, nil},
		{5, 1 << 62, nil},
		{1 << 62, 1 << 62, nil},
	} {
		got, err := b.Read(t.Context(), "a/b", c.off, c.n)
		if (err != nil) != (c.want == nil) {
			t.Errorf("Read(%d, %d) error = %v, want one: %t", c.off, c.n, err, c.want == nil)
		} else if !bytes.Equal(got, c.want) {
			t.Errorf("Read(%d, %d) = %d bytes, want %d", c.off, c.n, len(got), len(c.want))
		}
	}
}

func missingObjects(t *testing.T, b lake.Bucket) {
	mustPut(t, b, "a/b/c", []byte("x"))
	for _, key := range []string{"none", "a/none", "a/b", "a/b/c/d", "x/y/z"} {
		if _, err := b.Read(t.Context(), key, 0, -1); !errors.Is(err, lake.ErrNotFound) {
			t.Errorf("Read(%s) error = %v, want ErrNotFound", key, err)
		}
		if _, err := b.Stat(t.Context(), key); !errors.Is(err, lake.ErrNotFound) {
			t.Errorf("Stat(%s) error = %v, want ErrNotFound", key, err)
		}
	}
}

func putReplaces(t *testing.T, b lake.Bucket) {
	for _, want := range []string{"first", "first", "a longer second", ""} {
		mustPut(t, b, "k/v", []byte(want))
		if got := string(mustRead(t, b, "k/v")); got != want {
			t.Errorf("after put of %q read %q", want, got)
		}
	}
}

func putDoesNotKeep(t *testing.T, b lake.Bucket) {
	data := Bytes(3, 10000)
	want := bytes.Clone(data)
	mustPut(t, b, "k/v", data)
	clear(data)
	if got := mustRead(t, b, "k/v"); !bytes.Equal(got, want) {
		t.Error("the object changed with the caller's buffer")
	}
}

func deleteObjects(t *testing.T, b lake.Bucket) {
	mustPut(t, b, "a/b", []byte("x"))
	mustPut(t, b, "a/c", []byte("y"))
	for _, key := range []string{"a/b", "a/b", "a/none", "none/none"} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%s): %v", key, err)
		}
	}
	if _, err := b.Stat(t.Context(), "a/b"); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("a deleted object is still there: %v", err)
	}
	if got := string(mustRead(t, b, "a/c")); got != "y" {
		t.Errorf("its neighbour reads %q", got)
	}
	mustPut(t, b, "a/b", []byte("again"))
}

func listInOrder(t *testing.T, b lake.Bucket) {
	all := []string{"a-b/c", "a.b", "a/b.x", "a/b/c", "a/b/d", "a/b0", "a/c", "a0", "b/x", "packs/e/1"}
	for i := range all {
		mustPut(t, b, all[len(all)-1-i], Bytes(0, i))
	}
	f := func(prefix string, want ...string) {
		t.Helper()
		var got []string
		for o, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatalf("list %q: %v", prefix, err)
			}
			if want := int64(len(all) - 1 - indexOf(all, o.Key)); o.Size != want || o.ModTime.IsZero() {
				t.Errorf("listed %+v, want %d bytes and a time", o, want)
			}
			got = append(got, o.Key)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("list %q (-want +got):\n%s", prefix, d)
		}
	}
	f("", all...)
	f("a/", "a/b.x", "a/b/c", "a/b/d", "a/b0", "a/c")
	f("a/b", "a/b.x", "a/b/c", "a/b/d", "a/b0")
	f("a/b/", "a/b/c", "a/b/d")
	f("a", "a-b/c", "a.b", "a/b.x", "a/b/c", "a/b/d", "a/b0", "a/c", "a0")
	f("a/b/c", "a/b/c")
	f("a/b/c/")
	f("none/")
	f("pack", "packs/e/1")
}

func indexOf(all []string, key string) int {
	for i := range all {
		if all[i] == key {
			return i
		}
	}
	return -1
}

func listEnds(t *testing.T, b lake.Bucket) {
	for i := range 10 {
		mustPut(t, b, fmt.Sprintf("a/%d/x", i), nil)
	}
	n := 0
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("read %d objects, want 3", n)
	}
}

func cancelledContext(t *testing.T, b lake.Bucket) {
	mustPut(t, b, "a/b", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Put(ctx, "a/c", []byte("y")); err == nil {
		t.Error("Put with a cancelled context returned nil")
	}
	if _, err := b.Stat(t.Context(), "a/c"); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("Put with a cancelled context left something: %v", err)
	}
}

// putsAreWhole overwrites one key from several writers while readers look: they must see one of the versions, whole.
func putsAreWhole(t *testing.T, b lake.Bucket) {
	const writers, rounds, size = 4, 20, 100_000
	versions := make([][]byte, writers)
	for i := range versions {
		versions[i] = bytes.Repeat([]byte{byte('a' + i)}, size+i)
	}
	mustPut(t, b, "k/v", versions[0])
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range rounds {
				if err := b.Put(t.Context(), "k/v", versions[i]); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range rounds * 2 {
				got, err := b.Read(t.Context(), "k/v", 0, -1)
				if err != nil || len(got) < size || !bytes.Equal(got, versions[got[0]-'a']) {
					t.Errorf("read a mixture: %d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func manyPuts(t *testing.T, b lake.Bucket) {
	const n = 64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			key := fmt.Sprintf("d%d/e%d/%d", i%3, i%5, i)
			if err := b.Put(t.Context(), key, Bytes(uint64(i), 1000)); err != nil {
				t.Errorf("put %s: %v", key, err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		if got := mustRead(t, b, fmt.Sprintf("d%d/e%d/%d", i%3, i%5, i)); !bytes.Equal(got, Bytes(uint64(i), 1000)) {
			t.Errorf("object %d differs", i)
		}
	}
}
