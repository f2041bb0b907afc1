package slogsink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/sdktest"
	"github.com/micromegas-go/micromegas/sdk/slogsink"
)

const here = "github.com/micromegas-go/micromegas/sdk/slogsink_test"

func TestHandlerDoesAsSlogAsks(t *testing.T) {
	var end func() *sdktest.Recorded
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		end = sdktest.Begin(t, sdk.Config{})
		return slogsink.New(slogsink.Options{})
	}, func(t *testing.T) map[string]any {
		logs := end().Logs
		if len(logs) != 1 {
			t.Fatalf("%d entries", len(logs))
		}
		m := map[string]any{slog.LevelKey: logs[0].Level, slog.MessageKey: logs[0].Msg}
		if !strings.HasSuffix(t.Name(), "/zero-time") { // an entry has the time of its process's clock, whatever the record says
			m[slog.TimeKey] = time.Unix(0, logs[0].Time)
		}
		for _, p := range logs[0].Properties.Props {
			nest(m, p.Key, p.Value)
		}
		return m
	})
}

// nest puts a value under a dotted key.
func nest(m map[string]any, key, value string) {
	for {
		group, rest, ok := strings.Cut(key, ".")
		if !ok {
			m[key] = value
			return
		}
		if m[group] == nil {
			m[group] = map[string]any{}
		}
		m, key = m[group].(map[string]any), rest
	}
}

type panicking struct{}

func (*panicking) Error() string { panic("no") }

func TestAttributesBecomeProperties(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	log := slog.New(slogsink.New(slogsink.Options{}))
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	log.With("svc", "a", "n", 1).WithGroup("g").With("k", true).Error("all", "i", -5, "u", uint64(5), "f", 1.5, "d", 1500*time.Millisecond,
		"t", when, "err", errors.New("broken"), "nil", nil, "s", struct{ A int }{5}, slog.Group("h", "x", "y"), "i", 6)
	log.Warn("odd", "err", (*panicking)(nil), "bad", "a\xffb")
	logs := end().Logs
	if len(logs) != 2 {
		t.Fatalf("%d entries", len(logs))
	}
	want := `{"g.d":"1.5s","g.err":"broken","g.f":"1.5","g.h.x":"y","g.i":"6","g.k":"true","g.nil":"<nil>","g.s":"{A:5}","g.t":"2026-01-02T03:04:05.000000006Z","g.u":"5","n":"1","svc":"a"}`
	if e := logs[0]; e.Properties.JSON != want || e.Msg != "all" || e.Target != here || e.Level != int32(sdk.Error) {
		t.Errorf("%+v %s", e, e.Properties.JSON)
	}
	if got := logs[1].Properties.JSON; !strings.Contains(got, `"bad":"a`+"\uFFFD"+`b"`) {
		t.Error(got)
	}
}

func TestLevels(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{Level: sdk.Trace})
	log := slog.New(slogsink.New(slogsink.Options{Target: "other"}))
	levels := []slog.Level{-8, -5, -4, -1, 0, 3, 4, 7, 8, 11, 12, 100}
	want := []sdk.Level{sdk.Trace, sdk.Trace, sdk.Debug, sdk.Debug, sdk.Info, sdk.Info, sdk.Warn, sdk.Warn, sdk.Error, sdk.Error, sdk.Fatal, sdk.Fatal}
	for _, l := range levels {
		log.Log(t.Context(), l, "m")
	}
	logs := end().Logs
	if len(logs) != len(want) {
		t.Fatalf("%d entries", len(logs))
	}
	for i, e := range logs {
		if e.Level != int32(want[i]) || e.Target != "other" {
			t.Errorf("%s is %+v", levels[i], e)
		}
	}
}

func TestEnabledFollowsTheLibrary(t *testing.T) {
	own, fixed := slogsink.New(slogsink.Options{}), slogsink.New(slogsink.Options{Target: "net/http"})
	enabled := func(h slog.Handler, l slog.Level) bool { return h.Enabled(t.Context(), l) }
	if enabled(own, slog.LevelError) || enabled(fixed, slog.LevelError) {
		t.Error("enabled before Start")
	}
	end := sdktest.Begin(t, sdk.Config{Level: sdk.Info})
	if !enabled(own, slog.LevelInfo) || enabled(own, slog.LevelDebug) || !enabled(fixed, slog.LevelInfo) || enabled(fixed, slog.LevelDebug) {
		t.Error("not as Level says")
	}
	sdk.SetTargetLevel("net", sdk.Debug)
	if !enabled(own, slog.LevelDebug) || !enabled(fixed, slog.LevelDebug) || enabled(own, -8) {
		t.Error("not as SetTargetLevel says")
	}
	slog.New(own).Debug("of another target")
	slog.New(fixed).Debug("of this one")
	logs := end().Logs
	if len(logs) != 1 || logs[0].Msg != "of this one" {
		t.Errorf("%+v", logs)
	}
}

