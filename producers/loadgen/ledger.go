package loadgen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// MaxLedgerBlocks bounds a ledger, which keeps 24 bytes a block: 100 MB, or some 16 billion events. Who posts more than it holds cannot
// verify it.
const MaxLedgerBlocks = 4 << 20

// maxExamples is how many blocks a verdict names.
const maxExamples = 5

// Ledger is the list of the blocks of a run: those that were acknowledged, and those that were sent and given up. It is safe for
// concurrent use.
type Ledger struct {
	mu         sync.Mutex
	acked      []entry
	unsure     []telemetry.ID
	begin, end int64 // of the acknowledged blocks, ns
}

// entry is an acknowledged block.
type entry struct {
	id     telemetry.ID
	events int32
	tag    telemetry.Tag
}

// Acked notes a block that was acknowledged.
func (l *Ledger) Acked(r *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.acked) == 0 || r.Block.BeginTime < l.begin {
		l.begin = r.Block.BeginTime
	}
	if len(l.acked) == 0 || r.Block.EndTime > l.end {
		l.end = r.Block.EndTime
	}
	l.acked = append(l.acked, entry{r.Block.ID, r.Block.NbObjects, r.Tag})
}

// Unsure notes a block that was sent and not acknowledged: it may be there.
func (l *Ledger) Unsure(r *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsure = append(l.unsure, r.Block.ID)
}

// Span returns the first and the last moment of the events of acknowledged blocks, ns; zeros when there are none.
func (l *Ledger) Span() (begin, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin, l.end
}

// Check compares a ledger with what a server says it has. Block and Rows tell it; Verdict ends it. It is not safe for concurrent use.
type Check struct {
	acked   []entry        // by id
	unsure  []telemetry.ID // sorted
	found   []found        // of acked, at the same index
	maybe   []found        // of unsure
	views   map[telemetry.Tag]string
	strange map[telemetry.ID]bool // blocks that are in no list
}

// found is what the server has of a block.
type found struct {
	times  int32 // in the view of blocks
	events int64 // what that view says
	rows   int64 // in the view of its family
}

// Check begins a comparison with what is in the ledger now.
func (l *Ledger) Check() *Check {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &Check{acked: slices.Clone(l.acked), unsure: slices.Clone(l.unsure), views: map[telemetry.Tag]string{}, strange: map[telemetry.ID]bool{}}
	slices.SortFunc(c.acked, func(a, b entry) int { return compareIDs(a.id, b.id) })
	slices.SortFunc(c.unsure, compareIDs)
	c.found, c.maybe = make([]found, len(c.acked)), make([]found, len(c.unsure))
	return c
}

func compareIDs(a, b telemetry.ID) int { return slices.Compare(a[:], b[:]) }

// of returns what is known of a block, and its family; nil for one that was never sent.
func (c *Check) of(id telemetry.ID) (*found, telemetry.Tag) {
	if i, ok := slices.BinarySearchFunc(c.acked, id, func(e entry, id telemetry.ID) int { return compareIDs(e.id, id) }); ok {
		return &c.found[i], c.acked[i].tag
	}
	if i, ok := slices.BinarySearchFunc(c.unsure, id, compareIDs); ok {
		return &c.maybe[i], telemetry.TagUnknown
	}
	if len(c.strange) < MaxLedgerBlocks {
		c.strange[id] = true
	}
	return nil, telemetry.TagUnknown
}

// Block tells of one row of the view of blocks.
func (c *Check) Block(id telemetry.ID, events int64) {
	if f, _ := c.of(id); f != nil {
		f.times++
		f.events = events
	}
}

// View says that blocks of a family have their rows in a view, which Rows will tell of.
func (c *Check) View(tag telemetry.Tag, name string) { c.views[tag] = name }

// Rows tells of n rows of a block in the view of the family tag.
func (c *Check) Rows(tag telemetry.Tag, id telemetry.ID, n int64) {
	f, is := c.of(id)
	switch {
	case f == nil:
	case is != tag && is != telemetry.TagUnknown:
		c.strange[id] = true
	default:
		f.rows += n
	}
}

// FamilyVerdict is what became of the acknowledged blocks of one family of streams.
type FamilyVerdict struct {
	Family      string `json:"family"`
	Acked       int64  `json:"acked_blocks"`
	Events      int64  `json:"acked_events"`
	Found       int64  `json:"found_blocks"` // different ones
	FoundEvents int64  `json:"found_events"`
	View        string `json:"view,omitempty"` // "" = its rows are not looked at
	Rows        int64  `json:"rows"`
}

// Verdict says whether everything that was acknowledged can be read, once.
type Verdict struct {
	AckedBlocks int64           `json:"acked_blocks"`
	AckedEvents int64           `json:"acked_events"`
	Families    []FamilyVerdict `json:"families"`
	Missing     int64           `json:"missing_blocks"`  // acknowledged, and not in the view of blocks
	Doubled     int64           `json:"doubled_blocks"`  // there more than once, acknowledged or not
	Changed     int64           `json:"changed_blocks"`  // there with another number of events
	FewRows     int64           `json:"few_rows_blocks"` // there, with fewer rows in the view of their family than events
	ManyRows    int64           `json:"many_rows_blocks"`
	Strange     int64           `json:"strange_blocks"` // there, and never sent
	Unsure      int64           `json:"unsure_blocks"`  // sent and never acknowledged: no fault, there or not
	UnsureFound int64           `json:"unsure_found_blocks"`
	Examples    []string        `json:"examples,omitempty"` // of faults
}

