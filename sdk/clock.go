package sdk

import (
	"sort"
	"time"
)

// clock turns the ticks of events into nanoseconds since the process's start, which are the ticks of the protocol here, with a
// frequency of 1 GHz. The unit of ticks is not known beforehand: now and then both clocks are read, and an event lies on the line between the
// readings before and after it. So a rate that changes, and a first guess that is off, do not add up to anything; and as no line is prolonged
// beyond the readings that gave it, none is ever corrected: whenever two events are converted, the later one is not before the earlier.
//
// It is the recorder's alone.
type clock struct {
	start time.Time                 // a whole number of µs
	base  int64                     // nanotime at start
	both  func() (tick, nano int64) // readBoth

	readings []reading // the newest last; neither ticks nor nanoseconds ever decrease
	from, to reading   // the line in use, between two of them
	nsTick   float64   // and its rate
}

// reading is a moment on both clocks.
type reading struct {
	tick int64
	ns   int64 // since start
}

// maxReadings bounds what is kept for events that are taken late. A drain needs one or two, and at worst one for each track.
const maxReadings = 1024

// readBoth returns ticks and nanoseconds of one moment: of a few pairs of readings, the one with least between.
func readBoth() (tick, nano int64) {
	best := int64(1<<63 - 1)
	for range 5 {
		before := ticks()
		n := nanotime()
		after := ticks()
		if d := after - before; d >= 0 && d < best {
			best, tick, nano = d, before+d/2, n
		}
	}
	return tick, nano
}

func newClock() *clock {
	c := &clock{both: readBoth, nsTick: 1}
	tick, nano := c.both()
	now := time.Now()
	c.start = now.Truncate(time.Microsecond) // the precision of a catalog
	first := reading{tick, int64(now.Sub(c.start))}
	c.base = nano - first.ns
	c.begin(first)
	return c
}

// begin forgets all readings but one.
func (c *clock) begin(r reading) {
	c.readings = append(c.readings[:0], r)
	c.from, c.to = r, r
}

func (c *clock) last() reading { return c.readings[len(c.readings)-1] }

// read takes a reading and returns its nanoseconds since start. A counter that went back, as some do when the machine slept, begins anew from
// there.
func (c *clock) read() int64 {
	tick, nano := c.both()
	last := c.last()
	r := reading{tick, max(last.ns, nano-c.base)}
	switch {
	case r.tick < last.tick:
		c.begin(r)
	case r.tick > last.tick:
		if len(c.readings) == maxReadings {
			c.readings = c.readings[:copy(c.readings, c.readings[maxReadings/2:])]
		}
		c.readings = append(c.readings, r)
	}
	return c.last().ns
}

// ns returns the nanoseconds since start of an event's ticks. One later than the last reading has another one taken; one that is later even so,
// as another core's counter may be, is of that moment.
func (c *clock) ns(tick int64) int64 {
	if tick > c.last().tick {
		c.read()
	}
	if last := c.last(); tick >= last.tick {
		return last.ns
	}
	if tick < c.from.tick || tick >= c.to.tick {
		c.find(tick)
	}
	return c.from.ns + int64(float64(tick-c.from.tick)*c.nsTick)
}

// find takes up the line of ticks before the last reading. Those before the first one lie on the first line.
func (c *clock) find(tick int64) {
	i := sort.Search(len(c.readings), func(i int) bool { return c.readings[i].tick > tick })
	i = max(1, i)
	if i == len(c.readings) {
		c.from, c.to = c.readings[0], c.readings[0] // there is one only: the rate is that of before
		return
	}
	c.from, c.to = c.readings[i-1], c.readings[i]
	c.nsTick = float64(c.to.ns-c.from.ns) / float64(c.to.tick-c.from.tick)
}
