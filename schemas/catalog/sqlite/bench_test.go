package sqlite_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// BenchmarkCommitArchive measures archive commits of so many block rows, spread over 400 streams of 100 processes as a
// busy house has them. The figure to watch is µs/block; the target is 20 in batches.
func BenchmarkCommitArchive(b *testing.B) {
	for _, batch := range []int{1, 16, 120, 1000} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "catalog.sqlite"), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			streams := make([]telemetry.ID, 400)
			processes := make([]telemetry.ID, 100)
			for i := range streams {
				streams[i] = telemetry.NewID()
			}
			for i := range processes {
				processes[i] = telemetry.NewID()
			}
			shard := catalog.ShardID{Class: 'e'}
			now := time.Now().UnixNano()
			seq, n := uint64(0), 0
			b.ReportAllocs()
			for b.Loop() {
				c := catalog.ArchiveCommit{
					Shard: shard, From: seq, To: seq + 1, Epoch: 1,
					Pack: &catalog.Pack{Shard: shard, FirstSeq: seq + 1, LastSeq: seq + 1, Key: fmt.Sprint("packs/", seq), Size: 1 << 20},
				}
				for i := range batch {
					n++
					t := now + int64(n)*1e6
					c.Blocks = append(c.Blocks, catalog.BlockReg{
						Block: telemetry.Block{
							ID: telemetry.NewID(), StreamID: streams[n%len(streams)], ProcessID: processes[n%len(processes)],
							BeginTime: t, EndTime: t + 5e9, BeginTicks: t, EndTicks: t + 5e9, NbObjects: 3000,
						},
						InsertTime: t, PackOffset: int64(i) * 34000, PackLength: 34000, PayloadSize: 33900,
					})
				}
				if err := db.CommitArchive(b.Context(), &c); err != nil {
					b.Fatal(err)
				}
				seq++
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/block")
		})
	}
}
