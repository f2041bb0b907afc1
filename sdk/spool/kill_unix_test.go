//go:build unix

package spool_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
	"github.com/micromegas-go/micromegas/sdk/spool"
)

// childEnv makes the test binary a program that records until it is killed.
const childEnv = "SPOOL_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		record(dir)
	}
	os.Exit(m.Run())
}

// record sends blocks of ten messages to a gateway that is away. Each line that it prints says how many messages are safe: in a request on
// disk, or in the journal.
func record(dir string) {
	e := &end{answer: away}
	s, err := spool.New(config(dir), e)
	if err != nil {
		panic(err)
	}
	r := newRecorder()
	for i := 1; ; i++ {
		s.Append(r.grow(1))
		fmt.Println(r.messages)
		if i%10 == 0 {
			s.Send(r.request())
			s.Cut(r.stream.ID)
			r.begin()
		}
	}
}

// TestKilledProcessLosesNothing kills a real process in the middle of its work, and lets two others race for what it left.
func TestKilledProcessLosesNothing(t *testing.T) {
	for range 3 {
		dir := t.TempDir()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.Command(exe)
		child.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		safe := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Sscan(lines.Text(), &safe)
			if safe == 3_005 {
				child.Process.Signal(syscall.SIGKILL)
			}
		}
		child.Wait()
		if state := child.ProcessState.String(); !strings.Contains(state, "killed") {
			t.Fatalf("child: %s", state)
		}
		e := &end{}
		a, b := open(t, config(dir), e), open(t, config(dir), e)
		sinktest.Poll(t, "the next processes deliver", func() bool {
			entries, err := os.ReadDir(dir)
			return err == nil && (len(entries) == 0 || delivers(a, b)) && a.Stats().Queued+b.Stats().Queued == 0 && a.Stats().Sent+b.Stats().Sent > 0
		})
		sinktest.Close(t, a)
		sinktest.Close(t, b)
		empty(t, dir)
		got := map[string]bool{}
		for _, m := range messages(t, e.requests()) {
			got[m] = true
		}
		for i := range safe {
			if !got[fmt.Sprintf("message %d", i)] {
				t.Fatalf("message %d of %d is missing; %d came", i, safe, len(got))
			}
		}
	}
}

// delivers reports whether somebody got what the dead process left.
func delivers(spools ...*spool.Spool) bool {
	for _, s := range spools {
		if s.Stats().Delivered >= 300 {
			return true
		}
	}
	return false
}

func messages(t *testing.T, rs []sdk.Request) (messages []string) {
	t.Helper()
	seen := map[string]bool{} // a block may come from a segment and from the journal
	var once []sdk.Request
	for _, r := range rs {
		if id := string(r.BlockID[:]) + string(r.StreamID[:]); !seen[id] || r.Kind != sdk.KindBlock {
			seen[id] = true
			once = append(once, r)
		}
	}
	d, err := memsink.Decode(once)
	if err != nil {
		t.Fatal(err)
	}
	logs, err := d.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		messages = append(messages, l.Msg)
	}
	return messages
}
