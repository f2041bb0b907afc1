package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

var errStringRef = errors.New("no layout of a string reference")

// readerKind is the custom reader of a type whose instances have no fixed size.
type readerKind uint8

const (
	readerNone readerKind = iota
	readerLogString
	readerLogStringV2
	readerInteropV2
	readerInteropV3
	readerTagged
	readerTaggedInterop
	readerImage
	readerPropertySet
)

func customReader(name string) readerKind {
	switch name {
	case "LogStringEvent":
		return readerLogString
	case "LogStringEventV2":
		return readerLogStringV2
	case "LogStringInteropEventV2":
		return readerInteropV2
	case "LogStringInteropEventV3":
		return readerInteropV3
	case "TaggedLogString":
		return readerTagged
	case "TaggedLogInteropEvent":
		return readerTaggedInterop
	case "ImageEvent":
		return readerImage
	case "PropertySetDependency":
		return readerPropertySet
	}
	return readerNone
}

// rowKind is the row that an event type makes, by its name.
type rowKind uint8

const (
	rowNone       rowKind = iota
	rowLogStatic          // level, target and message from the record
	rowLogString          // level and target from the record
	rowLogTagged          // as rowLogString, with properties that may override
	rowLogInterop         // everything from the event
	rowInteger
	rowFloat
)

func rowOf(name string) rowKind {
	switch name {
	case "LogStaticStrEvent":
		return rowLogStatic
	case "LogStringEvent", "LogStringEventV2":
		return rowLogString
	case "TaggedLogString":
		return rowLogTagged
	case "LogStaticStrInteropEvent", "LogStringInteropEventV2", "LogStringInteropEventV3", "TaggedLogInteropEvent":
		return rowLogInterop
	case "IntegerMetricEvent", "TaggedIntegerMetricEvent":
		return rowInteger
	case "FloatMetricEvent", "TaggedFloatMetricEvent":
		return rowFloat
	}
	return rowNone
}

// eventPlan is what the decoder knows of a type of the objects.
type eventPlan struct {
	plan
	reader readerKind // of an instance with its own size
	row    rowKind
	simple bool // a static type whose only reference is desc, with all that its row needs

	// Where a static type keeps what rows need.
	time, desc, props, level, target, msg, value leaf

	stringRef stringRefPlan // for readers with a string reference inside
}

// stringRefPlan is the layout of StaticStringRef or StringId inside an event with its own size.
type stringRefPlan struct {
	size uint32
	refs []uint32
	id   uint32
	err  error
}

func newEventPlan(objs *table, i int) eventPlan {
	p := objs.plans[i]
	ep := eventPlan{plan: p, row: rowOf(p.name)}
	if p.size == 0 {
		ep.reader = customReader(p.name)
		switch ep.reader {
		case readerNone:
			ep.row = rowNone
		case readerPropertySet: // has no business among the objects
			ep.err = fmt.Errorf("type %s: %w", p.name, errNotObject)
		case readerInteropV2:
			ep.stringRef = newStringRefPlan(objs, "StringId")
		case readerInteropV3, readerTaggedInterop:
			ep.stringRef = newStringRefPlan(objs, "StaticStringRef")
		}
		return ep
	}
	if p.reference {
		ep.row = rowNone
	}
	ep.time, ep.desc, ep.props = p.leaf("time"), p.leaf("desc"), p.leaf("properties")
	ep.level, ep.target, ep.msg, ep.value = p.leaf("level"), p.leaf("target"), p.leaf("msg"), p.leaf("value")
	if ep.time.kind == kindU64 {
		ep.time.kind = kindI64 // the same bits
	}
	ep.simple = p.err == nil && ep.time.kind == kindI64 && ep.desc.kind == kindRef && len(p.refs) == 1
	return ep
}

