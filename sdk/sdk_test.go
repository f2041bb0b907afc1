package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

var (
	started  = sdk.NewLog(sdk.Info, "server started")
	accepted = sdk.NewLog(sdk.Warn, "accepted %s in %v after %d tries, %5.2f%%, %t %x %s")
	detail   = sdk.NewLog(sdk.Trace, "detail")
	size     = sdk.NewInt("size", "bytes")
	load     = sdk.NewFloat("load", "percent", sdk.Target("machine"))
	hits     = sdk.NewCounter("hits", "count")
	outer    = sdk.NewSpan("outer")
	inner    = sdk.NewSpan("inner")
	named    = sdk.NewSpan("")
)

const here = "github.com/micromegas-go/micromegas/sdk_test"

func TestLogs(t *testing.T) {
	c := begin(t, nil)
	before := time.Now()
	started.Log()
	accepted.Log(sdk.String("10.0.0.1:80"), sdk.Duration(1500*time.Millisecond), sdk.Int(int8(-3)), sdk.Float(float32(99.5)), sdk.Bool(true), sdk.Uint(uint16(255)), sdk.Err(errors.New("broken")))
	accepted.Log(sdk.String(""))
	started.Log(sdk.Any(struct{ A int }{5}))
	detail.Log()
	props := sdk.Props("route", "/x", "zone", "b", "route", "/y")
	started.With(props).Log()
	accepted.With(props).Log(sdk.String("a"))
	sdk.Logf(context.Background(), sdk.Error, "made %d at once", 5)
	sdk.Logf(t.Context(), sdk.Error, "100%%")
	after := time.Now()
	r := end(t, c)

	want := []struct {
		level int32
		msg   string
		props string
	}{
		{4, "server started", "{}"},
		{3, "accepted 10.0.0.1:80 in 1.5s after -3 tries, 99.50%, true ff broken", "{}"},
		{3, "accepted  in %!v(MISSING) after %!d(MISSING) tries, %!5.2f(MISSING)%, %!t(MISSING) %!x(MISSING) %!s(MISSING)", "{}"},
		{4, "server started%!(EXTRA {A:5})", "{}"},
		{4, "server started", `{"route":"/y","zone":"b"}`},
		{3, "accepted a in %!v(MISSING) after %!d(MISSING) tries, %!5.2f(MISSING)%, %!t(MISSING) %!x(MISSING) %!s(MISSING)", `{"route":"/y","zone":"b"}`},
		{2, "made 5 at once", "{}"},
		{2, "100%", "{}"},
	}
	if len(r.logs) != len(want) {
		t.Fatalf("%d entries: %+v", len(r.logs), r.logs)
	}
	for i, w := range want {
		e := r.logs[i]
		if e.Level != w.level || e.Msg != w.msg || e.Properties.JSON != w.props || e.Target != here {
			t.Errorf("entry %d is %d %q %s of %s, not %+v", i, e.Level, e.Msg, e.Properties.JSON, e.Target, w)
		}
		if e.time < before.UnixNano()-1e6 || e.time > after.UnixNano()+1e6 {
			t.Errorf("entry %d is of %s, not between %s and %s", i, time.Unix(0, e.time), before, after)
		}
	}
}

func TestMeasures(t *testing.T) {
	c := begin(t, nil)
	size.Record(5)
	size.Record(-5)
	size.Record(math.MaxInt64)
	load.Record(-1.5)
	load.Record(math.Inf(1))
	p := sdk.Props("core", "1")
	size.With(p).Record(7)
	load.With(p).Record(8.25)
	for range 100 {
		hits.Add(2)
	}
	r := end(t, c)
	want := []value{
		{Measure: telemetry.Measure{Value: 5, Name: "size", Unit: "bytes", Target: here}},
		{Measure: telemetry.Measure{Value: 0, Name: "size", Unit: "bytes", Target: here}},
		{Measure: telemetry.Measure{Value: math.MaxInt64, Name: "size", Unit: "bytes", Target: here}},
		{Measure: telemetry.Measure{Value: -1.5, Name: "load", Unit: "percent", Target: "machine"}},
		{Measure: telemetry.Measure{Value: math.Inf(1), Name: "load", Unit: "percent", Target: "machine"}},
		{Measure: telemetry.Measure{Value: 7, Name: "size", Unit: "bytes", Target: here}},
		{Measure: telemetry.Measure{Value: 8.25, Name: "load", Unit: "percent", Target: "machine"}},
		{Measure: telemetry.Measure{Value: 200, Name: "hits", Unit: "count", Target: here}},
	}
	if len(r.values) != len(want) {
		t.Fatalf("%d values: %+v", len(r.values), r.values)
	}
	for i := range want {
		g, w := r.values[i], want[i]
		if g.Value != w.Value || g.Name != w.Name || g.Unit != w.Unit || g.Target != w.Target {
			t.Errorf("value %d is %+v, not %+v", i, g, w)
		}
	}
	if r.values[5].Properties.JSON != `{"core":"1"}` || r.values[6].Properties.JSON != `{"core":"1"}` || r.values[0].Properties.JSON != "{}" {
		t.Errorf("%+v", r.values)
	}
}

