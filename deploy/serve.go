package deploy

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
)

func runServe(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	cfg := DefaultConfig()
	complete := bindConfig(fs, &cfg, os.Getenv)
	if err := parseFlags(fs, std, "serve [flags]", args); err != nil {
		return err
	}
	if err := complete(); err != nil {
		return err
	}
	s, err := Start(ctx, cfg, newLogger(std.err, cfg))
	if err != nil {
		return err
	}
	printAddresses(std.out, s)
	return waitAndStop(ctx, std, s)
}

// waitAndStop serves until ctx ends or a part fails, then drains.
func waitAndStop(ctx context.Context, std stdio, s *Stack) error {
	var failure error
	select {
	case <-ctx.Done():
		fmt.Fprintln(std.err, "draining; interrupt again to stop at once")
	case failure = <-s.Failed():
	}
	s.Stop(context.WithoutCancel(ctx))
	return failure
}

// printAddresses tells where the server listens; scripts read these lines, the last of which is "ready".
func printAddresses(w io.Writer, s *Stack) {
	fmt.Fprintf(w, "ingestion  http://%s\n", s.HTTPAddr())
	if addr := s.FlightAddr(); addr != "" {
		fmt.Fprintf(w, "sql        grpc://%s\n", addr)
	}
	fmt.Fprintf(w, "status     http://%s/status\n", s.HTTPAddr())
	fmt.Fprintf(w, "data       %s\n", s.cfg.DataDir)
	fmt.Fprintln(w, "ready")
}

func newLogger(w io.Writer, cfg Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
