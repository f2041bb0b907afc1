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

// ownerRetryInterval is the pause between two tries to reach a shard that nobody owns: its next owner may be taking it
// at this moment, after a start or a hand-over.
const ownerRetryInterval = 20 * time.Millisecond

// flush asks the owner of a shard, waiting for one to be there.
func flush(ctx context.Context, f Flusher, a ask) (bus.FlushReply, error) {
	for {
		reply, err := f.Flush(ctx, a.shard, a.req)
		if !errors.Is(err, bus.ErrNoOwner) {
			return reply, err
		}
		pause := time.NewTimer(ownerRetryInterval)
		select {
		case <-ctx.Done():
			pause.Stop()
			return reply, err
		case <-pause.C:
		}
	}
}

// freshen asks every owner to commit up to the bus position of now, and waits for all. What may be missing afterwards
// comes back as warnings.
func freshen(ctx context.Context, f Flusher, timeout time.Duration, list []ask) []string {
	if f == nil || len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found := make([]string, len(list))
	var wg sync.WaitGroup
	for i, a := range list {
		wg.Go(func() {
			reply, err := flush(ctx, f, a)
			found[i] = doubt(a, reply, err, timeout)
		})
	}
	wg.Wait()
	return slices.DeleteFunc(found, func(s string) bool { return s == "" })
}

// doubt says what an owner's answer leaves in doubt, or "".
func doubt(a ask, reply bus.FlushReply, err error, timeout time.Duration) string {
	subject := fmt.Sprintf("%s of shard %s", a.req.Target, a.shard)
	switch {
	case errors.Is(err, bus.ErrNoOwner):
		return subject + ": nobody owns it now, rows that came since its last commit may be missing"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s: no answer within %s, rows that came since its last commit may be missing", subject, timeout)
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
