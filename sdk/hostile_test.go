package sdk_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
)

var text = sdk.NewLog(sdk.Info, "%s")

func TestHugeAndInvalidTexts(t *testing.T) {
	before := sdk.Stats().Dropped["text cut"]
	c := begin(t, nil)
	huge := strings.Repeat("ä", 3<<20)
	sdk.Logf(t.Context(), sdk.Info, "%s", huge)
	text.Log(sdk.String(huge))
	text.Log(sdk.String("a\xffb\x00c"))
	sdk.NewLog(sdk.Info, "bad \xff format").Log()
	long := strings.Repeat("a long message, ", 100)
	sdk.NewLog(sdk.Info, long).Log()
	started.With(sdk.Props("k\xff\x00", "v\xff\x00w")).Log()
	sdk.NewInt(strings.Repeat("n", 1000), "u\xff").Record(1)
	tr := sdk.NewTrack("t\xff")
	s := named.BeginNamed(tr, "s\xff"+strings.Repeat("x", 5000))
	s.SetText(strings.Repeat("k", 5000), huge)
	s.End()
	_, a := named.StartNamed(t.Context(), "\xfe")
	a.SetText("\xfd", "\xfc")
	a.End()
	r := end(t, c)
	if len(r.logs) != 6 || len(r.values) != 1 || len(r.track("async")) != 4 {
		t.Fatalf("%d entries, %d values", len(r.logs), len(r.values))
	}
	if n := len(r.logs[0].Msg); n > wire.MaxMessageBytes || n < wire.MaxMessageBytes-4 || !utf8.ValidString(r.logs[0].Msg) {
		t.Errorf("message of %d bytes", n)
	}
	if n := len(r.logs[1].Msg); n > 256<<10 || n < 256<<10-4 {
		t.Errorf("argument of %d bytes", n)
	}
	if r.logs[2].Msg != "a\uFFFDb\x00c" || r.logs[3].Msg != "bad \uFFFD format" || r.logs[4].Msg != long || r.logs[5].Properties.JSON != `{"k`+"\uFFFD\uFFFD"+`":"v`+"\uFFFD"+`\u0000w"}` {
		t.Errorf("%q %q %s", r.logs[2].Msg, r.logs[3].Msg, r.logs[5].Properties.JSON)
	}
	if n := sdk.Stats().Dropped["text cut"] - before; n < 4 {
		t.Errorf("%d cuts are counted", n)
	}
}

func TestWithoutStart(t *testing.T) {
	use := func() {
		started.Log()
		accepted.Log(sdk.Int(1))
		size.Record(1)
		hits.Add(1)
		tr := sdk.NewTrack("early")
		outer.Begin(tr).End()
		tr.Close()
		ctx, s := outer.Start(t.Context())
		s.SetText("k", "v")
		s.End()
		if sdk.TraceParent(ctx) != "" || s != nil || started.Enabled() || sdk.ProcessID() != "" || sdk.SendImage("i", "image/png", nil) {
			t.Error("something is recorded")
		}
	}
	use()
	if err := sdk.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if err := sdk.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	c := begin(t, nil)
	if err := sdk.Start(t.Context(), sdk.Config{Sink: c}); err == nil {
		t.Error("started twice")
	}
	started.Log()
	if r := end(t, c); len(r.logs) != 1 || len(r.values) != 0 {
		t.Errorf("%d entries, %d values", len(r.logs), len(r.values))
	}
	use()
}

// Spans that were open over a Stop and a Start do no harm.
func TestSpansAcrossStarts(t *testing.T) {
	c := begin(t, nil)
	tr := sdk.NewTrack("across")
	defer tr.Close()
	s := outer.Begin(tr)
	ctx, a := outer.Start(t.Context())
	if got := shape(end(t, c).track("across")); got != "(outer" {
		t.Error(got)
	}
	s.End()
	a.End()
	c = begin(t, nil)
	inner.Begin(tr).End()
	_, b := inner.Start(ctx)
	b.End()
	r := end(t, c)
	if got := shape(r.track("across")); got != "(innerinner)" {
		t.Error(got)
	}
	for _, e := range r.track("async") {
		if e.ticks < 0 {
			t.Errorf("%+v is before the start", e)
		}
	}
}

