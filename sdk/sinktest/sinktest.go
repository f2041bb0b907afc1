// Package sinktest has the tests that every sdk.Sink passes, and the requests that they send. Only tests import it.
//
// The tests ask what a program relies on: bodies arrive as they were sent, nothing is lost while all is well, Flush means what it says, a
// closed sink counts what it is still given, and at any moment the numbers of Stats add up.
package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/sdk"
)

// patience bounds whatever a test waits for.
const patience = 20 * time.Second

// Opened is a sink under test and its other end.
type Opened struct {
	Sink sdk.Sink
	// Arrived returns the bodies that reached the other end, in any order. A body that came more than once may be there more than once.
	// It is called after Flush or Close.
	Arrived func(t *testing.T) [][]byte
	// Stall makes the other end take nothing until resume is called, at the latest by the end of the test. Nil where a sink has no other
	// end that could be slow.
	Stall func() (resume func())
	// Keeps says that Close keeps what is undelivered, instead of dropping it.
	Keeps bool
}

// Run tests the sinks that open makes.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, o Opened)
	}{
		{"BodiesArriveAsTheyWereSent", arrive},
		{"FlushMeansSettled", flush},
		{"FlushOfAnEmptySinkReturns", flushEmpty},
		{"CloseFlushes", closeFlushes},
		{"SecondCloseDoesNothing", closeTwice},
		{"ClosedSinkDropsAndCounts", sendAfterClose},
		{"ManyGoroutines", concurrent},
		{"FlushReturnsWhenItsTimeIsOver", flushDeadline},
		{"CloseReturnsWhenItsTimeIsOver", closeDeadline},
		{"CancelledCloseLeavesNothingUncounted", closeCancelled},
		{"StrangeClassesDoNoHarm", strangeClass},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := open(t)
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_ = o.Sink.Close(ctx) // most tests have closed it
			})
			c.f(t, o)
		})
	}
}

// Requests returns what a small process sends: its registration, those of a log, a metrics and a cpu stream, and n blocks of them in turn.
func Requests(n int) []sdk.Request {
	process := telemetry.Process{ID: telemetry.NewID(), Exe: "sinktest", TSCFrequency: 1e9, StartTime: 1_700_000_000_000_000_000}
	rs := []sdk.Request{{Kind: sdk.KindProcess, Body: wire.AppendProcess(nil, &process), ProcessID: process.ID}}
	var streams []telemetry.Stream
	for _, s := range []struct {
		tag   string
		types func() (deps, objs []telemetry.Type)
	}{{"log", wire.LogTypes}, {"metrics", wire.MetricsTypes}, {"cpu", wire.CPUTypes}} {
		deps, objs := s.types()
		stream := telemetry.Stream{ID: telemetry.NewID(), ProcessID: process.ID, Dependencies: deps, Objects: objs, Tags: []string{s.tag}}
		rs = append(rs, sdk.Request{
			Kind: sdk.KindStream, Body: wire.AppendStream(nil, &stream), ProcessID: process.ID, StreamID: stream.ID,
		})
		streams = append(streams, stream)
	}
	for i := range n {
		rs = append(rs, block(process.ID, streams[i%len(streams)].ID, sdk.ClassLogs+sdk.Class(i%len(streams)), i))
	}
	return rs
}

// block is a block of one event.
func block(process, stream telemetry.ID, class sdk.Class, i int) sdk.Request {
	var deps, objs []byte
	ticks := int64(i) * 1_000
	switch class {
	case sdk.ClassLogs:
		target := "sinktest"
		deps = wire.AppendStaticString(deps, wire.DepStaticString, 1, target)
		objs = wire.AppendLogInterop(objs, ticks, 4, wire.StaticRef{ID: 1, Len: uint32(len(target))}, fmt.Sprintf("message %d", i))
	case sdk.ClassMetrics:
		deps = wire.AppendStaticString(deps, wire.DepStaticString, 1, "measured")
		deps = wire.AppendMetricMetadata(deps, &wire.Metadata{ID: 2, Name: 1, Unit: 1, Target: 1, Module: 1, File: 1})
		objs = wire.AppendFloatMetric(objs, 2, ticks, float64(i))
	default:
		deps = wire.AppendStaticString(deps, wire.CPUDepStaticString, 1, "spanned")
		deps = wire.AppendSpanRecord(deps, &wire.Metadata{ID: 2, Name: 1, Target: 1, Module: 1, File: 1})
		objs = wire.AppendThreadSpan(objs, wire.CPUBeginThreadSpan, 2, ticks)
	}
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: stream, ProcessID: process, ObjectOffset: int64(i), NbObjects: 1,
		BeginTime: 1_700_000_000_000_000_000 + ticks, EndTime: 1_700_000_000_000_000_000 + ticks + 1_000, BeginTicks: ticks, EndTicks: ticks + 1_000,
	}
	return sdk.Request{
		Kind: sdk.KindBlock, Class: class, Events: 1, ProcessID: process, StreamID: stream, BlockID: b.ID,
		Body: wire.AppendBlock(nil, &b, wire.Compress(nil, deps), wire.Compress(nil, objs)),
	}
}

