package spool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
	"github.com/micromegas-go/micromegas/sdk/spool"
)

// recorder is a log stream that is recorded.
type recorder struct {
	process  telemetry.Process
	stream   telemetry.Stream
	head     telemetry.Block
	deps     []byte // of the open block
	objs     []byte
	messages int
}

func newRecorder() *recorder {
	deps, objs := wire.LogTypes()
	r := &recorder{process: telemetry.Process{ID: telemetry.NewID(), Exe: "recorder", TSCFrequency: 1e9}}
	r.stream = telemetry.Stream{ID: telemetry.NewID(), ProcessID: r.process.ID, Dependencies: deps, Objects: objs, Tags: []string{"log"}}
	r.begin()
	return r
}

// begin begins a block.
func (r *recorder) begin() {
	r.head = telemetry.Block{ID: telemetry.NewID(), StreamID: r.stream.ID, ProcessID: r.process.ID, ObjectOffset: int64(r.messages)}
	r.deps, r.objs = nil, nil
}

// grow records n messages and returns what came to the block.
func (r *recorder) grow(n int) *sdk.Growth {
	const target = "recorder"
	g := &sdk.Growth{Process: wire.AppendProcess(nil, &r.process), Stream: wire.AppendStream(nil, &r.stream)}
	if r.head.NbObjects == 0 {
		g.Dependencies = wire.AppendStaticString(nil, wire.DepStaticString, 1, target)
	}
	for range n {
		msg := fmt.Sprintf("message %d", r.messages)
		g.Objects = wire.AppendLogInterop(g.Objects, int64(r.messages), 4, wire.StaticRef{ID: 1, Len: uint32(len(target))}, msg)
		r.messages++
	}
	r.head.NbObjects += int32(n)
	r.head.EndTicks = int64(r.messages)
	g.Head = r.head
	r.deps, r.objs = append(r.deps, g.Dependencies...), append(r.objs, g.Objects...)
	return g
}

// request makes the request of the open block.
func (r *recorder) request() sdk.Request {
	return sdk.Request{
		Kind: sdk.KindBlock, Class: sdk.ClassLogs, Events: int(r.head.NbObjects), ProcessID: r.process.ID, StreamID: r.stream.ID, BlockID: r.head.ID,
		Body: wire.AppendBlock(nil, &r.head, wire.Compress(nil, r.deps), wire.Compress(nil, r.objs)),
	}
}

// copyJournal makes a folder with the journal, as a process leaves it that is killed now: the lock of a copy is free.
func copyJournal(t *testing.T, dir string, cut int) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "spool")
	folder := filepath.Join(to, "process-dead")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(folder, "lock"), nil, 0o600)
	for _, name := range files(t, dir) {
		if filepath.Base(name) != "journal" {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data = data[:max(len(data)-cut, 0)]
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// recovered returns the messages that a new process finds in a folder, in order.
func recovered(t *testing.T, dir string) (messages []string) {
	t.Helper()
	e := &end{}
	s := open(t, config(dir), e)
	sinktest.Poll(t, "the folder is adopted and gone", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "process-dead" }) && s.Stats().Queued == 0
	})
	sinktest.Close(t, s)
	sinktest.CheckStats(t, s.Stats())
	d, err := memsink.Decode(e.requests())
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

func wantMessages(t *testing.T, got []string, from, to int) {
	t.Helper()
	var want []string
	for i := from; i < to; i++ {
		want = append(want, fmt.Sprintf("message %d", i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages %.100q, want %d from %d on", len(got), got, to-from, from)
	}
}

func TestJournalIsSentByTheNextProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, config(dir), &end{})
	r := newRecorder()
	for range 10 {
		s.Append(r.grow(3))
	}
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), 0, 30)
	wantMessages(t, recovered(t, copyJournal(t, dir, 1)), 0, 27) // the last record is torn
	s.Cut(r.stream.ID)
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), 0, 0)
	r.begin()
	s.Append(r.grow(2))
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), 30, 32)
}

