package filesink_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

// TestFullDiskDropsUntilThereIsRoom bounds the size of files, which writes meet as they meet the end of a disk: in the middle.
func TestFullDiskDropsUntilThereIsRoom(t *testing.T) {
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
	path := filepath.Join(t.TempDir(), "requests")
	s := open(t, config(path))
	before, lost, after := sinktest.Requests(3), []sdk.Request{sinktest.Noise(sdk.ClassLogs, 50_000)}, sinktest.Requests(3)
	send(s, before)
	sinktest.Flush(t, s)
	limit(syscall.Rlimit{Cur: 20_000, Max: old.Max})
	send(s, lost)
	sinktest.Flush(t, s)
	limit(old)
	if got := s.Stats(); sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropDisk) != 1 {
		t.Errorf("%+v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Size() >= 20_000 {
		t.Errorf("half a frame stays: %v", err)
	}
	send(s, after)
	sinktest.Close(t, s)
	sinktest.CheckArrived(t, append(before, after...), readFile(t, path))
}
