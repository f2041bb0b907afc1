package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// Bounds of Close.
const (
	// closeGrace is how long Close waits for attempts that it has cancelled.
	closeGrace = time.Second
	// maxClosingBackoff is the longest pause once Close was called: there is no later to spare the other end for.
	maxClosingBackoff = 500 * time.Millisecond
)

var _ sdk.Sink = (*Sink)(nil)

// Sink is a queue with goroutines that empty it. It must be closed when no longer needed.
type Sink struct {
	cfg    Config
	poster Poster
	errors reporter

	ctx    context.Context // of attempts
	cancel context.CancelFunc
	wg     sync.WaitGroup // workers and shelver
	done   chan struct{}  // closed when all have ended

	finished chan struct{} // closed when Close has settled or shelved everything

	hopeless chan struct{} // closed when an attempt of a sink with a shelf fails after Close has begun

	shelve chan struct{} // a token: look whether something has to go to the shelf

	mu      sync.Mutex
	wake    sync.Cond   // workers wait for something to do
	timer   *time.Timer // broadcasts wake when a pause is over
	queue   queue
	pause   pause
	closed  bool
	stopped bool // workers and shelver end
	ended   bool // farewell has been said: an attempt that ends now is too late
	gen     uint64
	pending map[uint64]int // requests in memory by the generation in which they were sent
	shelved int64          // requests on the shelf, those under way included
	diskErr bool           // the shelf failed the last time
	diskTry time.Time      // when it is tried again
	waiters []waiter
	stats   sdk.SinkStats // Queued, Spooled are made by Stats
	dropped int64         // sum of stats.Drops
}

// waiter is a Flush.
type waiter struct {
	gen  uint64
	done chan struct{}
}

// New returns a running sink over p.
func New(cfg Config, p Poster) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Sink{
		cfg: cfg, poster: p, errors: reporter{fn: cfg.OnError, interval: cfg.ErrorInterval},
		done: make(chan struct{}), finished: make(chan struct{}), hopeless: make(chan struct{}), shelve: make(chan struct{}, 1), pending: map[uint64]int{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wake.L = &s.mu
	s.timer = time.AfterFunc(time.Hour, s.alarm)
	for range cfg.MaxInFlight {
		s.wg.Go(s.work)
	}
	if cfg.Shelf != nil {
		s.wg.Go(s.shelver)
	}
	go func() {
		s.wg.Wait()
		close(s.done)
	}()
	return s, nil
}

// alarm wakes the workers when a pause is over.
func (s *Sink) alarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake.Broadcast()
}

// Send queues the request, or drops it.
func (s *Sink) Send(r sdk.Request) {
	if r.Class >= sdk.NumClasses {
		r.Class = sdk.NumClasses - 1
	}
	it := &item{Kept: Kept{Request: r, Since: time.Now()}}
	gone := s.enqueue(it)
	for _, it := range gone {
		s.settled(it)
	}
}

// enqueue returns what was dropped.
func (s *Sink) enqueue(it *item) (gone []*item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Sent++
	if s.closed {
		s.drop(&it.Request, sdk.DropClosed)
		return []*item{it}
	}
	gone, ok := s.queue.admit(it.Class, it.size(), s.cfg.SoftBytes, s.cfg.HardBytes)
	for _, v := range gone {
		s.leave(v)
		s.drop(&v.Request, s.noRoom())
	}
	if !ok {
		s.drop(&it.Request, s.noRoom())
		s.checkWaiters()
		return append(gone, it)
	}
	it.gen = s.gen
	s.pending[it.gen]++
	s.queue.lanes[it.Class].push(it)
	s.wake.Signal()
	if s.cfg.Shelf != nil && (s.pause.failures > 0 || s.queue.bytes() > s.cfg.ShelveBytes) {
		s.pokeShelver()
	}
	s.checkWaiters()
	return gone
}

// noRoom is the reason of what is dropped for want of room: with a shelf behind, room only runs out because of the shelf.
func (s *Sink) noRoom() sdk.DropReason {
	if s.diskErr {
		return sdk.DropDisk
	}
	return sdk.DropQueueFull
}

func (s *Sink) settled(it *item) {
	if s.cfg.Settled != nil && !it.shelved {
		s.cfg.Settled(&it.Request)
	}
}

// drop counts a request as dropped.
func (s *Sink) drop(r *sdk.Request, why sdk.DropReason) {
	s.dropMany(sdk.Drop{Class: r.Class, Reason: why, Requests: 1, Events: int64(r.Events)})
}

