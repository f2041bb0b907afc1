package archive_test

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

// BenchmarkArchive measures how long an archive takes for blocks of 34 kB that wait on the bus, reading, pack, rows and
// fsyncs included. cpu-µs/block is the whole process's, the embedded server's share with it.
func BenchmarkArchive(b *testing.B) {
	const count, size = 1000, 34_000
	blocks, total, cpu := 0, time.Duration(0), time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		w := newWorld(b)
		var all []*bus.Record
		for n := range count {
			r := blockRecord(n, n%100, n%30, size)
			all = append(all, r)
		}
		w.publishAll(bus.Eager, all)
		head, err := w.bus.Head(b.Context(), eager)
		if err != nil {
			b.Fatal(err)
		}
		cfg := patient()
		begun, cpuBegun := time.Now(), cpuTime()
		b.StartTimer()
		a := w.start(cfg, "a", nil)
		w.flush(eager)
		b.StopTimer()
		total, cpu, blocks = total+time.Since(begun), cpu+cpuTime()-cpuBegun, blocks+count
		if st := a.Stats().Shards[0]; st.Seq < head.Seq {
			b.Fatal(errors.New("not all is archived"))
		}
		a.stop()
		w.bus.Close()
		w.env.Server.Shutdown()
		w.cat.Close()
		_ = os.RemoveAll(w.env.Dir)
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Microseconds())/float64(blocks), "µs/block")
	b.ReportMetric(float64(cpu.Microseconds())/float64(blocks), "cpu-µs/block")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
