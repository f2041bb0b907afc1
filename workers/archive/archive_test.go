package archive_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/workers/archive"
)

func TestFlushedBlocksHaveRowsAndPacks(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	w.publish(bus.Eager, processRecord(0), streamRecord(0, 0))
	posted := blocks(0, 100, 3000)
	w.publishAll(bus.Eager, posted)
	cpu := blockRecord(1000, 9, 0, 10)
	w.publish(bus.Raw, cpu)

	head, err := w.bus.Head(t.Context(), eager)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.flush(eager); got.Seq < head.Seq || got.Shard != eager {
		t.Fatalf("flushed to %+v, head %v", got, head)
	}
	w.flush(raw)
	rows := w.archived(append(posted, cpu))
	if len(rows) != 101 {
		t.Fatalf("%d rows", len(rows))
	}
	row := rows[id('b', 6)]
	if row.InsertTime != (insertUs+6)*1000 || row.PayloadSize != int64(wire.PayloadSize(0, 3000)) || row.Tag != telemetry.TagUnknown || row.NbObjects != 1 {
		t.Fatalf("row %+v", row)
	}
	if known := rows[id('b', 0)]; !known.StreamKnown || !known.ProcessKnown || known.Tag != telemetry.TagLog {
		t.Fatalf("row %+v", known)
	}
	w.checkPacks(eager, 0)
	w.checkPacks(raw, 0)
	st := a.Stats()
	if len(st.Shards) != 2 || st.Shards[0].Blocks != 100 || st.Shards[0].Registrations != 2 || st.Shards[0].LagMs != 0 || !st.Shards[0].Owned || st.Shards[0].Seq != head.Seq {
		t.Fatalf("stats %+v", st)
	}
	streams, err := w.cat.Streams(t.Context(), []telemetry.ID{id('s', 0)})
	if err != nil || len(streams) != 1 {
		t.Fatal(streams, err)
	}
	types, err := wire.DecodeTypes(streams[0].ObjectsCBOR)
	_, want := wire.LogTypes()
	if err != nil || len(types) != len(want) || types[0].Name != want[0].Name {
		t.Fatalf("layout %+v, %v", types, err)
	}
}

