// Package images builds the view images: the images that a process emitted, a row each with its bytes.
//
// Rows are in order of time; those of one time are in the order of their blocks, and in the block's. A partition has a bound in bytes,
// since the images of its blocks are in memory together: a block beyond it is left out.
package images

import (
	"bytes"
	"fmt"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Positions of the columns of images.
const (
	columnProcessID = iota
	columnStreamID
	columnBlockID
	columnInsertTime
	columnExe
	columnUsername
	columnComputer
	columnTime
	columnName
	columnFormat
	columnPayloadSize
	columnData
)

// maxBytes bounds the images of a partition. Blocks are compressed, images hardly ever: a partition of blocks of 64 MiB has about as
// much, and one of images that do compress has room for eight times that.
const maxBytes = 512 << 20

// View returns images.
func View() justintime.View { return viewOf(maxBytes) }

func viewOf(maxBytes int) justintime.View {
	return justintime.View{
		Table: tables.Must("images"), Tag: telemetry.TagImage, Clock: justintime.BlockClock,
		Decode: decode,
		Begin: func(rows *columnar.Rows, in *justintime.Instance, _ []byte) (justintime.Builder, error) {
			return &builder{rows: rows, process: in.Process, maxBytes: maxBytes}, nil
		},
	}
}

// block is the images of a block.
type block struct {
	images []wire.Image
	bytes  int
}

func decode(src *materializers.Source) (any, wire.Counts, error) {
	b := &block{}
	counts, err := src.Decoder.Images(src.Block, func(_ int, i *wire.Image) error {
		if len(b.images) == src.MaxRows {
			return materializers.ErrTooManyRows
		}
		image := *i
		image.Data = bytes.Clone(i.Data)
		b.images = append(b.images, image)
		b.bytes += len(i.Data)
		return nil
	})
	return b, counts, err
}

// builder makes the rows of one partition.
type builder struct {
	rows     *columnar.Rows
	process  *materializers.Process
	maxBytes int
	bytes    int
}

var _ justintime.Builder = (*builder)(nil)

// Add implements justintime.Builder.
func (b *builder) Add(from *justintime.Block, decoded any) error {
	d := decoded.(*block)
	if b.bytes+d.bytes > b.maxBytes {
		return &justintime.QuarantineError{Block: from.ID, Reason: fmt.Sprintf("too large: the images of its part of the hour have more than %d bytes", b.maxBytes)}
	}
	b.bytes += d.bytes
	b.repeat(from, len(d.images))
	c := b.rows.Columns
	for i := range d.images {
		image := &d.images[i]
		c[columnTime].Ints = append(c[columnTime].Ints, from.Clock.Time(image.Ticks))
		c[columnName].Index = append(c[columnName].Index, c[columnName].Dict.Intern(image.Name))
		c[columnFormat].Index = append(c[columnFormat].Index, c[columnFormat].Dict.Intern(image.Format))
		c[columnPayloadSize].Ints = append(c[columnPayloadSize].Ints, int64(len(image.Data)))
		c[columnData].Index = append(c[columnData].Index, c[columnData].Dict.AppendBytes(image.Data))
	}
	return nil
}

// repeat appends the columns that are the same for all n images of a block.
func (b *builder) repeat(from *justintime.Block, n int) {
	for _, v := range [...]struct {
		column int
		text   string
	}{
		{columnProcessID, b.process.Text},
		{columnStreamID, from.StreamID.String()},
		{columnBlockID, from.ID.String()},
		{columnExe, b.process.Exe},
		{columnUsername, b.process.Username},
		{columnComputer, b.process.Computer},
	} {
		c := &b.rows.Columns[v.column]
		c.Repeat(c.Dict.Intern(v.text), n)
	}
	b.rows.Columns[columnInsertTime].RepeatInt(from.InsertTime, n)
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
