package threadspans_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/materializers/threadspans"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

var stream = telemetry.ID{1}

// instance is a thread main-7 of a process whose ticks are nanoseconds since 0.
func instance() *justintime.Instance {
	return &justintime.Instance{
		Process: &materializers.Process{},
		Streams: map[telemetry.ID]*justintime.Stream{stream: {
			ID: stream, Text: stream.String(), Properties: []telemetry.Property{{Key: "thread-id", Value: "7"}, {Key: "thread-name", Value: "main"}},
		}},
	}
}

var nanoseconds = process(telemetry.Process{TSCFrequency: 1e9})

func process(p telemetry.Process) telemetry.Clock {
	c, err := telemetry.NewClock(p, telemetry.Block{})
	if err != nil {
		panic(err)
	}
	return c
}

// block is a block in the notation [begin,end)@offset: bA100 eA200 …, where b and e are the ends of a span of scope A, B, C …, and async
// is an event that is none of a thread's.
type block struct {
	begin, end, offset int64
	events             string
}

func scopeOf(letter byte) wire.Scope {
	s := wire.Scope{Name: string(letter), Target: "demo", Filename: "m.rs", Line: uint32(letter-'A'+1) * 10}
	s.Hash = wire.ScopeHash(s.Name, s.Filename, s.Target, s.Line)
	return s
}

func (b block) decode(t testing.TB) (*justintime.Block, *wire.SpanBlock) {
	t.Helper()
	out := &wire.SpanBlock{}
	number := map[byte]int{}
	for i, text := range strings.Fields(b.events) {
		if strings.HasPrefix(text, "async") {
			continue
		}
		var at int64
		if _, err := fmt.Sscanf(text[2:], "%d", &at); err != nil {
			t.Fatal(text, err)
		}
		if _, ok := number[text[1]]; !ok {
			number[text[1]] = len(out.Scopes)
			out.Scopes = append(out.Scopes, scopeOf(text[1]))
		}
		out.Threads = append(out.Threads, wire.ThreadEvent{Ticks: at, Index: int32(i), Edge: wire.NewEdge(number[text[1]], text[0] == 'e')})
	}
	row := &catalog.BlockRow{Block: telemetry.Block{
		ID: telemetry.ID{15: byte(b.offset), 14: byte(b.offset >> 8)}, StreamID: stream, BeginTicks: b.begin, EndTicks: b.end, ObjectOffset: b.offset,
	}}
	return &justintime.Block{BlockRow: row, Clock: nanoseconds}, out
}

// sorted puts blocks in the order in which a builder gets them.
func sorted(blocks []block) []block {
	blocks = slices.Clone(blocks)
	slices.SortStableFunc(blocks, func(a, b block) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	return blocks
}

// build builds partitions, one upon the other, and returns the rows of all, as they are read together, in order of begins.
func build(t testing.TB, clock telemetry.Clock, partitions ...[]block) (rows []string, refused []error) {
	t.Helper()
	view := threadspans.View()
	var lefts []justintime.Left
	var carry []byte
	var files [][]telemetry.Span
	for _, blocks := range partitions {
		r := columnar.NewRows(tables.Must("thread_spans"))
		b, err := view.Begin(r, instance(), carry)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range blocks {
			row, spans := one.decode(t)
			row.Clock = clock
			if err := b.Add(row, spans); err != nil {
				if _, ok := errors.AsType[*justintime.QuarantineError](err); !ok {
					t.Fatal(err)
				}
				refused = append(refused, err)
			}
		}
		l, err := b.End()
		if err != nil {
			t.Fatal(err)
		}
		carry = l.Carry
		lefts = append(lefts, l.Left)
		files = append(files, spansOf(r, l.Order))
	}
	w, err := view.Window(instance(), lefts)
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Clone(w.Open)
	for i, f := range files {
		if !slices.IsSortedFunc(f, func(a, b telemetry.Span) int { return cmp.Compare(a.Begin, b.Begin) }) {
			t.Errorf("file %d is not in order of begins", i)
		}
		for _, s := range f {
			if s.Begin >= w.Shifts[i].From {
				s.Depth += uint32(w.Shifts[i].Depth)
			}
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b telemetry.Span) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.ID, b.ID))
	})
	for _, s := range all {
		rows = append(rows, fmt.Sprintf("%d %d %d %d %d %s", s.ID, s.Parent, s.Depth, s.Begin, s.End, s.Name))
	}
	return rows, refused
}

