package otelbridge_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/otelbridge"
	"github.com/micromegas-go/micromegas/sdk/sdktest"
)

func tracer(t testing.TB) (trace.Tracer, *sdktrace.TracerProvider) {
	t.Helper()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(otelbridge.New()))
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	return p.Tracer("example.com/lib"), p
}

func TestSpansArrive(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	tr, _ := tracer(t)
	before := time.Now()
	ctx, root := tr.Start(t.Context(), "root", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.Int("n", 5)))
	_, child := tr.Start(ctx, "child", trace.WithLinks(trace.Link{SpanContext: root.SpanContext()}))
	child.AddEvent("retry", trace.WithAttributes(attribute.StringSlice("hosts", []string{"a", "b"})))
	child.RecordError(errors.New("broken"))
	child.SetStatus(codes.Error, "no answer")
	child.SetName("renamed")
	child.End()
	root.SetAttributes(attribute.Bool("done", true))
	root.End()
	root.End()
	_, late := tr.Start(ctx, "late") // its parent has ended
	late.End()
	after := time.Now()
	r := end()

	top, c, l := r.Span(t, "root"), r.Span(t, "child"), r.Span(t, "late")
	id := root.SpanContext().TraceID().String()
	for _, s := range []sdktest.Span{top, c, l} {
		if s.Trace != id || s.Props["otel.scope"] != "example.com/lib" || s.Begin < before.UnixNano()-1e6 || s.End > after.UnixNano()+1e6 || s.End < s.Begin {
			t.Errorf("%+v", s)
		}
	}
	if top.Parent != 0 || c.Parent != top.ID || l.Parent != 0 || l.Props["remote_parent"] != root.SpanContext().SpanID().String() {
		t.Errorf("%+v\n%+v\n%+v", top, c, l)
	}
	for k, want := range map[string]string{
		"otel.span_id": root.SpanContext().SpanID().String(), "otel.kind": "server", "n": "5", "done": "true", "otel.status": "", "remote_parent": "", "otel.start_time": "",
	} {
		if got := top.Props[k]; got != want {
			t.Errorf("%s is %q, not %q", k, got, want)
		}
	}
	for k, want := range map[string]string{
		"otel.name": "renamed", "otel.kind": "", "otel.status": "Error", "otel.status_description": "no answer", "otel.span_id": child.SpanContext().SpanID().String(),
		"link.0": id + "-" + root.SpanContext().SpanID().String(),
	} {
		if got := c.Props[k]; got != want {
			t.Errorf("%s is %q, not %q", k, got, want)
		}
	}
	if got := c.Props["event.0.retry"]; !strings.HasSuffix(got, ` hosts=["a","b"]`) {
		t.Error(got)
	}
	if got := c.Props["event.1.exception"]; !strings.Contains(got, "exception.message=broken") {
		t.Error(got)
	}
}

func TestRemoteParents(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	tr, _ := tracer(t)
	remote := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{0xab, 7: 0xcd}, TraceFlags: trace.FlagsSampled, Remote: true})
	_, s := tr.Start(trace.ContextWithRemoteSpanContext(t.Context(), remote), "served")
	s.End()
	if got := end().Span(t, "served"); got.Trace != remote.TraceID().String() || got.Props["remote_parent"] != "ab000000000000cd" {
		t.Errorf("%+v", got)
	}
}

func TestSpansOfBothLibraries(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	tr, _ := tracer(t)
	ctx, native := sdk.StartSpan(t.Context(), "native")
	ctx, mid := tr.Start(ctx, "mid")
	_, leaf := tr.Start(ctx, "leaf")
	leaf.End()
	mid.End()
	native.End()
	r := end()
	n, m, l := r.Span(t, "native"), r.Span(t, "mid"), r.Span(t, "leaf")
	if m.Parent != n.ID || l.Parent != m.ID || l.Trace != n.Trace || m.Props["otel.trace_id"] != mid.SpanContext().TraceID().String() {
		t.Errorf("%+v\n%+v\n%+v", n, m, l)
	}
}

func TestTimesOfTheProgram(t *testing.T) {
	end := sdktest.Begin(t, sdk.Config{})
	tr, _ := tracer(t)
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	_, s := tr.Start(t.Context(), "old", trace.WithTimestamp(when))
	s.End(trace.WithTimestamp(when.Add(time.Second)))
	if p := end().Span(t, "old").Props; p["otel.start_time"] != "2026-01-02T03:04:05Z" || p["otel.end_time"] != "2026-01-02T03:04:06Z" {
		t.Errorf("%v", p)
	}
}

func TestBounds(t *testing.T) {
	const open, more = 100, 5
	end := sdktest.Begin(t, sdk.Config{})
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(otelbridge.NewLimited(open)))
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	tr := p.Tracer("")
	spans := make([]trace.Span, open+more)
	for i := range spans {
		_, spans[i] = tr.Start(context.Background(), "many")
	}
	for _, s := range spans {
		s.End()
	}
	_, events := tr.Start(t.Context(), "events")
	for i := range 50 {
		events.AddEvent(fmt.Sprint("e", i))
	}
	events.End()
	r := end()
	if n := len(r.Spans) - 1; n != open {
		t.Errorf("%d spans", n)
	}
	sum := 0.0
	for _, v := range r.Values("otel_spans_dropped") {
		sum += v
	}
	if sum != more {
		t.Errorf("%v dropped", sum)
	}
	if p := r.Span(t, "events").Props; p["events"] != "50" || p["event.31.e31"] == "" || p["event.32.e32"] != "" {
		t.Errorf("%v", p)
	}
}

func TestNothingAfterShutdownOrBeforeStart(t *testing.T) {
	tr, p := tracer(t)
	_, early := tr.Start(t.Context(), "early")
	end := sdktest.Begin(t, sdk.Config{})
	early.End()
	_, open := tr.Start(t.Context(), "open")
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	open.End()
	_, late := tr.Start(t.Context(), "late")
	late.End()
	r := end()
	if len(r.Spans) != 1 || r.Span(t, "open").End != 0 {
		t.Errorf("%+v", r.Spans)
	}
}

func TestManyGoroutines(t *testing.T) {
	const goroutines, each = 8, 100
	end := sdktest.Begin(t, sdk.Config{})
	tr, _ := tracer(t)
	ctx, root := tr.Start(t.Context(), "root")
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range each {
				_, s := tr.Start(ctx, "child")
				s.End()
			}
		})
	}
	all.Wait()
	root.End()
	r := end()
	top := r.Span(t, "root")
	for _, s := range r.Spans {
		if s.Name == "child" && s.Parent != top.ID {
			t.Fatalf("%+v", s)
		}
	}
	if len(r.Spans) != goroutines*each+1 {
		t.Errorf("%d spans", len(r.Spans))
	}
}

func BenchmarkSpan(b *testing.B) {
	for _, bridged := range []bool{false, true} {
		b.Run(fmt.Sprintf("bridged=%t", bridged), func(b *testing.B) {
			if bridged {
				sdktest.Begin(b, sdk.Config{Memory: 1 << 30})
			}
			tr, _ := tracer(b)
			b.ReportAllocs()
			for b.Loop() {
				_, s := tr.Start(context.Background(), "span")
				s.End()
			}
		})
	}
}
