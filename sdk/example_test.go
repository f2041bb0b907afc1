package sdk_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

var (
	listening = sdk.NewLog(sdk.Info, "listening on %s")
	refused   = sdk.NewLog(sdk.Warn, "refused %s after %v: %s")
	latency   = sdk.NewFloat("request_latency", "ms")
	queued    = sdk.NewInt("queue_length", "count")
	served    = sdk.NewCounter("requests_served", "count")
	step      = sdk.NewSpan("step")
	physics   = sdk.NewSpan("physics")
	request   = sdk.NewSpan("request")
)

// A program sends to the gateway that MICROMEGAS_TELEMETRY_URL names.
func Example() {
	cfg, err := httpsink.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	sink, err := httpsink.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	if err := sdk.Start(context.Background(), sdk.Config{Sink: sink}); err != nil {
		log.Fatal(err)
	}
	defer sdk.Stop(context.Background())

	listening.Log(sdk.String("127.0.0.1:8080"))
	latency.Record(1.5)
	served.Add(1)
}

// A command that runs for a moment starts, works and stops; Stop waits until what was recorded is delivered, for 5 s at most. A signal ends
// the work, and so the program stops in the same way.
func Example_shortLived() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	sink := memsink.New(0)
	if err := sdk.Start(ctx, sdk.Config{Sink: sink, Exe: "import"}); err != nil {
		log.Fatal(err)
	}
	for i := 0; i < 3 && ctx.Err() == nil; i++ {
		queued.Record(int64(i))
	}
	if err := sdk.Stop(context.Background()); err != nil {
		log.Print(err)
	}
	got, err := sink.Decode()
	if err != nil {
		log.Fatal(err)
	}
	values, err := got.Measures()
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range values {
		fmt.Println(v.Name, v.Value, v.Unit)
	}
	// Output:
	// queue_length 0 count
	// queue_length 1 count
	// queue_length 2 count
}

// Arguments are stored as they are; the message is made later.
func ExampleLog_Log() {
	err := os.ErrDeadlineExceeded
	refused.Log(sdk.String("10.0.0.7:4555"), sdk.Duration(3*time.Second), sdk.Err(err))
}

// Properties stand in every row of an event. A set is made once.
func ExampleFloatMeasure_With() {
	route := sdk.Props("route", "/users/{id}", "method", "GET")
	latency.With(route).Record(12.5)
}

// A loop has a track; its spans nest as its calls do.
func ExampleNewTrack() {
	track := sdk.NewTrack("simulation")
	defer track.Close()
	for range 3 {
		func() {
			defer step.Begin(track).End()
			func() {
				defer physics.Begin(track).End()
			}()
		}()
	}
}

// Spans in contexts follow a request through goroutines and processes.
func ExampleSpan_Start() {
	handle := func(ctx context.Context, traceParent string) {
		ctx = sdk.WithTraceParent(ctx, traceParent) // as the caller sent it
		ctx, span := request.Start(ctx)
		defer span.End()
		span.SetText("user", "u-77")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, child := sdk.StartSpan(ctx, "look up")
			defer child.End()
			listening.LogIn(ctx, sdk.String("carries the ids of request"))
		}()
		<-done
	}
	handle(context.Background(), "")
}

// What is recorded can be changed while the program runs.
func ExampleSetTargetLevel() {
	sdk.SetLevel(sdk.Info)
	sdk.SetTargetLevel("example.com/game/net", sdk.Trace)
	latency.Sample(10) // one of ten
	sdk.SetSpans(false)
}
