package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Targets of Flush: who is asked.
const (
	TargetArchive = "archive" // the shard's archive
	TargetViews   = "views"   // the owner of its eager views
)

const (
	// defaultFlush is how long a flush takes at most when the caller's context has no deadline.
	defaultFlush = 2 * time.Second
	// flushAgain is how long an owner is given before the shard is asked once more, and longer each time. One that was killed with
	// the request in its hands never answers; whoever took over does, and one that only needs longer loses little: any answer counts.
	flushAgain = 500 * time.Millisecond
	// flushSoon is the pause after a repeated question that found no owner: the old one is gone, the new one is coming.
	flushSoon = 50 * time.Millisecond
)

// FlushRequest asks the owner of a shard to commit what a query is about to read.
type FlushRequest struct {
	Target     string
	Views      []string     // names of the views that are wanted; empty = all
	Begin, End int64        // range of event time, nanoseconds; 0, 0 = all
	Process    telemetry.ID // only rows of this process are wanted; zero = all
	Gen        int32        // of UpTo
	UpTo       uint64       // archive: wait until this sequence is archived; 0 = the head when the request came
}

// FlushReply says how far the owner came. Pending rows are in partitions when it comes.
type FlushReply struct {
	Shard
	Gen      int32
	Seq      uint64 // everything up to here is committed
	CommitNo int64  // views: the catalog's commit number that shows it
	Parked   int    // parked copies that meet the request
	Backlog  bool   // a backlog range meets the request: rows are missing that were acknowledged
	Err      string // why the owner could not do it; the caller warns
}

// flushMessage is a FlushRequest on its way. The time left travels, not the deadline: clocks differ.
type flushMessage struct {
	Views      []string `json:"views,omitempty"`
	Begin      int64    `json:"begin,omitempty"`
	End        int64    `json:"end,omitempty"`
	Process    []byte   `json:"process,omitempty"`
	Gen        int32    `json:"gen,omitempty"`
	UpTo       uint64   `json:"up_to,omitempty"`
	TimeLeftUs int64    `json:"time_left_us"`
}

// flushAnswer is a FlushReply on its way.
type flushAnswer struct {
	Gen      int32  `json:"gen"`
	Seq      uint64 `json:"seq"`
	CommitNo int64  `json:"commit_no,omitempty"`
	Parked   int    `json:"parked,omitempty"`
	Backlog  bool   `json:"backlog,omitempty"`
	Err      string `json:"err,omitempty"`
}

// flushSubject is where a shard's owner listens.
func flushSubject(target string, s Shard) string {
	return fmt.Sprintf("flush.%s.%s.%d", target, s.Class, s.Shard)
}

// Flush asks the owner of a shard and waits for its answer, asking again while there is none: the owner may have died over it.
// ErrNoOwner: nobody listens, which is known at once. ErrUnavailable: nobody answered in time.
func (b *Bus) Flush(ctx context.Context, name Shard, req FlushRequest) (FlushReply, error) {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultFlush)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		reply FlushReply
		err   error
	}
	results := make(chan result)
	ask := func() {
		reply, err := b.flushOnce(ctx, name, req)
		select {
		case results <- result{reply, err}:
		case <-ctx.Done():
		}
	}
	go ask()
	pause := flushAgain
	again := time.NewTimer(pause)
	defer again.Stop()
	for waiting := 1; ; {
		select {
		case r := <-results:
			if waiting--; waiting == 0 || r.err == nil && r.reply.Err == "" {
				return r.reply, r.err
			}
			if errors.Is(r.err, ErrNoOwner) {
				pause = flushAgain
				again.Reset(flushSoon)
			}
		case <-again.C:
			waiting++
			go ask()
			pause *= 2
			again.Reset(pause)
		case <-ctx.Done():
			return FlushReply{}, fmt.Errorf("flush %s of shard %s: %w: %w", req.Target, name, ErrUnavailable, ctx.Err())
		}
	}
}

