package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Limits bound what one block may cost. A block beyond one of them is corrupt.
type Limits struct {
	MaxBuffer       int // decompressed bytes of one buffer
	MaxDependencies int // strings, records and property sets of one block
	MaxText         int // bytes of text built from dependencies: conversions, property sets as JSON
	MaxMessages     int // sum of the lengths of the messages of all rows: a static message costs its block only a reference
}

// DefaultLimits are far above what producers send: their buffers hold 10 MiB.
var DefaultLimits = Limits{MaxBuffer: 256 << 20, MaxDependencies: 1 << 20, MaxText: 128 << 20, MaxMessages: 512 << 20}

func (l Limits) withDefaults() Limits {
	if l.MaxBuffer <= 0 {
		l.MaxBuffer = DefaultLimits.MaxBuffer
	}
	if l.MaxDependencies <= 0 {
		l.MaxDependencies = DefaultLimits.MaxDependencies
	}
	l.MaxDependencies = min(l.MaxDependencies, 1<<depIndexBits-1)
	if l.MaxText <= 0 {
		l.MaxText = DefaultLimits.MaxText
	}
	if l.MaxMessages <= 0 {
		l.MaxMessages = DefaultLimits.MaxMessages
	}
	return l
}

// Counts is what a block held.
type Counts struct {
	Rows    int // delivered
	Unknown int // events of types that make no row here, skipped
	Cut     int // texts that were too long: once for a text that rows share
	NULs    int // names with NUL characters, replaced: once for a name that rows share
}

// CorruptError says why a block cannot be decoded. Nothing of the block counts: rows already delivered must be dropped.
type CorruptError struct {
	Block  telemetry.ID
	Part   string // "dependencies" or "objects"
	Offset int    // in the decompressed part, of the object at fault
	Err    error
}

// Error names the block, the place and the reason.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt block %s: %s at %d: %v", e.Block, e.Part, e.Offset, e.Err)
}

// Unwrap returns the reason.
func (e *CorruptError) Unwrap() error { return e.Err }

// Decoder decodes the blocks of one stream, or of all streams that registered the same layouts. It reuses its buffers and is
// for one goroutine at a time.
type Decoder struct {
	limits   Limits
	deps     *table
	objs     *table
	depPlans []depPlan
	evPlans  []eventPlan
	property propertyPlan
	spans    []spanPlan // by type index of objs, from the first call of Spans
	nets     []netPlan  // the same, of Nets

	// What follows belongs to the block being decoded.
	mode     mode
	counts   Counts
	ids      idTable
	texts    []text
	records  []record
	sites    []site
	objects  []object
	sets     []set
	built    int // bytes counted against MaxText
	fields   int // fields of dependencies that were built, against maxObjectFields
	overrun  int // bytes read beyond the declared ends of dependencies, against maxOverrun
	depBuf   []byte
	objBuf   []byte
	scratch  []byte // the converted message of the current row
	ev       event
	entry    telemetry.LogEntry
	measure  telemetry.Measure
	obj      Object
	messages int     // against MaxMessages
	named    idTable // the scopes of spans that bring their names, by site and name
}

// mode says what dependencies are decoded for.
type mode uint8

const (
	modeRows     mode = iota // records with the strings that rows need
	modeObjects              // whole objects
	modeSpans                // sites of spans; property sets are only checked
	modeSpanSets             // sites of spans and property sets
)

const (
	keepBuffer = 8 << 20 // a larger buffer is not kept for the next block
	keepItems  = 1 << 16 // nor are longer lists
)

var (
	errTypeIndex     = errors.New("type index out of range")
	errPastEnd       = errors.New("object exceeds its buffer")
	errNoSize        = errors.New("object ends inside its size")
	errUnresolved    = errors.New("reference to an unknown dependency")
	errManyMessages  = errors.New("messages are too long together")
	errShortObject   = errors.New("object ends inside a field")
	errNoRow         = errors.New("event lacks a member of its row")
	errRefNotText    = errors.New("reference is not to a string")
	errNotRecord     = errors.New("reference is not to a record")
	errNotSet        = errors.New("reference is not to a property set")
	errLevelProperty = errors.New("property level names no level")
)

// NewDecoder compiles the layouts of a stream.
func NewDecoder(deps, objs []telemetry.Type, limits Limits) (*Decoder, error) {
	d := &Decoder{limits: limits.withDefaults(), deps: compile(deps), objs: compile(objs)}
	d.property = newPropertyPlan(d.deps)
	d.depPlans = make([]depPlan, len(d.deps.plans))
	for i := range d.depPlans {
		d.depPlans[i] = newDepPlan(&d.deps.plans[i])
	}
	d.evPlans = make([]eventPlan, len(d.objs.plans))
	for i := range d.evPlans {
		d.evPlans[i] = newEventPlan(d.objs, i)
	}
	return d, nil
}

