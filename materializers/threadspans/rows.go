package threadspans

import (
	"cmp"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Positions of the columns of thread_spans.
const (
	columnID = iota
	columnParent
	columnDepth
	columnHash
	columnBegin
	columnEnd
	columnDuration
	columnName
	columnTarget
	columnFilename
	columnLine
)

// write puts the rows of spans that have ended into the table's rows. It returns their order by begin, nil when they are in order, and
// the begin of the last one.
func (b *builder) write() (order []int32, last int64) {
	n := 0
	for _, end := range b.ends {
		if end != notEnded {
			n++
		}
	}
	b.rows.Grow(n)
	c := b.rows.Columns
	for row, end := range b.ends {
		if end == notEnded {
			continue
		}
		c[columnID].Ints = append(c[columnID].Ints, b.ids[row])
		c[columnParent].Ints = append(c[columnParent].Ints, b.parents[row])
		c[columnDepth].Ints = append(c[columnDepth].Ints, int64(b.depths[row]))
		c[columnBegin].Ints = append(c[columnBegin].Ints, b.begins[row])
		c[columnEnd].Ints = append(c[columnEnd].Ints, end)
		c[columnDuration].Ints = append(c[columnDuration].Ints, end-b.begins[row])
	}
	b.writeScopes()
	begins := c[columnBegin].Ints
	if len(begins) == 0 {
		return nil, 0
	}
	if slices.IsSorted(begins) && !b.anyAdopted() {
		return nil, begins[len(begins)-1]
	}
	order = make([]int32, len(begins))
	for i := range order {
		order[i] = int32(i)
	}
	depths := c[columnDepth].Ints
	slices.SortStableFunc(order, func(i, j int32) int {
		if d := cmp.Compare(begins[i], begins[j]); d != 0 {
			return d
		}
		return cmp.Compare(depths[i], depths[j])
	})
	return order, begins[order[len(order)-1]]
}

// writeScopes fills the columns that say where a span comes from.
func (b *builder) writeScopes() {
	texts := []struct {
		column int
		of     func(*wire.Scope) string
	}{
		{columnName, func(s *wire.Scope) string { return s.Name }},
		{columnTarget, func(s *wire.Scope) string { return s.Target }},
		{columnFilename, func(s *wire.Scope) string { return s.Filename }},
	}
	number := make([]int32, len(b.scopeList))
	for _, t := range texts {
		c := &b.rows.Columns[t.column]
		for i := range b.scopeList {
			number[i] = c.Dict.Intern(t.of(&b.scopeList[i]))
		}
		b.eachScope(func(scope int32) { c.Index = append(c.Index, number[scope]) })
	}
	hashes, lines := &b.rows.Columns[columnHash], &b.rows.Columns[columnLine]
	b.eachScope(func(scope int32) {
		s := &b.scopeList[scope]
		hashes.Ints = append(hashes.Ints, int64(s.Hash))
		lines.Ints = append(lines.Ints, int64(s.Line))
	})
}

// eachScope calls f with the scope of each row that is written.
func (b *builder) eachScope(f func(scope int32)) {
	for row, end := range b.ends {
		if end != notEnded {
			f(b.scopes[row])
		}
	}
}

// anyAdopted reports whether a row is inside one that comes after it.
func (b *builder) anyAdopted() bool {
	return slices.ContainsFunc(b.chains, func(s segment) bool { return len(s.adopted) > 0 })
}
