package demo_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/producers/demo"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// gateway keeps what it acknowledges.
type gateway struct {
	answer func(n int) int // status of the nth request

	mu      sync.Mutex
	n       int
	process []telemetry.Process
	streams map[telemetry.ID]telemetry.Stream
	blocks  []wire.BlockBody
	got     chan struct{} // a token for each block, as far as there is room
}

func newGateway(answer func(n int) int) *gateway {
	return &gateway{answer: answer, streams: map[telemetry.ID]telemetry.Stream{}, got: make(chan struct{}, 1000)}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	status := g.answer(g.n)
	if err != nil || r.Header.Get("Authorization") != "Bearer key" {
		status = http.StatusUnauthorized
	}
	if status == http.StatusOK {
		status = g.accept(r.URL.Path, body)
	}
	w.WriteHeader(status)
}

func (g *gateway) accept(path string, body []byte) int {
	switch {
	case strings.HasSuffix(path, "insert_process"):
		p, err := wire.DecodeProcess(body)
		if err != nil {
			return http.StatusBadRequest
		}
		g.process = append(g.process, p)
	case strings.HasSuffix(path, "insert_stream"):
		s, err := wire.DecodeStream(body)
		if err != nil {
			return http.StatusBadRequest
		}
		g.streams[s.ID] = s
	default:
		b, err := wire.DecodeBlock(body)
		if err != nil {
			return http.StatusBadRequest
		}
		g.blocks = append(g.blocks, b)
		g.got <- struct{}{}
	}
	return http.StatusOK
}

// run starts a producer until the gateway holds n blocks.
func run(t *testing.T, g *gateway, n int) *demo.Producer {
	t.Helper()
	web := httptest.NewServer(g)
	defer web.Close()
	p, err := demo.New(demo.Config{URL: web.URL + "/", Key: "key", Period: 100 * time.Millisecond}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	deadline := time.After(15 * time.Second)
	for range n {
		select {
		case <-g.got:
		case <-deadline:
			t.Error("the gateway waits for blocks in vain")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryEventArrivesOnce(t *testing.T) {
	g := newGateway(func(n int) int {
		if n%4 == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	p := run(t, g, 12)
	if len(g.process) != 1 || g.process[0].ID != p.ProcessID() || len(g.streams) != 3 {
		t.Fatalf("%d processes, %d streams", len(g.process), len(g.streams))
	}
	var events int64
	last := map[telemetry.ID]telemetry.Block{}
	seen := map[telemetry.ID]bool{}
	for _, b := range g.blocks {
		if seen[b.ID] { // sent again because the answer was not waited for
			continue
		}
		seen[b.ID] = true
		s := g.streams[b.StreamID]
		before, later := last[b.StreamID]
		if later && (b.BeginTicks != before.EndTicks || b.BeginTime != before.EndTime || b.ObjectOffset != before.ObjectOffset+int64(before.NbObjects)) {
			t.Errorf("block %+v after %+v", b.Block, before)
		}
		last[b.StreamID] = b.Block
		events += int64(decode(t, g.process[0], s, &b))
	}
	if s := p.Stats(); s.Acked != events || s.Dropped != 0 || s.Retries == 0 {
		t.Errorf("stats %+v, %d events arrived", s, events)
	}
}

// decode reads all rows of a block and checks their time.
func decode(t *testing.T, p telemetry.Process, s telemetry.Stream, b *wire.BlockBody) int {
	t.Helper()
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	clock, err := telemetry.NewClock(p, b.Block)
	if err != nil {
		t.Fatal(err)
	}
	check := func(ticks int64) {
		if at := clock.Time(ticks); at < b.BeginTime-int64(time.Second) || at > b.EndTime {
			t.Errorf("event at %d outside %d..%d", at, b.BeginTime, b.EndTime)
		}
	}
	var c wire.Counts
	switch telemetry.TagOf(s.Tags) {
	case telemetry.TagLog:
		c, err = d.Logs(b, func(e *telemetry.LogEntry) error {
			check(e.Ticks)
			if e.Target != "demo" || e.Msg == "" || e.Level < 1 || e.Level > 6 {
				t.Errorf("log entry %+v", e)
			}
			return nil
		})
	case telemetry.TagMetrics:
		c, err = d.Measures(b, clock, func(m *telemetry.Measure) error { check(m.Ticks); return nil })
	default:
		depth := 0
		c, err = d.Objects(b, func(_ int, o *wire.Object) error {
			if strings.HasPrefix(o.Type, "Begin") {
				depth++
			} else {
				depth--
			}
			if depth < 0 {
				t.Error("a span ends that has not begun")
			}
			return nil
		})
		if depth != 0 {
			t.Errorf("%d spans stay open", depth)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.Rows != int(b.NbObjects) || c.Unknown != 0 {
		t.Errorf("%+v, envelope says %d", c, b.NbObjects)
	}
	return c.Rows
}

func TestRefusedBlocksAreCounted(t *testing.T) {
	refused := 0
	g := newGateway(func(n int) int {
		if n > 4 && refused < 3 {
			refused++
			return http.StatusBadRequest
		}
		return http.StatusOK
	})
	p := run(t, g, 3)
	if s := p.Stats(); s.Dropped == 0 || s.Acked == 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestConfigMistakesAreReportedTogether(t *testing.T) {
	err := demo.Config{URL: "gopher:"}.Validate()
	if err == nil || !strings.Contains(err.Error(), "URL") || !strings.Contains(err.Error(), "period") {
		t.Errorf("error %v", err)
	}
	if err := demo.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}