// Verdict compares.
func (c *Check) Verdict() Verdict {
	v := Verdict{AckedBlocks: int64(len(c.acked)), Unsure: int64(len(c.unsure)), Strange: int64(len(c.strange))}
	families := map[telemetry.Tag]*FamilyVerdict{}
	for i, e := range c.acked {
		f := families[e.tag]
		if f == nil {
			f = &FamilyVerdict{Family: e.tag.String(), View: c.views[e.tag]}
			families[e.tag] = f
		}
		v.AckedEvents += int64(e.events)
		f.add(e, c.found[i])
		v.judge(e, c.found[i], f.View)
	}
	for i, f := range c.maybe {
		if f.times > 0 {
			v.UnsureFound++
		}
		if f.times > 1 || f.rows > 0 && f.times > 0 && f.rows > f.events {
			v.fault(&v.Doubled, "block %s, which was not acked, is there %d times with %d rows", c.unsure[i], f.times, f.rows)
		}
	}
	for id := range c.strange {
		v.example("block %s, or its rows, is there and was never sent so", id)
	}
	for _, f := range families {
		v.Families = append(v.Families, *f)
	}
	slices.SortFunc(v.Families, func(a, b FamilyVerdict) int { return cmp.Compare(a.Family, b.Family) })
	return v
}

func (f *FamilyVerdict) add(e entry, got found) {
	f.Acked++
	f.Events += int64(e.events)
	f.Rows += got.rows
	if got.times > 0 {
		f.Found++
		f.FoundEvents += got.events
	}
}

// judge adds what is wrong with an acknowledged block.
func (v *Verdict) judge(e entry, got found, view string) {
	events := int64(e.events)
	name := fmt.Sprintf("block %s (%s, %s events)", e.id, e.tag, Grouped(events))
	switch {
	case got.times == 0:
		v.fault(&v.Missing, "%s is missing", name)
	case got.times > 1:
		v.fault(&v.Doubled, "%s is there %d times", name, got.times)
	case got.events != events:
		v.fault(&v.Changed, "%s is there with %s events", name, Grouped(got.events))
	}
	switch {
	case view == "":
	case got.rows < events:
		v.fault(&v.FewRows, "%s has %s rows in %s", name, Grouped(got.rows), view)
	case got.rows > events:
		v.fault(&v.ManyRows, "%s has %s rows in %s", name, Grouped(got.rows), view)
	}
}

func (v *Verdict) fault(count *int64, format string, args ...any) {
	*count++
	v.example(format, args...)
}

func (v *Verdict) example(format string, args ...any) {
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

// OK reports whether all that was acknowledged is there, once, and nothing else. Nothing acknowledged is not OK: nothing was verified.
func (v *Verdict) OK() bool {
	return v.AckedBlocks > 0 && v.Missing+v.Doubled+v.Changed+v.FewRows+v.ManyRows+v.Strange == 0
}

// String is the verdict in a sentence.
func (v *Verdict) String() string {
	var b strings.Builder
	switch {
	case v.AckedBlocks == 0:
		b.WriteString("no block was acked: there is nothing to verify")
	case v.OK():
		fmt.Fprintf(&b, "all %s acked blocks (%s events) are there, each once", Grouped(v.AckedBlocks), Grouped(v.AckedEvents))
	default:
		fmt.Fprintf(&b, "of %s acked blocks (%s events) not all are there, each once", Grouped(v.AckedBlocks), Grouped(v.AckedEvents))
	}
	sep := "; "
	for _, f := range v.Families {
		if f.View == "" {
			fmt.Fprintf(&b, "%s%s %s of %s blocks", sep, f.Family, Grouped(f.Found), Grouped(f.Acked))
		} else {
			fmt.Fprintf(&b, "%s%s %s of %s rows", sep, f.View, Grouped(f.Rows), Grouped(f.Events))
		}
		sep = ", "
	}
	if v.Unsure > 0 {
		fmt.Fprintf(&b, "; of %s blocks that were sent and never acked %s are there", Grouped(v.Unsure), Grouped(v.UnsureFound))
	}
	for _, f := range []struct {
		what string
		n    int64
	}{
		{"missing", v.Missing},
		{"there more than once", v.Doubled},
		{"there with another number of events", v.Changed},
		{"short of rows", v.FewRows},
		{"with too many rows", v.ManyRows},
		{"there and never sent", v.Strange},
	} {
		if f.n > 0 {
			fmt.Fprintf(&b, "; %s: %s", f.what, Grouped(f.n))
		}
	}
	if len(v.Examples) > 0 {
		fmt.Fprintf(&b, "; such as: %s", strings.Join(v.Examples, "; "))
	}
	return b.String()
}
