package calltree_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/calltree"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// FuzzTree compares a tree with one that is computed span by span from what is around each.
func FuzzTree(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		data := make([]byte, rng.IntN(600))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		threads := threadsOf(data[:min(len(data), 400)]) // the naive way takes the square of it
		tree := add(calltree.New(calltree.Options{}), threads...)
		paths, names := naive(threads)
		if diff := gocmp.Diff(paths, byPath(tree)); diff != "" {
			t.Errorf("paths (-naive +tree):\n%s", diff)
		}
		if diff := gocmp.Diff(names, byName(tree)); diff != "" {
			t.Errorf("names (-naive +tree):\n%s", diff)
		}
		checkMerge(t, threads, tree)
		checkFolding(t, threads, tree)
	})
}

// threadsOf makes threads of bytes, two a span: how deep it is, from one deeper than the last to the top, and its name and
// duration. Some are rows of a thread, and some begin another thread.
func threadsOf(data []byte) [][]telemetry.Span {
	threads := [][]telemetry.Span{nil}
	depth, now := uint32(0), int64(0)
	for pair := range slices.Chunk(data, 2) {
		if len(pair) < 2 {
			break
		}
		now++
		depth = max(0, min(depth+1, uint32(pair[0]>>3)))
		s := telemetry.Span{
			ID: now, Depth: depth, Begin: now, End: now + int64(pair[1]>>3),
			Name: string('A' + rune(pair[1]&7)), Line: uint32(pair[0] & 1), Target: "demo",
		}
		if pair[0] == 0 {
			s.ID, s.Depth, depth = -1, 0, 0
		}
		if pair[0] == 1 {
			threads = append(threads, nil)
		}
		threads[len(threads)-1] = append(threads[len(threads)-1], s)
	}
	return threads
}

type sums struct{ Calls, Total, Self, Min, Max int64 }

func (s *sums) add(duration, self int64, outermost bool) {
	if s.Calls == 0 {
		s.Min, s.Max = duration, duration
	}
	s.Calls++
	s.Self += self
	s.Min, s.Max = min(s.Min, duration), max(s.Max, duration)
	if outermost {
		s.Total += duration
	}
}

// naive looks for each span at all those before it, which it may be in, and at all behind it, which may be in it.
func naive(threads [][]telemetry.Span) (paths, names map[string]sums) {
	paths, names = map[string]sums{}, map[string]sums{}
	for _, thread := range threads {
		for i, s := range thread {
			if s.ID == -1 {
				continue
			}
			around := around(thread, i)
			path, outermost := "", true
			for _, a := range around {
				path += step(a.Name, a.Line)
				outermost = outermost && a.Name != s.Name
			}
			duration := s.End - s.Begin
			self := duration - within(thread, i)
			p, n := paths[path+step(s.Name, s.Line)], names[s.Name]
			p.add(duration, self, true)
			n.add(duration, self, outermost)
			paths[path+step(s.Name, s.Line)], names[s.Name] = p, n
		}
	}
	return paths, names
}

func step(name string, line uint32) string { return fmt.Sprintf("/%s:%d", name, line) }

// around returns the spans that span i is in, outermost first.
func around(thread []telemetry.Span, i int) []telemetry.Span {
	var found []telemetry.Span
	depth := thread[i].Depth
	for j := i - 1; j >= 0 && depth > 0; j-- {
		if thread[j].Depth >= depth {
			continue
		}
		depth = thread[j].Depth
		if thread[j].ID == -1 {
			break
		}
		found = append(found, thread[j])
	}
	slices.Reverse(found)
	return found
}

// within sums the durations of the spans directly in span i.
func within(thread []telemetry.Span, i int) int64 {
	sum := int64(0)
	for j := i + 1; j < len(thread) && thread[j].Depth > thread[i].Depth; j++ {
		if a := around(thread, j); len(a) > 0 && a[len(a)-1].ID == thread[i].ID {
			sum += thread[j].End - thread[j].Begin
		}
	}
	return sum
}

