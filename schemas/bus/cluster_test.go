package bus_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// The faults of a cluster, under load: publishers and askers on every server, and readers, while one server after another
// meets the fault. In the end what was acknowledged is there once, in its publisher's order, and no head was below it.

const (
	// longestOutage is how long nothing may be acknowledged after one server was lost: an election, of up to 9 s and perhaps
	// twice, the discovery that a server is cut off, and the time of a frame.
	longestOutage = 30 * time.Second
	// stormPause is between two blocks of a publisher, and stormAsk between two questions of an asker.
	stormPause = 2 * time.Millisecond
	stormAsk   = 15 * time.Millisecond
	stormBody  = 2000
)

func TestServersKilledUnderLoad(t *testing.T) {
	storm(t, 3, func(s *stormTest, i int) {
		s.must(s.c.Kill(i))
		s.untilAcked("without a server")
		s.must(s.c.Restart(s.ctx, i))
	})
}

func TestServersPausedUnderLoad(t *testing.T) {
	storm(t, 2, func(s *stormTest, i int) {
		s.must(s.c.Pause(i))
		s.elapse(8 * time.Second)
		s.must(s.c.Resume(i))
	})
}

func TestServersPartitionedUnderLoad(t *testing.T) {
	storm(t, 2, func(s *stormTest, i int) {
		s.c.Partition(i)
		s.elapse(10 * time.Second)
		s.c.Heal(i)
	})
}

// TestClusterKilledAtOnce kills all servers: everything was synced before it was acknowledged.
func TestClusterKilledAtOnce(t *testing.T) {
	storm(t, 1, func(s *stormTest, _ int) {
		for i := range s.c.Size() {
			s.must(s.c.Kill(i))
		}
		for i := range s.c.Size() {
			s.must(s.c.Launch(i))
		}
	})
}

// TestLinkCutUnderLoad cuts one link of the leader alone: two servers hear the third, and not each other.
func TestLinkCutUnderLoad(t *testing.T) {
	storm(t, 1, func(s *stormTest, i int) {
		other := (i + 1) % s.c.Size()
		s.c.CutLink(i, other)
		s.elapse(10 * time.Second)
		s.c.HealLink(i, other)
	})
}

// stormTest is one cluster with its load.
type stormTest struct {
	*testing.T
	ctx  context.Context
	c    *bustest.Cluster
	e    *bustest.Env
	stop context.CancelFunc // of the load
	load sync.WaitGroup     // publishers and askers
	read sync.WaitGroup

	mu      sync.Mutex
	acks    []ack
	heads   []head
	refused int
	unknown int // heads
}

// ack is a block that was acknowledged.
type ack struct {
	block block
	at    time.Time
}

// head is a question for the head and its answer.
type head struct {
	asked, answered time.Time
	seq             uint64
	server          int
}

type block struct {
	process telemetry.ID
	n       int64
}

