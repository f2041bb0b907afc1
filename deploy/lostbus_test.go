package deploy_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

// send posts n new blocks and returns their bodies; all must be acknowledged.
func (w *writer) send(t *testing.T, p *process, n int) [][]byte {
	t.Helper()
	bodies := make([][]byte, n)
	for i := range bodies {
		id, body := w.block()
		postBlock(t, p, body)
		w.mu.Lock()
		w.acked = append(w.acked, id)
		w.mu.Unlock()
		bodies[i] = body
	}
	return bodies
}

func postBlock(t *testing.T, p *process, body []byte) {
	t.Helper()
	if code, err := p.Post(t.Context(), "insert_block", body); err != nil || code != http.StatusOK {
		t.Fatalf("insert_block: status %d, %v\n%s", code, err, p.LogTail())
	}
}

// frozenRows returns how many block rows this process has frozen.
func (p *process) frozenRows() int {
	freezer, _ := p.Status()["freezer"].(map[string]any)
	rows, _ := freezer["rows"].(float64)
	return int(rows)
}

// TestLostBus drops the whole bus, twice, after archive caught up: the server goes on with a new generation, everything that was
// acknowledged is there exactly once, new data too, and copies of what came before are settled, also of frozen days.
func TestLostBus(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the server several times; run without -short")
	}
	const rows, blocks = 5, 40
	dir := deploytest.NewDataDir(t)
	old, young, strange := newWriter(rows), newWriter(rows), newWriter(rows)
	old.process.StartTime = time.Now().Add(-10 * 24 * time.Hour).UnixNano()
	writers := []*writer{old, young}
	var copies [][]byte

	check := func(p *process) {
		t.Helper()
		for _, w := range writers {
			checkAcked(t, p, w)
			want := fmt.Sprintf("%d|%d", w.ackedCount(), w.ackedCount())
			if got := p.mustQuery("SELECT count(*), count(DISTINCT block_id) FROM blocks WHERE process_id = '" + w.process.ID.String() + "'"); len(got) != 1 || got[0] != want {
				t.Errorf("blocks %v, want %s", got, want)
			}
			if got := p.mustQuery("SELECT count(*) FROM log_entries WHERE process_id = '" + w.process.ID.String() + "'"); len(got) != 1 || got[0] != fmt.Sprint(rows*w.ackedCount()) {
				t.Errorf("entries %v of %d blocks", got, w.ackedCount())
			}
		}
	}
	register := func(p *process, w *writer) {
		t.Helper()
		if err := w.register(t.Context(), p); err != nil {
			t.Fatalf("%v\n%s", err, p.LogTail())
		}
	}

	p := startServe(t, dir)
	register(p, old)
	register(p, young)
	copies = append(copies, old.send(t, p, blocks)...)
	copies = append(copies, young.send(t, p, blocks)...)
	strange.send(t, p, blocks) // its registration comes when the bus of now is no more
	check(p)
	p.Stop()

	p = startServe(t, dir)
	deploytest.Eventually(t, 30*time.Second, "old days frozen", func() bool { return p.frozenRows() == blocks })
	check(p)
	for life := range 2 {
		if life == 0 {
			p.Stop()
		} else {
			p.Kill()
		}
		if err := os.RemoveAll(filepath.Join(dir, "bus")); err != nil {
			t.Fatal(err)
		}
		p = startServe(t, dir)
		check(p)
		if gens := generations(p); gens["eager"] != life+1 || gens["raw"] != life+1 {
			t.Fatalf("generations %v in life %d", gens, life)
		}
		for _, body := range copies {
			postBlock(t, p, body)
		}
		check(p)
		copies = append(copies, young.send(t, p, blocks)...)
		copies = append(copies, old.send(t, p, blocks)...) // first copies for a frozen day
		if life == 0 {
			register(p, strange)
			writers = append(writers, strange)
			copies = append(copies, strange.send(t, p, blocks)...)
		}
		check(p)
	}
	db := openCatalog(t, dir)
	stats, err := db.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, w := range writers {
		sum += int64(w.ackedCount())
	}
	if stats.Blocks != sum || stats.FrozenBlocks < blocks || stats.Parked != 0 || stats.Dead != 0 {
		t.Errorf("catalog %+v, %d blocks were acknowledged", stats, sum)
	}
	t.Logf("%d blocks acknowledged over 3 buses, %d of them frozen, %d copies settled", sum, stats.FrozenBlocks, stats.Skips)
	p.Stop()
}

// generations returns the newest generation of each class.
func generations(p *process) map[string]int {
	newest := map[string]int{}
	shards, _ := p.Status()["shards"].([]any)
	for _, s := range shards {
		shard, _ := s.(map[string]any)
		class, _ := shard["class"].(string)
		gen, _ := shard["gen"].(float64)
		newest[class] = max(newest[class], int(gen))
	}
	return newest
}
