package perfetto_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/query/perfetto/perfettotest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func TestThreadWithoutProperties(t *testing.T) {
	third := id("aaaaaaaa-0000-0000-0000-000000000003")
	f := func(opts perfetto.Options, threadID string, uuid uint64, tid int64) {
		t.Helper()
		got := perfettotest.Read(t, write(t, opts, func(w *perfetto.Writer) {
			w.Process(process, exe).Thread(third, third.String(), threadID)
		}).bytes)
		threads := got.TracksOf("thread")
		if len(threads) != 1 || threads[0].UUID != uuid || threads[0].Tid != tid || threads[0].Name != third.String() {
			t.Errorf("%q: threads %+v, want number %d", threadID, threads, tid)
		}
	}
	const uuid = 1482155329949554710
	f(perfetto.Options{}, "", uuid, 0)
	f(perfetto.Options{}, "main", uuid, 0)
	f(perfetto.Options{}, "140584621284864", uuid, 1751752192)
	f(perfetto.Options{}, "4294967295", uuid, -1)
	f(perfetto.Options{PositiveIDs: true}, "4294967295", uuid, uuid&math.MaxInt32)
	f(perfetto.Options{PositiveIDs: true}, "", uuid, uuid&math.MaxInt32)
	f(perfetto.Options{PositiveIDs: true}, "1234", uuid, 1234)
}

// TestProcessesShareATrace writes two processes by turns: their strings are one set, their numbers do not clash.
func TestProcessesShareATrace(t *testing.T) {
	other := id("99999999-2222-3333-4444-555555555555")
	second := id("bbbbbbbb-0000-0000-0000-000000000001")
	got := perfettotest.Read(t, write(t, perfetto.Options{PositiveIDs: true}, func(w *perfetto.Writer) {
		p, q := w.Process(process, exe), w.Process(other, "other")
		if w.Process(process, exe) != p {
			t.Error("the process was made twice")
		}
		a, b := p.Thread(stream, "a", ""), q.Thread(second, "b", "")
		for i := range int64(30) {
			a.Span(span(i, i+1, "A", "demo", "m.rs", 10))
			b.Span(span(i, i+1, "A", "demo", "m.rs", 10))
		}
		p.Async().Span(span(5, 6, "x", "", "", 0))
		q.Async().Span(span(5, 6, "x", "", "", 0))
	}).bytes)
	if len(got.Slices) != 62 || len(got.TracksOf("process")) != 2 || len(got.Tracks) != 6 {
		t.Errorf("%d slices, tracks %+v", len(got.Slices), got.Tracks)
	}
	for _, track := range got.Tracks {
		if track.Kind == "process" && track.Pid <= 0 || track.Kind == "thread" && track.Tid <= 0 {
			t.Errorf("track %+v: want positive numbers", track)
		}
	}
}

// TestNested writes what a viewer sorts wrongly when ends follow their begins at once.
func TestNested(t *testing.T) {
	deep := func(depth uint32, begin, end int64, name string) *telemetry.Span {
		return &telemetry.Span{Depth: depth, Begin: begin, End: end, Name: name}
	}
	got := perfettotest.Read(t, write(t, perfetto.Options{Nested: true}, func(w *perfetto.Writer) {
		thread := w.Process(process, exe).Thread(stream, "main-7", "7")
		for _, s := range []*telemetry.Span{
			deep(0, 0, 100, "root"),
			deep(1, 0, 10, "a"),
			deep(2, 0, 10, "a"),      // recursion
			deep(2, 10, 10, "point"), // where the one around it ends
			deep(3, 10, 10, "in point"),
			deep(2, 10, 10, "point"),
			deep(1, 10, 20, "b"), // begins where its sibling ends
			deep(2, 15, 30, "outlives"),
			deep(1, 100, 100, "last"),
			deep(0, 200, 300, "next root"), // another chain
			deep(1, 250, 300, "c"),
		} {
			thread.Span(s)
		}
	}).bytes)
	var lines []string
	for _, s := range got.Slices {
		lines = append(lines, fmt.Sprintf("%d %d-%d %s in %s", s.Depth, s.Begin, s.End, s.Name, s.Parent))
	}
	want := []string{
		"0 0-100 root in ", "1 0-10 a in root", "2 0-10 a in a", "2 10-10 point in a", "3 10-10 in point in point",
		"2 10-10 point in a", "1 10-20 b in root", "2 15-20 outlives in b", "1 100-100 last in root",
		"0 200-300 next root in ", "1 250-300 c in next root",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("slices (-want +got):\n%s", diff)
	}
	begins := 0
	for i, p := range got.Packets[3:] {
		if p.Time < got.Packets[i+2].Time {
			t.Errorf("packet %d: %d comes after %d", i+3, p.Time, got.Packets[i+2].Time)
		}
		if p.Type == 1 {
			begins++
		}
	}
	if begins != len(want)-1 { // the first begin is not in the loop
		t.Errorf("%d begins, want %d", begins, len(want)-1)
	}
}

