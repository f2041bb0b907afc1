package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Group commit. Each shard has one committer: it takes the records that wait, builds a frame, publishes it, and answers
// all of them with the one result; the records that came meanwhile make the next frame. So one synced write and one
// message serve whoever waits, and a lone record waits for nobody.
//
// The publishing goroutine computes the checksums and the record's fixed part; the committer only copies each body once,
// into the frame. Its one buffer is reused: the connection has copied it when the publish call returns.

// The stages of a waiting record. Its body may be touched by the committer from taken on.
const (
	requestWaiting int32 = iota
	requestTaken
	requestAbandoned // the publisher went away; the committer drops it
)

// request is a record that waits for its committer.
type request struct {
	head   recordHead
	stored []byte
	stage  atomic.Int32
	done   chan error // receives once, unless abandoned
}

func (r *request) size() int { return tableEntry + recordFixed + len(r.stored) }

// committer publishes one shard's frames. All fields but queue and stopped belong to its goroutine.
type committer struct {
	queue   chan *request
	stopped chan struct{} // closed when nothing will be answered any more
	pool    *sync.Pool    // of *request

	batch []*request
	carry *request // taken, did not fit the last frame
	frame []byte
	ids   frameIDs
}

func (c *committer) init(cfg Config) {
	c.queue = make(chan *request, cfg.MaxWaiting)
	c.stopped = make(chan struct{})
	c.pool = &sync.Pool{New: func() any { return &request{done: make(chan error, 1)} }}
	c.ids.prefix = nuid.Next() + "-"
}

// frameIDs makes the ids by which JetStream recognises a frame that is published again.
type frameIDs struct {
	prefix string
	count  uint64
}

func (f *frameIDs) next() string {
	f.count++
	return f.prefix + strconv.FormatUint(f.count, 36)
}

// Publish returns nil when r is durable on the shard of its process. After ErrUnavailable (or ctx's error) it may or may
// not be: whoever tries again may make a second copy. r is not changed and not kept; r.Body may be reused after return.
// The fields BodySize, CRC, Claim, Offset and Err of r are ignored.
func (b *Bus) Publish(ctx context.Context, class Class, r *Record) error {
	if class != Eager && class != Raw {
		return fmt.Errorf("publish %s %s: unknown %s", r.Kind, r.id(), class)
	}
	s := b.byShard[b.ShardOf(class, r.ProcessID)]
	rec := *r
	rec.Claim = ""
	rec.seal()
	begun := time.Now()
	if frameFixed+tableEntry+recordFixed+len(rec.Body) > b.cfg.MaxFrame {
		if err := b.claim(ctx, &rec); err != nil {
			return fmt.Errorf("publish %s %s: %w", r.Kind, r.id(), err)
		}
	}
	req := s.committer.pool.Get().(*request)
	req.head.encode(&rec)
	req.stored = rec.stored()
	req.stage.Store(requestWaiting)
	if err := s.committer.publish(ctx, req); err != nil {
		return fmt.Errorf("publish %s %s: %w", r.Kind, r.id(), err)
	}
	if rec.Claim != "" && older(begun, b.claimAge) {
		return fmt.Errorf("publish %s %s: its body was put more than %v ago and may be collected: %w", r.Kind, r.id(), b.claimAge, ErrUnavailable)
	}
	return nil
}

// claimAge is how long after an oversize body began to be put its record may be acknowledged. A process that was stopped in between for
// longer than a body of no record stays would promise one that was collected.
const claimAge = 20 * time.Minute

// older says whether more than d passed since a time, by the clock that says more: the one stands still while the machine sleeps, the
// other may be set.
func older(begun time.Time, d time.Duration) bool {
	return time.Since(begun) > d || time.Now().Round(0).Sub(begun.Round(0)) > d
}

// claim puts r's body into the object store.
func (b *Bus) claim(ctx context.Context, r *Record) error {
	if b.objects == nil {
		return fmt.Errorf("body of %d bytes, a frame holds %d: %w", len(r.Body), b.cfg.MaxFrame, ErrTooLarge)
	}
	r.Claim = ClaimKey(telemetry.NewID())
	if err := b.objects.Put(ctx, r.Claim, r.Body); err != nil {
		return fmt.Errorf("put body of %d bytes: %w: %w", len(r.Body), ErrUnavailable, err)
	}
	return nil
}

// LoadBody returns r's body: from the object store, verified, when it is claimed.
func (b *Bus) LoadBody(ctx context.Context, r *Record) ([]byte, error) {
	if r.Claim == "" {
		return r.Body, r.Err
	}
	if b.objects == nil {
		return nil, fmt.Errorf("claimed body %s: no object store", r.Claim)
	}
	body, err := b.objects.Get(ctx, r.Claim)
	if err != nil {
		return nil, fmt.Errorf("claimed body %s: %w", r.Claim, err)
	}
	if err := r.CheckBody(body); err != nil {
		return nil, err
	}
	return body, nil
}

// publish hands req to the committer and waits for its answer.
func (c *committer) publish(ctx context.Context, req *request) error {
	select {
	case c.queue <- req:
	case <-ctx.Done():
		c.release(req)
		return ctx.Err()
	case <-c.stopped:
		c.release(req)
		return ErrClosed
	}
	select {
	case err := <-req.done:
		c.release(req)
		return err
	case <-c.stopped: // the committer answered what it took before it stopped
		select {
		case err := <-req.done:
			return err
		default:
			return ErrClosed
		}
	case <-ctx.Done():
	}
	if req.stage.CompareAndSwap(requestWaiting, requestAbandoned) {
		return ctx.Err() // the committer releases it
	}
	// Its body is in use, and its answer is near: at most PublishTimeout away.
	err := <-req.done
	c.release(req)
	return err
}

