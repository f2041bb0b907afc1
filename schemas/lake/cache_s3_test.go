package lake_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

// world is an S3 server behind a proxy with objects in it.
type world struct {
	server *parts.S3
	faults *parts.HTTPFaults
	uri    string
	refs   []lake.Ref
	data   [][]byte
}

// newWorld puts n objects of a size.
func newWorld(t *testing.T, n, size int) *world {
	t.Helper()
	w := &world{server: startS3(t)}
	w.faults = startFaults(t, w.server)
	w.uri = w.server.URIAt(w.faults.URL(), "lake")
	l := openLake(t, w.server.URI("lake"), lake.Options{})
	for i := range n {
		w.data = append(w.data, laketest.Bytes(uint64(i), size))
		w.refs = append(w.refs, lake.Ref{Key: lake.ViewKey("measures", int64(i), w.data[i]), Size: int64(size)})
		if err := l.Put(t.Context(), w.refs[i].Key, w.data[i]); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// check asks for all objects and compares them.
func (w *world) check(t *testing.T, l *lake.Lake) []string {
	t.Helper()
	paths, err := l.LocalPaths(t.Context(), w.refs)
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, w.data[i]) {
			t.Fatalf("copy of %s differs: %d bytes, %v", w.refs[i].Key, len(got), err)
		}
	}
	return paths
}

// TestColdCacheIsFast brings 100 objects from a store that takes 20 ms for each request, then finds them.
func TestColdCacheIsFast(t *testing.T) {
	w := newWorld(t, 100, 100_000)
	l := openLake(t, w.uri, lake.Options{})
	w.faults.Set(parts.Faults{Latency: 20 * time.Millisecond}, 1)
	before := w.faults.Counts()
	begun := time.Now()
	w.check(t, l)
	cold := time.Since(begun)
	begun = time.Now()
	w.check(t, l)
	warm := time.Since(begun)
	c, s := w.faults.Counts(), l.CacheStats()
	t.Logf("100 objects of 100 kB, 20 ms a request: cold %s, warm %s, %d requests, %d at once", cold.Round(time.Millisecond), warm.Round(time.Millisecond), c.Requests-before.Requests, c.Peak)
	if c.Requests-before.Requests != 100 || c.Peak < 32 {
		t.Errorf("%d requests, %d at once; want one for each object, many at once", c.Requests-before.Requests, c.Peak)
	}
	if s.Hits != 100 || s.Misses != 100 || s.FetchedBytes != 100*100_000 || s.Bytes != s.FetchedBytes || s.Copies != 100 {
		t.Errorf("stats = %+v", s)
	}
}