// shape returns the events of a track as text: ( for begin, ) for end, properties as {}.
func shape(edges []edge) string {
	var b strings.Builder
	for _, e := range edges {
		switch {
		case strings.HasPrefix(e.typ, "Begin"):
			b.WriteString("(" + e.name)
		case strings.HasPrefix(e.typ, "End"):
			b.WriteString(e.name + ")")
		default:
			fmt.Fprintf(&b, "{%d", e.span)
			for _, p := range e.props {
				b.WriteString(" " + p.Key + "=" + p.Value)
			}
			b.WriteString("}")
		}
	}
	return b.String()
}

func TestTracks(t *testing.T) {
	c := begin(t, nil)
	tr := sdk.NewTrack("worker")
	func() {
		defer outer.Begin(tr).End()
		s := inner.Begin(tr)
		s.End()
		s.End()
		n := named.BeginNamed(tr, "level 1")
		n.Set(sdk.Props("map", "e1m1"))
		n.SetText("player", "p77")
		inner.Begin(tr) // never ended
		n.End()
		s.End()
		s.SetText("late", "nothing")
		tr.Begin("by name").End()
	}()
	outer.Begin(tr) // open when the library stops
	outer.Begin(nil).End()
	sdk.Scope{}.End()
	r := end(t, c)
	const want = "(outer(innerinner)(level 1{3 map=e1m1}{3 player=p77}(innerinner)level 1)(by nameby name)outer)(outer"
	if got := shape(r.track("worker")); got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	last := int64(math.MinInt64)
	for _, e := range r.track("worker") {
		if e.ticks < last {
			t.Errorf("%+v is before %d", e, last)
		}
		last = e.ticks
	}
}

func TestTracksEnd(t *testing.T) {
	c := begin(t, nil)
	tr := sdk.NewTrack("closed")
	s := outer.Begin(tr)
	inner.Begin(tr)
	tr.Close()
	if err := sdk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.End()
	inner.Begin(tr).End()
	func() {
		lost := sdk.NewTrack("lost")
		outer.Begin(lost)
	}()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.HasSuffix(shape(c.read(t).track("lost")), "outer)") {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatal("a lost track does not end")
		}
		if err := sdk.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r := end(t, c)
	if got := shape(r.track("closed")); got != "(outer(innerinner)outer)" {
		t.Error(got)
	}
}

func TestContextSpans(t *testing.T) {
	c := begin(t, nil)
	const header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := sdk.WithTraceParent(t.Context(), header)
	ctx, root := outer.Start(ctx)
	root.SetText("user", "u5")
	rootID, trace := root.ID()
	childCtx, child := inner.Start(ctx)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		_, third := named.StartNamed(childCtx, "third")
		third.Set(sdk.Props("k", "v"))
		started.LogIn(childCtx)
		third.End()
		third.End()
		child.End()
	}()
	<-finished
	parent := sdk.TraceParent(ctx)
	root.End()
	_, alone := sdk.StartSpan(t.Context(), "alone")
	alone.End()
	r := end(t, c)

	if trace != "0af7651916cd43dd8448eb211c80319c" || parent != fmt.Sprintf("00-%s-%016x-01", trace, uint64(rootID)) {
		t.Errorf("%s %s", trace, parent)
	}
	var got []string
	ids := map[string]edge{}
	for _, e := range r.track("async") {
		if strings.HasPrefix(e.typ, "Begin") {
			ids[e.name] = e
		}
		got = append(got, strings.TrimSuffix(e.typ, "Event")+" "+e.name)
		for _, p := range e.props {
			got[len(got)-1] += p.Key + "=" + p.Value + " "
		}
	}
	_, aloneTrace := alone.ID()
	want := []string{
		"BeginAsyncSpan outer", "AsyncSpanProperties trace_id=" + trace + " remote_parent=b7ad6b7169203331 ", "AsyncSpanProperties user=u5 ",
		"BeginAsyncSpan inner", "BeginAsyncNamedSpan third", "AsyncSpanProperties k=v ", "EndAsyncNamedSpan third", "EndAsyncSpan inner", "EndAsyncSpan outer",
		"BeginAsyncNamedSpan alone", "AsyncSpanProperties trace_id=" + aloneTrace + " ", "EndAsyncNamedSpan alone",
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	left := map[string]int{}
	for i := range want { // goroutines may have written to different lanes
		left[got[i]]++
		left[want[i]]--
	}
	for k, n := range left {
		if n != 0 {
			t.Errorf("%s: %+d", k, n)
		}
	}
	if ids["outer"].parent != 0 || ids["inner"].parent != uint64(rootID) || ids["third"].parent != ids["inner"].span || ids["third"].depth != 2 || ids["alone"].depth != 0 {
		t.Errorf("%+v", ids)
	}
	if want := fmt.Sprintf(`{"span_id":"%d","trace_id":"%s"}`, ids["inner"].span, trace); len(r.logs) != 1 || r.logs[0].Properties.JSON != want {
		t.Errorf("%+v", r.logs)
	}
}

