package sdk

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// An event is a record of 64-bit words in a chunk; chunks form a list with one writer and one reader, the recorder's goroutine. The writer
// fills words and then publishes how many; when a chunk is full it links the next one. So neither waits for the other, and the
// reader needs no word from the writer to take what is there.
//
// A record:
//
//	word 0   kind (8 bits) | flags (4) | length in words, this one included (20) | site (32)
//	word 1   ticks
//	…        properties' number, when flagHasProps
//	…        trace id (2 words) and span id, when flagHasTrace
//	…        what the kind says
//
// Records of tracks have no flags, and the depth of the span in place of the length.

// Sizes of chunks, in words.
const (
	chunkWords  = 2 << 10   // 16 KiB: some 700 measures
	maxLanes    = 1 << 10   // Ps with a lane; lanes that are not written to cost nothing
	maxRecord   = 1<<20 - 1 // words of a record: 20 bits
	wordBytes   = 8         // of a word
	wakeWords   = 64 << 10  // published words after which the recorder is woken before its time
	spareChunks = 256       // empty chunks that are kept
	lineBytes   = 128       // what two cores should not share
)

// kind says what a record is.
type kind uint8

const (
	kindLog        kind = 1 + iota // nothing more
	kindLogText                    // bytes (1 word), text
	kindLogArgs                    // kinds (1 word), args
	kindLogProps                   // bytes (1 word), text, properties; see logprops.go
	kindInt                        // value
	kindFloat                      // value
	kindAsyncBegin                 // span, parent, depth, bytes of the name when the site has none, name; flagHasTrace
	kindAsyncEnd                   // the same
	kindAsyncProps                 // nothing more; flagHasProps, flagHasTrace
	kindAsyncProp                  // bytes of key and value, key, value; flagHasTrace
	kindBegin                      // track: nothing more
	kindBeginNamed                 // track: bytes, text
	kindEnd                        // track: nothing more
	kindProps                      // track: properties' number
	kindProp                       // track: bytes of key and value, key, value
)

const (
	flagHasProps = 1 << 0
	flagHasTrace = 1 << 1
)

// head is word 0.
type head uint64

func headOf(k kind, flags uint64, words int, site uint32) head {
	return head(uint64(k)<<56 | flags<<52 | uint64(words)<<32 | uint64(site))
}

func (h head) kind() kind        { return kind(h >> 56) }
func (h head) has(f uint64) bool { return uint64(h)>>52&f != 0 }
func (h head) words() int        { return int(h >> 32 & maxRecord) }
func (h head) site() uint32      { return uint32(h) }

// chunk is a piece of a list of records.
type chunk struct {
	filled int64                 // words published; only the writer stores it. It is first, and so aligned on every machine
	next   atomic.Pointer[chunk] // set once, when nothing more comes into this one
	read   int                   // words taken; the reader's
	words  []uint64
}

// load returns how many words are published.
func (c *chunk) load() int { return int(atomic.LoadInt64(&c.filled)) }

// writer is the writer's end of a list of chunks. What an event needs is here and not in the chunk: a load less before its clock is read.
type writer struct {
	words []uint64 // of the last chunk
	used  int      // words of it
	cur   *chunk   // the last chunk; nil = there is none
}

// room returns n words to be filled and then published by done; nil = the chunk has none.
func (w *writer) room(n int) []uint64 {
	if at := w.used; at+n <= len(w.words) {
		return w.words[at : at+n : at+n]
	}
	return nil
}

// done publishes n words.
func (w *writer) done(n int) {
	w.used += n
	w.cur.publish(w.used)
}

// extend adds a chunk to the list, and reports whether it is the first.
func (w *writer) extend(c *chunk) (first bool) {
	if first = w.cur == nil; !first {
		w.cur.next.Store(c)
	}
	w.words, w.used, w.cur = c.words, 0, c
	return first
}

// lane is what one P writes to.
type lane struct {
	writer
	counters atomic.Pointer[cellBlock] // the writer's; the reader sums
	spanIDs  idRange                   // the writer's
	first    atomic.Pointer[chunk]     // the first of the list there ever was; set once
	mu       sync.Mutex                // only where pinning is not to be had, see plain.go
	unread   *chunk                    // the first of the list that is not read; the reader's
	_        [lineBytes]byte
}

// cell is a counter's part in a lane.
type cell struct{ n uint64 }

// cellBlock has the cells of all counters up to some number. Counts stay in the block where they were added.
type cellBlock struct {
	cells []cell
	older *cellBlock
}

// idRange is what is left of a range of span ids, and half of the ids of traces that begin with one of them.
type idRange struct{ next, end, trace uint64 }

// lanes are there from the beginning: the unused ones are untouched memory. lanesUsed is above the highest that is in use. noLane is one
// that has no room, for Ps beyond.
var (
	lanes     [maxLanes]lane
	lanesUsed atomic.Int64
	noLane    lane
)

// write returns a pinned lane and n words of its chunk to be filled, after which the caller calls release. Without memory for more it
// counts a drop and returns nil.
func write(n int) (*lane, []uint64) {
	l := pin()
	if w := l.room(n); w != nil {
		return l, w
	}
	return writeSlow(l, n)
}

// release publishes n words and releases the lane.
func (l *lane) release(n int) {
	l.done(n)
	l.unpin()
}

