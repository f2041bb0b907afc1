// Package sdktest runs package sdk for one test, and reads what was recorded: for tests of instrumentation.
package sdktest

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

// Recorded is what a test recorded, each kind in the order of time.
type Recorded struct {
	Logs     []memsink.Log
	Measures []memsink.Measure
	Spans    []Span // of contexts, that have a begin
}

// Span is a span of a context.
type Span struct {
	ID, Parent uint64
	Name       string
	Begin, End int64 // ns; End is 0 when the span was not ended
	Trace      string
	Props      map[string]string // with trace_id and remote_parent of the first span of a trace
}

// Begin starts the library, which records until the test ends or end is called; end returns what was recorded.
func Begin(t testing.TB, cfg sdk.Config) (end func() *Recorded) {
	t.Helper()
	sink := memsink.New(0)
	cfg.Sink = sink
	if err := sdk.Start(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if err := sdk.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return func() *Recorded {
		t.Helper()
		stop()
		return read(t, sink)
	}
}

func read(t testing.TB, sink *memsink.Sink) *Recorded {
	t.Helper()
	d, err := sink.Decode()
	if err != nil {
		t.Fatal(err)
	}
	r := &Recorded{}
	if r.Logs, err = d.Logs(); err != nil {
		t.Fatal(err)
	}
	if r.Measures, err = d.Measures(); err != nil {
		t.Fatal(err)
	}
	events, err := d.Objects(telemetry.TagCPU)
	if err != nil {
		t.Fatal(err)
	}
	r.Spans = spans(events)
	return r
}

// spans puts the events of spans together.
func spans(events []memsink.Object) []Span {
	byID := map[uint64]*Span{}
	span := func(id uint64) *Span {
		if byID[id] == nil {
			byID[id] = &Span{ID: id, Props: map[string]string{}}
		}
		return byID[id]
	}
	for i := range events {
		e := &events[i]
		switch {
		case strings.HasPrefix(e.Type, "BeginAsync"):
			s := span(e.Field("span_id").Uint())
			s.Begin, s.Parent, s.Name = e.Time, e.Field("parent_span_id").Uint(), nameOf(e)
		case strings.HasPrefix(e.Type, "EndAsync"):
			span(e.Field("span_id").Uint()).End = e.Time
		default:
			for _, p := range e.Field("properties").Properties {
				span(e.Field("span").Uint()).Props[p.Key] = p.Value
			}
		}
	}
	var all []Span
	for _, s := range byID {
		if s.Begin != 0 {
			s.Trace = traceOf(byID, s)
			all = append(all, *s)
		}
	}
	slices.SortFunc(all, func(a, b Span) int { return cmp.Compare(a.Begin, b.Begin) })
	return all
}

func nameOf(e *memsink.Object) string {
	if name := e.Field("name").Text; name != "" {
		return name
	}
	if d := e.Field("span_desc").Object; d != nil {
		return d.Field("name").Text
	}
	return ""
}

// traceOf returns the trace id of a span, which stands at the first of its ancestors.
func traceOf(byID map[uint64]*Span, s *Span) string {
	for s.Parent != 0 && byID[s.Parent] != nil {
		s = byID[s.Parent]
	}
	return s.Props["trace_id"]
}

// Span returns the span of a name, and fails the test unless there is exactly one.
func (r *Recorded) Span(t testing.TB, name string) Span {
	t.Helper()
	var found []Span
	for _, s := range r.Spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans %q in %+v", len(found), name, r.Spans)
	}
	return found[0]
}

// Values returns the values of a measure, in the order of time.
func (r *Recorded) Values(name string) []float64 {
	var values []float64
	for _, m := range r.Measures {
		if m.Name == name {
			values = append(values, m.Value)
		}
	}
	return values
}
