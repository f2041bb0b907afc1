package materializers

import (
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// View is a table that is built from blocks as they arrive. A folder below this one makes each.
type View struct {
	Table *tables.Table
	Tag   telemetry.Tag  // of the streams whose blocks it is built from
	Order columnar.Order // of the rows in its files

	// Append must append the rows of one block to dst, or return an error; then what it appended is dropped, and the block is dead.
	// Equal blocks must give equal rows, whatever came before. It must not keep src.
	Append func(dst *columnar.Rows, src *Source) (wire.Counts, error)

	// Derived are tables that are computed from the rows of each file of the view, and committed with it.
	Derived []Derived
}

// Derived is a table whose rows follow from rows of a view.
type Derived struct {
	Table *tables.Table
	Order columnar.Order
	// Append must append the derived rows of the rows of src named in sel, which are in the view's order.
	Append func(dst, src *columnar.Rows, sel []int32)
}

// Source is one block with all that its rows need.
type Source struct {
	Process    *Process
	StreamID   string // lower-case text, as rows have it
	BlockID    string
	InsertTime int64 // ns
	Block      *wire.BlockBody
	Decoder    *wire.Decoder
	Clock      telemetry.Clock
	// MaxRows bounds the rows of the block; more than these must fail with ErrTooManyRows.
	MaxRows int
}

// Process is a registered process as rows show it.
type Process struct {
	telemetry.Process
	Text       string // lower-case id
	Properties string // JSON
}

// Positions of the columns that all event views begin with, in the order of the SQL surface.
const (
	columnProcessID = iota
	columnStreamID
	columnBlockID
	columnInsertTime
	columnExe
	columnUsername
	columnComputer
	// ColumnTime is the position of the event's time.
	ColumnTime
	// ColumnTarget is the position of its target.
	ColumnTarget
)

// Repeat appends n rows of the columns that are the same for all rows of a block: those before ColumnTime, and
// process_properties, which is the last.
func (s *Source) Repeat(dst *columnar.Rows, n int) {
	for _, v := range [...]struct {
		column int
		text   string
	}{
		{columnProcessID, s.Process.Text},
		{columnStreamID, s.StreamID},
		{columnBlockID, s.BlockID},
		{columnExe, s.Process.Exe},
		{columnUsername, s.Process.Username},
		{columnComputer, s.Process.Computer},
		{len(dst.Columns) - 1, s.Process.Properties},
	} {
		c := &dst.Columns[v.column]
		c.Repeat(c.Dict.Intern(v.text), n)
	}
	dst.Columns[columnInsertTime].RepeatInt(s.InsertTime, n)
}
