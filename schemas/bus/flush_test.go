package bus_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func testFlushReachesTheOwnerAndComesBack(t *testing.T, e *bustest.Env) {
	b, query := e.Open(t), e.Open(t)
	want := bus.FlushRequest{
		Target: bus.TargetViews, Views: []string{"log_entries", "measures"},
		Begin: -5, End: 77, Process: telemetry.NewID(), Gen: 3, UpTo: 1 << 60,
	}
	reply := bus.FlushReply{Shard: eager0, Gen: 3, Seq: 1<<60 + 1, CommitNo: 12, Parked: 4, Backlog: true, Err: "a warning"}
	stop, err := b.ServeFlush(bus.TargetViews, eager0, func(ctx context.Context, got bus.FlushRequest) bus.FlushReply {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request (-sent +received):\n%s", diff)
		}
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > timeout {
			t.Errorf("handler's deadline is %v", d)
		}
		return reply
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := query.Flush(testContext(t), eager0, want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reply, got); diff != "" {
		t.Errorf("reply (-sent +received):\n%s", diff)
	}
	stop()
	stop() // twice is fine
	begin := time.Now()
	if _, err := query.Flush(testContext(t), eager0, want); !errors.Is(err, bus.ErrNoOwner) || time.Since(begin) > timeout/2 {
		t.Errorf("without an owner: error %v after %v, want ErrNoOwner at once", err, time.Since(begin))
	}
}

func testFlushHandlersAreBoundedAndEndWithStop(t *testing.T, e *bustest.Env) {
	b := e.Open(t, func(c *bus.Config) { c.MaxFlushes = 2 })
	running := make(chan struct{}, 10)
	stop, err := b.ServeFlush(bus.TargetArchive, eager0, func(ctx context.Context, _ bus.FlushRequest) bus.FlushReply {
		running <- struct{}{}
		<-ctx.Done()
		return bus.FlushReply{Err: "stopped"}
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	flush := func(want string) {
		reply, err := b.Flush(testContext(t), eager0, bus.FlushRequest{Target: bus.TargetArchive})
		if err != nil || !strings.Contains(reply.Err, want) {
			t.Errorf("reply %+v, error %v, want %q", reply, err, want)
		}
	}
	for range 2 {
		wg.Go(func() { flush("stopped") })
		<-running
	}
	flush("busy")
	stop()
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	gaveUp := make(chan struct{})
	stop, err = b.ServeFlush(bus.TargetArchive, eager0, func(ctx context.Context, _ bus.FlushRequest) bus.FlushReply {
		<-ctx.Done() // the asker's deadline reaches the owner
		<-gaveUp
		return bus.FlushReply{}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	defer close(gaveUp)
	if _, err := b.Flush(ctx, eager0, bus.FlushRequest{Target: bus.TargetArchive}); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("a silent owner: error %v, want ErrUnavailable", err)
	}
}

// An owner that dies at work is found out, and one that comes after it answers.
func testFlushOutlivesItsOwner(t *testing.T, e *bustest.Env) {
	asker := e.Open(t)
	nc := e.Connect(t)
	var asked atomic.Int32
	silent := func(*nats.Msg) { asked.Add(1) }
	sub, err := nc.Subscribe("flush.views.eager.0", silent)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for asked.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
	}()
	begun := time.Now()
	_, err = asker.Flush(testContext(t), eager0, bus.FlushRequest{Target: bus.TargetViews})
	if !errors.Is(err, bus.ErrNoOwner) || time.Since(begun) > timeout/2 {
		t.Errorf("error %v after %v, want ErrNoOwner", err, time.Since(begun))
	}
	<-gone
}

// An asker whose owner leaves is answered by the next one.
func testFlushIsHandedOver(t *testing.T, e *bustest.Env) {
	b, nc := e.Open(t), e.Connect(t)
	var asked atomic.Int32
	sub, err := nc.Subscribe("flush.views.eager.0", func(*nats.Msg) { asked.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for asked.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
		time.Sleep(400 * time.Millisecond) // longer than an asker waits before it asks again
		stop, err := b.ServeFlush(bus.TargetViews, eager0, func(context.Context, bus.FlushRequest) bus.FlushReply {
			return bus.FlushReply{CommitNo: 9}
		})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(stop)
	}()
	reply, err := e.Open(t).Flush(testContext(t), eager0, bus.FlushRequest{Target: bus.TargetViews})
	if err != nil || reply.CommitNo != 9 {
		t.Errorf("reply %+v, error %v", reply, err)
	}
	<-served
}

// A request that is asked again while the owner is at work is handled once.
func testFlushAskedAgainIsHandledOnce(t *testing.T, e *bustest.Env) {
	b := e.Open(t)
	var handled atomic.Int32
	stop, err := b.ServeFlush(bus.TargetViews, eager0, func(ctx context.Context, _ bus.FlushRequest) bus.FlushReply {
		handled.Add(1)
		select {
		case <-time.After(700 * time.Millisecond): // several times the asker's patience
		case <-ctx.Done():
		}
		return bus.FlushReply{CommitNo: 7}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	reply, err := b.Flush(testContext(t), eager0, bus.FlushRequest{Target: bus.TargetViews})
	if err != nil || reply.CommitNo != 7 || handled.Load() != 1 {
		t.Errorf("reply %+v, error %v, handled %d times", reply, err, handled.Load())
	}
}
