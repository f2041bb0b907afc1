package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// testForgottenReaderRecovers deletes the server's record of a Reader whose caller waits in turns too short for
// heartbeats.
func testForgottenReaderRecovers(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	r := newReader(t, b, start(b, eager0), nil)
	read := func() (bus.Frame, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return r.Next(ctx)
	}
	if _, err := read(); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("empty stream: %v", err)
	}
	if err := r.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, b, telemetry.NewID(), 0, 1, 100)
	for range 200 {
		r.Distrust()
		f, err := read()
		if err == nil {
			if f.Seq != 1 {
				t.Fatalf("frame %s", f.Position)
			}
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	t.Fatal("the frame never came")
}