func byPath(t *calltree.Tree) map[string]sums {
	texts, found := map[int64]string{}, map[string]sums{}
	for _, p := range t.Paths() {
		texts[p.ID] = texts[p.Parent] + step(p.Name, p.Line)
		found[texts[p.ID]] = sums{p.Calls, p.Total, p.Self, p.Min, p.Max}
	}
	return found
}

func byName(t *calltree.Tree) map[string]sums {
	found := map[string]sums{}
	for _, n := range t.Names() {
		found[n.Name] = sums{n.Calls, n.Total, n.Self, n.Min, n.Max}
	}
	return found
}

// checkMerge makes a tree of each thread and puts them together backwards.
func checkMerge(t *testing.T, threads [][]telemetry.Span, whole *calltree.Tree) {
	t.Helper()
	merged := calltree.New(calltree.Options{})
	for _, thread := range slices.Backward(threads) {
		merged.Merge(add(calltree.New(calltree.Options{}), thread))
	}
	if diff := gocmp.Diff(whole.Paths(), merged.Paths()); diff != "" {
		t.Errorf("paths (-whole +merged):\n%s", diff)
	}
	if diff := gocmp.Diff(whole.Names(), merged.Names()); diff != "" {
		t.Errorf("names (-whole +merged):\n%s", diff)
	}
	if whole.Stats() != merged.Stats() {
		t.Errorf("stats: whole %+v, merged %+v", whole.Stats(), merged.Stats())
	}
}

// checkFolding makes trees that are too small, also by merging, and checks what must be kept.
func checkFolding(t *testing.T, threads [][]telemetry.Span, whole *calltree.Tree) {
	t.Helper()
	const most = 5
	folded := add(calltree.New(calltree.Options{MaxPaths: most}), threads...)
	merged := calltree.New(calltree.Options{MaxPaths: most})
	merged.Merge(whole)
	for _, small := range []*calltree.Tree{folded, merged} {
		if diff := gocmp.Diff(whole.Names(), small.Names()); diff != "" {
			t.Errorf("names (-whole +folded):\n%s", diff)
		}
		if got, want := invariants(small), invariants(whole); got != want {
			t.Errorf("folded: %s, want %s", got, want)
		}
		own := 0
		for _, p := range small.Paths() {
			if p.Name != calltree.Other {
				own++
			}
		}
		if own > most || len(small.Paths()) > 2*most+1 {
			t.Errorf("%d paths, %d with others: want at most %d", own, len(small.Paths()), most)
		}
		if s := small.Stats(); s.Spans != whole.Stats().Spans || (s.Folded > 0) != (len(small.Paths()) > own) {
			t.Errorf("stats %+v", s)
		}
	}
}

// invariants are what folding does not change.
func invariants(t *calltree.Tree) string {
	calls, self, top := int64(0), int64(0), int64(0)
	for _, p := range t.Paths() {
		calls += p.Calls
		self += p.Self
		if p.Depth == 0 {
			top += p.Total
		}
	}
	return fmt.Sprintf("%d calls, self time %d, total %d at the top", calls, self, top)
}

// TestRowsAreInOrder checks parents before children, and the longest first.
func TestRowsAreInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	data := make([]byte, 4000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	paths := add(calltree.New(calltree.Options{}), threadsOf(data)...).Paths()
	last := map[int64]calltree.Path{}
	seen := map[int64]bool{0: true}
	for _, p := range paths {
		if seen[p.ID] || !seen[p.Parent] {
			t.Errorf("%+v comes twice, or before its parent", p)
		}
		if before, ok := last[p.Parent]; ok && cmp.Or(cmp.Compare(p.Total, before.Total), strings.Compare(before.Name, p.Name)) > 0 {
			t.Errorf("%+v comes behind %+v", p, before)
		}
		seen[p.ID], last[p.Parent] = true, p
	}
}
