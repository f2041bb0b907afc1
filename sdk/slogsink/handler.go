// Package slogsink records what a program logs with log/slog as entries of package sdk:
//
//	slog.SetDefault(slog.New(slogsink.New(slogsink.Options{})))
//
// The attributes of a record become properties of the entry, those of groups under dotted keys ("request.method"); its place in the
// program becomes the entry's call site, and its context brings the ids of the span that it is in. The time is that at which the handler
// was called, as all events of a process are of one clock. Levels below slog.LevelDebug become sdk.Trace, those from slog.LevelError+4 on
// sdk.Fatal; the program goes on.
//
// The handler records nothing of its own, and logs nothing. A sink that logs through it would, of each of its failures, make one more entry
// to send: give sinks a logger that writes elsewhere.
package slogsink

import (
	"context"
	"log/slog"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

// Options change a handler.
type Options struct {
	// Target is that of all entries: the package whose code logs.
	Target string
}

// handler is immutable; WithAttrs and WithGroup make others.
type handler struct {
	target string
	sites  *sites
	prefix string               // of keys: the open groups, with a dot behind each
	props  []telemetry.Property // of WithAttrs
}

// New returns a handler that records with package sdk. Before sdk.Start and after sdk.Stop it is not enabled for any level.
func New(o Options) slog.Handler {
	return &handler{target: o.Target, sites: newSites(o.Target)}
}

// Enabled reports whether a record of the level may be recorded. Where the target is to be that of the package that logs, a level that at
// least one target records is enabled.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	l := LevelOf(level)
	return h.sites[l].Enabled() || h.target == "" && sdk.LevelEnabled(l)
}

// Handle records a record. The error is always nil: what has no room is counted, see sdk.Stats.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	s := scratches.Get().(*scratch)
	defer s.release()
	s.props = append(s.props, h.props...)
	r.Attrs(func(a slog.Attr) bool {
		s.add(h.prefix, a)
		return true
	})
	sdk.LogProps(ctx, r.PC, h.target, LevelOf(r.Level), r.Message, s.finish())
	return nil
}

// WithAttrs implements slog.Handler. The attributes are formatted here, once.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	s := &scratch{}
	for _, a := range attrs {
		s.add(h.prefix, a)
	}
	c := *h
	c.props = append(slices.Clip(h.props), s.finish()...)
	return &c
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

// LevelOf returns the level that entries of a level of log/slog have.
func LevelOf(l slog.Level) sdk.Level {
	switch {
	case l < slog.LevelDebug:
		return sdk.Trace
	case l < slog.LevelInfo:
		return sdk.Debug
	case l < slog.LevelWarn:
		return sdk.Info
	case l < slog.LevelError:
		return sdk.Warn
	case l < slog.LevelError+4:
		return sdk.Error
	}
	return sdk.Fatal
}

// sites say, by level and without a lock, whether a target records. They record nothing.
type sites [sdk.Trace + 1]*sdk.Log

func newSites(target string) *sites {
	var s sites
	for l := sdk.Fatal; l <= sdk.Trace; l++ {
		s[l] = sdk.NewLog(l, "", sdk.Target(target))
	}
	return &s
}