// begin decodes the dependencies of b and decompresses its objects.
func (d *Decoder) begin(b *BlockBody, m mode) ([]byte, error) {
	d.mode = m
	d.counts = Counts{}
	d.built, d.fields, d.overrun, d.messages = 0, 0, 0, 0
	if at, err := d.dependencies(b.Dependencies); err != nil {
		return nil, &CorruptError{Block: b.ID, Part: "dependencies", Offset: at, Err: err}
	}
	buf, err := decompress(d.objBuf, b.Objects, d.limits.MaxBuffer)
	d.objBuf = buf
	if err != nil {
		return nil, corruptObject(b, 0, err)
	}
	return buf, nil
}

// end lets go of what a huge block left behind.
func (d *Decoder) end() {
	if cap(d.depBuf) > keepBuffer {
		d.depBuf = nil
	}
	if cap(d.objBuf) > keepBuffer {
		d.objBuf = nil
	}
	if cap(d.scratch) > keepBuffer {
		d.scratch = nil
	}
	d.texts = recycle(d.texts)
	d.records = recycle(d.records)
	d.sites = recycle(d.sites)
	d.objects = recycle(d.objects)
	d.sets = recycle(d.sets)
}

// recycle empties a list so that it holds nothing alive.
func recycle[T any](list []T) []T {
	if cap(list) > keepItems {
		return nil
	}
	clear(list)
	return list[:0]
}

func corruptObject(b *BlockBody, at int, err error) error {
	return &CorruptError{Block: b.ID, Part: "objects", Offset: at, Err: err}
}

// instance returns the body of the instance at p, whose type index was read, and where the next one begins.
func instance(buf []byte, p int, size uint32) (body []byte, next int, err error) {
	n := uint64(size)
	if n == 0 {
		if len(buf)-p < 4 {
			return nil, p, errNoSize
		}
		n = uint64(binary.LittleEndian.Uint32(buf[p:]))
		p += 4
	}
	if n > uint64(len(buf)-p) {
		return nil, p, errPastEnd
	}
	next = p + int(n)
	return buf[p:next:next], next, nil
}

// Logs calls fn for each log entry of b in order. The entry is reused; its Msg is valid only during the call. Events that are not log
// entries are skipped and counted. The error is fn's, or a *CorruptError.
func (d *Decoder) Logs(b *BlockBody, fn func(*telemetry.LogEntry) error) (Counts, error) {
	defer d.end()
	buf, err := d.begin(b, modeRows)
	if err != nil {
		return Counts{}, err
	}
	e := &d.entry
	for p := 0; p < len(buf); {
		at := p
		i := int(buf[p])
		if i >= len(d.evPlans) {
			return Counts{}, corruptObject(b, at, errTypeIndex)
		}
		pl := &d.evPlans[i]
		body, next, err := instance(buf, p+1, pl.size)
		if err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		p = next
		row, err := d.logEntry(pl, body, e)
		if err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		if !row {
			d.counts.Unknown++
			continue
		}
		if d.messages += len(e.Msg); d.messages > d.limits.MaxMessages {
			return Counts{}, corruptObject(b, at, errManyMessages)
		}
		d.counts.Rows++
		if err := fn(e); err != nil {
			return Counts{}, err
		}
	}
	return d.counts, nil
}

// Measures calls fn for each measure of b in order; c is the clock of the block, with which integer measures in ticks become seconds.
// The measure is reused; its strings may be kept. Events that are not measures are skipped and counted. The error is fn's, or a
// *CorruptError.
func (d *Decoder) Measures(b *BlockBody, c telemetry.Clock, fn func(*telemetry.Measure) error) (Counts, error) {
	defer d.end()
	buf, err := d.begin(b, modeRows)
	if err != nil {
		return Counts{}, err
	}
	m := &d.measure
	for p := 0; p < len(buf); {
		at := p
		i := int(buf[p])
		if i >= len(d.evPlans) {
			return Counts{}, corruptObject(b, at, errTypeIndex)
		}
		pl := &d.evPlans[i]
		body, next, err := instance(buf, p+1, pl.size)
		if err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		p = next
		row, err := d.oneMeasure(pl, body, c, m)
		if err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		if !row {
			d.counts.Unknown++
			continue
		}
		d.counts.Rows++
		if err := fn(m); err != nil {
			return Counts{}, err
		}
	}
	return d.counts, nil
}
