package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

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
	// flushAgain is how long an asker waits before it asks again: the owner may have died, or left when the request was on its
	// way, which nobody tells. An owner that is at work on the request knows it by its id.
	flushAgain = 250 * time.Millisecond
	// ownerNews is how long the servers of a cluster may take to tell one another of a new owner.
	ownerNews = 50 * time.Millisecond
	// handOver is how long an asker whose owner has left waits for the next one, which comes within a second when the old one
	// was told to end.
	handOver = time.Second
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
	ID         string   `json:"id,omitempty"` // the same when it is asked again
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

// Flush asks the owner of a shard and waits for its answer. ErrNoOwner: nobody listens, which is known at once, or soon when
// the owner dies at work. ErrUnavailable: the owner did not answer in time. An owner may be asked the same twice.
func (b *Bus) Flush(ctx context.Context, name Shard, req FlushRequest) (FlushReply, error) {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultFlush)
		defer cancel()
	}
	deadline, _ := ctx.Deadline()
	m := flushMessage{ID: nuid.Next(), Views: req.Views, Begin: req.Begin, End: req.End, Gen: req.Gen, UpTo: req.UpTo}
	if !req.Process.IsZero() {
		m.Process = req.Process[:]
	}
	var msg *nats.Msg
	var err error
	var until time.Time // an owner is waited for
	if b.clustered() {
		until = time.Now().Add(ownerNews)
	}
	for msg == nil {
		m.TimeLeftUs = time.Until(deadline).Microseconds()
		msg, err = b.askOwner(ctx, flushSubject(req.Target, name), &m)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil: // there is one, or was
			until = time.Now().Add(handOver)
		case errors.Is(err, nats.ErrNoResponders) && time.Now().Before(until) && ctx.Err() == nil:
			b.pause(ctx, ownerNews)
		case errors.Is(err, nats.ErrNoResponders):
			return FlushReply{}, fmt.Errorf("flush %s of shard %s: %w", req.Target, name, ErrNoOwner)
		case err != nil:
			return FlushReply{}, fmt.Errorf("flush %s of shard %s: %w: %w", req.Target, name, ErrUnavailable, err)
		}
	}
	var a flushAnswer
	if err := json.Unmarshal(msg.Data, &a); err != nil {
		return FlushReply{}, fmt.Errorf("flush %s of shard %s: answer: %w", req.Target, name, err)
	}
	return FlushReply{
		Shard: name, Gen: a.Gen, Seq: a.Seq, CommitNo: a.CommitNo, Parked: a.Parked, Backlog: a.Backlog, Err: a.Err,
	}, nil
}

// askOwner asks once.
func (b *Bus) askOwner(ctx context.Context, subject string, m *flushMessage) (*nats.Msg, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, flushAgain)
	defer cancel()
	return b.nc.RequestWithContext(ctx, subject, data)
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

	mu     sync.Mutex
	atWork map[string]*nats.Msg // by the request's id, as it was asked last: what the handlers answer
}

// ServeFlush answers the requests of a target for a shard with h, which runs up to Config.MaxFlushes times at once; its
// context ends when the asker stops waiting, and at stop. stop returns when no h runs any more. Only the shard's owner
// may serve it.
func (b *Bus) ServeFlush(target string, name Shard, h func(context.Context, FlushRequest) FlushReply) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &flushServer{
		bus: b, target: target, shard: name, handle: h,
		ctx: ctx, places: make(chan struct{}, b.cfg.MaxFlushes), atWork: map[string]*nats.Msg{},
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
	if f.knows(m.ID, msg) {
		return
	}
	select {
	case f.places <- struct{}{}:
	case <-f.ctx.Done():
		return
	default:
		f.answer(msg, FlushReply{Err: fmt.Sprintf("owner is busy with %d flush requests", cap(f.places))})
		return
	}
	f.begin(m.ID, msg)
	f.handlers.Go(func() {
		defer func() { <-f.places }()
		ctx, cancel := context.WithTimeout(f.ctx, time.Duration(m.TimeLeftUs)*time.Microsecond)
		defer cancel()
		reply := f.handle(ctx, req)
		f.answer(f.end(m.ID, msg), reply)
	})
}

// knows says whether a handler is at work on a request, and notes where it was asked for last.
func (f *flushServer) knows(id string, msg *nats.Msg) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.atWork[id]; !known {
		return false
	}
	f.atWork[id] = msg
	return true
}

// begin notes that a handler begins to work on a request.
func (f *flushServer) begin(id string, msg *nats.Msg) {
	if id == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.atWork[id] = msg
}

// end returns what the handler of a request, that came first as msg, shall answer.
func (f *flushServer) end(id string, msg *nats.Msg) *nats.Msg {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.atWork[id]; last != nil {
		msg = last
	}
	delete(f.atWork, id)
	return msg
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
