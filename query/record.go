package query

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// maxLoggedStatement is how much of a statement's text goes to the log.
const maxLoggedStatement = 2 << 10

// counts are what Stats reports.
type counts struct {
	running, done, failed, cancelled, rows atomic.Int64
	nanoseconds                            atomic.Int64
}

func (c *counts) began() { c.running.Add(1) }

// Stats are the service's counts since its start, for /status.
type Stats struct {
	Running    int64   `json:"running"`
	Done       int64   `json:"done"`
	Failed     int64   `json:"failed"`
	Cancelled  int64   `json:"cancelled"`
	Rows       int64   `json:"rows"`
	Seconds    float64 `json:"seconds"` // of all ended queries together
	Partitions int     `json:"partitions"`
	CommitNo   int64   `json:"commit_no"`
}

// Stats returns the counts.
func (s *Service) Stats() Stats {
	live := s.index.current.Load()
	n := 0
	for _, v := range live.views {
		n += len(v.rows)
	}
	return Stats{
		Running:    s.counts.running.Load(),
		Done:       s.counts.done.Load(),
		Failed:     s.counts.failed.Load(),
		Cancelled:  s.counts.cancelled.Load(),
		Rows:       s.counts.rows.Load(),
		Seconds:    time.Duration(s.counts.nanoseconds.Load()).Seconds(),
		Partitions: n,
		CommitNo:   live.commitNo,
	}
}

// record counts an ended query and writes it to the log: failures that are ours as warnings, the rest for who debugs.
func (s *Service) record(r *run, err error) {
	took := time.Since(r.began)
	s.counts.running.Add(-1)
	s.counts.rows.Add(r.rows)
	s.counts.nanoseconds.Add(int64(took))
	level, outcome := slog.LevelDebug, "answered"
	var e *Error
	switch {
	case err == nil:
		s.counts.done.Add(1)
	case errors.As(err, &e) && e.Code == codes.Canceled:
		s.counts.cancelled.Add(1)
		outcome = "cancelled"
	default:
		s.counts.failed.Add(1)
		outcome = "refused"
		if e == nil || e.Code == codeInternal {
			level, outcome = slog.LevelWarn, "failed"
		}
	}
	ctx := context.Background()
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("outcome", outcome),
		slog.String("query_id", r.id), slog.Duration("took", took), slog.Int64("rows", r.rows),
		slog.String("sql", r.req.SQL[:min(len(r.req.SQL), maxLoggedStatement)]),
		slog.String("client", r.req.Client.Type), slog.String("user", r.req.Client.User), slog.String("address", r.req.Client.Address),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
		if e != nil && e.Err != nil {
			attrs = append(attrs, slog.Any("cause", e.Err))
		}
	}
	s.log.LogAttrs(ctx, level, "query ended", attrs...)
}
