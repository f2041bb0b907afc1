package spool

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/filesink"
)

const (
	maxSegmentBytes = 4 << 20 // of a segment with more than one request: it is read into memory as a whole
	maxReading      = 8       // segments of one class that are read at once; more than one only when requests fail
)

var _ deliver.Shelf = (*shelf)(nil)

// shelf keeps requests in segments, a sequence of them for each class.
//
// io is held while files are written, read or removed, mu for the state; io is taken first, and mu never held during a call of the file
// system, since the queue asks Peek with its own lock held.
type shelf struct {
	maxBytes     int64
	segmentBytes int64
	home         *home

	io      sync.Mutex
	writers [sdk.NumClasses]*segmentWriter
	number  uint64 // of the last segment

	mu      sync.Mutex
	classes [sdk.NumClasses]sequence
	bytes   int64
	closed  bool
}

// sequence is the segments of a class, the oldest first.
type sequence struct {
	reading []*segment
	sealed  []*segment // not read yet; the last one may still be written
}

func newShelf(maxBytes int64, h *home) *shelf {
	return &shelf{maxBytes: maxBytes, segmentBytes: max(min(maxSegmentBytes, maxBytes/16), 1), home: h}
}

// Put appends requests to the segments of their classes.
func (s *shelf) Put(ks []deliver.Kept) (n int, lost []sdk.Drop, err error) {
	s.io.Lock()
	defer s.io.Unlock()
	for i := range ks {
		k := &ks[i]
		size := filesink.Size(len(k.Body))
		more, ok := s.makeRoom(k.Class, size)
		lost = append(lost, more...)
		if !ok || len(k.Body) > filesink.MaxBody {
			lost = append(lost, dropOf(&k.Request, sdk.DropQueueFull))
			continue
		}
		if err := s.write(k, size); err != nil {
			return i, lost, fmt.Errorf("spool: %w", err)
		}
	}
	return len(ks), lost, nil
}

func dropOf(r *sdk.Request, why sdk.DropReason) sdk.Drop {
	return sdk.Drop{Class: r.Class, Reason: why, Requests: 1, Events: int64(r.Events)}
}

// write appends a request to the segment of its class. io is held.
func (s *shelf) write(k *deliver.Kept, size int64) error {
	w := s.writers[k.Class]
	if w != nil && w.seg.bytes+size > s.segmentBytes {
		s.seal(k.Class)
		w = nil
	}
	if w == nil {
		folder, err := s.home.path()
		if err != nil {
			return err
		}
		s.number++
		if w, err = createSegment(folder, k.Class, s.number); err != nil {
			return err
		}
		s.writers[k.Class] = w
	}
	n, broken, err := w.write(k)
	if err != nil {
		if broken || w.seg.left == 0 {
			s.seal(k.Class)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.seg.left == 0 {
		s.classes[k.Class].sealed = append(s.classes[k.Class].sealed, w.seg)
	}
	w.seg.bytes += n
	w.seg.left++
	w.seg.events += int64(k.Events)
	s.bytes += n
	return nil
}

// seal ends the segment that is written. io is held.
func (s *shelf) seal(class sdk.Class) {
	w := s.writers[class]
	if w == nil {
		return
	}
	s.writers[class] = nil
	w.f.Close() // what was not written is found missing when the segment is read
	if w.seg.left == 0 {
		os.Remove(w.seg.path)
	}
}

// makeRoom evicts the oldest segments of the least precious class, as far as it is not more precious than what comes. False: there is no
// room even so. io is held.
func (s *shelf) makeRoom(class sdk.Class, size int64) (lost []sdk.Drop, ok bool) {
	if size > s.maxBytes && class != sdk.ClassMetadata {
		return nil, false
	}
	for c := sdk.Class(sdk.NumClasses - 1); c >= max(class, sdk.ClassLogs); c-- {
		for s.size()+size > s.maxBytes {
			d, ok := s.evict(c)
			if !ok {
				break
			}
			lost = append(lost, d...)
		}
	}
	return lost, class == sdk.ClassMetadata || s.size()+size <= s.maxBytes
}

func (s *shelf) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// evict gives the oldest segment of a class up. False: there is none. io is held.
func (s *shelf) evict(class sdk.Class) (lost []sdk.Drop, ok bool) {
	s.mu.Lock()
	q := &s.classes[class]
	var seg *segment
	switch {
	case len(q.reading) > 0:
		seg, q.reading = q.reading[0], q.reading[1:]
	case len(q.sealed) > 0:
		seg, q.sealed = q.sealed[0], q.sealed[1:]
	default:
		s.mu.Unlock()
		return nil, false
	}
	d := sdk.Drop{Class: class, Reason: sdk.DropQueueFull, Requests: seg.left, Events: seg.events}
	if seg.records != nil {
		d.Requests, d.Events = 0, 0
		for _, r := range seg.records {
			if !r.out && !r.done { // what is under way is settled when it ends
				d.Requests++
				d.Events += int64(r.kept.Events)
			}
		}
	}
	seg.gone = true
	s.bytes -= seg.bytes
	s.mu.Unlock()
	if w := s.writers[class]; w != nil && w.seg == seg {
		s.seal(class)
	}
	s.remove(seg)
	if d.Requests == 0 {
		return nil, true
	}
	return []sdk.Drop{d}, true
}

// remove removes the file of a segment, and its folder when it was the last one of a dead process.
func (s *shelf) remove(seg *segment) {
	os.Remove(seg.path)
	if seg.adopted == nil {
		return
	}
	s.mu.Lock()
	seg.adopted.uses--
	last := seg.adopted.uses == 0
	s.mu.Unlock()
	if last {
		seg.adopted.release()
	}
}

// Peek says what Next would give.
func (s *shelf) Peek(now time.Time) (class sdk.Class, ok bool, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, false, time.Time{}
	}
	for c := range sdk.Class(sdk.NumClasses) {
		q := &s.classes[c]
		for _, seg := range q.reading {
			r, at := seg.due(now, false)
			if r != nil {
				return c, true, time.Time{}
			}
			if next.IsZero() || (!at.IsZero() && at.Before(next)) {
				next = at
			}
		}
		if len(q.sealed) > 0 && len(q.reading) < maxReading {
			return c, true, time.Time{}
		}
	}
	return 0, false, next
}

// Next gives the next request out, for which it may read a segment.
func (s *shelf) Next(now time.Time) (k *deliver.Kept, lost []sdk.Drop, ok bool) {
	for {
		k, class, ok := s.given(now)
		if k != nil || !ok {
			return k, lost, k != nil
		}
		lost = append(lost, s.read(class)...)
	}
}

// given gives out a request that is in memory. When a segment must be read first, it returns nil, its class and true.
func (s *shelf) given(now time.Time) (k *deliver.Kept, class sdk.Class, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, false
	}
	for c := range sdk.Class(sdk.NumClasses) {
		q := &s.classes[c]
		for _, seg := range q.reading {
			if r, _ := seg.due(now, true); r != nil {
				r.out = true
				copied := r.kept
				return &copied, c, true
			}
		}
		if len(q.sealed) > 0 && len(q.reading) < maxReading {
			return nil, c, true
		}
	}
	return nil, 0, false
}

