package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Dependencies are the constant parts of a block's events, each under an id that is unique in the block: strings, records (static
// structs of numbers and references to strings) and property sets. They are decoded once per block, before its events; events then
// share their strings.
//
// A quirk that stored data relies on: strings with a codec and property sets are read up to the end of the buffer, not to the end
// that their object declares (the next object starts at the declared end all the same). What is read that way is bounded by
// maxOverrun, or n objects could each read n bytes.
const (
	maxOverrun       = 1 << 20
	copyDependencies = 256 << 10 // dependencies up to this size are copied into the string that rows share, so the buffer stays
	maxObjectNodes   = 4096      // fields below one object, nested and referenced ones included
	maxObjectDepth   = 16        // records referring to records
	maxObjectFields  = 1 << 20   // fields of all records of a block decoded as objects
	propertyCost     = 32        // bytes counted against MaxText for a property beside its text
)

var (
	errManyDeps     = errors.New("too many dependencies")
	errDuplicateID  = errors.New("duplicate id")
	errNotObject    = errors.New("type has no reader")
	errNoObjectID   = errors.New("record has no id")
	errShortString  = errors.New("string shorter than its id")
	errStringUTF8   = errors.New("string is not UTF-8")
	errStringEnd    = errors.New("string is truncated")
	errCodec        = errors.New("unknown string codec")
	errOddWide      = errors.New("wide string of an odd length")
	errOverrun      = errors.New("too much read beyond the ends of dependencies")
	errMuchText     = errors.New("dependencies hold too much text")
	errSetShort     = errors.New("property set is truncated")
	errNoProperty   = errors.New("no layout of Property")
	errPropertyText = errors.New("property is not two strings")
	errObjectNodes  = errors.New("records nest too much")
)

// depOp says how a type of the dependencies is read.
type depOp uint8

const (
	depOpRecord depOp = iota
	depOpStaticString
	depOpDynString
	depOpSet
	depOpInvalid
)

// depPlan is what the decoder knows of a type of the dependencies.
type depPlan struct {
	*plan
	op    depOp
	err   error
	id    leaf
	texts [recordTexts]leaf
	level leaf
	file  leaf // of spans
	line  leaf
}

// The texts of a record that rows use.
const (
	textMsg = iota // fmt_str
	textTarget
	textName
	textUnit
	recordTexts
)

var recordFields = [recordTexts]string{textMsg: "fmt_str", textTarget: "target", textName: "name", textUnit: "unit"}

func newDepPlan(p *plan) depPlan {
	dp := depPlan{plan: p}
	switch {
	case p.name == "StaticString":
		dp.op = depOpStaticString
	case p.name == "StaticStringDependency":
		dp.op = depOpDynString
	case p.name == "PropertySetDependency":
		dp.op = depOpSet
	case p.size == 0 || customReader(p.name) != readerNone:
		dp.op, dp.err = depOpInvalid, fmt.Errorf("type %s: %w", p.name, errNotObject)
	case p.err != nil:
		dp.op, dp.err = depOpInvalid, p.err
	default:
		dp.id = p.leaf("id")
		for i, name := range recordFields {
			dp.texts[i] = p.leaf(name)
		}
		dp.level = p.leaf("level")
		dp.file, dp.line = p.leaf("file"), p.leaf("line")
		if !p.reference && dp.id.kind != kindU64 && dp.id.kind != kindI64 {
			dp.op, dp.err = depOpInvalid, fmt.Errorf("type %s: %w", p.name, errNoObjectID)
		}
	}
	return dp
}

// propertyPlan is the layout of one property of a set.
type propertyPlan struct {
	size        uint32
	refs        []uint32
	name, value uint32
	missing     error // no set can be read
	err         error // no property can be read
}

func newPropertyPlan(deps *table) propertyPlan {
	p, ok := deps.lookup("Property")
	if !ok || p.size == 0 {
		return propertyPlan{missing: errNoProperty}
	}
	name, value := p.leaf("name"), p.leaf("value")
	pp := propertyPlan{size: p.size, refs: p.refs, name: name.offset, value: value.offset, err: p.err}
	if pp.err == nil && (p.reference || name.kind != kindRef || value.kind != kindRef) {
		pp.err = errPropertyText
	}
	return pp
}

// text is a string of the block.
type text struct {
	raw    string
	name   string // cleaned as a name, once named
	msg    string // cleaned as a message, once worded
	named  bool
	worded bool
}

// record is what rows need of a static struct.
type record struct {
	texts    [recordTexts]string
	has      uint8 // a bit for each text
	hasLevel bool
	level    int32
}

// object is a static struct decoded whole.
type object struct {
	*Object
	nodes, depth int
}

