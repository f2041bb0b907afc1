package columnar

import (
	"fmt"
	"slices"
	"sort"
)

// Limits bound a row group and a file that a merge writes.
type Limits struct {
	RowGroupRows  int // rows of a row group
	RowGroupBytes int // memory of a row group's rows, about
	FileBytes     int // size at which a file ends and the next begins
}

// Merged receives the files of a merge in order. The bytes belong to it; summary describes the rows.
type Merged func(data []byte, summary Summary) error

// Merge reads files, each in order o, and writes their rows in that order to w, as few files. No input may be used again.
//
// It works in windows. Every input has one row group in memory; the least of their last keys bounds the window, since no row
// below it can come later. The window's rows are copied in bulk, sorted (they come in sorted runs, which the sorter likes) and
// written when they are enough for a row group. So memory is bounded by two row groups per input, not by the files.
func Merge(o Order, files []*File, w *Writer, limits Limits, out Merged) error {
	m := &merger{Sorter: NewSorter(o), w: w, limits: limits, out: out, rows: NewRows(w.table)}
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
		if err := m.window(); err != nil {
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

// last returns the last row in memory.
func (c *cursor) last() int32 { return int32(c.rows.Len() - 1) }

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
	*Sorter
	w       *Writer
	limits  Limits
	out     Merged
	inputs  []*cursor
	rows    *Rows // complete up to the last window's bound, not sorted
	sel     []int32
	summary Summary
}

// window moves all rows up to the next bound to the output.
func (m *merger) window() error {
	var bound *cursor
	for _, c := range m.inputs {
		if c.group < c.file.RowGroups() && (bound == nil || m.compare(c.rows, c.last(), bound.rows, bound.last()) < 0) {
			bound = c
		}
	}
	for _, c := range m.inputs {
		end := c.rows.Len()
		if bound != nil && c != bound {
			end = c.at + sort.Search(end-c.at, func(i int) bool { return m.compare(c.rows, int32(c.at+i), bound.rows, bound.last()) > 0 })
		}
		m.copy(c, end)
	}
	left := m.inputs[:0]
	for _, c := range m.inputs {
		if c.done() {
			if err := c.load(); err != nil {
				return err
			}
		}
		if !c.done() {
			left = append(left, c)
		}
	}
	m.inputs = left
	if m.rows.Len() >= m.limits.RowGroupRows || m.rows.Bytes() >= m.limits.RowGroupBytes {
		return m.flush()
	}
	return nil
}

// copy appends rows of c up to end to the output.
func (m *merger) copy(c *cursor, end int) {
	m.rows.Grow(end - c.at)
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

// flush sorts and writes the output's rows, as row groups of about equal size.
func (m *merger) flush() error {
	if m.rows.Len() == 0 {
		return nil
	}
	m.sel = Identity(m.sel, m.rows.Len())
	m.Sort(m.rows, m.sel)
	if m.sum >= 0 {
		m.sel = m.addUp(m.sel)
	}
	groups := max(ceil(len(m.sel), m.limits.RowGroupRows), ceil(m.rows.Bytes(), m.limits.RowGroupBytes))
	for sel := range slices.Chunk(m.sel, ceil(len(m.sel), groups)) {
		if err := m.w.WriteRowGroup(m.rows, sel); err != nil {
			return err
		}
		m.summary.Add(m.rows, sel)
		if m.w.Bytes() >= m.limits.FileBytes {
			if err := m.finish(); err != nil {
				return err
			}
		}
	}
	m.rows.Reset()
	for _, c := range m.inputs {
		c.forget()
	}
	return nil
}

func ceil(n, by int) int { return (n + by - 1) / by }

// addUp sums rows with equal keys into the first of them.
func (m *merger) addUp(sel []int32) []int32 {
	sums := m.rows.Columns[m.sum].Ints
	kept := sel[:1]
	for _, row := range sel[1:] {
		if last := kept[len(kept)-1]; m.compare(m.rows, last, m.rows, row) == 0 {
			sums[last] += sums[row]
			continue
		}
		kept = append(kept, row)
	}
	return kept
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
