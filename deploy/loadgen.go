package deploy

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// loadTags are the families of streams that loadgen has blocks of.
var loadTags = map[string]telemetry.Tag{"log": telemetry.TagLog, "metrics": telemetry.TagMetrics, "cpu": telemetry.TagCPU}

func runLoadgen(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	url := fs.String("url", envOr("MICROMEGAS_TELEMETRY_URL", "http://127.0.0.1:9000"), "base `URL` of the ingestion service (MICROMEGAS_TELEMETRY_URL)")
	key := fs.String("key", os.Getenv("MICROMEGAS_INGESTION_API_KEY"), "API `key` (MICROMEGAS_INGESTION_API_KEY)")
	processes := fs.Int("processes", 16, "processes to play")
	rate := fs.Float64("rate", 0, "`events` a second; 0 is as fast as the server answers")
	duration := fs.Duration("duration", 10*time.Second, "how long to send; 0 is until --blocks")
	blocks := fs.Int64("blocks", 0, "stop after as many `blocks`; 0 is no limit")
	connections := fs.Int("connections", 32, "requests in flight")
	mix := fs.String("mix", "log,metrics,cpu", "families of blocks, a family as often as wanted")
	varying := fs.Bool("varying", false, "give each message a suffix of its own, so that storage is not flattered")
	captured := fs.Bool("captured-times", false, "keep the recorded times instead of beginning now")
	seed := fs.Uint64("seed", 0, "make ids repeatable; 0 is random")
	asJSON := fs.Bool("json", false, "print the report as JSON")
	if err := parseFlags(fs, std, "loadgen [flags]", args); err != nil {
		return err
	}
	cfg := loadgen.Config{Processes: *processes, Varying: *varying, Seed: *seed}
	if !*captured {
		cfg.Start = time.Now().UnixNano()
	}
	for name := range strings.SplitSeq(*mix, ",") {
		tag, ok := loadTags[name]
		if !ok {
			return fmt.Errorf("--mix names %q: the families are log, metrics, cpu", name)
		}
		cfg.Mix = append(cfg.Mix, tag)
	}
	load, err := loadgen.New(cfg)
	if err != nil {
		return err
	}
	report, err := loadgen.Post(ctx, load, loadgen.PostConfig{
		URL: *url, Key: *key, Connections: *connections, Blocks: *blocks, Duration: *duration, EventsPerSecond: *rate,
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(std.out).Encode(report)
	}
	fmt.Fprintf(std.out, "acked %d events in %d blocks, %.0f events/s; ack p50 %v, p99 %v, max %v; %d retries, %d unavailable, %d given up\n",
		report.AckedEvents, report.AckedBlocks, report.EventsPerSecond(), report.P50, report.P99, report.Max, report.Retries, report.Unavailable, report.Failed)
	if report.Failed > 0 {
		return fmt.Errorf("%d requests were given up: %s", report.Failed, report.Error)
	}
	return nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