// stuck is a sink that blocks, against its promise.
type stuck struct {
	collector
	release chan struct{}
	once    sync.Once
	entered chan struct{}
}

func (s *stuck) Send(r sdk.Request) {
	if r.Kind == sdk.KindBlock {
		s.once.Do(func() { close(s.entered) })
		<-s.release
	}
	s.collector.Send(r)
}

// What has no room is dropped and counted; the program goes on.
func TestMemoryIsBounded(t *testing.T) {
	s := &stuck{release: make(chan struct{}), entered: make(chan struct{})}
	before := sdk.Stats().Dropped["memory"]
	if err := sdk.Start(t.Context(), sdk.Config{Sink: s, Memory: 1 << 20, LogAge: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	defer sdk.Stop(context.Background())
	started.Log()
	<-s.entered
	const n = 200_000
	tr := sdk.NewTrack("full")
	for range n {
		started.Log()
		outer.Begin(tr).End()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := sdk.Flush(ctx); err == nil {
		t.Error("flushed while the sink was stuck")
	}
	dropped := sdk.Stats().Dropped["memory"] - before
	close(s.release)
	if err := sdk.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := s.read(t)
	spans := len(r.track("full"))
	if dropped == 0 || int64(len(r.logs)+spans/2)+dropped < 2*n || len(r.logs) < 1000 {
		t.Errorf("%d entries and %d edges came, %d were dropped, of %d and as many spans", len(r.logs), spans, dropped, n)
	}
	if got := shape(r.track("full")); strings.Trim(got, "(outer)") != "" || strings.Count(got, "(") != strings.Count(got, ")") {
		t.Errorf("%.300s", got)
	}
}

func TestLevels(t *testing.T) {
	c := begin(t, func(cfg *sdk.Config) {
		cfg.Level, cfg.Verbosity, cfg.NoSpans = sdk.Warn, sdk.MedVerbosity, true
		cfg.Targets = map[string]sdk.Level{"game/net": sdk.Trace, "game": sdk.Error}
	})
	at := func(target string, l sdk.Level) *sdk.Log {
		return sdk.NewLog(l, target+" "+l.String(), sdk.Target(target))
	}
	a, b, d, e := at("game/net/tcp", sdk.Trace), at("game/ai", sdk.Warn), at("gamer", sdk.Warn), at("gamer", sdk.Info)
	rare := sdk.NewInt("rare", "count", sdk.WithVerbosity(sdk.MaxVerbosity))
	all := func() {
		for _, l := range []*sdk.Log{a, b, d, e} {
			l.Log()
		}
		rare.Record(1)
		tr := sdk.NewTrack("off")
		outer.Begin(tr).End()
		tr.Close()
	}
	all()
	sdk.SetLevel(sdk.Info)
	sdk.SetTargetLevel("game", sdk.Warn)
	sdk.SetVerbosity(sdk.MaxVerbosity)
	sdk.SetSpans(true)
	a.SetEnabled(false)
	d.Sample(1 << 30)
	all()
	a.SetEnabled(true)
	d.Sample(0)
	r := end(t, c)
	var got []string
	for _, l := range r.logs {
		got = append(got, l.Msg)
	}
	want := "game/net/tcp trace, gamer warn, game/ai warn, gamer info"
	if strings.Join(got, ", ") != want || len(r.values) != 1 || shape(r.track("off")) != "(outerouter)" {
		t.Errorf("%q, %d values", got, len(r.values))
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]sdk.Config{
		"no sink":    {},
		"memory":     {Sink: &collector{}, Memory: 5},
		"blocks":     {Sink: &collector{}, BlockBytes: 5},
		"age":        {Sink: &collector{}, LogAge: time.Hour},
		"micromegas": {Sink: &collector{}, Properties: map[string]string{"micromegas.audience": "x"}},
	} {
		if err := sdk.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
			sdk.Stop(context.Background())
		}
	}
	for name, value := range map[string]string{
		"MICROMEGAS_PROCESS_PROPERTIES": "x", "MICROMEGAS_ENABLE_CPU_TRACING": "maybe", "MICROMEGAS_LOG_LEVEL": "loud", "MICROMEGAS_FLUSH_PERIOD": "-1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if err := sdk.Start(t.Context(), sdk.Config{Sink: &collector{}}); err == nil || !strings.Contains(err.Error(), name) {
				t.Error(err)
				sdk.Stop(context.Background())
			}
		})
	}
}