// Noise returns a block request of a class with a body of random bytes, for tests of size: nobody can decode it.
func Noise(class sdk.Class, size int) sdk.Request {
	body := make([]byte, size)
	for i := 0; i < size; i += 8 {
		v := rand.Uint64()
		for j := i; j < min(i+8, size); j++ {
			body[j] = byte(v)
			v >>= 8
		}
	}
	return sdk.Request{
		Kind: sdk.KindBlock, Class: class, Events: 1, Body: body,
		ProcessID: telemetry.NewID(), StreamID: telemetry.NewID(), BlockID: telemetry.NewID(),
	}
}

// CheckStats reports numbers that do not add up.
func CheckStats(t testing.TB, s sdk.SinkStats) {
	t.Helper()
	if got := s.Delivered + s.Queued + Dropped(s); got != s.Sent {
		t.Errorf("sent %d, delivered %d + queued %d + dropped %d = %d", s.Sent, s.Delivered, s.Queued, Dropped(s), got)
	}
	if s.Queued < 0 || s.Spooled < 0 || s.Spooled > s.Queued {
		t.Errorf("queued %d, spooled %d", s.Queued, s.Spooled)
	}
}

// Dropped returns how many requests were dropped.
func Dropped(s sdk.SinkStats) (n int64) {
	for _, d := range s.Drops {
		n += d.Requests
	}
	return n
}

// DroppedFor returns how many requests of a class were dropped for a reason.
func DroppedFor(s sdk.SinkStats, class sdk.Class, reason sdk.DropReason) (n int64) {
	for _, d := range s.Drops {
		if d.Class == class && d.Reason == reason {
			n += d.Requests
		}
	}
	return n
}

// CheckArrived reports bodies that were sent and did not arrive, and bodies that nobody sent.
func CheckArrived(t testing.TB, sent []sdk.Request, arrived [][]byte) {
	t.Helper()
	want := map[string]bool{}
	for _, r := range sent {
		want[string(r.Body)] = false
	}
	for _, b := range arrived {
		if _, ok := want[string(b)]; !ok {
			t.Errorf("a body of %d bytes arrived that was not sent", len(b))
			continue
		}
		want[string(b)] = true
	}
	missing := 0
	for _, ok := range want {
		if !ok {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d bodies did not arrive", missing, len(want))
	}
}

// Flush flushes a sink that must manage to.
func Flush(t testing.TB, s sdk.Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		t.Fatalf("flush: %v, %+v", err, s.Stats())
	}
}

// Close closes a sink that must manage to deliver everything.
func Close(t testing.TB, s sdk.Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatalf("close: %v, %+v", err, s.Stats())
	}
}

// Poll waits until ok.
func Poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

func send(s sdk.Sink, rs []sdk.Request) {
	for _, r := range rs {
		s.Send(r)
	}
}

// allDelivered checks that a sink without trouble says so.
func allDelivered(t *testing.T, s sdk.SinkStats, rs []sdk.Request) {
	t.Helper()
	CheckStats(t, s)
	var events, size int64
	for _, r := range rs {
		events += int64(r.Events)
		size += int64(len(r.Body))
	}
	if n := int64(len(rs)); s.Sent != n || s.Delivered != n || s.Events != events || s.Bytes != size || s.Queued != 0 || s.Spooled != 0 {
		t.Errorf("after %d requests with %d events in %d bytes: %+v", n, events, size, s)
	}
}

func arrive(t *testing.T, o Opened) {
	rs := Requests(300)
	rs = append(rs, Noise(sdk.ClassLogs, 0), Noise(sdk.ClassLogs, 1), Noise(sdk.ClassSpans, 3<<20))
	originals := make([][]byte, len(rs))
	for i, r := range rs {
		originals[i] = bytes.Clone(r.Body)
	}
	send(o.Sink, rs)
	Close(t, o.Sink)
	allDelivered(t, o.Sink.Stats(), rs)
	CheckArrived(t, rs, o.Arrived(t))
	for i, r := range rs {
		if !bytes.Equal(r.Body, originals[i]) {
			t.Fatalf("the sink changed body %d", i)
		}
	}
}

func flush(t *testing.T, o Opened) {
	var all []sdk.Request
	for range 3 {
		rs := Requests(50)
		send(o.Sink, rs)
		all = append(all, rs...)
		Flush(t, o.Sink)
		allDelivered(t, o.Sink.Stats(), all)
	}
	Close(t, o.Sink)
	CheckArrived(t, all, o.Arrived(t))
}

func flushEmpty(t *testing.T, o Opened) {
	Flush(t, o.Sink)
	allDelivered(t, o.Sink.Stats(), nil)
}

