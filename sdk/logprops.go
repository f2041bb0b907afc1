package sdk

import (
	"context"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Bounds of the properties in one record: what is beyond is left out, and counted as cut.
const (
	maxInlineProps = 256
	maxInlineBytes = 1 << 20 // of all keys and values
	maxSharedWords = 1 << 7  // of properties that entries of a block share; longer ones are written for each
)

// LogProps is LogText for properties of many values, such as the attributes of a library of structured logging: they travel inside the
// record, so nothing of them is kept for the life of the process, as Props does. An entry has at most 256 properties with 1 MiB of text; the
// last value of a key counts. The caller keeps props.
func LogProps(ctx context.Context, pc uintptr, target string, level Level, msg string, props []telemetry.Property) {
	l := logFor(placeKey{pc: pc, level: level, target: target}, "")
	if n := l.on.Load(); n == 0 || !sampled(n) {
		return
	}
	if len(props) == 0 {
		l.message(spanIn(ctx), nil, msg)
		return
	}
	l.inline(spanIn(ctx), msg, props)
}

// LevelEnabled reports whether LogText and LogProps record a level for at least one target. It is for a library of logging that asks before
// it knows the place.
func LevelEnabled(level Level) bool {
	if running.Load() == nil {
		return false
	}
	registry.mu.Lock()
	defer registry.mu.Unlock()
	l := &registry.limits
	if !l.running || level > StaticMaxLevel {
		return false
	}
	if level <= l.level {
		return true
	}
	for _, t := range l.targets {
		if level <= t {
			return true
		}
	}
	return false
}

// inline records an entry with properties in its record:
//
//	bytes of the message, message,
//	for each property: bytes of the key << 32 | bytes of the value, key, value
func (l *Log) inline(span *contextSpan, msg string, props []telemetry.Property) {
	if len(msg) > wire.MaxMessageBytes {
		msg = msg[:wire.MaxMessageBytes] // the recorder cuts at a character
		drops.add(dropCut, 1)
	}
	n, sum, words := 0, 0, 0
	for n < min(len(props), maxInlineProps) {
		p := &props[n]
		if sum += len(p.Key) + len(p.Value); sum > maxInlineBytes {
			break
		}
		words += 1 + textWords(p.Key) + textWords(p.Value)
		n++
	}
	if n < len(props) {
		drops.add(dropCut, 1)
	}
	size := 1 + textWords(msg) + words
	lane, w := writeWith(kindLogProps, l.id, span, nil, size)
	if w == nil {
		return
	}
	at := w[len(w)-size:]
	at[0] = uint64(len(msg))
	at = putPadded(at[1:], msg)
	for i := range props[:n] {
		p := &props[i]
		at[0] = uint64(len(p.Key))<<32 | uint64(len(p.Value))
		at = putPadded(putPadded(at[1:], p.Key), p.Value)
	}
	lane.release(len(w))
}

// putPadded copies a text into words, fills its last word with zeros, so that equal texts are equal words, and returns the words behind it.
func putPadded(w []uint64, s string) []uint64 {
	n := textWords(s)
	if n > 0 {
		w[n-1] = 0
		putText(w[:n], s)
	}
	return w[n:]
}

// logInline appends an entry with properties in its record; false = the record makes no sense.
func (r *recorder) logInline(e *event) bool {
	if len(e.rest) == 0 || e.rest[0] > wire.MaxMessageBytes {
		return false
	}
	n := int(e.rest[0])
	msg, rest, ok := takeText(e.rest[1:], n)
	if !ok {
		return false
	}
	e.inline = rest
	r.log(e, msg)
	return true
}

// takeText returns the text of n bytes at the begin of words, and the words behind it. The text is valid as long as the words are.
func takeText(w []uint64, n int) (s string, rest []uint64, ok bool) {
	words := (n + wordBytes - 1) / wordBytes
	if n < 0 || words > len(w) {
		return "", nil, false
	}
	if n > 0 {
		s = textIn(w, n)
	}
	return s, w[words:], true
}

// inlineSet returns the id of the set of an entry with properties in its record. Equal small ones of a block share a set. A set takes some 50
// bytes of the block's dependencies, whose size cuts it; so what is remembered stays within some 10 MiB.
func (b *builder) inlineSet(e *event) uint64 {
	key := setKey{trace: e.trace, span: e.span}
	shared := len(e.inline) <= maxSharedWords
	if shared {
		key.inline = textIn(e.inline, len(e.inline)*wordBytes)
		if id, ok := b.sets[key]; ok {
			return id
		}
	}
	props := inlineProps(e.inline)
	if e.head.has(flagHasTrace) {
		b.traces[e.trace] = true
		props = append(props, spanProps(e)...)
	}
	id := b.ownSet(telemetry.SortProperties(props))
	if shared {
		key.inline = strings.Clone(key.inline) // it lies in a chunk
		b.sets[key] = id
	}
	return id
}

// inlineProps returns the properties in a record, as rows may hold them. They are valid as long as the words are.
func inlineProps(w []uint64) []telemetry.Property {
	var props []telemetry.Property
	for len(w) > 0 {
		var p telemetry.Property
		var ok bool
		sizes := w[0]
		if p.Key, w, ok = takeText(w[1:], int(sizes>>32)); !ok {
			break
		}
		if p.Value, w, ok = takeText(w, int(uint32(sizes))); !ok {
			break
		}
		props = append(props, cleanProperty(p))
	}
	return props
}
