package calltree_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/calltree"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// spans reads rows of a thread: "depth begin end name"; the name root is the thread's own row.
func spans(rows ...string) []telemetry.Span {
	var all []telemetry.Span
	for i, row := range rows {
		s := telemetry.Span{ID: int64(i), Target: "demo", Filename: "m.rs", Line: 10, Hash: 7}
		if _, err := fmt.Sscan(row, &s.Depth, &s.Begin, &s.End, &s.Name); err != nil {
			panic(err)
		}
		if s.Name == "root" {
			s.ID = -1
		}
		all = append(all, s)
	}
	return all
}

// add adds threads to a tree.
func add(t *calltree.Tree, threads ...[]telemetry.Span) *calltree.Tree {
	for _, thread := range threads {
		t.Thread()
		for i := range thread {
			t.Add(&thread[i])
		}
	}
	return t
}

// shown prints paths as indented rows: name calls total self min max.
func shown(t *calltree.Tree) []string {
	var rows []string
	for _, p := range t.Paths() {
		rows = append(rows, fmt.Sprintf("%s%s %d %d %d %d %d", strings.Repeat(". ", int(p.Depth)), p.Name, p.Calls, p.Total, p.Self, p.Min, p.Max))
	}
	return rows
}

func names(t *calltree.Tree) []string {
	var rows []string
	for _, n := range t.Names() {
		rows = append(rows, fmt.Sprintf("%s %d %d %d %d %d", n.Name, n.Calls, n.Total, n.Self, n.Min, n.Max))
	}
	return rows
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestThreadsAreMerged(t *testing.T) {
	one := spans("0 0 1000 root", "1 100 500 A", "2 150 200 B", "2 250 300 C", "1 600 700 B")
	two := spans("0 0 900 root", "1 0 100 A", "2 10 20 B", "2 20 90 B")
	tree := add(calltree.New(calltree.Options{}), one, nil, two)
	expect(t, "paths", shown(tree), []string{
		"A 2 500 320 100 400", ". B 3 130 130 10 70", ". C 1 50 50 50 50", "B 1 100 100 100 100",
	})
	expect(t, "names", names(tree), []string{"A 2 500 320 100 400", "B 4 230 230 10 100", "C 1 50 50 50 50"})
	want := calltree.Stats{Threads: 2, Roots: 2, ThreadDuration: 1900, Spans: 7}
	if got := tree.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestRecursionCountsOnceInANamesTotal(t *testing.T) {
	tree := add(calltree.New(calltree.Options{}), spans(
		"0 0 100 root", "1 0 90 A", "2 10 80 A", "3 20 70 B", "4 30 60 A", "1 90 100 A"))
	expect(t, "paths", shown(tree), []string{
		"A 2 100 30 10 90", ". A 1 70 20 70 70", ". . B 1 50 20 50 50", ". . . A 1 30 30 30 30",
	})
	expect(t, "names", names(tree), []string{"A 4 100 80 10 90", "B 1 50 20 50 50"})
}

// TestThreadWithoutARoot begins where nothing was closed at the top: its oldest span has depth 0.
func TestThreadWithoutARoot(t *testing.T) {
	tree := add(calltree.New(calltree.Options{}),
		spans("0 100 200 A", "0 500 700 root", "1 500 600 A", "2 500 550 B"), // two chains
		spans("3 0 10 A"), // what is around it is not there
	)
	expect(t, "paths", shown(tree), []string{"A 3 210 160 10 100", ". B 1 50 50 50 50"})
	if got := tree.Stats(); got.Threads != 2 || got.Roots != 1 {
		t.Errorf("stats %+v", got)
	}
}

// TestScopesAreWholeNotNames keeps places apart that have one name, and adds them up by name.
func TestScopesAreWholeNotNames(t *testing.T) {
	thread := spans("0 0 10 A", "0 10 20 A", "0 20 30 A", "0 30 40 A")
	thread[1].Line, thread[2].Filename, thread[3].Target = 11, "n.rs", "other"
	tree := add(calltree.New(calltree.Options{}), thread)
	if got := tree.Paths(); len(got) != 4 || got[0].Hash != 7 || got[0].Parent != 0 {
		t.Errorf("paths %+v", got)
	}
	expect(t, "names", names(tree), []string{"A 4 40 40 10 10"})
}

func TestIDsAreStable(t *testing.T) {
	rows := func(threads ...[]telemetry.Span) map[string]calltree.Path {
		byPath := map[int64]string{}
		found := map[string]calltree.Path{}
		for _, p := range add(calltree.New(calltree.Options{}), threads...).Paths() {
			byPath[p.ID] = byPath[p.Parent] + "/" + p.Name
			found[byPath[p.ID]] = p
		}
		return found
	}
	a := rows(spans("0 0 10 A", "1 0 5 B", "0 10 20 B"))
	b := rows(spans("0 0 10 C", "0 10 20 B", "1 10 20 A"), spans("0 0 10 A", "1 0 5 B"))
	for _, path := range []string{"/A", "/A/B", "/B"} {
		if a[path].ID != b[path].ID || a[path].ID == 0 {
			t.Errorf("%s: id %d in one tree, %d in another", path, a[path].ID, b[path].ID)
		}
	}
	if a["/A/B"].ID == a["/B"].ID || a["/A/B"].Parent != a["/A"].ID {
		t.Errorf("paths %+v", a)
	}
}

func TestPathsTooManyAreFolded(t *testing.T) {
	tree := add(calltree.New(calltree.Options{MaxPaths: 2}), spans(
		"0 0 100 root", "1 0 50 A", "2 0 10 B", "2 10 40 C", "3 20 30 D", "4 20 25 A", "2 40 45 E", "1 50 60 F", "1 60 80 A", "2 60 70 B"))
	expect(t, "paths", shown(tree), []string{
		"A 2 70 15 20 50", ". (other) 4 35 35 5 30", ". B 2 20 20 10 10", "(other) 1 10 10 10 10",
	})
	expect(t, "names", names(tree), []string{
		"A 3 70 20 5 50", "C 1 30 20 30 30", "B 2 20 20 10 10", "D 1 10 5 10 10", "F 1 10 10 10 10", "E 1 5 5 5 5",
	})
	if got := tree.Stats(); got.Folded != 5 || got.Spans != 9 {
		t.Errorf("stats %+v", got)
	}
}

func TestScopesTooManyAreFolded(t *testing.T) {
	tree := add(calltree.New(calltree.Options{MaxScopes: 1}), spans("0 0 50 A", "1 0 10 B", "1 10 20 C", "0 50 60 B"))
	expect(t, "paths", shown(tree), []string{"A 1 50 30 50 50", ". (other) 2 20 20 10 10", "(other) 1 10 10 10 10"})
	expect(t, "names", names(tree), []string{"A 1 50 30 50 50", "(other) 3 30 30 10 10"})
}

func TestColumnsAreRows(t *testing.T) {
	thread := spans("0 0 1000 root", "1 100 500 A", "2 150 200 B", "2 250 300 C", "1 600 700 B")
	tree := calltree.New(calltree.Options{})
	tree.Thread()
	for half := range slices.Chunk(thread, 3) {
		tree.AddColumns(columns(tree, half))
	}
	want := add(calltree.New(calltree.Options{}), thread)
	if diff := cmp.Diff(want.Paths(), tree.Paths()); diff != "" {
		t.Errorf("paths (-rows +columns):\n%s", diff)
	}
}

func columns(t *calltree.Tree, thread []telemetry.Span) calltree.Columns {
	var c calltree.Columns
	for _, s := range thread {
		c.ID = append(c.ID, s.ID)
		c.Begin = append(c.Begin, s.Begin)
		c.End = append(c.End, s.End)
		c.Depth = append(c.Depth, s.Depth)
		c.Scope = append(c.Scope, t.Scope(s.Name, s.Target, s.Filename, s.Line, s.Hash))
	}
	return c
}
