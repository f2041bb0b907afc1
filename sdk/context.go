package sdk

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
)

// traceID is shared by the spans of one request, across processes (W3C Trace Context).
type traceID struct{ hi, lo uint64 }

func (t traceID) isZero() bool { return t == traceID{} }

// contextSpan is a span that is open in a context, and that context. It is allocated once, in 64 bytes.
type contextSpan struct {
	context.Context
	trace  traceID
	id     uint64 // 0 = it is not recorded
	parent uint64 // of the same process; of another when depth is 0
	what   *spanName
	depth  uint32
	ended  bool
}

// spanName is what a span in a context is called: by its site, or by itself.
type spanName struct {
	site *site  // nil = the span is another process's
	name string // "" = the site has the name
}

// remote is the name of other processes' spans.
var remote = new(spanName)

type spanKey struct{}

// Value implements context.Context.
func (c *contextSpan) Value(key any) any {
	if _, ok := key.(spanKey); ok {
		return c
	}
	return c.Context.Value(key)
}

// spanIn returns the span of a context, or nil.
func spanIn(ctx context.Context) *contextSpan {
	if c, ok := ctx.(*contextSpan); ok {
		return c
	}
	if ctx == nil {
		return nil
	}
	c, _ := ctx.Value(spanKey{}).(*contextSpan)
	return c
}

// ContextSpan is a span opened by Start. It may move between goroutines, one of which uses it at a time, and spans of a context may end in
// any order. nil is one that is not recorded.
type ContextSpan contextSpan

// Start opens a span inside the one of ctx, and returns a context with it and the span, which any goroutine may end:
//
//	ctx, span := handle.Start(ctx)
//	defer span.End()
//
// The first span of a request, without one in ctx, begins a trace.
func (s *Span) Start(ctx context.Context) (context.Context, *ContextSpan) {
	if n := s.on.Load(); n != 0 {
		return s.start(ctx, n, "")
	}
	return ctx, nil
}

// StartNamed is Start for a span with a name of its own, of which the first 1,024 bytes count.
func (s *Span) StartNamed(ctx context.Context, name string) (context.Context, *ContextSpan) {
	if n := s.on.Load(); n != 0 {
		return s.start(ctx, n, name[:min(len(name), maxSpanName)])
	}
	return ctx, nil
}

// StartSpan opens a span from where no site is declared, at the cost of a walk of one frame of the stack, some 0.15 µs.
func StartSpan(ctx context.Context, name string) (context.Context, *ContextSpan) {
	return spanAt(1).StartNamed(ctx, name)
}

