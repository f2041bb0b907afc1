package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// A layout table is compiled once per stream. Whatever depends on the registration alone is decided here: that members lie inside their
// type, that type names are known, that nothing nests for ever. What is wrong with a type is kept as its plan's err and becomes an
// error of the first block with an instance of it, since producers register types that they never send. Decoding a block then only checks
// that instances lie inside the buffer and that references resolve.
const (
	maxTypes       = 256 // a type index is one byte
	maxTypeNesting = 16  // types within types
	maxTypeFields  = 256 // members of one type, nested ones included
	referenceSize  = 8   // bytes of a reference that count
)

// kind says how the bytes of a field are read.
type kind uint8

const (
	kindNone kind = iota
	kindU8
	kindU32
	kindU64
	kindI64
	kindF64
	kindRef    // the id of a dependency
	kindObject // a nested type
)

// size returns the width of an intrinsic kind.
func (k kind) size() uint32 {
	switch k {
	case kindU8:
		return 1
	case kindU32:
		return 4
	}
	return 8
}

// intrinsicKind returns the kind of an intrinsic type name, kindNone for any other.
func intrinsicKind(name string) kind {
	switch name {
	case "u8", "uint8":
		return kindU8
	case "u32", "uint32":
		return kindU32
	case "u64", "uint64":
		return kindU64
	case "i64", "int64":
		return kindI64
	case "f64":
		return kindF64
	}
	return kindNone
}

// leaf is where a value lies in an instance. The zero leaf is a missing one.
type leaf struct {
	kind   kind
	offset uint32
}

// field is a named value of a type; offsets count from the start of the outermost instance.
type field struct {
	leaf
	name   string
	nested *plan // of kindObject
}

// plan is a compiled type.
type plan struct {
	name      string
	size      uint32 // 0 = each instance brings its own
	reference bool   // an instance stands for its field "id"
	fields    []field
	refs      []uint32 // offsets of all references, nested ones included, sorted
	allRefs   []uint32 // the same, an offset as often as members share it
	nodes     int      // members, nested ones included
	err       error    // why no instance can be read from its members
}

// leaf returns where the named field lies; the first of that name counts.
func (p *plan) leaf(name string) leaf {
	for i := range p.fields {
		if p.fields[i].name == name {
			return p.fields[i].leaf
		}
	}
	return leaf{}
}

var (
	errNoID        = errors.New("reference type has no member id")
	errTypeNesting = fmt.Errorf("types nest more than %d deep", maxTypeNesting)
	errTypeFields  = fmt.Errorf("more members than bytes, or than %d", maxTypeFields)
)

// table is a compiled layout table.
type table struct {
	types  []telemetry.Type
	byName map[string]int // first of that name
	plans  []plan         // by type index
}

func compile(types []telemetry.Type) *table {
	t := &table{types: types, byName: make(map[string]int, len(types))}
	for i := range types {
		if _, ok := t.byName[types[i].Name]; !ok {
			t.byName[types[i].Name] = i
		}
	}
	t.plans = make([]plan, min(len(types), maxTypes))
	for i := range t.plans {
		t.plans[i] = t.plan(i)
	}
	return t
}

// plan compiles the type at index i.
func (t *table) plan(i int) plan {
	udt := &t.types[i]
	p := plan{name: udt.Name, size: udt.Size, reference: udt.IsReference}
	if udt.Size == 0 {
		return p
	}
	c := compilation{table: t, limit: int(min(udt.Size, maxTypeFields))}
	p.fields, p.err = c.members(i, 0, 0)
	if p.err == nil && p.reference && p.leaf("id").kind == kindNone {
		p.err = errNoID
	}
	if p.err != nil {
		p.err = fmt.Errorf("type %s: %w", udt.Name, p.err)
	}
	p.allRefs, p.nodes = c.refs, c.visited
	p.refs = slices.Compact(slices.Sorted(slices.Values(c.refs)))
	return p
}

// lookup compiles the named type; ok is false when the table does not list it.
func (t *table) lookup(name string) (p plan, ok bool) {
	i, ok := t.byName[name]
	if !ok {
		return plan{}, false
	}
	if i < len(t.plans) {
		return t.plans[i], true
	}
	return t.plan(i), true
}

// compilation is the work on one outermost type.
type compilation struct {
	table   *table
	refs    []uint32
	visited int
	limit   int // of visited: members take at least a byte each, or reading an object could cost more than its bytes
}

// members compiles the members of type i, whose instance begins at base.
func (c *compilation) members(i int, base uint32, depth int) ([]field, error) {
	if depth >= maxTypeNesting {
		return nil, errTypeNesting
	}
	udt := &c.table.types[i]
	fields := make([]field, 0, min(len(udt.Members), maxTypeFields))
	for j := range udt.Members {
		if c.visited++; c.visited > c.limit {
			return nil, errTypeFields
		}
		f, err := c.member(&udt.Members[j], udt.Size, base, depth)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", udt.Members[j].Name, err)
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func (c *compilation) member(m *telemetry.Member, window, base uint32, depth int) (field, error) {
	f := field{name: m.Name, leaf: leaf{offset: base + m.Offset}}
	if outside(m.Offset, m.Size, window) || uint64(base)+uint64(m.Offset) > math.MaxUint32 {
		return f, fmt.Errorf("exceeds its type of %d bytes", window)
	}
	if m.IsReference {
		if m.Size < referenceSize {
			return f, fmt.Errorf("reference of %d bytes", m.Size)
		}
		f.kind = kindRef
		c.refs = append(c.refs, f.offset)
		return f, nil
	}
	if k := intrinsicKind(m.TypeName); k != kindNone {
		if m.Size != k.size() {
			return f, fmt.Errorf("%s of %d bytes", m.TypeName, m.Size)
		}
		f.kind = k
		return f, nil
	}
	return c.nested(m, f, window, depth)
}

// nested compiles a member whose type is another one of the table. A member of a reference type becomes the field that stands for it.
func (c *compilation) nested(m *telemetry.Member, f field, window uint32, depth int) (field, error) {
	i, ok := c.table.byName[m.TypeName]
	if !ok {
		return f, fmt.Errorf("unknown type %s", m.TypeName)
	}
	udt := &c.table.types[i]
	if outside(m.Offset, udt.Size, window) {
		return f, fmt.Errorf("nested type %s exceeds %d bytes", m.TypeName, window)
	}
	fields, err := c.members(i, f.offset, depth+1)
	if err != nil {
		return f, err
	}
	sub := &plan{name: udt.Name, size: udt.Size, fields: fields}
	if !udt.IsReference {
		f.kind, f.nested = kindObject, sub
		return f, nil
	}
	for _, id := range fields {
		if id.name == "id" {
			id.name = m.Name
			return id, nil
		}
	}
	return f, errNoID
}

func outside(offset, size, window uint32) bool { return uint64(offset)+uint64(size) > uint64(window) }
