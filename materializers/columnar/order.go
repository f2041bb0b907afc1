package columnar

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Order is the order of rows in a table's files.
type Order struct {
	keys []int
	// counted says that all keys but the last are text and the last is a number, which has a faster sort.
	counted bool
	sum     int // column that rows with equal keys add up in when files are merged; -1 = none
}

// NewOrder returns an order by columns. It panics when one does not exist or is a float.
func NewOrder(t *tables.Table, columns ...string) Order {
	o := Order{counted: true, sum: -1}
	for i, name := range columns {
		k := t.Index(name)
		if k < 0 || kindOf(t.Columns[k].Type) == Float {
			panic("columnar: " + t.Name + " cannot be ordered by " + name)
		}
		o.keys = append(o.keys, k)
		isText := kindOf(t.Columns[k].Type) == Text
		o.counted = o.counted && isText == (i < len(columns)-1)
	}
	return o
}

// Summing returns the order with a column of integers that is summed over rows with equal keys when files are merged.
func (o Order) Summing(t *tables.Table, column string) Order {
	o.sum = t.Index(column)
	if o.sum < 0 || kindOf(t.Columns[o.sum].Type) != Int {
		panic("columnar: " + t.Name + " cannot be summed by " + column)
	}
	return o
}

// compare orders row i of a against row j of b.
func (o *Order) compare(a *Rows, i int32, b *Rows, j int32) int {
	for _, k := range o.keys {
		x, y := &a.Columns[k], &b.Columns[k]
		var c int
		if x.Kind == Text {
			if x.Dict == y.Dict && x.Index[i] == y.Index[j] {
				continue
			}
			c = bytes.Compare(x.Dict.Value(x.Index[i]), y.Dict.Value(y.Index[j]))
		} else {
			c = cmp.Compare(x.Ints[i], y.Ints[j])
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// Sorter puts rows in order. It holds scratch memory, and is for one goroutine.
//
// Rows come in blocks: one process, and nearly always in order of time. So text keys are counted, not compared: a stable
// counting sort by the rank of the value, from the last text key to the first. What then shares all text keys is a group, and
// a group is sorted by the last key only if it is not in order already. Order [process_id time] shows it: the
// blocks p1(1,2) p0(1,3) p1(3) are counted to p0(1,3) p1(1,2,3), and nothing is left to compare.
type Sorter struct {
	Order
	rank   []int32
	used   []int32
	counts []int32
	out    []int32
	pairs  []keyed
}

type keyed struct {
	key int64
	row int32
}

// NewSorter returns a sorter.
func NewSorter(o Order) *Sorter { return &Sorter{Order: o} }

// Sort orders the rows named in sel, in place and stably.
func (s *Sorter) Sort(rows *Rows, sel []int32) {
	if !s.counted {
		slices.SortStableFunc(sel, func(i, j int32) int { return s.compare(rows, i, rows, j) })
		return
	}
	for k := len(s.keys) - 2; k >= 0; k-- {
		s.count(&rows.Columns[s.keys[k]], sel)
	}
	last := &rows.Columns[s.keys[len(s.keys)-1]]
	for begin := 0; begin < len(sel); {
		end := s.groupEnd(rows, sel, begin)
		s.sortGroup(last.Ints, sel[begin:end])
		begin = end
	}
}

// count sorts sel by the values of a text column.
func (s *Sorter) count(c *Column, sel []int32) {
	s.ranks(c, sel)
	if len(s.used) <= 1 {
		return
	}
	s.counts = append(s.counts[:0], make([]int32, len(s.used)+1)...)
	for _, row := range sel {
		s.counts[s.rank[c.Index[row]]]++
	}
	for i := 1; i < len(s.counts); i++ {
		s.counts[i] += s.counts[i-1]
	}
	s.out = append(s.out[:0], sel...)
	for _, row := range slices.Backward(s.out) {
		at := &s.counts[s.rank[c.Index[row]]]
		*at--
		sel[*at] = row
	}
}

// ranks sets the rank, from 1, of every value that sel uses.
func (s *Sorter) ranks(c *Column, sel []int32) {
	s.rank = append(s.rank[:0], make([]int32, c.Dict.Len())...)
	s.used = s.used[:0]
	last := int32(-1)
	for _, row := range sel {
		id := c.Index[row]
		if id != last && s.rank[id] == 0 {
			s.rank[id] = 1
			s.used = append(s.used, id)
		}
		last = id
	}
	slices.SortFunc(s.used, func(a, b int32) int { return bytes.Compare(c.Dict.Value(a), c.Dict.Value(b)) })
	for i, id := range s.used {
		s.rank[id] = int32(i + 1)
	}
}

// groupEnd returns where the rows that share all text keys of row sel[begin] end.
func (s *Sorter) groupEnd(rows *Rows, sel []int32, begin int) int {
	end := len(sel)
	for _, k := range s.keys[:len(s.keys)-1] {
		index := rows.Columns[k].Index
		id := index[sel[begin]]
		i := begin + 1
		for i < end && index[sel[i]] == id {
			i++
		}
		end = i
	}
	return end
}

// sortGroup sorts by one number, if it must.
func (s *Sorter) sortGroup(keys []int64, sel []int32) {
	if slices.IsSortedFunc(sel, func(a, b int32) int { return cmp.Compare(keys[a], keys[b]) }) {
		return
	}
	s.pairs = s.pairs[:0]
	for _, row := range sel {
		s.pairs = append(s.pairs, keyed{keys[row], row})
	}
	slices.SortStableFunc(s.pairs, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	for i := range s.pairs {
		sel[i] = s.pairs[i].row
	}
}