// release gives req back; nobody else may hold it.
func (c *committer) release(req *request) {
	req.stored = nil
	c.pool.Put(req)
}

// take claims req for the committer, or releases it when its publisher went away.
func (c *committer) take(req *request) bool {
	if req.stage.CompareAndSwap(requestWaiting, requestTaken) {
		return true
	}
	c.release(req)
	return false
}

// commit runs the shard's committer until the Bus is closed.
func (b *Bus) commit(s *shard) {
	c := &s.committer
	defer func() {
		close(c.stopped)
		c.failWaiting(ErrClosed)
	}()
	for c.gather(b.ctx, b.cfg.MaxFrame) {
		c.build()
		err := b.publishFrame(s)
		s.count(len(c.batch), err)
		c.answer(err)
		if err != nil {
			// They would wait for the same silence. The publishers come back with a retry.
			c.failWaiting(err)
		}
	}
}

func (s *shard) count(records int, err error) {
	if err != nil {
		s.failures.Add(1)
		return
	}
	s.frames.Add(1)
	s.records.Add(int64(records))
}

// gather fills c.batch with the records that wait, as many as fit a frame; it waits for the first one. It returns false
// when ctx is done.
func (c *committer) gather(ctx context.Context, maxFrame int) bool {
	c.batch = c.batch[:0]
	size := frameFixed
	if c.carry != nil {
		c.batch = append(c.batch, c.carry)
		size += c.carry.size()
		c.carry = nil
	}
	for len(c.batch) == 0 {
		select {
		case req := <-c.queue:
			if c.take(req) {
				c.batch = append(c.batch, req)
				size += req.size()
			}
		case <-ctx.Done():
			return false
		}
	}
	for {
		select {
		case req := <-c.queue:
			if !c.take(req) {
				continue
			}
			if size += req.size(); size > maxFrame {
				c.carry = req
				return true
			}
			c.batch = append(c.batch, req)
		default:
			return true
		}
	}
}

// build writes the batch's frame.
func (c *committer) build() {
	frame, table := appendFrameHeader(c.frame[:0], len(c.batch))
	for i, req := range c.batch {
		frame = appendRecord(frame, table, i, &req.head, req.stored)
	}
	sealFrameHeader(frame, table, len(c.batch))
	c.frame = frame
}

// answer gives err to everyone in the batch.
func (c *committer) answer(err error) {
	for i, req := range c.batch {
		req.done <- err
		c.batch[i] = nil // the publisher releases it
	}
	c.batch = c.batch[:0]
}

// failWaiting answers everything that waits now.
func (c *committer) failWaiting(err error) {
	if c.carry != nil {
		c.carry.done <- err
		c.carry = nil
	}
	for range len(c.queue) {
		select {
		case req := <-c.queue:
			if c.take(req) {
				req.done <- err
			}
		default:
			return
		}
	}
}

// publishFrame publishes the committer's frame until it is acknowledged, refused, or out of time. It repeats under the
// same id when the connection is cut or nobody answers, so a frame that was stored without our hearing of it is not
// stored twice: not by the server that stored it, nor by the leader after it, which knows the ids that it has copies of.
func (b *Bus) publishFrame(s *shard) error {
	c := &s.committer
	msg := &nats.Msg{
		Subject: s.subject,
		Data:    c.frame,
		Header:  nats.Header{jetstream.MsgIDHeader: {c.ids.next()}, jetstream.ExpectedStreamHeader: {s.name}},
	}
	deadline := time.Now().Add(b.cfg.PublishTimeout)
	pause := retryMin
	for {
		err := b.tryPublish(s, msg, deadline)
		b.fared(err)
		if err == nil {
			return nil
		}
		if !retryable(err) || !time.Now().Add(pause).Before(deadline) {
			b.recheckSoon()
			return fmt.Errorf("frame of %d bytes to %s: %w: %w", len(msg.Data), s.subject, ErrUnavailable, err)
		}
		next := b.pause(context.Background(), pause)
		if b.ctx.Err() != nil {
			return fmt.Errorf("frame to %s: %w: %w", s.subject, ErrClosed, err)
		}
		pause = min(next, 10*retryMin)
	}
}

// ackTries is how often a frame is published within Config.PublishTimeout when nobody answers at all: a leader that steps
// down forgets what it had not committed, and nobody ever answers for it.
const ackTries = 4

// tryPublish publishes once; it gives up at its part of the time, at the deadline, or when the connection is cut.
func (b *Bus) tryPublish(s *shard, msg *nats.Msg, deadline time.Time) error {
	if now := time.Now(); b.clustered() && now.Add(b.cfg.PublishTimeout/ackTries).Before(deadline) {
		deadline = now.Add(b.cfg.PublishTimeout / ackTries)
	}
	ctx, cancel := context.WithDeadline(b.link.Load().ctx, deadline)
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	if err == nil && !s.advance(ack.Sequence) {
		err = fmt.Errorf("%w: it gives sequence %d once more", errWentBack, ack.Sequence)
	}
	return err
}

// errWentBack says that a stream has lost frames that were on it, and gives their sequences to others: it was brought back from a
// backup, or its machine fell before it was on disk. Archive passes by such frames, until the next check of the streams opens a new
// generation; none may be acknowledged.
var errWentBack = errors.New("the stream went back")

// advance notes that the stream gave a sequence to a frame, and returns false when that had been given before.
func (s *shard) advance(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq <= s.given {
		return false
	}
	s.given = seq
	return true
}

// retryable says whether publishing again, at once, can help: most refusals by JetStream stay refusals.
func retryable(err error) bool {
	var refused *jetstream.APIError
	return !errors.Is(err, errWentBack) && !errors.As(err, &refused) || transient(err)
}
