package wire_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// load holds the captured blocks of production size, by the tag of their stream.
type load struct {
	process telemetry.Process
	streams map[telemetry.Tag]telemetry.Stream
	blocks  map[telemetry.Tag][][]byte
}

func readLoad(t testing.TB) load {
	t.Helper()
	files, err := filepath.Glob("../../producers/loadgen/load/*.cbor")
	if err != nil || len(files) != 13 {
		t.Fatalf("%d load files, %v", len(files), err)
	}
	l := load{streams: map[telemetry.Tag]telemetry.Stream{}, blocks: map[telemetry.Tag][][]byte{}}
	tags := map[telemetry.ID]telemetry.Tag{}
	for i, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i == 0:
			l.process, err = wire.DecodeProcess(body)
		case i < 4:
			var s telemetry.Stream
			s, err = wire.DecodeStream(body)
			tags[s.ID] = telemetry.TagOf(s.Tags)
			l.streams[tags[s.ID]] = s
		default:
			var b telemetry.Block
			b, _, err = wire.DecodeBlockEnvelope(body)
			l.blocks[tags[b.StreamID]] = append(l.blocks[tags[b.StreamID]], body)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return l
}

func (l *load) decoder(t testing.TB, tag telemetry.Tag) *wire.Decoder {
	t.Helper()
	s := l.streams[tag]
	d, err := wire.NewDecoder(s.Dependencies, s.Objects, wire.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (l *load) block(t testing.TB, tag telemetry.Tag) *wire.BlockBody {
	t.Helper()
	b, err := wire.DecodeBlock(l.blocks[tag][0])
	if err != nil {
		t.Fatal(err)
	}
	return &b
}

func perRow(b *testing.B, rows int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}

func BenchmarkLogs(b *testing.B) {
	l := readLoad(b)
	d, block := l.decoder(b, telemetry.TagLog), l.block(b, telemetry.TagLog)
	b.SetBytes(int64(len(l.blocks[telemetry.TagLog][0])))
	b.ReportAllocs()
	chars, rows := 0, 0
	for b.Loop() {
		c, err := d.Logs(block, func(e *telemetry.LogEntry) error { chars += len(e.Msg); return nil })
		if err != nil {
			b.Fatal(err)
		}
		rows = c.Rows
	}
	perRow(b, rows)
}

func BenchmarkMeasures(b *testing.B) {
	l := readLoad(b)
	d, block := l.decoder(b, telemetry.TagMetrics), l.block(b, telemetry.TagMetrics)
	clock, err := telemetry.NewClock(l.process, block.Block)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(l.blocks[telemetry.TagMetrics][0])))
	b.ReportAllocs()
	sum, rows := 0.0, 0
	for b.Loop() {
		c, err := d.Measures(block, clock, func(m *telemetry.Measure) error { sum += m.Value; return nil })
		if err != nil {
			b.Fatal(err)
		}
		rows = c.Rows
	}
	perRow(b, rows)
}

func BenchmarkObjects(b *testing.B) {
	l := readLoad(b)
	d, block := l.decoder(b, telemetry.TagCPU), l.block(b, telemetry.TagCPU)
	b.SetBytes(int64(len(l.blocks[telemetry.TagCPU][0])))
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		c, err := d.Objects(block, func(int, *wire.Object) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		rows = c.Rows
	}
	perRow(b, rows)
}

func BenchmarkEnvelope(b *testing.B) {
	l := readLoad(b)
	body := l.blocks[telemetry.TagLog][0]
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := wire.DecodeBlockEnvelope(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClock(b *testing.B) {
	c, err := telemetry.NewClock(telemetry.Process{TSCFrequency: 2_445_400_000, StartTicks: 7129329302512}, telemetry.Block{})
	if err != nil {
		b.Fatal(err)
	}
	var sum int64
	for b.Loop() {
		sum += c.Time(7129339302512)
	}
}

func BenchmarkNewDecoder(b *testing.B) {
	l := readLoad(b)
	b.ReportAllocs()
	for b.Loop() {
		l.decoder(b, telemetry.TagLog)
	}
}
