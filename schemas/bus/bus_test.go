package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// timeout is what a test waits at most for something that must happen.
const timeout = 20 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// publish publishes blocks first..first+n-1 of process, one after another.
func publish(t testing.TB, b *bus.Bus, process telemetry.ID, first, n, size int) {
	t.Helper()
	ctx := testContext(t)
	for i := first; i < first+n; i++ {
		if err := b.Publish(ctx, bus.Eager, bustest.Block(process, i, size)); err != nil {
			t.Fatalf("publish block %d: %v", i, err)
		}
	}
}

func newReader(t testing.TB, b *bus.Bus, after bus.Position, packs bus.PackSource) *bus.Reader {
	t.Helper()
	r, err := b.NewReader(testContext(t), after, packs)
	if err != nil {
		t.Fatalf("new reader: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// start is the position before the first frame of the shard's open generation.
func start(b *bus.Bus, s bus.Shard) bus.Position {
	return bus.Position{Shard: s, Gen: b.Current(s).Gen}
}

// readBlocks reads frames until it has n records.
func readBlocks(t testing.TB, r *bus.Reader, n int) (records []bus.Record, frames []bus.Frame) {
	t.Helper()
	ctx := testContext(t)
	for len(records) < n {
		f, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("next after %d records: %v", len(records), err)
		}
		frames = append(frames, f)
		for i, rec := range f.Records() {
			if rec.Err != nil {
				t.Fatalf("record %d of %s: %v", i, f.Position, rec.Err)
			}
			records = append(records, rec)
		}
	}
	return records, frames
}

var eager0 = bus.Shard{Class: bus.Eager}

// sameBytes spares cmp's search for the best difference of large bodies.
var sameBytes = cmp.Comparer(bytes.Equal)

// ignoreRead leaves out what reading adds to a record.
var ignoreRead = cmpopts.IgnoreFields(bus.Record{}, "BodySize", "CRC", "Offset")

func testRecordsComeBackAsPublishedAndInOrder(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	process := telemetry.NewID()
	var want []bus.Record
	for i := range 20 {
		r := bustest.Block(process, i, i*700)
		if i == 3 {
			r.Kind, r.Tag, r.BlockID = bus.KindProcess, telemetry.TagUnknown, telemetry.ID{}
		}
		want = append(want, *r)
		if err := b.Publish(testContext(t), bus.Eager, r); err != nil {
			t.Fatal(err)
		}
	}
	got, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), len(want))
	if diff := cmp.Diff(want, got, ignoreRead, sameBytes); diff != "" {
		t.Errorf("records (-published +read):\n%s", diff)
	}
	for i, f := range frames {
		if f.Seq != uint64(i+1) || f.Shard != eager0 {
			t.Fatalf("frame %d is at %s", i, f.Position)
		}
		for _, r := range f.Records() {
			if !bytes.Equal(f.Data[r.Offset:r.Offset+len(r.Body)], r.Body) {
				t.Errorf("frame %d: body is not at its offset %d", i, r.Offset)
			}
		}
	}
}

func testClassesAndShardsKeepProcessesApart(t *testing.T, e *bustest.Env) {
	b := e.Open(t, func(c *bus.Config) { c.ShardsPerClass = 3 })
	if got, want := len(b.Shards()), 6; got != want {
		t.Fatalf("%d shards, want %d", got, want)
	}
	counts := map[bus.Shard]int{}
	for i := range 30 {
		r := bustest.Block(telemetry.NewID(), i, 100)
		class := bus.Eager
		if i%2 == 1 {
			class = bus.Raw
		}
		counts[b.ShardOf(class, r.ProcessID)]++
		if err := b.Publish(testContext(t), class, r); err != nil {
			t.Fatal(err)
		}
	}
	for s, n := range counts {
		records, _ := readBlocks(t, newReader(t, b, start(b, s), nil), n)
		for _, r := range records {
			if b.ShardOf(s.Class, r.ProcessID) != s {
				t.Errorf("shard %s holds process %s", s, r.ProcessID)
			}
		}
	}
}

