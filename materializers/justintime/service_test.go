package justintime_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

const hour = 3600.0

// program returns the blocks of a thread that calls at random for some hours, with a loss now and then.
func program(rnd *rand.Rand, blocks int) []*block {
	var out []*block
	var stack []byte
	at, offset := 1.0, int64(0)
	for range blocks {
		b := &block{from: at, offset: offset}
		for range rnd.IntN(8) {
			at += 1 + float64(rnd.IntN(200))
			v := event{at: at, letter: byte('A' + rnd.IntN(4))}
			if len(stack) > 0 && (rnd.IntN(2) == 0 || len(stack) > 6) {
				v.end, v.letter = true, stack[len(stack)-1]
				stack = stack[:len(stack)-1]
			} else {
				stack = append(stack, v.letter)
			}
			b.events = append(b.events, v)
			offset++
		}
		at += 1 + float64(rnd.IntN(600))
		b.to = at
		out = append(out, b)
		if rnd.IntN(12) == 0 {
			at, stack = at+5, nil
		}
	}
	return out
}

// TestEqualsEager: whatever came when, and whatever was asked for before, the rows are those of all blocks at once.
func TestEqualsEager(t *testing.T) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		blocks := program(rnd, 40)
		end := blocks[len(blocks)-1].to

		e := newEnv(t)
		s := e.service("one", config())
		shuffled := slices.Clone(blocks)
		if seed > 0 { // of the first, blocks come in order
			rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		}
		for _, b := range shuffled {
			e.post(b)
			if rnd.IntN(3) == 0 {
				from := rnd.Float64() * end
				e.rows(e.ask(s, from, from+rnd.Float64()*2*hour))
			}
		}
		got := e.ask(s, 0, end)
		again := e.ask(s, 0, end)
		if again.FreshPartitions != again.Partitions || again.BuiltBlocks != 0 {
			t.Errorf("asked again: %+v", again)
		}

		eager := newEnv(t)
		eager.process, eager.stream = e.process, e.stream
		for _, b := range blocks {
			eager.postAs(e, b)
		}
		want := eager.ask(eager.service("one", config()), 0, end)
		e.wantRows("all hours", e.rows(got), eager.rows(want))
		e.wantRows("all hours again", e.rows(again), eager.rows(want))

		large := config()
		large.SliceObjects = 1 << 20
		e.wantRows("one slice an hour", eager.rows(eager.ask(eager.service("two", large), 0, end)), eager.rows(want))
	}
}

// postAs publishes registrations and a block of another house.
func (e *env) postAs(other *env, b *block) {
	e.process, e.stream = other.process, other.stream
	e.register()
	e.post(b)
}

func TestBuildsOnlyWhatIsTouched(t *testing.T) {
	e := newEnv(t)
	var starts []string
	cfg := config()
	cfg.SliceObjects = 1000
	s := e.service("one", cfg)
	s.SetHook(func(at string) error {
		if at == "before put" {
			starts = append(starts, at)
		}
		return nil
	})
	span := func(from float64) []event {
		return []event{{letter: 'A', at: from}, {end: true, letter: 'A', at: from + 10}}
	}
	for h := range 5 {
		from := float64(h)*hour + 100
		e.post(&block{from: from, to: from + 50, offset: int64(h * 10), events: span(from + 1)})
	}
	built := func(from, to float64) int {
		starts = nil
		e.ask(s, from, to)
		return len(starts)
	}
	if n := built(0, 5*hour); n != 5 {
		t.Errorf("%d partitions built of 5 hours", n)
	}
	if n := built(0, 5*hour); n != 0 {
		t.Errorf("%d partitions built again", n)
	}
	e.post(&block{from: 2*hour + 200, to: 2*hour + 250, offset: 25, events: span(2*hour + 210)}) // late
	if n := built(0, 1.5*hour); n != 0 {
		t.Errorf("%d partitions built before a late block", n)
	}
	if n := built(0, 5*hour); n != 2 { // the chain that the next hour ends is another one
		t.Errorf("%d partitions built for a late block", n)
	}
	e.post(&block{from: hour + 150, to: hour + 160, offset: 15, events: []event{{letter: 'B', at: hour + 155}}}) // it touches the block before: one chain
	if n := built(0, 5*hour); n != 2 {
		t.Errorf("%d partitions built for a late block that leaves a chain as open as it was", n)
	}
	// Five hours, no more: one that was asked for in the middle of a thread is clipped at the blocks before it.
	if n := len(e.partitions()); n != 5 {
		t.Errorf("%d partitions", n)
	}
}

