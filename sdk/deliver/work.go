package deliver

import (
	"math/rand/v2"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// pause is the back-off that all requests share. failures is 0 while the other end is there.
//
// An attempt remembers the epoch in which it began. Of the attempts that are under way when the other end goes away, the first failure ends
// the epoch and counts, the others belong to the past; nor does one that comes through late end the pause that another was asked to make.
type pause struct {
	failures int // in a row
	since    time.Time
	until    time.Time
	probing  bool // the request that goes ahead is under way
	epoch    uint64
}

// open reports whether a request may be posted.
func (p *pause) open(now time.Time) bool {
	return p.failures == 0 || (!p.probing && !now.Before(p.until))
}

// begin notes that an attempt begins and returns its epoch.
func (p *pause) begin() uint64 {
	p.probing = p.failures > 0
	return p.epoch
}

// success notes that the other end answered an attempt of an epoch. It reports whether a pause is over.
func (p *pause) success(epoch uint64) bool {
	if epoch != p.epoch || p.failures == 0 {
		return false
	}
	*p = pause{epoch: epoch + 1}
	return true
}

// failure notes a failed attempt of an epoch.
func (p *pause) failure(epoch uint64, now time.Time, wait time.Duration, atLeast time.Duration) {
	if p.failures == 0 {
		p.since = now
	}
	if epoch == p.epoch {
		p.epoch++
		p.failures++
		p.probing = false
		p.until = now.Add(wait)
	}
	if least := now.Add(atLeast); least.After(p.until) {
		p.until = least
	}
}

// backoff returns a random pause after n failures in a row: up to first, doubling, up to longest.
func backoff(n int, first, longest time.Duration) time.Duration {
	limit := longest
	if n < 32 && first<<(n-1) > 0 && first<<(n-1) < longest {
		limit = first << (n - 1)
	}
	return rand.N(limit) + 1
}

// work posts requests until the sink stops.
func (s *Sink) work() {
	for {
		it, epoch := s.next()
		if it == nil {
			return
		}
		s.settle(it, epoch, s.poster.Post(s.ctx, &it.Request))
	}
}

// next waits for a request to post; nil: the sink stops.
func (s *Sink) next() (*item, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.stopped {
		now := time.Now()
		if !s.pause.open(now) {
			s.sleep(now)
			continue
		}
		class, ok := s.queue.dueClass(now)
		if s.cfg.Shelf != nil {
			if shelfClass, shelfOK, _ := s.cfg.Shelf.Peek(now); shelfOK && (!ok || shelfClass < class) {
				if it, epoch := s.fetch(now); it != nil {
					return it, epoch
				}
				continue
			}
		}
		if !ok {
			s.sleep(now)
			continue
		}
		it := s.queue.lanes[class].due(now)
		s.queue.taken += it.size()
		if now.Sub(it.Since) > s.cfg.MaxAge[it.Class] {
			s.expire(it)
			continue
		}
		return it, s.begin(it)
	}
	return nil, 0
}

// begin notes that an attempt begins.
func (s *Sink) begin(it *item) uint64 {
	if it.Attempts > 0 {
		s.stats.Retries++
	}
	it.Attempts++
	return s.pause.begin()
}

// fetch takes a request from the shelf, which may read a disk: the lock is given up meanwhile, and what reserves the turn is the probe.
func (s *Sink) fetch(now time.Time) (*item, uint64) {
	epoch := s.pause.begin()
	s.mu.Unlock()
	k, lost, ok := s.cfg.Shelf.Next(now)
	s.mu.Lock()
	s.lose(lost)
	if !ok {
		if epoch == s.pause.epoch {
			s.pause.probing = false
		}
		s.checkWaiters()
		return nil, 0
	}
	it := &item{Kept: *k, shelved: true}
	s.queue.taken += it.size()
	if it.Attempts > 0 {
		s.stats.Retries++
	}
	it.Attempts++
	return it, epoch
}

// expire drops a request that was taken out and is too old.
func (s *Sink) expire(it *item) {
	s.queue.taken -= it.size()
	s.leave(it)
	s.drop(&it.Request, sdk.DropRetries)
	s.checkWaiters()
	if s.cfg.Settled != nil {
		s.mu.Unlock()
		s.settled(it)
		s.mu.Lock()
	}
}

// sleep waits until there may be something to do: a request comes, an attempt ends, a pause is over.
func (s *Sink) sleep(now time.Time) {
	if next := s.nextTurn(now); !next.IsZero() {
		s.timer.Reset(next.Sub(now))
	}
	s.wake.Wait()
}

// nextTurn returns when a pause ends that keeps the workers waiting; zero: none does.
func (s *Sink) nextTurn(now time.Time) time.Time {
	switch {
	case s.pause.failures > 0 && s.pause.probing:
		return time.Time{} // the end of the probe wakes them
	case s.pause.failures > 0 && now.Before(s.pause.until):
		return s.pause.until
	}
	next := s.queue.nextDelayed()
	if s.cfg.Shelf != nil {
		_, _, shelfNext := s.cfg.Shelf.Peek(now)
		next = earlier(next, shelfNext)
	}
	return next
}

// settle acts on the outcome of an attempt.
func (s *Sink) settle(it *item, epoch uint64, a Answer) {
	back := s.conclude(it, epoch, a)
	switch {
	case !it.shelved && !back:
		s.settled(it)
	case it.shelved && back:
		s.lost(s.cfg.Shelf.Back(&it.Kept))
	case it.shelved:
		s.lost(s.cfg.Shelf.Done(&it.Kept))
	}
	if a.Err != nil && s.ctx.Err() == nil {
		s.errors.report(a.Err)
	}
}

func (s *Sink) lost(lost []sdk.Drop) {
	if len(lost) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(lost)
	s.checkWaiters()
}

// conclude counts the outcome. It reports whether the request is to be tried again; then it is in its lane, unless it belongs to the shelf.
func (s *Sink) conclude(it *item, epoch uint64, a Answer) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.queue.taken -= it.size()
	s.repose(epoch, a, now)
	if a.Verdict == Failed {
		it.Failures++
	}
	switch {
	case a.Verdict == Delivered:
		s.stats.Delivered++
		s.stats.Events += int64(it.Events)
		s.stats.Bytes += int64(len(it.Body))
	case a.Verdict == Refused:
		s.drop(&it.Request, reasonOf(a))
	case it.Failures >= s.cfg.MaxFailures[it.Class] || (!it.shelved && now.Sub(it.Since) > s.cfg.MaxAge[it.Class]):
		s.drop(&it.Request, sdk.DropRetries)
	case s.ended && !it.shelved:
		s.drop(&it.Request, sdk.DropClosed)
	default:
		s.again(it, a.Verdict, now)
		s.wake.Signal()
		return true
	}
	s.leave(it)
	if it.shelved {
		s.shelved--
	}
	s.wake.Signal()
	s.checkWaiters()
	return false
}

