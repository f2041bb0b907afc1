package deliver

import (
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// overhead is what a queued request takes beyond its body, about.
const overhead = 256

// item is a request in memory.
type item struct {
	Kept
	gen     uint64 // of Flush
	shelved bool   // the shelf gave it out; such items are never in a lane
}

func (it *item) size() int64 { return int64(len(it.Body)) + overhead }

// lane is the queue of one class.
type lane struct {
	fifo    []*item
	head    int     // fifo[:head] is gone
	delayed []*item // failed ones that wait for their NotBefore; few, since each is probed alone
	bytes   int64   // of both
}

func (l *lane) push(it *item) {
	l.fifo = append(l.fifo, it)
	l.bytes += it.size()
}

// pushFront puts an item where the next one is taken.
func (l *lane) pushFront(it *item) {
	l.bytes += it.size()
	if l.head == 0 { // with room for as many again, so that each item moves rarely
		l.head = len(l.fifo) + 16
		l.fifo = append(make([]*item, l.head, 2*l.head), l.fifo...)
	}
	l.head--
	l.fifo[l.head] = it
}

func (l *lane) delay(it *item) {
	l.delayed = append(l.delayed, it)
	l.bytes += it.size()
}

// first takes the first item of the fifo, nil when it is empty.
func (l *lane) first() *item {
	if l.head == len(l.fifo) {
		return nil
	}
	it := l.fifo[l.head]
	l.fifo[l.head] = nil
	l.head++
	switch {
	case l.head == len(l.fifo):
		l.fifo, l.head = l.fifo[:0], 0
	case l.head >= 1024 && l.head*2 >= len(l.fifo): // half of it is empty: each item moves once at most for each that was taken
		n := copy(l.fifo, l.fifo[l.head:])
		clear(l.fifo[n:])
		l.fifo, l.head = l.fifo[:n], 0
	}
	l.bytes -= it.size()
	return it
}

// due takes an item whose turn it is: a delayed one whose pause is over, else the first of the fifo.
func (l *lane) due(now time.Time) *item {
	for i, it := range l.delayed {
		if !it.NotBefore.After(now) {
			return l.takeDelayed(i)
		}
	}
	return l.first()
}

func (l *lane) takeDelayed(i int) *item {
	it := l.delayed[i]
	n := copy(l.delayed[i:], l.delayed[i+1:])
	l.delayed[i+n] = nil
	l.delayed = l.delayed[:i+n]
	l.bytes -= it.size()
	return it
}

// any takes the oldest item, delayed or not.
func (l *lane) any() *item {
	if len(l.delayed) > 0 {
		return l.takeDelayed(0)
	}
	return l.first()
}

// hasDue reports whether due would return an item.
func (l *lane) hasDue(now time.Time) bool {
	if l.head < len(l.fifo) {
		return true
	}
	for _, it := range l.delayed {
		if !it.NotBefore.After(now) {
			return true
		}
	}
	return false
}

// queue is a lane for each class.
type queue struct {
	lanes [sdk.NumClasses]lane
	taken int64 // bytes of items that were taken out and are not settled yet
}

// bytes is what is in memory.
func (q *queue) bytes() int64 {
	sum := q.taken
	for i := range q.lanes {
		sum += q.lanes[i].bytes
	}
	return sum
}

// dueClass returns the most precious class that has something due.
func (q *queue) dueClass(now time.Time) (sdk.Class, bool) {
	for c := range sdk.Class(sdk.NumClasses) {
		if q.lanes[c].hasDue(now) {
			return c, true
		}
	}
	return 0, false
}

// nextDelayed returns when the next delayed item is due; zero = there is none.
func (q *queue) nextDelayed() (next time.Time) {
	for i := range q.lanes {
		for _, it := range q.lanes[i].delayed {
			next = earlier(next, it.NotBefore)
		}
	}
	return next
}

// earlier returns the earlier of two times; a zero one counts as never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// admit makes room for a request of the given class and size. It returns what has to go for it; false: there is no room, and
// nothing goes.
func (q *queue) admit(class sdk.Class, size, soft, hard int64) (victims []*item, ok bool) {
	have := q.bytes()
	if class == sdk.ClassSpans {
		return nil, have+size <= soft
	}
	if have+size <= hard {
		return nil, true
	}
	var less int64 // bytes of what is less precious
	for c := class + 1; c < sdk.NumClasses; c++ {
		less += q.lanes[c].bytes
	}
	if have-less+size > hard && class != sdk.ClassMetadata {
		return nil, false
	}
	for c := sdk.Class(sdk.NumClasses - 1); c > class; c-- {
		for have+size > hard {
			it := q.lanes[c].any()
			if it == nil {
				break
			}
			have -= it.size()
			victims = append(victims, it)
		}
	}
	return victims, true
}