func spansOf(r *columnar.Rows, order []int32) []telemetry.Span {
	out := make([]telemetry.Span, r.Len())
	c := r.Columns
	for i := range out {
		row := i
		if order != nil {
			row = int(order[i])
		}
		out[i] = telemetry.Span{
			ID: c[0].Ints[row], Parent: c[1].Ints[row], Depth: uint32(c[2].Ints[row]), Hash: uint32(c[3].Ints[row]), Begin: c[4].Ints[row], End: c[5].Ints[row],
			Name: r.Text(7, row), Target: r.Text(8, row), Filename: r.Text(9, row), Line: uint32(c[10].Ints[row]),
		}
		if d := c[6].Ints[row]; d != out[i].End-out[i].Begin {
			panic(fmt.Sprint("duration ", d, " of ", out[i]))
		}
	}
	return out
}

// TestWorkedExamples has the examples of the published description of call trees, by number.
func TestWorkedExamples(t *testing.T) {
	for name, c := range map[string]struct {
		blocks  []block
		rows    []string
		refused string
	}{
		"1 a tree":                      {[]block{{0, 1000, 0, "bA100 bB150 eB200 bC250 eC300 eA500 bB600 eB700"}}, []string{"-1 0 0 0 1000 main-7", "0 -1 1 100 500 A", "1 0 2 150 200 B", "3 0 2 250 300 C", "6 -1 1 600 700 B"}, ""},
		"2 over two blocks":             {[]block{{0, 200, 0, "bA100"}, {200, 400, 1, "eA300"}}, []string{"-1 0 0 0 400 main-7", "0 -1 1 100 300 A"}, ""},
		"3 missing begin":               {[]block{{1000, 2000, 5, "eA1200 bB1300 eB1400"}}, []string{"-1 0 0 1000 2000 main-7", "5 -1 1 1000 1200 A", "6 -1 1 1300 1400 B"}, ""},
		"4 missing end":                 {[]block{{0, 1000, 0, "bA100 bB200 eB300"}}, []string{"0 0 0 100 1000 A", "1 0 1 200 300 B"}, ""},
		"5 nothing closed":              {[]block{{0, 1000, 0, "bA100 bB200"}}, []string{"0 0 0 100 1000 A", "1 0 1 200 1000 B"}, ""},
		"6 a late end adopts":           {[]block{{1000, 2000, 8, "bB1100 eB1200 eA1500 bC1600 eC1700"}}, []string{"-1 0 0 1000 2000 main-7", "10 -1 1 1000 1500 A", "8 10 2 1100 1200 B", "11 -1 1 1600 1700 C"}, ""},
		"7 two missing begins":          {[]block{{1000, 2000, 8, "eB1200 eA1500"}}, []string{"-1 0 0 1000 2000 main-7", "9 -1 1 1000 1500 A", "8 9 2 1000 1200 B"}, ""},
		"8 a gap":                       {[]block{{0, 200, 0, "bA100"}, {500, 700, 9, "eB550 eA600"}}, []string{"0 0 0 100 200 A", "-1 0 0 500 700 main-7", "10 -1 1 500 600 A", "9 10 2 500 550 B"}, ""},
		"9 in reverse":                  {[]block{{200, 400, 1, "eA300"}, {0, 200, 0, "bA100"}}, []string{"-1 0 0 0 400 main-7", "0 -1 1 100 300 A"}, ""},
		"10 crossing":                   {[]block{{0, 1000, 0, "bA100 bB200 eA300"}}, nil, "closing 'A' but 'B' is open"},
		"11 events outside":             {[]block{{1000, 2000, 0, "bA100 eA200 bB1500 eB1800 bC2500 eC2600"}}, []string{"-1 0 0 1000 2000 main-7", "2 -1 1 1500 1800 B"}, ""},
		"12 begin outside":              {[]block{{1000, 2000, 0, "bA900 bB1500 eB1800 eA1900"}}, []string{"-1 0 0 1000 2000 main-7", "3 -1 1 1000 1900 A", "1 3 2 1500 1800 B"}, ""},
		"13 async events share ids":     {[]block{{0, 1000, 40, "async50 bA100 async110 eA200"}}, []string{"-1 0 0 0 1000 main-7", "41 -1 1 100 200 A"}, ""},
		"14 a block inside another one": {[]block{{0, 1000, 0, "bA100 eA900"}, {10, 20, 2, "bB12 eB15"}}, []string{"-1 0 0 0 1000 main-7", "2 -1 1 12 15 B", "0 -1 1 100 900 A"}, ""}, // upstream ends the chain with its last block
		"15 recursion":                  {[]block{{0, 1000, 0, "bA100 bA110 eA120 eA130"}}, []string{"-1 0 0 0 1000 main-7", "0 -1 1 100 130 A", "1 0 2 110 120 A"}, ""},
		"16 blocks that overlap":        {[]block{{0, 105, 0, "bA100"}, {100, 205, 1, "eA150"}}, []string{"-1 0 0 0 205 main-7", "0 -1 1 100 150 A"}, ""},
		"17 async events only":          {[]block{{0, 1000, 0, "async10 async20"}}, nil, ""},
		"an empty block between":        {[]block{{0, 100, 0, "bA50"}, {100, 100, 1, ""}, {100, 200, 1, "eA150"}}, []string{"-1 0 0 0 200 main-7", "0 -1 1 50 150 A"}, ""},
		"a crossing block is as lost": {
			[]block{{0, 100, 0, "bA10"}, {100, 200, 1, "bB110 bC120 eB130"}, {200, 300, 4, "eA210"}},
			[]string{"0 0 0 10 100 A", "-1 0 0 200 300 main-7", "4 -1 1 200 210 A"},
			"closing 'B' but 'C' is open",
		},
	} {
		t.Run(name, func(t *testing.T) {
			rows, refused := build(t, nanoseconds, sorted(c.blocks))
			if !slices.Equal(rows, c.rows) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(c.rows, "\n"))
			}
			if got := fmt.Sprint(refused); (len(refused) > 0) != (c.refused != "") || !strings.Contains(got, c.refused) {
				t.Errorf("refused %s, want %q", got, c.refused)
			}
		})
	}
}