// TestLanes packs random operations and compares what a viewer shows with what was written.
func TestLanes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 8 {
		spans := operations(rng, 400, 20+round*40)
		var stats perfetto.Stats
		c := write(t, perfetto.Options{Lanes: true}, func(w *perfetto.Writer) {
			async := w.Process(process, exe).Async()
			for i := range spans {
				async.Span(&spans[i])
			}
			stats = w.Stats()
		})
		got := perfettotest.Read(t, c.bytes)
		checkLanes(t, spans, got)
		if stats.Spans != int64(len(got.Slices)) || stats.Skipped != 0 {
			t.Errorf("counted %+v of %d slices", stats, len(got.Slices))
		}
	}
}

// operations returns spans in the order of their begins; a third are children, most of them within their parents.
func operations(rng *rand.Rand, count, longest int) []telemetry.Span {
	spans := make([]telemetry.Span, 0, count)
	now := int64(1000)
	for n := range count {
		now += rng.Int64N(10)
		s := telemetry.Span{ID: int64(n + 1), Begin: now, End: now + 1 + rng.Int64N(int64(longest)), Name: fmt.Sprint(n + 1)}
		if n > 0 && rng.IntN(3) > 0 {
			parent := spans[max(0, n-1-rng.IntN(5))]
			if parent.End > now {
				s.Parent = parent.ID
				if rng.IntN(5) > 0 {
					s.End = min(s.End, parent.End)
				}
			}
		}
		spans = append(spans, s)
	}
	return spans
}

