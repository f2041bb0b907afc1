package columnar

import (
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Kind is how a column is held in memory.
type Kind uint8

// The kinds of columns.
const (
	Text  Kind = iota + 1 // Dict and Index
	Int                   // Ints; booleans are 0 and 1
	Float                 // Floats
)

// kindOf returns the kind of a column type, or 0 for types that no built view has.
func kindOf(t tables.Type) Kind {
	switch t {
	case tables.Str, tables.DStr, tables.DBin, tables.Bin:
		return Text
	case tables.TS, tables.I32, tables.I64, tables.U32, tables.Bool:
		return Int
	case tables.F64:
		return Float
	}
	return 0
}

// Column holds the values of one column, a row each, in the one slice of its kind.
type Column struct {
	Kind   Kind
	Dict   *Dict
	Index  []int32
	Ints   []int64
	Floats []float64
}

// Repeat appends n rows with value number id of the dictionary.
func (c *Column) Repeat(id int32, n int) {
	from := len(c.Index)
	c.Index = slices.Grow(c.Index, n)[:from+n]
	fill(c.Index[from:], id)
}

// RepeatInt appends n rows with value v.
func (c *Column) RepeatInt(v int64, n int) {
	from := len(c.Ints)
	c.Ints = slices.Grow(c.Ints, n)[:from+n]
	fill(c.Ints[from:], v)
}

// AppendBool appends a row with value v.
func (c *Column) AppendBool(v bool) {
	n := int64(0)
	if v {
		n = 1
	}
	c.Ints = append(c.Ints, n)
}

// fill sets all of s to v, by doubling what is set: copying moves many values at once.
func fill[T any](s []T, v T) {
	if len(s) == 0 {
		return
	}
	s[0] = v
	for done := 1; done < len(s); done *= 2 {
		copy(s[done:], s[:done])
	}
}

// Rows is a table's rows in columns. Whoever appends must append to every column before the next use of Rows.
type Rows struct {
	Table   *tables.Table
	Columns []Column
}

// NewRows returns no rows of t. It panics when t has a column of a type that no built view has.
func NewRows(t *tables.Table) *Rows {
	r := &Rows{Table: t, Columns: make([]Column, len(t.Columns))}
	for i := range t.Columns {
		k := kindOf(t.Columns[i].Type)
		if k == 0 {
			panic(fmt.Sprintf("columnar: %s.%s: type %s is not supported", t.Name, t.Columns[i].Name, t.Columns[i].Type))
		}
		r.Columns[i].Kind = k
		if k == Text {
			r.Columns[i].Dict = &Dict{}
		}
	}
	return r
}

// Len returns the number of rows.
func (r *Rows) Len() int {
	return r.Columns[len(r.Columns)-1].Len()
}

// Bytes returns about how much memory the rows take.
func (r *Rows) Bytes() int {
	n := 0
	for i := range r.Columns {
		c := &r.Columns[i]
		n += 4*len(c.Index) + 8*len(c.Ints) + 8*len(c.Floats)
		if c.Dict != nil {
			n += c.Dict.Bytes()
		}
	}
	return n
}

// Reset removes all rows and values and keeps the memory.
func (r *Rows) Reset() {
	r.Truncate(0)
	for i := range r.Columns {
		if d := r.Columns[i].Dict; d != nil {
			d.Reset()
		}
	}
}

// Grow makes room for n more rows.
func (r *Rows) Grow(n int) {
	for i := range r.Columns {
		switch c := &r.Columns[i]; c.Kind {
		case Text:
			c.Index = slices.Grow(c.Index, n)
		case Int:
			c.Ints = slices.Grow(c.Ints, n)
		default:
			c.Floats = slices.Grow(c.Floats, n)
		}
	}
}

// Truncate removes all rows from row n on, also where only some columns have them. Values of the dictionaries stay.
func (r *Rows) Truncate(n int) {
	for i := range r.Columns {
		c := &r.Columns[i]
		c.Index = c.Index[:min(n, len(c.Index))]
		c.Ints = c.Ints[:min(n, len(c.Ints))]
		c.Floats = c.Floats[:min(n, len(c.Floats))]
	}
}

// Forget tells all dictionaries that the strings of a block are gone. It must be called between blocks.
func (r *Rows) Forget() {
	for i := range r.Columns {
		if d := r.Columns[i].Dict; d != nil {
			d.Forget()
		}
	}
}

// Text returns the text of a row in a Text column, aliasing the dictionary.
func (r *Rows) Text(column, row int) string {
	c := &r.Columns[column]
	return c.Dict.text(c.Index[row])
}

// Len returns the number of rows of the column.
func (c *Column) Len() int { return len(c.Index) + len(c.Ints) + len(c.Floats) }

// AppendFrom appends a row with value number id of another Text column.
func (c *Column) AppendFrom(from *Column, id int32) {
	c.Index = append(c.Index, c.Dict.Intern(from.Dict.text(id)))
}