func TestEntriesOfASpanHaveItsIDs(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	ctx, span := sdk.StartSpan(t.Context(), "s")
	log := slog.New(slogsink.New(slogsink.Options{}))
	log.InfoContext(ctx, "with", "k", "v", "span_id", "mine")
	log.InfoContext(ctx, "without")
	log.InfoContext(ctx, "with", "k", "v", "span_id", "mine")
	span.End()
	id, trace := span.ID()
	logs := end().Logs
	ids := `"span_id":"` + strconv.FormatInt(id, 10) + `","trace_id":"` + trace + `"}`
	for i, want := range []string{`{"k":"v",` + ids, "{" + ids, `{"k":"v",` + ids} {
		if got := logs[i].Properties.JSON; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

// More sets than package sdk keeps for ever must all arrive, from many goroutines at once.
func TestManyValues(t *testing.T) {
	const goroutines, each = 4, 5000
	end := sdktest.Begin(t, sdk.Config{Memory: 1 << 30, BlockBytes: 64 << 10})
	log := slog.New(slogsink.New(slogsink.Options{}))
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			log := log.With("g", g)
			for i := range each {
				log.Info("request", "id", g*each+i, "route", "/x")
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, e := range end().Logs {
		id, _ := e.Properties.Lookup("id")
		g, _ := e.Properties.Lookup("g")
		route, _ := e.Properties.Lookup("route")
		n, err := strconv.Atoi(id)
		if err != nil || fmt.Sprint(n/each) != g || route != "/x" {
			t.Fatalf("%s", e.Properties.JSON)
		}
		seen[id] = true
	}
	if len(seen) != goroutines*each {
		t.Errorf("%d of %d entries", len(seen), goroutines*each)
	}
	if n := sdk.Stats().Dropped["too many property sets"]; n != 0 {
		t.Errorf("%d sets refused", n)
	}
}

func TestTooMuchIsCut(t *testing.T) {
	before := sdk.Stats().Dropped["text cut"]
	end := sdktest.Begin(t, sdk.Config{})
	log := slog.New(slogsink.New(slogsink.Options{}))
	var attrs []any
	for i := range 300 {
		attrs = append(attrs, fmt.Sprintf("k%03d", i), i)
	}
	log.Info("many", attrs...)
	log.Info("long", "a", "b", "c", strings.Repeat("x", 2<<20))
	logs := end().Logs
	if n := len(logs[0].Properties.Props); n != 256 {
		t.Errorf("%d properties", n)
	}
	if got := logs[1].Properties.JSON; got != `{"a":"b"}` {
		t.Errorf("%.100s", got)
	}
	if n := sdk.Stats().Dropped["text cut"] - before; n != 2 {
		t.Errorf("%d cuts counted", n)
	}
}

// nowhere is a sink that drops everything.
type nowhere struct{}

func (nowhere) Send(sdk.Request)            {}
func (nowhere) Flush(context.Context) error { return nil }
func (nowhere) Close(context.Context) error { return nil }
func (nowhere) Stats() sdk.SinkStats        { return sdk.SinkStats{} }

func benchmark(b *testing.B, cfg sdk.Config, log func(*slog.Logger)) {
	const burst = 4 << 10 // entries between flushes, which are off the clock
	cfg.Sink, cfg.Memory = nowhere{}, 1<<30
	if err := sdk.Start(context.Background(), cfg); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sdk.Stop(context.Background()) })
	l := slog.New(slogsink.New(slogsink.Options{}))
	b.ReportAllocs()
	for left := b.N; left > 0; left -= burst {
		for range min(left, burst) {
			log(l)
		}
		b.StopTimer()
		if err := sdk.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkThreeAttrs(b *testing.B) {
	benchmark(b, sdk.Config{}, func(l *slog.Logger) {
		l.LogAttrs(context.Background(), slog.LevelInfo, "request", slog.String("route", "/x"), slog.Int("status", 200), slog.Duration("took", 1500))
	})
}

func BenchmarkThreeTexts(b *testing.B) {
	benchmark(b, sdk.Config{}, func(l *slog.Logger) {
		l.LogAttrs(context.Background(), slog.LevelInfo, "request", slog.String("route", "/x"), slog.String("method", "GET"), slog.String("zone", "b"))
	})
}

func BenchmarkNoAttrs(b *testing.B) {
	benchmark(b, sdk.Config{}, func(l *slog.Logger) { l.LogAttrs(context.Background(), slog.LevelInfo, "request") })
}

func BenchmarkDisabled(b *testing.B) {
	benchmark(b, sdk.Config{}, func(l *slog.Logger) {
		l.LogAttrs(context.Background(), -8, "request", slog.String("route", "/x"))
	})
}
