package catalogtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// testConflictAlone: whatever a store does to share an fsync, commits that meet fail or succeed each by itself.
func testConflictAlone(t *testing.T, cat catalog.Catalog) {
	const shards, rounds = 8, 20
	var wg sync.WaitGroup
	var good, lost atomic.Int64
	for s := range shards {
		wg.Go(func() {
			for r := range rounds {
				c := step(uint64(r), uint64(r+1), block(s*rounds+r, s, s))
				c.Shard.Shard = int32(s)
				if err := cat.CommitArchive(t.Context(), c); err != nil {
					t.Errorf("shard %d: %v", s, err)
				}
				good.Add(1)
			}
		})
		wg.Go(func() {
			for r := range rounds {
				c := step(uint64(1000+r), uint64(1001+r), block(5000+s*rounds+r, s, s))
				c.Shard.Shard = int32(s)
				if err := cat.CommitArchive(t.Context(), c); !errors.Is(err, catalog.ErrConflict) {
					t.Errorf("wrong position in shard %d: %v", s, err)
				}
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	stats := must[catalog.Stats](t)(cat.Stats(t.Context()))
	equal(t, "blocks", stats.Blocks, int64(shards*rounds))
}

// The history of one shard's view, as a client sees it.
type opKind int

const (
	opCommit opKind = iota // move the checkpoint and add a partition
	opMerge                // retire a partition and add one in its place
	opCheckpoint
	opPartitions
)

type viewInput struct {
	kind     opKind
	from, to uint64
	epoch    int64
	retire   int64
}

type viewOutput struct {
	err      string // "", "conflict", "stale"
	commitNo int64
	seq      uint64
	epoch    int64
	live     int
	liveSum  int64 // sum of part numbers, a fingerprint of the set
}

// viewState is the sequential catalog. Which part number a commit got shows only in later reads, so the model gives numbers
// by count: the catalog's are made to correspond through the commit number that added them.
type viewState struct {
	seq      uint64
	epoch    int64
	commitNo int64
	live     map[int64]bool // by the commit that added
}

func (s viewState) with(add, remove int64) map[int64]bool {
	m := make(map[int64]bool, len(s.live)+1)
	for k := range s.live {
		if k != remove {
			m[k] = true
		}
	}
	m[add] = true
	return m
}

func (s viewState) sum() (sum int64) {
	for k := range s.live {
		sum += k * k
	}
	return sum
}

func viewStep(state, input, output any) (bool, any) {
	s, in, out := state.(viewState), input.(viewInput), output.(viewOutput)
	switch in.kind {
	case opCommit:
		if s.seq != in.from || s.epoch > in.epoch {
			return out.err == "conflict", s
		}
		next := viewState{in.to, in.epoch, s.commitNo + 1, s.with(s.commitNo+1, 0)}
		return out.err == "" && out.commitNo == next.commitNo, next
	case opMerge:
		if !s.live[in.retire] {
			return out.err == "stale", s
		}
		next := viewState{s.seq, s.epoch, s.commitNo + 1, s.with(s.commitNo+1, in.retire)}
		return out.err == "" && out.commitNo == next.commitNo, next
	case opCheckpoint:
		return out.seq == s.seq && out.epoch == s.epoch, s
	default:
		return out.commitNo == s.commitNo && out.live == len(s.live) && out.liveSum == s.sum(), s
	}
}

func viewStateEqual(a, b any) bool {
	x, y := a.(viewState), b.(viewState)
	return x.seq == y.seq && x.epoch == y.epoch && x.commitNo == y.commitNo && len(x.live) == len(y.live) && x.sum() == y.sum()
}

// checkLimit bounds the search for an order: a second on an idle machine, more than ten times that under the race detector on a
// busy one.
const checkLimit = time.Minute

// testSerialisable lets 16 committers race for one checkpoint and one set of partitions, and has Porcupine find an order
// of all calls that a sequential catalog would have answered alike.
func testSerialisable(t *testing.T, cat catalog.Catalog) {
	const committers, opsEach = 16, 64
	archive(t, cat, step(0, 1_000_000))
	var mu sync.Mutex
	var history []porcupine.Operation
	clock := time.Now()
	record := func(client int, in viewInput, call func() viewOutput) viewOutput {
		begin := time.Since(clock).Nanoseconds()
		out := call()
		end := time.Since(clock).Nanoseconds()
		mu.Lock()
		defer mu.Unlock()
		history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: begin, Output: out, Return: end})
		return out
	}
	var wg sync.WaitGroup
	for client := range committers {
		wg.Go(func() {
			c := &committer{t: t, cat: cat, client: client, rnd: rand.New(rand.NewPCG(1, uint64(client))), record: record}
			for n := range opsEach {
				c.op(n)
			}
		})
	}
	wg.Wait()
	model := porcupine.Model{Init: func() any { return viewState{} }, Step: viewStep, Equal: viewStateEqual}
	switch porcupine.CheckOperationsTimeout(model, history, checkLimit) {
	case porcupine.Illegal:
		t.Fatalf("no sequential order explains %d calls", len(history))
	case porcupine.Unknown:
		t.Fatalf("the checker did not come to an end with %d calls", len(history))
	case porcupine.Ok:
	}
}

// committer is one client of the race. It knows what it read last, like an owner does.
type committer struct {
	t      *testing.T
	cat    catalog.Catalog
	client int
	rnd    *rand.Rand
	record func(int, viewInput, func() viewOutput) viewOutput

	seq    uint64
	epoch  int64
	partNo map[int64]int64 // part number by the commit that added it
}

func (c *committer) op(n int) {
	switch k := c.rnd.IntN(10); {
	case k < 3:
		c.commit(n)
	case k < 5:
		c.merge(n)
	case k < 8:
		out := c.record(c.client, viewInput{kind: opCheckpoint}, c.checkpoint)
		c.seq, c.epoch = out.seq, out.epoch
	default:
		c.record(c.client, viewInput{kind: opPartitions}, c.partitions)
	}
}

func (c *committer) commit(n int) {
	in := viewInput{kind: opCommit, from: c.seq, to: c.seq + 1 + uint64(c.rnd.IntN(3)), epoch: max(0, c.epoch+int64(c.rnd.IntN(3)-1))}
	out := c.record(c.client, in, func() viewOutput {
		return c.answer(c.cat.CommitView(c.t.Context(), &catalog.ViewCommit{
			Consumer: "views", Moves: []catalog.Move{{Shard: eager, From: in.from, To: in.to, Epoch: in.epoch}},
			Added: []catalog.Partition{c.partition(n)},
		}))
	})
	if out.err == "" {
		c.seq, c.epoch = in.to, in.epoch
	}
}

func (c *committer) merge(n int) {
	for added, no := range c.partNo {
		c.record(c.client, viewInput{kind: opMerge, retire: added}, func() viewOutput {
			return c.answer(c.cat.CommitView(c.t.Context(), &catalog.ViewCommit{Added: []catalog.Partition{c.partition(n)}, Retired: []int64{no}}))
		})
		return
	}
}

func (c *committer) partition(n int) catalog.Partition {
	p := partition(n)
	p.Key = fmt.Sprintf("views/%d/%d", c.client, n)
	return p
}

func (c *committer) answer(no int64, err error) viewOutput {
	switch {
	case errors.Is(err, catalog.ErrConflict):
		return viewOutput{err: "conflict"}
	case errors.Is(err, catalog.ErrStale):
		return viewOutput{err: "stale"}
	case err != nil:
		c.t.Errorf("client %d: %v", c.client, err)
	}
	return viewOutput{commitNo: no}
}

func (c *committer) checkpoint() viewOutput {
	cp, err := c.cat.Checkpoint(c.t.Context(), "views", eager)
	if err != nil {
		c.t.Errorf("client %d: %v", c.client, err)
	}
	return viewOutput{seq: cp.Seq, epoch: cp.Epoch}
}

func (c *committer) partitions() viewOutput {
	d, err := c.cat.Partitions(c.t.Context(), 0)
	if err != nil {
		c.t.Errorf("client %d: %v", c.client, err)
	}
	c.partNo = map[int64]int64{}
	out := viewOutput{commitNo: d.CommitNo, live: len(d.Added)}
	for _, p := range d.Added {
		c.partNo[p.Added] = p.PartNo
		out.liveSum += p.Added * p.Added
	}
	return out
}

// testDeltasAddUp: a reader that applies deltas while others commit holds at each commit number what a full read gives.
func testDeltasAddUp(t *testing.T, cat catalog.Catalog) {
	const committers, commits = 8, 25
	done := make(chan struct{})
	var wg, committing sync.WaitGroup
	for client := range committers {
		committing.Go(func() {
			for n := range commits {
				c := &catalog.ViewCommit{}
				for i := range 3 {
					p := partition(n)
					p.Key = fmt.Sprintf("views/%d/%d/%d", client, n, i)
					c.Added = append(c.Added, p)
				}
				if _, err := cat.CommitView(t.Context(), c); err != nil {
					t.Error(err)
				}
				d, err := cat.Partitions(t.Context(), 0)
				if err != nil || len(d.Added) < 3 {
					t.Errorf("%d partitions, %v", len(d.Added), err)
					return
				}
				_, err = cat.CommitView(t.Context(), &catalog.ViewCommit{Retired: []int64{d.Added[0].PartNo, d.Added[1].PartNo}})
				if err != nil && !errors.Is(err, catalog.ErrStale) {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			at, held := int64(0), map[int64]bool{}
			for stop := false; !stop; {
				select {
				case <-done:
					stop = true
				default:
				}
				d, err := cat.Partitions(t.Context(), at)
				if err != nil {
					t.Error(err)
					return
				}
				if d.CommitNo < at {
					t.Errorf("commit number %d after %d", d.CommitNo, at)
				}
				if d.Full {
					clear(held)
				}
				for _, no := range d.Retired {
					delete(held, no)
				}
				for _, p := range d.Added {
					held[p.PartNo] = true
				}
				at = d.CommitNo
				full, err := cat.Partitions(t.Context(), 0)
				if err != nil {
					t.Error(err)
					return
				}
				if full.CommitNo == at && !sameParts(held, full.Added) {
					t.Errorf("at commit %d: %d partitions by deltas, %d in full", at, len(held), len(full.Added))
				}
			}
		})
	}
	committing.Wait()
	close(done)
	wg.Wait()
}

func sameParts(held map[int64]bool, parts []catalog.Partition) bool {
	if len(held) != len(parts) {
		return false
	}
	for _, p := range parts {
		if !held[p.PartNo] {
			return false
		}
	}
	return true
}
