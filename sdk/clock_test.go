package sdk

import (
	"testing"
	"time"
)

// Times lie on the line through the last two readings, and never jump back when the counter does.
func TestClockFollowsItsReadings(t *testing.T) {
	c := &clock{nsTick: 1}
	for _, r := range []struct{ tick, ns, asked, want int64 }{
		{2000, 1000, 1500, 750},       // 2 GHz
		{2000, 1000, 2100, 1050},      // nothing new
		{5000, 2000, 3500, 1500},      // 3 GHz since
		{100, 9000, 130, 9010},        // it began anew, at the rate of before
		{400, 9100, 250, 9050},        // and goes on
		{300, 9050, 300, 9100},        // a little back: time stands still
		{10_300, 19_100, 5300, 14100}, // 1 GHz
	} {
		c.advance(r.tick, r.ns)
		if got := c.ns(r.asked); got != r.want {
			t.Errorf("after %d at %d: tick %d is at %d, not %d", r.tick, r.ns, r.asked, got, r.want)
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
