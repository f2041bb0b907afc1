package sdk_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
)

// collector is a sink that keeps what it gets.
type collector struct {
	mu       sync.Mutex
	requests []sdk.Request
	closed   bool
}

func (c *collector) Send(r sdk.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
}
func (c *collector) Flush(context.Context) error { return nil }
func (c *collector) Close(context.Context) error { c.closed = true; return nil }
func (c *collector) Stats() sdk.SinkStats        { return sdk.SinkStats{} }

// received is what a reader makes of the requests.
type received struct {
	process telemetry.Process
	streams map[telemetry.ID]telemetry.Stream
	blocks  []wire.BlockBody
	bodies  [][]byte
	logs    []entry
	values  []value
	spans   map[telemetry.ID][]edge // by stream, in the order of blocks
	images  []*wire.Object
}

type entry struct {
	telemetry.LogEntry
	time   int64
	stream telemetry.ID
}

type value struct {
	telemetry.Measure
	time int64
}

// edge is an event of a stream of spans.
type edge struct {
	typ, name    string
	ticks, event int64
	span, parent uint64
	depth        uint32
	props        []telemetry.Property
}

// read decodes everything and checks what every reader relies on.
func (c *collector) read(t testing.TB) *received {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &received{streams: map[telemetry.ID]telemetry.Stream{}, spans: map[telemetry.ID][]edge{}}
	last := map[telemetry.ID]telemetry.Block{}
	for _, q := range c.requests {
		var err error
		switch q.Kind {
		case sdk.KindProcess:
			r.process, err = wire.DecodeProcess(q.Body)
		case sdk.KindStream:
			var s telemetry.Stream
			s, err = wire.DecodeStream(q.Body)
			r.streams[s.ID] = s
		case sdk.KindBlock:
			var b wire.BlockBody
			if b, err = wire.DecodeBlock(q.Body); err == nil {
				err = r.block(&b, last)
				r.bodies = append(r.bodies, q.Body)
			}
			if err == nil && int32(q.Events) != b.NbObjects {
				err = fmt.Errorf("%d events, the block has %d", q.Events, b.NbObjects)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What a goroutine writes while it moves from one P to another lies in several lanes: the order of a block's events is not that of time.
	slices.SortStableFunc(r.logs, func(a, b entry) int { return cmp.Compare(a.Ticks, b.Ticks) })
	slices.SortStableFunc(r.values, func(a, b value) int { return cmp.Compare(a.Ticks, b.Ticks) })
	return r
}

func (r *received) block(b *wire.BlockBody, last map[telemetry.ID]telemetry.Block) error {
	s, ok := r.streams[b.StreamID]
	if !ok {
		return fmt.Errorf("block of stream %s, which is not registered", b.StreamID)
	}
	before, later := last[s.ID]
	if later && (b.BeginTicks != before.EndTicks || b.BeginTime != before.EndTime || b.ObjectOffset != before.ObjectOffset+int64(before.NbObjects)) {
		return fmt.Errorf("block %+v follows %+v", b.Block, before)
	}
	last[s.ID] = b.Block
	r.blocks = append(r.blocks, *b)
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		return err
	}
	clock, err := telemetry.NewClock(r.process, b.Block)
	if err != nil {
		return err
	}
	n := int32(0)
	switch s.Tags[0] {
	case "log":
		_, err = d.Logs(b, func(e *telemetry.LogEntry) error {
			n++
			r.logs = append(r.logs, entry{*e, clock.Time(e.Ticks), s.ID})
			r.logs[len(r.logs)-1].Msg = string([]byte(e.Msg))
			return nil
		})
	case "metrics":
		_, err = d.Measures(b, clock, func(m *telemetry.Measure) error {
			n++
			r.values = append(r.values, value{*m, clock.Time(m.Ticks)})
			return nil
		})
	default:
		_, err = d.Objects(b, func(i int, o *wire.Object) error {
			n++
			r.object(s, b, i, o)
			return nil
		})
	}
	if err == nil && n != b.NbObjects {
		err = fmt.Errorf("block has %d events, and says %d", n, b.NbObjects)
	}
	return err
}

func (r *received) object(s telemetry.Stream, b *wire.BlockBody, i int, o *wire.Object) {
	if s.Tags[0] == "image" {
		c := *o
		c.Fields = append([]wire.Field{}, o.Fields...)
		for k := range c.Fields {
			c.Fields[k].Value.Blob = append([]byte{}, o.Fields[k].Value.Blob...)
			c.Fields[k].Value.Text = string([]byte(o.Fields[k].Value.Text))
		}
		r.images = append(r.images, &c)
		return
	}
	e := edge{typ: o.Type, ticks: o.Field("time").Int(), event: b.ObjectOffset + int64(i), props: o.Field("properties").Properties}
	for _, f := range []string{"thread_span_desc", "span_desc"} {
		if d := o.Field(f).Object; d != nil {
			e.name = d.Field("name").Text
		}
	}
	if n := o.Field("name").Text; n != "" {
		e.name = n
	}
	e.span, e.parent, e.depth = o.Field("span_id").Uint(), o.Field("parent_span_id").Uint(), uint32(o.Field("depth").Uint())
	if v := o.Field("span"); v.Kind != wire.ValueNone {
		e.span = v.Uint()
	}
	r.spans[s.ID] = append(r.spans[s.ID], e)
}

// track returns the events of the track of a name.
func (r *received) track(name string) []edge {
	for id, s := range r.streams {
		for _, p := range s.Properties {
			if p.Key == "thread-name" && p.Value == name {
				return r.spans[id]
			}
		}
	}
	return nil
}

// begin starts the library with a collector.
func begin(t testing.TB, change func(*sdk.Config)) *collector {
	t.Helper()
	c := &collector{}
	cfg := sdk.Config{Sink: c}
	if change != nil {
		change(&cfg)
	}
	if err := sdk.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Stop(context.Background()) })
	return c
}

// end stops the library and reads what came.
func end(t testing.TB, c *collector) *received {
	t.Helper()
	if err := sdk.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !c.closed {
		t.Error("the sink is open")
	}
	return c.read(t)
}
