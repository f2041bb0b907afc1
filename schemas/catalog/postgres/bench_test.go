package postgres

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// house is what a busy shard archives: blocks of 400 streams of 100 processes, in turn.
type house struct {
	streams, processes []telemetry.ID
	shard              catalog.ShardID
	begin              int64
	seq                uint64
	n                  int
}

func newHouse(streams, processes int) *house {
	h := &house{shard: catalog.ShardID{Class: 'e'}, begin: time.Now().UnixNano()}
	for range streams {
		h.streams = append(h.streams, telemetry.NewID())
	}
	for range processes {
		h.processes = append(h.processes, telemetry.NewID())
	}
	return h
}

// commit makes the next commit with so many blocks.
func (h *house) commit(blocks int) *catalog.ArchiveCommit {
	c := &catalog.ArchiveCommit{
		Shard: h.shard, From: h.seq, To: h.seq + 1, Epoch: 1,
		Pack: &catalog.Pack{Shard: h.shard, FirstSeq: h.seq + 1, LastSeq: h.seq + 1, Key: fmt.Sprint("packs/", h.seq), Size: 4 << 20},
	}
	h.seq++
	for i := range blocks {
		h.n++
		s := h.n % len(h.streams)
		t := h.begin + int64(h.n)*1e5
		c.Blocks = append(c.Blocks, catalog.BlockReg{
			Block: telemetry.Block{
				ID: telemetry.NewID(), StreamID: h.streams[s], ProcessID: h.processes[s%len(h.processes)],
				BeginTime: t, EndTime: t + 5e9, BeginTicks: t, EndTicks: t + 5e9, NbObjects: 3000,
			},
			InsertTime: t, PackOffset: int64(i) * 34000, PackLength: 34000, PayloadSize: 33900,
		})
	}
	return c
}

func clientCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func serverCPU(b *testing.B) time.Duration {
	b.Helper()
	t, err := server.CPU()
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// meter reports what n things cost: wall time, and processor time here and in the server.
func meter(b *testing.B) (report func(n int, unit string)) {
	client, srv, begun := clientCPU(), serverCPU(b), time.Now()
	return func(n int, unit string) {
		each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }
		b.ReportMetric(each(time.Since(begun)), "µs/"+unit)
		b.ReportMetric(each(clientCPU()-client), "client-cpu-µs/"+unit)
		b.ReportMetric(each(serverCPU(b)-srv), "server-cpu-µs/"+unit)
	}
}

// BenchmarkCommitArchive commits batches of so many block rows. The mark is 30 µs a block of all processor time.
func BenchmarkCommitArchive(b *testing.B) {
	for _, size := range []int{1, 16, 128, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			db, h := open(b, database(b)), newHouse(400, 100)
			for range 20 {
				if err := db.CommitArchive(b.Context(), h.commit(400)); err != nil {
					b.Fatal(err)
				}
			}
			report, n := meter(b), 0
			for b.Loop() {
				c := h.commit(size)
				if err := db.CommitArchive(b.Context(), c); err != nil {
					b.Fatal(err)
				}
				n += size
			}
			report(n, "block")
		})
	}
}

// BenchmarkExistingBlocks looks up 128 blocks that are not there, as archive does before each commit, among 400,000.
func BenchmarkExistingBlocks(b *testing.B) {
	db, h := open(b, database(b)), newHouse(400, 100)
	for range 100 {
		if err := db.CommitArchive(b.Context(), h.commit(4000)); err != nil {
			b.Fatal(err)
		}
	}
	keys := make([]catalog.BlockKey, 128)
	for i := range keys {
		keys[i] = catalog.BlockKey{StreamID: h.streams[i], BeginTime: h.begin + int64(i)*1e6, BlockID: telemetry.NewID()}
	}
	report, n := meter(b), 0
	for b.Loop() {
		if _, err := db.ExistingBlocks(b.Context(), keys); err != nil {
			b.Fatal(err)
		}
		n += len(keys)
	}
	report(n, "block")
}

