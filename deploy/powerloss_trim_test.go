package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
)

const (
	trimmingFolder   = "MICROMEGAS_TEST_TRIMMING" // environment of the child: where to work
	trimmingMessages = 300
	trimmingEvery    = 25       // messages from purge to purge
	trimmingBytes    = 30 << 10 // of a message; a file of the stream of 4 MB holds about 140
	trimmingMaxBytes = 8 << 20
	trimmingStream   = "trimmed"
)

// TestPowerLossWhileTrimming records a stream of the embedded server that is published to and purged from its head, as
// the archive's owner does, and looks what a power loss leaves at acknowledgements drawn at random: all that was
// acknowledged above the last purge that had begun.
func TestPowerLossWhileTrimming(t *testing.T) {
	requireTool(t, "strace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := deploytest.NewDataDir(t)
	dir := filepath.Join(root, "bus")
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", append(straceArgs(trace), self, "-test.run", "^TestTrimmingChild$")...)
	cmd.Env = append(os.Environ(), trimmingFolder+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("record: %v\n%s", err, out)
	}
	seed := number(t, "POWERLOSS_SEED", uint64(time.Now().UnixNano()))
	acks := int(number(t, "POWERLOSS_ACKS", powerLossAcks))
	t.Logf("POWERLOSS_SEED=%d POWERLOSS_ACKS=%d", seed, acks)
	random := rand.New(rand.NewPCG(seed, 2))

	var atAck, inPurge []moment
	replayTrimming(t, root, dir, trace, func(_ *disk, at trimming) {
		switch {
		case at.purging:
			inPurge = append(inPurge, at.moment)
		case at.acking:
			atAck = append(atAck, at.moment)
		}
	})
	if len(atAck) != trimmingMessages || len(inPurge) < 10*trimmingMessages/trimmingEvery {
		t.Fatalf("the record has %d acknowledgements, and %d calls in purges", len(atAck), len(inPurge))
	}
	cuts := map[moment]bool{}
	for range acks {
		cuts[atAck[random.IntN(len(atAck))]] = true
		cuts[inPurge[random.IntN(len(inPurge))]] = true
	}
	replayTrimming(t, root, dir, trace, func(d *disk, at trimming) {
		if !cuts[at.moment] {
			return
		}
		checkTrimmed(t, d, dir, at, &loss{})
		keep := []float64{0.1, 0.5, 0.9}[random.IntN(3)]
		checkTrimmed(t, d, dir, at, &loss{random: random, keep: keep, chosen: map[*change]bool{}})
	})
}

// moment is a place in the record.
type moment struct {
	calls  int  // that had ended
	acking bool // an acknowledgement leaves now
}

// trimming is how far the recorded process had come.
type trimming struct {
	moment
	first   uint64 // of the highest purge that had begun; what is below may be gone
	last    uint64 // acknowledged
	purging bool   // a purge is under way
}

// replayTrimming replays the record and calls visit after each call and at each acknowledgement.
func replayTrimming(t *testing.T, root, dir, trace string, visit func(*disk, trimming)) {
	t.Helper()
	d := newDisk(root)
	d.kind = dir + "/"
	at := trimming{first: 1}
	d.ended = func() {
		at.calls++
		at.acking = false
		visit(d, at)
	}
	d.printed = func(line string) {
		var n uint64
		if found, _ := fmt.Sscanf(line, "purging %d", &n); found == 1 {
			at.first, at.purging = max(at.first, n), true
			return
		}
		if found, _ := fmt.Sscanf(line, "acked %d", &n); found == 1 {
			at.last, at.acking, at.purging = n, true, false
			visit(d, at)
		}
	}
	if err := d.replay(trace); err != nil {
		t.Fatal(err)
	}
}

// checkTrimmed starts a server on what a power loss leaves: it must hold what was acknowledged and not purged.
func checkTrimmed(t *testing.T, d *disk, dir string, at trimming, l *loss) {
	t.Helper()
	if err := os.RemoveAll(d.path); err != nil {
		t.Fatal(err)
	}
	if err := d.rebuild(d.path, l); err != nil {
		t.Fatal(err)
	}
	s, stream := openTrimmed(t, dir)
	defer s.Shutdown()
	state := stream.CachedInfo().State
	if state.LastSeq < at.last || state.FirstSeq > at.first {
		t.Fatalf("keeping %.1f of what was not synced: the stream holds %d..%d, after %+v", l.keep, state.FirstSeq, state.LastSeq, at)
	}
	for seq := at.first; seq <= at.last; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil || !bytes.Equal(msg.Data, trimmedMessage(seq)) {
			t.Fatalf("keeping %.1f of what was not synced: message %d: %v, after %+v", l.keep, seq, err, at)
		}
	}
}

// openTrimmed starts a server on dir and makes the stream when it is not there.
func openTrimmed(t *testing.T, dir string) (*embedded.Server, jetstream.Stream) {
	t.Helper()
	s, err := embedded.Start(embedded.Options{StoreDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), trimmingStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: trimmingStream, Subjects: []string{trimmingStream}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
			MaxBytes: trimmingMaxBytes, DenyDelete: true, FirstSeq: 1,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, stream
}

func trimmedMessage(seq uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "message %07d", seq), trimmingBytes/15)
}

// TestTrimmingChild is the process that TestPowerLossWhileTrimming records.
func TestTrimmingChild(t *testing.T) {
	dir := os.Getenv(trimmingFolder)
	if dir == "" {
		t.Skip("it is run by TestPowerLossWhileTrimming")
	}
	s, stream := openTrimmed(t, dir)
	defer s.Shutdown()
	if err := s.SyncFolders(); err != nil {
		t.Fatal(err)
	}
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= trimmingMessages; seq++ {
		ack, err := js.Publish(t.Context(), trimmingStream, trimmedMessage(seq))
		if err != nil || ack.Sequence != seq {
			t.Fatalf("publish %d: %+v, %v", seq, ack, err)
		}
		fmt.Printf("acked %d\n", seq)
		if seq%trimmingEvery == 0 { // what is left begins in one of the last files, and is the last message at least
			first := seq - rand.Uint64N(min(seq, 100))
			fmt.Printf("purging %d\n", first)
			if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(first)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
