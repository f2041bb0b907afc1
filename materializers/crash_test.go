package materializers_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// steps are the places where an owner or the merger can crash.
var steps = []string{"before put", "after put", "before commit", "after commit", "merge before commit", "merge after commit"}

// crashes makes the hook fail every other time at each of some steps, until off.
type crashes struct {
	mu    sync.Mutex
	seen  map[string]int
	count int
	off   atomic.Bool
}

var errCrash = errors.New("crash")

func (c *crashes) at(steps ...string) func(string) error {
	c.seen = map[string]int{}
	return func(at string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.off.Load() || !slices.Contains(steps, at) {
			return nil
		}
		c.seen[at]++
		if c.seen[at]%2 == 1 {
			c.count++
			return errCrash
		}
		return nil
	}
}

// Whatever crashes between whichever two steps, each block is in each view once.
func TestExactlyOnceUnderCrashes(t *testing.T) {
	for _, at := range append([][]string{steps}, [][]string{{steps[0]}, {steps[1]}, {steps[2]}, {steps[3]}, {steps[4]}, {steps[5]}}...) {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			e := newEnv(t)
			e.startArchive()
			cfg := config()
			cfg.CommitRows, cfg.MergeFiles, cfg.SeenBlocks = 40, 3, 2
			cfg.CommitAge = 20 * time.Millisecond
			views := e.newMaterializers("views", cfg)
			var c crashes
			views.SetHook(c.at(at...))
			e.background(views.Run)
			want, values := postShuffled(e, 3, 8)
			e.eventually("crashes", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.count > 1 || c.count == 1 && len(c.seen) > 0 && c.seen[at[0]] == 1
			})
			c.off.Store(true)
			e.flush()
			e.eventually("building", func() bool { return e.flush().Parked == 0 && len(e.rows("log_entries")) >= len(want) })
			if diff := cmp.Diff(want, e.rows("log_entries", logColumns...)); diff != "" {
				t.Error(diff)
			}
			if n := len(e.rows("measures")); n != values {
				t.Errorf("%d measures, want %d", n, values)
			}
			checkStats(e, int64(len(want)))
		})
	}
}

// postShuffled posts registrations and blocks of some processes in random order, a third of them twice. It returns the log
// entries and the number of measures.
func postShuffled(e *env, processes, blocks int) (entries []string, values int) {
	e.t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(processes)))
	var posts []func()
	for n := range processes {
		m := newMaker(n)
		posts = append(posts, func() { m.postProcess(e) }, func() { m.postStreams(e) })
		for range blocks {
			offset := time.Duration(rng.IntN(3600)) * time.Second
			body := m.logBlock(7, offset)
			entries = append(entries, m.entries(m.blocks, 7, offset)...)
			more := m.valueBlock(6, offset)
			values += 6
			for range 1 + rng.IntN(3)/2 {
				posts = append(posts, func() { m.postLog(e, body) }, func() { m.postValues(e, more) })
			}
		}
	}
	rng.Shuffle(len(posts), func(i, j int) { posts[i], posts[j] = posts[j], posts[i] })
	for _, post := range posts {
		post()
	}
	return sorted(entries), values
}

// checkStats checks that log_stats counts every entry once.
func checkStats(e *env, want int64) {
	e.t.Helper()
	var got int64
	for _, line := range e.rows("log_stats", "count") {
		var n int64
		fmt.Sscan(line, &n)
		got += n
	}
	if got != want {
		e.t.Errorf("log_stats counts %d entries, want %d", got, want)
	}
}

