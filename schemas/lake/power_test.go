package lake_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

// put is one object and the moment at which its Put had returned.
type put struct {
	key    string
	data   []byte
	moment int
}

// TestFolderPutSurvivesPowerLoss cuts the power after every single change to the file system, leaving only what was synced,
// and then with random parts of the rest: what was put is there, and nothing is there in part.
func TestFolderPutSurvivesPowerLoss(t *testing.T) {
	power := laketest.NewPowerFS(t.TempDir())
	puts, all := putUnderRecord(t, power)
	total := power.Len()
	cuts := 0
	for moment := range total + 1 {
		for seed := range 2 {
			var random *rand.Rand // seed 0: only what was synced
			if seed > 0 {
				random = rand.New(rand.NewPCG(uint64(moment), uint64(seed)))
			}
			checkAfterPowerLoss(t, power, moment, random, puts, all)
			cuts++
		}
		if t.Failed() {
			t.Fatalf("power lost after change %d of %d", moment, total)
		}
	}
	t.Logf("%d objects, %d changes, %d cuts", len(puts), total, cuts)
}

// putUnderRecord writes objects from several goroutines into old and new folders, and returns them by key.
func putUnderRecord(t *testing.T, power *laketest.PowerFS) ([]put, map[string][]byte) {
	t.Helper()
	b, err := lake.NewFolder(power.Root(), power)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var puts []put
	all := map[string][]byte{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 4 {
				p := put{key: fmt.Sprintf("packs/%d/%d/%d-%d", i%3, i%2, w, i), data: laketest.Bytes(uint64(w*100+i), 100+w*50)}
				mu.Lock()
				all[p.key] = p.data
				mu.Unlock()
				if err := b.Put(t.Context(), p.key, p.data); err != nil {
					t.Errorf("put %s: %v", p.key, err)
				}
				p.moment = power.Len()
				mu.Lock()
				puts = append(puts, p)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return puts, all
}

func checkAfterPowerLoss(t *testing.T, power *laketest.PowerFS, moment int, random *rand.Rand, puts []put, all map[string][]byte) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "cut")
	if err != nil {
		t.Fatal(err)
	}
	if err := power.LosePower(dir, moment, random); err != nil {
		t.Fatal(err)
	}
	b, err := lake.NewFolder(dir, laketest.NewPowerFS(dir)) // no need to wait for the real disk
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range puts {
		if p.moment > moment {
			continue
		}
		if got, err := b.Read(t.Context(), p.key, 0, -1); err != nil || !bytes.Equal(got, p.data) {
			t.Errorf("put %s is lost: %d bytes of %d, %v", p.key, len(got), len(p.data), err)
		}
	}
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Read(t.Context(), o.Key, 0, -1); err != nil || !bytes.Equal(got, all[o.Key]) {
			t.Errorf("%s is there with %d bytes of %d, %v", o.Key, len(got), len(all[o.Key]), err)
		}
	}
	if _, err := b.SweepTemp(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// TestPowerLossFindsWeakerWrites shows that the simulation has teeth: each write that leaves out one fsync, the way that
// gocloud's fileblob writes (temporary file, rename, no fsync at all) among them, loses an object whose write had returned.
func TestPowerLossFindsWeakerWrites(t *testing.T) {
	for _, c := range []struct {
		name                             string
		syncFile, syncFolder, syncParent bool
		safe                             bool
	}{
		{name: "as fileblob writes"},
		{name: "no file sync", syncFolder: true, syncParent: true},
		{name: "no folder sync", syncFile: true, syncParent: true},
		{name: "no sync of the new folder's parent", syncFile: true, syncFolder: true},
		{name: "all syncs", syncFile: true, syncFolder: true, syncParent: true, safe: true},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			power := laketest.NewPowerFS(t.TempDir())
			root := power.Root()
			step := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			data := laketest.Bytes(1, 1000)
			step(power.Mkdir(filepath.Join(root, "packs")))
			if c.syncParent {
				step(power.SyncDir(root))
			}
			temp, path := filepath.Join(root, "packs", "temp"), filepath.Join(root, "packs", "object")
			f, err := power.Create(temp)
			step(err)
			_, err = f.Write(data)
			step(err)
			if c.syncFile {
				step(f.Sync())
			}
			step(f.Close())
			step(power.Rename(temp, path))
			if c.syncFolder {
				step(power.SyncDir(filepath.Join(root, "packs")))
			}
			dir := t.TempDir()
			step(power.LosePower(dir, power.Len(), nil))
			got, err := os.ReadFile(filepath.Join(dir, "packs", "object"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if safe := bytes.Equal(got, data); safe != c.safe {
				t.Errorf("object survives: %t, want %t", safe, c.safe)
			}
		})
	}
}

// TestFolderPutDoesNotRelyOnAnothersUnfinishedFolder: two writers need the same new folder. While the first waits in
// its fsync of the folder above, the second must not return without an fsync of its own.
func TestFolderPutDoesNotRelyOnAnothersUnfinishedFolder(t *testing.T) {
	power := laketest.NewPowerFS(t.TempDir())
	b, err := lake.NewFolder(power.Root(), power)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	inSync, release := make(chan struct{}), make(chan struct{})
	power.Hook = func(change, path string) {
		if change == "syncdir" && path == "" {
			first := false
			once.Do(func() { first = true })
			if first {
				close(inSync)
				<-release
			}
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.Put(t.Context(), "packs/first", []byte("1")) }()
	select {
	case <-inSync:
	case err := <-done:
		t.Fatalf("a put into a new folder returned without an fsync of the folder above: %v", err)
	}
	if err := b.Put(t.Context(), "packs/second", []byte("2")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := power.LosePower(dir, power.Len(), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "packs", "second")); err != nil || string(got) != "2" {
		t.Errorf("the second put is lost: %q, %v", got, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestFolderSyncsFoldersItFinds: a folder that is there already may have been made by a process that was killed before its
// fsync; the first put into it makes its name durable.
func TestFolderSyncsFoldersItFinds(t *testing.T) {
	power := laketest.NewPowerFS(t.TempDir())
	for _, dir := range []string{"packs", "packs/e"} {
		if err := power.Mkdir(filepath.Join(power.Root(), dir)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := lake.NewFolder(power.Root(), power)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "packs/e/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := power.LosePower(dir, power.Len(), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "packs", "e", "x")); err != nil || string(got) != "1" {
		t.Errorf("the put is lost: %q, %v", got, err)
	}
}