// Packs and bus hold the same frames at the same positions.
func TestPackHoldsFramesAsTheBusDoes(t *testing.T) {
	w := newWorld(t)
	w.publishAll(bus.Eager, blocks(0, 50, 500))
	reader, err := w.bus.NewReader(t.Context(), bus.Position{Shard: eager}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	head, err := w.bus.Head(t.Context(), eager)
	if err != nil {
		t.Fatal(err)
	}
	var onBus []bus.Frame
	for len(onBus) == 0 || onBus[len(onBus)-1].Seq < head.Seq {
		f, err := reader.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		onBus = append(onBus, f)
	}
	w.start(patient(), "a", nil)
	w.flush(eager)
	packs, err := w.cat.PacksAfter(t.Context(), catalog.ShardID{Class: 'e'}, 0, 0)
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	var inPacks []bus.Frame
	for _, p := range packs {
		frames, err := w.lake.ReadPack(t.Context(), p.Key)
		if err != nil {
			t.Fatal(err)
		}
		inPacks = append(inPacks, frames...)
	}
	if len(inPacks) != len(onBus) {
		t.Fatalf("%d frames in packs, %d on the bus", len(inPacks), len(onBus))
	}
	for i := range onBus {
		if inPacks[i].Position != onBus[i].Position || string(inPacks[i].Data) != string(onBus[i].Data) {
			t.Fatalf("frame %v differs from %v", inPacks[i].Position, onBus[i].Position)
		}
	}
}

func TestDuplicatesCountOnce(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	posted := blocks(0, 40, 200)
	w.publishAll(bus.Eager, posted)
	w.publishAll(bus.Eager, posted[:10]) // inside the batch
	w.flush(eager)
	w.publishAll(bus.Eager, posted[5:15]) // across batches, with news between
	more := blocks(40, 60, 200)
	w.publishAll(bus.Eager, more)
	w.publishAll(bus.Eager, append(more[:3:3], posted[0]))
	w.flush(eager)
	w.publishAll(bus.Raw, posted[:4]) // the tag became known between two tries
	w.flush(raw)
	if rows := w.archived(append(posted, more...)); len(rows) != 60 {
		t.Fatalf("%d rows", len(rows))
	}
	if n := len(w.skips(eager)); n != 10+10+4 {
		t.Fatalf("%d skips", n)
	}
	if n := len(w.skips(raw)); n != 4 {
		t.Fatalf("%d skips in the raw class", n)
	}
	st := a.Stats().Shards
	if st[0].Duplicates != 24 || st[0].Settled != 1 || st[1].Duplicates != 4 || st[1].Blocks != 0 {
		t.Fatalf("stats %+v", st)
	}
}

func TestBlockBeforeStreamBeforeProcess(t *testing.T) {
	w := newWorld(t)
	w.start(patient(), "a", nil)
	b := blockRecord(1, 1, 1, 10)
	for _, r := range []*bus.Record{b, streamRecord(1, 1), processRecord(1)} {
		w.publish(bus.Eager, r)
		w.flush(eager)
	}
	row := w.archived([]*bus.Record{b})[b.BlockID]
	if !row.StreamKnown || !row.ProcessKnown || row.ProcessID != id('p', 1) {
		t.Fatalf("row %+v", row)
	}
	processes, err := w.cat.Processes(t.Context(), nil)
	if err != nil || len(processes) != 1 || processes[0].Exe != "exe1" || processes[0].StartTime != insertUs*1000 {
		t.Fatalf("%+v, %v", processes, err)
	}
}

// A process that dies between any two steps, and comes back, leaves each block archived once.
func TestDeathBetweenSteps(t *testing.T) {
	for _, at := range archive.Steps {
		t.Run(strings.ReplaceAll(string(at), " ", "-"), func(t *testing.T) {
			w := newWorld(t)
			cfg := patient()
			cfg.Grace = 0
			posted := blocks(0, 60, 300)
			w.publishAll(bus.Eager, append(posted, posted[3]))
			died := make(chan struct{})
			var once sync.Once
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			a := w.start(cfg, "a", func(s archive.Step) error {
				if s == at {
					once.Do(func() { close(died) })
					<-ctx.Done() // nothing after this step happens in this life
					return errors.New("dead")
				}
				return nil
			})
			go func() { // a flush that nobody will answer
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				for w.bus.Current(eager).Stream != "" {
					if _, err := w.bus.Flush(ctx, eager, bus.FlushRequest{Target: bus.TargetArchive}); !errors.Is(err, bus.ErrNoOwner) {
						return
					}
				}
			}()
			<-died
			a.cancel()
			cancel()
			a.stop()
			w.start(patient(), "a", nil)
			w.publish(bus.Eager, posted[7])
			w.flush(eager)
			if rows := w.archived(posted); len(rows) != len(posted) {
				t.Fatalf("%d rows", len(rows))
			}
			w.checkPacks(eager, 0)
			if n := len(w.skips(eager)); n != 2 {
				t.Fatalf("%d skips", n)
			}
		})
	}
}

// Failures of lake and catalog, before the effect and after it with the answer lost, delay an archive and change nothing.
func TestFailuresAreTriedAgain(t *testing.T) {
	w := newWorld(t)
	failures := map[archive.Step]int{archive.StepPut: 2, archive.StepPutDone: 2, archive.StepCommit: 2, archive.StepCommitted: 1}
	var mu sync.Mutex
	a := w.start(patient(), "a", func(s archive.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if failures[s] > 0 {
			failures[s]--
			return errors.New("injected")
		}
		return nil
	})
	posted := blocks(0, 20, 100)
	w.publishAll(bus.Eager, posted)
	w.flush(eager)
	more := blocks(20, 30, 100)
	w.publishAll(bus.Eager, append(more, posted[0]))
	w.flush(eager)
	if rows := w.archived(append(posted, more...)); len(rows) != 30 {
		t.Fatalf("%d rows", len(rows))
	}
	w.checkPacks(eager, 0)
	if st := a.Stats().Shards[0]; st.Retries != 6 || st.Packs != 2 || st.Lost != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// A zombie has a pack in the lake and wakes after its successor archived the same frames.
func TestZombieLosesAtTheCommit(t *testing.T) {
	w := newWorld(t)
	posted := blocks(0, 30, 100)
	w.publishAll(bus.Eager, posted)
	asleep, wakeUp := make(chan struct{}), make(chan struct{})
	var once sync.Once
	cfg := patient()
	cfg.LazyAge, cfg.PackAge = time.Millisecond, time.Millisecond
	zombie := w.start(cfg, "same", func(s archive.Step) error {
		if s == archive.StepCommit {
			once.Do(func() { close(asleep); <-wakeUp })
		}
		return nil
	})
	<-asleep
	successor := w.start(patient(), "same", nil) // takes the lease: the name is the same
	w.eventually(func() error {
		if !successor.Stats().Shards[0].Owned {
			return errors.New("no successor")
		}
		return nil
	})
	w.flush(eager)
	close(wakeUp)
	w.eventually(func() error {
		if zombie.Stats().Shards[0].Lost == 0 {
			return errors.New("the zombie has not lost")
		}
		return nil
	})
	zombie.stop()
	if rows := w.archived(posted); len(rows) != 30 {
		t.Fatalf("%d rows", len(rows))
	}
	w.checkPacks(eager, 0)
	if st := successor.Stats().Shards[0]; st.Blocks != 30 {
		t.Fatalf("successor %+v", st)
	}
}

// The server's store is lost, or replaced: the stream begins a new life, and so does the archive.
func TestArchiveFollowsToTheNextGeneration(t *testing.T) {
	w := newWorld(t)
	w.start(patient(), "a", nil)
	first := blocks(0, 20, 100)
	w.publishAll(bus.Eager, first)
	w.flush(eager)
	js, err := jetstream.New(w.env.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), w.bus.Current(eager).Stream); err != nil {
		t.Fatal(err)
	}
	second := blocks(20, 40, 100)
	w.publishAll(bus.Eager, second)
	w.publish(bus.Eager, first[0]) // a copy of the other generation's block
	if got := w.flush(eager); got.Gen != 1 {
		t.Fatalf("flushed to %+v", got)
	}
	if rows := w.archived(append(first, second...)); len(rows) != 40 {
		t.Fatalf("%d rows", len(rows))
	}
	w.checkPacks(eager, 0)
	w.checkPacks(eager, 1)
}

func TestArchiveOutlivesTheServer(t *testing.T) {
	w := newWorld(t)
	w.start(patient(), "a", nil)
	posted := blocks(0, 10, 100)
	w.publishAll(bus.Eager, posted)
	w.flush(eager)
	for round := range 2 {
		if err := w.env.Server.Restart(); err != nil {
			t.Fatal(err)
		}
		more := blocks(10*(round+1), 10*(round+2), 100)
		w.publishAll(bus.Eager, more)
		posted = append(posted, more...)
		w.flush(eager)
		if rows := w.archived(posted); len(rows) != len(posted) {
			t.Fatalf("%d rows", len(rows))
		}
	}
}

// Frames that vanished from the bus before they were archived are lost, said so, and passed.
func TestHoleIsPassedAloud(t *testing.T) {
	w := newWorld(t)
	posted := blocks(0, 10, 100)
	w.publish(bus.Eager, posted...) // a frame each
	js, err := jetstream.New(w.env.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), w.bus.Current(eager).Stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(4)); err != nil { // 1..3
		t.Fatal(err)
	}
	a := w.start(patient(), "a", nil)
	w.flush(eager)
	if rows := w.archived(posted[3:]); len(rows) != 7 {
		t.Fatalf("%d rows", len(rows))
	}
	if st := a.Stats().Shards[0]; st.Holes != 1 {
		t.Fatalf("stats %+v", st)
	}
}

