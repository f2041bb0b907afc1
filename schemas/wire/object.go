package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Object is an event or a record with all its members, as its layout names them.
type Object struct {
	Type   string
	Fields []Field // in the order of the layout; those of a custom reader in the order of the bytes
}

// Field is a named value.
type Field struct {
	Name  string
	Value Value
}

// ValueKind says which part of a Value counts.
type ValueKind uint8

// The kinds of values. The numbers are read with Uint, Int and Float.
const (
	ValueNone ValueKind = iota
	ValueU8
	ValueU32
	ValueU64
	ValueI64
	ValueF64
	ValueText       // Text, as it came: neither cut nor cleaned
	ValueBlob       // Blob, valid until the next call on the decoder
	ValueObject     // Object
	ValueProperties // Properties, in the order of the wire, repeated keys included
)

// Value is one value of an Object.
type Value struct {
	Kind       ValueKind
	Bits       uint64
	Text       string
	Blob       []byte
	Object     *Object
	Properties []telemetry.Property
}

// Uint returns an integer as it came.
func (v Value) Uint() uint64 { return v.Bits }

// Int returns an integer with the bits of a signed one.
func (v Value) Int() int64 { return int64(v.Bits) }

// Float returns a ValueF64.
func (v Value) Float() float64 { return math.Float64frombits(v.Bits) }

// Field returns the named value; the first of that name counts. A missing one has ValueNone.
func (o *Object) Field(name string) Value {
	for i := range o.Fields {
		if o.Fields[i].Name == name {
			return o.Fields[i].Value
		}
	}
	return Value{}
}

// Objects calls fn for each event of b in order, whatever its type, with its index in the block. An event of a type that cannot be read
// (its size varies and nobody knows its layout) comes without fields and is counted as unknown. The object is reused: it, its message
// texts and its blobs are valid only during the call; the objects and property sets that it refers to are shared by all events of the
// block and may be kept. The error is fn's, or a *CorruptError.
func (d *Decoder) Objects(b *BlockBody, fn func(index int, o *Object) error) (Counts, error) {
	defer d.end()
	buf, err := d.begin(b, modeObjects)
	if err != nil {
		return Counts{}, err
	}
	o := &d.obj
	index := 0
	for p := 0; p < len(buf); index++ {
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
		o.Type, o.Fields = pl.name, o.Fields[:0]
		if err := d.object(pl, body, o); err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		if pl.size == 0 && pl.reader == readerNone {
			d.counts.Unknown++
		} else {
			d.counts.Rows++
		}
		if err := fn(index, o); err != nil {
			return Counts{}, err
		}
	}
	return d.counts, nil
}

// object reads one event into o.
func (d *Decoder) object(pl *eventPlan, body []byte, o *Object) (err error) {
	if pl.size == 0 {
		return d.dynamicObject(pl, body, o)
	}
	if pl.err != nil {
		return pl.err
	}
	o.Fields, err = d.appendFields(o.Fields, pl.fields, body)
	return err
}

// appendFields appends the values of a static type.
func (d *Decoder) appendFields(dst []Field, fields []field, body []byte) ([]Field, error) {
	for i := range fields {
		f := &fields[i]
		v, err := d.value(f, body)
		if err != nil {
			return dst, fmt.Errorf("member %s: %w", f.name, err)
		}
		dst = append(dst, Field{Name: f.name, Value: v})
	}
	return dst, nil
}

func (d *Decoder) value(f *field, body []byte) (v Value, err error) {
	b := body[f.offset:]
	switch f.kind {
	case kindU8:
		return Value{Kind: ValueU8, Bits: uint64(b[0])}, nil
	case kindU32:
		return Value{Kind: ValueU32, Bits: uint64(binary.LittleEndian.Uint32(b))}, nil
	case kindU64:
		return Value{Kind: ValueU64, Bits: binary.LittleEndian.Uint64(b)}, nil
	case kindI64:
		return Value{Kind: ValueI64, Bits: binary.LittleEndian.Uint64(b)}, nil
	case kindF64:
		return Value{Kind: ValueF64, Bits: binary.LittleEndian.Uint64(b)}, nil
	case kindRef:
		return d.referenced(binary.LittleEndian.Uint64(b))
	}
	o := &Object{Type: f.nested.name, Fields: make([]Field, 0, len(f.nested.fields))}
	o.Fields, err = d.appendFields(o.Fields, f.nested.fields, body)
	return Value{Kind: ValueObject, Object: o}, err
}

