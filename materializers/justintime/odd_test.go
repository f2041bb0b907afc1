package justintime_test

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Blocks that say odd things, and stores in trouble.

func pair(letter byte, from, to float64) []event {
	return []event{{letter: letter, at: from}, {end: true, letter: letter, at: to}}
}

// TestAbsurdTimes: a block whose times are at the ends of what a clock can say hides no other, and does not drag the rest of the
// process's life into every window.
func TestAbsurdTimes(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	e.post(&block{from: 10, to: 20, events: pair('A', 11, 12)})
	e.post(&block{from: 3 * hour, to: 3*hour + 10, offset: 2, events: pair('B', 3*hour+1, 3*hour+2)})
	late := func() []string { return e.rows(e.ask(s, 3*hour, 3*hour+100)) }
	all := func() []string {
		r, err := s.Materialize(t.Context(), bus.MaterializeRequest{View: "thread_spans", Instance: e.stream.ID, Begin: math.MinInt64, End: math.MaxInt64}, nil)
		e.check(err)
		return e.rows(r)
	}
	lateBefore, allBefore := late(), all()
	if len(lateBefore) != 2 || len(allBefore) != 4 {
		t.Fatal(lateBefore, allBefore)
	}
	e.post(&block{from: 30, to: 40, offset: 4, claim: func(b *telemetry.Block) { b.BeginTime = math.MinInt64 }})
	e.wantRows("beside a block of the first year", late(), lateBefore)
	e.wantRows("all, beside a block of the first year", all(), allBefore)
	e.post(&block{from: 50, to: 60, offset: 4, claim: func(b *telemetry.Block) { b.BeginTime, b.EndTime = math.MaxInt64, math.MaxInt64 }})
	e.wantRows("all, beside one of the last year, too", all(), allBefore)

	e.post(&block{from: 70, to: 80, offset: 4, claim: func(b *telemetry.Block) { b.BeginTime, b.EndTime = math.MinInt64, day+ticks(4*hour) }})
	r := e.ask(s, 3*hour, 3*hour+100)
	e.wantRows("within a block that lasts for ever", e.rows(r), lateBefore)
	for _, p := range e.partitions() {
		if p.Bucket < day {
			t.Errorf("a partition of an hour before the process's start: %+v", p)
		}
	}
}

// TestLateBlockBeforeTheWindow: the partition before a window was built upon blocks of which one is new. That one counts, since the window
// would be built upon it if there were no partitions.
func TestLateBlockBeforeTheWindow(t *testing.T) {
	blocks := []*block{
		{from: 100, to: 3000, offset: 0, events: []event{{letter: 'A', at: 200}}},
		{from: 3000, to: 3600, offset: 1, events: pair('X', 3100, 3200)},
		{from: 3600, to: 7200, offset: 3, events: pair('B', 4000, 5000)},
		{from: 7200, to: 10800, offset: 5, events: append(pair('C', 8000, 9000), event{end: true, letter: 'A', at: 10000})},
	}
	eager := newEnv(t)
	for _, b := range blocks {
		eager.post(b)
	}
	want := eager.rows(eager.ask(eager.service("one", config()), 7300, 10700))

	e := newEnv(t)
	s := e.service("one", config())
	for i, b := range blocks {
		if i != 1 {
			e.postAs(eager, b)
		}
	}
	e.ask(s, 0, 10800)
	e.postAs(eager, blocks[1])
	e.wantRows("the last hour alone", e.rows(e.ask(s, 7300, 10700)), want)
	e.ask(s, 0, 10800)
	e.wantRows("when all is built", e.rows(e.ask(s, 7300, 10700)), want)
}

// TestClockSetBackOverTheHour: blocks of an hour and of the one before are in another order than their ticks.
func TestClockSetBackOverTheHour(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	set := func(by float64) func(*telemetry.Block) {
		return func(b *telemetry.Block) { b.BeginTime, b.EndTime = b.BeginTime+ticks(by), b.EndTime+ticks(by) }
	}
	e.post(&block{from: 3590, to: 3610, events: pair('A', 3591, 3592), claim: set(11)})
	e.post(&block{from: 3610, to: 3620, offset: 2, events: pair('B', 3611, 3612), claim: set(-11)})
	e.wantRows("a tree for each side", e.rows(e.ask(s, 0, 7200)), []string{
		"-1 0 0 3590.000 3610.000 main-7", "0 -1 1 3591.000 3592.000 A", "-1 0 0 3610.000 3620.000 main-7", "2 -1 1 3611.000 3612.000 B",
	})
}

// TestMoreEventsThanABlockSays: memory is bounded by what blocks say, so one that lies is left out.
func TestMoreEventsThanABlockSays(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	e.post(&block{from: 10, to: 20, events: pair('A', 11, 12)})
	e.post(&block{from: 20, to: 30, offset: 2, events: pair('B', 21, 22), claim: func(b *telemetry.Block) { b.NbObjects = 1 }})
	r := e.ask(s, 0, 100)
	e.wantRows("the other block", e.rows(r), []string{"-1 0 0 10.000 20.000 main-7", "0 -1 1 11.000 12.000 A"})
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "it says that it has 1 events, and has 2") {
		t.Errorf("warnings %q", r.Warnings)
	}
}

