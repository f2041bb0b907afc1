package freezer_test

import (
	"fmt"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// BenchmarkFreeze freezes a day of 200 k blocks of 1,000 streams from SQLite: reading, writing, committing and sweeping.
func BenchmarkFreeze(b *testing.B) {
	const rows, packs, streams = 200_000, 1000, 1000
	for b.Loop() {
		b.StopTimer()
		w := newWorld(b)
		ids := make([]telemetry.ID, streams)
		for i := range ids {
			ids[i] = telemetry.NewID()
		}
		day := (today - 9).Begin()
		for p := range uint64(packs) {
			c := &catalog.ArchiveCommit{
				Shard: raw, From: p, To: p + 1, Epoch: 1,
				Pack: &catalog.Pack{Shard: raw, FirstSeq: p + 1, LastSeq: p + 1, Key: fmt.Sprintf("packs/r/0/0/00000000/%020d-%s.pack", p+1, telemetry.NewID()), Size: 1},
			}
			for i := range rows / packs {
				n := int64(p)*rows/packs + int64(i)
				blk := catalog.BlockReg{Block: telemetry.Block{ID: telemetry.NewID(), StreamID: ids[n*7919%streams], ProcessID: ids[n*7919%streams/4]}}
				blk.BeginTime = day + n*86_400_000/rows*1e6
				blk.EndTime, blk.InsertTime, blk.PackOffset, blk.PackLength = blk.BeginTime+5e9, blk.BeginTime+6e9, int64(i)*30_000, 30_000
				c.Blocks = append(c.Blocks, blk)
			}
			if err := w.cat.CommitArchive(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
		f := w.freezer(nil)
		b.StartTimer()
		w.freeze(f)
		b.StopTimer()
		if s := f.Stats(); s.Rows != rows {
			b.Fatalf("%+v", s)
		}
		b.ReportMetric(float64(f.Stats().Bytes)/rows, "B/row")
		b.StartTimer()
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