// An owner that believes in its lease after another has taken over loses at the commit.
func TestZombieOwnerLoses(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(5, time.Second))
	cfg := config()
	cfg.CommitAge = time.Millisecond
	zombie := e.newMaterializers("views", cfg)
	reached, wake := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var lost atomic.Bool
	zombie.SetHook(func(at string) error {
		switch at {
		case "before commit":
			once.Do(func() { close(reached); <-wake })
		case "after commit":
			if !lost.Load() {
				return errors.New("the zombie's commit stands")
			}
		}
		return nil
	})
	stop := e.background(zombie.Run)
	<-reached
	// The lease is taken over under the same name, as a restarted process does it.
	e.startViews(cfg)
	e.eventually("the successor's commit", func() bool { return len(e.rows("log_entries")) == 5 })
	close(wake)
	m.postLog(e, m.logBlock(5, 2*time.Second))
	e.eventually("the successor's second commit", func() bool { return len(e.rows("log_entries")) >= 10 })
	lost.Store(true)
	stop()
	e.flush()
	if diff := cmp.Diff(sorted(m.entries(1, 5, time.Second), m.entries(2, 5, 2*time.Second)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

// Views built from packs equal those built from the bus.
func TestReplayFromPacksEqualsBus(t *testing.T) {
	fromBus := newEnv(t)
	fromBus.startArchive()
	fromBus.startViews(config())
	fromPacks := newEnv(t, func(c *bus.Config) { c.KeepArchivedBytes = 0 })
	fromPacks.startArchive()
	m := newMaker(1)
	var last func(e *env)
	for i := range 20 {
		var post func(e *env)
		switch i {
		case 3:
			post = m.postProcess
		case 7:
			post = m.postStreams
		default:
			body, at := m.logBlock(50, time.Duration(i)*time.Minute), start+int64(i)*1e9
			post = func(e *env) { e.post(bus.KindBlock, 0, body, at) }
		}
		post(fromBus)
		post(fromPacks)
		last = post
	}
	fromPacks.trimmed()
	fromPacks.startViews(config())
	last(fromBus) // a duplicate, so that both flush
	last(fromPacks)
	for _, e := range []*env{fromBus, fromPacks} {
		e.flush()
		e.eventually("building", func() bool { return e.flush().Parked == 0 && len(e.rows("log_entries")) >= 18*50 })
	}
	fromBus.equalRows(fromPacks)
	checkStats(fromPacks, 18*50)
}

// However the same posts are cut into commits, merged, read from the bus, from packs or as backlog, the rows of all tables are equal.
func TestAllWaysGiveEqualRows(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			lazy, often, behind := config(), config(), lagging()
			lazy.MergeFiles = 1000
			often.CommitRows, often.MergeFiles, often.MergeGrace = 60, 3, time.Millisecond
			behind.CommitRows = 50
			unmerged, merged, packs := newEnv(t), newEnv(t), newEnv(t, func(c *bus.Config) { c.KeepArchivedBytes = 0 })
			all := []*env{unmerged, merged, packs}
			for _, e := range all {
				e.startArchive()
			}
			unmerged.startViews(lazy)
			merger := merged.newMaterializers("views", often)
			merged.background(merger.Run)
			want := postSame(all, seed)
			packs.trimmed()
			packs.startViews(behind)
			for _, e := range all {
				e.drained()
				e.eventually("building", func() bool { return e.flush().Parked == 0 && len(e.rows("log_entries")) >= want })
			}
			merged.eventually("merging", func() bool { return merger.Stats().Merges > 0 })
			unmerged.equalRows(merged)
			unmerged.equalRows(packs)
			checkStats(unmerged, int64(want))
		})
	}
}

// postSame posts the same records in the same random order to all, some blocks twice, and returns the number of log entries.
func postSame(all []*env, seed uint64) (entries int) {
	rng := rand.New(rand.NewPCG(seed, 5))
	var posts []func(*env)
	for n := range 3 {
		m := newMaker(n)
		posts = append(posts, m.postProcess, m.postStreams)
		for range 12 {
			offset, length := time.Duration(rng.IntN(1800))*time.Second, 1+rng.IntN(40)
			body, values := m.logBlock(length, offset), m.valueBlock(length, offset)
			at := old() + int64(m.blocks)*1000 // the copies of a block are not told apart by it
			entries += length
			for range 1 + rng.IntN(3)/2 {
				posts = append(posts, func(e *env) {
					e.post(bus.KindBlock, telemetry.TagLog, body, at)
					e.post(bus.KindBlock, telemetry.TagMetrics, values, at)
				})
			}
		}
	}
	rng.Shuffle(len(posts), func(i, j int) { posts[i], posts[j] = posts[j], posts[i] })
	for _, post := range posts {
		for _, e := range all {
			post(e)
		}
	}
	return entries
}

