package sdk

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Log is a call site of log entries. Make it a package variable.
type Log struct{ site }

// NewLog declares a log site. The format is a message, or one with verbs of package fmt for the arguments of Log.Log. The target is the
// package that calls NewLog, unless the option Target names another.
func NewLog(level Level, format string, options ...SiteOption) *Log {
	l := &Log{site{kind: siteLog, level: level, text: format}}
	l.owner = l
	return registry.add(1, &l.site, options).(*Log)
}

// Log records an entry with the site's message, or with the message that its format makes of args. A site with verbs needs args, and the
// formatting is done later, on another goroutine; texts are copied at once.
func (l *Log) Log(args ...Arg) {
	if l.on.Load() != 0 {
		l.plain(args)
	}
}

// LogIn is Log for what happens inside a span: the entry carries the properties trace_id and span_id of the span in ctx, if there is one.
func (l *Log) LogIn(ctx context.Context, args ...Arg) {
	if n := l.on.Load(); n != 0 {
		l.log(n, spanIn(ctx), nil, args)
	}
}

// plain records an entry without span and properties. Arguments are written where they belong as they are looked at; the rare entry for
// which there is no room left is begun again by log, which measures first.
func (l *Log) plain(args []Arg) {
	t := ticks()
	lane := pin()
	w := lane.words[lane.used:]
	if l.on.Load() != 1 || len(w) < 3+len(args) || len(args) > maxArgs {
		lane.unpin()
		l.log(l.on.Load(), nil, nil, args)
		return
	}
	k, n := kindLog, 2
	if len(args) > 0 {
		k, n = kindLogArgs, 2+fitArgs(w[2:], args)
	}
	if n < 3 && len(args) > 0 {
		lane.unpin()
		l.log(1, nil, nil, args)
		return
	}
	w[0], w[1] = uint64(headOf(k, 0, n, l.id)), uint64(t)
	lane.release(n)
}

// With returns the site with properties for its next entry.
func (l *Log) With(p *Properties) LogWith { return LogWith{l, p} }

// LogWith is a site with properties.
type LogWith struct {
	log   *Log
	props *Properties
}

// Log is Log.Log with the properties.
func (w LogWith) Log(args ...Arg) {
	if n := w.log.on.Load(); n != 0 {
		w.log.log(n, nil, w.props, args)
	}
}

// LogIn is Log.LogIn with the properties.
func (w LogWith) LogIn(ctx context.Context, args ...Arg) {
	if n := w.log.on.Load(); n != 0 {
		w.log.log(n, spanIn(ctx), w.props, args)
	}
}

// log records an entry.
func (l *Log) log(n uint32, span *contextSpan, props *Properties, args []Arg) {
	if n == 0 || n != 1 && !sampled(n) {
		return
	}
	k, size := kindLog, 0
	if len(args) > 0 {
		args = args[:min(len(args), maxArgs)]
		k, size = kindLogArgs, argsWords(args)
	}
	lane, w := writeWith(k, l.id, span, props, size)
	if w == nil {
		return
	}
	if size > 0 {
		fitArgs(w[len(w)-size:], args)
	}
	lane.release(len(w))
}

// writeWith is write for a record with a span and properties, of which it writes the head, and size words behind.
func writeWith(k kind, site uint32, span *contextSpan, props *Properties, size int) (*lane, []uint64) {
	n, flags := 2+size, uint64(0)
	if props != nil {
		n, flags = n+1, flagHasProps
	}
	if span != nil {
		n, flags = n+3, flags|flagHasTrace
	}
	if n > maxRecord {
		drops.add(dropSize, 1)
		return nil, nil
	}
	l, w := write(n)
	if w == nil {
		return nil, nil
	}
	w[0], w[1] = uint64(headOf(k, flags, n, site)), uint64(ticks())
	at := 2
	if props != nil {
		w[at] = uint64(props.no)
		at++
	}
	if span != nil {
		w[at], w[at+1], w[at+2] = span.trace.hi, span.trace.lo, span.id
	}
	return l, w
}

// message records an entry whose message is made.
func (l *Log) message(span *contextSpan, props *Properties, msg string) {
	if len(msg) > wire.MaxMessageBytes {
		msg = msg[:wire.MaxMessageBytes] // the recorder cuts at a character
		drops.add(dropCut, 1)
	}
	size := 1 + textWords(msg)
	lane, w := writeWith(kindLogText, l.id, span, props, size)
	if w == nil {
		return
	}
	text := w[len(w)-size:]
	text[0] = uint64(len(msg))
	putText(text[1:], msg)
	lane.release(len(w))
}

// Logf records an entry from where no site is declared. It costs a walk of one frame of the stack and the formatting, some 0.3 µs; the place
// of the call becomes a site of its own. With a span in ctx, the entry carries the span's ids.
func Logf(ctx context.Context, level Level, format string, args ...any) {
	l := logAt(1, level, format)
	if n := l.on.Load(); n == 0 || !sampled(n) {
		return
	}
	l.message(spanIn(ctx), nil, fmt.Sprintf(format, args...))
}

// LogText records an entry for another library of logging, which knows its place as a return address (0 = unknown): target "" is the
// package of the place. The site of the place is found in a map; props may be nil.
func LogText(ctx context.Context, pc uintptr, target string, level Level, props *Properties, msg string) {
	l := logFor(placeKey{pc: pc, level: level, target: target}, "")
	if n := l.on.Load(); n == 0 || !sampled(n) {
		return
	}
	l.message(spanIn(ctx), props, msg)
}

// TextEnabled reports whether LogText with these arguments records.
func TextEnabled(target string, level Level) bool {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	return registry.limits.allow(&site{kind: siteLog, level: level, target: target})
}

// placeKey names the site of a place in the program.
type placeKey struct {
	pc     uintptr
	level  Level
	target string
}

// places are the sites of Logf and its like.
var places sync.Map // placeKey → *Log

func logAt(skip int, level Level, format string) *Log {
	var pcs [1]uintptr
	runtime.Callers(skip+2, pcs[:])
	return logFor(placeKey{pc: pcs[0], level: level}, format)
}

// logFor returns the site of a place. Its format is that of the first entry: others may differ, and each brings its message.
func logFor(key placeKey, format string) *Log {
	if l, ok := places.Load(key); ok {
		return l.(*Log)
	}
	l := &Log{site{kind: siteLog, level: key.level, text: format, verbosity: MedVerbosity, every: 1}}
	if key.pc != 0 {
		l.module, l.file, l.line = place(key.pc)
	}
	if l.target = key.target; l.target == "" {
		l.target = l.module
	}
	l.owner = l
	have := registry.intern(&l.site).owner.(*Log)
	if have.depID != 0 {
		places.Store(key, have) // bounded as the sites are, but for places that share a line
	}
	return have
}
