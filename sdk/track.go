package sdk

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Span is a call site of spans. Make it a package variable, and open spans with Begin on a track, or with Start in a context.
type Span struct {
	site
	own spanName
}

// NewSpan declares a span. With the name "" each span brings its own, see BeginNamed and StartNamed.
func NewSpan(name string, options ...SiteOption) *Span {
	s := &Span{site: site{kind: siteSpan, text: name}}
	s.own.site, s.owner = &s.site, s
	return registry.add(1, &s.site, options).(*Span)
}

// A Track is a sequence of spans with one open stack, a stream of its own in queries: that of one worker, one frame loop, one goroutine
// that matters. At any moment one goroutine uses it; which one may change. So spans nest as they should however goroutines are
// scheduled, and what Begin and End write needs neither lock nor look-up.
//
// A track that is closed, or to which nothing refers any more, ends; its open spans end with it. A nil track records nothing.
type Track struct {
	writer
	depth  uint32
	serial uint32
	open   []openSpan // by depth; all of it is allocated
	queue  *trackQueue
}

// openSpan is a span on the stack of a track.
type openSpan struct {
	serial uint32 // of the span; 0 = none
	site   uint32
}

// trackQueue is what the recorder knows of a track.
type trackQueue struct {
	name   string
	no     int
	first  atomic.Pointer[chunk] // of the list there ever was; set once
	unread *chunk                // the recorder's
	closed atomic.Bool
	state  *trackState // the recorder's
}

// Bounds of tracks.
const (
	maxTracks   = 4 << 10
	firstDepth  = 64
	maxDepth    = 4 << 10 // spans inside one another; those beyond are not recorded
	maxSpanName = 1 << 10 // bytes
)

// tracks are those that the recorder reads.
var tracks struct {
	sync.Mutex
	all  []*trackQueue
	last int
}

// NewTrack opens a track. A process may have 4,096 at a time; a further one records nothing, and is counted.
func NewTrack(name string) *Track {
	tracks.Lock()
	defer tracks.Unlock()
	if len(tracks.all) >= maxTracks {
		drops.add(dropTrack, 1)
		return nil
	}
	tracks.last++
	q := &trackQueue{name: name, no: tracks.last}
	tracks.all = append(tracks.all, q)
	t := &Track{queue: q, open: make([]openSpan, firstDepth)}
	runtime.AddCleanup(t, func(q *trackQueue) { q.closed.Store(true) }, q)
	return t
}

// Close ends the track.
func (t *Track) Close() {
	if t != nil {
		t.queue.closed.Store(true)
	}
}

// Scope is an open span of a track. The zero Scope is one that is not recorded.
type Scope struct {
	track  *Track
	depth  uint32
	serial uint32
}

// Begin opens a span on a track:
//
//	defer update.Begin(track).End()
func (s *Span) Begin(t *Track) Scope {
	n := s.on.Load()
	if n == 0 || t == nil {
		return Scope{}
	}
	return t.begin(&s.site, n)
}

func (t *Track) begin(s *site, n uint32) Scope {
	if n != 1 && !sampled(n) {
		return Scope{}
	}
	d := t.depth
	if int(d) >= len(t.open) && !t.deepen() {
		return Scope{}
	}
	w := t.write(2)
	if w == nil {
		return Scope{}
	}
	w[0], w[1] = uint64(headOf(kindBegin, 0, int(d), s.id)), uint64(ticks())
	t.done(2)
	return t.push(d, s.id)
}

// push puts a span on the stack, whose begin is recorded.
func (t *Track) push(d, site uint32) Scope {
	t.serial++
	if t.serial == 0 {
		t.serial = 1
	}
	if int(d) >= len(t.open) { // not when the track has one user
		return Scope{}
	}
	t.open[d] = openSpan{t.serial, site}
	t.depth = d + 1
	return Scope{t, d, t.serial}
}

// deepen makes room for deeper spans.
//
//go:noinline
func (t *Track) deepen() bool {
	if len(t.open) >= maxDepth {
		drops.add(dropDepth, 1)
		return false
	}
	grown := make([]openSpan, 2*len(t.open))
	copy(grown, t.open)
	t.open = grown
	return true
}

