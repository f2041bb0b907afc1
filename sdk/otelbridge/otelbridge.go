// Package otelbridge records the spans of a program that is instrumented with OpenTelemetry with package sdk:
//
//	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(otelbridge.New()))
//	otel.SetTracerProvider(provider)
//
// A span begins and ends when the program begins and ends it, on the clock of all events of the process, and keeps its trace id; its parent is
// the span that is its parent there. It gets the properties otel.span_id, otel.scope (who instruments), otel.kind unless it is internal, its
// attributes under their names, otel.status and otel.status_description, and of its first events and links event.0.name …, link.0 ….
// Times that the program sets itself are the properties otel.start_time and otel.end_time, where they are off by more than a second.
//
// A parent in another process, or one that ended before its child began, is the property remote_parent, whose value is the parent's
// otel.span_id. A span of package sdk in the context is the parent of an OpenTelemetry span without one, which then is of that trace, and has its
// own trace id as otel.trace_id. The other way round, the context of an OpenTelemetry span does not lead package sdk to it: processors
// cannot change the context.
//
// The processor makes no spans of its own and sends nothing. A sink must not use a client that is instrumented with OpenTelemetry: each
// request that carries telemetry would make more to carry.
package otelbridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/micromegas-go/micromegas/sdk"
)

// Bounds.
const (
	maxOpen   = 1 << 16 // spans that are open at a time; a further one is dropped and counted
	maxEvents = 32      // of a span that are recorded
	maxLinks  = 16      // likewise
)

// clockSlack is how far times may be off that the program did not set.
const clockSlack = time.Second

var (
	spanSite = sdk.NewSpan("", sdk.Target("otel"))
	dropped  = sdk.NewCounter("otel_spans_dropped", "count")
)

// Processor is a span processor. Shutdown ends it; spans that are open then stay open.
type Processor struct {
	limit int // of open
	mu    sync.Mutex
	open  map[spanKey]openSpan // nil = it was shut down
}

var _ sdktrace.SpanProcessor = (*Processor)(nil)

type spanKey struct {
	trace trace.TraceID
	span  trace.SpanID
}

// openSpan is a span of package sdk that is open, and a context with it, for its children. Only inside a span of package sdk that is the
// program's context; elsewhere it keeps nothing of the program alive.
type openSpan struct {
	ctx  context.Context
	span *sdk.ContextSpan
	name string
}

// New returns a processor.
func New() *Processor { return &Processor{limit: maxOpen, open: map[spanKey]openSpan{}} }

// OnStart implements sdktrace.SpanProcessor.
func (p *Processor) OnStart(parent context.Context, s sdktrace.ReadWriteSpan) {
	if !spanSite.Enabled() {
		return
	}
	sc, name := s.SpanContext(), s.Name()
	key := spanKey{sc.TraceID(), sc.SpanID()}
	around, ok := p.reserve(key, s.Parent())
	if !ok {
		return
	}
	ctx, foreign := around.ctx, false
	if ctx == nil {
		ctx, foreign = outside(parent, s.Parent(), sc.TraceID())
	}
	ctx, span := spanSite.StartNamed(ctx, name)
	p.keep(key, openSpan{ctx, span, name})
	if span == nil {
		return
	}
	span.SetText("otel.span_id", sc.SpanID().String())
	if foreign {
		span.SetText("otel.trace_id", sc.TraceID().String())
	}
	if scope := s.InstrumentationScope().Name; scope != "" {
		span.SetText("otel.scope", scope)
	}
	setTime(span, "otel.start_time", s.StartTime())
}

// reserve makes room for a span that is about to begin, and returns its parent if that is open here; ok = false: there is no room.
func (p *Processor) reserve(key spanKey, parent trace.SpanContext) (around openSpan, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return openSpan{}, false
	}
	if len(p.open) >= p.limit {
		dropped.Add(1)
		return openSpan{}, false
	}
	p.open[key] = openSpan{}
	return p.open[spanKey{parent.TraceID(), parent.SpanID()}], true
}

// keep puts a span where room was made for it. One that is not recorded needs none.
func (p *Processor) keep(key spanKey, o openSpan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case o.span == nil:
		delete(p.open, key)
	case p.open != nil:
		p.open[key] = o
	}
}

// outside returns the context for a span whose parent is not open here; foreign says that its trace is another than OpenTelemetry's.
func outside(ctx context.Context, parent trace.SpanContext, id trace.TraceID) (_ context.Context, foreign bool) {
	if parent.IsValid() {
		span := parent.SpanID()
		return sdk.WithTrace(context.Background(), parent.TraceID(), binary.BigEndian.Uint64(span[:])), false
	}
	if sdk.TraceParent(ctx) != "" {
		return ctx, true
	}
	return sdk.WithTrace(context.Background(), id, 0), false
}

// OnEnd implements sdktrace.SpanProcessor.
func (p *Processor) OnEnd(s sdktrace.ReadOnlySpan) {
	sc := s.SpanContext()
	key := spanKey{sc.TraceID(), sc.SpanID()}
	p.mu.Lock()
	o, ok := p.open[key]
	delete(p.open, key)
	p.mu.Unlock()
	if !ok {
		return
	}
	describe(o, s)
	o.span.End()
}

// Shutdown implements sdktrace.SpanProcessor.
func (p *Processor) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.open = nil
	p.mu.Unlock()
	return p.ForceFlush(ctx)
}

// ForceFlush implements sdktrace.SpanProcessor. It flushes package sdk, which belongs to the program and goes on.
func (p *Processor) ForceFlush(ctx context.Context) error { return sdk.Flush(ctx) }

// describe records what is known of a span at its end.
func describe(o openSpan, s sdktrace.ReadOnlySpan) {
	if name := s.Name(); name != o.name {
		o.span.SetText("otel.name", name)
	}
	if k := s.SpanKind(); k != trace.SpanKindInternal {
		o.span.SetText("otel.kind", k.String())
	}
	for _, a := range s.Attributes() {
		o.span.SetText(string(a.Key), a.Value.String())
	}
	if status := s.Status(); status.Code != codes.Unset {
		o.span.SetText("otel.status", status.Code.String())
		if status.Description != "" {
			o.span.SetText("otel.status_description", status.Description)
		}
	}
	describeEvents(o.span, s.Events())
	for i, l := range s.Links() {
		if i == maxLinks {
			break
		}
		o.span.SetText(fmt.Sprintf("link.%d", i), l.SpanContext.TraceID().String()+"-"+l.SpanContext.SpanID().String())
	}
	setTime(o.span, "otel.end_time", s.EndTime())
}

// describeEvents records events: the time and the attributes of each, under its number and name.
func describeEvents(span *sdk.ContextSpan, events []sdktrace.Event) {
	for i, e := range events {
		if i == maxEvents {
			span.SetText("events", fmt.Sprint(len(events)))
			return
		}
		var b strings.Builder
		b.WriteString(e.Time.UTC().Format(time.RFC3339Nano))
		appendAttributes(&b, e.Attributes)
		span.SetText(fmt.Sprintf("event.%d.%s", i, e.Name), b.String())
	}
}

func appendAttributes(b *strings.Builder, attributes []attribute.KeyValue) {
	for _, a := range attributes {
		fmt.Fprintf(b, " %s=%s", a.Key, a.Value.String())
	}
}

// setTime records a time that the program set, which is one that is not now.
func setTime(span *sdk.ContextSpan, key string, t time.Time) {
	if d := time.Since(t); d > clockSlack || d < -clockSlack {
		span.SetText(key, t.UTC().Format(time.RFC3339Nano))
	}
}
