package sdk

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fakeClock returns a clock whose readings are those set.
func fakeClock() (c *clock, set func(tick, nano int64)) {
	var tick, nano int64
	c = &clock{both: func() (int64, int64) { return tick, nano }, nsTick: 1}
	c.begin(reading{})
	return c, func(t, n int64) { tick, nano = t, n }
}

func TestClockFollowsItsReadings(t *testing.T) {
	c, set := fakeClock()
	for _, r := range []struct{ tick, ns, asked, want int64 }{
		{2000, 1000, 1500, 750},       // 2 GHz
		{2000, 1000, 2000, 1000},      // nothing new
		{2000, 1000, 2100, 1000},      // later than now, as by another core's counter
		{5000, 2000, 3500, 1500},      // 3 GHz since
		{6000, 2500, 1500, 750},       // an event that is taken late
		{6000, 2500, -100, -50},       // and one before the first reading
		{100, 9000, 90, 8995},         // it began anew, at the rate of before
		{400, 9100, 250, 9050},        // and goes on
		{300, 9050, 300, 9100},        // a little back: time stands still
		{10_300, 19_100, 5300, 14100}, // 1 GHz
	} {
		set(r.tick, r.ns)
		c.read()
		if got := c.ns(r.asked); got != r.want {
			t.Errorf("after %d at %d: tick %d is at %d, not %d", r.tick, r.ns, r.asked, got, r.want)
		}
	}
}

func TestClockReadsForLaterEvents(t *testing.T) {
	c, set := fakeClock()
	set(2000, 1000)
	c.read()
	set(4000, 5000)
	if got := c.ns(3000); got != 3000 {
		t.Errorf("an event between the last reading and now is at %d, not 3000", got)
	}
}

// Events are taken in any order, some before a reading is, some long after; what was said of one does not change, and all are in order.
func TestClockIsMonotone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	c, set := fakeClock()
	said := map[int64]int64{}
	var tick, nano int64
	for range 20_000 {
		dt := 1 + rnd.Int64N(1_000_000)
		tick += dt
		nano += dt*int64(200+rnd.IntN(400))/1000 + rnd.Int64N(30) // 1.7 to 5 GHz, read with an error
		set(tick, nano)
		for range rnd.IntN(4) {
			asked := max(1, tick-rnd.Int64N(3_000_000))
			ns := c.ns(asked)
			if was, ok := said[asked]; ok && was != ns {
				t.Fatalf("tick %d was at %d and is at %d", asked, was, ns)
			}
			said[asked] = ns
		}
		if n := len(c.readings); n > maxReadings {
			t.Fatalf("%d readings are kept", n)
		}
	}
	var asked []int64
	for tick := range said {
		asked = append(asked, tick)
	}
	slices.Sort(asked)
	for i, tick := range asked[1:] {
		if said[tick] < said[asked[i]] {
			t.Fatalf("tick %d is at %d, and the later %d at %d", asked[i], said[asked[i]], tick, said[tick])
		}
	}
}

func TestClockKeepsUpWithTime(t *testing.T) {
	c := newClock()
	for range 20 {
		c.read()
	}
	begin := time.Now()
	for time.Since(begin) < 20*time.Millisecond {
		c.read()
	}
	before := time.Now()
	at := c.ns(ticks())
	after := time.Now()
	const slack = int64(time.Millisecond)
	if at < before.Sub(c.start).Nanoseconds()-slack || at > after.Sub(c.start).Nanoseconds()+slack {
		t.Errorf("%d ns since the start, which was %v ago", at, after.Sub(c.start))
	}
}
