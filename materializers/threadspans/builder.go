package threadspans

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// rootID is the id of the root of a thread.
const rootID = -1

// noParent stands in rows for the root or, in a chain without one, for nothing: which of them is known at the chain's end only.
const noParent = -1

// builder makes the rows of one partition. A span gets its row when it begins, so rows are in order of begins; the row counts when the
// span has ended. It is as good as a tree with children: what becomes of earlier rows (a root above them, or a span that began before
// the chain) is the same for all rows up to some place, and is applied once, at the end.
type builder struct {
	rows *columnar.Rows

	// One of each for a row.
	ids, parents, begins, ends []int64 // ends: notEnded while the span is open
	depths                     []uint32
	scopes                     []int32 // number in scopeList

	scopeList []wire.Scope
	scopeNo   map[wire.Scope]int32
	blockNo   []int32 // of the scopes of the current block; -1 = not looked up

	chain  *chain
	chains []segment // that ended in this partition
	note   note
	undo   undo
}

// notEnded marks the row of an open span.
const notEnded = -1 << 63

// chain is the chain that is being read.
type chain struct {
	carry
	stack   []node
	text    int        // bytes of the names of the open spans
	from    int        // its first row, which is kept for its root
	adopt   int        // the first row that a span without a begin would adopt
	adopted []adoption // by spans without a begin, in order
	carried bool
}

// node is an open span.
type node struct {
	id, floor int64
	row       int32
	hash      uint32
	carried   bool // it was open when the partition began
}

// adoption says that rows before a row are inside it.
type adoption struct{ from, row int }

// segment is the rows of a chain that has ended.
type segment struct {
	from, to int
	rooted   bool
	adopted  []adoption
}

func newBuilder(rows *columnar.Rows, in *justintime.Instance, state []byte) (*builder, error) {
	b := &builder{rows: rows, scopeNo: map[wire.Scope]int32{}}
	b.scope(rootOf(in)) // number 0
	if state == nil {
		return b, nil
	}
	c := &chain{carried: true}
	if err := json.Unmarshal(state, &c.carry); err != nil {
		return nil, fmt.Errorf("state of the partition before: %w", err)
	}
	c.from = b.add(rootID, 0, 0, c.Begin)
	for i := range c.Open {
		o := &c.Open[i]
		row := b.add(o.ID, b.scope(o.scope()), uint32(i)+1, o.Begin)
		if i > 0 {
			b.parents[row] = c.Open[i-1].ID
		}
		c.stack = append(c.stack, node{id: o.ID, floor: o.Floor, row: int32(row), hash: o.Hash, carried: true})
		c.text += b.textOf(b.scopes[row])
	}
	c.adopt = len(b.ids)
	c.Open = nil
	b.note.Entered, b.note.EnteredBegin = true, c.Begin
	b.chain = c
	return b, nil
}

// scope returns the number of a scope.
func (b *builder) scope(s wire.Scope) int32 {
	n, ok := b.scopeNo[s]
	if !ok {
		n = int32(len(b.scopeList))
		b.scopeNo[s] = n
		b.scopeList = append(b.scopeList, s)
	}
	return n
}

// add makes the row of a span that is open.
func (b *builder) add(id int64, scope int32, depth uint32, begin int64) int {
	b.ids = append(b.ids, id)
	b.parents = append(b.parents, noParent)
	b.depths = append(b.depths, depth)
	b.scopes = append(b.scopes, scope)
	b.begins = append(b.begins, begin)
	b.ends = append(b.ends, notEnded)
	return len(b.ids) - 1
}

// undo is what a block changed, for the case that it is left out.
type undo struct {
	rows     int
	chain    chain
	stack    []node
	adopted  int
	chains   int
	note     note
	hadChain bool
	chainWas *chain
	ended    []int32 // rows from before the block that it ended
}

func (u *undo) begin(b *builder) {
	u.rows, u.chains, u.note, u.chainWas, u.ended = len(b.ids), len(b.chains), b.note, b.chain, u.ended[:0]
	if u.hadChain = b.chain != nil; u.hadChain {
		u.chain, u.stack, u.adopted = *b.chain, append(u.stack[:0], b.chain.stack...), len(b.chain.adopted)
	}
}

func (u *undo) roll(b *builder) {
	b.ids, b.parents, b.depths = b.ids[:u.rows], b.parents[:u.rows], b.depths[:u.rows]
	b.scopes, b.begins, b.ends = b.scopes[:u.rows], b.begins[:u.rows], b.ends[:u.rows]
	for _, row := range u.ended {
		b.ends[row] = notEnded
	}
	b.chains, b.note, b.chain = b.chains[:u.chains], u.note, u.chainWas
	if u.hadChain {
		*b.chain = u.chain
		b.chain.stack = append(b.chain.stack[:0], u.stack...)
		b.chain.adopted = b.chain.adopted[:u.adopted]
	}
}

