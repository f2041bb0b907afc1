package materializers_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

var eager = bus.Shard{Class: bus.Eager}

// lagging is a configuration with which what was posted with an old insert time is behind, and ranges are short.
func lagging() materializers.Config {
	c := config()
	c.BacklogLag, c.BacklogBytes, c.BacklogFrames, c.BacklogRange = 30*time.Second, 1, 2, 10
	return c
}

// postFresh posts a block that the gateway took now.
func (m *maker) postFresh(e *env, body []byte) {
	e.t.Helper()
	e.post(bus.KindBlock, telemetry.TagLog, body, time.Now().UnixNano())
}

func (e *env) ranges() []catalog.Backlog {
	e.t.Helper()
	all, err := e.cat.Backlog(e.t.Context(), catalog.ConsumerViews)
	if err != nil {
		e.t.Fatal(err)
	}
	return all
}

// drained waits until no range is open, and everything else is in the views.
func (e *env) drained() {
	e.t.Helper()
	e.eventually("draining", func() bool { return !e.flush().Backlog })
	if open := e.ranges(); len(open) != 0 {
		e.t.Errorf("no answer names open ranges %+v", open)
	}
}

// gate holds whoever reaches a step until it is opened.
type gate struct {
	step string
	open chan struct{}
}

func newGate(t *testing.T, step string) *gate {
	g := &gate{step, make(chan struct{})}
	t.Cleanup(g.lift)
	return g
}

func (g *gate) hook(at string) error {
	if at == g.step {
		<-g.open
	}
	return nil
}