// writeSlow gives a lane another chunk. Nothing is pinned meanwhile, so the lane may be another P's: one with room is written to as it is.
//
//go:noinline
func writeSlow(l *lane, n int) (*lane, []uint64) {
	l.unpin()
	c := memory.take(n)
	if c == nil {
		drops.add(dropMemory, 1)
		return nil, nil
	}
	if l = pin(); l == &noLane {
		l.unpin()
		memory.give(c)
		drops.add(dropLane, 1)
		return nil, nil
	}
	if w := l.room(n); w != nil {
		memory.giveBack(c)
		return l, w
	}
	if l.extend(c) {
		l.first.Store(c)
		l.use()
	}
	return l, l.room(n)
}

// use tells the reader that there is something in the lane.
func (l *lane) use() {
	n := int64(uintptr(unsafe.Pointer(l))-uintptr(unsafe.Pointer(&lanes)))/int64(unsafe.Sizeof(*l)) + 1
	for {
		have := lanesUsed.Load()
		if have >= n || lanesUsed.CompareAndSwap(have, n) {
			return
		}
	}
}

// drain calls f with the words that were published since the last time, piece by piece. It is the reader's.
func (l *lane) drain(f func(words []uint64)) {
	if l.unread == nil {
		l.unread = l.first.Load()
	}
	if l.unread != nil {
		l.unread = l.unread.drain(f)
	}
}

// drain calls f with the words published in a list, gives read chunks back, and returns the last one.
func (c *chunk) drain(f func(words []uint64)) *chunk {
	for {
		next := c.next.Load() // first: a chunk with a next one has all its words
		if n := c.load(); n > c.read {
			f(c.words[c.read:n])
			c.read = n
		}
		if next == nil {
			return c
		}
		memory.give(c)
		c = next
	}
}

// pool is the memory of events: it hands out chunks up to a bound.
type pool struct {
	mu    sync.Mutex
	bound int // words
	out   int // words handed out
	spare []*chunk
	wake  func() // called when a share of the bound was handed out since the last call of calm
	since int    // words handed out since then

	unused atomic.Pointer[chunk] // a list of those that giveBack has taken; they count as handed out
}

var memory pool

// take returns an empty chunk of at least n words, or nil when the bound is reached.
func (p *pool) take(n int) *chunk {
	n = max(n, chunkWords)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.unused.Swap(nil); c != nil; {
		next := c.next.Load()
		p.keep(c)
		c = next
	}
	if p.out+n > p.bound {
		return nil
	}
	p.out += n
	if p.since += n; p.since >= wakeWords && p.wake != nil {
		p.since = 0
		p.wake()
	}
	if last := len(p.spare) - 1; last >= 0 && n == chunkWords {
		c := p.spare[last]
		p.spare = p.spare[:last]
		return c
	}
	return &chunk{words: make([]uint64, n)}
}

// give takes a chunk back that nobody reads or writes any more.
func (p *pool) give(c *chunk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(c)
}

// giveBack is give without the mutex, for who is pinned and must not block: the runtime ends a program whose pinned goroutine waits. The
// list only grows by one or is taken as a whole, so what was compared cannot have been exchanged meanwhile.
func (p *pool) giveBack(c *chunk) {
	for {
		top := p.unused.Load()
		c.next.Store(top)
		if p.unused.CompareAndSwap(top, c) {
			return
		}
	}
}

// keep makes a chunk spare, where there is place. mu is held.
func (p *pool) keep(c *chunk) {
	p.out -= len(c.words)
	if len(c.words) != chunkWords || len(p.spare) >= spareChunks {
		return
	}
	c.next.Store(nil)
	c.filled, c.read = 0, 0
	p.spare = append(p.spare, c)
}

// leave counts a chunk as given back whose writer may still have it: it is left to the garbage collector.
func (p *pool) leave(c *chunk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out -= len(c.words)
}

// textWords is how many words a text takes.
func textWords(s string) int { return (len(s) + wordBytes - 1) / wordBytes }

// putText copies a text into words, which are enough for it.
func putText(words []uint64, s string) {
	if n := len(s); littleEndian && n >= wordBytes && n <= shortText {
		putShort(words, s)
		return
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*wordBytes), s)
}

// putProperty writes the lengths of a key and a value, and both, into words.
func putProperty(w []uint64, key, value string) {
	w[0], w[1] = uint64(len(key)), uint64(len(value))
	putText(w[2:], key)
	putText(w[2+textWords(key):], value)
}

// shortText is what putShort copies faster than a call of memmove does.
const shortText = 64

// putShort copies a text of 8 bytes or more word by word. The last word is what the text's last 8 bytes have beyond the words before.
func putShort(words []uint64, s string) {
	p, n, i := unsafe.Pointer(unsafe.StringData(s)), len(s), 0
	for ; n >= wordBytes; n -= wordBytes {
		words[i] = *(*uint64)(unsafe.Add(p, i*wordBytes))
		i++
	}
	if n > 0 {
		words[i] = *(*uint64)(unsafe.Add(p, (i-1)*wordBytes+n)) >> (8 * (wordBytes - n))
	}
}

// textIn returns the text of n bytes in words. It is valid as long as the words are.
func textIn(words []uint64, n int) string {
	return unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
}