func reasonOf(a Answer) sdk.DropReason {
	if a.Reason == "" {
		return sdk.DropRefused
	}
	return a.Reason
}

// again puts a request where its next turn comes from.
func (s *Sink) again(it *item, v Verdict, now time.Time) {
	if v == Failed {
		it.NotBefore = now.Add(backoff(it.Failures, s.cfg.MinBackoff, s.cfg.MaxBackoff))
	}
	switch {
	case it.shelved:
	case v == Failed:
		s.queue.lanes[it.Class].delay(it)
	default:
		s.queue.lanes[it.Class].pushFront(it)
	}
}

// repose begins, prolongs or ends the shared pause.
func (s *Sink) repose(epoch uint64, a Answer, now time.Time) {
	if s.ctx.Err() != nil {
		return // Close cancelled the attempt: it says nothing about the other end
	}
	if a.Verdict == Delivered || a.Verdict == Refused {
		if s.pause.success(epoch) {
			s.wake.Broadcast()
		}
		return
	}
	longest, asked := s.cfg.MaxBackoff, min(a.RetryAfter, s.cfg.MaxRetryAfter)
	if s.closed {
		longest, asked = min(longest, maxClosingBackoff), min(asked, maxClosingBackoff)
	}
	s.pause.failure(epoch, now, backoff(s.pause.failures+1, s.cfg.MinBackoff, longest), asked)
	if s.cfg.Shelf == nil {
		return
	}
	s.pokeShelver()
	if s.closed {
		select {
		case <-s.hopeless:
		default:
			close(s.hopeless)
		}
	}
}
