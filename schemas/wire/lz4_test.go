package wire_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func BenchmarkCompress(b *testing.B) {
	l := readLoad(b)
	for _, tag := range []telemetry.Tag{telemetry.TagLog, telemetry.TagMetrics, telemetry.TagCPU} {
		b.Run(tag.String(), func(b *testing.B) {
			block := l.block(b, tag)
			raw, err := wire.Decompress(nil, block.Objects, 1<<30)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				out = wire.Compress(out[:0], raw)
			}
			b.ReportMetric(float64(len(out))/float64(block.NbObjects), "B/row")
			b.ReportMetric(float64(len(wire.CompressHigh(nil, raw)))/float64(block.NbObjects), "high-B/row")
			b.ReportMetric(float64(len(block.Objects))/float64(block.NbObjects), "captured-B/row")
		})
	}
}

func BenchmarkDecompress(b *testing.B) {
	l := readLoad(b)
	block := l.block(b, telemetry.TagLog)
	raw, err := wire.Decompress(nil, block.Objects, 1<<30)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if raw, err = wire.Decompress(raw, block.Objects, 1<<30); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCompressRoundTrips(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4<<20+1)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	text := bytes.Repeat([]byte("telemetry, "), 1<<19)
	for _, n := range []int{0, 1, 15, 16, 17, 1000, 64 << 10, 64<<10 + 1, 256<<10 + 1, 4<<20 + 1} {
		for _, src := range [][]byte{noise[:n], text[:n]} {
			if high, err := wire.Decompress(nil, wire.CompressHigh(nil, src[:min(n, 70_000)]), n); err != nil || !bytes.Equal(high, src[:len(high)]) {
				t.Fatalf("%d bytes, high: got %d, %v", n, len(high), err)
			}
			frame := wire.Compress([]byte("head"), src)
			if !bytes.HasPrefix(frame, []byte("head")) {
				t.Fatal("Compress does not append")
			}
			got, err := wire.Decompress(nil, append(frame[4:], "trailing junk"...), n)
			if err != nil || !bytes.Equal(got, src) {
				t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
			}
			if n > 0 {
				if _, err := wire.Decompress(nil, frame[4:], n-1); err == nil {
					t.Fatalf("%d bytes pass a limit of one less", n)
				}
			}
			for _, cut := range []int{1, 4, 5, 8} {
				if _, err := wire.Decompress(nil, frame[4:len(frame)-cut], n); err == nil {
					t.Fatalf("%d bytes: frame without its last %d bytes passes", n, cut)
				}
			}
		}
	}
}

func TestFrameChecksumsAreChecked(t *testing.T) {
	frame := wire.Compress(nil, []byte("a block of telemetry, a block of telemetry"))
	for i := range frame {
		broken := bytes.Clone(frame)
		broken[i] ^= 0x10
		if _, err := wire.Decompress(nil, broken, 1<<20); err == nil {
			t.Errorf("flipped bit in byte %d passes", i)
		}
	}
}

func BenchmarkCompressHigh(b *testing.B) {
	l := readLoad(b)
	block := l.block(b, telemetry.TagLog)
	raw, err := wire.Decompress(nil, block.Objects, 1<<30)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	var out []byte
	for b.Loop() {
		out = wire.CompressHigh(out[:0], raw)
	}
}
