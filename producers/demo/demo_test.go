package demo_test

import (
	"bytes"
	"cmp"
	"context"
	"image/png"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/producers/demo"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

// gateway keeps what it acknowledges.
type gateway struct {
	answer func(n int, kind sdk.Kind) int // status of the nth request

	mu     sync.Mutex
	n      int
	sink   *memsink.Sink // of what is new
	seen   map[telemetry.ID]bool
	events int64
	got    chan struct{} // a token for each block, as far as there is room
}

func newGateway(answer func(n int, kind sdk.Kind) int) *gateway {
	return &gateway{answer: answer, sink: memsink.New(0), seen: map[telemetry.ID]bool{}, got: make(chan struct{}, 1000)}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	kind := kindOf(r.URL.Path)
	status := g.answer(g.n, kind)
	if err != nil || r.Header.Get("Authorization") != "Bearer key" {
		status = http.StatusUnauthorized
	}
	if status == http.StatusOK {
		status = g.accept(kind, body)
	}
	w.WriteHeader(status)
}

func kindOf(path string) sdk.Kind {
	for _, k := range []sdk.Kind{sdk.KindProcess, sdk.KindStream} {
		if strings.HasSuffix(path, k.Path()) {
			return k
		}
	}
	return sdk.KindBlock
}

func (g *gateway) accept(kind sdk.Kind, body []byte) int {
	if kind == sdk.KindBlock {
		b, err := wire.DecodeBlock(body)
		if err != nil {
			return http.StatusBadRequest
		}
		select {
		case g.got <- struct{}{}:
		default:
		}
		if g.seen[b.ID] { // sent again because the answer was not waited for
			return http.StatusOK
		}
		g.seen[b.ID] = true
		g.events += int64(b.NbObjects)
	}
	g.sink.Send(sdk.Request{Kind: kind, Body: body})
	return http.StatusOK
}

// run runs a producer until the gateway holds n blocks.
func run(t *testing.T, g *gateway, n int) *demo.Producer {
	t.Helper()
	web := httptest.NewServer(g)
	defer web.Close()
	cfg := demo.Config{URL: web.URL + "/", Key: "key", Period: 100 * time.Millisecond, Seed: 7}
	p, err := demo.New(cfg, slog.New(slog.DiscardHandler))
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
	if sdk.ProcessID() != "" {
		t.Error("the library runs on")
	}
	return p
}

func TestEveryEventArrivesOnce(t *testing.T) {
	g := newGateway(func(n int, _ sdk.Kind) int {
		if n%4 == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	p := run(t, g, 60)
	d, err := g.sink.Decode()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(d.Blocks, func(a, b wire.BlockBody) int { return cmp.Compare(a.ObjectOffset, b.ObjectOffset) }) // repeated posts overtake
	if len(d.Processes) != 1 || d.Processes[0].ID != p.ProcessID() {
		t.Fatalf("%d processes", len(d.Processes))
	}
	if s := p.Stats(); s.Acked != g.events || s.Dropped != 0 || s.Retries == 0 {
		t.Errorf("stats %+v, %d events arrived", s, g.events)
	}
	checkLogs(t, d)
	checkSpans(t, d)
	measures, err := d.Measures()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range measures {
		names[m.Name] = true
		if _, ok := m.Properties.Lookup("route"); m.Name == "request_duration" && (!ok || m.Value <= 0) {
			t.Errorf("%+v", m)
		}
	}
	for _, want := range []string{"frame_time", "request_duration", "requests", "job_units", "heap"} {
		if !names[want] {
			t.Errorf("no measure %s in %v", want, slices.Sorted(maps.Keys(names)))
		}
	}
	checkImages(t, d)
}

func checkLogs(t *testing.T, d *memsink.Decoded) {
	t.Helper()
	logs, err := d.Logs()
	if err != nil {
		t.Fatal(err)
	}
	levels := map[int32]bool{}
	inSpans := 0
	for _, l := range logs {
		levels[l.Level] = true
		if target, _, _ := strings.Cut(l.Target, "/"); target != "demo" || l.Msg == "" || l.Level < int32(sdk.Fatal) || l.Level > int32(sdk.Debug) {
			t.Errorf("log entry %+v", l)
		}
		if _, ok := l.Properties.Lookup("trace_id"); ok {
			inSpans++
		}
	}
	if !levels[int32(sdk.Info)] || !levels[int32(sdk.Debug)] || inSpans == 0 {
		t.Errorf("levels %v, %d entries in spans", levels, inSpans)
	}
}

// checkSpans looks for spans that end and have not begun, on tracks and in contexts.
func checkSpans(t *testing.T, d *memsink.Decoded) {
	t.Helper()
	events, err := d.Objects(telemetry.TagCPU)
	if err != nil {
		t.Fatal(err)
	}
	depth := map[telemetry.ID]int{}
	edges := map[uint64]int{}
	begun := 0
	for _, e := range events {
		async := strings.Contains(e.Type, "Async")
		begin := strings.HasPrefix(e.Type, "Begin")
		if begin {
			begun++
		}
		switch {
		case async && begin: // the edges of a span may be of several streams
			edges[e.Field("span_id").Uint()]++
		case async && strings.HasPrefix(e.Type, "End"):
			edges[e.Field("span_id").Uint()]--
		case begin:
			depth[e.StreamID]++
		case strings.HasPrefix(e.Type, "End"):
			if depth[e.StreamID]--; depth[e.StreamID] < 0 {
				t.Error("a span of a track ends that has not begun")
			}
		}
	}
	for id, n := range depth {
		if n != 0 {
			t.Errorf("%d spans of track %s stay open", n, id)
		}
	}
	for id, n := range edges {
		if n != 0 {
			t.Errorf("span %d of a context has %d begins more than ends", id, n)
		}
	}
	if len(edges) == 0 || begun == 0 || len(depth) != 3 {
		t.Errorf("%d spans, %d of contexts, %d tracks", begun, len(edges), len(depth))
	}
}

func checkImages(t *testing.T, d *memsink.Decoded) {
	t.Helper()
	images, err := d.Objects(telemetry.TagImage)
	if err != nil {
		t.Fatal(err)
	}
	if len(images) == 0 {
		t.Fatal("no image")
	}
	for _, f := range images[0].Fields {
		if len(f.Value.Blob) > 0 {
			if m, err := png.Decode(bytes.NewReader(f.Value.Blob)); err != nil || m.Bounds().Dx() != 320 {
				t.Errorf("image: %v", err)
			}
			return
		}
	}
	t.Errorf("no picture in %+v", images[0])
}

func TestRefusedBlocksAreCounted(t *testing.T) {
	refused := 0
	g := newGateway(func(_ int, kind sdk.Kind) int {
		if kind == sdk.KindBlock && refused < 3 {
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

// TestRunsWithinALibraryThatRuns records into what somebody else has started, twice, and leaves it running: the same seed plays the same.
func TestRunsWithinALibraryThatRuns(t *testing.T) {
	var played []map[string]bool
	for range 2 {
		sink := memsink.New(0)
		if err := sdk.Start(t.Context(), sdk.Config{Sink: sink}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sdk.Stop(context.Background()) })
		id := sdk.ProcessID()
		p, err := demo.New(demo.DefaultConfig(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		if sdk.ProcessID() != id || p.ProcessID().String() != id {
			t.Errorf("process %s, the library is of %s, was of %s", p.ProcessID(), sdk.ProcessID(), id)
		}
		if err := sdk.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		played = append(played, requests(t, sink))
	}
	both := 0
	for msg := range played[0] {
		if played[1][msg] {
			both++
		}
	}
	// One of the runs may have come further, but for requests under way at the end.
	if few := min(len(played[0]), len(played[1])); few < 5 || both < few-2 {
		t.Errorf("%d and %d requests, %d are the same", len(played[0]), len(played[1]), both)
	}
}

// requests returns the messages with which requests begin. They have a number.
func requests(t *testing.T, sink *memsink.Sink) map[string]bool {
	t.Helper()
	d, err := sink.Decode()
	if err != nil {
		t.Fatal(err)
	}
	logs, err := d.Logs()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, l := range logs {
		if strings.Contains(l.Msg, " for player ") {
			all[l.Msg] = true
		}
	}
	return all
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