func checkLanes(t *testing.T, spans []telemetry.Span, got *perfettotest.Trace) {
	t.Helper()
	var want, have []string
	parents := map[string]string{}
	for _, s := range spans {
		want = append(want, fmt.Sprint(s.Name, " ", s.Begin, " ", s.End))
		if s.Parent != 0 {
			parents[s.Name] = fmt.Sprint(s.Parent)
		}
	}
	nested := 0
	for _, s := range got.Slices {
		have = append(have, fmt.Sprint(s.Name, " ", s.Begin, " ", s.End))
		if s.Parent != "" {
			nested++
		}
		if s.Parent != "" && s.Parent != parents[s.Name] {
			t.Errorf("%s lies in %s, its parent is %q", s.Name, s.Parent, parents[s.Name])
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("slices (-want +got):\n%s", diff)
	}
	tracks := got.TracksOf("track")
	if nested == 0 || len(tracks) < 2 {
		t.Errorf("%d slices in their parents on %d lanes: the test tests nothing", nested, len(tracks))
	}
	for _, track := range tracks {
		if track.Name != "Async Operations" {
			t.Errorf("lane %q", track.Name)
		}
	}
	if most := mostOpen(spans); len(tracks) > most {
		t.Errorf("%d lanes for %d spans at a time", len(tracks), most)
	}
}

// mostOpen returns how many spans are open at most at one time.
func mostOpen(spans []telemetry.Span) int {
	most := 0
	for _, s := range spans {
		n := 0
		for _, other := range spans {
			if other.Begin <= s.Begin && other.End > s.Begin {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestSpansWithoutALaneAreCounted(t *testing.T) {
	var stats perfetto.Stats
	c := write(t, perfetto.Options{Lanes: true, MaxLanes: 2}, func(w *perfetto.Writer) {
		async := w.Process(process, exe).Async()
		for i := range int64(5) {
			async.Span(&telemetry.Span{ID: i + 1, Begin: i, End: 100, Name: "x"})
		}
		async.Span(&telemetry.Span{ID: 6, Begin: 100, End: 100, Name: "no duration"})
		async.Span(&telemetry.Span{ID: 7, Begin: 100, End: 101, Name: "y"})
		stats = w.Stats()
	})
	if got := perfettotest.Read(t, c.bytes); len(got.Slices) != 3 || stats.Spans != 3 || stats.Skipped != 4 {
		t.Errorf("%d slices, counted %+v", len(got.Slices), stats)
	}
}

func TestAsyncSpansWithoutDurationAreLeftOut(t *testing.T) {
	c := write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		async := w.Process(process, exe).Async()
		async.Span(span(5, 5, "x", "", "", 0))
		async.Span(span(6, 5, "x", "", "", 0))
	})
	if diff := cmp.Diff([]int{49, 48}, c.sizes); diff != "" {
		t.Errorf("chunks (-want +got):\n%s", diff)
	}
}

// TestStringsAreForgotten writes more names than are remembered: readers find all of them nevertheless.
func TestStringsAreForgotten(t *testing.T) {
	for _, opts := range []perfetto.Options{
		{MaxInterned: 30},
		{MaxInternedBytes: 2000},
		{MaxInterned: 30, Nested: true, Lanes: true},
		{MaxInterned: 1},
	} {
		const count = 500
		c := write(t, opts, func(w *perfetto.Writer) {
			p := w.Process(process, exe)
			thread, async := p.Thread(stream, "main-7", "7"), p.Async()
			for i := range int64(count) {
				thread.Span(&telemetry.Span{Begin: i, End: 2 * count, Depth: uint32(i), Name: fmt.Sprint("thread ", i), Line: uint32(i)})
				async.Span(&telemetry.Span{ID: i + 1, Begin: i, End: i + 10, Name: fmt.Sprint("async ", i)})
				thread.Log(&perfetto.Entry{Time: i, Level: 3, Message: fmt.Sprint("log ", i)})
			}
		})
		got := perfettotest.Read(t, c.bytes)
		names := map[string]bool{}
		for _, s := range got.Slices {
			names[s.Name] = true
		}
		if len(names) != 2*count || len(got.Instants) != count || got.Resets < 10 {
			t.Errorf("%+v: %d names, %d instants, %d resets", opts, len(names), len(got.Instants), got.Resets)
		}
	}
}

func TestCounters(t *testing.T) {
	var skipped int64
	got := perfettotest.Read(t, write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		p := w.Process(process, exe)
		p.Thread(stream, "main-7", "7")
		frame, used := p.Counter("frame_time", "ms"), p.Counter("memory", "bytes")
		if p.Counter("frame_time", "ms") != frame {
			t.Error("the counter was made twice")
		}
		frame.Add(10, 16.5)
		used.Add(11, 1<<40)
		frame.Add(12, math.NaN())
		frame.Add(12, math.Inf(1))
		frame.Add(13, 0)
		skipped = w.Stats().Skipped
	}).bytes)
	counters := got.TracksOf("counter")
	if len(counters) != 2 || counters[0].Name != "frame_time" || counters[0].Unit != "ms" || counters[1].Unit != "bytes" {
		t.Fatalf("counters %+v", counters)
	}
	frame, used := counters[0].UUID, counters[1].UUID
	want := []perfettotest.Value{{Track: frame, Time: 10, Value: 16.5}, {Track: frame, Time: 13}, {Track: used, Time: 11, Value: 1 << 40}}
	if diff := cmp.Diff(want, got.Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if skipped != 2 {
		t.Errorf("counted %d values left out, want 2", skipped)
	}
}

func TestLogsAndImages(t *testing.T) {
	long := strings.Repeat("é", 100)
	got := perfettotest.Read(t, write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		p := w.Process(process, exe)
		thread := p.Thread(stream, "main-7", "7")
		logs := p.Track("Logs")
		thread.Log(&perfetto.Entry{Time: 10, Level: 2, Target: "game", Message: "lost \xff"})
		logs.Log(&perfetto.Entry{Time: 11, Level: 4, Target: "game", Message: long})
		logs.Log(&perfetto.Entry{Time: 12, Level: 77, Target: "", Message: ""})
		logs.Image(&perfetto.Picture{Time: 13, Name: "shot", Format: "JPG", Data: []byte{0xff, 0xd8}})
		logs.Image(&perfetto.Picture{Time: 14, Name: "map", Format: "png", Data: []byte{1, 2, 3}})
		thread.Span(span(20, 30, "A", "game", "", 0)) // nothing of the instants clings to it
	}).bytes)
	thread, logs := got.TracksOf("thread")[0].UUID, got.TracksOf("track")[0].UUID
	want := []perfettotest.Instant{
		{
			Track: thread, Time: 10, Name: "lost \uFFFD", Category: "game", Log: "lost \uFFFD", Priority: "PRIO_ERROR",
			Arguments: map[string]any{"level": "error"},
		},
		{
			Track: logs, Time: 11, Name: long[:128], Category: "game",
			Arguments: map[string]any{"level": "info", "message": long},
		},
		{Track: logs, Time: 12},
		{
			Track: logs, Time: 13, Name: "Screenshot", Category: "android_screenshot", JPEG: 2,
			Arguments: map[string]any{"name": "shot", "format": "JPG", "size": 2.0},
		},
		{
			Track: logs, Time: 14, Name: "map", Category: "image",
			Arguments: map[string]any{"name": "map", "format": "png", "size": 3.0},
		},
	}
	if diff := cmp.Diff(want, got.Instants); diff != "" {
		t.Errorf("instants (-want +got):\n%s", diff)
	}
	if s := got.Slices[0]; s.Arguments != nil || s.Category != "game" {
		t.Errorf("slice %+v", s)
	}
}

