package calltree

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Path is a row of the tree. Times are nanoseconds.
type Path struct {
	ID     int64 // hash of the path's scopes; equal paths have equal ids in every tree
	Parent int64 // 0 at the top
	Depth  uint32

	Name, Target, Filename string // of the innermost scope
	Line, Hash             uint32

	Calls    int64
	Total    int64 // sum of durations
	Self     int64 // what of it was spent in no span within
	Min, Max int64 // durations
}

// Name is what was added up of all spans of a name, wherever they were called from.
type Name struct {
	Name     string
	Calls    int64
	Total    int64 // sum of durations of those that were not within another of the name
	Self     int64
	Min, Max int64
}

// Paths returns the tree: parents before their children, and of one parent's the longest total first.
func (t *Tree) Paths() []Path {
	ids := t.ids()
	below := t.children()
	rows := make([]Path, 0, len(t.nodes)-1)
	depths := make([]uint32, len(t.nodes))
	todo := slices.Clone(below[root])
	slices.Reverse(todo)
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n := &t.nodes[at]
		s := &t.scopes[n.scope]
		if n.parent != root {
			depths[at] = depths[n.parent] + 1
		}
		rows = append(rows, Path{
			ID: ids[at], Parent: ids[n.parent], Depth: depths[at],
			Name: s.name, Target: s.target, Filename: s.filename, Line: s.line, Hash: s.hash,
			Calls: n.calls, Total: n.total, Self: n.self, Min: n.min, Max: n.max,
		})
		for _, child := range slices.Backward(below[at]) {
			todo = append(todo, child)
		}
	}
	return rows
}

// ids returns the paths' hashes: each that of its innermost scope, seeded with its parent's.
func (t *Tree) ids() []int64 {
	ids := make([]int64, len(t.nodes))
	for i := range t.nodes[1:] { // a parent has a lower number than its children
		n := &t.nodes[i+1]
		ids[i+1] = t.scopes[n.scope].id(ids[n.parent])
	}
	return ids
}

func (s *scope) id(parent int64) int64 {
	h := xxhash.NewWithSeed(uint64(parent))
	for _, text := range []string{s.name, s.target, s.filename} {
		h.WriteString(text) //nolint:errcheck // never fails
		h.Write([]byte{0})  //nolint:errcheck // never fails
	}
	h.Write(binary.LittleEndian.AppendUint32(nil, s.line)) //nolint:errcheck // never fails
	return int64(h.Sum64())
}

// children returns for each node those below it, in the order of rows.
func (t *Tree) children() [][]int32 {
	below := make([][]int32, len(t.nodes))
	for i := range t.nodes[1:] {
		parent := t.nodes[i+1].parent
		below[parent] = append(below[parent], int32(i+1))
	}
	for _, nodes := range below {
		slices.SortFunc(nodes, func(a, b int32) int {
			return cmp.Or(cmp.Compare(t.nodes[b].total, t.nodes[a].total), t.scopes[t.nodes[a].scope].compare(t.scopes[t.nodes[b].scope].scopeKey))
		})
	}
	return below
}

func (k scopeKey) compare(other scopeKey) int {
	return cmp.Or(cmp.Compare(k.name, other.name), cmp.Compare(k.target, other.target),
		cmp.Compare(k.filename, other.filename), cmp.Compare(k.line, other.line))
}

// Names returns the names, the longest total first. They are exact also where paths were folded, unless there were too many
// scopes.
func (t *Tree) Names() []Name {
	rows := make([]Name, 0, len(t.names))
	for i := range t.names {
		if n := &t.names[i]; n.calls > 0 {
			rows = append(rows, Name{Name: n.text, Calls: n.calls, Total: n.total, Self: n.self, Min: n.min, Max: n.max})
		}
	}
	slices.SortFunc(rows, func(a, b Name) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Name, b.Name))
	})
	return rows
}
