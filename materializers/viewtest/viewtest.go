// Package viewtest builds views of justintime in tests: of captured requests or of blocks made on the spot, without a catalog. What a
// test sees is what a file holds, written and read back.
package viewtest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Instance is a process with its streams and blocks.
type Instance struct {
	Process telemetry.Process
	Streams map[telemetry.ID]telemetry.Stream
	Blocks  []Block
	MaxRows int // of a block
}

// Block is a block with its events.
type Block struct {
	catalog.BlockRow
	Body wire.BlockBody
}

// maxRows is more than tests have.
const maxRows = 1 << 20

// NewInstance returns a process that ticks in nanoseconds since 1970, as processes made on the spot do.
func NewInstance() *Instance {
	p := telemetry.Process{ID: telemetry.NewID(), Exe: "exe", Username: "user", Computer: "host", TSCFrequency: 1e9}
	return &Instance{Process: p, Streams: map[telemetry.ID]telemetry.Stream{}, MaxRows: maxRows}
}

// AddStream adds a stream and returns its id.
func (in *Instance) AddStream(tag string, types func() (deps, objs []telemetry.Type)) telemetry.ID {
	s := telemetry.Stream{ID: telemetry.NewID(), ProcessID: in.Process.ID, Tags: []string{tag}, Format: telemetry.FormatTransit}
	s.Dependencies, s.Objects = types()
	in.Streams[s.ID] = s
	return s.ID
}

// AddBlock adds a block of a stream from buffers that are not compressed; begin and end are in ticks, offset is its first event's number.
func (in *Instance) AddBlock(stream telemetry.ID, begin, end, offset int64, deps, objs []byte) *Block {
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: stream, ProcessID: in.Process.ID, BeginTicks: begin, EndTicks: end, BeginTime: begin, EndTime: end,
		ObjectOffset: offset,
	}
	in.Blocks = append(in.Blocks, Block{
		BlockRow: catalog.BlockRow{Block: b, InsertTime: end},
		Body:     wire.BlockBody{Block: b, Dependencies: wire.Compress(nil, deps), Objects: wire.Compress(nil, objs)},
	})
	return &in.Blocks[len(in.Blocks)-1]
}

// Read reads the captured requests of a folder.
func Read(t testing.TB, dir string) *Instance {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*-insert_*.cbor"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d captured requests in %s, %v", len(files), dir, err)
	}
	in := NewInstance()
	for i, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.Contains(file, "insert_process"):
			in.Process, err = wire.DecodeProcess(raw)
		case strings.Contains(file, "insert_stream"):
			var s telemetry.Stream
			s, err = wire.DecodeStream(raw)
			in.Streams[s.ID] = s
		default:
			var b wire.BlockBody
			b, err = wire.DecodeBlock(raw)
			in.Blocks = append(in.Blocks, Block{BlockRow: catalog.BlockRow{Block: b.Block, InsertTime: int64(i)}, Body: b})
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return in
}

// Part is what came of one partition.
type Part struct {
	Rows        *columnar.Rows
	Leaving     justintime.Leaving
	Quarantined []*justintime.QuarantineError
}

// Build builds the blocks of the view's streams as one partition.
func (in *Instance) Build(t testing.TB, view justintime.View) *Part {
	t.Helper()
	return in.BuildParts(t, view, len(in.Blocks))[0]
}

// BuildParts builds them as partitions of sizes blocks each, one upon the other; the last one takes the rest.
func (in *Instance) BuildParts(t testing.TB, view justintime.View, sizes ...int) []*Part {
	t.Helper()
	var blocks []*Block
	for i := range in.Blocks {
		if b := &in.Blocks[i]; telemetry.TagOf(in.Streams[b.StreamID].Tags) == view.Tag {
			blocks = append(blocks, b)
		}
	}
	slices.SortFunc(blocks, func(a, b *Block) int {
		return cmp.Or(cmp.Compare(a.BeginTicks, b.BeginTicks), cmp.Compare(a.EndTicks, b.EndTicks), cmp.Compare(a.InsertTime, b.InsertTime), a.ID.Compare(b.ID))
	})
	var parts []*Part
	var carry []byte
	for i, n := range sizes {
		n = min(n, len(blocks))
		if i == len(sizes)-1 {
			n = len(blocks)
		}
		p := in.part(t, &view, blocks[:n], carry)
		carry, blocks = p.Leaving.Carry, blocks[n:]
		parts = append(parts, p)
	}
	return parts
}

// instance returns in as views know it.
func (in *Instance) instance(view *justintime.View) *justintime.Instance {
	out := &justintime.Instance{
		Process: &materializers.Process{Process: in.Process, Text: in.Process.ID.String(), Properties: telemetry.PropertiesJSON(in.Process.Properties)},
		Streams: map[telemetry.ID]*justintime.Stream{},
	}
	for id, s := range in.Streams {
		if telemetry.TagOf(s.Tags) == view.Tag {
			out.Streams[id] = &justintime.Stream{ID: id, Text: id.String(), Properties: s.Properties}
		}
	}
	return out
}

