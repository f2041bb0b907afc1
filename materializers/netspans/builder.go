package netspans

import (
	"errors"
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// noParent is the parent of a span that is in none.
const noParent = -1

// kind is what a span is.
type kind uint8

const (
	kindConnection kind = iota
	kindObject
	kindProperty
	kindRPC
	kinds
)

var kindNames = [kinds]string{"connection", "object", "property", "rpc"}

// step is what an event does.
type step struct {
	kind kind
	ends bool
}

var steps = [...]step{
	wire.NetKindConnectionBegin: {kind: kindConnection},
	wire.NetKindConnectionEnd:   {kind: kindConnection, ends: true},
	wire.NetKindObjectBegin:     {kind: kindObject},
	wire.NetKindObjectEnd:       {kind: kindObject, ends: true},
	wire.NetKindRPCBegin:        {kind: kindRPC},
	wire.NetKindRPCEnd:          {kind: kindRPC, ends: true},
	wire.NetKindProperty:        {kind: kindProperty},
}

// builder makes the rows of one partition.
type builder struct {
	rows    *columnar.Rows
	process string
	kinds   [kinds]int32 // numbers of their names
	none    int32        // number of the name of no connection
	chains  map[telemetry.ID]*chain
	open    int // spans of all chains
	text    int // bytes of their names
	undo    []span
}

var _ justintime.Builder = (*builder)(nil)

// chain is what is open in the chain of one stream.
type chain struct {
	id       telemetry.ID
	endTicks int64 // relative
	stack    []span
}

// span is an open span.
type span struct {
	id, parent int64
	ticks      int64 // absolute, of its begin
	used       int64 // bits of its children so far
	depth      uint32
	name       int32 // number in the column of names
	connection int32 // number of a connection's name in the column of those
	kind       kind
	outgoing   bool // of a connection
}

func newBuilder(rows *columnar.Rows, in *justintime.Instance, carry []byte) (*builder, error) {
	b := &builder{rows: rows, process: in.Process.Text, chains: map[telemetry.ID]*chain{}}
	for i, name := range kindNames {
		b.kinds[i] = rows.Columns[columnKind].Dict.Intern(name)
	}
	b.none = rows.Columns[columnConnectionName].Dict.Intern("")
	return b, b.enter(carry)
}

// Bounds of what is open, so that any Carry can be stored: names grow sixfold at most when they are written, numbers take 150 bytes for
// each span or stream at most.
const (
	maxOpen     = 1024
	maxOpenText = 96 << 10
)

var errTooDeep = errors.New("more is open than a partition can hand on")

// Add implements justintime.Builder.
func (b *builder) Add(block *justintime.Block, decoded any) error {
	events := decoded.(*wire.NetBlock).Events
	c := b.chains[block.StreamID]
	if c == nil {
		c = &chain{id: block.StreamID, endTicks: block.EndTicks}
	}
	rows, was, open, text := b.rows.Len(), c.endTicks, b.open, b.text
	b.undo = append(b.undo[:0], c.stack...)
	if block.BeginTicks > c.endTicks { // a block is missing
		b.drop(c)
	}
	c.endTicks = max(c.endTicks, block.EndTicks)
	defer b.rows.Forget()
	for i := range events {
		if err := b.event(c, block, &events[i]); err != nil {
			b.rows.Truncate(rows)
			c.endTicks, b.open, b.text = was, open, text
			c.stack = append(c.stack[:0], b.undo...)
			return &justintime.QuarantineError{Block: block.ID, Reason: fmt.Sprintf("event %d: %v", events[i].Index, err)}
		}
	}
	stream := &b.rows.Columns[columnStreamID]
	stream.Repeat(stream.Dict.Intern(block.StreamID.String()), b.rows.Columns[columnEndTime].Len()-rows)
	b.chains[block.StreamID] = c
	return nil
}

// drop ends a chain: what is open is no row.
func (b *builder) drop(c *chain) {
	for i := range c.stack {
		b.text -= b.textOf(&c.stack[i])
	}
	b.open -= len(c.stack)
	c.stack = c.stack[:0]
}

// textOf returns the bytes of a span's name.
func (b *builder) textOf(s *span) int { return len(b.rows.Columns[columnName].Dict.Value(s.name)) }

func (b *builder) event(c *chain, block *justintime.Block, e *wire.NetEvent) error {
	at := steps[e.Kind]
	switch {
	case at.ends:
		b.end(c, block, at.kind, e)
		return nil
	case at.kind == kindProperty:
		b.property(c, block, e)
		return nil
	}
	return b.begin(c, block, at.kind, e)
}

// inside returns a span of an event inside what is open.
func (b *builder) inside(c *chain, block *justintime.Block, k kind, e *wire.NetEvent) span {
	s := span{
		id: block.ObjectOffset + int64(e.Index), parent: noParent, ticks: e.Ticks, kind: k, outgoing: e.Outgoing,
		name: b.rows.Columns[columnName].Dict.InternShared(e.Name),
	}
	if n := len(c.stack); n > 0 && k != kindConnection { // a connection is in none, also where another one is open
		top := &c.stack[n-1]
		s.parent, s.depth = top.id, top.depth+1
	}
	return s
}

func (b *builder) begin(c *chain, block *justintime.Block, k kind, e *wire.NetEvent) error {
	s := b.inside(c, block, k, e)
	if k == kindConnection {
		s.connection = b.rows.Columns[columnConnectionName].Dict.InternShared(e.Name)
	}
	return b.push(c, &s)
}

func (b *builder) push(c *chain, s *span) error {
	text := b.textOf(s)
	if b.open == maxOpen || b.text+text > maxOpenText {
		return errTooDeep
	}
	b.open++
	b.text += text
	c.stack = append(c.stack, *s)
	return nil
}

// property makes the row of a point.
func (b *builder) property(c *chain, block *justintime.Block, e *wire.NetEvent) {
	s := b.inside(c, block, kindProperty, e)
	b.row(c, block, &s, e)
}

// end ends the innermost span, if it is of that kind.
func (b *builder) end(c *chain, block *justintime.Block, k kind, e *wire.NetEvent) {
	n := len(c.stack) - 1
	if n < 0 || c.stack[n].kind != k {
		return
	}
	s := c.stack[n]
	c.stack = c.stack[:n]
	b.open--
	b.text -= b.textOf(&s)
	b.row(c, block, &s, e)
}

// row makes the row of a span that is not on the stack (any more) and that e ends; its stream is added with all of the block.
func (b *builder) row(c *chain, block *justintime.Block, s *span, e *wire.NetEvent) {
	outermost, begin := s, int64(0)
	if n := len(c.stack); n > 0 {
		outermost = &c.stack[0]
		begin = c.stack[n-1].used
		c.stack[n-1].used += int64(e.Bits)
	}
	connection, outgoing := b.none, false
	if outermost.kind == kindConnection {
		connection, outgoing = outermost.connection, outermost.outgoing
	}
	col := b.rows.Columns
	col[columnSpanID].Ints = append(col[columnSpanID].Ints, s.id)
	col[columnParentSpanID].Ints = append(col[columnParentSpanID].Ints, s.parent)
	col[columnDepth].Ints = append(col[columnDepth].Ints, int64(s.depth))
	col[columnKind].Index = append(col[columnKind].Index, b.kinds[s.kind])
	col[columnName].Index = append(col[columnName].Index, s.name)
	col[columnConnectionName].Index = append(col[columnConnectionName].Index, connection)
	col[columnIsOutgoing].AppendBool(outgoing)
	col[columnBeginBits].Ints = append(col[columnBeginBits].Ints, begin)
	col[columnEndBits].Ints = append(col[columnEndBits].Ints, begin+int64(e.Bits))
	col[columnBitSize].Ints = append(col[columnBitSize].Ints, int64(e.Bits))
	col[columnBeginTime].Ints = append(col[columnBeginTime].Ints, block.Clock.Time(s.ticks))
	col[columnEndTime].Ints = append(col[columnEndTime].Ints, block.Clock.Time(e.Ticks))
}

// End implements justintime.Builder.
func (b *builder) End() (justintime.Leaving, error) {
	process := &b.rows.Columns[columnProcessID]
	process.Repeat(process.Dict.Intern(b.process), b.rows.Len())
	var l justintime.Leaving
	var err error
	l.Carry, err = b.leave()
	return l, err
}

// sorted returns the chains in which something is open, by stream.
func (b *builder) sorted() []*chain {
	var list []*chain
	for _, c := range b.chains {
		if len(c.stack) > 0 {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(x, y *chain) int { return x.id.Compare(y.id) })
	return list
}