func TestProcessIsDescribed(t *testing.T) {
	parent := telemetry.NewID()
	t.Setenv("MICROMEGAS_TELEMETRY_PARENT_PROCESS", parent.String())
	t.Setenv("MICROMEGAS_PROCESS_PROPERTIES", "cluster=a, zone = b")
	c := begin(t, func(cfg *sdk.Config) { cfg.Properties = map[string]string{"zone": "c"} })
	if id := os.Getenv("MICROMEGAS_TELEMETRY_PARENT_PROCESS"); id != sdk.ProcessID() || id == "" {
		t.Errorf("children would name %q as their parent, not %q", id, sdk.ProcessID())
	}
	p := end(t, c).process
	props := telemetry.NewPropertySet(p.Properties)
	for k, want := range map[string]string{"cluster": "a", "zone": "c", "sdk": "micromegas-go"} {
		if v, _ := props.Lookup(k); v != want {
			t.Errorf("%s is %q", k, v)
		}
	}
	if v, ok := props.Lookup("go_version"); !ok || v == "" {
		t.Error("no go_version")
	}
	if p.ParentID != parent || p.Exe == "" || p.Computer == "" || p.Username == "" || p.TSCFrequency != 1e9 || p.StartTime%1000 != 0 {
		t.Errorf("%+v", p)
	}
}

func TestImages(t *testing.T) {
	c := begin(t, nil)
	if !sdk.SendImage("shot", "image/png", []byte("png")) || sdk.SendImage("big", "image/png", make([]byte, sdk.MaxImageBytes+1)) {
		t.Error("wrong verdicts")
	}
	r := end(t, c)
	if len(r.images) != 1 || r.images[0].Field("name").Text != "shot" || string(r.images[0].Field("data").Blob) != "png" {
		t.Errorf("%+v", r.images)
	}
}

// envChild makes the test binary another program.
const envChild = "MICROMEGAS_TEST_CHILD"

// child runs a test of this binary in a process of its own, since it fills what the process has one of.
func child(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), envChild+"="+name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestTooMuchOfEverything(t *testing.T) {
	if os.Getenv(envChild) == "" {
		child(t, t.Name())
		return
	}
	c := begin(t, nil)
	for i := range 70_000 {
		sdk.NewLog(sdk.Info, fmt.Sprint("site ", i)).Log()
		started.With(sdk.Props("i", fmt.Sprint(i))).Log()
		if i%20 == 0 {
			outer.Begin(sdk.NewTrack("many")).End()
		}
	}
	var tr *sdk.Track
	for tr == nil { // the lost ones end by and by
		if err := sdk.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr = sdk.NewTrack("deep")
	}
	for range 5000 {
		inner.Begin(tr)
	}
	r := end(t, c)
	dropped := sdk.Stats().Dropped
	if dropped["too many sites"] < 4000 || dropped["too many property sets"] < 4000 || dropped["too deep"] != 5000-4096 {
		t.Errorf("%v", dropped)
	}
	if got := shape(r.track("deep")); strings.Count(got, "(") != 4096 {
		t.Errorf("%d deep", strings.Count(got, "("))
	}
	overflow := 0
	for _, e := range r.logs {
		if _, ok := e.Properties.Lookup("overflow"); ok {
			overflow++
		}
	}
	if n := dropped["too many property sets"]; int64(overflow) > n || int64(overflow)+dropped["memory"] < n {
		t.Errorf("%d entries with too many sets, %v", overflow, dropped)
	}
}