// clock returns the clock of a view's block: its own, or that of the latest end of all blocks.
func (in *Instance) clock(t testing.TB, view *justintime.View, b *Block) telemetry.Clock {
	t.Helper()
	of := b.Block
	if view.Clock == justintime.ProcessClock {
		for i := range in.Blocks {
			of.EndTicks, of.EndTime = max(of.EndTicks, in.Blocks[i].EndTicks), max(of.EndTime, in.Blocks[i].EndTime)
		}
	}
	c, err := telemetry.NewClock(in.Process, of)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (in *Instance) part(t testing.TB, view *justintime.View, blocks []*Block, carry []byte) *Part {
	t.Helper()
	p := &Part{}
	rows := columnar.NewRows(view.Table)
	builder, err := view.Begin(rows, in.instance(view), carry)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		clock := in.clock(t, view, b)
		decoded, err := in.decode(view, b, clock)
		if err == nil {
			err = builder.Add(&justintime.Block{BlockRow: &b.BlockRow, Clock: clock}, decoded)
		}
		if err != nil {
			var q *justintime.QuarantineError
			if !errors.As(err, &q) {
				q = &justintime.QuarantineError{Block: b.ID, Reason: err.Error()}
			}
			p.Quarantined = append(p.Quarantined, q)
		}
	}
	if p.Leaving, err = builder.End(); err != nil {
		t.Fatal(err)
	}
	for i := range rows.Columns {
		if n := rows.Columns[i].Len(); n != rows.Len() {
			t.Fatalf("column %s has %d rows, the last one %d", view.Table.Columns[i].Name, n, rows.Len())
		}
	}
	p.Rows = again(t, rows, p.Leaving.Order)
	return p
}

// Enter begins a partition upon carry.
func (in *Instance) Enter(view justintime.View, carry []byte) error {
	_, err := view.Begin(columnar.NewRows(view.Table), in.instance(&view), carry)
	return err
}

// Builder returns a function that builds one partition of the decoded blocks, for benchmarks; it returns the number of rows.
func (in *Instance) Builder(t testing.TB, view justintime.View) func() int {
	t.Helper()
	var blocks []*justintime.Block
	var decoded []any
	for i := range in.Blocks {
		b := &in.Blocks[i]
		clock := in.clock(t, &view, b)
		d, err := in.decode(&view, b, clock)
		if err != nil {
			t.Fatal(err)
		}
		blocks, decoded = append(blocks, &justintime.Block{BlockRow: &b.BlockRow, Clock: clock}), append(decoded, d)
	}
	return func() int {
		rows := columnar.NewRows(view.Table)
		builder, err := view.Begin(rows, in.instance(&view), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range blocks {
			if err := builder.Add(blocks[i], decoded[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := builder.End(); err != nil {
			t.Fatal(err)
		}
		return rows.Len()
	}
}

func (in *Instance) decode(view *justintime.View, b *Block, clock telemetry.Clock) (any, error) {
	s := in.Streams[b.StreamID]
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		return nil, err
	}
	decoded, _, err := view.Decode(&materializers.Source{
		Process: in.instance(view).Process, StreamID: b.StreamID.String(), BlockID: b.ID.String(), InsertTime: b.InsertTime,
		Block: &b.Body, Decoder: d, Clock: clock, MaxRows: in.MaxRows,
	})
	return decoded, err
}

// again returns rows as they come back from a file.
func again(t testing.TB, rows *columnar.Rows, order []int32) *columnar.Rows {
	t.Helper()
	out := columnar.NewRows(rows.Table)
	if rows.Len() == 0 {
		return out
	}
	if order == nil {
		order = columnar.Identity(nil, rows.Len())
	}
	w, err := columnar.NewWriter(rows.Table)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteRowGroup(rows, order); err != nil {
		t.Fatal(err)
	}
	data, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	f, err := columnar.OpenFile(rows.Table, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.ReadRowGroup(0, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Lines returns columns of rows as text, a line each with a space between values; of all parts one after the other.
func Lines(parts []*Part, columns ...string) []string {
	lines := []string{}
	for _, p := range parts {
		for row := range p.Rows.Len() {
			var values []string
			for _, name := range columns {
				values = append(values, value(p.Rows, p.Rows.Table.Index(name), row))
			}
			lines = append(lines, strings.Join(values, " "))
		}
	}
	return lines
}

func value(rows *columnar.Rows, column, row int) string {
	c := &rows.Columns[column]
	switch c.Kind {
	case columnar.Text:
		return rows.Text(column, row)
	case columnar.Int:
		return strconv.FormatInt(c.Ints[row], 10)
	}
	return fmt.Sprint(c.Floats[row])
}
