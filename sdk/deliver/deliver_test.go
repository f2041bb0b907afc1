package deliver_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

// end is the other end: it answers as told and remembers.
type end struct {
	mu      sync.Mutex
	answer  func(n int, r *sdk.Request) deliver.Answer // to the nth attempt; nil = delivered
	n       int
	now     int
	peak    int // attempts at once
	at      []time.Time
	bodies  [][]byte
	stalled chan struct{} // posts wait for it to close
}

func (e *end) Post(ctx context.Context, r *sdk.Request) deliver.Answer {
	e.mu.Lock()
	e.n++
	e.now++
	e.peak = max(e.peak, e.now)
	e.at = append(e.at, time.Now())
	stalled, a := e.stalled, deliver.Answer{}
	if e.answer != nil {
		a = e.answer(e.n, r)
	}
	e.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-ctx.Done():
			a = deliver.Answer{Verdict: deliver.Failed, Err: ctx.Err()}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now--
	if a.Verdict == deliver.Delivered {
		e.bodies = append(e.bodies, r.Body)
	}
	return a
}

func (e *end) arrived(*testing.T) [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bodies
}

func (e *end) attempts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

func (e *end) set(f func(int, *sdk.Request) deliver.Answer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func (e *end) stall() (resume func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := make(chan struct{})
	e.stalled = c
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stalled = nil
		close(c)
	})
}

func always(v deliver.Verdict) func(int, *sdk.Request) deliver.Answer {
	return func(int, *sdk.Request) deliver.Answer { return deliver.Answer{Verdict: v, Err: errors.New("no")} }
}

func open(t *testing.T, cfg deliver.Config, e *end) *deliver.Sink {
	t.Helper()
	s, err := deliver.New(cfg, e)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		e := &end{}
		return sinktest.Opened{Sink: open(t, deliver.DefaultConfig(), e), Arrived: e.arrived, Stall: e.stall}
	})
}

// bubble runs f with a clock of its own, over a sink that it closes.
func bubble(t *testing.T, change func(*deliver.Config), f func(t *testing.T, s *deliver.Sink, e *end)) {
	synctest.Test(t, func(t *testing.T) {
		cfg := deliver.DefaultConfig()
		if change != nil {
			change(&cfg)
		}
		e := &end{}
		s := open(t, cfg, e)
		f(t, s, e)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = s.Close(ctx)
		sinktest.CheckStats(t, s.Stats())
	})
}

// flush flushes a sink for as long as pauses take.
func flush(t *testing.T, s *deliver.Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		t.Errorf("%v, %+v", err, s.Stats())
	}
}

func TestOutageLosesNothing(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(always(deliver.Away))
		rs := sinktest.Requests(500)
		for _, r := range rs {
			s.Send(r)
		}
		time.Sleep(4 * time.Minute) // spans are tried for five
		synctest.Wait()
		// Pauses of 0.1 s, doubling to 30 s, each half as long on average: a probe every 15 s in the end.
		if n := e.attempts(); n > 60 || n < 10 {
			t.Errorf("%d attempts in four minutes", n)
		}
		e.set(nil)
		flush(t, s)
		sinktest.CheckArrived(t, rs, e.arrived(t))
		if got := s.Stats(); sinktest.Dropped(got) != 0 || got.Retries == 0 {
			t.Errorf("%+v", got)
		}
		if e.peak > 3 {
			t.Errorf("%d attempts at once", e.peak)
		}
	})
}

func TestOneProbeAtATimeWhileTheOtherEndIsAway(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(always(deliver.Away))
		for _, r := range sinktest.Requests(10) {
			s.Send(r)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		resume := e.stall()
		defer resume()
		e.mu.Lock()
		e.peak = 0
		e.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.now != 1 || e.peak != 1 {
			t.Errorf("%d under way, %d at most", e.now, e.peak)
		}
	})
}

func TestAgeEndsAttempts(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(always(deliver.Away))
		for _, r := range sinktest.Requests(3) {
			s.Send(r)
		}
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		e.set(nil)
		flush(t, s)
		got := s.Stats()
		for class, want := range []int64{0, 1, 1, 1} {
			if n := sinktest.DroppedFor(got, sdk.Class(class), sdk.DropRetries); n != want {
				t.Errorf("%s: %d dropped, want %d", sdk.Class(class), n, want)
			}
		}
		if got.Delivered != 4 {
			t.Errorf("%+v", got)
		}
	})
}

func TestPoisonousRequestDoesNotHoldUpOthers(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
		poison := sinktest.Noise(sdk.ClassMetadata, 10)
		e.set(func(_ int, r *sdk.Request) deliver.Answer {
			if len(r.Body) == 10 {
				return deliver.Answer{Verdict: deliver.Failed, Err: errors.New("500")}
			}
			return deliver.Answer{}
		})
		s.Send(poison)
		rs := sinktest.Requests(100)
		for _, r := range rs {
			s.Send(r)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := s.Stats(); got.Delivered != int64(len(rs)) || got.Queued != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := s.Stats(); sinktest.DroppedFor(got, sdk.ClassMetadata, sdk.DropRetries) != 1 {
			t.Errorf("a hundred failures are enough: %+v", got)
		}
	})
}

func TestRefusedIsDroppedAtOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(always(deliver.Refused))
		s.Send(sinktest.Noise(sdk.ClassLogs, 10))
		flush(t, s)
		if got := s.Stats(); sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropRefused) != 1 || e.attempts() != 1 {
			t.Errorf("%+v after %d attempts", got, e.attempts())
		}
	})
}

