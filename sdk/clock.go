package sdk

import "time"

// clock turns the ticks of events into nanoseconds since the process's start, which are the ticks of the protocol here, with a
// frequency of 1 GHz. The unit of ticks is not known beforehand: each time the recorder takes events it reads both clocks, and events lie on the
// line through the last two readings. So a rate that changes, and a first guess that is off, do not add up to anything.
type clock struct {
	start  time.Time // a whole number of µs
	base   int64     // nanotime at start
	tick   int64     // the last reading,
	at     int64     // its nanoseconds since start,
	nsTick float64   // and the nanoseconds a tick, between it and the one before
}

// readBoth returns ticks and nanoseconds of one moment: of a few pairs of readings, the one with least between.
func readBoth() (tick, ns int64) {
	best := int64(1<<63 - 1)
	for range 5 {
		before := ticks()
		n := nanotime()
		after := ticks()
		if d := after - before; d >= 0 && d < best {
			best, tick, ns = d, before+d/2, n
		}
	}
	return tick, ns
}

func newClock() *clock {
	c := &clock{nsTick: 1}
	c.tick, c.base = readBoth()
	now := time.Now()
	c.start = now.Truncate(time.Microsecond) // the precision of a catalog
	c.base -= int64(now.Sub(c.start))
	c.at = int64(now.Sub(c.start))
	return c
}

// read takes a reading and returns its nanoseconds since start.
func (c *clock) read() int64 {
	tick, ns := readBoth()
	return c.advance(tick, ns-c.base)
}

// advance makes a reading the last one. A counter that went back, as some do when the machine slept, begins anew from there.
func (c *clock) advance(tick, ns int64) int64 {
	switch {
	case tick > c.tick && ns > c.at:
		c.nsTick = float64(ns-c.at) / float64(tick-c.tick)
		c.tick, c.at = tick, ns
	case tick < c.tick:
		c.tick, c.at = tick, max(c.at, ns)
	}
	return c.at
}

// ns returns the nanoseconds since start of an event's ticks.
func (c *clock) ns(tick int64) int64 { return c.at + int64(float64(tick-c.tick)*c.nsTick) }
