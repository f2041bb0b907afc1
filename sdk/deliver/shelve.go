package deliver

import (
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// Bounds of what goes to the shelf at once.
const (
	maxShelveBytes    = 4 << 20
	maxShelveRequests = 1_000
	shelfRetry        = time.Second // after an error of the shelf
)

// pokeShelver lets the shelver look.
func (s *Sink) pokeShelver() {
	select {
	case s.shelve <- struct{}{}:
	default:
	}
}

// shelver moves requests to the shelf until the sink stops.
func (s *Sink) shelver() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		batch, wait, ok := s.takeForShelf()
		if !ok {
			return
		}
		if len(batch) > 0 {
			_ = s.putOnShelf(batch) // reported, and tried again
			continue
		}
		timer.Reset(wait)
		select {
		case <-s.shelve:
		case <-timer.C:
		}
	}
}

// takeForShelf takes out what has to go to the shelf now; when that is nothing, wait is when to look again at the latest. False: the sink
// stops.
func (s *Sink) takeForShelf() (batch []*item, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	away := s.pause.failures > 0
	switch {
	case s.stopped:
		return nil, 0, false
	case now.Before(s.diskTry):
		return nil, s.diskTry.Sub(now), true
	case away && now.Sub(s.pause.since) >= s.cfg.ShelveAfter:
		return s.take(sdk.ClassMetadata, +1, maxShelveBytes), time.Hour, true
	case s.queue.bytes() > s.cfg.ShelveBytes:
		return s.take(sdk.NumClasses-1, -1, min(maxShelveBytes, s.queue.bytes()-s.cfg.ShelveBytes)), time.Hour, true
	case away:
		return nil, s.cfg.ShelveAfter - now.Sub(s.pause.since), true
	}
	return nil, time.Hour, true
}

// take takes requests out of the lanes, beginning with a class, until they are bytes or more. They count as shelved from now on.
func (s *Sink) take(first sdk.Class, step int, bytes int64) (batch []*item) {
	for c := int(first); c >= 0 && c < sdk.NumClasses; c += step {
		for bytes > 0 && len(batch) < maxShelveRequests {
			it := s.queue.lanes[c].any()
			if it == nil {
				break
			}
			bytes -= it.size()
			s.queue.taken += it.size()
			batch = append(batch, it)
		}
	}
	s.shelved += int64(len(batch))
	return batch
}

// putOnShelf moves a batch to the shelf. What the shelf does not take goes back to its lane.
func (s *Sink) putOnShelf(batch []*item) (err error) {
	kept := make([]Kept, len(batch))
	for i, it := range batch {
		kept[i] = it.Kept
	}
	n, lost, err := s.cfg.Shelf.Put(kept)
	s.putBack(batch[n:], err)
	s.mu.Lock()
	s.lose(lost)
	for _, it := range batch[:n] {
		s.queue.taken -= it.size()
		s.leave(it)
	}
	s.wake.Signal()
	s.checkWaiters()
	s.mu.Unlock()
	for _, it := range batch[:n] {
		s.settled(it)
	}
	if err != nil {
		s.errors.report(err)
	}
	return err
}

// putBack returns to the lanes what the shelf did not take, in its old order.
func (s *Sink) putBack(rest []*item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.diskErr = err != nil; s.diskErr {
		s.diskTry = time.Now().Add(shelfRetry)
	}
	s.shelved -= int64(len(rest))
	for _, it := range slices.Backward(rest) {
		s.queue.taken -= it.size()
		s.queue.lanes[it.Class].pushFront(it)
	}
}

// farewell shelves what is left when the workers have ended, and drops what finds no place there: how many requests, it returns.
func (s *Sink) farewell() int {
	for s.cfg.Shelf != nil {
		s.mu.Lock()
		batch := s.take(sdk.ClassMetadata, +1, maxShelveBytes)
		s.mu.Unlock()
		if len(batch) == 0 || s.putOnShelf(batch) != nil {
			break
		}
	}
	rest := s.dropRest()
	for _, it := range rest {
		s.settled(it)
	}
	return len(rest)
}

// dropRest drops what is in the lanes.
func (s *Sink) dropRest() (rest []*item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	why := sdk.DropClosed
	if s.diskErr {
		why = sdk.DropDisk
	}
	for c := range s.queue.lanes {
		for it := s.queue.lanes[c].any(); it != nil; it = s.queue.lanes[c].any() {
			s.leave(it)
			s.drop(&it.Request, why)
			rest = append(rest, it)
		}
	}
	s.checkWaiters()
	return rest
}

// Take puts requests on the shelf that were never sent to this sink, and counts them as if they had been. False: not all found a place
// there; those that did count.
func (s *Sink) Take(ks []Kept) bool {
	s.Adopt(int64(len(ks)), nil)
	n, lost, err := s.cfg.Shelf.Put(ks)
	rest := int64(len(ks) - n)
	s.mu.Lock()
	s.lose(lost)
	s.stats.Sent -= rest
	s.shelved -= rest
	s.wake.Broadcast()
	s.checkWaiters()
	s.mu.Unlock()
	if err != nil {
		s.errors.report(err)
	}
	return err == nil
}
