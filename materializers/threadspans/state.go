package threadspans

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Bounds of the spans of a thread that are open at once, so that a state stays below catalog.MaxStateBytes also when JSON writes each byte
// of a name as six. A block that goes beyond is left out.
const (
	maxOpen     = 1024
	maxOpenText = 120 << 10
)

// carry is a chain that may go on in the next partition.
type carry struct {
	EndTicks int64  `json:"end_ticks"` // greatest end of its blocks, relative
	End      int64  `json:"end"`       // the same as time
	Begin    int64  `json:"begin"`     // begin of its first block
	Clip     int64  `json:"clip"`      // where a span begins whose begin event is not known
	Rooted   bool   `json:"rooted,omitempty"`
	Open     []open `json:"open,omitempty"` // outermost first
}

// open is a span that is open.
type open struct {
	ID     int64  `json:"id"`
	Begin  int64  `json:"begin"`
	Floor  int64  `json:"floor"` // end of the last span inside that ended; Begin when there is none
	Hash   uint32 `json:"hash"`
	Name   string `json:"name"`
	Target string `json:"target"`
	File   string `json:"file"`
	Line   uint32 `json:"line"`
}

func (o *open) scope() wire.Scope {
	return wire.Scope{Name: o.Name, Target: o.Target, Filename: o.File, Line: o.Line, Hash: o.Hash}
}

// key is what rows of later partitions depend on: all but since when the chain is known.
func (c carry) key() ([]byte, error) {
	c.Begin = 0
	return json.Marshal(c)
}

// note is what a partition says of the chains that reach over its borders.
type note struct {
	Entered      bool  `json:"entered,omitempty"`       // a chain was carried in
	EnteredBegin int64 `json:"entered_begin,omitempty"` // where it begins, as was known
	Closed       bool  `json:"closed,omitempty"`        // which ended here
	ClosedEnd    int64 `json:"closed_end,omitempty"`
	ClosedRooted bool  `json:"closed_rooted,omitempty"`

	Begin  int64 `json:"begin"` // of the last chain, unless it was carried in
	Rooted bool  `json:"rooted,omitempty"`
}

// window puts partitions together: the roots of the chains that reach over borders, the spans that are open at the end, and how much
// deeper rows are in partitions at whose end their chain had no root yet.
func window(in *justintime.Instance, list []justintime.Left) (justintime.Window, error) {
	w := justintime.Window{Shifts: make([]justintime.Shift, len(list))}
	if len(list) == 0 {
		return w, nil
	}
	root := rootOf(in)
	begin, chain := int64(0), []int{} // of the chain that reaches over the border, and the partitions in which it had no root
	rooted := func(at int64, end int64) {
		w.Open = append(w.Open, rootSpan(root, at, end))
		for _, k := range chain {
			w.Shifts[k].Depth = 1
		}
	}
	for k := range list {
		if len(list[k].Note) == 0 {
			continue // all its blocks were left out
		}
		var n note
		if err := json.Unmarshal(list[k].Note, &n); err != nil {
			return w, fmt.Errorf("note of a partition of thread_spans: %w", err)
		}
		if k == 0 && n.Entered {
			begin = n.EnteredBegin
		}
		if n.Closed && n.ClosedRooted {
			rooted(begin, n.ClosedEnd)
		}
		from := int64(math.MinInt64)
		if !n.Entered || n.Closed {
			begin, chain, from = n.Begin, nil, n.Begin
		}
		if !n.Rooted {
			chain = append(chain, k)
			w.Shifts[k].From = from
		}
	}
	var c carry
	if last := list[len(list)-1].Carry; len(last) == 0 {
		return w, nil
	}
	if err := json.Unmarshal(list[len(list)-1].Carry, &c); err != nil {
		return w, fmt.Errorf("state of a partition of thread_spans: %w", err)
	}
	if c.Rooted {
		rooted(begin, c.End)
	}
	w.Open = append(w.Open, c.spans()...)
	slices.SortStableFunc(w.Open, func(a, b telemetry.Span) int {
		if a.Begin != b.Begin {
			return int(min(max(a.Begin-b.Begin, -1), 1))
		}
		return int(a.Depth) - int(b.Depth)
	})
	return w, nil
}

func rootSpan(root wire.Scope, begin, end int64) telemetry.Span {
	return telemetry.Span{ID: rootID, Hash: root.Hash, Begin: begin, End: end, Name: root.Name}
}

// spans returns the open spans, which last until the chain's end so far.
func (c *carry) spans() []telemetry.Span {
	out := make([]telemetry.Span, len(c.Open))
	parent, depth := int64(0), uint32(0)
	if c.Rooted {
		parent, depth = rootID, 1
	}
	for i := range c.Open {
		o := &c.Open[i]
		out[i] = telemetry.Span{
			ID: o.ID, Parent: parent, Depth: depth, Hash: o.Hash, Begin: o.Begin, End: max(c.End, o.Floor),
			Name: o.Name, Target: o.Target, Filename: o.File, Line: o.Line,
		}
		parent, depth = o.ID, depth+1
	}
	return out
}