func TestManyReadersShareOneFetch(t *testing.T) {
	w := newWorld(t, 4, 50_000)
	l := openLake(t, w.uri, lake.Options{})
	w.faults.Set(parts.Faults{Latency: 50 * time.Millisecond}, 1) // so that all are there before the first reply
	before := w.faults.Counts().Requests
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { w.check(t, l) })
		wg.Go(func() {
			for i, r := range w.refs {
				if got, err := l.GetRange(t.Context(), r.Key, 1000, 2000); err != nil || !bytes.Equal(got, w.data[i][1000:3000]) {
					t.Errorf("range of %s: %d bytes, %v", r.Key, len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if n := w.faults.Counts().Requests - before; n != 8 {
		t.Errorf("%d requests, want one for each object and one for each segment", n)
	}
}

// A fetch that nobody waits for any more is given up, and the next one succeeds.
func TestCancelledReaderLeaves(t *testing.T) {
	w := newWorld(t, 1, 50_000)
	l := openLake(t, w.uri, lake.Options{})
	w.faults.Set(parts.Faults{Timeout: 1, Hold: time.Hour}, 1)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := l.LocalPaths(ctx, w.refs); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("LocalPaths = %v", err)
		}
		cancel()
	}
	w.faults.Set(parts.Faults{}, 1)
	begun := time.Now()
	w.check(t, l)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the next reader waited %s for a request that was given up", took)
	}
}

// TestCacheUnderFaults reads through a network that loses one request in eight: nothing wrong may come, or stay.
func TestCacheUnderFaults(t *testing.T) {
	w := newWorld(t, 30, 200_000)
	l := openLake(t, w.uri, lake.Options{})
	w.faults.Set(parts.Faults{Torn: 0.1, Error500: 0.01, Error503: 0.01}, 5)
	var wg sync.WaitGroup
	for i, r := range w.refs {
		wg.Go(func() {
			off := int64(i * 1000)
			if got, err := l.GetRange(t.Context(), r.Key, off, 100_000); err != nil || !bytes.Equal(got, w.data[i][off:off+100_000]) {
				t.Errorf("range of %s: %d bytes, %v", r.Key, len(got), err)
			}
		})
	}
	w.check(t, l)
	wg.Wait()
	c, s := w.faults.Counts(), l.Stats().Requests
	t.Logf("%d operations, %d requests, %d went wrong (%d torn), %d tried again", s.Operations, c.Requests, c.Faults(), c.Torn, s.Retries)
	if c.Faults() == 0 || s.Retries != c.Faults() || s.Failures != 0 {
		t.Errorf("faults = %+v, stats = %+v", c, s)
	}
}

// The folder may be emptied or removed while it is used.
func TestCacheFolderVanishesUnderReaders(t *testing.T) {
	w := newWorld(t, 8, 20_000)
	dir := filepath.Join(t.TempDir(), "cache")
	l := openLake(t, w.uri, lake.Options{CacheDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			os.RemoveAll(filepath.Join(dir, "objects"))
		}
	})
	reads := 0
	for ctx.Err() == nil {
		paths, err := l.LocalPaths(t.Context(), w.refs)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		for i, path := range paths {
			got, err := os.ReadFile(path)
			if err == nil && !bytes.Equal(got, w.data[i]) {
				t.Fatalf("copy of %s differs", w.refs[i].Key)
			}
		}
		if got, err := l.GetRange(t.Context(), w.refs[0].Key, 5, 100); err != nil || !bytes.Equal(got, w.data[0][5:105]) {
			t.Fatalf("range: %d bytes, %v", len(got), err)
		}
		reads++
	}
	wg.Wait()
	w.check(t, l)
	t.Logf("%d rounds", reads)
}