// read reads the oldest sealed segment of a class.
func (s *shelf) read(class sdk.Class) (lost []sdk.Drop) {
	s.io.Lock()
	defer s.io.Unlock()
	s.mu.Lock()
	q := &s.classes[class]
	if len(q.sealed) == 0 || len(q.reading) >= maxReading { // another goroutine was faster
		s.mu.Unlock()
		return nil
	}
	seg := q.sealed[0]
	s.mu.Unlock()
	if w := s.writers[class]; w != nil && w.seg == seg {
		s.seal(class)
	}
	records, _ := seg.load() // what cannot be read is lost, whatever the reason
	s.mu.Lock()
	q.sealed = q.sealed[1:] // only those who hold io take from it
	missing := sdk.Drop{Class: class, Reason: sdk.DropDisk, Requests: seg.left, Events: seg.events}
	if int64(len(records)) > seg.left { // somebody else has written to the file
		records = records[:seg.left]
	}
	for _, r := range records {
		missing.Requests--
		missing.Events -= int64(r.kept.Events)
	}
	seg.records, seg.left = records, int64(len(records))
	if len(records) > 0 {
		q.reading = append(q.reading, seg)
	} else {
		s.bytes -= seg.bytes
	}
	s.mu.Unlock()
	if len(records) == 0 {
		s.remove(seg)
	}
	if missing.Requests == 0 {
		return nil
	}
	return []sdk.Drop{missing}
}

// Done forgets a request, and removes its segment when it was the last one.
func (s *shelf) Done(k *deliver.Kept) []sdk.Drop {
	r, _ := k.Place.(*record)
	s.io.Lock()
	defer s.io.Unlock()
	s.mu.Lock()
	r.out, r.done = false, true
	r.kept.Body = nil
	seg := r.seg
	seg.left--
	last := seg.left == 0 && !seg.gone
	if last {
		q := &s.classes[seg.class]
		q.reading = slices.DeleteFunc(q.reading, func(o *segment) bool { return o == seg })
		s.bytes -= seg.bytes
	}
	s.mu.Unlock()
	if last {
		s.remove(seg)
	}
	return nil
}

// Back takes a request back.
func (s *shelf) Back(k *deliver.Kept) []sdk.Drop {
	r, _ := k.Place.(*record)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.out = false
	if r.seg.gone {
		r.done = true
		return []sdk.Drop{dropOf(&r.kept.Request, sdk.DropQueueFull)}
	}
	r.kept.Attempts, r.kept.Failures, r.kept.NotBefore = k.Attempts, k.Failures, k.NotBefore
	r.seg.returned = append(r.seg.returned, r)
	return nil
}

// adopt adds the segments of a folder whose process has died. They come before those that are there.
func (s *shelf) adopt(segs []*segment) {
	s.io.Lock() // whoever holds it may rely on which segment is the first
	defer s.io.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range slices.Backward(segs) {
		q := &s.classes[seg.class]
		q.sealed = slices.Insert(q.sealed, 0, seg)
		s.bytes += seg.bytes
	}
}

// close ends the writing and gives up all folders but this process's own. What is left in them is adopted by the next process.
func (s *shelf) close() {
	s.io.Lock()
	defer s.io.Unlock()
	for c := range s.writers {
		s.seal(sdk.Class(c))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	folders := map[*folder]bool{}
	for c := range s.classes {
		for _, seg := range slices.Concat(s.classes[c].reading, s.classes[c].sealed) {
			if seg.adopted != nil {
				folders[seg.adopted] = true
			}
		}
	}
	for f := range folders {
		f.release()
	}
}