func TestHostileRecordsBecomeDeadLetters(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	bad := func(change func(*bus.Record)) *bus.Record {
		r := blockRecord(500, 1, 1, 10)
		change(r)
		return r
	}
	broken := []*bus.Record{
		bad(func(r *bus.Record) { r.Body = []byte("garbage") }),
		bad(func(r *bus.Record) { r.Body = r.Body[:len(r.Body)/2] }),
		bad(func(r *bus.Record) { r.BlockID = id('b', 999) }),
		bad(func(r *bus.Record) { r.StreamID = id('s', 999) }),
		bad(func(r *bus.Record) { r.Kind = bus.KindProcess }),
		bad(func(r *bus.Record) { r.Kind = bus.KindStream }),
		bad(func(r *bus.Record) { r.Body = nil }),
		{Kind: bus.KindProcess, ProcessID: id('p', 77), Body: processRecord(78).Body},
	}
	good := blocks(0, 20, 100)
	w.publishAll(bus.Eager, append(append(good[:10:10], broken...), good[10:]...))
	w.flush(eager)
	if rows := w.archived(good); len(rows) != len(good) {
		t.Fatalf("%d rows", len(rows))
	}
	if n := len(w.skips(eager)); n != len(broken) {
		t.Fatalf("%d skips", n)
	}
	letters, err := w.bus.ReadDeadLetters(t.Context(), 100)
	if err != nil || len(letters) != len(broken) {
		t.Fatalf("%d letters, %v", len(letters), err)
	}
	for _, l := range letters {
		if l.View != "archive" || !strings.HasPrefix(l.Reason, "unreadable ") {
			t.Fatalf("letter %+v", l)
		}
	}
	if st := a.Stats().Shards[0]; st.Unreadable != int64(len(broken)) {
		t.Fatalf("stats %+v", st)
	}
}