// referenced returns a dependency.
func (d *Decoder) referenced(id uint64) (Value, error) {
	ref, ok := d.ids.find(id)
	if !ok {
		return Value{}, fmt.Errorf("%w %d", errUnresolved, id)
	}
	switch ref.kind() {
	case depText:
		return Value{Kind: ValueText, Text: d.texts[ref.index()].raw}, nil
	case depObject:
		return Value{Kind: ValueObject, Object: d.objects[ref.index()].Object}, nil
	}
	return Value{Kind: ValueProperties, Properties: d.sets[ref.index()].wire}, nil
}

// buildDependency decodes a record whole. Records refer to earlier ones, so they nest as deep as a block is long, and a walk over one
// may meet another many times: both are bounded here, for whoever walks them.
func (d *Decoder) buildDependency(pl *plan, body []byte) (object, error) {
	o := object{Object: &Object{Type: pl.name}, nodes: pl.nodes, depth: 1}
	if d.fields += pl.nodes; d.fields > maxObjectFields {
		return o, errManyDeps
	}
	for _, off := range pl.allRefs {
		if ref, ok := d.ids.find(binary.LittleEndian.Uint64(body[off:])); ok && ref.kind() == depObject {
			o.nodes += d.objects[ref.index()].nodes
			o.depth = max(o.depth, d.objects[ref.index()].depth+1)
		}
	}
	if o.nodes > maxObjectNodes || o.depth > maxObjectDepth {
		return o, errObjectNodes
	}
	var err error
	o.Fields, err = d.appendFields(make([]Field, 0, len(pl.fields)), pl.fields, body)
	return o, err
}

// dynamicObject reads an event with its own size into o.
func (d *Decoder) dynamicObject(pl *eventPlan, body []byte, o *Object) error {
	if err := d.read(pl, body); err != nil {
		return err
	}
	ev := &d.ev
	d.scratch = d.scratch[:0]
	add := func(name string, v Value) { o.Fields = append(o.Fields, Field{Name: name, Value: v}) }
	reference := func(name string, id uint64) error {
		v, err := d.referenced(id)
		add(name, v)
		return err
	}
	var err error
	time := Value{Kind: ValueI64, Bits: uint64(ev.time)}
	switch pl.reader {
	case readerNone:
		return nil
	case readerLogString, readerLogStringV2:
		err = reference("desc", ev.desc)
		add("time", time)
	case readerTagged:
		if err = reference("desc", ev.desc); err == nil {
			err = reference("properties", ev.props)
		}
		add("time", time)
	case readerInteropV2, readerInteropV3, readerTaggedInterop:
		add("time", time)
		add("level", Value{Kind: levelKind(pl.reader), Bits: uint64(ev.level)})
		add("target", Value{Kind: ValueText, Text: d.texts[ev.target.index()].raw})
		if pl.reader == readerTaggedInterop {
			err = reference("properties", ev.props)
		}
	case readerImage:
		add("time", time)
		add("name", d.textValue(ev.msg))
		add("format", d.textValue(ev.format))
		add("data", Value{Kind: ValueBlob, Blob: ev.blob})
		return nil
	}
	add("msg", d.textValue(ev.msg))
	return err
}

func levelKind(r readerKind) ValueKind {
	if r == readerInteropV2 {
		return ValueU32
	}
	return ValueU8
}

// textValue returns a string of an event; it aliases the objects or the scratch buffer.
func (d *Decoder) textValue(s codedString) Value {
	if s.codec != codecWide && validPrefix(s.data) == len(s.data) {
		return Value{Kind: ValueText, Text: alias(s.data)}
	}
	start := len(d.scratch)
	d.scratch = s.append(d.scratch)
	return Value{Kind: ValueText, Text: alias(d.scratch[start:])}
}
