package columnar

import (
	"fmt"
)

// Limits bound a row group and a file that a merge writes.
type Limits struct {
	RowGroupRows  int // rows of a row group
	RowGroupBytes int // memory of a row group's rows, about
	FileBytes     int // size at which a file ends and the next begins
}

// Merged receives the files of a merge in order. The bytes belong to it; summary describes the rows.
type Merged func(data []byte, summary Summary) error

// Merge reads files, each in order o, and writes their rows in that order to w, as few files. It holds one row group of each
// input and one of output, not the files' rows. No input may be used again.
func Merge(o Order, files []*File, w *Writer, limits Limits, out Merged) error {
	m := &merger{Order: o, w: w, limits: limits, out: out, rows: NewRows(w.table)}
	for _, f := range files {
		c := &cursor{file: f, rows: NewRows(w.table), remap: make([][]int32, len(w.table.Columns))}
		if err := c.load(); err != nil {
			return err
		}
		if !c.done() {
			m.inputs = append(m.inputs, c)
		}
	}
	m.w.Begin()
	for len(m.inputs) > 0 {
		if err := m.step(); err != nil {
			return err
		}
	}
	if err := m.flush(); err != nil {
		return err
	}
	return m.finish()
}

// cursor is the place in one input.
type cursor struct {
	file  *File
	group int // next row group
	rows  *Rows
	at    int       // next row of rows
	remap [][]int32 // by text column: number of each value in the output + 1; 0 = not known
}

func (c *cursor) done() bool { return c.at == c.rows.Len() }

// load reads the next row group that has rows, if there is one.
func (c *cursor) load() error {
	c.rows.Reset()
	c.at = 0
	for c.rows.Len() == 0 && c.group < c.file.RowGroups() {
		if err := c.file.ReadRowGroup(c.group, c.rows); err != nil {
			return fmt.Errorf("read row group %d: %w", c.group, err)
		}
		c.group++
	}
	c.forget()
	return nil
}

// forget drops what is known about the output's dictionaries.
func (c *cursor) forget() {
	for i := range c.remap {
		if d := c.rows.Columns[i].Dict; d != nil {
			c.remap[i] = append(c.remap[i][:0], make([]int32, d.Len())...)
		}
	}
}

// merger merges cursors.
type merger struct {
	Order
	w       *Writer
	limits  Limits
	out     Merged
	inputs  []*cursor
	rows    *Rows // the output's row group
	sel     []int32
	summary Summary
}

// step moves the rows that come first in order, from one input, to the output.
func (m *merger) step() error {
	first, second := m.leaders()
	c := m.inputs[first]
	end := c.rows.Len()
	if second >= 0 {
		end = m.runEnd(c, m.inputs[second], first < second)
	}
	if m.sum >= 0 && m.adds(c) {
		m.rows.Columns[m.sum].Ints[m.rows.Len()-1] += c.rows.Columns[m.sum].Ints[c.at]
		c.at++
	} else {
		if m.sum >= 0 {
			end = c.at + 1
		}
		end = min(end, c.at+m.limits.RowGroupRows-m.rows.Len())
		m.copy(c, end)
	}
	if c.done() {
		if err := c.load(); err != nil {
			return err
		}
		if c.done() {
			m.inputs = append(m.inputs[:first], m.inputs[first+1:]...)
		}
	}
	if m.rows.Len() >= m.limits.RowGroupRows || m.rows.Bytes() >= m.limits.RowGroupBytes {
		return m.flush()
	}
	return nil
}

// leaders returns the input whose next row comes first, and the one after it or -1. Among equals the earlier input leads.
func (m *merger) leaders() (first, second int) {
	first, second = 0, -1
	for i := 1; i < len(m.inputs); i++ {
		c := m.inputs[i]
		if f := m.inputs[first]; m.compare(c.rows, int32(c.at), f.rows, int32(f.at)) < 0 {
			first, second = i, first
			continue
		}
		if second < 0 {
			second = i
		} else if s := m.inputs[second]; m.compare(c.rows, int32(c.at), s.rows, int32(s.at)) < 0 {
			second = i
		}
	}
	return first, second
}

// runEnd returns where the rows of c that come before the next row of bound end. Text keys are compared once: within a group
// that shares them only the number counts.
func (m *merger) runEnd(c, bound *cursor, winsTies bool) int {
	if !m.counted {
		return c.at + 1
	}
	text := m.keys[:len(m.keys)-1]
	end := c.rows.Len()
	equal := true
	for _, k := range text {
		index := c.rows.Columns[k].Index
		id := index[c.at]
		i := c.at + 1
		for i < end && index[i] == id {
			i++
		}
		end = i
		equal = equal && c.rows.Text(k, c.at) == bound.rows.Text(k, bound.at)
	}
	if !equal {
		return end
	}
	last := m.keys[len(m.keys)-1]
	limit := bound.rows.Columns[last].Ints[bound.at]
	numbers := c.rows.Columns[last].Ints
	i := c.at + 1
	for i < end && (numbers[i] < limit || winsTies && numbers[i] == limit) {
		i++
	}
	return i
}

// adds reports whether the next row of c has the keys of the output's last row.
func (m *merger) adds(c *cursor) bool {
	n := m.rows.Len()
	return n > 0 && m.compare(m.rows, int32(n-1), c.rows, int32(c.at)) == 0
}

// copy appends rows of c up to end to the output.
func (m *merger) copy(c *cursor, end int) {
	for i := range m.rows.Columns {
		from, to := &c.rows.Columns[i], &m.rows.Columns[i]
		switch from.Kind {
		case Int:
			to.Ints = append(to.Ints, from.Ints[c.at:end]...)
		case Float:
			to.Floats = append(to.Floats, from.Floats[c.at:end]...)
		default:
			m.copyText(c, i, end)
		}
	}
	c.at = end
}

func (m *merger) copyText(c *cursor, column, end int) {
	from, to, remap := &c.rows.Columns[column], &m.rows.Columns[column], c.remap[column]
	dictionary := m.w.table.Columns[column].Type.Dictionary()
	for _, id := range from.Index[c.at:end] {
		n := remap[id]
		if n == 0 {
			if dictionary {
				n = to.Dict.Intern(from.Dict.text(id)) + 1
			} else {
				n = to.Dict.Append(from.Dict.text(id)) + 1
			}
			remap[id] = n
		}
		to.Index = append(to.Index, n-1)
	}
}

// flush writes the output's rows as a row group, and ends the file when it is long enough.
func (m *merger) flush() error {
	n := m.rows.Len()
	if n == 0 {
		return nil
	}
	m.sel = Identity(m.sel, n)
	if err := m.w.WriteRowGroup(m.rows, m.sel); err != nil {
		return err
	}
	m.summary.Add(m.rows, m.sel)
	m.rows.Reset()
	for _, c := range m.inputs {
		c.forget()
	}
	if m.w.Bytes() >= m.limits.FileBytes {
		return m.finish()
	}
	return nil
}

// finish ends the file, if it has rows.
func (m *merger) finish() error {
	if m.w.Rows() == 0 {
		return nil
	}
	data, err := m.w.Finish()
	if err != nil {
		return err
	}
	summary := m.summary
	m.summary = Summary{}
	m.w.Begin()
	return m.out(data, summary)
}

// Identity returns the numbers from 0 to n-1 in sel's memory.
func Identity(sel []int32, n int) []int32 {
	sel = sel[:0]
	for i := range n {
		sel = append(sel, int32(i))
	}
	return sel
}
