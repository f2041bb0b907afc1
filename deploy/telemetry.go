package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/httpsink"
	"github.com/micromegas-go/micromegas/sdk/runtimemetrics"
	"github.com/micromegas-go/micromegas/sdk/slogsink"
)

// A server can record itself with package sdk: its log, the numbers of /status and of Go's runtime as measures, and spans of what its stages do. They go to a
// gateway like those of any program, its own for one.
//
// Telemetry about telemetry stays bounded: the sdk posts by the clock, not by the event, so what a post makes the stages record, a few
// entries and spans, is part of the next post and makes no other; the gateway records no span of a post by its own process; and trouble with
// sending goes to the log of the process alone.

// Values of Config.Telemetry beside a URL.
const (
	telemetryOff  = "off"
	telemetrySelf = "self"
)

const (
	statusEvery     = 10 * time.Second // between two recordings of /status
	maxStatusValues = 1000             // of one recording
	telemetryGrace  = 3 * time.Second  // for the last posts
)

// startTelemetry begins to record this process.
func (s *Stack) startTelemetry(ctx context.Context) error {
	if s.cfg.Telemetry == "" || s.cfg.Telemetry == telemetryOff {
		return nil
	}
	cfg, err := s.telemetrySink()
	if err != nil {
		return err
	}
	cfg.Delivery.OnError = func(err error) { s.plain.Warn("own telemetry not sent", "err", err) }
	sink, err := httpsink.New(cfg)
	if err != nil {
		return err
	}
	err = sdk.Start(ctx, sdk.Config{
		Sink: sink, Exe: "micromegas", Level: slogsink.LevelOf(s.cfg.LogLevel),
		Properties: map[string]string{"service": "micromegas", "roles": joinRoles(s.cfg.Roles), "name": s.name},
	})
	if err != nil {
		return errors.Join(err, sink.Close(ctx))
	}
	s.stopMetrics = runtimemetrics.Start(runtimemetrics.Options{})
	s.log.Info("recording itself", "process_id", sdk.ProcessID(), "url", cfg.URL)
	s.goPart("telemetry", s.recordStatus)
	return nil
}

// telemetrySink says where own telemetry goes.
func (s *Stack) telemetrySink() (httpsink.Config, error) {
	if s.cfg.Telemetry != telemetrySelf {
		cfg, err := httpsink.FromEnv()
		if err != nil && !errors.Is(err, httpsink.ErrNoURL) {
			return cfg, err
		}
		if errors.Is(err, httpsink.ErrNoURL) {
			cfg = httpsink.DefaultConfig()
		}
		cfg.URL = s.cfg.Telemetry
		return cfg, nil
	}
	cfg := httpsink.DefaultConfig()
	host, port, err := net.SplitHostPort(s.HTTPAddr())
	if err != nil {
		return cfg, fmt.Errorf("address of the own gateway: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	cfg.URL = "http://" + net.JoinHostPort(host, port)
	if s.cfg.APIKeys != "" {
		var keys []struct{ Key string }
		if err := json.Unmarshal([]byte(s.cfg.APIKeys), &keys); err != nil || len(keys) == 0 {
			return cfg, errors.New("no key for the own gateway") // keys were read before: this does not happen
		}
		cfg.Key = httpsink.Secret(keys[0].Key)
	}
	return cfg, nil
}

// stopTelemetry sends what is recorded, while the gateway still takes it.
func (s *Stack) stopTelemetry(ctx context.Context) {
	if s.stopMetrics == nil {
		return
	}
	s.stopMetrics()
	s.stopMetrics = nil
	s.stopPart(ctx, "telemetry")
	ctx, cancel := context.WithTimeout(ctx, telemetryGrace)
	defer cancel()
	if err := sdk.Stop(ctx); err != nil {
		s.plain.Warn("own telemetry not sent to its end", "err", err)
	}
}

// recordStatus records the numbers of /status, again and again.
func (s *Stack) recordStatus(ctx context.Context) error {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for {
		s.recordStatusOnce(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (s *Stack) recordStatusOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	data, err := json.Marshal(s.status(ctx))
	if err != nil {
		s.plain.Warn("own status not recorded", "err", err)
		return
	}
	var st map[string]any
	if err := json.Unmarshal(data, &st); err != nil {
		s.plain.Warn("own status not recorded", "err", err)
		return
	}
	left := maxStatusValues
	recordNumbers("status", nil, st, &left)
}

// recordNumbers records the numbers in a JSON value under the names of their paths: those of an object below its name, those of the elements
// of an array under the same names, with properties that say which element, as far as class and shard do.
func recordNumbers(name string, props *sdk.Properties, v any, left *int) {
	switch v := v.(type) {
	case float64:
		if *left--; *left >= 0 {
			sdk.NewFloat(name, unitOf(name), sdk.Target("micromegas/status")).With(props).Record(v)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			recordNumbers(name+"."+key, props, v[key], left)
		}
	case []any:
		for _, e := range v {
			if m, ok := e.(map[string]any); ok {
				recordNumbers(name, props.And(whichShard(m)...), m, left)
			}
		}
	}
}

// whichShard takes what names an element of an array of shards out of it.
func whichShard(m map[string]any) (props []string) {
	for _, key := range []string{"class", "shard", "gen"} {
		if v, ok := m[key]; ok {
			props = append(props, key, fmt.Sprint(v))
			delete(m, key)
		}
	}
	return props
}

// unitOf returns the unit that the end of a name tells.
func unitOf(name string) string {
	for _, unit := range []string{"bytes", "seconds", "ms", "us", "ns"} {
		if strings.HasSuffix(name, "_"+unit) {
			return unit
		}
	}
	return "count"
}

// recorded returns a logger that also records what it logs, while the process records itself.
func recorded(log *slog.Logger) *slog.Logger {
	return slog.New(slog.NewMultiHandler(log.Handler(), slogsink.New(slogsink.Options{})))
}
