// Package netspans builds the view net_spans: what a process sent and received, as spans that nest by connection, object and call, from
// the begin and end events of its net streams.
//
// Blocks of a stream that touch form a chain; where one is missing a new chain begins, and what was open in the old one is no row. A span
// is one row, in the partition of its end, so rows come with children before their parents; what is open at the end of a partition is in
// its Carry. An end that does not fit the innermost open span is ignored.
//
// A span has a place in its parent's bits, not in the connection's: it begins where the parent's earlier children ended. Its own size is what its
// end event says, which is more than its children's together (there are frames around them).
package netspans

import (
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Positions of the columns of net_spans.
const (
	columnProcessID = iota
	columnStreamID
	columnSpanID
	columnParentSpanID
	columnDepth
	columnKind
	columnName
	columnConnectionName
	columnIsOutgoing
	columnBeginBits
	columnEndBits
	columnBitSize
	columnBeginTime
	columnEndTime
)

// View returns net_spans.
func View() justintime.View {
	return justintime.View{
		Table: tables.Must("net_spans"), Tag: telemetry.TagNet, Clock: justintime.ProcessClock, Chained: true,
		Decode: decode,
		Begin: func(rows *columnar.Rows, in *justintime.Instance, carry []byte) (justintime.Builder, error) {
			return newBuilder(rows, in, carry)
		},
	}
}

func decode(src *materializers.Source) (any, wire.Counts, error) {
	b := &wire.NetBlock{}
	counts, err := src.Decoder.Nets(src.Block, b)
	if err == nil && len(b.Events) > src.MaxRows {
		err = materializers.ErrTooManyRows
	}
	return b, counts, err
}