func testWaitingRecordsShareFramesAndReadersAgree(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	const producers, each, size = 16, 25, 10_000
	var wg sync.WaitGroup
	for p := range producers {
		process := telemetry.NewID()
		wg.Go(func() {
			for i := range each {
				if err := b.Publish(testContext(t), bus.Eager, bustest.Block(process, p*each+i, size)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	first, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), producers*each)
	second, _ := readBlocks(t, newReader(t, b, start(b, eager0), nil), producers*each)
	if diff := cmp.Diff(first, second, sameBytes); diff != "" {
		t.Fatalf("two readers differ:\n%s", diff)
	}
	if len(frames) >= producers*each {
		t.Errorf("%d frames for %d records: no group commit", len(frames), producers*each)
	}
	for _, f := range frames {
		if len(f.Data) > bus.DefaultConfig().MaxFrame {
			t.Errorf("frame of %d bytes", len(f.Data))
		}
	}
	next := map[telemetry.ID]int64{}
	for _, r := range first { // each producer waited for its answers, so its blocks are in order
		if last, ok := next[r.ProcessID]; ok && r.BeginTime <= last {
			t.Fatalf("process %s: block at %d after %d", r.ProcessID, r.BeginTime, last)
		}
		next[r.ProcessID] = r.BeginTime
	}
	stats, err := b.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[0]; got.Records != producers*each || got.Frames != int64(len(frames)) || got.LastSeq != uint64(len(frames)) {
		t.Errorf("stats %+v, want %d records in %d frames", got, producers*each, len(frames))
	}
}

func testOversizeBodyTravelsByClaim(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	big := bustest.Block(telemetry.NewID(), 1, 3<<20)
	for range 2 { // a retry must not overwrite what the first record points to
		if err := b.Publish(testContext(t), bus.Eager, big); err != nil {
			t.Fatal(err)
		}
	}
	records, _ := readBlocks(t, newReader(t, b, start(b, eager0), nil), 2)
	if keys := e.Objects.Keys(); len(keys) != 2 || records[0].Claim == records[1].Claim {
		t.Fatalf("objects %v, claims %q and %q", keys, records[0].Claim, records[1].Claim)
	}
	body, err := b.LoadBody(testContext(t), &records[0])
	if err != nil || !bytes.Equal(body, big.Body) {
		t.Fatalf("body of %d bytes, error %v", len(body), err)
	}
	if err := e.Objects.Put(testContext(t), records[1].Claim, body[1:]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.LoadBody(testContext(t), &records[1]); !errors.Is(err, bus.ErrUnreadable) {
		t.Errorf("a changed object: error %v, want ErrUnreadable", err)
	}
}

func testOversizeBodyWithoutStoreIsRefused(t *testing.T, e *bustest.Env) {
	b, err := bus.Open(testContext(t), e.Connect(t), e.Generations, nil, bus.DefaultConfig(), e.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.Publish(testContext(t), bus.Eager, bustest.Block(telemetry.NewID(), 1, 2<<20))
	if !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

func testFullStreamRefusesAndServesAgainAfterTrim(t *testing.T, e *bustest.Env) {
	b := e.Open(t, func(c *bus.Config) {
		c.MaxFrame, c.ReadAhead, c.MaxBytes, c.KeepArchivedBytes = 64<<10, 1<<20, 2<<20, 0
	})
	process := telemetry.NewID()
	stored := 0
	var err error
	for err == nil && stored < 1000 {
		if err = b.Publish(testContext(t), bus.Eager, bustest.Block(process, stored, 30_000)); err == nil {
			stored++
		}
	}
	if !errors.Is(err, bus.ErrUnavailable) || stored < 20 {
		t.Fatalf("after %d blocks: error %v, want ErrUnavailable", stored, err)
	}
	_, frames := readBlocks(t, newReader(t, b, start(b, eager0), nil), stored) // nothing acknowledged was dropped
	if err := b.Trim(testContext(t), frames[len(frames)-2].Position); err != nil {
		t.Fatal(err)
	}
	publish(t, b, process, stored, 1, 30_000)
	stats, err := b.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := stats[0].FirstSeq, frames[len(frames)-1].Seq; got != want {
		t.Errorf("stream begins at %d after the trim, want %d", got, want)
	}
}

func testPublishEndsWithItsContextAndWithClose(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// The committer may be quicker than a context that is done already; an error must be the context's.
	if err := b.Publish(ctx, bus.Eager, bustest.Block(telemetry.NewID(), 1, 10)); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	b.Close()
	if err := b.Publish(testContext(t), bus.Eager, bustest.Block(telemetry.NewID(), 1, 10)); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("after Close: error %v, want ErrClosed", err)
	}
	if _, err := b.Head(testContext(t), eager0); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("head after Close: error %v, want ErrClosed", err)
	}
}

func testHeadSeesWhatWasAcknowledgedBefore(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	head, err := b.Head(testContext(t), eager0)
	if err != nil || head.Seq != 0 {
		t.Fatalf("head of an empty shard is %v, error %v", head, err)
	}
	var wg sync.WaitGroup
	process := telemetry.NewID()
	for i := range 8 {
		wg.Go(func() {
			for n := range 10 {
				publish(t, b, process, i*10+n, 1, 1000)
				frames := frameCount(t, b)
				if head, err := b.Head(testContext(t), eager0); err != nil || head.Seq < frames {
					t.Errorf("head %v, error %v; %d frames were acknowledged before", head, err, frames)
				}
			}
		})
	}
	wg.Wait()
	if _, err := b.Head(testContext(t), bus.Shard{Class: bus.Eager, Shard: 9}); err == nil {
		t.Error("head of an unknown shard: no error")
	}
}

func frameCount(t testing.TB, b *bus.Bus) uint64 {
	t.Helper()
	stats, err := b.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return uint64(stats[0].Frames)
}

func testDeadLettersAreKeptOnceAndCountedByKind(t *testing.T, e *bustest.Env) {
	b := e.Open(t, func(c *bus.Config) { c.DeadLetterMsgs = 5 })
	var want []bus.DeadLetter
	for i := range 8 {
		d := bus.DeadLetter{
			Copy:    bus.Copy{Position: bus.Position{Shard: eager0, Gen: 2, Seq: uint64(i)}, Rec: 3},
			BlockID: telemetry.NewID(), StreamID: telemetry.NewID(), ProcessID: telemetry.NewID(),
			View: "log_entries", Reason: fmt.Sprintf("corrupt block: bytes %d", i), Time: int64(i + 1),
		}
		want = append(want, d)
		for range 2 {
			if err := b.DeadLetter(testContext(t), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := b.ReadDeadLetters(testContext(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want[3:], got); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if got, err := b.ReadDeadLetters(testContext(t), 2); err != nil || !cmp.Equal(got, want[6:]) {
		t.Errorf("newest two: %v, error %v", got, err)
	}
	if diff := cmp.Diff(map[string]int64{"corrupt block": 8}, b.DeadLetterCounts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	for i := range 200 {
		d := bus.DeadLetter{Reason: fmt.Sprintf("reason %d", i)}
		d.Seq = uint64(1000 + i)
		if err := b.DeadLetter(testContext(t), d); err != nil {
			t.Fatal(err)
		}
	}
	if counts := b.DeadLetterCounts(); len(counts) > 70 || counts[bus.OtherReasons] == 0 {
		t.Errorf("%d reasons counted apart, %d others", len(counts), counts[bus.OtherReasons])
	}
}

func TestConfigReportsEveryMistake(t *testing.T) {
	err := bus.Config{}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) < 8 {
		t.Errorf("mistakes of an empty config: %v", err)
	}
	if err := bus.DefaultConfig().Validate(); err != nil {
		t.Errorf("default config: %v", err)
	}
}