func closeFlushes(t *testing.T, o Opened) {
	rs := Requests(20)
	send(o.Sink, rs)
	Close(t, o.Sink)
	Flush(t, o.Sink) // nothing is left to wait for
	CheckArrived(t, rs, o.Arrived(t))
}

func closeTwice(t *testing.T, o Opened) {
	rs := Requests(5)
	send(o.Sink, rs)
	Close(t, o.Sink)
	Close(t, o.Sink)
	allDelivered(t, o.Sink.Stats(), rs)
}

func sendAfterClose(t *testing.T, o Opened) {
	Close(t, o.Sink)
	rs := Requests(6)
	send(o.Sink, rs)
	s := o.Sink.Stats()
	CheckStats(t, s)
	if s.Delivered != 0 || s.Queued != 0 || Dropped(s) != int64(len(rs)) {
		t.Errorf("%+v", s)
	}
	for class, want := range map[sdk.Class]int64{sdk.ClassMetadata: 4, sdk.ClassLogs: 2, sdk.ClassMetrics: 2, sdk.ClassSpans: 2} {
		if got := DroppedFor(s, class, sdk.DropClosed); got != want {
			t.Errorf("%s: %d dropped because the sink is closed, want %d", class, got, want)
		}
	}
}

// concurrent calls everything at once. What was sent before Close began arrives; the rest arrives or is counted.
func concurrent(t *testing.T, o Opened) {
	const senders, each = 4, 100
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sent := make([][]sdk.Request, senders)
	var early, wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range senders {
		sent[i] = Requests(each)
		early.Go(func() { send(o.Sink, sent[i]) })
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					CheckStats(t, o.Sink.Stats())
					_ = o.Sink.Flush(ctx)
				}
			}
		})
	}
	early.Wait()
	late := Requests(each)
	wg.Go(func() { send(o.Sink, late) })
	for range 2 {
		wg.Go(func() { _ = o.Sink.Close(ctx) })
	}
	err := o.Sink.Close(ctx)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatalf("close: %v", err)
	}
	Poll(t, "all is settled", func() bool { return o.Sink.Stats().Queued == 0 })
	s := o.Sink.Stats()
	CheckStats(t, s)
	if s.Sent != senders*(each+4)+each+4 {
		t.Errorf("%d sent: %+v", s.Sent, s)
	}
	arrived := map[string]bool{}
	for _, b := range o.Arrived(t) {
		arrived[string(b)] = true
	}
	for i, rs := range sent {
		for _, r := range rs {
			if !arrived[string(r.Body)] {
				t.Fatalf("a request of sender %d is missing: %+v", i, s)
			}
		}
	}
}

func flushDeadline(t *testing.T, o Opened) {
	if o.Stall == nil {
		t.Skip("nothing stalls this sink")
	}
	resume := o.Stall()
	rs := Requests(10)
	send(o.Sink, rs)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := o.Sink.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("flush took %s", took)
	}
	s := o.Sink.Stats()
	CheckStats(t, s)
	if s.Queued == 0 {
		t.Errorf("%+v", s)
	}
	resume()
	Close(t, o.Sink)
	CheckArrived(t, rs, o.Arrived(t))
}

func closeDeadline(t *testing.T, o Opened) {
	if o.Stall == nil {
		t.Skip("nothing stalls this sink")
	}
	defer o.Stall()()
	rs := Requests(10)
	send(o.Sink, rs)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := o.Sink.Close(ctx); err == nil {
		t.Error("close says that all is well")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("close took %s", took)
	}
	undelivered(t, o, int64(len(rs)))
}

func closeCancelled(t *testing.T, o Opened) {
	if o.Stall != nil {
		defer o.Stall()()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rs := Requests(10)
	send(o.Sink, rs)
	if err := o.Sink.Close(ctx); err == nil && o.Sink.Stats().Delivered != int64(len(rs)) {
		t.Errorf("close says that all is well: %+v", o.Sink.Stats())
	}
	undelivered(t, o, int64(len(rs)))
}

// undelivered checks that a closed sink has counted or kept what it did not deliver.
func undelivered(t *testing.T, o Opened, sent int64) {
	t.Helper()
	s := o.Sink.Stats()
	CheckStats(t, s)
	if s.Sent != sent {
		t.Errorf("%+v", s)
	}
	if o.Keeps {
		if s.Delivered+s.Spooled != sent {
			t.Errorf("not delivered and not kept: %+v", s)
		}
		return
	}
	Poll(t, "nothing is queued any more", func() bool { return o.Sink.Stats().Queued == 0 })
}

func strangeClass(t *testing.T, o Opened) {
	r := Noise(sdk.NumClasses+3, 10)
	r.Kind = 77
	o.Sink.Send(r)
	Flush(t, o.Sink)
	s := o.Sink.Stats()
	CheckStats(t, s)
	if s.Queued != 0 {
		t.Errorf("%+v", s)
	}
}