func (g *gate) lift() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// A server whose views were down while many events came shows a fresh block at once, says that older rows are missing, and
// has them all in the end.
func TestFreshBlocksGoBeforeTheBacklog(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	var want []string
	blocks, entries := 200, 5000 // a million
	if testing.Short() {
		blocks, entries = 50, 500
	}
	const apart = 10 * time.Second
	for i := range blocks {
		offset := time.Duration(i) * apart
		m.postLog(e, m.logBlock(entries, offset))
		want = append(want, m.entries(m.blocks, entries, offset)...)
	}
	fresh := time.Hour
	var visible []string
	show := func() {
		m.postFresh(e, m.logBlock(3, fresh))
		visible = append(visible, m.entries(m.blocks, 3, fresh)...)
	}
	visible = append(visible, m.entries(m.blocks, entries, time.Duration(blocks-1)*apart)...) // one of the two that are read in order
	show()                                                                                    // the other
	views := e.newMaterializers("views", lagging())
	g := newGate(t, "claimed")
	views.SetHook(g.hook)
	e.background(views.Run)
	e.eventually("leaping", func() bool { return len(e.ranges()) > 0 })
	show()
	want = append(want, visible[entries:]...)

	reply := e.flush()
	if !reply.Backlog || reply.Parked != 0 {
		t.Errorf("flush while nothing of the backlog is built: %+v", reply)
	}
	if diff := cmp.Diff(sorted(visible), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	open := e.ranges()
	if len(open) < blocks/10 {
		t.Errorf("%d ranges", len(open))
	}
	if s := views.Stats().Shards[eager.String()]; s.Backlog != len(open) || s.BacklogFrames < uint64(blocks) {
		t.Errorf("stats %+v", s)
	}
	meets := func(begin, end time.Duration) bool {
		return e.ask(eager, bus.FlushRequest{Begin: start + int64(begin), End: start + int64(end)}).Backlog
	}
	if meets(fresh+2*time.Minute, fresh+time.Hour) || meets(-time.Hour, -5*time.Minute) || !meets(8*time.Minute, fresh-time.Minute) || !meets(0, time.Second) {
		t.Error("the backlog meets ranges of time that it does not, or the other way round")
	}

	g.lift()
	e.drained()
	slices.Sort(want)
	if got := e.rows("log_entries", logColumns...); !slices.Equal(want, got) { // too many for a diff
		t.Errorf("%d rows, want %d, or others", len(got), len(want))
	}
	checkStats(e, int64(len(want)))
	if s := views.Stats(); s.BacklogRows != int64((blocks-1)*entries) || s.BacklogChunks < int64(len(open)) || s.Shards[eager.String()].Backlog != 0 {
		t.Errorf("stats %+v", s)
	}
}

// scenario posts blocks whose copies lie in the backlog, at the head and in both; whose processes are registered before them,
// among them, at the head, and only at the end; and one that cannot be decoded.
type scenario struct {
	e      *env
	rng    *rand.Rand
	makers []*maker
	bodies []func(insertTime int64) // post a copy
	want   []string
	values int
	dead   telemetry.ID
}

const scenarioProcesses = 4

func newScenario(e *env) *scenario {
	s := &scenario{e: e, rng: rand.New(rand.NewPCG(3, 4))}
	for n := range scenarioProcesses {
		s.makers = append(s.makers, newMaker(n))
	}
	return s
}

func (s *scenario) register(n int) {
	s.makers[n].postStreams(s.e)
	s.makers[n].postProcess(s.e)
}

// blocks posts blocks of every process, each once or twice.
func (s *scenario) blocks(n int, insertTime func() int64) {
	for range n {
		for _, m := range s.makers {
			offset := time.Duration(s.rng.IntN(3600)) * time.Second
			body, more := m.logBlock(7, offset), m.valueBlock(6, offset)
			s.want = append(s.want, m.entries(m.blocks-1, 7, offset)...)
			s.values += 6
			post := func(at int64) {
				s.e.post(bus.KindBlock, telemetry.TagLog, body, at)
				s.e.post(bus.KindBlock, telemetry.TagMetrics, more, at)
			}
			s.bodies = append(s.bodies, post)
			for range 1 + s.rng.IntN(2) {
				post(insertTime())
			}
		}
	}
}

// again posts copies of some of the blocks.
func (s *scenario) again(n int, insertTime func() int64) {
	for range n {
		s.bodies[s.rng.IntN(len(s.bodies))](insertTime())
	}
}

func (s *scenario) corrupt() {
	m := s.makers[0]
	b := telemetry.Block{ID: telemetry.NewID(), StreamID: m.logs.ID, ProcessID: m.process.ID, BeginTime: start, EndTime: start + 1, EndTicks: 1, NbObjects: 1}
	s.dead = b.ID
	m.postLog(s.e, wire.AppendBlock(nil, &b, wire.Compress(nil, nil), wire.Compress(nil, []byte{200, 1, 2, 3})))
}

func old() int64   { return start + int64(time.Hour) }
func fresh() int64 { return time.Now().UnixNano() }

// backlog posts what the views find when they start.
func (s *scenario) backlog() {
	s.register(0)
	s.blocks(3, old)
	s.register(1)
	s.corrupt()
	s.blocks(3, old)
	s.again(5, old)
}

// head posts what comes while the backlog is open.
func (s *scenario) head() {
	s.again(5, fresh)
	s.register(2)
	s.blocks(2, fresh)
	s.again(5, fresh)
}

// check waits for the end and compares.
func (s *scenario) check() {
	s.e.t.Helper()
	s.e.drained()
	s.e.eventually("building of parked copies", func() bool { return s.e.flush().Parked == 0 })
	if diff := cmp.Diff(sorted(s.want), s.e.rows("log_entries", logColumns...)); diff != "" {
		s.e.t.Error(diff)
	}
	if n := len(s.e.rows("measures")); n != s.values {
		s.e.t.Errorf("%d measures, want %d", n, s.values)
	}
	checkStats(s.e, int64(len(s.want)))
	letters, err := s.e.bus.ReadDeadLetters(s.e.t.Context(), 10)
	if err != nil || len(letters) != 1 || letters[0].BlockID != s.dead {
		s.e.t.Errorf("dead letters %+v, %v", letters, err)
	}
	rows, err := s.e.cat.Parked(s.e.t.Context(), catalog.ConsumerViews, catalog.ParkedFilter{})
	if err != nil || len(rows) != 1 || !rows[0].Dead {
		s.e.t.Errorf("parked and dead copies %+v, %v", rows, err)
	}
}

// Copies in the backlog and at the head, registrations anywhere: each block is there once.
func TestBacklogAndHeadShareBlocks(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	s := newScenario(e)
	s.backlog()
	views := e.newMaterializers("views", lagging())
	g := newGate(t, "chunk before commit")
	views.SetHook(g.hook)
	e.background(views.Run)
	if reply := e.flush(); !reply.Backlog { // all is read: what comes now is at the head
		t.Errorf("flush after the leap: %+v", reply)
	}
	s.head()
	if reply := e.flush(); !reply.Backlog || reply.Parked == 0 {
		t.Errorf("flush while the backlog is open, and a process is not registered: %+v", reply)
	}
	g.lift()
	e.drained()
	// Copies that a worker parked are the owner's now: the answer has to name them.
	if reply := e.flush(); reply.Parked < 2*6 {
		t.Errorf("flush after draining, without the last process: %+v", reply)
	}
	s.register(3)
	s.check()
}

// backlogSteps are the places where an owner that leaps or a worker can crash.
var backlogSteps = []string{
	"before leap", "after leap", "claimed", "chunk before put", "chunk after put", "chunk before commit", "chunk after commit",
}

func TestBacklogExactlyOnceUnderCrashes(t *testing.T) {
	all := [][]string{backlogSteps, slices.Concat(backlogSteps, steps[:4])}
	for _, at := range backlogSteps {
		all = append(all, []string{at})
	}
	for _, at := range all {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.startArchive()
			s := newScenario(e)
			s.backlog()
			cfg := lagging()
			cfg.CommitRows, cfg.SeenBlocks, cfg.BacklogWorkers = 40, 2, 2
			var c crashes
			hook := c.at(at...)
			for _, name := range []string{"a", "b"} { // two processes
				views := e.newMaterializers(name, cfg)
				views.SetHook(hook)
				e.background(views.Run)
			}
			e.eventually("leaping", func() bool {
				at, err := e.cat.Checkpoint(t.Context(), catalog.ConsumerViews, catalog.ShardID{Class: 'e'})
				return err == nil && at.Seq > 0
			})
			s.head()
			s.register(3)
			e.eventually("crashes", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.count > 0
			})
			c.off.Store(true)
			s.check()
		})
	}
}

