package deploy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
)

// reportEvery is how often a producer prints its counts.
const reportEvery = 10 * time.Second

// producing is a command that records through package sdk until it is interrupted.
type producing struct {
	std      stdio
	log      *slog.Logger
	url, key *string
}

// newProducing adds the flags that say where a command sends to.
func newProducing(fs *flag.FlagSet, std stdio) *producing {
	return &producing{
		std: std, log: slog.New(slog.NewTextHandler(std.err, nil)),
		url: fs.String("url", envOr("MICROMEGAS_TELEMETRY_URL", "http://127.0.0.1:9000"), "base `URL` of the ingestion service (MICROMEGAS_TELEMETRY_URL)"),
		key: fs.String("key", os.Getenv("MICROMEGAS_INGESTION_API_KEY"), "API `key` (MICROMEGAS_INGESTION_API_KEY)"),
	}
}

// sink returns the sink of the flags; what they leave open is in the environment, as for every program with package sdk.
func (p *producing) sink() (*httpsink.Sink, error) {
	cfg, err := httpsink.FromEnv()
	if errors.Is(err, httpsink.ErrNoURL) {
		if err := os.Setenv("MICROMEGAS_TELEMETRY_URL", *p.url); err != nil { // the rest of the environment is read only with it
			return nil, err
		}
		cfg, err = httpsink.FromEnv()
	}
	if err != nil {
		return nil, err
	}
	cfg.URL, cfg.Key = *p.url, httpsink.Secret(*p.key)
	cfg.Delivery.OnError = func(err error) { p.log.Warn("cannot deliver, trying again", "error", err) }
	return httpsink.New(cfg)
}

// run starts the library, runs a producer until ctx ends, and delivers what it recorded. counts is what a line says of the producer.
func (p *producing) run(ctx context.Context, name string, producer func(context.Context) error, counts func() string) error {
	sink, err := p.sink()
	if err != nil {
		return err
	}
	cfg := sdk.Config{Sink: sink, Properties: map[string]string{"producer": name}}
	if os.Getenv("MICROMEGAS_LOG_LEVEL") == "" {
		cfg.Level = sdk.Trace
	}
	if err := sdk.Start(ctx, cfg); err != nil {
		return err
	}
	fmt.Fprintf(p.std.out, "sending to %s as process %s; interrupt to stop\n", *p.url, sdk.ProcessID())
	report := func() {
		s := sink.Stats()
		fmt.Fprintf(p.std.out, "%s; delivered %d events, %d bytes; %d requests wait; dropped %d events\n", counts(), s.Events, s.Bytes, s.Queued, droppedEvents(s))
	}
	done := make(chan error, 1)
	go func() { done <- producer(ctx) }()
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for running := true; running; {
		select {
		case err = <-done:
			running = false
		case <-ticker.C:
			report()
		}
	}
	err = errors.Join(err, sdk.Stop(context.WithoutCancel(ctx)))
	report()
	if n := droppedEvents(sink.Stats()); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d events were dropped: is the server at %s there, and is the key right?", n, *p.url))
	}
	return err
}

func droppedEvents(s sdk.SinkStats) (n int64) {
	for _, d := range s.Drops {
		n += d.Events
	}
	return n
}
