package sdk_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
	"github.com/micromegas-go/micromegas/sdk/spool"
)

// away is a gateway that is not there.
type away struct{}

func (away) Post(context.Context, *sdk.Request) deliver.Answer {
	return deliver.Answer{Verdict: deliver.Away}
}

// back is a gateway that takes everything.
type back struct {
	mu sync.Mutex
	c  collector
}

func (b *back) Post(_ context.Context, r *sdk.Request) deliver.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.Send(*r)
	return deliver.Answer{}
}

const envFolder = "MICROMEGAS_TEST_FOLDER"

var numberedEntry = sdk.NewLog(sdk.Info, "entry %d")

// emitUntilKilled says of each millisecond how many entries were recorded before.
func emitUntilKilled(t *testing.T) {
	cfg := spool.DefaultConfig()
	cfg.Dir = os.Getenv(envFolder)
	s, err := spool.New(cfg, away{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sdk.Start(t.Context(), sdk.Config{Sink: s, LogAge: time.Minute, SpanAge: time.Minute}); err != nil {
		t.Fatal(err)
	}
	track := sdk.NewTrack("killed")
	ticker := time.NewTicker(time.Millisecond)
	outer.Begin(track)
	for n := 1; ; n++ {
		numberedEntry.Log(sdk.Int(n))
		size.Record(int64(n))
		inner.Begin(track).End()
		fmt.Printf("recorded %d\n", n)
		<-ticker.C
	}
}

// What was recorded a tenth of a second before a kill -9 is sent by the next process that has the spool.
func TestKilledProgramLosesAMoment(t *testing.T) {
	if os.Getenv(envChild) != "" {
		emitUntilKilled(t)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), envChild+"=1", envFolder+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// What the program said a while before the kill must be there; it has at most as long to get it into the journal.
	const margin = 300 * time.Millisecond
	type said struct {
		n  int
		at time.Time
	}
	var all []said
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "recorded ")); err == nil {
			all = append(all, said{n, time.Now()})
		}
		if len(all) > 0 && time.Since(all[0].at) > time.Second {
			break
		}
	}
	killed := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	safe := 0
	for _, s := range all {
		if killed.Sub(s.at) > margin {
			safe = s.n
		}
	}

	var b back
	cfg := spool.DefaultConfig()
	cfg.Dir = dir
	cfg.Delivery.MaxInFlight = 1 // else a block may overtake its registration, which a gateway takes and the collector does not
	s, err := spool.New(cfg, &b)
	if err != nil {
		t.Fatal(err)
	}
	sinktest.Poll(t, "the next process sends what it found", func() bool { // it looks beside its work
		st := s.Stats()
		return st.Events > 0 && st.Queued == 0
	})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := b.c.read(t)
	for i, e := range r.logs {
		if e.Msg != fmt.Sprint("entry ", i+1) {
			t.Fatalf("entry %d is %q", i+1, e.Msg)
		}
	}
	edges := strings.Count(shape(r.track("killed")), "(innerinner)")
	t.Logf("%d entries, %d values, %d spans; recorded %v before the kill: %d; said at last: %d", len(r.logs), len(r.values), edges, margin, safe, all[len(all)-1].n)
	if safe < 100 || len(r.logs) < safe || len(r.values) < safe || edges < safe {
		t.Error("something is lost")
	}
}
