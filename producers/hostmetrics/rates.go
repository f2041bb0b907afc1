package hostmetrics

import "time"

// rates turns counters into rates. A counter is known by a name; one that was not in the sample before begins anew, so that a device that
// comes back under the name of another is not compared with it.
type rates struct {
	at           time.Time
	elapsed      float64 // seconds since the sample before; 0 in the first one
	before, here map[string]uint64
}

func (r *rates) begin(now time.Time) {
	r.elapsed = 0
	if !r.at.IsZero() {
		r.elapsed = max(0, now.Sub(r.at).Seconds())
	}
	r.at, r.here = now, make(map[string]uint64, len(r.before))
}

func (r *rates) end() { r.before = r.here }

// delta returns what was counted since the sample before; false = nothing is known, or the counter went back.
func (r *rates) delta(name string, count uint64) (uint64, bool) {
	r.here[name] = count
	before, ok := r.before[name]
	if !ok || count < before {
		return 0, false
	}
	return count - before, true
}

// perSecond is delta in a second of what counts in units of unit.
func (r *rates) perSecond(name string, count uint64, unit float64) (float64, bool) {
	d, ok := r.delta(name, count)
	if !ok || r.elapsed == 0 {
		return 0, false
	}
	return float64(d) * unit / r.elapsed, true
}
