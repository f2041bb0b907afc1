package sdk

import (
	"math"
	"sync/atomic"
)

// IntMeasure is a call site of whole numbers, such as sizes and counts. Make it a package variable.
type IntMeasure struct{ site }

// FloatMeasure is a call site of numbers. Make it a package variable.
type FloatMeasure struct{ site }

// NewInt declares a measure. The unit is a word such as "bytes", "count" or "ms"; it stands in each row.
func NewInt(name, unit string, options ...SiteOption) *IntMeasure {
	m := &IntMeasure{site{kind: siteInt, text: name, unit: unit}}
	m.owner = m
	return registry.add(1, &m.site, options).(*IntMeasure)
}

// NewFloat declares a measure, as NewInt does.
func NewFloat(name, unit string, options ...SiteOption) *FloatMeasure {
	m := &FloatMeasure{site{kind: siteFloat, text: name, unit: unit}}
	m.owner = m
	return registry.add(1, &m.site, options).(*FloatMeasure)
}

// Record records a value. Negative ones count as 0: values are unsigned in the protocol.
func (m *IntMeasure) Record(v int64) {
	if m.on.Load() != 0 {
		record(&m.site, uint64(v))
	}
}

// Record records a value.
func (m *FloatMeasure) Record(v float64) {
	if m.on.Load() != 0 {
		record(&m.site, math.Float64bits(v))
	}
}

// record records a value without properties.
func record(s *site, bits uint64) {
	t := ticks()
	l := pin()
	at := l.used
	if at+3 > len(l.words) || s.on.Load() != 1 || int64(bits) < 0 {
		l.unpin()
		recordOdd(s, bits)
		return
	}
	w := l.words[at : at+3 : at+3]
	w[0], w[1], w[2] = s.head, uint64(t), bits
	l.release(3)
}

// With returns the measure with properties for its next value.
func (m *IntMeasure) With(p *Properties) IntWith { return IntWith{m, p} }

// With returns the measure with properties for its next value.
func (m *FloatMeasure) With(p *Properties) FloatWith { return FloatWith{m, p} }

// IntWith is a measure with properties.
type IntWith struct {
	m     *IntMeasure
	props *Properties
}

// FloatWith is a measure with properties.
type FloatWith struct {
	m     *FloatMeasure
	props *Properties
}

// Record is IntMeasure.Record with the properties.
func (w IntWith) Record(v int64) {
	if n := w.m.on.Load(); n != 0 {
		recordWith(kindInt, &w.m.site, n, w.props, uint64(max(0, v)))
	}
}

// Record is FloatMeasure.Record with the properties.
func (w FloatWith) Record(v float64) {
	if n := w.m.on.Load(); n != 0 {
		recordWith(kindFloat, &w.m.site, n, w.props, math.Float64bits(v))
	}
}

func recordWith(k kind, s *site, n uint32, props *Properties, bits uint64) {
	if n != 1 && !sampled(n) {
		return
	}
	l, w := writeWith(k, s.id, nil, props, 1)
	if w == nil {
		return
	}
	w[len(w)-1] = bits
	l.release(len(w))
}

// Counter counts. What was added is summed up, and recorded as an integer measure once a second, unless it is 0.
type Counter struct {
	site
	no int
}

// counters are all counters, by number, and what of each was recorded already.
var counters atomic.Pointer[[]*Counter]

// NewCounter declares a counter, as NewInt declares a measure.
func NewCounter(name, unit string, options ...SiteOption) *Counter {
	c := &Counter{site: site{kind: siteCounter, text: name, unit: unit}, no: -1}
	c.owner = c
	c = registry.add(1, &c.site, options).(*Counter)
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if c.no < 0 && c.depID != 0 {
		var all []*Counter
		if p := counters.Load(); p != nil {
			all = *p
		}
		c.no = len(all)
		grown := append(all, c)
		counters.Store(&grown)
	}
	return c
}

// Add adds n, which is not negative.
func (c *Counter) Add(n uint64) {
	if c.on.Load() == 0 {
		return
	}
	l := pin()
	if b := l.counters.Load(); b != nil && c.no < len(b.cells) {
		b.cells[c.no].add(n)
		l.unpin()
		return
	}
	l.unpin()
	c.addSlow(n)
}

// addSlow adds where the lane has no cell yet.
//
//go:noinline
func (c *Counter) addSlow(n uint64) {
	all := *counters.Load()
	b := &cellBlock{cells: make([]cell, max(64, 2*len(all)))}
	l := pin()
	defer l.unpin()
	if l == &noLane {
		drops.add(dropLane, 1)
		return
	}
	have := l.counters.Load()
	if have == nil || c.no >= len(have.cells) {
		b.older = have
		l.counters.Store(b)
		l.use()
		have = b
	}
	have.cells[c.no].add(n)
}

// sum returns all that was ever added.
func (c *Counter) sum() (n uint64) {
	for i := range lanesUsed.Load() {
		for b := lanes[i].counters.Load(); b != nil; b = b.older {
			if c.no < len(b.cells) {
				n += atomic.LoadUint64(&b.cells[c.no].n)
			}
		}
	}
	return n
}

// recordOdd records a value of a site that is sampled, or one with the sign bit set.
//
//go:noinline
func recordOdd(s *site, bits uint64) {
	if n := s.on.Load(); n == 0 || !sampled(n) {
		return
	}
	if s.kind == siteInt && int64(bits) < 0 {
		bits = 0
	}
	l, w := write(3)
	if w == nil {
		return
	}
	w[0], w[1], w[2] = s.head, uint64(ticks()), bits
	l.release(3)
}
