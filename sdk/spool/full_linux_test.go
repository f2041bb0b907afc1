package spool_test

import (
	"os/signal"
	"syscall"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

// TestFullDisk bounds the size of files, which writes meet as they meet the end of a disk: in the middle. What does not fit waits in memory
// and is written when there is room.
func TestFullDisk(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Skipf("file sizes cannot be bounded: %v", err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	e := &end{answer: away}
	s := open(t, config(dir), e)
	var rs []sdk.Request
	for range 100 {
		rs = append(rs, sinktest.Noise(sdk.ClassLogs, 3_000))
	}
	r := newRecorder()
	limit(syscall.Rlimit{Cur: 20_000, Max: old.Max})
	defer limit(old)
	send(s, rs)
	for range 100 {
		s.Append(r.grow(10))
	}
	sinktest.Poll(t, "the journal is full", func() bool { return s.JournalErrors() > 0 })
	sinktest.Poll(t, "some are on disk", func() bool { return s.Stats().Spooled > 0 })
	sinktest.CheckStats(t, s.Stats())
	limit(old)
	spooled(t, s, len(rs))
	got := recovered(t, copyJournal(t, dir, 0))
	if len(got) == 0 {
		t.Error("the journal is lost")
	}
	e.set(nil)
	sinktest.Flush(t, s)
	sinktest.CheckArrived(t, rs, e.arrived(t))
	if got := s.Stats(); sinktest.Dropped(got) != 0 {
		t.Errorf("%+v", got)
	}
}
