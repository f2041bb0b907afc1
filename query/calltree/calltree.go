// Package calltree adds the spans of threads up into one tree of calls: what was called from where, how often, and how
// long it took. Written for the functions of the SQL surface and the screens that show flame graphs of many threads.
//
// A path is a list of scopes (name, target, file, line), outermost first. Equal paths of all threads and processes are one
// row, whose id is a hash of the path's text: it is the same in every tree, so trees of two days or two versions can be
// joined. Names are added up too; a name that calls itself, directly or not, is not counted twice in its total.
//
// Invariants: over all paths, the sum of self times is the sum of the top-level spans' durations, if spans do not outlive
// those around them; spans are taken as they are, also those that were cut where a thread's blocks end. Without folding the
// result depends neither on the order of threads nor on which trees were merged. Memory is bounded by Options: what would
// be a path too many is added to a path named Other beside it, and counted.
package calltree

import (
	"math"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Other is the name of what has no row of its own.
const Other = "(other)"

const (
	// DefaultMaxPaths is Options.MaxPaths' value where it is 0: more than anyone reads, in some ten megabytes.
	DefaultMaxPaths = 1 << 17
	// DefaultMaxScopes is Options.MaxScopes' value where it is 0.
	DefaultMaxScopes = 1 << 17

	// rootID is the id of rows that stand for a thread.
	rootID = -1
	// otherScope is the number of the scope Other, in every tree.
	otherScope = 0
	// root is the node that all top-level paths are below; it is no path.
	root = 0
)

// Options of a Tree.
type Options struct {
	MaxPaths  int // paths with a row of their own; there may be as many named Other again. 0 is DefaultMaxPaths
	MaxScopes int // scopes with a number of their own. 0 is DefaultMaxScopes
}

// Columns are spans of one thread, a row each, in the order of their begins and parents before children. All have the same
// length.
type Columns struct {
	ID         []int64 // -1 marks the row of the thread itself, if its depth is 0
	Begin, End []int64
	Depth      []uint32
	Scope      []int32 // as Tree.Scope numbers them
}

// Stats count what went into a Tree.
type Stats struct {
	Threads        int64 // that had any rows
	Roots          int64 // rows that stand for a thread, or a piece of one: they are no spans
	ThreadDuration int64 // sum of theirs
	Spans          int64
	Folded         int64 // spans that were added to a path named Other
}

// Tree adds spans up. It is not safe for concurrent use; trees that were made concurrently are put together by Merge.
type Tree struct {
	opts    Options
	scopes  []scope
	numbers map[scopeKey]int32
	names   []name
	named   map[string]int32
	nodes   []node
	paths   int              // nodes with a row of their own
	lookup  map[uint64]int32 // node and scope below it
	stack   []frame          // open spans of the current thread
	fresh   bool             // the current thread has no rows yet
	stats   Stats
}

// scopeKey is what makes two scopes one.
type scopeKey struct {
	name, target, filename string
	line                   uint32
}

type scope struct {
	scopeKey
	hash uint32
	text int32 // in Tree.names
}

// sums are what is added up of spans.
type sums struct {
	calls, total, self, min, max int64
}

type name struct {
	text   string
	active int32 // open spans of this name
	sums
}

type node struct {
	parent, scope       int32
	lastScope, lastNode int32 // the path below it that was looked up last
	sums
}

// frame is an open span.
type frame struct {
	depth uint32
	node  int32
	name  int32 // -1 for a thread's root
}

// New returns an empty Tree.
func New(opts Options) *Tree {
	if opts.MaxPaths == 0 {
		opts.MaxPaths = DefaultMaxPaths
	}
	if opts.MaxScopes == 0 {
		opts.MaxScopes = DefaultMaxScopes
	}
	t := &Tree{
		opts: opts, numbers: map[scopeKey]int32{}, named: map[string]int32{}, lookup: map[uint64]int32{},
		nodes: []node{{parent: -1, lastScope: -1}}, fresh: true,
	}
	t.addScope(scopeKey{name: Other}, 0) // otherScope
	return t
}

// Stats returns the counts so far.
func (t *Tree) Stats() Stats { return t.stats }

// Scope returns the number of a scope in this tree. Behind the bound it is that of Other.
func (t *Tree) Scope(name, target, filename string, line, hash uint32) int32 {
	key := scopeKey{name, target, filename, line}
	if n, ok := t.numbers[key]; ok {
		return n
	}
	if len(t.scopes) > t.opts.MaxScopes {
		return otherScope
	}
	key = scopeKey{strings.Clone(name), strings.Clone(target), strings.Clone(filename), line} // callers' buffers may go
	number := t.addScope(key, hash)
	t.numbers[key] = number
	return number
}

// Thread says that the rows to follow are another thread's.
func (t *Tree) Thread() {
	t.leave(0)
	t.fresh = true
}

// Add adds the next span of the thread.
func (t *Tree) Add(s *telemetry.Span) {
	t.add(s.ID, s.Begin, s.End, s.Depth, t.Scope(s.Name, s.Target, s.Filename, s.Line, s.Hash))
}

// AddColumns adds the next spans of the thread.
func (t *Tree) AddColumns(c Columns) {
	for i, id := range c.ID {
		t.add(id, c.Begin[i], c.End[i], c.Depth[i], c.Scope[i])
	}
}

func (t *Tree) add(id, begin, end int64, depth uint32, scope int32) {
	t.leave(depth)
	if t.fresh {
		t.fresh = false
		t.stats.Threads++
	}
	duration := end - begin
	if id == rootID && depth == 0 {
		t.stats.Roots++
		t.stats.ThreadDuration += duration
		t.stack = append(t.stack, frame{depth, root, -1})
		return
	}
	t.stats.Spans++
	parent, caller := int32(root), int32(-1)
	if n := len(t.stack); n > 0 {
		parent, caller = t.stack[n-1].node, t.stack[n-1].name
	}
	at := t.child(parent, scope)
	t.addToPath(at, parent, duration)
	called := t.scopes[scope].text
	t.addToName(called, caller, duration)
	t.stack = append(t.stack, frame{depth, at, called})
}

// leave closes the spans that one of a depth is not within.
func (t *Tree) leave(depth uint32) {
	n := len(t.stack)
	for n > 0 && t.stack[n-1].depth >= depth {
		n--
		if name := t.stack[n].name; name >= 0 {
			t.names[name].active--
		}
	}
	t.stack = t.stack[:n]
}

// addToPath adds a span to a path. What is folded into the path that it is within has been counted in that one's total.
func (t *Tree) addToPath(at, parent int32, duration int64) {
	n := &t.nodes[at]
	n.add(duration)
	if at == parent {
		n.self -= duration
	} else {
		n.total += duration
		t.nodes[parent].self -= duration
	}
	if n.scope == otherScope {
		t.stats.Folded++
	}
}

// addToName adds a span to its name, and takes it from the self time of the one that called it.
func (t *Tree) addToName(called, caller int32, duration int64) {
	n := &t.names[called]
	n.add(duration)
	if n.active == 0 {
		n.total += duration
	}
	n.active++
	if caller >= 0 {
		t.names[caller].self -= duration
	}
}

// add counts a call, but for its part of the total.
func (s *sums) add(duration int64) {
	s.calls++
	s.self += duration
	s.min = min(s.min, duration)
	s.max = max(s.max, duration)
}

// child returns the path of a scope below another, or what stands for it.
func (t *Tree) child(parent, scope int32) int32 {
	p := &t.nodes[parent]
	if p.lastScope == scope {
		return p.lastNode
	}
	if at, ok := t.lookup[childKey(parent, scope)]; ok {
		p.lastScope, p.lastNode = scope, at
		return at
	}
	if parent != root && p.scope == otherScope {
		return parent
	}
	if scope != otherScope && t.paths < t.opts.MaxPaths {
		t.paths++
		return t.addNode(parent, scope)
	}
	if at, ok := t.lookup[childKey(parent, otherScope)]; ok {
		return at
	}
	return t.addNode(parent, otherScope)
}

func childKey(parent, scope int32) uint64 { return uint64(parent)<<32 | uint64(scope) }

func (t *Tree) addNode(parent, scope int32) int32 {
	at := int32(len(t.nodes))
	t.nodes = append(t.nodes, node{parent: parent, scope: scope, lastScope: -1, sums: noSums()})
	t.lookup[childKey(parent, scope)] = at
	return at
}

func (t *Tree) addScope(key scopeKey, hash uint32) int32 {
	n, ok := t.named[key.name]
	if !ok {
		n = int32(len(t.names))
		t.names = append(t.names, name{text: key.name, sums: noSums()})
		t.named[key.name] = n
	}
	t.scopes = append(t.scopes, scope{scopeKey: key, hash: hash, text: n})
	return int32(len(t.scopes) - 1)
}

func noSums() sums { return sums{min: math.MaxInt64, max: math.MinInt64} }