// broken is a sink that panics.
type broken struct{ collector }

func (b *broken) Send(r sdk.Request) {
	if r.Kind == sdk.KindBlock {
		panic("broken sink")
	}
}

// A sink that panics ends the recording, not the program.
func TestBrokenSinkEndsRecording(t *testing.T) {
	before := sdk.Stats().Dropped["recorder broken"]
	if err := sdk.Start(t.Context(), sdk.Config{Sink: &broken{}}); err != nil {
		t.Fatal(err)
	}
	started.Log()
	if err := sdk.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if n := sdk.Stats().Dropped["recorder broken"] - before; n != 1 || started.Enabled() {
		t.Errorf("%d times broken, enabled: %v", n, started.Enabled())
	}
	started.Log()
	if err := sdk.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	c := begin(t, nil)
	started.Log()
	if r := end(t, c); len(r.logs) != 1 {
		t.Errorf("%d entries after another start", len(r.logs))
	}
}

// What is written to a track after its end goes nowhere, and not into what others write.
func TestClosedTrackWritesNowhere(t *testing.T) {
	c := begin(t, nil)
	const n = 300
	closed := sdk.NewTrack("closed early")
	outer.Begin(closed).End()
	closed.Close()
	for i := range n {
		if err := sdk.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := sdk.NewTrack(fmt.Sprint("other ", i))
		s := outer.Begin(other)
		inner.Begin(closed).End()
		s.End()
		started.Log()
		other.Close()
	}
	r := end(t, c)
	if got := shape(r.track("closed early")); got != "(outerouter)" {
		t.Error(got)
	}
	for i := range n {
		if got := shape(r.track(fmt.Sprint("other ", i))); got != "(outerouter)" {
			t.Fatalf("track %d: %s", i, got)
		}
	}
	if len(r.logs) != n {
		t.Errorf("%d entries", len(r.logs))
	}
}

// Large sets of properties are bounded by their bytes.
func TestLargeSetsAreBounded(t *testing.T) {
	if os.Getenv(envChild) == "" {
		child(t, t.Name())
		return
	}
	c := begin(t, nil)
	for i := range 100 {
		started.With(sdk.Props("k", fmt.Sprint(i)+strings.Repeat("v", 1<<20-8))).Log()
	}
	r := end(t, c)
	large := 0
	for _, e := range r.logs {
		if v, _ := e.Properties.Lookup("k"); len(v) > 1<<19 {
			large++
		}
	}
	if len(r.logs) != 100 || large < 20 || large > 32 || sdk.Stats().Dropped["too many property sets"] != int64(100-large) {
		t.Errorf("%d entries, %d with large sets, %v", len(r.logs), large, sdk.Stats().Dropped)
	}
}

// Where no site is declared, the place is the site, whatever names and formats come from there.
func TestPlacesAreSites(t *testing.T) {
	if os.Getenv(envChild) == "" {
		child(t, t.Name())
		return
	}
	c := begin(t, func(cfg *sdk.Config) { cfg.Memory = 256 << 20 })
	const n = 70_000
	tr := sdk.NewTrack("places")
	for i := range n {
		if i%1000 == 0 { // the race detector slows the recorder down
			if err := sdk.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		format := fmt.Sprint("message ", i, " of %d")
		sdk.Logf(t.Context(), sdk.Info, format, n)
		tr.Begin(fmt.Sprint("span ", i)).End()
		_, s := sdk.StartSpan(t.Context(), fmt.Sprint("request ", i))
		s.End()
	}
	r := end(t, c)
	if d := sdk.Stats().Dropped; len(d) != 0 {
		t.Errorf("dropped: %v", d)
	}
	if len(r.logs) != n || r.logs[n-1].Msg != fmt.Sprint("message ", n-1, " of ", n) || len(r.track("places")) != 2*n || len(r.track("async")) != 3*n {
		t.Errorf("%d entries, %d and %d edges", len(r.logs), len(r.track("places")), len(r.track("async")))
	}
}