// TestDeadLettersHoldNobodyUp takes the stream of dead letters away: records that cannot be read are passed all the same, in about the
// time that one letter takes to fail.
func TestDeadLettersHoldNobodyUp(t *testing.T) {
	w := newWorld(t)
	w.start(patient(), "a", nil)
	w.flush(eager)
	js, err := jetstream.New(w.env.Connect(t))
	if err == nil {
		err = js.DeleteStream(t.Context(), "dead-letters")
	}
	if err != nil {
		t.Fatal(err)
	}
	var broken []*bus.Record
	for n := range 50 {
		r := blockRecord(1000+n, 1, 1, 10)
		r.Body = []byte("garbage")
		broken = append(broken, r)
	}
	good := blocks(0, 20, 100)
	w.publishAll(bus.Eager, append(broken, good...))
	begun := time.Now()
	w.flush(eager)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the blocks behind %d unreadable ones waited %v", len(broken), took)
	}
	w.archived(good)
	if n := len(w.skips(eager)); n != len(broken) {
		t.Errorf("%d skips", n)
	}
}

func TestOversizeBodiesAreAdopted(t *testing.T) {
	w := newWorld(t)
	big, small, gone := blockRecord(1, 1, 1, 3<<20), blockRecord(2, 1, 1, 100), blockRecord(3, 1, 1, 2<<20)
	w.publish(bus.Eager, big, small, big, gone)
	claims := w.claims(4)
	if err := w.lake.Delete(t.Context(), claims[2]); err != nil {
		t.Fatal(err)
	}
	w.start(patient(), "a", nil)
	w.flush(eager)
	w.publish(bus.Eager, big, blockRecord(4, 1, 1, 2<<20)) // a late copy beside a body to adopt
	w.flush(eager)
	claims = append(claims, w.claims(6)[3:]...)
	rows := w.archived([]*bus.Record{small, big})
	row := rows[big.BlockID]
	if len(rows) != 3 || row.PackKey != claims[0] || row.PackOffset != 0 || row.PackLength != int64(len(big.Body)) {
		t.Fatalf("%d rows, %+v", len(rows), row)
	}
	if row := rows[id('b', 4)]; row.PackKey != claims[4] {
		t.Fatalf("%+v, claims %q", row, claims)
	}
	refs, err := w.cat.KeysReferenced(t.Context(), claims)
	if err != nil || !slices.Equal(refs, []bool{true, false, false, false, true}) {
		t.Fatalf("referenced %v, %v", refs, err)
	}
	if n := len(w.skips(eager)); n != 3 { // two copies, one body that is gone
		t.Fatalf("%d skips", n)
	}
}