// A bit that flips in the cache is found, whoever reads it next.
func TestFlippedBitsAreFound(t *testing.T) {
	w := newWorld(t, 3, 30_000)
	dir := t.TempDir()
	l := openLake(t, w.uri, lake.Options{CacheDir: dir})
	paths := w.check(t, l)
	if _, err := l.GetRange(t.Context(), w.refs[0].Key, 0, 10); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "objects", "*"))
	if err != nil || len(all) != 4 {
		t.Fatalf("copies: %q, %v", all, err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 20 {
		for _, path := range all {
			flip(t, path, random.Int64N(30_000), byte(1)<<random.IntN(8))
		}
		w.check(t, l)
		if got, err := l.GetRange(t.Context(), w.refs[0].Key, 1, 29_000); err != nil || !bytes.Equal(got, w.data[0][1:29_001]) {
			t.Fatalf("range: %d bytes, %v", len(got), err)
		}
		if s := l.CacheStats(); s.Damaged != int64(4*(round+1)) {
			t.Errorf("%d damaged copies were found, want %d", s.Damaged, 4*(round+1))
		}
	}
	// Rot does not change a file's time: what is read here is found all the same, the rest at the next start.
	for _, path := range all {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		flip(t, path, 7, 1)
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := l.GetRange(t.Context(), w.refs[0].Key, 0, 100); err != nil || !bytes.Equal(got, w.data[0][:100]) {
		t.Errorf("range: %d bytes, %v", len(got), err)
	}
	if got, err := l.Get(t.Context(), w.refs[1].Key); err != nil || !bytes.Equal(got, w.data[1]) {
		t.Errorf("object: %d bytes, %v", len(got), err)
	}
	again := openLake(t, w.uri, lake.Options{CacheDir: dir})
	if got := w.check(t, again); got[0] != paths[0] {
		t.Errorf("path of a copy changed from %s to %s", paths[0], got[0])
	}
}

func flip(t *testing.T, path string, at int64, bit byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bit
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestCacheBoundsHold reads ranges of more than fits, from many readers, and looks at the folder all the time.
func TestCacheBoundsHold(t *testing.T) {
	const limit = 4 << 20
	w := newWorld(t, 10, 1_500_000) // two segments each
	dir := t.TempDir()
	l := openLake(t, w.uri, lake.Options{CacheDir: dir, CacheBytes: limit})
	var readers, watcher sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	most := int64(0)
	watcher.Go(func() {
		for ctx.Err() == nil {
			most = max(most, l.CacheStats().Bytes)
		}
	})
	for seed := range uint64(8) {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for range 25 {
				i, off := random.IntN(len(w.refs)), random.Int64N(1_400_000)
				if got, err := l.GetRange(t.Context(), w.refs[i].Key, off, 50_000); err != nil || !bytes.Equal(got, w.data[i][off:off+50_000]) {
					t.Errorf("range of %s: %d bytes, %v", w.refs[i].Key, len(got), err)
				}
			}
		})
	}
	readers.Wait()
	cancel()
	watcher.Wait()
	onDisk := int64(0)
	entries, err := os.ReadDir(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			onDisk += info.Size()
		}
	}
	s := l.CacheStats()
	if most > limit || onDisk != s.Bytes || s.Evicted == 0 || s.MaxBytes != limit || int(s.Copies) != len(entries) {
		t.Errorf("at most %d bytes, %d in %d files now; stats %+v", most, onDisk, len(entries), s)
	}
	// Objects whose paths were given out are in use: they are not thrown out for others.
	if _, err := l.LocalPaths(t.Context(), w.refs); !errors.Is(err, lake.ErrCacheFull) {
		t.Errorf("LocalPaths of 15 MB with room for 4: %v", err)
	}
}

func TestRangesOfSegments(t *testing.T) {
	const size = 2_500_000 // the third segment is short
	w := newWorld(t, 1, size)
	l := openLake(t, w.uri, lake.Options{})
	key, data := w.refs[0].Key, w.data[0]
	before := w.faults.Counts().Requests
	random := rand.New(rand.NewPCG(9, 9))
	for range 60 {
		off := random.Int64N(size)
		n := min(random.Int64N(1_200_000)+1, size-off)
		if got, err := l.GetRange(t.Context(), key, off, n); err != nil || !bytes.Equal(got, data[off:off+n]) {
			t.Fatalf("range of %d at %d: %d bytes, %v", n, off, len(got), err)
		}
	}
	if n := w.faults.Counts().Requests - before; n != 3 {
		t.Errorf("%d requests for three segments", n)
	}
	for _, c := range []struct{ off, n int64 }{{size - 10, 11}, {size, 1}, {size + 5<<20, 1}, {0, size + 1}, {0, 1 << 40}, {1 << 62, 1 << 62}} {
		if got, err := l.GetRange(t.Context(), key, c.off, c.n); err == nil {
			t.Errorf("range of %d at %d of %d: %d bytes", c.n, c.off, size, len(got))
		}
	}
	if _, err := l.GetRange(t.Context(), key, size-1, 1); err != nil {
		t.Error(err)
	}
	if _, err := l.GetRange(t.Context(), "packs/none", 0, 1); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("range of a missing object: %v", err)
	}
}

