package perfetto

import (
	"math"

	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
)

// Counter is a curve of the viewer: the values of a measure of a process.
type Counter struct {
	track *Track
}

// Counter introduces the curve of a measure by its name and its unit.
func (p *Process) Counter(name, unit string) Counter {
	t, made := p.track(seeded(p.uuid, "counter", name, unit), counted)
	if made {
		p.w.flushThreads()
		p.w.writeTrack(&tracepb.TrackDescriptor{
			Uuid: &t.uuid, Name: text(name), ParentUuid: &p.uuid,
			Counter: &tracepb.CounterDescriptor{UnitName: text(unit)},
		})
	}
	return Counter{t}
}

// Add writes a value, which stands until the next one. Values come in the order of time. Those that no curve can show, NaN
// and the infinite ones, are left out and counted.
func (c Counter) Add(t int64, value float64) error {
	w := c.track.process.w
	if w.err != nil {
		return w.err
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		w.stats.Skipped++
		return nil
	}
	w.flushThreads()
	w.event.fill(tracepb.TrackEvent_TYPE_COUNTER, c.track.uuid, t)
	w.event.value = value
	w.event.track.DoubleCounterValue = &w.event.value
	w.writePacket(&w.event.packet)
	w.event.track.DoubleCounterValue = nil
	return w.err
}
