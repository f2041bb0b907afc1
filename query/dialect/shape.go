package dialect

import "slices"

// A few lines can name more columns than any engine can bind: SELECT *, * FROM (SELECT *, * FROM …) doubles them at each
// level, and so do structs of structs their fields. Binding cannot be interrupted, so the size of each relation is
// estimated from above before the engine sees the statement.

// Bounds of a relation.
const (
	maxColumns = 10_000
	maxFields  = 10_000 // of one column that is a struct
)

// shape is at least the size of a relation.
type shape struct {
	columns int
	fields  int // of its largest column; 1 for a plain value
}

// maxTableColumns is at least the number of columns of a relation that stands for a function or an instance.
const maxTableColumns = 32

// plain is the shape of relations that the engine makes: their functions have few columns.
func plain(columns int) shape { return shape{columns: columns, fields: 1} }

// and is the shape of two relations side by side.
func (s shape) and(o shape) shape {
	return shape{columns: s.columns + o.columns, fields: max(s.fields, o.fields)}
}

// shape returns the size of what a FROM clause offers. A star takes nothing from enclosing ones; a column may.
func (f *frame) shape() shape {
	all := shape{fields: 1}
	for _, r := range f.relations {
		all = all.and(r.shape)
	}
	for f = f.parent; f != nil; f = f.parent {
		for _, r := range f.relations {
			all.fields = max(all.fields, r.shape.fields)
		}
	}
	return all
}

// valuesShape is the size of VALUES: of its first row, and of the largest value in any.
func (r *rewriter) valuesShape(n *node, f *frame) shape {
	rows, largest := n.list("values"), f.shape().fields
	out := plain(maxTableColumns)
	if len(rows) > 0 {
		out.columns = len(rows[0].items)
	}
	for _, row := range rows {
		out.fields = max(out.fields, largest, r.countFields(row, largest))
	}
	return out
}

// engineShape is the size of a table function of the engine: unnest makes columns of a struct.
func (r *rewriter) engineShape(fn *node, f *frame) shape {
	largest := f.shape().fields
	return shape{columns: maxTableColumns + r.countFields(fn, largest) + largest, fields: max(largest, r.countFields(fn, largest))}
}

// sizeOf adds the items of a select list to the size of its relation, and refuses what is too large.
func (r *rewriter) sizeOf(items []*node, f *frame) (shape, error) {
	from := f.shape()
	out := shape{fields: 1}
	for _, item := range items {
		columns, fields := 1, from.fields
		switch {
		case holdsStar(item):
			columns = max(from.columns, from.fields) // of the relations, or of a struct
		case item.isFunction("unnest"):
			columns = from.fields + r.countFields(item, from.fields)
		default:
			if n := r.countFields(item, from.fields); n > 0 {
				fields = n
			}
		}
		out.columns += columns
		out.fields = max(out.fields, fields)
		if out.columns > maxColumns || out.fields > maxFields {
			return out, r.fault(item, planError("the statement has a relation of more than %d columns", maxColumns).
				withHint("name the columns that are needed in place of *"))
		}
	}
	r.widest = max(r.widest, out.fields)
	return out, nil
}

// holdsStar says whether * or COLUMNS stands anywhere in an item: each column makes one.
func holdsStar(n *node) bool {
	if n.class() == "STAR" {
		return true
	}
	if n.class() == "SUBQUERY" {
		return false
	}
	for _, m := range n.members {
		if m.value.kind != scalar && holdsStar(m.value) {
			return true
		}
	}
	return slices.ContainsFunc(n.items, holdsStar)
}

// makers are the functions whose result holds several arguments side by side.
var makers = wordSet(`struct_pack struct row named_struct struct_insert struct_update struct_concat remap_struct map map_from_entries
	list_zip array_zip union_value`)

// countFields returns the fields of the struct that an item makes, 0 when it makes none: each column in it may be as
// large as the largest that there is.
func (r *rewriter) countFields(n *node, largest int) int {
	if n.class() == "FUNCTION" && makers[lowerASCII(n.str("function_name"))] {
		return 1 + r.countColumns(n, largest)
	}
	sum := 0
	for _, m := range n.members {
		if m.value.kind != scalar {
			sum = min(sum+r.countFields(m.value, largest), maxFields+1)
		}
	}
	for _, item := range n.items {
		sum = min(sum+r.countFields(item, largest), maxFields+1)
	}
	return sum
}

// countColumns adds up what the columns and constants below n hold.
func (r *rewriter) countColumns(n *node, largest int) int {
	switch n.class() {
	case "COLUMN_REF", "STAR", "POSITIONAL_REFERENCE":
		return largest
	case "SUBQUERY":
		largest = max(largest, r.widest) // it may have columns of its own
	case "CONSTANT":
		return 1
	}
	sum := 0
	for _, m := range n.members {
		if m.value.kind != scalar {
			sum = min(sum+r.countColumns(m.value, largest), maxFields+1)
		}
	}
	for _, item := range n.items {
		sum = min(sum+r.countColumns(item, largest), maxFields+1)
	}
	return sum
}