func (s *Span) start(ctx context.Context, n uint32, name string) (context.Context, *ContextSpan) {
	if n != 1 && !sampled(n) {
		return ctx, nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	c := &contextSpan{Context: ctx, what: &s.own}
	if name != "" {
		c.what = &spanName{&s.site, name}
	}
	if p := spanIn(ctx); p != nil {
		c.trace, c.parent = p.trace, p.id
		if p.what != remote {
			c.depth = p.depth + 1
		}
	}
	c.write(kindAsyncBegin)
	return c, (*ContextSpan)(c)
}

// asyncWords is what the records of a span hold beside its name.
const asyncWords = 2 + 3 + 3

// write records an edge of the span. At the begin the span gets its id, and without a parent a trace.
func (c *contextSpan) write(k kind) {
	n := asyncWords + textWords(c.what.name)
	t := ticks()
	l, w := write(n)
	if w == nil {
		return
	}
	if c.id == 0 {
		c.id = l.nextSpanID()
		if c.trace.isZero() {
			c.trace = traceID{l.spanIDs.trace, mix(c.id)}
		}
	}
	w[0], w[1] = uint64(headOf(k, flagHasTrace, n, c.what.site.id)), uint64(t)
	w[2], w[3], w[4] = c.trace.hi, c.trace.lo, c.id
	w[5], w[6], w[7] = c.parent, uint64(c.depth), uint64(len(c.what.name))
	if c.what.name != "" {
		putText(w[asyncWords:], c.what.name)
	}
	l.release(n)
}

// idsAtOnce is how many ids a lane takes from all.
const idsAtOnce = 1 << 12

// lastSpanID begins anywhere, so that ids of two processes that share a trace differ; ids stay positive as int64.
var lastSpanID = func() *atomic.Uint64 {
	n := new(atomic.Uint64)
	n.Store(rand.Uint64()>>2 | 1)
	return n
}()

// nextSpanID returns a new id. The lane is pinned.
func (l *lane) nextSpanID() uint64 {
	r := &l.spanIDs
	if r.next == r.end {
		r.end = lastSpanID.Add(idsAtOnce)
		r.next = r.end - idsAtOnce
		r.trace = rand.Uint64() | 1
	}
	r.next++
	return r.next
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014), one to one: half a trace id is random for some thousand traces of a
// lane, the other half is mixed from what no other of them has.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// End closes the span. To end it again does nothing.
func (s *ContextSpan) End() {
	if s == nil || s.id == 0 || s.ended {
		return
	}
	s.ended = true
	(*contextSpan)(s).write(kindAsyncEnd)
}

// Set gives the span properties, beside those that it has.
func (s *ContextSpan) Set(p *Properties) {
	if s == nil || p == nil || s.id == 0 || s.ended {
		return
	}
	c := (*contextSpan)(s)
	l, w := writeWith(kindAsyncProps, c.what.site.id, c, p, 0)
	if w != nil {
		l.release(len(w))
	}
}

// SetText gives the span one property, of a value that need not be one of few.
func (s *ContextSpan) SetText(key, value string) {
	if s == nil || s.id == 0 || s.ended {
		return
	}
	c := (*contextSpan)(s)
	key, value = key[:min(len(key), maxSpanName)], value[:min(len(value), maxArgText)]
	size := 2 + textWords(key) + textWords(value)
	l, w := writeWith(kindAsyncProp, c.what.site.id, c, nil, size)
	if w == nil {
		return
	}
	putProperty(w[len(w)-size:], key, value)
	l.release(len(w))
}

// ID returns the span's id as queries show it, and the trace's as 32 hexadecimal digits.
func (s *ContextSpan) ID() (span int64, trace string) {
	if s == nil {
		return 0, ""
	}
	return int64(s.id), s.trace.String()
}

// String returns the trace id as 32 hexadecimal digits.
func (t traceID) String() string {
	b := t.bytes()
	return hex.EncodeToString(b[:])
}

// TraceParent returns the header traceparent (W3C Trace Context, version 00) for calls made inside the span of ctx, or "" without one.
func TraceParent(ctx context.Context) string {
	c := spanIn(ctx)
	if c == nil {
		return ""
	}
	return "00-" + c.trace.String() + "-" + hex16(c.id) + "-01"
}

// WithTraceParent returns a context for what a caller in another process asks for, as the header traceparent names it: spans that begin in
// it are of the caller's trace. A header that is none leaves ctx as it is.
func WithTraceParent(ctx context.Context, header string) context.Context {
	const digits, span, end = 3, 36, 52 // offsets of the trace id, the parent's id, and what follows
	if len(header) < end+3 || header[:2] == "ff" || header[2] != '-' || header[span-1] != '-' || header[end] != '-' {
		return ctx
	}
	hi, err1 := strconv.ParseUint(header[digits:digits+16], 16, 64)
	lo, err2 := strconv.ParseUint(header[digits+16:span-1], 16, 64)
	id, err3 := strconv.ParseUint(header[span:end], 16, 64)
	if err1 != nil || err2 != nil || err3 != nil || hi|lo == 0 || id == 0 {
		return ctx
	}
	return &contextSpan{Context: ctx, trace: traceID{hi, lo}, id: id, what: remote}
}

// WithTrace is WithTraceParent for ids that came in another way; parent may be 0.
func WithTrace(ctx context.Context, trace [16]byte, parent uint64) context.Context {
	t := traceOf(trace)
	if t.isZero() {
		return ctx
	}
	return &contextSpan{Context: ctx, trace: t, id: parent, what: remote}
}

func (t traceID) bytes() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:8], t.hi)
	binary.BigEndian.PutUint64(b[8:], t.lo)
	return b
}

func traceOf(b [16]byte) traceID {
	return traceID{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// hex16 returns a number as 16 hexadecimal digits.
func hex16(n uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return hex.EncodeToString(b[:])
}