func TestRetryAfterIsHonouredWithinABound(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{5 * time.Second: 5 * time.Second, time.Hour: time.Minute} {
		bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
			e.set(func(n int, _ *sdk.Request) deliver.Answer {
				if n == 1 {
					return deliver.Answer{Verdict: deliver.Away, RetryAfter: asked, Err: errors.New("503")}
				}
				return deliver.Answer{}
			})
			s.Send(sinktest.Noise(sdk.ClassLogs, 10))
			flush(t, s)
			if pause := e.at[1].Sub(e.at[0]); pause < want || pause > want+time.Second {
				t.Errorf("asked for %s: a pause of %s", asked, pause)
			}
		})
	}
}

func TestSpansGoBeforeMetricsBeforeLogs(t *testing.T) {
	small := func(c *deliver.Config) { c.SoftBytes, c.HardBytes, c.MaxInFlight = 60_000, 100_000, 1 }
	bubble(t, small, func(t *testing.T, s *deliver.Sink, e *end) {
		resume := e.stall()
		send := func(c sdk.Class, n int) {
			for range n {
				s.Send(sinktest.Noise(c, 10_000-256))
			}
			synctest.Wait()
		}
		check := func(what string, want [sdk.NumClasses]int64) {
			t.Helper()
			got := s.Stats()
			sinktest.CheckStats(t, got)
			for c := range sdk.Class(sdk.NumClasses) {
				if n := sinktest.DroppedFor(got, c, sdk.DropQueueFull); n != want[c] {
					t.Errorf("%s: %d of %s dropped, want %d", what, n, c, want[c])
				}
			}
		}
		send(sdk.ClassMetadata, 1) // under way: 10 kB
		send(sdk.ClassSpans, 6)
		check("five spans fit below the soft bound", [...]int64{0, 0, 0, 1})
		send(sdk.ClassMetrics, 4)
		check("metrics fill the rest", [...]int64{0, 0, 0, 1})
		send(sdk.ClassMetrics, 2)
		check("metrics push spans out", [...]int64{0, 0, 0, 3})
		send(sdk.ClassLogs, 4)
		check("logs push spans out first, then metrics", [...]int64{0, 0, 1, 6})
		send(sdk.ClassMetrics, 1)
		check("metrics do not push metrics or logs out", [...]int64{0, 0, 2, 6})
		send(sdk.ClassLogs, 6)
		check("logs push metrics out, not logs", [...]int64{0, 1, 7, 6})
		s.Send(sinktest.Noise(sdk.ClassLogs, 200_000))
		check("what can never fit pushes nothing out", [...]int64{0, 2, 7, 6})
		send(sdk.ClassMetadata, 20)
		check("registrations are always taken and push everything else out", [...]int64{0, 11, 7, 6})
		resume()
		flush(t, s)
		if got := s.Stats(); got.Delivered != 21 {
			t.Errorf("%+v", got)
		}
	})
}

func TestErrorsAreToldRarely(t *testing.T) {
	var mu sync.Mutex
	var told []string
	hook := func(c *deliver.Config) {
		c.OnError = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err.Error())
		}
	}
	bubble(t, hook, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(always(deliver.Refused))
		for range 100 {
			s.Send(sinktest.Noise(sdk.ClassLogs, 10))
		}
		flush(t, s)
		time.Sleep(time.Minute)
		s.Send(sinktest.Noise(sdk.ClassLogs, 10))
		flush(t, s)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(told) != 2 || told[0] != "no" || told[1] != "no (and 99 errors before it)" {
			t.Errorf("%q", told)
		}
	})
}

func TestSettledHearsOfEveryRequestOnce(t *testing.T) {
	var mu sync.Mutex
	heard := map[string]int{}
	small := func(c *deliver.Config) {
		c.SoftBytes, c.HardBytes = 50_000, 100_000
		c.Settled = func(r *sdk.Request) {
			mu.Lock()
			defer mu.Unlock()
			heard[string(r.Body)]++
		}
	}
	bubble(t, small, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(func(n int, _ *sdk.Request) deliver.Answer {
			return deliver.Answer{Verdict: deliver.Verdict(n % 4)}
		})
		const n = 400
		for i := range n {
			s.Send(sinktest.Noise(sdk.Class(i%sdk.NumClasses), 1_000))
		}
		flush(t, s)
		mu.Lock()
		defer mu.Unlock()
		if len(heard) != n {
			t.Errorf("heard of %d of %d", len(heard), n)
		}
		for _, times := range heard {
			if times != 1 {
				t.Fatalf("heard %d times of one request", times)
			}
		}
	})
}

func TestCloseTriesOnceMoreAtOnce(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *deliver.Sink, e *end) {
		e.set(always(deliver.Away))
		s.Send(sinktest.Noise(sdk.ClassLogs, 10))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		e.set(nil)
		begin := time.Now()
		sinktest.Close(t, s)
		if took := time.Since(begin); took > 0 {
			t.Errorf("close waited for %s", took)
		}
	})
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	if err := deliver.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if _, err := deliver.New(deliver.Config{}, &end{}); err == nil {
		t.Error("an empty config is accepted")
	}
}

func BenchmarkSendAndPost(b *testing.B) {
	s, err := deliver.New(deliver.DefaultConfig(), nothing{})
	if err != nil {
		b.Fatal(err)
	}
	r := sinktest.Noise(sdk.ClassMetadata, 1_000)
	b.ReportAllocs()
	for b.Loop() {
		s.Send(r)
	}
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

type nothing struct{}

func (nothing) Post(context.Context, *sdk.Request) deliver.Answer { return deliver.Answer{} }