// flushOnce asks once.
func (b *Bus) flushOnce(ctx context.Context, name Shard, req FlushRequest) (FlushReply, error) {
	deadline, _ := ctx.Deadline()
	m := flushMessage{
		Views: req.Views, Begin: req.Begin, End: req.End, Gen: req.Gen, UpTo: req.UpTo,
		TimeLeftUs: time.Until(deadline).Microseconds(),
	}
	if !req.Process.IsZero() {
		m.Process = req.Process[:]
	}
	data, err := json.Marshal(m)
	if err != nil {
		return FlushReply{}, fmt.Errorf("flush %s of shard %s: %w", req.Target, name, err)
	}
	msg, err := b.nc.RequestWithContext(ctx, flushSubject(req.Target, name), data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return FlushReply{}, fmt.Errorf("flush %s of shard %s: %w", req.Target, name, ErrNoOwner)
	case err != nil:
		return FlushReply{}, fmt.Errorf("flush %s of shard %s: %w: %w", req.Target, name, ErrUnavailable, err)
	}
	var a flushAnswer
	if err := json.Unmarshal(msg.Data, &a); err != nil {
		return FlushReply{}, fmt.Errorf("flush %s of shard %s: answer: %w", req.Target, name, err)
	}
	return FlushReply{
		Shard: name, Gen: a.Gen, Seq: a.Seq, CommitNo: a.CommitNo, Parked: a.Parked, Backlog: a.Backlog, Err: a.Err,
	}, nil
}

// flushServer answers the requests of one target and shard.
type flushServer struct {
	bus    *Bus
	target string
	shard  Shard
	handle func(context.Context, FlushRequest) FlushReply

	ctx      context.Context // ends with stop
	places   chan struct{}   // one token per running handler
	handlers sync.WaitGroup
}

// ServeFlush answers the requests of a target for a shard with h, which runs up to Config.MaxFlushes times at once; its
// context ends when the asker stops waiting, and at stop. stop returns when no h runs any more. Only the shard's owner
// may serve it.
func (b *Bus) ServeFlush(target string, name Shard, h func(context.Context, FlushRequest) FlushReply) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &flushServer{
		bus: b, target: target, shard: name, handle: h,
		ctx: ctx, places: make(chan struct{}, b.cfg.MaxFlushes),
	}
	// The subscription's own goroutine takes messages one by one, so the Add in accept is over when it has drained.
	sub, err := b.nc.Subscribe(flushSubject(target, name), f.accept)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("serve flush %s of shard %s: %w", target, name, err)
	}
	b.confirm(name)
	var once sync.Once
	return func() {
		once.Do(func() {
			_ = sub.Unsubscribe() // a connection that is gone has no subscriptions
			b.confirm(name)       // from now on askers hear at once that nobody owns the shard
			cancel()
			f.quit()
		})
	}, nil
}

// confirm waits until the server knows of a subscription, or of its end.
func (b *Bus) confirm(name Shard) {
	if err := b.nc.FlushTimeout(apiTimeout); err != nil {
		b.log.Debug("flush subscription not confirmed", "shard", name.String(), "error", err)
	}
}

// quit waits until no handler runs, by taking all their places for good.
func (f *flushServer) quit() {
	for range cap(f.places) {
		f.places <- struct{}{}
	}
	f.handlers.Wait()
}

// accept runs the handler for one request, in a goroutine of its own.
func (f *flushServer) accept(msg *nats.Msg) {
	var m flushMessage
	if err := json.Unmarshal(msg.Data, &m); err != nil || (len(m.Process) != 0 && len(m.Process) != len(telemetry.ID{})) {
		f.answer(msg, FlushReply{Err: "flush request not understood"})
		return
	}
	req := FlushRequest{Target: f.target, Views: m.Views, Begin: m.Begin, End: m.End, Gen: m.Gen, UpTo: m.UpTo}
	copy(req.Process[:], m.Process)
	select {
	case f.places <- struct{}{}:
	case <-f.ctx.Done():
		return
	default:
		f.answer(msg, FlushReply{Err: fmt.Sprintf("owner is busy with %d flush requests", cap(f.places))})
		return
	}
	f.handlers.Go(func() {
		defer func() { <-f.places }()
		ctx, cancel := context.WithTimeout(f.ctx, time.Duration(m.TimeLeftUs)*time.Microsecond)
		defer cancel()
		f.answer(msg, f.handle(ctx, req))
	})
}

func (f *flushServer) answer(msg *nats.Msg, r FlushReply) {
	data, err := json.Marshal(flushAnswer{Gen: r.Gen, Seq: r.Seq, CommitNo: r.CommitNo, Parked: r.Parked, Backlog: r.Backlog, Err: r.Err})
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil {
		f.bus.log.Warn("flush not answered", "target", f.target, "shard", f.shard.String(), "error", err)
	}
}
