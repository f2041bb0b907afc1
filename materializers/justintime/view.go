package justintime

import (
	"fmt"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// ClockKind says which clock turns a view's ticks into time.
type ClockKind uint8

// The clocks differ only where the process does not know its tick frequency.
const (
	ProcessClock ClockKind = iota // estimated from the latest end of all blocks of the process: one for all of a tree
	BlockClock                    // estimated from each block: depends on nothing else
)

// View is a table that is built when somebody asks for it. A folder beside this one makes each.
type View struct {
	Table   *tables.Table // Table.Instance says whether its instances are processes or streams
	Tag     telemetry.Tag // of the streams whose blocks it is built from
	Clock   ClockKind
	Chained bool // rows depend on the blocks before

	// Decode decodes one block. It is called by many goroutines at once, each with a Source of its own. What it returns must not alias
	// anything of src but strings; it goes to Builder.Add.
	Decode func(src *materializers.Source) (any, wire.Counts, error)

	// Begin starts a partition whose rows go to rows, which are empty. Carry is what the partition before it left; nil = nothing is before.
	Begin func(rows *columnar.Rows, in *Instance, carry []byte) (Builder, error)

	// Window says how partitions that follow each other are read together. Nil: as they are.
	Window func(in *Instance, list []Left) (Window, error)
}

// Instance is whose rows are built.
type Instance struct {
	Process *materializers.Process
	Streams map[telemetry.ID]*Stream
}

// Stream is a stream of an instance.
type Stream struct {
	ID         telemetry.ID
	Text       string // lower-case id
	Properties []telemetry.Property
}

// Block is an archived block with the clock for its ticks.
type Block struct {
	*catalog.BlockRow
	Clock telemetry.Clock
}

// Builder makes the rows of one partition. It is used by one goroutine.
type Builder interface {
	// Add takes the next block. With a *QuarantineError the builder must be as it was before: the block is left out.
	Add(b *Block, decoded any) error
	// End completes the rows.
	End() (Leaving, error)
}

// Left is what a partition of a Chained view leaves, together at most catalog.MaxStateBytes.
type Left struct {
	Carry []byte // for the builder of the next partition
	Note  []byte // for Window
}

// Leaving is a partition when all its blocks were added.
type Leaving struct {
	Left
	// Key is that part of Carry on which rows of the next partition depend: while it is the same, they are fresh. Nil = all of it.
	Key   []byte
	Order []int32 // the rows in the order of the file; nil = as they are
	Open  int     // spans that are open at the end: rows of nobody's file yet
	// LastKey is the time of the last row by which the file is in order; 0 = it is not in such an order.
	LastKey int64
}

// Window is how partitions are read together.
type Window struct {
	Open   []telemetry.Span // spans that are open at the end of the last partition, outermost first
	Shifts []Shift          // of each partition
}

// Shift is added to the depth of rows that begin at From or later.
type Shift struct {
	Depth int32
	From  int64
}

// QuarantineError says why a block is left out, while the others are served.
type QuarantineError struct {
	Block  telemetry.ID
	Reason string
}

func (e *QuarantineError) Error() string { return fmt.Sprintf("block %s: %s", e.Block, e.Reason) }