// A worker that was paused for longer than its claim loses at the commit of its chunk.
func TestZombieWorkerLoses(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	s := newScenario(e)
	s.backlog()
	cfg := lagging()
	cfg.BacklogRange = 1000 // one range
	zombie := e.newMaterializers("zombie", cfg)
	o := ownership.DefaultConfig()
	o.Heartbeat, o.Expiry = time.Hour, 300*time.Millisecond
	zombie.SetOwnership(o)
	reached, wake := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var first, stood atomic.Bool
	zombie.SetHook(func(at string) error {
		switch at {
		case "chunk before commit":
			once.Do(func() { close(reached); <-wake; first.Store(true) })
		case "chunk after commit":
			if first.Load() {
				stood.Store(true)
			}
		case "claimed":
			first.Store(false)
		}
		return nil
	})
	e.background(zombie.Run)
	<-reached
	// Another process takes over the range, and the shard.
	other := e.newMaterializers("other", cfg)
	g := newGate(t, "chunk before commit")
	taken := make(chan struct{}, 100)
	other.SetHook(func(at string) error {
		if at == "claimed" {
			taken <- struct{}{}
		}
		return g.hook(at)
	})
	e.background(other.Run)
	<-taken
	close(wake)
	g.lift()
	s.head()
	s.register(3)
	s.check()
	if stood.Load() {
		t.Error("the zombie's chunk stands")
	}
}

