package sqlite_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// BenchmarkCommitArchive measures archive commits of so many block rows, spread over 400 streams of 100 processes as a
// busy house has them. The figure to watch is cpu-µs/block; the target is 20 in batches.
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
			cpu := cpuTime()
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
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(n), "cpu-µs/block")
		})
	}
}

// BenchmarkCommitTraces archives batches of 120 blocks, of which each has so many trace ids, into an index that holds some 500,000.
func BenchmarkCommitTraces(b *testing.B) {
	for _, each := range []int{0, 1, 16} {
		b.Run(fmt.Sprint(each), func(b *testing.B) {
			db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "catalog.sqlite"), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			shard, stream, seq := catalog.ShardID{Class: 'e'}, telemetry.NewID(), uint64(0)
			commit := func(blocks, ids int) {
				c := catalog.ArchiveCommit{
					Shard: shard, From: seq, To: seq + 1, Epoch: 1,
					Pack: &catalog.Pack{Shard: shard, FirstSeq: seq + 1, LastSeq: seq + 1, Key: fmt.Sprint("packs/", seq), Size: 1 << 20},
				}
				for i := range blocks {
					t := int64(seq)*1e9 + int64(i)*1e6
					r := catalog.BlockReg{Block: telemetry.Block{ID: telemetry.NewID(), StreamID: stream, ProcessID: telemetry.ID{1}, BeginTime: t, EndTime: t + 5e9}, InsertTime: t}
					for range ids {
						id := telemetry.NewID()
						r.TraceIDs = append(r.TraceIDs, id[:]...)
					}
					c.Blocks = append(c.Blocks, r)
				}
				if err := db.CommitArchive(b.Context(), &c); err != nil {
					b.Fatal(err)
				}
				seq++
			}
			for range 8 {
				commit(250, 256)
			}
			n, cpu := 0, cpuTime()
			b.ReportAllocs()
			for b.Loop() {
				commit(120, each)
				n += 120
			}
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(n), "cpu-µs/block")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPartitions measures the full read of 100,000 live partitions, at the start of a query server, and the delta of
// one commit.
func BenchmarkPartitions(b *testing.B) {
	db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "catalog.sqlite"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	const total, each = 100_000, 1000
	last := int64(0)
	for n := 0; n < total; n += each {
		c := catalog.ViewCommit{Consumer: catalog.ConsumerViews}
		for i := range each {
			t := int64(n+i) * 60e9
			c.Added = append(c.Added, catalog.Partition{
				View: "log_entries", MinTime: t, MaxTime: t + 60e9, Rows: 3000, Size: 30000, Bucket: t,
				Procs: make([]byte, catalog.ProcessBitmapBytes), Key: fmt.Sprintf("views/log_entries/2026-11-21/%012d.parquet", n+i),
			})
		}
		if last, err = db.CommitView(b.Context(), &c); err != nil {
			b.Fatal(err)
		}
	}
	for _, bench := range []struct {
		name  string
		since int64
		want  int
	}{{"all", 0, total}, {"delta", last - 1, each}, {"nothing", last, 0}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := db.Partitions(b.Context(), bench.since)
				if err != nil || len(d.Added) != bench.want {
					b.Fatal(len(d.Added), err)
				}
			}
		})
	}
}

func BenchmarkExistingBlocks(b *testing.B) {
	db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "catalog.sqlite"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	c := catalog.ArchiveCommit{Shard: catalog.ShardID{Class: 'e'}, To: 1, Epoch: 1, Pack: &catalog.Pack{Key: "packs/1", FirstSeq: 1, LastSeq: 1}}
	keys := make([]catalog.BlockKey, 120)
	for i := range keys {
		blk := telemetry.Block{ID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.ID{1}, BeginTime: int64(i) * 1e6}
		c.Blocks = append(c.Blocks, catalog.BlockReg{Block: blk})
		keys[i] = catalog.BlockKey{StreamID: blk.StreamID, BeginTime: blk.BeginTime, BlockID: blk.ID}
	}
	if err := db.CommitArchive(b.Context(), &c); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := db.ExistingBlocks(b.Context(), keys); err != nil {
			b.Fatal(err)
		}
		n += len(keys)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/block")
}
