package wire

import "encoding/binary"

// NetKind says what a net event is.
type NetKind uint8

// The kinds of net events.
const (
	NetKindConnectionBegin NetKind = iota + 1
	NetKindConnectionEnd
	NetKindObjectBegin
	NetKindObjectEnd
	NetKindRPCBegin
	NetKindRPCEnd
	NetKindProperty
)

// NetEvent is one step of what a process sent or received.
type NetEvent struct {
	Ticks    int64  // absolute
	Name     string // of what begins, or of the property; none at ends
	Bits     uint32 // of what ends, or of the property; none at begins
	Index    int32  // in the block, where every event counts
	Kind     NetKind
	Outgoing bool // of a connection that begins
}

// NetBlock is what a block of net events holds. It may be used again: its list is then overwritten, but no text that it holds. The
// texts of a block share memory.
type NetBlock struct {
	Events  []NetEvent
	Objects int // events of all types
}

func (n *NetBlock) reset() {
	clear(n.Events)
	n.Events, n.Objects = n.Events[:0], 0
}

// netPlan is where an event type keeps what Nets needs of it.
type netPlan struct {
	kind     NetKind
	err      error // why no instance can be read
	time     leaf
	name     leaf // without a kind: none
	bits     leaf
	outgoing leaf
}

func netKindOf(name string) (kind NetKind, nameMember string) {
	switch name {
	case "NetConnectionBeginEvent":
		return NetKindConnectionBegin, "connection_name"
	case "NetConnectionEndEvent":
		return NetKindConnectionEnd, ""
	case "NetObjectBeginEvent":
		return NetKindObjectBegin, "object_name"
	case "NetObjectEndEvent":
		return NetKindObjectEnd, ""
	case "NetRPCBeginEvent":
		return NetKindRPCBegin, "function_name"
	case "NetRPCEndEvent":
		return NetKindRPCEnd, ""
	case "NetPropertyEvent":
		return NetKindProperty, "property_name"
	}
	return 0, ""
}

func newNetPlan(pl *eventPlan) netPlan {
	kind, nameMember := netKindOf(pl.name)
	if kind == 0 || pl.size == 0 || pl.reference {
		return netPlan{}
	}
	p := netPlan{kind: kind, time: pl.leaf("time")}
	sound := p.time.kind == kindU64 || p.time.kind == kindI64
	if nameMember != "" {
		p.name = pl.leaf(nameMember)
		sound = sound && p.name.kind == kindRef
	}
	if nameMember == "" || kind == NetKindProperty {
		p.bits = pl.leaf("bit_size")
		sound = sound && (p.bits.kind == kindU32 || p.bits.kind == kindU8)
	}
	if kind == NetKindConnectionBegin {
		p.outgoing = pl.leaf("is_outgoing")
		sound = sound && p.outgoing.kind == kindU8
	}
	switch {
	case pl.err != nil:
		p.err = pl.err
	case !sound:
		p.err = errNoRow
	}
	return p
}

// Nets reads the net events of b into dst, in their order. Other events are skipped and counted. After an error, which is a
// *CorruptError, dst is empty.
func (d *Decoder) Nets(b *BlockBody, dst *NetBlock) (Counts, error) {
	defer d.end()
	dst.reset()
	buf, err := d.begin(b, modeSpans)
	if err != nil {
		return Counts{}, err
	}
	if d.nets == nil {
		d.nets = make([]netPlan, len(d.evPlans))
		for i := range d.nets {
			d.nets[i] = newNetPlan(&d.evPlans[i])
		}
	}
	for p := 0; p < len(buf); dst.Objects++ {
		at := p
		p, err = d.netEvent(b, buf, p, dst)
		if err != nil {
			dst.reset()
			return Counts{}, corruptObject(b, at, err)
		}
	}
	d.counts.Rows = len(dst.Events)
	return d.counts, nil
}

// netEvent reads the event at p and returns where the next one begins.
func (d *Decoder) netEvent(b *BlockBody, buf []byte, p int, dst *NetBlock) (int, error) {
	i := int(buf[p])
	if i >= len(d.nets) {
		return p, errTypeIndex
	}
	pl, ev := &d.nets[i], &d.evPlans[i]
	body, next, err := instance(buf, p+1, ev.size)
	switch {
	case err != nil:
		return p, err
	case pl.kind == 0:
		d.counts.Unknown++
		return next, d.checkOther(ev, body)
	case pl.err != nil:
		return p, pl.err
	}
	if err := d.checkRefs(ev.refs, body); err != nil {
		return p, err
	}
	e := NetEvent{Kind: pl.kind, Index: int32(dst.Objects), Ticks: int64(binary.LittleEndian.Uint64(body[pl.time.offset:]))}
	if pl.name.kind == kindRef {
		text, err := d.textAt(body, pl.name)
		if err != nil {
			return p, err
		}
		e.Name = d.name(text)
	}
	bits, _ := levelAt(body, pl.bits)
	outgoing, _ := levelAt(body, pl.outgoing)
	e.Bits, e.Outgoing = uint32(bits), outgoing != 0
	if cap(dst.Events) == 0 {
		dst.Events = make([]NetEvent, 0, room(b, dst.Objects, len(buf)-p, ev.size))
	}
	dst.Events = append(dst.Events, e)
	return next, nil
}