// set is a property set.
type set struct {
	props *telemetry.PropertySet
	wire  []telemetry.Property // in the order and with the repetitions of the wire, in modeObjects
	texts [recordTexts]string  // the properties named target, name and unit
	has   uint8
	level int32 // of the property named level: 0 = no such property, -1 = it names no level
}

// dependencies decodes a block's dependencies. On an error it returns the offset of the object at fault.
func (d *Decoder) dependencies(src []byte) (int, error) {
	d.ids.reset()
	buf, err := decompress(d.depBuf, src, d.limits.MaxBuffer)
	d.depBuf = buf
	if err != nil {
		return 0, err
	}
	var s string
	if len(buf) <= copyDependencies {
		s = string(buf)
	} else {
		s = alias(buf)
		d.depBuf = nil // it belongs to the strings now
	}
	for p := 0; p < len(buf); {
		at := p
		i := int(buf[p])
		if i >= len(d.depPlans) {
			return at, errTypeIndex
		}
		pl := &d.depPlans[i]
		body, next, err := instance(buf, p+1, pl.size)
		if err != nil {
			return at, err
		}
		start := next - len(body)
		if err := d.dependency(pl, buf, s, start, next); err != nil {
			return at, err
		}
		p = next
	}
	return 0, nil
}

// dependency reads the object at buf[start:end]; s is buf as a string.
func (d *Decoder) dependency(pl *depPlan, buf []byte, s string, start, end int) error {
	switch pl.op {
	case depOpStaticString:
		return d.staticString(buf[start:end], s[start:end])
	case depOpDynString:
		return d.dynStringDependency(buf[start:], s[start:], end-start)
	case depOpSet:
		return d.propertySet(buf[start:], end-start)
	case depOpInvalid:
		return pl.err
	}
	return d.record(pl, buf[start:end])
}

func (d *Decoder) insert(id uint64, k depKind, index int) error {
	if d.ids.used >= d.limits.MaxDependencies {
		return errManyDeps
	}
	if !d.ids.insert(id, newDepRef(k, index)) {
		return fmt.Errorf("%w %d", errDuplicateID, id)
	}
	return nil
}

func (d *Decoder) insertText(id uint64, s string) error {
	d.texts = append(d.texts, text{raw: s})
	return d.insert(id, depText, len(d.texts)-1)
}

func (d *Decoder) staticString(body []byte, s string) error {
	if len(body) < 8 {
		return errShortString
	}
	if !utf8.Valid(body[8:]) {
		return errStringUTF8
	}
	return d.insertText(binary.LittleEndian.Uint64(body), s[8:])
}

// dynStringDependency reads an id and a string with a codec; declared is the length of its object, buf goes on to the end of the
// buffer.
func (d *Decoder) dynStringDependency(buf []byte, s string, declared int) error {
	if len(buf) < 8 {
		return errShortString
	}
	str, n, err := dynString(buf[8:])
	if err != nil {
		return err
	}
	if err := d.chargeOverrun(8 + n - declared); err != nil {
		return err
	}
	id := binary.LittleEndian.Uint64(buf)
	start := 8 + n - len(str.data)
	return d.convert(id, str, s[start:start+len(str.data)])
}

func (d *Decoder) chargeOverrun(n int) error {
	if n <= 0 {
		return nil
	}
	if d.overrun += n; d.overrun > maxOverrun {
		return errOverrun
	}
	return nil
}

// convert inserts a string with a codec; s is its data, used as it is when it is UTF-8 already.
func (d *Decoder) convert(id uint64, str codedString, s string) error {
	if str.codec != codecWide && utf8.Valid(str.data) {
		return d.insertText(id, s)
	}
	if len(str.data) == 0 {
		return d.insertText(id, "")
	}
	if d.mode != modeObjects {
		str = str.prefix()
	}
	if err := d.charge(len(str.data)); err != nil {
		return err
	}
	return d.insertText(id, string(str.append(nil)))
}

// charge counts text that is built beside the buffers.
func (d *Decoder) charge(n int) error {
	if d.built += n; d.built > d.limits.MaxText {
		return errMuchText
	}
	return nil
}

func (d *Decoder) record(pl *depPlan, body []byte) error {
	if err := d.checkRefs(pl.refs, body); err != nil {
		return err
	}
	if pl.reference { // stands for a dependency, and adds none unless it is an object, which has its id already
		if ref, ok := d.ids.find(u64At(body, pl.id)); pl.id.kind == kindRef && ok && ref.kind() == depObject {
			return errDuplicateID
		}
		return nil
	}
	id := u64At(body, pl.id)
	switch d.mode {
	case modeObjects:
		o, err := d.buildDependency(pl.plan, body)
		if err != nil {
			return err
		}
		d.objects = append(d.objects, o)
		return d.insert(id, depObject, len(d.objects)-1)
	case modeSpans, modeSpanSets:
		d.sites = append(d.sites, d.site(pl, body))
		return d.insert(id, depObject, len(d.sites)-1)
	}
	var r record
	for i, l := range pl.texts {
		if l.kind != kindRef {
			continue
		}
		if ref, ok := d.ids.find(u64At(body, l)); ok && ref.kind() == depText {
			if i == textMsg {
				r.texts[i] = d.message(ref.index())
			} else {
				r.texts[i] = d.name(ref.index())
			}
			r.has |= 1 << i
		}
	}
	r.level, r.hasLevel = levelAt(body, pl.level)
	d.records = append(d.records, r)
	return d.insert(id, depObject, len(d.records)-1)
}