// write returns n words to be filled and then published by done, or nil without memory for more.
func (t *Track) write(n int) []uint64 {
	if w := t.room(n); w != nil {
		return w
	}
	return t.writeSlow(n)
}

// writeSlow gives the track another chunk.
//
//go:noinline
func (t *Track) writeSlow(n int) []uint64 {
	if t.queue.closed.Load() {
		drops.add(dropTrackClosed, 1)
		return nil
	}
	c := memory.take(n)
	if c == nil {
		drops.add(dropMemory, 1)
		return nil
	}
	if t.extend(c) {
		t.queue.first.Store(c)
	}
	return t.room(n)
}

// End closes the span, and those inside it that are still open. To end it again does nothing.
func (s Scope) End() {
	t := s.track
	if t == nil {
		return
	}
	if int(s.depth) >= len(t.open) || t.open[s.depth].serial != s.serial || s.depth >= t.depth {
		return // ended, by itself or with a span around it
	}
	w := t.write(2)
	if w != nil { // else the recorder ends it with the span around it
		w[0], w[1] = uint64(headOf(kindEnd, 0, int(s.depth), 0)), uint64(ticks())
		t.done(2)
	}
	t.open[s.depth].serial = 0
	t.depth = s.depth
}

// BeginNamed opens a span of a name of its own, of which the first 1,024 bytes count. The name is copied.
func (s *Span) BeginNamed(t *Track, name string) Scope {
	n := s.on.Load()
	if n == 0 || t == nil || n != 1 && !sampled(n) {
		return Scope{}
	}
	d := t.depth
	if int(d) >= len(t.open) && !t.deepen() {
		return Scope{}
	}
	name = name[:min(len(name), maxSpanName)]
	words := 3 + textWords(name)
	w := t.write(words)
	if w == nil {
		return Scope{}
	}
	w[0], w[1], w[2] = uint64(headOf(kindBeginNamed, 0, int(d), s.id)), uint64(ticks()), uint64(len(name))
	putText(w[3:], name)
	t.done(words)
	return t.push(d, s.id)
}

// Begin opens a span from where no site is declared. It costs a walk of one frame of the stack, some 0.15 µs; the place of the call
// becomes a site.
func (t *Track) Begin(name string) Scope {
	if t == nil {
		return Scope{}
	}
	return spanAt(1).BeginNamed(t, name)
}

// Set gives the span properties, beside those that it has.
func (s Scope) Set(p *Properties) {
	t := s.track
	if t == nil || p == nil || !s.isOpen() {
		return
	}
	w := t.write(3)
	if w == nil {
		return
	}
	w[0], w[1], w[2] = uint64(headOf(kindProps, 0, int(s.depth), 0)), uint64(ticks()), uint64(p.no)
	t.done(3)
}

// SetText gives the span one property, of a value that need not be one of few.
func (s Scope) SetText(key, value string) {
	t := s.track
	if t == nil || !s.isOpen() {
		return
	}
	key, value = key[:min(len(key), maxSpanName)], value[:min(len(value), maxArgText)]
	words := 4 + textWords(key) + textWords(value)
	w := t.write(words)
	if w == nil {
		return
	}
	w[0], w[1] = uint64(headOf(kindProp, 0, int(s.depth), 0)), uint64(ticks())
	putProperty(w[2:], key, value)
	t.done(words)
}

func (s Scope) isOpen() bool {
	t := s.track
	return int(s.depth) < len(t.open) && t.open[s.depth].serial == s.serial
}

// spanPlaces are the sites of spans opened by name.
var spanPlaces sync.Map // placeKey → *Span

func spanAt(skip int) *Span {
	var pcs [1]uintptr
	runtime.Callers(skip+2, pcs[:])
	key := placeKey{pc: pcs[0]}
	if s, ok := spanPlaces.Load(key); ok {
		return s.(*Span)
	}
	s := &Span{site: site{kind: siteSpan, verbosity: MedVerbosity, every: 1}}
	s.own.site, s.owner = &s.site, s
	s.module, s.file, s.line = place(key.pc)
	s.target = s.module
	have := registry.intern(&s.site).owner.(*Span)
	if have.depID != 0 {
		spanPlaces.Store(key, have)
	}
	return have
}