// storm has n servers meet a fault, one after another: each time the leader of the load's stream, unless it was its turn.
func storm(t *testing.T, n int, fault func(*stormTest, int)) {
	if testing.Short() {
		t.Skip("takes up to a minute")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := bustest.StartCluster(t, 3)
	s := &stormTest{T: t, ctx: ctx, c: c, e: c.NewEnv(t)}
	buses := make([]*bus.Bus, c.Size())
	for i := range buses {
		own := *s.e
		own.URLs = c.URLOf(s.e, i) // from there on it knows the others
		buses[i] = own.Open(t)
	}
	var loadCtx context.Context
	loadCtx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	for i, b := range buses {
		for range 2 {
			s.load.Go(func() { s.publish(loadCtx, b) })
		}
		s.load.Go(func() { s.ask(loadCtx, b, i) })
	}
	readers := make([]*stormReader, 2)
	for i := range readers {
		readers[i] = &stormReader{seen: map[block][]place{}}
		s.read.Go(func() { readers[i].run(s, buses[i+1]) })
	}
	s.untilAcked("at the beginning")
	met := map[int]bool{}
	for range n {
		s.elapse(time.Second)
		i := s.victim(met)
		met[i] = true
		fault(s, i)
		s.untilAcked(fmt.Sprintf("after the fault of server %d", i))
		for j := range c.Size() {
			s.must(c.UntilCurrent(ctx, j))
		}
	}
	s.finish(buses, readers)
}

// victim is the next server to meet the fault.
func (s *stormTest) victim(met map[int]bool) int {
	i, err := s.c.Leader("blocks-eager-0")
	for err != nil && s.ctx.Err() == nil {
		s.elapse(10 * time.Millisecond)
		i, err = s.c.Leader("blocks-eager-0")
	}
	for met[i] {
		i = (i + 1) % s.c.Size()
	}
	return i
}

func (s *stormTest) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// elapse lets time pass under load.
func (s *stormTest) elapse(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// untilAcked waits until every publisher was acknowledged anew.
func (s *stormTest) untilAcked(when string) {
	s.Helper()
	s.mu.Lock()
	from := len(s.acks)
	s.mu.Unlock()
	end := time.Now().Add(longestOutage)
	for {
		s.mu.Lock()
		publishers := map[telemetry.ID]bool{}
		for _, a := range s.acks[from:] {
			publishers[a.block.process] = true
		}
		s.mu.Unlock()
		if len(publishers) == 2*s.c.Size() {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("%s: %d publishers of %d are served within %v", when, len(publishers), 2*s.c.Size(), longestOutage)
		}
		s.elapse(10 * time.Millisecond)
	}
}

func (s *stormTest) publish(ctx context.Context, b *bus.Bus) {
	process := telemetry.NewID()
	for n := 0; ctx.Err() == nil; n++ {
		err := b.Publish(s.ctx, bus.Eager, bustest.Block(process, n, stormBody))
		s.mu.Lock()
		switch {
		case err == nil:
			s.acks = append(s.acks, ack{block{process, int64(n)}, time.Now()})
		case errors.Is(err, bus.ErrUnavailable):
			s.refused++
		default:
			s.Errorf("publish: %v", err)
		}
		s.mu.Unlock()
		s.elapse(stormPause)
	}
}

func (s *stormTest) ask(ctx context.Context, b *bus.Bus, server int) {
	for ctx.Err() == nil {
		asked := time.Now()
		p, err := b.Head(s.ctx, eager0)
		s.mu.Lock()
		switch {
		case err == nil:
			s.heads = append(s.heads, head{asked, time.Now(), p.Seq, server})
		case errors.Is(err, bus.ErrUnavailable):
			s.unknown++
		default:
			s.Errorf("head: %v", err)
		}
		s.mu.Unlock()
		s.elapse(stormAsk)
	}
}

// stormReader reads everything from the beginning.
type stormReader struct {
	last uint64
	seen map[block][]place // where each block is
}

// place is a record's place on the shard.
type place struct {
	seq uint64
	rec int
}

func (p place) before(q place) bool { return p.seq < q.seq || p.seq == q.seq && p.rec < q.rec }

// run reads until the reader has reached what stop has left.
func (r *stormReader) run(s *stormTest, b *bus.Bus) {
	reader, err := b.NewReader(s.ctx, start(b, eager0), nil)
	if err != nil {
		s.Error(err)
		return
	}
	defer reader.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	for {
		f, err := reader.Next(ctx)
		if err != nil {
			s.Errorf("read after %d: %v", r.last, err)
			return
		}
		if f.Seq != r.last+1 {
			s.Errorf("frame %d follows %d", f.Seq, r.last)
		}
		r.last = f.Seq
		end := false
		for i, rec := range f.Records() {
			if rec.Err != nil {
				s.Errorf("frame %s: %v", f.Position, rec.Err)
			}
			if rec.BlockID == lastBlock.BlockID {
				end = true
				continue
			}
			k := block{rec.ProcessID, rec.BeginTime / 1000}
			r.seen[k] = append(r.seen[k], place{f.Seq, i})
		}
		if end {
			return
		}
	}
}

// lastBlock ends the readers.
var lastBlock = bustest.Block(telemetry.NewID(), 999_999_999, 10)

// finish ends the load and compares.
func (s *stormTest) finish(buses []*bus.Bus, readers []*stormReader) {
	s.stop()
	s.load.Wait()
	for s.ctx.Err() == nil && buses[0].Publish(s.ctx, bus.Eager, lastBlock) != nil {
	}
	s.read.Wait()
	seen := readers[0].seen
	if !maps.EqualFunc(seen, readers[1].seen, slices.Equal[[]place]) {
		s.Error("the readers saw different blocks")
	}
	slices.SortFunc(s.acks, func(a, b ack) int { return a.at.Compare(b.at) })
	last := map[telemetry.ID]place{}
	for _, a := range s.acks { // of one publisher in its order; what was refused may be stored at any time after
		at := seen[a.block]
		if len(at) != 1 {
			s.Errorf("an acknowledged block is at %v", at)
			continue
		}
		if !last[a.block.process].before(at[0]) {
			s.Errorf("block %d of a process is at %v, and the one before it at %v", a.block.n, at, last[a.block.process])
		}
		last[a.block.process] = at[0]
	}
	checkHeads(s.T, s.acks, s.heads, func(b block) (seq uint64) {
		for _, p := range seen[b] {
			seq = max(seq, p.seq)
		}
		return seq
	})
	for _, b := range buses {
		for _, shard := range b.Shards() {
			if g := b.Generations(shard); len(g) != 1 {
				s.Errorf("shard %s has the generations %+v", shard, g)
			}
		}
	}
	s.Logf("%d blocks acknowledged, %d refused, longest pause %v; %d heads, %d unknown, longest pause %v, slowest of the middle %v; stored without an acknowledgement: %d",
		len(s.acks), s.refused, longest(s.acks, func(a ack) time.Time { return a.at }).Round(time.Millisecond),
		len(s.heads), s.unknown, longest(s.heads, func(h head) time.Time { return h.answered }).Round(time.Millisecond),
		medianHead(s.heads).Round(10*time.Microsecond), len(seen)-len(s.acks))
}

// checkHeads says that no head is below a block that was acknowledged before it was asked for. acks are in order.
func checkHeads(t *testing.T, acks []ack, heads []head, at func(block) uint64) {
	t.Helper()
	slices.SortFunc(heads, func(a, b head) int { return a.asked.Compare(b.asked) })
	var must uint64
	i, wrong := 0, 0
	for _, h := range heads {
		for ; i < len(acks) && acks[i].at.Before(h.asked); i++ {
			must = max(must, at(acks[i].block))
		}
		if h.seq < must {
			if wrong++; wrong <= 5 {
				t.Errorf("asked over server %d: head %d, and %d was acknowledged %v before", h.server, h.seq, must, h.asked.Sub(acks[i-1].at))
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d heads of %d are too low", wrong, len(heads))
	}
}

// longest is the longest time between two of a list.
func longest[E any](list []E, at func(E) time.Time) (d time.Duration) {
	times := make([]time.Time, len(list))
	for i, e := range list {
		times[i] = at(e)
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		d = max(d, times[i].Sub(times[i-1]))
	}
	return d
}

func medianHead(heads []head) time.Duration {
	took := make([]time.Duration, 0, len(heads))
	for _, h := range heads {
		took = append(took, h.answered.Sub(h.asked))
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0
	}
	return took[len(took)/2]
}