// TestConnection writes network spans as slices of a track of their connection, with sizes as arguments.
func TestConnection(t *testing.T) {
	got := perfettotest.Read(t, write(t, perfetto.Options{}, func(w *perfetto.Writer) {
		c := w.Process(process, exe).Track("127.0.0.1:7777")
		for _, s := range []telemetry.Span{
			{Begin: 10, End: 18, Depth: 0, Name: "127.0.0.1:7777", Target: "connection"},
			{Begin: 11, End: 14, Depth: 1, Name: "ObjA", Target: "object"},
			{Begin: 12, End: 12, Depth: 2, Name: "PropA1", Target: "property"},
			{Begin: 14, End: 14, Depth: 2, Name: "PropA2", Target: "property"},
			{Begin: 15, End: 17, Depth: 1, Name: "ObjB", Target: "object"},
		} {
			c.SpanWith(&s, []perfetto.Arg{perfetto.Int("bits", s.End-s.Begin), perfetto.Text("direction", "in")})
		}
	}).bytes)
	parents := map[string]string{}
	for _, s := range got.Slices {
		parents[s.Name] = s.Parent
		if diff := cmp.Diff(map[string]any{"bits": float64(s.End - s.Begin), "direction": "in"}, s.Arguments); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.Name, diff)
		}
	}
	want := map[string]string{"127.0.0.1:7777": "", "ObjA": "127.0.0.1:7777", "ObjB": "127.0.0.1:7777", "PropA1": "ObjA", "PropA2": "ObjA"}
	if diff := cmp.Diff(want, parents); diff != "" {
		t.Errorf("parents (-want +got):\n%s", diff)
	}
}

func TestFirstErrorEndsTheWriting(t *testing.T) {
	full := errors.New("disk full")
	calls := 0
	w := perfetto.New(func([]byte) error {
		if calls++; calls == 3 {
			return full
		}
		return nil
	}, perfetto.Options{})
	p := w.Process(process, exe)
	thread := p.Thread(stream, "main-7", "7")
	var err error
	for i := int64(0); err == nil && i < 100; i++ {
		err = thread.Span(span(i, i+1, "A", "demo", "m.rs", 10))
	}
	if !errors.Is(err, full) || w.Stats().Spans != 10 {
		t.Errorf("error %v after %d spans", err, w.Stats().Spans)
	}
	if err := p.Counter("x", "").Add(1, 1); !errors.Is(err, full) {
		t.Errorf("Add: %v", err)
	}
	if err := w.End(); !errors.Is(err, full) || calls != 3 {
		t.Errorf("End: %v after %d calls", err, calls)
	}
}

// TestSpansCostNoAllocation measures what a million spans would multiply.
func TestSpansCostNoAllocation(t *testing.T) {
	for _, opts := range []perfetto.Options{{}, {Nested: true, Lanes: true}} {
		w := perfetto.New(func([]byte) error { return nil }, opts)
		p := w.Process(process, exe)
		thread, async := p.Thread(stream, "main-7", "7"), p.Async()
		i := int64(0)
		allocs := testing.AllocsPerRun(2000, func() {
			i++
			s := telemetry.Span{ID: i, Begin: i, End: i + 5, Depth: uint32(i % 3), Name: "A", Target: "demo", Filename: "m.rs", Line: 10}
			thread.Span(&s)
			async.Span(&s)
		})
		if allocs >= 1 {
			t.Errorf("%+v: %v allocations for two spans", opts, allocs)
		}
	}
}