// Add implements justintime.Builder.
func (b *builder) Add(block *justintime.Block, decoded any) error {
	spans := decoded.(*wire.SpanBlock)
	b.undo.begin(b)
	// Blocks come in the order of ticks, except over the border of an hour if the wall clock was set back: that is a chain of its own, too.
	if b.chain == nil || block.BeginTicks > b.chain.EndTicks || block.Clock.Relative(block.BeginTicks) < b.chain.Begin {
		b.closeChain()
		b.openChain(block)
	}
	c := b.chain
	if block.EndTicks > c.EndTicks {
		c.EndTicks, c.End = block.EndTicks, block.Clock.Relative(block.EndTicks)
	}
	b.blockNo = slices.Grow(b.blockNo[:0], len(spans.Scopes))[:len(spans.Scopes)]
	for i := range spans.Scopes {
		b.blockNo[i] = -1
	}
	if err := b.events(c, block, spans); err != nil {
		b.undo.roll(b)
		return &justintime.QuarantineError{Block: block.ID, Reason: err.Error()}
	}
	return nil
}

// openChain begins a chain with a block.
func (b *builder) openChain(block *justintime.Block) {
	at := block.Clock.Relative(block.BeginTicks)
	b.chain = &chain{carry: carry{EndTicks: block.EndTicks, End: max(at, block.Clock.Relative(block.EndTicks)), Begin: at, Clip: at}}
	b.chain.from = b.add(rootID, 0, 0, at)
	b.chain.adopt = len(b.ids)
	b.note.Begin = at
}

// closeChain ends the chain: what is open lasts until its end.
func (b *builder) closeChain() {
	c := b.chain
	if c == nil {
		return
	}
	for i := len(c.stack) - 1; i >= 0; i-- {
		n := &c.stack[i]
		b.end(n.row, max(c.End, n.floor))
	}
	if c.carried { // its root is of many partitions: Window knows where it begins
		b.note.Closed, b.note.ClosedEnd, b.note.ClosedRooted = true, c.End, c.Rooted
	} else if c.Rooted {
		b.end(int32(c.from), c.End)
	}
	b.chains = append(b.chains, segment{from: c.from, to: len(b.ids), rooted: c.Rooted, adopted: c.adopted})
	b.chain = nil
}

// end makes a row count.
func (b *builder) end(row int32, at int64) {
	b.ends[row] = at
	if int(row) < b.undo.rows {
		b.undo.ended = append(b.undo.ended, row)
	}
}

// events is the stack machine.
func (b *builder) events(c *chain, block *justintime.Block, spans *wire.SpanBlock) error {
	for i := range spans.Threads {
		e := &spans.Threads[i]
		at := block.Clock.Time(e.Ticks)
		if at < c.Begin {
			continue
		}
		if at > c.End {
			return nil
		}
		id := block.ObjectOffset + int64(e.Index)
		scope := b.blockNo[e.Edge.Scope()]
		if scope < 0 {
			scope = b.scope(spans.Scopes[e.Edge.Scope()])
			b.blockNo[e.Edge.Scope()] = scope
		}
		hash := b.scopeList[scope].Hash
		if !e.Edge.IsEnd() {
			if err := b.push(c, id, scope, hash, at); err != nil {
				return err
			}
			continue
		}
		if len(c.stack) == 0 {
			b.endUnknown(c, id, scope, at)
			continue
		}
		top := &c.stack[len(c.stack)-1]
		if top.hash != hash {
			return fmt.Errorf("top scope mismatch: closing '%s' but '%s' is open", b.scopeList[scope].Name, b.scopeList[b.scopes[top.row]].Name)
		}
		b.pop(c, max(at, top.floor))
	}
	return nil
}

// push begins a span.
func (b *builder) push(c *chain, id int64, scope int32, hash uint32, at int64) error {
	text := b.textOf(scope)
	if len(c.stack) == maxOpen || c.text+text > maxOpenText {
		return fmt.Errorf("spans nest deeper than %d, or those that are open have names of more than %d bytes", maxOpen, maxOpenText)
	}
	c.text += text
	parent := int64(noParent)
	if n := len(c.stack); n > 0 {
		top := &c.stack[n-1]
		parent, at = top.id, max(at, top.floor)
	}
	row := b.add(id, scope, uint32(len(c.stack))+1, at)
	b.parents[row] = parent
	c.stack = append(c.stack, node{id: id, floor: at, row: int32(row), hash: hash})
	return nil
}

