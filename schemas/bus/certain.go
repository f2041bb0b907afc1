package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What is certainly in a stream.
//
// A stream with one copy is asked for its last sequence, and that is the answer. A stream with several copies answers by
// its leader, and a leader that was deposed does not know it: cut off from the others, or stopped for a while and just
// going on, it says what was true before. Then a query would miss rows that were acknowledged.
//
// A lease does not help. The server says when the leader last heard from each follower (PeerInfo.Active), but that is when it
// took the follower's reply off its queue, which after a pause is long after the follower sent it; and a follower that hears
// from its leader votes for another candidate all the same, so a majority in touch does not exclude a second leader.
//
// So the log itself is asked, in rounds:
//
//  1. A barrier: a purge of nothing. The leader proposes it to the group and answers when a majority has stored it and it is
//     applied. Let m be a frame acknowledged before the barrier was sent. Whoever commits the barrier has m, and has applied
//     it: a leader without m has a log that a majority contradicts, and commits nothing any more. The same holds for the
//     leaders after it, which answer only when they have applied all that their log holds.
//  2. A look at the stream's state, after the barrier was answered. It must come from a leader, of which it tells since when
//     it leads (a reign), that has heard of a majority since the barrier was sent.
//
// If the leader of the barrier, or one after it, answers the look, the state holds m. Otherwise some L answers that was
// deposed before m was committed. A majority has voted against L by then, so whatever L still hears of it is either a
// refusal, upon which L steps down, or a reply that was sent before m was, and was on its way since: in L's own queues while L
// was stopped, or in a network that held it up. Both end at the moment when L goes on or the link heals, and what ends L's
// reign arrives at the same moment. So one reign must pass rounds that are settleTime apart, without a break in between in
// which a server might have been stopped for long enough to be deposed. For example, the leader L is stopped for 8 s:
//
//	round, before     L, reign 1: kept for ever, were it not for the break
//	barrier, then     committed by M
//	look, as L wakes  L, reign 1, having just heard what it was told 8 s ago: the break is too long, once more
//	round             M, reign 2: another reign, once more
//	round, later      M, reign 2: certain
//
// It costs a commit that stores no message, about what a small frame costs.

const (
	// lookTimeout bounds one question; a leader that is gone does not answer, and another one may be asked soon.
	lookTimeout = 500 * time.Millisecond
	// settleTime is how far apart two rounds of a reign must be: a server that goes on after a stop, or a link that heals,
	// takes milliseconds to hand over what has waited.
	settleTime = 25 * time.Millisecond
	// settleBreak is the longest break between rounds: no election is won in less than the server's minimum of 4 s after a
	// leader was heard, which is at most 2 s before its stop (idle leaders are heard every 1 to 2 s).
	settleBreak = time.Second
	// barrierSubject is no subject of any stream: what is purged of it is nothing.
	barrierSubject = "barrier"
)

var (
	errNoLeader = errors.New("no leader answers for the stream")
	errUnheard  = errors.New("the stream's leader does not hear a majority")
)

// reign is a leader's time, as it tells it itself.
type reign struct {
	leader string
	since  time.Time
}

// reigns is whose rounds a shard has seen last, without a break.
type reigns struct {
	mu          sync.Mutex
	last        reign
	first, seen time.Time // of its rounds
}

// passed notes a round of r that began at now, and says whether r has settled.
func (k *reigns) passed(r reign, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r != k.last || now.Sub(k.seen) > settleBreak {
		k.last, k.first = r, now
	}
	k.seen = now
	return now.Sub(k.first) >= settleTime
}

// certain returns the stream's state, whose LastSeq is no less than the sequence of any frame that was acknowledged before
// the call, whoever published it. It asks until ctx is done while nobody can tell.
func (b *Bus) certain(ctx context.Context, s *shard) (streamState, error) {
	if !s.copies.Load() {
		if st, err := b.askUntil(ctx, s); err != nil || !st.replicated {
			return st, err
		}
	}
	pause := time.Millisecond
	for {
		st, settled, err := b.round(ctx, s)
		b.fared(err)
		switch {
		case err == nil && settled:
			return st, nil
		case ctx.Err() != nil || b.ctx.Err() != nil:
			return st, errors.Join(context.Cause(ctx), err)
		case err == nil:
			b.pause(ctx, settleTime)
		case !transient(err):
			return st, err
		default:
			pause = b.pause(ctx, pause)
		}
	}
}

// askUntil asks for the stream's state until an answer comes.
func (b *Bus) askUntil(ctx context.Context, s *shard) (streamState, error) {
	pause := retryMin
	for {
		st, err := b.streamState(ctx, s)
		if err == nil || !transient(err) || ctx.Err() != nil || b.ctx.Err() != nil {
			return st, err
		}
		b.fared(err)
		pause = b.pause(ctx, pause)
	}
}

// round is a barrier and a look.
func (b *Bus) round(ctx context.Context, s *shard) (st streamState, settled bool, err error) {
	begun := time.Now()
	if err := b.barrier(ctx, s); err != nil {
		return st, false, fmt.Errorf("barrier of stream %s: %w", s.name, err)
	}
	took := time.Since(begun)
	st, err = b.streamState(ctx, s)
	switch {
	case err != nil:
		return st, false, err
	case !st.replicated:
		return st, true, nil
	case st.reign == reign{}:
		return st, false, fmt.Errorf("stream %s: %w", s.name, errNoLeader)
	case st.silence > took:
		return st, false, fmt.Errorf("stream %s: %w", s.name, errUnheard)
	}
	return st, s.reigns.passed(st.reign, begun), nil
}

// barrier returns when a leader has committed and applied everything that was acknowledged before.
func (b *Bus) barrier(ctx context.Context, s *shard) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	reply, err := b.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.PURGE."+s.name, barrierRequest)
	if err != nil {
		return err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Success bool                `json:"success"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return fmt.Errorf("answer not understood: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}

// barrierRequest names a subject that no message has, and a sequence that none is below: nothing is purged whichever of them
// a server looks at.
var barrierRequest = []byte(`{"filter":"` + barrierSubject + `","seq":1}`)

// reignOf returns who leads a stream of several copies by its own word, and how long ago it heard last of so many others that
// they are a majority with it. The reign is zero when whoever answered does not lead.
func reignOf(info *jetstream.StreamInfo) (r reign, silence time.Duration) {
	c := info.Cluster
	if c == nil || c.Leader == "" || c.LeaderSince == nil {
		return reign{}, 0
	}
	var heard []time.Duration
	for _, p := range c.Replicas {
		if p.Active > 0 { // 0: never
			heard = append(heard, p.Active)
		}
	}
	needed := (len(c.Replicas) + 1) / 2 // with the leader
	if len(heard) < needed || needed == 0 {
		return reign{}, 0
	}
	slices.Sort(heard)
	return reign{c.Leader, *c.LeaderSince}, heard[needed-1]
}

// transient says whether an error of the server or on the way to it may pass by itself: a leader is elected, a connection
// comes back. What a server refuses stays refused.
func transient(err error) bool {
	if refused, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch refused.ErrorCode {
		case 10004, // the cluster's answer is incomplete
			10008,        // JetStream is temporarily unavailable
			10009,        // the server does not lead any more
			10118, 10194, // the stream is offline
			10158: // a message with this id is on its way
			return true
		}
		return false
	}
	return errors.Is(err, errNoLeader) || errors.Is(err, errUnheard) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionReconnecting) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionDraining)
}