// Many goroutines, which the scheduler moves, and blocks that are cut often: everything arrives once, and trees are right.
func TestEverythingArrives(t *testing.T) {
	c := begin(t, func(cfg *sdk.Config) {
		cfg.BlockBytes, cfg.Memory = 4<<10, 256<<20
		cfg.LogAge, cfg.MetricAge, cfg.SpanAge = time.Millisecond, time.Millisecond, time.Millisecond
	})
	const goroutines, rounds = 8, 2000
	var wg sync.WaitGroup
	message := sdk.NewLog(sdk.Debug, "goroutine %d round %d %s")
	for g := range goroutines {
		tr := sdk.NewTrack(fmt.Sprint("track ", g))
		wg.Go(func() {
			defer tr.Close()
			for i := range rounds {
				s := outer.Begin(tr)
				message.Log(sdk.Int(g), sdk.Int(i), sdk.String(strings.Repeat("x", i%50)))
				in := inner.Begin(tr)
				size.Record(int64(g*rounds + i))
				runtime.Gosched()
				in.End()
				ctx, a := outer.Start(context.Background())
				_, b := inner.Start(ctx)
				hits.Add(1)
				b.End()
				a.End()
				s.End()
			}
		})
	}
	wg.Wait()
	r := end(t, c)
	for reason, n := range sdk.Stats().Dropped {
		t.Logf("dropped: %s %d", reason, n)
	}
	messages := map[string]int{}
	for _, e := range r.logs {
		messages[e.Msg]++
	}
	values := map[float64]int{}
	sum := 0.0
	for _, v := range r.values {
		if v.Name == "hits" {
			sum += v.Value
			continue
		}
		values[v.Value]++
	}
	if len(r.logs) != goroutines*rounds || len(values) != goroutines*rounds || sum != goroutines*rounds {
		t.Errorf("%d entries, %d values, %v hits", len(r.logs), len(values), sum)
	}
	for g := range goroutines {
		for i := range rounds {
			if m := fmt.Sprintf("goroutine %d round %d %s", g, i, strings.Repeat("x", i%50)); messages[m] != 1 || values[float64(g*rounds+i)] != 1 {
				t.Fatalf("%q came %d times, %d %d times", m, messages[m], g*rounds+i, values[float64(g*rounds+i)])
			}
		}
		if got := shape(r.track(fmt.Sprint("track ", g))); got != strings.Repeat("(outer(innerinner)outer)", rounds) {
			t.Errorf("track %d: %.200s…", g, got)
		}
	}
	open, parents := map[uint64]edge{}, map[uint64]uint64{}
	for _, e := range r.track("async") {
		if strings.HasPrefix(e.typ, "Begin") {
			open[e.span], parents[e.span] = e, e.parent
		}
	}
	for _, e := range r.track("async") {
		if strings.HasPrefix(e.typ, "End") {
			if b, ok := open[e.span]; !ok || b.name != e.name || b.ticks > e.ticks {
				t.Fatalf("%+v ends %+v", e, b)
			}
			delete(open, e.span)
		}
	}
	if len(open) != 0 || len(parents) != 2*goroutines*rounds {
		t.Errorf("%d of %d spans are open", len(open), len(parents))
	}
	if len(r.blocks) < 50 {
		t.Errorf("%d blocks only", len(r.blocks))
	}
}
