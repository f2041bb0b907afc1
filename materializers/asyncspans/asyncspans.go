// Package asyncspans builds the view async_events: the begins and ends of asynchronous spans of a process, a row each.
//
// Nothing is paired: a span may begin in one stream and end in another, and what of it lies outside a query's range is not looked for.
// Rows are in order of time; those of one time are in the order of their blocks, and in the block's.
package asyncspans

import (
	"slices"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Positions of the columns of async_events.
const (
	columnStreamID = iota
	columnBlockID
	columnTime
	columnEventType
	columnSpanID
	columnParentSpanID
	columnDepth
	columnHash
	columnName
	columnFilename
	columnTarget
	columnLine
)

// View returns async_events.
func View() justintime.View {
	return justintime.View{
		Table: tables.Must("async_events"), Tag: telemetry.TagCPU, Clock: justintime.ProcessClock,
		Decode: decode,
		Begin: func(rows *columnar.Rows, _ *justintime.Instance, _ []byte) (justintime.Builder, error) {
			return newBuilder(rows), nil
		},
	}
}

func decode(src *materializers.Source) (any, wire.Counts, error) {
	b := &wire.SpanBlock{SkipThreads: true}
	counts, err := src.Decoder.Spans(src.Block, b)
	if err == nil && len(b.Asyncs) > src.MaxRows {
		err = materializers.ErrTooManyRows
	}
	return b, counts, err
}

// builder makes the rows of one partition.
type builder struct {
	rows       *columnar.Rows
	begin, end int32 // numbers of the types of events
	scopes     []scope
}

// scope is the numbers of the texts of a scope.
type scope struct{ name, filename, target int32 }

var _ justintime.Builder = (*builder)(nil)

func newBuilder(rows *columnar.Rows) *builder {
	types := rows.Columns[columnEventType].Dict
	return &builder{rows: rows, begin: types.Intern("begin"), end: types.Intern("end")}
}

// Add implements justintime.Builder.
func (b *builder) Add(block *justintime.Block, decoded any) error {
	spans := decoded.(*wire.SpanBlock)
	if len(spans.Asyncs) == 0 {
		return nil
	}
	b.number(spans.Scopes)
	c := b.rows.Columns
	n := len(spans.Asyncs)
	b.rows.Grow(n)
	c[columnStreamID].Repeat(c[columnStreamID].Dict.Intern(block.StreamID.String()), n)
	c[columnBlockID].Repeat(c[columnBlockID].Dict.Intern(block.ID.String()), n)
	for i := range spans.Asyncs {
		e := &spans.Asyncs[i]
		from := &spans.Scopes[e.Edge.Scope()]
		texts := &b.scopes[e.Edge.Scope()]
		eventType := b.begin
		if e.Edge.IsEnd() {
			eventType = b.end
		}
		c[columnTime].Ints = append(c[columnTime].Ints, block.Clock.Time(e.Ticks))
		c[columnEventType].Index = append(c[columnEventType].Index, eventType)
		c[columnSpanID].Ints = append(c[columnSpanID].Ints, int64(e.Span))
		c[columnParentSpanID].Ints = append(c[columnParentSpanID].Ints, int64(e.Parent))
		c[columnDepth].Ints = append(c[columnDepth].Ints, int64(e.Depth))
		c[columnHash].Ints = append(c[columnHash].Ints, int64(from.Hash))
		c[columnName].Index = append(c[columnName].Index, texts.name)
		c[columnFilename].Index = append(c[columnFilename].Index, texts.filename)
		c[columnTarget].Index = append(c[columnTarget].Index, texts.target)
		c[columnLine].Ints = append(c[columnLine].Ints, int64(from.Line))
	}
	return nil
}

// number looks up the texts of a block's scopes, once for all its events.
func (b *builder) number(scopes []wire.Scope) {
	c := b.rows.Columns
	b.scopes = slices.Grow(b.scopes[:0], len(scopes))
	for i := range scopes {
		s := &scopes[i]
		b.scopes = append(b.scopes, scope{
			name: c[columnName].Dict.Intern(s.Name), filename: c[columnFilename].Dict.Intern(s.Filename), target: c[columnTarget].Dict.Intern(s.Target),
		})
	}
}

// End implements justintime.Builder.
func (b *builder) End() (justintime.Leaving, error) {
	n := b.rows.Len()
	if n == 0 {
		return justintime.Leaving{}, nil
	}
	order := columnar.Identity(nil, n)
	columnar.NewSorter(columnar.NewOrder(b.rows.Table, "time")).Sort(b.rows, order)
	return justintime.Leaving{Order: order, LastKey: b.rows.Columns[columnTime].Ints[order[n-1]]}, nil
}
