package loadgen_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
)

// shapes are valid ones, with the mean over their duration.
var shapes = map[string]struct {
	loadgen.Shape
	mean float64
}{
	"steady":            {loadgen.Shape{Rate: 50_000, Duration: time.Minute}, 50_000},
	"ramp from nothing": {loadgen.Shape{Kind: loadgen.Ramp, Rate: 1e6, Duration: time.Minute}, 5e5},
	"ramp":              {loadgen.Shape{Kind: loadgen.Ramp, From: 1000, Rate: 3000, Duration: 10 * time.Second}, 2000},
	"spike as is":       {loadgen.Shape{Kind: loadgen.Spike, Rate: 57_700, Duration: 10 * time.Second}, 57_700},
	"spike as of production": {loadgen.Shape{
		Kind: loadgen.Spike, Rate: 57_700, Duration: time.Minute, SpikeFactor: 77, SpikeFor: 200 * time.Millisecond, SpikeEvery: 20 * time.Second,
	}, 57_700},
	"spike and nothing else": {loadgen.Shape{
		Kind: loadgen.Spike, Rate: 1000, Duration: 40 * time.Second, SpikeFactor: 10, SpikeFor: time.Second, SpikeEvery: 10 * time.Second,
	}, 1000},
}

func TestShapesHoldTheirMean(t *testing.T) {
	for name, c := range shapes {
		s := c.WithDefaults()
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		want := c.mean * c.Duration.Seconds()
		if got := s.Due(s.Duration); math.Abs(got-want) > want/1e6 {
			t.Errorf("%s: %.1f events in %v, want %.1f", name, got, s.Duration, want)
		}
		if got := s.Due(0); got != 0 {
			t.Errorf("%s: %g events are due at the start", name, got)
		}
	}
}

func TestShapesNeverFallAndWhenIsTheInverse(t *testing.T) {
	for name, c := range shapes {
		s := c.WithDefaults()
		var before float64
		var when time.Duration
		for at := time.Duration(0); at < 2*s.Duration; at += s.Duration / 997 {
			due := s.Due(at)
			if due < before {
				t.Fatalf("%s: %g events at %v after %g", name, due, at, before)
			}
			before = due
			when = s.When(due, when)
			if when > at {
				t.Fatalf("%s: %g events are due at %v, When says %v", name, due, at, when)
			}
			if got := s.Due(when); got < due || when > 0 && due > 0 && s.Due(when-1) >= due {
				t.Fatalf("%s: When says %v for %g events, when %g are due", name, when, due, got)
			}
		}
	}
}

func TestSpikeIsAsHighAsAsked(t *testing.T) {
	s := shapes["spike as of production"].Shape
	const burst = 10*time.Second + 100*time.Millisecond // its end
	if got := s.Due(burst) - s.Due(burst-50*time.Millisecond); math.Abs(got-77*57_700*0.05) > 1 {
		t.Errorf("%g events in 50 ms of a burst", got)
	}
	if got, low := s.Due(burst+5*time.Second)-s.Due(burst), 57_700*(20-77*0.2)/(20-0.2)*5; math.Abs(got-low) > 1 {
		t.Errorf("%g events in 5 s between bursts, want %g", got, low)
	}
}

func TestShapeMistakesAreReported(t *testing.T) {
	const sec = time.Second
	for want, s := range map[string]loadgen.Shape{
		"no shape":             {Kind: "zigzag", Rate: 1},
		"rate -1":              {Rate: -1},
		"a spike needs a rate": {Kind: loadgen.Spike},
		"needs a duration":     {Kind: loadgen.Ramp, Rate: 1},
		"does not rise":        {Kind: loadgen.Ramp, Rate: 1, From: 2, Duration: sec},
		"spike factor 78":      {Kind: loadgen.Spike, Rate: 1, SpikeFactor: 78, SpikeEvery: 100 * sec, SpikeFor: sec},
		"hold more than all":   {Kind: loadgen.Spike, Rate: 1, SpikeFactor: 11, SpikeEvery: 10 * sec, SpikeFor: sec},
		"whole cycles":         {Kind: loadgen.Spike, Rate: 1, SpikeEvery: 10 * sec, Duration: 25 * sec},
		"whole cycles of 10s":  {Kind: loadgen.Spike, Rate: 1, SpikeEvery: 10 * sec, Duration: 4 * sec},
		"at least 1ms":         {Kind: loadgen.Spike, Rate: 1, SpikeEvery: 10 * sec, SpikeFor: 1},
	} {
		if err := s.WithDefaults().Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}
