package wire_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

var levels = map[string]int32{"fatal": 1, "error": 2, "warning": 3, "info": 4, "debug": 5, "trace": 6}

// slowEntry makes the row of a log event from its object.
func slowEntry(o *wire.Object) entry {
	e := entry{Ticks: o.Field("time").Int(), Level: int32(o.Field("level").Uint()), Target: o.Field("target").Text, JSON: "{}"}
	e.Msg = strings.Clone(o.Field("msg").Text)
	if desc := o.Field("desc").Object; desc != nil {
		e.Level, e.Target = int32(desc.Field("level").Uint()), desc.Field("target").Text
		if o.Type == "LogStaticStrEvent" {
			e.Msg = desc.Field("fmt_str").Text
		}
	}
	set := o.Field("properties")
	if set.Kind != wire.ValueProperties {
		return e
	}
	e.JSON = telemetry.PropertiesJSON(set.Properties)
	for _, p := range set.Properties {
		switch {
		case o.Type != "TaggedLogString":
		case p.Key == "target":
			e.Target = p.Value
		case p.Key == "level":
			e.Level = levels[p.Value]
		}
	}
	return e
}

// slowMeasure makes the row of a measure from its object, but for the rule about ticks.
func slowMeasure(o *wire.Object) telemetry.Measure {
	desc, value := o.Field("desc").Object, o.Field("value")
	m := telemetry.Measure{
		Ticks: o.Field("time").Int(), Value: value.Float(), Target: desc.Field("target").Text, Name: desc.Field("name").Text,
		Unit: desc.Field("unit").Text, Properties: telemetry.NewPropertySet(o.Field("properties").Properties),
	}
	if value.Kind != wire.ValueF64 {
		m.Value = float64(value.Uint())
	}
	for _, p := range m.Properties.Props {
		switch p.Key {
		case "target":
			m.Target = p.Value
		case "name":
			m.Name = p.Value
		case "unit":
			m.Unit = p.Value
		}
	}
	return m
}

// each calls fn with every captured block of a family, its decoder and its process's clock.
func each(t *testing.T, tag telemetry.Tag, fn func(name string, d *wire.Decoder, b *wire.BlockBody, c telemetry.Clock)) {
	t.Helper()
	blocks := 0
	call := func(name string, p telemetry.Process, s telemetry.Stream, body []byte) {
		b, err := wire.DecodeBlock(body)
		if err != nil {
			t.Fatal(err)
		}
		c, err := telemetry.NewClock(p, b.Block)
		if err != nil {
			t.Fatal(err)
		}
		d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		blocks++
		fn(name, d, &b, c)
	}
	for _, scenario := range scenarios {
		vs := readVectors(t, scenario)
		streams := streamsOf(t, vs)
		p, err := wire.DecodeProcess(vs[0].raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vs {
			if b, _, err := wire.DecodeBlockEnvelope(v.raw); err == nil && telemetry.TagOf(streams[b.StreamID].Tags) == tag {
				call(scenario+"/"+v.File, p, streams[b.StreamID], v.raw)
			}
		}
	}
	l := readLoad(t)
	for _, body := range l.blocks[tag] {
		call("load", l.process, l.streams[tag], body)
	}
	if blocks < 5 {
		t.Fatalf("%d blocks only", blocks)
	}
}

func TestLogRowsAgreeWithObjects(t *testing.T) {
	each(t, telemetry.TagLog, func(name string, d *wire.Decoder, b *wire.BlockBody, _ telemetry.Clock) {
		var want []entry
		if _, err := d.Objects(b, func(_ int, o *wire.Object) error {
			want = append(want, slowEntry(o))
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, counts, err := logs(d, b)
		if diff := cmp.Diff(want, got); err != nil || diff != "" || counts.Rows != int(b.NbObjects) {
			t.Errorf("%s: %+v, %v\n%s", name, counts, err, diff)
		}
	})
}

func TestMeasuresAgreeWithObjects(t *testing.T) {
	each(t, telemetry.TagMetrics, func(name string, d *wire.Decoder, b *wire.BlockBody, c telemetry.Clock) {
		var want []telemetry.Measure
		if _, err := d.Objects(b, func(_ int, o *wire.Object) error {
			m := slowMeasure(o)
			if m.Unit == "ticks" && o.Field("value").Kind != wire.ValueF64 {
				m.Unit, m.Value = "seconds", c.DurationMs(o.Field("value").Int())/1000
			}
			want = append(want, m)
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []telemetry.Measure
		counts, err := d.Measures(b, c, func(m *telemetry.Measure) error { got = append(got, *m); return nil })
		same := cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })
		if diff := cmp.Diff(want, got, same); err != nil || diff != "" || counts.Rows != int(b.NbObjects) {
			t.Errorf("%s: %+v, %v\n%s", name, counts, err, diff)
		}
	})
}