func TestUnknown(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	_, err := s.Materialize(t.Context(), bus.MaterializeRequest{View: "thread_spans", Instance: telemetry.NewID(), End: 1}, nil)
	if code(err) != bus.UnknownInstance || !strings.Contains(err.Error(), "Stream not found") {
		t.Errorf("unknown stream: %v", err)
	}
	_, err = s.Materialize(t.Context(), bus.MaterializeRequest{View: "nope", Instance: e.stream.ID, End: 1}, nil)
	if code(err) != bus.UnknownView {
		t.Errorf("unknown view: %v", err)
	}
	if r := e.ask(s, 0, 100); len(r.Files)+len(r.Open) != 0 || r.Blocks != 0 {
		t.Errorf("a stream without blocks: %+v", r)
	}
}

func TestDryAndLimit(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	for i := range 5 {
		from := float64(i * 10)
		e.post(&block{from: from, to: from + 10, offset: int64(i * 2), events: []event{{letter: 'A', at: from + 1}, {end: true, letter: 'A', at: from + 2}}})
	}
	req := e.request(0, 50)
	req.Dry = true
	r, err := s.Materialize(t.Context(), req, nil)
	e.check(err)
	if r.BuiltBlocks != 5 || r.Blocks != 5 || r.Objects != 10 || r.Bytes == 0 || len(r.Files) != 0 || s.Stats().Partitions != 0 {
		t.Errorf("dry: %+v", r)
	}
	req = e.request(0, 50)
	req.MaxBlocks = 4
	if _, err := s.Materialize(t.Context(), req, nil); code(err) != bus.TooMuch {
		t.Errorf("more than 4 blocks: %v", err)
	}
	req.MaxBlocks = 5
	built, err := s.Materialize(t.Context(), req, nil)
	e.check(err)
	built.CommitNo++ // it was looked up before
	req.Dry = true
	if r, err = s.Materialize(t.Context(), req, nil); err != nil || r.BuiltBlocks != 0 || len(r.Files) == 0 || !reflect.DeepEqual(r, built) {
		t.Errorf("dry, when it is built: %+v, %v, want %+v", r, err, built)
	}
}