// TestBlocksWaitForRoom: with room for one block at a time all are decoded, and the room is free afterwards, also when the work is broken off.
func TestBlocksWaitForRoom(t *testing.T) {
	e := newEnv(t)
	cfg := config()
	cfg.DecodedBytes = 1
	s := e.service("one", cfg)
	var want []string
	for i := range 20 {
		from := float64(10 * i)
		e.post(&block{from: from, to: from + 10, offset: int64(2 * i), events: pair('A', from+1, from+2)})
	}
	broken := errors.New("broken off")
	s.SetHook(func(string) error { return broken })
	if _, err := s.Materialize(t.Context(), e.request(0, 1000), nil); err == nil {
		t.Error("not broken off")
	}
	s.SetHook(nil)
	want = e.rows(e.ask(e.service("two", config()), 0, 1000))
	for _, p := range e.partitions() {
		e.retire(p.PartNo)
	}
	e.wantRows("one after the other", e.rows(e.ask(s, 0, 1000)), want)
	if len(want) != 21 {
		t.Errorf("%d rows", len(want))
	}
}

// TestReversedSpanOfTheNetwork: what ends before it begins is a row as the producer says, and its file can be committed.
func TestReversedSpanOfTheNetwork(t *testing.T) {
	e := newEnv(t)
	e.stream = telemetry.Stream{ID: telemetry.NewID(), ProcessID: e.process.ID, Tags: []string{"net"}, Format: telemetry.FormatTransit}
	e.stream.Dependencies, e.stream.Objects = wire.NetTypes()
	e.register()
	deps := wire.AppendStaticStringDependency(nil, wire.NetDepStaticStringDependency, 1, "c")
	objs := wire.AppendNetConnectionBegin(nil, ticks(15), wire.StaticRef{ID: 1, Len: 1}, true)
	objs = wire.AppendNetEnd(objs, wire.NetConnectionEnd, ticks(12), 8)
	b := &block{from: 10, to: 20, events: make([]event, 2)}
	e.postBody(b, wire.AppendBlock(nil, e.envelope(b), wire.Compress(nil, deps), wire.Compress(nil, objs)))
	r, err := e.service("one", config()).Materialize(t.Context(), bus.MaterializeRequest{View: "net_spans", Instance: e.process.ID, Begin: day, End: day + ticks(100)}, nil)
	if err != nil || len(r.Files) != 1 || r.Files[0].Rows != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestWaiterSeesWhatCameMeanwhile: a request that waits for another one's build then looks at the instance anew, so it does not build with
// an older clock what the other has built.
func TestWaiterSeesWhatCameMeanwhile(t *testing.T) {
	e := newEnv(t)
	e.process = telemetry.Process{ID: telemetry.NewID(), Exe: "game", StartTime: day} // its frequency is not known
	e.stream.ID, e.stream.ProcessID = telemetry.NewID(), e.process.ID
	e.register()
	slow, quick := config(), config()
	slow.LeasePoll = 50 * time.Millisecond
	one, two, three := e.service("one", slow), e.service("two", quick), e.service("three", quick)
	dry := e.request(0, 100)
	dry.Dry = true
	e.post(&block{from: 10, to: 20, events: pair('A', 11, 12)})

	// While two builds, one plans and waits, and a block comes that moves the clock.
	waits, built := make(chan struct{}), make(chan struct{})
	var hooked sync.Once
	two.SetHook(func(string) error {
		hooked.Do(func() {
			go func() {
				defer close(built)
				_, err := one.Materialize(t.Context(), e.request(0, 100), func(p bus.MaterializeProgress) {
					if p.Waiting {
						select {
						case <-waits:
						default:
							close(waits)
						}
					}
				})
				if err != nil {
					t.Error(err)
				}
			}()
			<-waits
			e.post(&block{from: 20, to: 30, offset: 2, claim: func(b *telemetry.Block) { b.EndTime += 5_000 }})
			if _, err := three.Materialize(t.Context(), dry, nil); err != nil { // has it archived
				t.Error(err)
			}
		})
		return nil
	})
	e.ask(two, 0, 100)
	<-built
	r, err := two.Materialize(t.Context(), dry, nil)
	e.check(err)
	if r.BuiltBlocks != 0 {
		t.Errorf("what was built last is of an old clock: %d of %d blocks are stale", r.BuiltBlocks, r.Blocks)
	}
}

// TestKindsOfTrouble: what a store refuses may come right, a process without a clock never.
func TestKindsOfTrouble(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	e.post(&block{from: 10, to: 20, events: pair('A', 11, 12)})
	s.SetHook(func(at string) error {
		if at == "before put" {
			return errors.New("connection refused")
		}
		return nil
	})
	if _, err := s.Materialize(t.Context(), e.request(0, 100), nil); code(err) != bus.Interrupted || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("trouble of a store: %v", err)
	}
	s.SetHook(nil)
	e.process = telemetry.Process{ID: telemetry.NewID(), Exe: "game", StartTime: day + ticks(50)} // a block ended before
	e.stream.ID, e.stream.ProcessID = telemetry.NewID(), e.process.ID
	e.register()
	e.post(&block{from: 10, to: 20, events: pair('A', 11, 12)})
	if _, err := s.Materialize(t.Context(), e.request(0, 100), nil); code(err) != bus.Failed {
		t.Errorf("no clock: %v", err)
	}
}
