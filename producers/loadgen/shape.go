package loadgen

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// ShapeKind names how a rate goes over the time of a run.
type ShapeKind string

// The kinds of shapes.
const (
	Steady ShapeKind = "steady" // the same rate all the time
	Ramp   ShapeKind = "ramp"   // from one rate to another in a line
	Spike  ShapeKind = "spike"  // a low rate with bursts, whose mean is the rate asked for
)

// ShapeKinds lists the kinds of shapes.
func ShapeKinds() []ShapeKind { return []ShapeKind{Steady, Ramp, Spike} }

// Bounds of shapes.
const (
	MaxRate        = 1e9 // events a second
	MaxSpikeFactor = 77  // production has 57,700 events/s in the mean and bursts of 4.4 M/s
	MinSpikeFor    = time.Millisecond
	MaxSpikeEvery  = 24 * time.Hour
	maxRun         = 10 * 365 * 24 * time.Hour // what When answers at most
)

// What a spike is unless it is said.
const (
	defaultSpikeFactor = 10
	defaultSpikeEvery  = 20 * time.Second // of runs without an end
	defaultSpikes      = 3                // of runs with one
	spikeShare         = 0.5              // of all events, that come in bursts
)

// Shape says how many events are due when. It is a value without state: Due is the whole of it. The zero value has no pace: everything
// is due at once.
type Shape struct {
	Kind ShapeKind // "" = steady
	// Rate is in events a second: of steady and spike the mean, of ramp the last. 0 = no pace, of steady only.
	Rate     float64
	From     float64       // rate at which a ramp begins
	Duration time.Duration // of the run; 0 = no end, which a ramp must have
	// A burst has SpikeFactor × Rate for SpikeFor in the middle of every SpikeEvery, so that the last of a run has time to be worked off.
	// Between bursts the rate is lowered so that the mean over SpikeEvery is Rate: that needs SpikeFactor × SpikeFor ≤ SpikeEvery, and
	// whole cycles in a run.
	SpikeFactor          float64
	SpikeFor, SpikeEvery time.Duration
}

// WithDefaults returns the shape with what was left away filled in: bursts of ten times the mean that hold half of all events, three in
// a run.
func (s Shape) WithDefaults() Shape {
	if s.Kind == "" {
		s.Kind = Steady
	}
	if s.Kind != Spike {
		return s
	}
	if s.SpikeFactor == 0 {
		s.SpikeFactor = defaultSpikeFactor
	}
	if s.SpikeEvery == 0 {
		s.SpikeEvery = defaultSpikeEvery
		if s.Duration > 0 {
			s.SpikeEvery = s.Duration / defaultSpikes
		}
	}
	if s.SpikeFor == 0 {
		s.SpikeFor = time.Duration(spikeShare * float64(s.SpikeEvery) / s.SpikeFactor)
	}
	return s
}

// Validate returns every mistake at once.
func (s Shape) Validate() error {
	var errs []error
	if s.Rate < 0 || s.Rate > MaxRate || math.IsNaN(s.Rate) {
		errs = append(errs, fmt.Errorf("rate %g is not within 0 and %g events/s", s.Rate, float64(MaxRate)))
	}
	if s.Duration < 0 {
		errs = append(errs, errors.New("duration is negative"))
	}
	switch s.Kind {
	case Steady:
	case Ramp:
		errs = append(errs, s.validateRamp()...)
	case Spike:
		errs = append(errs, s.validateSpike()...)
	default:
		errs = append(errs, fmt.Errorf("no shape %q: there are %v", s.Kind, ShapeKinds()))
	}
	if s.Kind != Steady && s.Rate == 0 {
		errs = append(errs, fmt.Errorf("a %s needs a rate", s.Kind))
	}
	return errors.Join(errs...)
}

func (s Shape) validateRamp() (errs []error) {
	if s.Duration == 0 {
		errs = append(errs, errors.New("a ramp needs a duration"))
	}
	if s.From < 0 || s.From > s.Rate || math.IsNaN(s.From) {
		errs = append(errs, fmt.Errorf("a ramp from %g events/s to %g does not rise from 0 or more", s.From, s.Rate))
	}
	return errs
}

func (s Shape) validateSpike() (errs []error) {
	if s.SpikeFactor < 1 || s.SpikeFactor > MaxSpikeFactor || math.IsNaN(s.SpikeFactor) {
		errs = append(errs, fmt.Errorf("spike factor %g is not within 1 and %d", s.SpikeFactor, MaxSpikeFactor))
	}
	if s.SpikeEvery <= 0 || s.SpikeEvery > MaxSpikeEvery {
		return append(errs, fmt.Errorf("spikes every %v: that is not within 0 and %v", s.SpikeEvery, MaxSpikeEvery))
	}
	switch {
	case s.SpikeFor < MinSpikeFor || s.SpikeFor >= s.SpikeEvery:
		errs = append(errs, fmt.Errorf("spikes of %v every %v: they are at least %v and shorter than what lies between", s.SpikeFor, s.SpikeEvery, MinSpikeFor))
	case s.SpikeFactor*float64(s.SpikeFor) > float64(s.SpikeEvery):
		errs = append(errs, fmt.Errorf("spikes of %g × the mean for %v every %v hold more than all events: they may last %v",
			s.SpikeFactor, s.SpikeFor, s.SpikeEvery, time.Duration(float64(s.SpikeEvery)/s.SpikeFactor)))
	}
	if rest := s.Duration - s.Duration.Round(s.SpikeEvery); rest.Abs() > time.Microsecond || s.Duration > 0 && s.Duration.Round(s.SpikeEvery) == 0 {
		errs = append(errs, fmt.Errorf("a run of %v does not hold whole cycles of %v: its mean would not be the rate", s.Duration, s.SpikeEvery))
	}
	return errs
}

// Paced reports whether events are due at certain times. Otherwise all are due at once, and Due and When do not apply.
func (s Shape) Paced() bool { return s.Rate > 0 }

// Due returns how many events are due in the first t of a run: the integral of the rate. It never falls as t grows.
func (s Shape) Due(t time.Duration) float64 {
	sec := max(0, t.Seconds())
	switch s.Kind {
	case Ramp:
		d := s.Duration.Seconds()
		in := min(sec, d)
		return s.From*in + (s.Rate-s.From)*in*in/(2*d) + s.Rate*(sec-in)
	case Spike:
		every, burst := s.SpikeEvery.Seconds(), s.SpikeFor.Seconds()
		quiet := every - burst
		low := s.Rate * (every - s.SpikeFactor*burst) / quiet
		cycles := max(0, t) / s.SpikeEvery
		in := (max(0, t) - cycles*s.SpikeEvery).Seconds()
		inBurst := min(max(0, in-quiet/2), burst)
		return float64(cycles)*s.Rate*every + max(0, low)*(in-inBurst) + s.SpikeFactor*s.Rate*inBurst
	default:
		return s.Rate * sec
	}
}

// When returns the first moment, to the nanosecond, at which that many events are due. after is a moment that is not later, such as
// the answer for fewer events: the search begins there.
func (s Shape) When(events float64, after time.Duration) time.Duration {
	low, step := after, time.Millisecond
	if s.Due(low) >= events {
		return low
	}
	for s.Due(low+step) < events {
		low += step
		step *= 2
		if low+step > maxRun {
			return maxRun
		}
	}
	// Due(low) < events <= Due(low+step), and Due never falls: halving keeps both.
	high := low + step
	for high-low > 1 {
		if mid := low + (high-low)/2; s.Due(mid) < events {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
