package loadgen_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func newLoad(t testing.TB, cfg loadgen.Config) *loadgen.Load {
	t.Helper()
	l, err := loadgen.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// reader decodes what a load yields, as a server would.
type reader struct {
	t        *testing.T
	process  telemetry.Process
	decoders map[telemetry.Tag]*wire.Decoder
}

func newReader(t *testing.T, l *loadgen.Load, p int) *reader {
	t.Helper()
	r := &reader{t: t, decoders: map[telemetry.Tag]*wire.Decoder{}}
	for _, req := range l.Registrations(p) {
		if req.Path == loadgen.ProcessPath {
			var err error
			if r.process, err = wire.DecodeProcess(req.Body); err != nil {
				t.Fatal(err)
			}
			continue
		}
		s, err := wire.DecodeStream(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		if s.ID != l.StreamID(p, req.Tag) || s.ProcessID != l.ProcessID(p) || telemetry.TagOf(s.Tags) != req.Tag {
			t.Fatalf("stream %+v", s)
		}
		if r.decoders[req.Tag], err = wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// ticks decodes a block and returns the ticks of its events.
func (r *reader) ticks(req *loadgen.Request) []int64 {
	r.t.Helper()
	b, err := wire.DecodeBlock(req.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if b.Block != req.Block || b.ProcessID != r.process.ID {
		r.t.Fatalf("body says %+v, request %+v", b.Block, req.Block)
	}
	var ticks []int64
	_, err = r.decoders[req.Tag].Objects(&b, func(_ int, o *wire.Object) error {
		ticks = append(ticks, o.Field("time").Int())
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(ticks) != int(b.NbObjects) {
		r.t.Fatalf("%d events, envelope says %d", len(ticks), b.NbObjects)
	}
	return ticks
}

func TestBlocksOfAStreamGoOn(t *testing.T) {
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()
	for name, cfg := range map[string]loadgen.Config{
		"captured": {Processes: 2},
		"started":  {Processes: 2, Start: start},
		"spaced":   {Processes: 2, Start: start, Every: time.Second},
		"varying":  {Processes: 2, Start: start, Varying: true, Seed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoad(t, cfg)
			r := newReader(t, l, 1)
			if cfg.Start != 0 && r.process.StartTime != start {
				t.Errorf("process starts at %d", r.process.StartTime)
			}
			last := map[telemetry.Tag]telemetry.Block{}
			seen := map[telemetry.ID]bool{}
			for i := int64(1); i < 2*3*7; i += 2 { // seven blocks of each stream of the second process
				req, err := l.At(i, nil)
				if err != nil {
					t.Fatal(err)
				}
				b := req.Block
				if seen[b.ID] {
					t.Fatal("block id repeats")
				}
				seen[b.ID] = true
				before, later := last[req.Tag]
				last[req.Tag] = b
				if later && b.ObjectOffset != before.ObjectOffset+int64(before.NbObjects) || !later && b.ObjectOffset != 0 {
					t.Errorf("%s block %d: offset %d after %+v", req.Tag, i, b.ObjectOffset, before)
				}
				if later && cfg.Every == 0 && (b.BeginTicks != before.EndTicks || b.BeginTime != before.EndTime) {
					t.Errorf("%s block %d begins at %d, %d after %+v", req.Tag, i, b.BeginTicks, b.BeginTime, before)
				}
				clock, err := telemetry.NewClock(r.process, b)
				if err != nil {
					t.Fatal(err)
				}
				const slack = int64(time.Millisecond)
				for _, ticks := range r.ticks(&req) {
					if at := clock.Time(ticks); at < b.BeginTime-slack || at > b.EndTime+slack {
						t.Fatalf("%s block %d: event at %d outside %d..%d", req.Tag, i, at, b.BeginTime, b.EndTime)
					}
				}
			}
			if cfg.Every != 0 {
				b := last[telemetry.TagLog]
				if got := b.BeginTime - start; got < 5*int64(time.Second) || got > 7*int64(time.Second) {
					t.Errorf("seventh block begins %v after the start", time.Duration(got))
				}
			}
		})
	}
}

func TestVaryingMessagesDiffer(t *testing.T) {
	l := newLoad(t, loadgen.Config{Processes: 1, Varying: true, Seed: 7, Mix: []telemetry.Tag{telemetry.TagLog}})
	other := newLoad(t, loadgen.Config{Processes: 1, Varying: true, Seed: 7, Mix: []telemetry.Tag{telemetry.TagLog}})
	if l.ProcessID(0) != other.ProcessID(0) {
		t.Error("a seed does not repeat ids")
	}
	r := newReader(t, l, 0)
	msgs := map[string]bool{}
	rows := 0
	for range 4 {
		req, err := l.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := other.Next(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(req.Body[100:], again.Body[100:]) {
			t.Error("a seed does not repeat bodies")
		}
		b, err := wire.DecodeBlock(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.decoders[telemetry.TagLog].Logs(&b, func(e *telemetry.LogEntry) error {
			rows++
			msgs[string([]byte(e.Msg))] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(msgs) < rows/3 {
		t.Errorf("%d messages in %d rows", len(msgs), rows)
	}
}

func TestConfigMistakesAreReportedTogether(t *testing.T) {
	err := loadgen.Config{Processes: -1, Every: -1, Mix: []telemetry.Tag{telemetry.TagImage}}.Validate()
	for _, want := range []string{"processes", "spacing", "image"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("error %v does not mention %s", err, want)
		}
	}
}

// server refuses each third request with a 503.
type server struct {
	requests, registrations, refused atomic.Int64
	key                              string

	mu     sync.Mutex
	events map[telemetry.ID]int32
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	case r.Header.Get("Authorization") != "Bearer "+s.key:
		w.WriteHeader(http.StatusUnauthorized)
	case s.requests.Add(1)%3 == 0:
		s.refused.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path != loadgen.BlockPath:
		s.registrations.Add(1)
	default:
		b, _, err := wire.DecodeBlockEnvelope(body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.events[b.ID] = b.NbObjects
		s.mu.Unlock()
	}
}

func TestPostCountsWhatIsAcked(t *testing.T) {
	s := &server{key: "secret", events: map[telemetry.ID]int32{}}
	web := httptest.NewServer(s)
	defer web.Close()
	l := newLoad(t, loadgen.Config{Processes: 5})
	var acked sync.Map
	report, err := loadgen.Post(t.Context(), l, loadgen.PostConfig{
		URL: web.URL, Key: "secret", Connections: 4, Blocks: 40,
		OnAck: func(r *loadgen.Request, _ time.Duration) { acked.Store(r.Block.ID, true) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var events int64
	for id, n := range s.events {
		events += int64(n)
		if _, ok := acked.Load(id); !ok {
			t.Errorf("block %s was not reported", id)
		}
	}
	if report.AckedBlocks != 40 || len(s.events) != 40 || report.AckedEvents != events || s.registrations.Load() != 20 {
		t.Errorf("report %+v, server has %d blocks, %d events, %d registrations", report, len(s.events), events, s.registrations.Load())
	}
	if report.Retries != s.refused.Load() || report.Unavailable != report.Retries || report.Failed != 0 {
		t.Errorf("report %+v, server refused %d", report, s.refused.Load())
	}
	if report.P50 <= 0 || report.P99 < report.P50 || report.Max < report.P99 || report.EventsPerSecond() <= 0 {
		t.Errorf("latencies %+v", report)
	}
}

func TestPostReportsRefusals(t *testing.T) {
	web := httptest.NewServer(&server{key: "secret"})
	defer web.Close()
	report, err := loadgen.Post(t.Context(), newLoad(t, loadgen.Config{}), loadgen.PostConfig{URL: web.URL, Key: "wrong", Blocks: 3})
	if err != nil {
		t.Fatal(err)
	}
	if report.Failed != 4+3 || report.AckedBlocks != 0 || report.Error == "" {
		t.Errorf("report %+v", report)
	}
}

// TestGivenUpBlocksAreReported has a server that takes registrations and no block.
func TestGivenUpBlocksAreReported(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == loadgen.BlockPath {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer web.Close()
	var given atomic.Int64
	report, err := loadgen.Post(t.Context(), newLoad(t, loadgen.Config{}), loadgen.PostConfig{
		URL: web.URL, Blocks: 7, OnGiveUp: func(*loadgen.Request) { given.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if given.Load() != 7 || report.Failed != 7 {
		t.Errorf("%d blocks were given up, report %+v", given.Load(), report)
	}
}

// TestLatencyCountsFromTheIntendedMoment posts faster than a slow server answers: the latency of an attempt stays the same, and what
// waits behind it is later and later.
func TestLatencyCountsFromTheIntendedMoment(t *testing.T) {
	const answer, blocks = 10 * time.Millisecond, 20
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == loadgen.BlockPath {
			time.Sleep(answer) // the server is slow
		}
	}))
	defer web.Close()
	report, err := loadgen.Post(t.Context(), newLoad(t, loadgen.Config{}), loadgen.PostConfig{
		URL: web.URL, Connections: 1, Blocks: blocks, Shape: loadgen.Shape{Rate: 100e6},
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.AckedBlocks != blocks || report.P50 < answer*99/100 {
		t.Errorf("report %+v", report)
	}
	if report.Intended.Max < (blocks-1)*answer || report.Intended.P50 < (blocks/2-1)*answer*99/100 || report.Intended.P50 <= report.P50 {
		t.Errorf("from the attempt %s, from the intended moment %s", report.Latencies, report.Intended)
	}
	var text strings.Builder
	report.WriteText(&text)
	for _, want := range []string{"acked ", " in 20 blocks", "from the intended moment: p50", "#"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the printed report has no %q:\n%s", want, &text)
		}
	}
}

func TestPostRefusesBadShapes(t *testing.T) {
	_, err := loadgen.Post(t.Context(), newLoad(t, loadgen.Config{}), loadgen.PostConfig{URL: "http://127.0.0.1:1", Shape: loadgen.Shape{Kind: loadgen.Ramp, Rate: 1}})
	if err == nil || !strings.Contains(err.Error(), "duration") {
		t.Errorf("error %v", err)
	}
}

func TestRunIsAPropertyOfProcesses(t *testing.T) {
	l := newLoad(t, loadgen.Config{Run: "r1", Processes: 2})
	for p := range 2 {
		r := newReader(t, l, p)
		if !slices.Contains(r.process.Properties, telemetry.Property{Key: loadgen.RunProperty, Value: "r1"}) {
			t.Errorf("properties of process %d: %v", p, r.process.Properties)
		}
	}
}

func TestPostKeepsItsPace(t *testing.T) {
	s := &server{key: "k", events: map[telemetry.ID]int32{}}
	web := httptest.NewServer(s)
	defer web.Close()
	l := newLoad(t, loadgen.Config{})
	report, err := loadgen.Post(t.Context(), l, loadgen.PostConfig{
		URL: web.URL, Key: "k", Connections: 2, Duration: 500 * time.Millisecond, Shape: loadgen.Shape{Rate: 40_000},
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.DueEvents != 20_000 {
		t.Errorf("%d events were due", report.DueEvents)
	}
	if report.AckedEvents < 8_000 || report.AckedEvents > 32_000 {
		t.Errorf("acked %d events in %v", report.AckedEvents, report.Elapsed)
	}
}

func BenchmarkNext(b *testing.B) {
	l := newLoad(b, loadgen.Config{Processes: 256})
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		r, err := l.Next(buf)
		if err != nil {
			b.Fatal(err)
		}
		buf = r.Body
		b.SetBytes(int64(len(buf)))
	}
}
