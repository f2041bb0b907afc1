package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// needs is what a statement reads, as far as its owners must commit it first.
type needs struct {
	views     []string       // eager views, as whole tables or as instances
	global    bool           // some view is read as a whole
	processes []telemetry.ID // whose instances are read
	archive   bool           // processes, streams or blocks are read
}

// addView notes that a view is read for one process, or as a whole.
func (n *needs) addView(name string, process *telemetry.ID) {
	if !slices.Contains(n.views, name) {
		n.views = append(n.views, name)
	}
	switch {
	case process == nil:
		n.global = true
	case !slices.Contains(n.processes, *process):
		n.processes = append(n.processes, *process)
	}
}

// ask is one request to the owner of a shard.
type ask struct {
	shard bus.Shard
	req   bus.FlushRequest
}

// asks lists the requests that bring everything in n up to date.
func (n *needs) asks(f Flusher, r *Range) []ask {
	var out []ask
	var begin, end int64
	if r != nil {
		begin, end = r.Begin, r.End
		if begin == 0 && end == 0 {
			end = 1 // 0, 0 means all of time on the bus
		}
	}
	for _, s := range f.Shards() {
		if n.global && s.Class == bus.Eager {
			out = append(out, ask{s, bus.FlushRequest{Target: bus.TargetViews, Views: n.views, Begin: begin, End: end}})
		}
		if n.archive {
			out = append(out, ask{s, bus.FlushRequest{Target: bus.TargetArchive}})
		}
	}
	if n.global {
		return out
	}
	for _, p := range n.processes {
		s := f.ShardOf(bus.Eager, p)
		out = append(out, ask{s, bus.FlushRequest{Target: bus.TargetViews, Views: n.views, Begin: begin, End: end, Process: p}})
	}
	return out
}

// Pauses between two tries to reach a shard that nobody owns, or whose owner stops: its next owner may be taking it at this
// moment, after a start, a hand-over, or a death.
const (
	ownerPauseMin = 20 * time.Millisecond
	ownerPauseMax = 100 * time.Millisecond
)

// flush asks the owner of a shard until one answers or ctx ends, and then returns the last failure.
func flush(ctx context.Context, f Flusher, a ask) (reply bus.FlushReply, err error) {
	for pause := ownerPauseMin; ; pause = min(2*pause, ownerPauseMax) {
		r, e := f.Flush(ctx, a.shard, a.req)
		if e == nil && r.Err == "" {
			return r, nil
		}
		if ctx.Err() == nil || err == nil && reply.Err == "" { // else the one before says more than that the time was over
			reply, err = r, e
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return reply, err
		case <-timer.C:
		}
	}
}

// freshen asks every owner to commit up to the bus position of now, and waits for all, at most until ctx ends. What may be
// missing afterwards comes back as warnings.
func freshen(ctx context.Context, f Flusher, list []ask) []string {
	if f == nil || len(list) == 0 {
		return nil
	}
	begun := time.Now()
	found := make([]string, len(list))
	var wg sync.WaitGroup
	for i, a := range list {
		wg.Go(func() {
			reply, err := flush(ctx, f, a)
			found[i] = doubt(a, reply, err, time.Since(begun))
		})
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(s string) bool { return s == "" })
}

// doubt says what an owner's answer leaves in doubt, or "".
func doubt(a ask, reply bus.FlushReply, err error, waited time.Duration) string {
	subject := fmt.Sprintf("%s of shard %s", a.req.Target, a.shard)
	switch {
	case errors.Is(err, bus.ErrNoOwner):
		return subject + ": nobody owns it now, rows that came since its last commit may be missing"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s: no answer within %s, rows that came since its last commit may be missing", subject, waited.Round(10*time.Millisecond))
	case err != nil:
		return fmt.Sprintf("%s: %v; rows that came since its last commit may be missing", subject, err)
	case reply.Err != "":
		return fmt.Sprintf("%s: %s; rows that came since its last commit may be missing", subject, reply.Err)
	case reply.Backlog:
		return subject + ": it is behind and works through a backlog, older rows may be missing"
	case reply.Parked > 0:
		return fmt.Sprintf("%s: %d blocks wait for the registration of their process or stream, their rows are missing", subject, reply.Parked)
	}
	return ""
}
