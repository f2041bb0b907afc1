package calltree

// Merge adds what another tree has added up. Open spans of the other's current thread stay its own.
func (t *Tree) Merge(other *Tree) {
	scopes := make([]int32, len(other.scopes))
	for i := range other.scopes[1:] {
		s := &other.scopes[i+1]
		scopes[i+1] = t.Scope(s.name, s.target, s.filename, s.line, s.hash)
	}
	t.mergePaths(other, scopes)
	t.mergeNames(other)
	t.stats.Threads += other.stats.Threads
	t.stats.Roots += other.stats.Roots
	t.stats.ThreadDuration += other.stats.ThreadDuration
	t.stats.Spans += other.stats.Spans
}

// mergePaths adds the other's paths, whose scopes have other numbers here. A path that is folded into the one that it is
// within has been counted in that one's total; its self time has not.
func (t *Tree) mergePaths(other *Tree, scopes []int32) {
	at := make([]int32, len(other.nodes)) // the other's nodes here
	for i := range other.nodes[1:] {
		n := &other.nodes[i+1] // behind its parent
		parent := at[n.parent]
		at[i+1] = t.child(parent, scopes[n.scope])
		mine := &t.nodes[at[i+1]]
		if at[i+1] == parent && parent != root {
			mine.merge(n.sums, 0)
		} else {
			mine.merge(n.sums, n.total)
		}
		if mine.scope == otherScope {
			t.stats.Folded += n.calls
		}
	}
}

func (t *Tree) mergeNames(other *Tree) {
	for i := range other.names {
		n := &other.names[i]
		mine, ok := t.named[n.text]
		if !ok {
			mine = t.scopes[otherScope].text
		}
		t.names[mine].merge(n.sums, n.total)
	}
}

func (s *sums) merge(other sums, total int64) {
	s.calls += other.calls
	s.total += total
	s.self += other.self
	s.min = min(s.min, other.min)
	s.max = max(s.max, other.max)
}