// checkRefs reports a reference that does not resolve.
func (d *Decoder) checkRefs(refs []uint32, body []byte) error {
	for _, off := range refs {
		id := binary.LittleEndian.Uint64(body[off:])
		if _, ok := d.ids.find(id); !ok {
			return fmt.Errorf("%w %d", errUnresolved, id)
		}
	}
	return nil
}

// propertySet reads an id, a count and that many properties; declared is the length of its object.
func (d *Decoder) propertySet(buf []byte, declared int) error {
	pp := &d.property
	if pp.missing != nil {
		return pp.missing
	}
	if len(buf) < 12 {
		return errSetShort
	}
	id, count := binary.LittleEndian.Uint64(buf), int(binary.LittleEndian.Uint32(buf[8:]))
	if count > (len(buf)-12)/int(pp.size) {
		return errSetShort
	}
	if count > 0 && pp.err != nil {
		return pp.err
	}
	if err := d.chargeOverrun(12 + count*int(pp.size) - declared); err != nil {
		return err
	}
	var s set
	var props []telemetry.Property
	for i := range count {
		body := buf[12+i*int(pp.size):][:pp.size]
		p, err := d.oneProperty(body, &s)
		if err != nil {
			return err
		}
		if d.mode == modeSpans {
			continue
		}
		if props == nil {
			props = make([]telemetry.Property, 0, min(count, 64))
		}
		props = append(props, p)
	}
	switch d.mode {
	case modeObjects:
		s.wire = props
	case modeRows, modeSpanSets:
		s.props = telemetry.NewPropertySet(props)
		if err := d.charge(len(s.props.JSON)); err != nil {
			return err
		}
	}
	d.sets = append(d.sets, s)
	return d.insert(id, depSet, len(d.sets)-1)
}

// oneProperty reads a property and notes in s what it may override.
func (d *Decoder) oneProperty(body []byte, s *set) (p telemetry.Property, err error) {
	if err := d.checkRefs(d.property.refs, body); err != nil {
		return p, err
	}
	name, okName := d.ids.find(binary.LittleEndian.Uint64(body[d.property.name:]))
	value, okValue := d.ids.find(binary.LittleEndian.Uint64(body[d.property.value:]))
	if !okName || !okValue || name.kind() != depText || value.kind() != depText {
		return p, errPropertyText
	}
	switch d.mode {
	case modeSpans:
		return p, nil
	case modeObjects:
		return telemetry.Property{Key: d.texts[name.index()].raw, Value: d.texts[value.index()].raw}, d.charge(propertyCost)
	}
	p = telemetry.Property{Key: d.name(name.index()), Value: d.message(value.index())}
	switch p.Key {
	case "level":
		s.level = levelNamed(p.Value)
	case "target":
		s.override(textTarget, d.name(value.index()))
	case "name":
		s.override(textName, d.name(value.index()))
	case "unit":
		s.override(textUnit, d.name(value.index()))
	}
	return p, d.charge(propertyCost + len(p.Key) + len(p.Value))
}

func (s *set) override(i int, value string) {
	s.texts[i] = value
	s.has |= 1 << i
}

// levelNamed returns the level that a property names, -1 for none.
func levelNamed(s string) int32 {
	switch s {
	case "fatal":
		return 1
	case "error":
		return 2
	case "warning":
		return 3
	case "info":
		return 4
	case "debug":
		return 5
	case "trace":
		return 6
	}
	return -1
}

// name returns a string of the block cleaned as a name.
func (d *Decoder) name(i int) string {
	t := &d.texts[i]
	if !t.named {
		var cut, nuls bool
		t.name, cut, nuls = CleanName(t.raw)
		t.named = true
		d.tally(cut, nuls)
	}
	return t.name
}

// message returns a string of the block cleaned as a message.
func (d *Decoder) message(i int) string {
	t := &d.texts[i]
	if !t.worded {
		var cut bool
		t.msg, cut = CleanMessage(t.raw)
		t.worded = true
		d.tally(cut, false)
	}
	return t.msg
}

func (d *Decoder) tally(cut, nuls bool) {
	if cut {
		d.counts.Cut++
	}
	if nuls {
		d.counts.NULs++
	}
}