// Large objects go in parts and come in pieces, both through a network that loses some.
func TestLargeObjects(t *testing.T) {
	const size = 16<<20 + 1
	w := newWorld(t, 0, 0)
	for round := range 40 { // until each kind of fault has happened
		l := openLake(t, w.uri, lake.Options{})
		w.data = [][]byte{laketest.Bytes(uint64(round), size)}
		w.refs = []lake.Ref{{Key: lake.ViewKey("measures", int64(round), w.data[0]), Size: size}}
		w.faults.Set(parts.Faults{Error503: 0.05, LostReply: 0.15}, uint64(round))
		if err := l.Put(t.Context(), w.refs[0].Key, w.data[0]); err != nil {
			t.Fatal(err)
		}
		w.faults.Set(parts.Faults{Torn: 0.2}, uint64(round)+1000)
		w.check(t, l)
		if got, err := l.Get(t.Context(), w.refs[0].Key); err != nil || !bytes.Equal(got, w.data[0]) {
			t.Errorf("object of %d bytes: %d came, %v", size, len(got), err)
		}
		if c := w.faults.Counts(); c.LostReply > 0 && c.Torn > 0 {
			t.Logf("%d objects, %d requests, %d went wrong", round+1, c.Requests, c.Faults())
			return
		}
	}
	t.Errorf("no request of each kind went wrong: %+v", w.faults.Counts())
}

// What this process writes it need not fetch.
func TestWarmedByWhatWasWritten(t *testing.T) {
	w := newWorld(t, 0, 0)
	warm := openLake(t, w.uri, lake.Options{WarmOnPut: true})
	cold := openLake(t, w.uri, lake.Options{})
	for i := range 5 {
		w.data = append(w.data, laketest.Bytes(uint64(i), 10_000))
		w.refs = append(w.refs, lake.Ref{Key: lake.ViewKey("measures", int64(i), w.data[i]), Size: 10_000})
		if err := warm.Put(t.Context(), w.refs[i].Key, w.data[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := warm.Put(t.Context(), lake.PackKey(eager0, 1), w.data[0]); err != nil {
		t.Fatal(err)
	}
	before := w.faults.Counts().Requests
	w.check(t, warm)
	if got, err := warm.Get(t.Context(), w.refs[0].Key); err != nil || !bytes.Equal(got, w.data[0]) {
		t.Errorf("Get: %d bytes, %v", len(got), err)
	}
	if n := w.faults.Counts().Requests - before; n != 0 {
		t.Errorf("%d requests for what was written here", n)
	}
	if s := warm.CacheStats(); s.Warmed != 5 || s.Hits != 5 || s.Misses != 0 || s.Copies != 5 {
		t.Errorf("stats = %+v", s)
	}
	w.check(t, cold)
	if s := cold.CacheStats(); s.Warmed != 0 || s.Misses != 5 {
		t.Errorf("stats of another process = %+v", s)
	}
	// A deleted object's copy goes with it, and a failed Put leaves none.
	if err := warm.Delete(t.Context(), w.refs[0].Key); err != nil {
		t.Fatal(err)
	}
	w.faults.Set(parts.Faults{Error500: 1}, 1)
	if err := warm.Put(t.Context(), "views/failed", w.data[0]); err == nil {
		t.Error("Put succeeded")
	}
	w.faults.Set(parts.Faults{}, 1)
	for _, key := range []string{w.refs[0].Key, "views/failed"} {
		if _, err := warm.LocalPath(t.Context(), key); !errors.Is(err, lake.ErrNotFound) {
			t.Errorf("LocalPath(%s) = %v", key, err)
		}
	}
}

// The size that the catalog says is checked against what comes.
func TestWrongSizeIsRefused(t *testing.T) {
	w := newWorld(t, 1, 1000)
	l := openLake(t, w.uri, lake.Options{})
	for _, size := range []int64{999, 1001} {
		_, err := l.LocalPaths(t.Context(), []lake.Ref{{Key: w.refs[0].Key, Size: size}})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("an object of 1000 bytes as one of %d: %v", size, err)
		}
	}
	w.check(t, l)
	if _, err := l.LocalPaths(t.Context(), []lake.Ref{{Key: "views/none", Size: 5}}); !errors.Is(err, lake.ErrNotFound) {
		t.Errorf("a missing object: %v", err)
	}
	if _, err := l.LocalPaths(t.Context(), []lake.Ref{{Key: "../x", Size: 5}}); err == nil {
		t.Error("a bad key is taken")
	}
}
