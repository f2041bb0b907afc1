// Package perfettotest reads Perfetto traces for tests, by Perfetto's own messages rather than by the ones that wrote them.
package perfettotest

import (
	"bytes"
	"context"
	_ "embed" // check.py
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/pyclient"
)

//go:embed check.py
var script string

// timeout is how long reading one trace may take.
const timeout = 2 * time.Minute

// Trace is what a viewer shows of a trace.
type Trace struct {
	Errors   []string // what is wrong; Read fails the test for it
	Resets   int      // times that interned strings begin anew
	Packets  []Packet
	Tracks   []Track // in the order of their introduction
	Slices   []Slice // track by track, in the order of their begins
	Instants []Instant
	Values   []Value
}

// Packet is one packet as it was written.
type Packet struct {
	Flags      uint32
	Data       string // track_descriptor or track_event
	Introduces map[string][]uint64
	Type       int
	Time       int64
	Track      uint64
	Name       uint64 // of an interned string, as the following
	Category   []uint64
	Location   uint64
}

// Track is a process, a thread, a counter, or another track.
type Track struct {
	UUID   uint64
	Parent uint64
	Kind   string // process, thread, counter or track
	Name   string
	Pid    int32
	Tid    int64
	Unit   string
}

// Slice is a span on a track.
type Slice struct {
	Track      uint64
	Begin, End int64
	Depth      int
	Parent     string // name of the slice that it is in
	Name       string
	Category   string
	File       string
	Line       uint32
	Arguments  map[string]any
}

// Instant is an event without a duration.
type Instant struct {
	Track     uint64
	Time      int64
	Name      string
	Category  string
	Log       string // text in the viewer's log
	Priority  string
	JPEG      int // bytes of the picture
	Arguments map[string]any
}

// Value is a point of a counter's curve.
type Value struct {
	Track uint64
	Time  int64
	Value float64
}

// Read reads a trace, and fails the test if there is something wrong with it. It skips the test where there is no Python.
func Read(t testing.TB, trace []byte) *Trace {
	t.Helper()
	python := pyclient.Perfetto(t)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", script, "-")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(trace), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("read trace: %v\n%s", err, errs.Bytes())
	}
	var got Trace
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("read the checker's output: %v", err)
	}
	for _, e := range got.Errors {
		t.Errorf("trace: %s", e)
	}
	return &got
}

// TracksOf returns the tracks of a kind.
func (tr *Trace) TracksOf(kind string) []Track {
	var tracks []Track
	for _, t := range tr.Tracks {
		if t.Kind == kind {
			tracks = append(tracks, t)
		}
	}
	return tracks
}