// TestSingleFlight: of many who ask at once, in two processes, one builds.
func TestSingleFlight(t *testing.T) {
	e := newEnv(t)
	blocks := program(rand.New(rand.NewPCG(9, 1)), 30)
	for _, b := range blocks {
		e.post(b)
	}
	one, two := e.service("one", config()), e.service("two", config())
	var g sync.WaitGroup
	replies := make([]bus.MaterializeReply, 16)
	for i := range replies {
		s := one
		if i%2 == 1 {
			s = two
		}
		g.Go(func() {
			var err error
			if replies[i], err = s.Materialize(t.Context(), e.request(0, blocks[len(blocks)-1].to), nil); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	for i := range replies {
		e.wantRows("all alike", e.rows(replies[i]), e.rows(replies[0]))
	}
	if n := one.Stats().Blocks + two.Stats().Blocks; n != int64(len(blocks)) {
		t.Errorf("%d blocks decoded of %d", n, len(blocks))
	}
}

// TestCorruptBlock: one block is left out with a warning, the others are served, also when they are built already.
func TestCorruptBlock(t *testing.T) {
	e := newEnv(t)
	s := e.service("one", config())
	good := func(i int) *block {
		from := float64(i * 10)
		return &block{from: from, to: from + 10, offset: int64(i * 2), events: []event{{letter: 'A', at: from + 1}, {end: true, letter: 'A', at: from + 2}}}
	}
	e.post(good(0))
	bad := good(1)
	e.postBody(bad, wire.AppendBlock(nil, e.envelope(bad), wire.Compress(nil, nil), []byte("no events")))
	e.post(good(2))
	for range 2 {
		r := e.ask(s, 0, 30)
		if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], bad.id.String()) || !strings.Contains(r.Warnings[0], "left out") {
			t.Errorf("warnings %q", r.Warnings)
		}
		e.wantRows("the others", e.rows(r), []string{
			"-1 0 0 0.000 10.000 main-7", "0 -1 1 1.000 2.000 A", "-1 0 0 20.000 30.000 main-7", "4 -1 1 21.000 22.000 A",
		})
	}
}

var errCrash = errors.New("crash")

// TestCrash: work that ends between any two steps goes on when it is asked for again, and nothing is there twice.
func TestCrash(t *testing.T) {
	for _, at := range []string{"before put", "before commit", "after commit"} {
		t.Run(at, func(t *testing.T) {
			e := newEnv(t)
			blocks := program(rand.New(rand.NewPCG(3, 3)), 20)
			for _, b := range blocks {
				e.post(b)
			}
			end := blocks[len(blocks)-1].to
			tries := 0
			for ; ; tries++ {
				s := e.service("one", config())
				left := 2 // partitions until the crash
				s.SetHook(func(step string) error {
					if step != at {
						return nil
					}
					if left--; left < 0 {
						return errCrash
					}
					return nil
				})
				r, err := s.Materialize(t.Context(), e.request(0, end), nil)
				if err == nil {
					e.wantRows("after crashes", e.rows(r), e.rows(e.ask(e.service("two", config()), 0, end)))
					break
				}
				if !strings.Contains(err.Error(), "crash") {
					t.Fatal(err)
				}
			}
			if tries < 2 {
				t.Errorf("only %d crashes", tries)
			}
			seen := map[[2]int64]bool{}
			for _, p := range e.partitions() {
				k := [2]int64{p.Bucket, int64(p.Level)}
				if seen[k] {
					t.Error("two partitions in one place:", k)
				}
				seen[k] = true
			}
		})
	}
}

// TestAskerGone: the work ends with its context, and the next one does the rest.
func TestAskerGone(t *testing.T) {
	e := newEnv(t)
	blocks := program(rand.New(rand.NewPCG(4, 4)), 20)
	for _, b := range blocks {
		e.post(b)
	}
	end := blocks[len(blocks)-1].to
	s := e.service("one", config())
	ctx, cancel := context.WithCancel(t.Context())
	s.SetHook(func(string) error { cancel(); return nil })
	_, err := s.Materialize(ctx, e.request(0, end), nil)
	if code(err) != bus.Interrupted {
		t.Errorf("error %v, want a retryable one", err)
	}
	if s.Stats().Building != 0 {
		t.Error("work goes on")
	}
	e.ask(e.service("two", config()), 0, end) // the lease is free
}

// TestZombie: who lost the lease commits nothing, and says that it may be tried again.
func TestZombie(t *testing.T) {
	e := newEnv(t)
	blocks := program(rand.New(rand.NewPCG(5, 5)), 20)
	for _, b := range blocks {
		e.post(b)
	}
	end := blocks[len(blocks)-1].to
	cfg := config()
	cfg.LeaseExpiry = time.Hour // it does not look for itself
	s := e.service("one", cfg)
	var once atomic.Bool
	s.SetHook(func(at string) error {
		if at != "before commit" || once.Swap(true) {
			return nil
		}
		leases, err := e.cat.Leases(t.Context())
		for _, l := range leases {
			if strings.HasPrefix(l.Name, "jit/") {
				err = errors.Join(err, e.cat.ReleaseLease(t.Context(), l))
			}
		}
		e.ask(e.service("two", config()), 0, end)
		return err
	})
	if _, err := s.Materialize(t.Context(), e.request(0, end), nil); code(err) != bus.Interrupted {
		t.Errorf("error %v, want a retryable one", err)
	}
	e.wantRows("afterwards", e.rows(e.ask(s, 0, end)), e.rows(e.ask(e.service("two", config()), 0, end)))
}