// equalRows compares all tables of two houses, row by row; counts of log_stats are summed, which queries do.
func (e *env) equalRows(other *env) {
	e.t.Helper()
	for _, view := range []string{"log_entries", "measures"} {
		if diff := cmp.Diff(e.rows(view), other.rows(view)); diff != "" {
			e.t.Errorf("%s: %s", view, diff)
		}
	}
	if diff := cmp.Diff(e.stats(), other.stats()); diff != "" {
		e.t.Errorf("log_stats: %s", diff)
	}
}

// stats returns the counts of log_stats by the other columns.
func (e *env) stats() map[string]int64 {
	e.t.Helper()
	sums := map[string]int64{}
	for _, line := range e.rows("log_stats", "count", "time_bin", "process_id", "level", "target") {
		var n int64
		count, key, _ := strings.Cut(line, " ")
		if _, err := fmt.Sscan(count, &n); err != nil {
			e.t.Fatal(err)
		}
		sums[key] += n
	}
	return sums
}

// trimmed waits until the bus holds nothing any more but its last frame, which stays.
func (e *env) trimmed() {
	e.t.Helper()
	e.eventually("trimming", func() bool {
		ctx := e.t.Context()
		head, err := e.bus.Head(ctx, eager)
		if err != nil {
			e.t.Fatal(err)
		}
		if _, err := e.bus.Flush(ctx, eager, bus.FlushRequest{Target: bus.TargetArchive}); err != nil {
			return false
		}
		stats, err := e.bus.Stats(ctx)
		if err != nil {
			e.t.Fatal(err)
		}
		i := slices.IndexFunc(stats, func(s bus.ShardStats) bool { return s.Shard == eager })
		return stats[i].FirstSeq >= head.Seq
	})
}

// Files of a bucket become few, whatever order they come in, and rows stay the same.
func TestSmallFilesAreMerged(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.MergeFiles, cfg.MergeGrace = 4, time.Millisecond
	views := e.newMaterializers("views", cfg)
	e.background(views.Run)
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	var want []string
	for i := range 40 {
		offset := time.Duration(i*37%40) * time.Second
		m.postLog(e, m.logBlock(20, offset))
		want = append(want, m.entries(i+1, 20, offset)...)
		e.flush()
	}
	count := func(view string) int {
		n := 0
		for _, p := range e.partitions() {
			if p.View == view {
				n++
			}
		}
		return n
	}
	e.eventually("merging", func() bool { return count("log_entries") <= 3 && count("log_stats") <= 3 })
	if diff := cmp.Diff(sorted(want), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	checkStats(e, int64(len(want)))
	if s := views.Stats(); s.Merges == 0 || s.MergedRows > int64(len(want))*8 {
		t.Errorf("%d rows were rewritten for %d: %+v", s.MergedRows, len(want), s)
	}
}

// A new owner goes on where the last one committed.
func TestOwnersFollowEachOther(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	stop := e.startViews(config())
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(5, time.Second))
	e.flush()
	stop()
	m.postLog(e, m.logBlock(5, 2*time.Second))
	e.startViews(config())
	e.flush()
	if diff := cmp.Diff(sorted(m.entries(1, 5, time.Second), m.entries(2, 5, 2*time.Second)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	at, err := e.cat.Checkpoint(t.Context(), catalog.ConsumerViews, catalog.ShardID{Class: 'e', Gen: e.bus.Current(bus.Shard{Class: bus.Eager}).Gen})
	if err != nil || at.Seq == 0 {
		t.Errorf("checkpoint %+v %v", at, err)
	}
}

func TestBucketOf(t *testing.T) {
	now := time.Now().UnixNano()
	f := func(at int64, want int64) {
		t.Helper()
		if got := materializers.BucketOf(at, now); got != want {
			t.Errorf("bucket of %d: got %d, want %d", at, got, want)
		}
	}
	f(0, materializers.OverflowBucket)
	f(now+25*3600e9, materializers.OverflowBucket)
	f(now, time.Unix(0, now).Truncate(materializers.BucketLength).UnixNano())
}