// TestBlockStaysInTheJournalUntilItIsDelivered kills the process at each step of a block's way.
func TestBlockStaysInTheJournalUntilItIsDelivered(t *testing.T) {
	dir := t.TempDir()
	e := &end{}
	resume := e.stall()
	cfg := config(dir)
	s := open(t, cfg, e)
	r := newRecorder()
	s.Append(r.grow(5))
	s.Send(r.request())
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), 0, 5)
	s.Cut(r.stream.ID)
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), 0, 5)
	resume()
	sinktest.Flush(t, s)
	sinktest.Poll(t, "the block is forgotten", func() bool { return len(recovered(t, copyJournal(t, dir, 0))) == 0 })
	sinktest.Close(t, s)
	empty(t, dir)
}

func TestJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.JournalBytes = 100_000
	s := open(t, cfg, &end{})
	long, r := newRecorder(), newRecorder() // a block that stays open, and many that come and go
	s.Append(long.grow(3))
	size := func() (n int64) {
		for _, name := range files(t, dir) {
			if info, err := os.Stat(name); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	for range 100 {
		r.begin()
		s.Append(r.grow(100))
		s.Cut(r.stream.ID)
		if n := size(); n > cfg.JournalBytes+1_000 {
			t.Fatalf("%d bytes", n)
		}
	}
	s.Append(long.grow(2))
	if n := s.JournalErrors(); n != 0 {
		t.Errorf("%d errors", n)
	}
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), 0, 5)
	for range 100 { // a block that is larger than the journal is recovered as far as it fits
		s.Append(long.grow(100))
	}
	if n := s.JournalErrors(); n == 0 {
		t.Error("no errors")
	}
	got := recovered(t, copyJournal(t, dir, 0))
	if len(got) < 100 || len(got) >= 10_005 {
		t.Errorf("%d messages", len(got))
	}
	wantMessages(t, got, 0, len(got))
	s.Cut(long.stream.ID)
	r.begin()
	from := r.messages
	s.Append(r.grow(100))
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), from, from+100)
}

func TestEmptyJournalIsRewound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, config(dir), &end{})
	r := newRecorder()
	for range 50 {
		r.begin()
		s.Append(r.grow(2_000))
		s.Cut(r.stream.ID)
	}
	for _, name := range files(t, dir) {
		if info, err := os.Stat(name); err != nil || info.Size() > 1<<20+200_000 {
			t.Errorf("%s: %d bytes, %v", name, info.Size(), err)
		}
	}
	r.begin()
	from := r.messages
	s.Append(r.grow(2))
	wantMessages(t, recovered(t, copyJournal(t, dir, 0)), from, from+2)
}

// FuzzJournal recovers whatever a file holds.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	s, err := spool.New(config(dir), &end{})
	if err != nil {
		f.Fatal(err)
	}
	s.Append(newRecorder().grow(3))
	names, err := filepath.Glob(filepath.Join(dir, "*", "journal"))
	if err != nil || len(names) != 1 {
		f.Fatal(names, err)
	}
	data, err := os.ReadFile(names[0])
	if err != nil {
		f.Fatal(err)
	}
	cancelled(s)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		os.WriteFile(path, data, 0o600)
		if _, err := spool.Recover(path); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkAppend is what the recorder pays ten times a second for each open block: 20 kB have come.
func BenchmarkAppend(b *testing.B) {
	s := open(b, config(b.TempDir()), &end{})
	r := newRecorder()
	g := r.grow(400)
	b.SetBytes(int64(len(g.Objects)))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		s.Append(g)
		if n++; n%50 == 0 {
			s.Cut(r.stream.ID)
			g.Head.ID = telemetry.NewID()
		}
	}
	if n := s.JournalErrors(); n != 0 {
		b.Errorf("%d errors", n)
	}
}