func TestTicks(t *testing.T) { // example 18
	clock := process(telemetry.Process{TSCFrequency: 3e6, StartTicks: 5000000, StartTime: 1700000000000000000})
	rows, _ := build(t, clock, []block{{10, 400, 0, "bA5000100 eA5000200"}})
	want := []string{"-1 0 0 1700000000000003333 1700000000000133333 main-7", "0 -1 1 1700000000000033333 1700000000000066667 A"}
	if !slices.Equal(rows, want) {
		t.Errorf("got %q", rows)
	}
}

// TestPartitions: whatever the borders of partitions, rows are those of one partition, as long as no begin is missing.
func TestPartitions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 6))
	for range 300 {
		blocks := program(rnd)
		want, _ := build(t, nanoseconds, blocks)
		var parts [][]block
		for rest := blocks; len(rest) > 0; {
			n := 1 + rnd.IntN(len(rest))
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		got, _ := build(t, nanoseconds, parts...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("blocks %+v\nin %d partitions\n%s\nin one\n%s", blocks, len(parts), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// program returns the blocks of a thread that calls at random, without some that were lost; spans open at a loss never end.
func program(rnd *rand.Rand) []block {
	var out []block
	var stack []byte
	at, offset := int64(0), int64(0)
	for range 1 + rnd.IntN(12) {
		b := block{begin: at, offset: offset}
		var events []string
		for range rnd.IntN(12) {
			at += int64(1 + rnd.IntN(3)) // at one instant the order of rows does not say what is within what
			if len(stack) > 0 && rnd.IntN(2) == 0 {
				events = append(events, fmt.Sprintf("e%c%d", stack[len(stack)-1], at))
				stack = stack[:len(stack)-1]
			} else {
				c := byte('A' + rnd.IntN(4))
				events = append(events, fmt.Sprintf("b%c%d", c, at))
				stack = append(stack, c)
			}
			offset++
		}
		at += int64(1 + rnd.IntN(3))
		b.end, b.events = at, strings.Join(events, " ")
		out = append(out, b)
		if rnd.IntN(6) == 0 {
			at, stack = at+5, nil
		}
	}
	return out
}

// TestAnyEvents: rows nest, whatever the events are and wherever partitions end.
func TestAnyEvents(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 500 {
		blocks := program(rnd)
		for i := range blocks {
			events := strings.Fields(blocks[i].events)
			events = slices.DeleteFunc(events, func(string) bool { return rnd.IntN(6) == 0 }) // begins and ends that are missing
			blocks[i].events = strings.Join(events, " ")
		}
		var parts [][]block
		for rest := blocks; len(rest) > 0; {
			n := 1 + rnd.IntN(len(rest))
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		rows, _ := build(t, nanoseconds, parts...)
		checkNested(t, rows, fmt.Sprintf("%+v", parts))
	}
}

// checkNested checks that rows, in order of begins, are trees: each lies within its parent, which is one less deep.
func checkNested(t *testing.T, rows []string, what string) {
	t.Helper()
	type row struct {
		id, parent, begin, end int64
		depth                  int
	}
	var stack []row
	for _, text := range rows {
		var r row
		var name string
		if _, err := fmt.Sscan(text, &r.id, &r.parent, &r.depth, &r.begin, &r.end, &name); err != nil {
			t.Fatal(err)
		}
		if r.depth > len(stack) {
			t.Fatalf("%s\n%s is deeper than what is around it\n%s", what, text, strings.Join(rows, "\n"))
		}
		stack = stack[:r.depth]
		if r.depth > 0 {
			if p := stack[r.depth-1]; p.id != r.parent || r.begin < p.begin || r.end > p.end {
				t.Fatalf("%s\n%s is not within %v\n%s", what, text, p, strings.Join(rows, "\n"))
			}
		}
		if r.end < r.begin {
			t.Fatalf("%s\n%s ends before it begins", what, text)
		}
		stack = append(stack, r)
	}
}

// TestRootComesLate: a span that lasts over partitions, and whose end gives the chain a root, is what all else is inside of.
func TestRootComesLate(t *testing.T) {
	rows, _ := build(t, nanoseconds,
		[]block{{0, 100, 0, "bA10 bB20 eB30"}}, []block{{100, 200, 3, "bB110 eB120"}}, []block{{200, 300, 5, "bB210 eB220 eA230"}})
	want := []string{"-1 0 0 0 300 main-7", "0 -1 1 10 230 A", "1 0 2 20 30 B", "3 0 2 110 120 B", "5 0 2 210 220 B"}
	if !slices.Equal(rows, want) {
		t.Errorf("got %q", rows)
	}
}

// TestState: equal states have equal keys, also when one knows more of the past, and no state is larger than the catalog takes.
func TestState(t *testing.T) {
	view := threadspans.View()
	b, err := view.Begin(columnar.NewRows(tables.Must("thread_spans")), instance(), nil)
	if err != nil {
		t.Fatal(err)
	}
	scope := scopeOf('A')
	scope.Name, scope.Target, scope.Filename = strings.Repeat("\x01", 255), strings.Repeat("ä", 255), strings.Repeat("\"", 255)
	spans := &wire.SpanBlock{Scopes: []wire.Scope{scope}}
	for i := range 2000 {
		spans.Threads = append(spans.Threads, wire.ThreadEvent{Ticks: 1, Index: int32(i), Edge: wire.NewEdge(0, false)})
	}
	row := &justintime.Block{BlockRow: &catalog.BlockRow{Block: telemetry.Block{EndTicks: 10}}, Clock: nanoseconds}
	var q *justintime.QuarantineError
	if err := b.Add(row, spans); !errors.As(err, &q) {
		t.Errorf("2000 open spans give %v", err)
	}
	for i := range 2000 { // as many as fit
		err := b.Add(row, &wire.SpanBlock{Scopes: spans.Scopes, Threads: spans.Threads[i : i+1]})
		if errors.As(err, &q) && i > 100 {
			break
		}
		if err != nil || i == 1999 {
			t.Fatal(i, err)
		}
	}
	l, err := b.End()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(l.Carry)+len(l.Note))
	if n := len(l.Carry) + len(l.Note); n > 1<<20*9/10 || !json.Valid(l.Carry) {
		t.Errorf("state of %d bytes", n)
	}
}

func BenchmarkBuild(b *testing.B) {
	const perBlock, blocks = 10_000, 26
	spans := &wire.SpanBlock{}
	for i := range 60 {
		s := scopeOf('A')
		s.Name = fmt.Sprint("scope ", i)
		s.Hash = wire.ScopeHash(s.Name, s.Filename, s.Target, s.Line)
		spans.Scopes = append(spans.Scopes, s)
	}
	var stack []int
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range perBlock {
		if len(stack) > 0 && (len(stack) == 8 || rnd.IntN(2) == 0 || len(stack) >= perBlock-i) {
			spans.Threads = append(spans.Threads, wire.ThreadEvent{Ticks: int64(i * 50), Index: int32(i), Edge: wire.NewEdge(stack[len(stack)-1], true)})
			stack = stack[:len(stack)-1]
			continue
		}
		n := rnd.IntN(60)
		spans.Threads = append(spans.Threads, wire.ThreadEvent{Ticks: int64(i * 50), Index: int32(i), Edge: wire.NewEdge(n, false)})
		stack = append(stack, n)
	}
	view := threadspans.View()
	size := 0
	for b.Loop() {
		rows := columnar.NewRows(tables.Must("thread_spans"))
		builder, err := view.Begin(rows, instance(), nil)
		if err != nil {
			b.Fatal(err)
		}
		clock := process(telemetry.Process{TSCFrequency: 1e9})
		for i := range blocks {
			row := &justintime.Block{Clock: clock, BlockRow: &catalog.BlockRow{Block: telemetry.Block{
				BeginTicks: 0, EndTicks: perBlock * 50, ObjectOffset: int64(i * perBlock),
			}}}
			if err := builder.Add(row, spans); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := builder.End(); err != nil {
			b.Fatal(err)
		}
		size = rows.Len()
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "spans/s")
}