func viewCommit(n, added int) *catalog.ViewCommit {
	c := &catalog.ViewCommit{Consumer: catalog.ConsumerViews}
	for i := range added {
		t := int64(n+i) * 60e9
		c.Added = append(c.Added, catalog.Partition{
			View: "log_entries", MinTime: t, MaxTime: t + 60e9, Rows: 3000, Size: 30000, Bucket: t,
			Procs: make([]byte, catalog.ProcessBitmapBytes), Key: fmt.Sprintf("views/log_entries/2026-11-21/%012d.parquet", n+i),
		})
	}
	return c
}

// BenchmarkCommitView is the step of an owner of 4 shards: 4 moves, 3 partitions in, 2 out.
func BenchmarkCommitView(b *testing.B) {
	db := open(b, database(b))
	seq := uint64(0)
	n := 0
	for s := range 4 {
		c := catalog.ArchiveCommit{Shard: catalog.ShardID{Class: 'e', Shard: int32(s)}, To: 1 << 40, Epoch: 1}
		if err := db.CommitArchive(b.Context(), &c); err != nil {
			b.Fatal(err)
		}
	}
	report, commits := meter(b), 0
	for b.Loop() {
		c := viewCommit(n, 3)
		n += 3
		for s := range 4 {
			c.Moves = append(c.Moves, catalog.Move{Shard: catalog.ShardID{Class: 'e', Shard: int32(s)}, From: seq, To: seq + 10, Epoch: 1})
		}
		seq += 10
		if commits > 0 {
			c.Retired = []int64{int64(n - 5), int64(n - 4)}
		}
		if _, err := db.CommitView(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		commits++
	}
	report(commits, "commit")
}

// BenchmarkPartitions measures the full read of 100,000 live partitions, at the start of a query server, and the delta of
// one commit.
func BenchmarkPartitions(b *testing.B) {
	db := open(b, database(b))
	const total, each = 100_000, 1000
	last := int64(0)
	for n := 0; n < total; n += each {
		var err error
		if last, err = db.CommitView(b.Context(), viewCommit(n, each)); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := db.CommitView(b.Context(), viewCommit(total, 3)); err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name  string
		since int64
		want  int
	}{{"all", 0, total + 3}, {"delta-1000", last - 1, each + 3}, {"delta-3", last, 3}, {"nothing", last + 1, 0}} {
		b.Run(bench.name, func(b *testing.B) {
			report, n := meter(b), 0
			for b.Loop() {
				d, err := db.Partitions(b.Context(), bench.since)
				if err != nil || len(d.Added) != bench.want {
					b.Fatal(len(d.Added), err)
				}
				n++
			}
			report(n, "call")
		})
	}
}

// BenchmarkBlocksSince reads among 1,000,000 block rows: all, and what one commit added.
func BenchmarkBlocksSince(b *testing.B) {
	db, h := open(b, database(b)), newHouse(4000, 1000)
	const total, each = 1_000_000, 2000
	for range total / each {
		if err := db.CommitArchive(b.Context(), h.commit(each)); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.CommitArchive(b.Context(), h.commit(128)); err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name  string
		since uint64
		want  int
	}{{"all", 0, total + 128}, {"commit", h.seq - 1, 128}, {"nothing", h.seq, 0}} {
		b.Run(bench.name, func(b *testing.B) {
			report, n := meter(b), 0
			for b.Loop() {
				rows, _, err := db.BlocksSince(b.Context(), map[catalog.ShardID]uint64{h.shard: bench.since}, 0)
				if err != nil || len(rows) != bench.want {
					b.Fatal(len(rows), err)
				}
				n++
			}
			report(n, "call")
		})
	}
}

// BenchmarkLease renews leases, one after the other.
func BenchmarkLease(b *testing.B) {
	db := open(b, database(b))
	l, err := db.AcquireLease(b.Context(), "x", "a", time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	report, n := meter(b), 0
	for b.Loop() {
		if _, _, err := db.KeepLeases(b.Context(), []catalog.Lease{l}, time.Minute); err != nil {
			b.Fatal(err)
		}
		n++
	}
	report(n, "renewal")
}