// textOf returns the bytes that a scope takes in a state, without its numbers and escapes.
func (b *builder) textOf(scope int32) int {
	s := &b.scopeList[scope]
	return len(s.Name) + len(s.Target) + len(s.Filename)
}

// pop ends the innermost span.
func (b *builder) pop(c *chain, at int64) {
	n := len(c.stack) - 1
	top := c.stack[n]
	c.stack = c.stack[:n]
	c.text -= b.textOf(b.scopes[top.row])
	b.end(top.row, at)
	if n > 0 {
		c.stack[n-1].floor = at
		return
	}
	c.Rooted = true
	if top.carried { // rows of other files are inside it: nothing can be put around it any more
		c.adopt, c.Clip = len(b.ids), at
	}
}

// endUnknown ends a span whose begin is not known: it lasts since then, with all outermost spans since then inside.
func (b *builder) endUnknown(c *chain, id int64, scope int32, at int64) {
	row := b.add(id, scope, 1, c.Clip)
	b.end(int32(row), max(at, c.Clip))
	if row > c.adopt {
		c.adopted = append(c.adopted, adoption{c.adopt, row})
	}
	c.Rooted = true
}

// End implements justintime.Builder.
func (b *builder) End() (justintime.Leaving, error) {
	var l justintime.Leaving
	c := b.chain
	if c == nil { // every block was left out
		return l, nil
	}
	b.note.Rooted = c.Rooted
	b.chains = append(b.chains, segment{from: c.from, to: len(b.ids), rooted: c.Rooted, adopted: c.adopted})
	last := b.leave(c)
	for i := range b.chains {
		b.settle(&b.chains[i])
	}
	l.Open = len(last.Open)
	if last.Rooted {
		l.Open++
	}
	l.Order, l.LastKey = b.write()
	for _, o := range last.Open {
		l.LastKey = max(l.LastKey, o.Begin)
	}
	if last.Rooted {
		l.LastKey = max(l.LastKey, last.Begin)
	}
	var err error
	if l.Carry, err = json.Marshal(last); err != nil {
		return l, err
	}
	if l.Key, err = last.key(); err != nil {
		return l, err
	}
	l.Note, err = json.Marshal(b.note)
	return l, err
}

// leave returns the chain as the next partition gets it.
func (b *builder) leave(c *chain) carry {
	out := c.carry
	for i := range c.stack {
		n := &c.stack[i]
		s := &b.scopeList[b.scopes[n.row]]
		out.Open = append(out.Open, open{
			ID: n.id, Begin: b.begins[n.row], Floor: n.floor, Hash: n.hash, Name: s.Name, Target: s.Target, File: s.Filename, Line: s.Line,
		})
	}
	if len(c.stack) == 0 { // nothing in the next partition can be put around what has ended in this one
		for row := c.from + 1; row < len(b.ids); row++ {
			if b.ends[row] != notEnded {
				out.Clip = max(out.Clip, b.ends[row])
			}
		}
	} else {
		out.Clip = max(out.Clip, b.begins[c.stack[0].row])
	}
	return out
}

// settle applies to a chain's rows what is known at its end.
func (b *builder) settle(s *segment) {
	for row := s.from + 1; row < s.to; row++ {
		if !s.rooted {
			b.depths[row]--
		}
	}
	if !s.rooted {
		for row := s.from + 1; row < s.to; row++ {
			if b.depths[row] == 0 {
				b.parents[row] = 0
			}
		}
		return
	}
	b.parents[s.from] = 0
	b.applyAdoptions(s)
}

// applyAdoptions puts rows inside the spans that adopted them. The rows between one adoption and the one before it are inside this one
// and inside all later ones that reach as far back, so each is one deeper for each of them; an outermost one is inside this one first.
func (b *builder) applyAdoptions(s *segment) {
	deeper := uint32(0)
	for i, a := range slices.Backward(s.adopted) {
		if deeper++; i+1 < len(s.adopted) && s.adopted[i+1].from != a.from {
			deeper = 1
		}
		from := a.from
		if i > 0 && s.adopted[i-1].from == a.from {
			from = s.adopted[i-1].row
		}
		for row := from; row < a.row; row++ {
			if b.depths[row] == 1 {
				b.parents[row] = b.ids[a.row]
			}
			b.depths[row] += deeper
		}
	}
}

var _ justintime.Builder = (*builder)(nil)