// claims returns the keys of the claimed bodies among the first n records on the bus.
func (w *world) claims(n int) (keys []string) {
	w.t.Helper()
	reader, err := w.bus.NewReader(context.Background(), bus.Position{Shard: eager}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	for read := 0; read < n; {
		f, err := reader.Next(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range f.Records() {
			read++
			if r.Claim != "" {
				keys = append(keys, r.Claim)
			}
		}
	}
	return keys
}

func TestManyFlushesShareCommits(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			b := blockRecord(n, 1, 1, 50)
			w.publish(bus.Eager, b)
			w.flush(eager)
			exist, err := w.cat.ExistingBlocks(context.Background(), []catalog.BlockKey{{StreamID: b.StreamID, BeginTime: b.BeginTime, BlockID: b.BlockID}})
			if err != nil || !exist[0] {
				t.Errorf("block %d is not there after its flush: %v", n, err)
			}
		})
	}
	wg.Wait()
	if n := a.Stats().Shards[0].Packs; n > 40 {
		t.Fatalf("%d packs", n)
	}
}

func TestFlushOfTheFutureEndsWithItsDeadline(t *testing.T) {
	w := newWorld(t)
	w.start(patient(), "a", nil)
	w.flush(eager)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	reply, err := w.bus.Flush(ctx, eager, bus.FlushRequest{Target: bus.TargetArchive, UpTo: 1000})
	if err == nil && reply.Err == "" {
		t.Fatalf("flushed: %+v", reply)
	}
}

func TestIdleArchiveWritesNoTinyPacks(t *testing.T) {
	w := newWorld(t)
	cfg := patient()
	cfg.LazyBytes, cfg.PackAge = 100_000, time.Millisecond
	a := w.start(cfg, "a", nil)
	w.flush(eager)
	w.publish(bus.Eager, blocks(0, 20, 100)...)
	w.eventually(func() error {
		if a.Stats().Shards[0].ReadSeq < 20 {
			return errors.New("not read yet")
		}
		return nil
	})
	if st := a.Stats().Shards[0]; st.Packs != 0 || st.LagMs == 0 {
		t.Fatalf("stats %+v", st)
	}
	w.publish(bus.Eager, blocks(20, 22, 60_000)...) // enough for a pack
	w.eventually(func() error {
		if a.Stats().Shards[0].Packs == 0 {
			return errors.New("no pack yet")
		}
		return nil
	})
}

func TestBusIsTrimmedBehindTheArchive(t *testing.T) {
	w := newWorld(t, func(c *bus.Config) { c.KeepArchivedBytes = 0 })
	w.start(patient(), "a", nil)
	w.publishAll(bus.Eager, blocks(0, 50, 20_000))
	w.flush(eager)
	next := 50
	w.eventually(func() error { // the bus looks at most once a second
		w.publish(bus.Eager, blockRecord(next, 1, 1, 10))
		next++
		w.flush(eager)
		stats, err := w.bus.Stats(t.Context())
		if err == nil && stats[0].Bytes > 500_000 {
			err = errors.New("not trimmed")
		}
		return err
	})
}

func TestNobodyServesAfterTheEnd(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	w.flush(eager)
	a.stop()
	_, err := w.bus.Flush(t.Context(), eager, bus.FlushRequest{Target: bus.TargetArchive})
	if !errors.Is(err, bus.ErrNoOwner) {
		t.Fatalf("got %v", err)
	}
	leases, err := w.cat.Leases(t.Context())
	if err != nil || len(leases) < 2 || leases[0].Name != "archive/eager/0" {
		t.Fatalf("leases %+v, %v", leases, err)
	}
	if slices.ContainsFunc(leases, func(l catalog.Lease) bool { return l.Owner != "" }) {
		t.Fatalf("leases %+v, %v", leases, err)
	}
}

func TestConfigReportsEveryMistake(t *testing.T) {
	err := archive.Config{}.Validate()
	for _, want := range []string{"pack bytes", "pack age", "retry", "max layout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
	if err := archive.DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
}