func newStringRefPlan(objs *table, name string) stringRefPlan {
	p, ok := objs.lookup(name)
	switch {
	case !ok || p.size == 0:
		return stringRefPlan{err: fmt.Errorf("%w: %s", errStringRef, name)}
	case p.err != nil:
		return stringRefPlan{err: p.err}
	case !p.reference || p.leaf("id").kind != kindRef:
		return stringRefPlan{err: fmt.Errorf("type %s: %w", name, errRefNotText)}
	}
	return stringRefPlan{size: p.size, refs: p.refs, id: p.leaf("id").offset}
}

// event is what an instance with its own size holds; a reader sets the fields that its type has.
type event struct {
	time   int64
	level  uint32
	desc   uint64
	props  uint64
	target depRef
	msg    codedString

	format codedString // images only
	blob   []byte
}

// cursor takes fields off the front of an instance; the first one that is missing makes it fail for good.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if c.err != nil || n > len(c.b) {
		c.fail(errShortObject)
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *cursor) u64() uint64 {
	if c.err != nil || len(c.b) < 8 {
		c.fail(errShortObject)
		return 0
	}
	v := binary.LittleEndian.Uint64(c.b)
	c.b = c.b[8:]
	return v
}

func (c *cursor) u32() uint32 {
	if c.err != nil || len(c.b) < 4 {
		c.fail(errShortObject)
		return 0
	}
	v := binary.LittleEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

func (c *cursor) u8() uint8 {
	if c.err != nil || len(c.b) < 1 {
		c.fail(errShortObject)
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) dynString() codedString {
	if c.err != nil {
		return codedString{}
	}
	s, n, err := dynString(c.b)
	if err != nil {
		c.err = err
		return codedString{}
	}
	c.b = c.b[n:]
	return s
}

// rest takes what is left as strict UTF-8, as the oldest types end.
func (c *cursor) rest() codedString {
	if c.err == nil && !utf8.Valid(c.b) {
		c.err = errStringUTF8
	}
	return codedString{codec: codecUTF8, data: c.b}
}

// String codecs.
const (
	codecANSI = 0 // read as UTF-8 all the same
	codecWide = 1 // UTF-16, little-endian
	codecUTF8 = 2
)

// codedString is a string with its codec, as it lies in the buffer.
type codedString struct {
	codec uint8
	data  []byte
}

// dynString reads codec u8, length u32 and the bytes of a string, and returns how long they are together.
func dynString(b []byte) (codedString, int, error) {
	if len(b) < 5 {
		return codedString{}, 0, errStringEnd
	}
	codec, n := b[0], binary.LittleEndian.Uint32(b[1:])
	switch {
	case codec > codecUTF8:
		return codedString{}, 0, errCodec
	case uint64(n) > uint64(len(b)-5):
		return codedString{}, 0, errStringEnd
	case codec == codecWide && n%2 != 0:
		return codedString{}, 0, errOddWide
	}
	return codedString{codec: codec, data: b[5 : 5+n]}, 5 + int(n), nil
}

// prefix returns as much of s as a message can use, so that converting costs no more than that.
func (s codedString) prefix() codedString {
	n := MaxMessageBytes + utf8.UTFMax
	if s.codec == codecWide {
		n *= 2
	}
	if len(s.data) > n {
		s.data = s.data[:n]
	}
	return s
}

// append appends s as UTF-8.
func (s codedString) append(dst []byte) []byte {
	if s.codec == codecWide {
		return appendUTF16(dst, s.data)
	}
	return appendLossy(dst, s.data)
}

// rowMessage returns s as the message of a row: it aliases the objects or the scratch buffer.
func (d *Decoder) rowMessage(s codedString) string {
	m := alias(s.data)
	if s.codec == codecWide || !utf8.ValidString(m) {
		d.scratch = s.prefix().append(d.scratch[:0])
		m = alias(d.scratch)
	}
	m, cut := CleanMessage(m)
	if cut {
		d.counts.Cut++
	}
	return m
}

// read reads an instance with its own size into d.ev.
func (d *Decoder) read(pl *eventPlan, body []byte) error {
	c := cursor{b: body}
	e := &d.ev
	switch pl.reader {
	case readerLogString:
		e.desc, e.time, e.msg = c.u64(), int64(c.u64()), c.rest()
	case readerLogStringV2:
		e.desc, e.time, e.msg = c.u64(), int64(c.u64()), c.dynString()
	case readerTagged:
		e.desc, e.props, e.time, e.msg = c.u64(), c.u64(), int64(c.u64()), c.dynString()
	case readerInteropV2:
		e.time, e.level = int64(c.u64()), c.u32()
		e.target = d.stringRef(&pl.stringRef, &c)
		e.msg = c.rest()
	case readerInteropV3:
		e.time, e.level = int64(c.u64()), uint32(c.u8())
		e.target = d.stringRef(&pl.stringRef, &c)
		e.msg = c.dynString()
	case readerTaggedInterop:
		e.time, e.level = int64(c.u64()), uint32(c.u8())
		e.target = d.stringRef(&pl.stringRef, &c)
		e.props, e.msg = c.u64(), c.dynString()
	case readerImage:
		e.time, e.msg, e.format = int64(c.u64()), c.dynString(), c.dynString()
		e.blob = c.take(int(c.u32()))
	case readerPropertySet:
		return pl.err
	}
	return c.err
}

// stringRef reads a reference to a string in the layout that the stream declares.
func (d *Decoder) stringRef(sp *stringRefPlan, c *cursor) depRef {
	if sp.err != nil {
		c.fail(sp.err)
		return 0
	}
	if uint64(sp.size) > uint64(len(c.b)) {
		c.fail(errShortObject)
		return 0
	}
	body := c.take(int(sp.size))
	if c.err != nil {
		return 0
	}
	if err := d.checkRefs(sp.refs, body); err != nil {
		c.fail(err)
		return 0
	}
	ref, _ := d.ids.find(binary.LittleEndian.Uint64(body[sp.id:]))
	if ref.kind() != depText {
		c.fail(errRefNotText)
	}
	return ref
}

// errOtherKind says that a reference is not to a dependency of the wanted kind.
var errOtherKind = [...]error{depText: errRefNotText, depObject: errNotRecord, depSet: errNotSet}

// indexOf returns the index of a dependency of kind k among those of its kind.
func (d *Decoder) indexOf(id uint64, k depKind) (int, error) {
	ref, ok := d.ids.find(id)
	if !ok {
		return 0, fmt.Errorf("%w %d", errUnresolved, id)
	}
	if ref.kind() != k {
		return 0, errOtherKind[k]
	}
	return ref.index(), nil
}

// recordAt does not use indexOf: a call more costs measures 4 %.
func (d *Decoder) recordAt(id uint64) (*record, error) {
	ref, ok := d.ids.find(id)
	if !ok {
		return nil, fmt.Errorf("%w %d", errUnresolved, id)
	}
	if ref.kind() != depObject {
		return nil, errNotRecord
	}
	return &d.records[ref.index()], nil
}

func (d *Decoder) setAt(id uint64) (*set, error) {
	i, err := d.indexOf(id, depSet)
	if err != nil {
		return nil, err
	}
	return &d.sets[i], nil
}

func (d *Decoder) textAt(body []byte, l leaf) (int, error) {
	if l.kind != kindRef {
		return 0, errNoRow
	}
	return d.indexOf(u64At(body, l), depText)
}

// u64At reads a compiled field of eight bytes; 0 for any other.
func u64At(body []byte, l leaf) uint64 {
	if l.kind < kindU64 || l.kind > kindRef {
		return 0
	}
	return binary.LittleEndian.Uint64(body[l.offset:])
}

// levelAt reads a u32 or a u8.
func levelAt(body []byte, l leaf) (int32, bool) {
	switch l.kind {
	case kindU8:
		return int32(body[l.offset]), true
	case kindU32:
		return int32(binary.LittleEndian.Uint32(body[l.offset:])), true
	}
	return 0, false
}

const (
	needStatic = 1<<textMsg | 1<<textTarget
	needString = 1 << textTarget
	needMetric = 1<<textTarget | 1<<textName | 1<<textUnit
)

// logEntry makes the row of an event; row is false when it makes none.
func (d *Decoder) logEntry(pl *eventPlan, body []byte, e *telemetry.LogEntry) (row bool, err error) {
	if pl.simple && pl.row == rowLogStatic {
		r, err := d.recordAt(binary.LittleEndian.Uint64(body[pl.desc.offset:]))
		if err != nil {
			return false, err
		}
		if r.has&needStatic != needStatic || !r.hasLevel {
			return false, errNoRow
		}
		e.Ticks = int64(binary.LittleEndian.Uint64(body[pl.time.offset:]))
		e.Level, e.Target, e.Msg, e.Properties = r.level, r.texts[textTarget], r.texts[textMsg], telemetry.EmptyProperties
		return true, nil
	}
	if pl.size == 0 {
		if err := d.read(pl, body); err != nil {
			return false, err
		}
		return d.dynamicLogEntry(pl, e)
	}
	if pl.err != nil {
		return false, pl.err
	}
	if err := d.checkRefs(pl.refs, body); err != nil {
		return false, err
	}
	return d.staticLogEntry(pl, body, e)
}

// dynamicLogEntry makes the row of d.ev.
func (d *Decoder) dynamicLogEntry(pl *eventPlan, e *telemetry.LogEntry) (bool, error) {
	ev := &d.ev
	e.Properties = telemetry.EmptyProperties
	switch pl.row {
	case rowLogString, rowLogTagged:
		r, err := d.recordAt(ev.desc)
		if err != nil {
			return false, err
		}
		if r.has&needString == 0 || !r.hasLevel {
			return false, errNoRow
		}
		e.Level, e.Target = r.level, r.texts[textTarget]
	case rowLogInterop:
		e.Level, e.Target = int32(ev.level), d.name(ev.target.index())
	default:
		return false, nil
	}
	if pl.reader == readerTagged || pl.reader == readerTaggedInterop {
		if err := d.applyProperties(ev.props, pl.row == rowLogTagged, e); err != nil {
			return false, err
		}
	}
	e.Ticks, e.Msg = ev.time, d.rowMessage(ev.msg)
	return true, nil
}

// staticLogEntry makes the row of an event with a fixed size from wherever its layout keeps what the row needs.
func (d *Decoder) staticLogEntry(pl *eventPlan, body []byte, e *telemetry.LogEntry) (bool, error) {
	if pl.row == rowNone || pl.row >= rowInteger {
		return false, nil
	}
	if pl.time.kind != kindI64 {
		return false, errNoRow
	}
	e.Ticks = int64(u64At(body, pl.time))
	e.Properties = telemetry.EmptyProperties
	if err := d.staticLevelAndTexts(pl, body, e); err != nil {
		return false, err
	}
	if pl.name == "TaggedLogString" || pl.name == "TaggedLogInteropEvent" {
		if pl.props.kind != kindRef {
			return false, errNoRow
		}
		return true, d.applyProperties(u64At(body, pl.props), pl.row == rowLogTagged, e)
	}
	return true, nil
}

func (d *Decoder) staticLevelAndTexts(pl *eventPlan, body []byte, e *telemetry.LogEntry) error {
	if pl.row != rowLogInterop {
		if pl.desc.kind != kindRef {
			return errNoRow
		}
		r, err := d.recordAt(u64At(body, pl.desc))
		if err != nil {
			return err
		}
		need := uint8(needString)
		if pl.row == rowLogStatic {
			need = needStatic
		}
		if r.has&need != need || !r.hasLevel {
			return errNoRow
		}
		e.Level, e.Target, e.Msg = r.level, r.texts[textTarget], r.texts[textMsg]
		if pl.row == rowLogStatic {
			return nil
		}
	} else {
		target, err := d.textAt(body, pl.target)
		if err != nil {
			return err
		}
		level, ok := levelAt(body, pl.level)
		if !ok {
			return errNoRow
		}
		e.Level, e.Target = level, d.name(target)
	}
	msg, err := d.textAt(body, pl.msg)
	if err != nil {
		return err
	}
	e.Msg = d.message(msg)
	return nil
}

// applyProperties attaches a property set to e, and lets it override target and level if it may.
func (d *Decoder) applyProperties(id uint64, override bool, e *telemetry.LogEntry) error {
	s, err := d.setAt(id)
	if err != nil {
		return err
	}
	e.Properties = s.props
	if !override {
		return nil
	}
	if s.has&(1<<textTarget) != 0 {
		e.Target = s.texts[textTarget]
	}
	switch {
	case s.level > 0:
		e.Level = s.level
	case s.level < 0:
		return errLevelProperty
	}
	return nil
}

// oneMeasure makes the row of an event; row is false when it makes none.
func (d *Decoder) oneMeasure(pl *eventPlan, body []byte, c telemetry.Clock, m *telemetry.Measure) (row bool, err error) {
	if pl.size == 0 {
		return false, d.checkDynamic(pl, body)
	}
	if !pl.simple {
		if pl.err != nil {
			return false, pl.err
		}
		if err := d.checkRefs(pl.refs, body); err != nil {
			return false, err
		}
		if pl.row >= rowInteger && (pl.time.kind != kindI64 || pl.desc.kind != kindRef) {
			return false, errNoRow
		}
	}
	if pl.row < rowInteger {
		if pl.simple {
			return false, d.checkRefs(pl.refs, body)
		}
		return false, nil
	}
	r, err := d.recordAt(binary.LittleEndian.Uint64(body[pl.desc.offset:]))
	if err != nil {
		return false, err
	}
	if r.has&needMetric != needMetric {
		return false, errNoRow
	}
	m.Ticks = int64(binary.LittleEndian.Uint64(body[pl.time.offset:]))
	m.Target, m.Name, m.Unit, m.Properties = r.texts[textTarget], r.texts[textName], r.texts[textUnit], telemetry.EmptyProperties
	if pl.name[0] == 'T' { // Tagged…
		if err := d.tagMeasure(pl, body, m); err != nil {
			return false, err
		}
	}
	return true, measureValue(pl, body, c, m)
}

func (d *Decoder) tagMeasure(pl *eventPlan, body []byte, m *telemetry.Measure) error {
	if pl.props.kind != kindRef {
		return errNoRow
	}
	s, err := d.setAt(u64At(body, pl.props))
	if err != nil {
		return err
	}
	m.Properties = s.props
	if s.has&(1<<textTarget) != 0 {
		m.Target = s.texts[textTarget]
	}
	if s.has&(1<<textName) != 0 {
		m.Name = s.texts[textName]
	}
	if s.has&(1<<textUnit) != 0 {
		m.Unit = s.texts[textUnit]
	}
	return nil
}

func measureValue(pl *eventPlan, body []byte, c telemetry.Clock, m *telemetry.Measure) error {
	bits := u64At(body, pl.value)
	switch {
	case pl.row == rowFloat && pl.value.kind == kindF64:
		m.Value = math.Float64frombits(bits)
	case pl.row == rowInteger && (pl.value.kind == kindU64 || pl.value.kind == kindI64):
		m.Value = float64(bits)
		if m.Unit == "ticks" {
			m.Value, m.Unit = c.DurationMs(int64(bits))/1000, "seconds"
		}
	default:
		return errNoRow
	}
	return nil
}

// checkDynamic checks an instance with its own size that makes no row.
func (d *Decoder) checkDynamic(pl *eventPlan, body []byte) error {
	if err := d.read(pl, body); err != nil {
		return err
	}
	switch pl.reader {
	case readerLogString, readerLogStringV2, readerTagged:
		if _, err := d.indexOf(d.ev.desc, depObject); err != nil {
			return err
		}
	}
	if pl.reader == readerTagged || pl.reader == readerTaggedInterop {
		_, err := d.indexOf(d.ev.props, depSet)
		return err
	}
	return nil
}

// checkOther checks an event that makes no row of the wanted kind.
func (d *Decoder) checkOther(pl *eventPlan, body []byte) error {
	switch {
	case pl.size == 0:
		return d.checkDynamic(pl, body)
	case pl.err != nil:
		return pl.err
	}
	return d.checkRefs(pl.refs, body)
}