func (s *Sink) dropMany(d sdk.Drop) {
	s.dropped += d.Requests
	i := slices.IndexFunc(s.stats.Drops, func(o sdk.Drop) bool { return o.Class == d.Class && o.Reason == d.Reason })
	if i < 0 {
		s.stats.Drops = append(s.stats.Drops, d)
		return
	}
	s.stats.Drops[i].Requests += d.Requests
	s.stats.Drops[i].Events += d.Events
}

// lose counts what the shelf has lost.
func (s *Sink) lose(lost []sdk.Drop) {
	for _, d := range lost {
		s.shelved -= d.Requests
		s.dropMany(d)
	}
}

// Adopt counts requests that the shelf has found, as if they had been sent and shelved now; lost says which of them are lost already.
func (s *Sink) Adopt(n int64, lost []sdk.Drop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Sent += n
	s.shelved += n
	s.lose(lost)
	s.wake.Broadcast()
}

// leave notes that an item is not in memory any more.
func (s *Sink) leave(it *item) {
	if it.shelved {
		return
	}
	if s.pending[it.gen]--; s.pending[it.gen] == 0 {
		delete(s.pending, it.gen)
	}
}

// checkWaiters ends the Flushes that have nothing to wait for any more.
func (s *Sink) checkWaiters() {
	if len(s.waiters) == 0 || s.shelved > 0 {
		return
	}
	s.waiters = slices.DeleteFunc(s.waiters, func(w waiter) bool {
		for gen := range s.pending { // one entry for each Flush that waits
			if gen <= w.gen {
				return false
			}
		}
		close(w.done)
		return true
	})
}

// Flush returns when everything sent before is delivered or dropped, and the shelf is empty, or with ctx's error.
func (s *Sink) Flush(ctx context.Context) error {
	w := s.flush()
	select {
	case <-w.done:
		return nil
	default:
	}
	select {
	case <-w.done:
		return nil
	case <-s.finished:
		s.forget(w)
		return errors.New("flush: the sink is closed, and requests stay on disk")
	case <-ctx.Done():
		s.forget(w)
		return fmt.Errorf("flush: %w", ctx.Err())
	}
}

// flush begins a new generation and returns who waits for those before it.
func (s *Sink) flush() waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := waiter{gen: s.gen, done: make(chan struct{})}
	s.gen++
	s.waiters = append(s.waiters, w)
	s.checkWaiters()
	return w
}

func (s *Sink) forget(w waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters = slices.DeleteFunc(s.waiters, func(o waiter) bool { return o.done == w.done })
}

// Close flushes and ends the sink. With a shelf it does not wait for an other end that is away: the rest is shelved.
func (s *Sink) Close(ctx context.Context) error {
	if !s.beginClose() {
		return nil
	}
	defer s.cancel()
	w := s.flush()
	select {
	case <-w.done:
	case <-s.hopeless:
		s.cancel()
	case <-ctx.Done():
	}
	s.stop()
	select {
	case <-s.done:
	case <-ctx.Done():
		s.cancel()
		s.wait(closeGrace)
	}
	late := s.farewell()
	close(s.finished)
	return s.closeError(late, ctx)
}

// closeError says what became of what Close could not deliver.
func (s *Sink) closeError(late int, ctx context.Context) error { //nolint:revive // the context is what is judged, not what bounds the call
	stats := s.Stats()
	var errs []error
	if stats.Spooled > 0 {
		errs = append(errs, fmt.Errorf("%d requests are undelivered and stay on disk", stats.Spooled))
	}
	if n := int64(late) + stats.Queued - stats.Spooled; n > 0 {
		errs = append(errs, fmt.Errorf("%d requests are undelivered and dropped", n))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("close: %w", errors.Join(append(errs, ctx.Err())...))
}

func (s *Sink) beginClose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.closed = true
	s.pause.until = time.Time{} // one more try at once
	s.wake.Broadcast()
	return true
}

func (s *Sink) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.timer.Stop()
	s.wake.Broadcast()
	s.pokeShelver()
}

func (s *Sink) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
	}
}

// Stats returns the numbers so far.
func (s *Sink) Stats() sdk.SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Drops = slices.Clone(stats.Drops)
	stats.Queued = stats.Sent - stats.Delivered - s.dropped
	stats.Spooled = s.shelved
	return stats
}
