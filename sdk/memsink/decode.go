package memsink

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
)

// Decoded is what a number of requests say.
type Decoded struct {
	Processes []telemetry.Process // in the order of their first registration
	Streams   []telemetry.Stream  // likewise
	Blocks    []wire.BlockBody    // in the order of the requests
}

// Decode decodes what the sink keeps.
func (s *Sink) Decode() (*Decoded, error) { return Decode(s.Requests()) }

// Decode decodes requests. The blocks alias the bodies.
func Decode(rs []sdk.Request) (*Decoded, error) {
	d := &Decoded{}
	for i, r := range rs {
		if err := d.add(r); err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
	}
	return d, nil
}

func (d *Decoded) add(r sdk.Request) error {
	switch r.Kind {
	case sdk.KindProcess:
		p, err := wire.DecodeProcess(r.Body)
		if _, ok := d.Process(p.ID); err == nil && !ok {
			d.Processes = append(d.Processes, p)
		}
		return err
	case sdk.KindStream:
		s, err := wire.DecodeStream(r.Body)
		if _, ok := d.Stream(s.ID); err == nil && !ok {
			d.Streams = append(d.Streams, s)
		}
		return err
	}
	b, err := wire.DecodeBlock(r.Body)
	if err == nil {
		d.Blocks = append(d.Blocks, b)
	}
	return err
}

// Process returns a registered process.
func (d *Decoded) Process(id telemetry.ID) (telemetry.Process, bool) {
	i := slices.IndexFunc(d.Processes, func(p telemetry.Process) bool { return p.ID == id })
	if i < 0 {
		return telemetry.Process{}, false
	}
	return d.Processes[i], true
}

// Stream returns a registered stream.
func (d *Decoded) Stream(id telemetry.ID) (telemetry.Stream, bool) {
	i := slices.IndexFunc(d.Streams, func(s telemetry.Stream) bool { return s.ID == id })
	if i < 0 {
		return telemetry.Stream{}, false
	}
	return d.Streams[i], true
}

// Log is a log entry that may be kept.
type Log struct {
	telemetry.LogEntry
	Time     int64 // ns
	StreamID telemetry.ID
}

// Measure is a measure that may be kept.
type Measure struct {
	telemetry.Measure
	Time     int64 // ns
	StreamID telemetry.ID
}

// Object is an event with all its members, which may be kept.
type Object struct {
	wire.Object
	Time     int64 // ns; 0 when the event has no member "time"
	StreamID telemetry.ID
}

// Logs returns the entries of all log streams in the order of their times, as a query shows them. In a block, what one goroutine wrote
// while it moved from one P to another may lie in another order.
func (d *Decoded) Logs() ([]Log, error) {
	var logs []Log
	err := d.each(telemetry.TagLog, func(dec *wire.Decoder, b *wire.BlockBody, c telemetry.Clock) error {
		_, err := dec.Logs(b, func(e *telemetry.LogEntry) error {
			l := Log{LogEntry: *e, Time: c.Time(e.Ticks), StreamID: b.StreamID}
			l.Msg = strings.Clone(l.Msg)
			logs = append(logs, l)
			return nil
		})
		return err
	})
	slices.SortStableFunc(logs, func(a, b Log) int { return cmp.Compare(a.Time, b.Time) })
	return logs, err
}

// Measures returns the measures of all metrics streams in the order of their times.
func (d *Decoded) Measures() ([]Measure, error) {
	var measures []Measure
	err := d.each(telemetry.TagMetrics, func(dec *wire.Decoder, b *wire.BlockBody, c telemetry.Clock) error {
		_, err := dec.Measures(b, c, func(m *telemetry.Measure) error {
			measures = append(measures, Measure{Measure: *m, Time: c.Time(m.Ticks), StreamID: b.StreamID})
			return nil
		})
		return err
	})
	slices.SortStableFunc(measures, func(a, b Measure) int { return cmp.Compare(a.Time, b.Time) })
	return measures, err
}

// Objects returns the events of all streams of a family, block after block: the edges of spans of telemetry.TagCPU, images of
// telemetry.TagImage.
func (d *Decoded) Objects(tag telemetry.Tag) ([]Object, error) {
	var objects []Object
	err := d.each(tag, func(dec *wire.Decoder, b *wire.BlockBody, c telemetry.Clock) error {
		_, err := dec.Objects(b, func(_ int, o *wire.Object) error {
			objects = append(objects, keep(o, b.StreamID, c))
			return nil
		})
		return err
	})
	return objects, err
}

// keep copies what the decoder will use again.
func keep(o *wire.Object, stream telemetry.ID, c telemetry.Clock) Object {
	k := Object{Object: wire.Object{Type: o.Type, Fields: slices.Clone(o.Fields)}, StreamID: stream}
	for i := range k.Fields {
		v := &k.Fields[i].Value
		v.Text, v.Blob = strings.Clone(v.Text), slices.Clone(v.Blob)
	}
	if t := k.Field("time"); t.Kind == wire.ValueI64 || t.Kind == wire.ValueU64 {
		k.Time = c.Time(t.Int())
	}
	return k
}

// each calls fn for the blocks of all streams of a family, with a decoder for their stream and the clock of their process. A block whose
// process or stream is not registered is an error.
func (d *Decoded) each(tag telemetry.Tag, fn func(*wire.Decoder, *wire.BlockBody, telemetry.Clock) error) error {
	decoders := map[telemetry.ID]*wire.Decoder{}
	for i := range d.Blocks {
		b := &d.Blocks[i]
		s, ok := d.Stream(b.StreamID)
		if !ok {
			return fmt.Errorf("block %s: stream %s is not registered", b.ID, b.StreamID)
		}
		if telemetry.TagOf(s.Tags) != tag {
			continue
		}
		p, ok := d.Process(b.ProcessID)
		if !ok {
			return fmt.Errorf("block %s: process %s is not registered", b.ID, b.ProcessID)
		}
		clock, err := telemetry.NewClock(p, b.Block)
		if err != nil {
			return fmt.Errorf("block %s: %w", b.ID, err)
		}
		dec := decoders[s.ID]
		if dec == nil {
			if dec, err = wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits); err != nil {
				return fmt.Errorf("stream %s: %w", s.ID, err)
			}
			decoders[s.ID] = dec
		}
		if err := fn(dec, b, clock); err != nil {
			return err
		}
	}
	return nil
}