// An owner that leapt twice, and lost its shard in between, opens no position twice.
func TestShardsFallBehindAgain(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	var want []string
	post := func(n int) {
		for range n {
			offset := time.Duration(m.blocks) * time.Second
			m.postLog(e, m.logBlock(4, offset))
			want = append(want, m.entries(m.blocks, 4, offset)...)
		}
	}
	g := newGate(t, "claimed")
	frames := 0
	for range 3 {
		post(25)
		views := e.newMaterializers("views", lagging())
		views.SetHook(func(at string) error {
			if at == "claimed" {
				select {
				case <-g.open:
				default:
					return errCrash
				}
			}
			return nil
		})
		stop := e.background(views.Run)
		if reply := e.flush(); !reply.Backlog {
			t.Errorf("flush: %+v", reply)
		}
		stop()
		frames = 0
		for _, b := range e.ranges() {
			frames += int(b.LastSeq - b.FirstSeq + 1)
		}
	}
	if frames != 3+3*25-3*2 { // each time the last two are read in order
		t.Errorf("%d positions in the backlog", frames)
	}
	g.lift()
	e.startViews(lagging())
	e.drained()
	if diff := cmp.Diff(sorted(want), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

// Few old frames, such as those of a moment before a restart, are read in order.
func TestFewOldFramesAreNoBacklog(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(4, 0))
	cfg := lagging()
	cfg.BacklogBytes, cfg.BacklogFrames = 1, 4
	views := e.newMaterializers("views", cfg)
	e.background(views.Run)
	if reply := e.flush(); reply.Backlog || len(e.rows("log_entries")) != 4 || views.Stats().BacklogChunks != 0 {
		t.Errorf("flush: %+v", reply)
	}
}

// The first registration counts, also when it lies in the backlog and a later one says something else.
func TestFirstRegistrationCountsAcrossALeap(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	for i := range 6 {
		m.postLog(e, m.logBlock(2, time.Duration(i)*time.Second))
	}
	e.startViews(lagging())
	e.flush()
	m.process.Exe = "another"
	m.postProcess(e)
	m.postFresh(e, m.logBlock(2, time.Hour))
	e.drained()
	got := slices.Compact(e.rows("log_entries", "exe"))
	if diff := cmp.Diff([]string{`"exe1"`}, got); diff != "" {
		t.Error(diff)
	}
	if n := len(e.rows("log_entries")); n != 14 {
		t.Errorf("%d rows", n)
	}
}

// rollOver deletes the stream of the bus, as the loss of its folder does. The next publication opens a new generation.
func (e *env) rollOver() {
	e.t.Helper()
	js, err := jetstream.New(e.nats.Connect(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	if err := js.DeleteStream(e.t.Context(), e.bus.Current(eager).Stream); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) archived() {
	e.t.Helper()
	e.eventually("archiving", func() bool {
		reply, err := e.bus.Flush(e.t.Context(), eager, bus.FlushRequest{Target: bus.TargetArchive})
		return err == nil && reply.Err == ""
	})
}

// Views follow into the next generation, with copies of blocks and parked copies of the one before, whether they read in order
// or are behind in both.
func TestGenerations(t *testing.T) {
	for name, cfg := range map[string]materializers.Config{"in order": config(), "behind": lagging()} {
		for _, when := range []string{"running", "started later"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				e.startArchive()
				if when == "running" {
					e.startViews(cfg)
				}
				s := newScenario(e)
				s.backlog()
				e.archived()
				if when == "running" {
					e.flush()
				}
				e.rollOver()
				s.register(2)
				s.again(8, old)
				s.blocks(3, old)
				s.register(3)
				s.again(2, old)
				e.archived()
				if gen := e.bus.Current(eager).Gen; gen != 1 {
					t.Fatalf("generation %d", gen)
				}
				if when != "running" {
					views := e.newMaterializers("views", cfg)
					g := newGate(t, "claimed")
					views.SetHook(g.hook)
					e.background(views.Run)
					e.flush()
					gens := map[int32]bool{}
					for _, b := range e.ranges() {
						gens[b.Shard.Gen] = true
					}
					if behind := name == "behind"; behind != (gens[0] && gens[1]) {
						t.Errorf("generations in the backlog: %v", gens)
					}
					g.lift()
				}
				s.check()
			})
		}
	}
}

// Shards are read, and fall behind, each by itself; any worker builds the ranges of all.
func TestSeveralShards(t *testing.T) {
	for name, cfg := range map[string]materializers.Config{"in order": config(), "behind": lagging()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, func(c *bus.Config) { c.ShardsPerClass = 3 })
			e.startArchive()
			s := newScenario(e)
			for len(s.shards()) < 3 { // ids are random
				s.makers = append(s.makers, newMaker(len(s.makers)))
			}
			for n := scenarioProcesses; n < len(s.makers); n++ {
				s.register(n)
			}
			s.backlog()
			for _, owner := range []string{"a", "b"} {
				e.background(e.newMaterializers(owner, cfg).Run)
			}
			s.head()
			s.register(3)
			e.flush()
			s.check()
			for shard := range int32(3) {
				at, err := e.cat.Checkpoint(t.Context(), catalog.ConsumerViews, catalog.ShardID{Class: 'e', Shard: shard})
				if err != nil || at.Seq == 0 {
					t.Errorf("shard %d: checkpoint %+v %v", shard, at, err)
				}
			}
		})
	}
}

func (s *scenario) shards() map[bus.Shard]bool {
	all := map[bus.Shard]bool{}
	for _, m := range s.makers {
		all[s.e.bus.ShardOf(bus.Eager, m.process.ID)] = true
	}
	return all
}

// Frames that the bus lost before anybody archived them are gone; what comes after them is built.
func TestHolesArePassed(t *testing.T) {
	e := newEnv(t)
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	for i := range 4 {
		m.postLog(e, m.logBlock(2, time.Duration(i)*time.Second))
	}
	stop := e.startArchive()
	e.archived()
	stop()
	for i := range 4 {
		m.postLog(e, m.logBlock(2, time.Duration(10+i)*time.Second))
	}
	js, err := jetstream.New(e.nats.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), e.bus.Current(eager).Stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(stream.CachedInfo().State.LastSeq-1)); err != nil {
		t.Fatal(err)
	}
	e.startArchive()
	e.startViews(config())
	m.postLog(e, m.logBlock(2, time.Minute))
	e.flush()
	e.drained()
	want := slices.Concat(m.entries(7, 2, 12*time.Second), m.entries(8, 2, 13*time.Second), m.entries(9, 2, time.Minute))
	for i := range 4 {
		want = append(want, m.entries(i+1, 2, time.Duration(i)*time.Second)...)
	}
	if diff := cmp.Diff(sorted(want), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

// Dead letters do not wait for rows to be committed with.
func TestDeadLettersAreSentSoon(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.CommitAge, cfg.DeadAge = time.Hour, 50*time.Millisecond
	e.startViews(cfg)
	s := newScenario(e)
	s.register(0)
	s.corrupt()
	e.eventually("a dead letter", func() bool {
		letters, err := e.bus.ReadDeadLetters(t.Context(), 10)
		return err == nil && len(letters) == 1
	})
	s.register(1)
	s.register(2)
	s.register(3)
	s.blocks(1, fresh)
	s.check()
}
