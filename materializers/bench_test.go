package materializers_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/logs"
	"github.com/micromegas-go/micromegas/materializers/measures"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// captured holds the blocks of production size that the load generator repeats.
type captured struct {
	process *materializers.Process
	layouts map[telemetry.Tag]telemetry.Stream
	decoder map[telemetry.Tag]*wire.Decoder
	blocks  map[telemetry.Tag][][]byte
}

func readCaptured(t testing.TB) captured {
	t.Helper()
	files, err := filepath.Glob("../producers/loadgen/load/*.cbor")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d load files, %v", len(files), err)
	}
	c := captured{layouts: map[telemetry.Tag]telemetry.Stream{}, decoder: map[telemetry.Tag]*wire.Decoder{}, blocks: map[telemetry.Tag][][]byte{}}
	tags := map[telemetry.ID]telemetry.Tag{}
	for i, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i == 0:
			p, err := wire.DecodeProcess(body)
			if err != nil {
				t.Fatal(err)
			}
			c.process = &materializers.Process{Process: p, Text: p.ID.String(), Properties: telemetry.PropertiesJSON(p.Properties)}
		case i < 4:
			s, err := wire.DecodeStream(body)
			if err != nil {
				t.Fatal(err)
			}
			tag := telemetry.TagOf(s.Tags)
			tags[s.ID] = tag
			c.layouts[tag] = s
			if c.decoder[tag], err = wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits); err != nil {
				t.Fatal(err)
			}
		default:
			b, _, err := wire.DecodeBlockEnvelope(body)
			if err != nil {
				t.Fatal(err)
			}
			c.blocks[tags[b.StreamID]] = append(c.blocks[tags[b.StreamID]], body)
		}
	}
	return c
}

// fill appends n blocks of processes, 20 of them, and returns the rows.
func (c *captured) fill(t testing.TB, v *materializers.View, rows *columnar.Rows, n int) {
	t.Helper()
	bodies := c.blocks[v.Tag]
	for i := range n {
		body, err := wire.DecodeBlock(bodies[i%len(bodies)])
		if err != nil {
			t.Fatal(err)
		}
		process := *c.process
		process.ID[15] = byte(i % 20)
		process.Text = process.ID.String()
		clock, err := telemetry.NewClock(process.Process, body.Block)
		if err != nil {
			t.Fatal(err)
		}
		id := telemetry.ID{0: byte(i), 1: byte(i >> 8), 2: 1}
		_, err = v.Append(rows, &materializers.Source{
			Process: &process, StreamID: process.Text, BlockID: id.String(), InsertTime: body.EndTime, Block: &body,
			Decoder: c.decoder[v.Tag], Clock: clock, MaxRows: 1 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		rows.Forget()
	}
}

// BenchmarkDecode decodes blocks into columns; BenchmarkFile sorts and encodes what comes of it too, derived tables included:
// the CPU that a committed row costs but for archive, catalog and the write. Rows per second are of CPU time, so that a busy machine does not
// count; run with -cpu 1, or the collector's idle help counts too.
func BenchmarkDecode(b *testing.B) { benchViews(b, false) }

func BenchmarkFile(b *testing.B) { benchViews(b, true) }

func benchViews(b *testing.B, files bool) {
	c := readCaptured(b)
	for _, v := range []materializers.View{logs.View(), measures.View()} {
		for _, blocks := range []int{4, 60} {
			b.Run(v.Table.Name+"/"+map[int]string{4: "flush", 60: "full"}[blocks], func(b *testing.B) {
				rows := columnar.NewRows(v.Table)
				encoder := newEncoder(b, &v)
				total, size := 0, 0
				b.ReportAllocs()
				begun := cpuTime()
				for b.Loop() {
					rows.Reset()
					c.fill(b, &v, rows, blocks)
					total += rows.Len()
					if files {
						size += encoder.encode(b, rows)
					}
				}
				b.ReportMetric(float64(total)/(cpuTime()-begun).Seconds(), "rows/s/core")
				b.ReportMetric(float64(size)/float64(total), "B/row")
			})
		}
	}
}

// encoder makes the files of a view.
type encoder struct {
	view    *materializers.View
	sorter  *columnar.Sorter
	writer  *columnar.Writer
	derived []encoder
	rows    *columnar.Rows
	sel     []int32
}

func newEncoder(t testing.TB, v *materializers.View) *encoder {
	e := &encoder{view: v, sorter: columnar.NewSorter(v.Order)}
	var err error
	if e.writer, err = columnar.NewWriter(v.Table); err != nil {
		t.Fatal(err)
	}
	for _, d := range v.Derived {
		more := newEncoder(t, &materializers.View{Table: d.Table, Order: d.Order})
		more.rows = columnar.NewRows(d.Table)
		e.derived = append(e.derived, *more)
	}
	return e
}

// encode makes all files and returns their size.
func (e *encoder) encode(t testing.TB, rows *columnar.Rows) int {
	size := len(e.file(t, rows))
	for i := range e.derived {
		d := &e.derived[i]
		d.rows.Reset()
		e.view.Derived[i].Append(d.rows, rows, e.sel)
		size += d.encode(t, d.rows)
	}
	return size
}

// file sorts and encodes rows.
func (e *encoder) file(t testing.TB, rows *columnar.Rows) []byte {
	e.sel = columnar.Identity(e.sel, rows.Len())
	e.sorter.Sort(rows, e.sel)
	e.writer.Begin()
	var s columnar.Summary
	for part := range slices.Chunk(e.sel, 120_000) {
		if err := e.writer.WriteRowGroup(rows, part); err != nil {
			t.Fatal(err)
		}
		s.Add(rows, part)
	}
	data, err := e.writer.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// BenchmarkMerge merges eight files of commits into one.
func BenchmarkMerge(b *testing.B) {
	c := readCaptured(b)
	for _, v := range []materializers.View{logs.View(), measures.View()} {
		b.Run(v.Table.Name, func(b *testing.B) {
			encoder := newEncoder(b, &v)
			var files [][]byte
			rows := columnar.NewRows(v.Table)
			total := 0
			for range 8 {
				rows.Reset()
				c.fill(b, &v, rows, 4)
				total += rows.Len()
				files = append(files, encoder.file(b, rows))
			}
			b.ReportAllocs()
			begun := cpuTime()
			for b.Loop() {
				open := make([]*columnar.File, len(files))
				for i := range files {
					var err error
					if open[i], err = columnar.OpenFile(v.Table, files[i]); err != nil {
						b.Fatal(err)
					}
				}
				limits := columnar.Limits{RowGroupRows: 120_000, RowGroupBytes: 16 << 20, FileBytes: 64 << 20}
				if err := columnar.Merge(v.Order, open, encoder.writer, limits, func([]byte, columnar.Summary) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(total*b.N)/(cpuTime()-begun).Seconds(), "rows/s/core")
		})
	}
}
