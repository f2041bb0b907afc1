package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Times of the two sides in tests.
const (
	testSign   = 50 * time.Millisecond
	testSilent = 600 * time.Millisecond
)

type (
	viewRequest  = bus.MaterializeRequest
	viewReply    = bus.MaterializeReply
	viewProgress = bus.MaterializeProgress
)

// serveViews serves requests until the test ends, and returns how to end earlier.
func serveViews(t *testing.T, b *bus.Bus, h bus.MaterializeHandler) (stop func()) {
	t.Helper()
	b.SetMaterializeTimes(testSign, testSilent)
	stop, err := b.ServeMaterialize(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

func testViewIsAskedForAndAnswered(t *testing.T, e *bustest.Env) {
	b, query := e.Open(t), e.Open(t)
	want := viewRequest{View: "thread_spans", Instance: telemetry.NewID(), Begin: -5, End: 77, Dry: true, MaxBlocks: 9}
	reply := viewReply{
		CommitNo: 12, Blocks: 5, BuiltBlocks: 4, Objects: 3, Bytes: 2, Partitions: 2, FreshPartitions: 1, Warnings: []string{"one is lost"},
		Open: []telemetry.Span{{ID: -1, Depth: 1, Hash: 7, Begin: 1 << 60, End: 1<<60 + 1, Name: "\u00fc"}},
	}
	for i := range 20_000 { // more than one message holds
		reply.Files = append(reply.Files, bus.MaterializedFile{Key: fmt.Sprint("views/thread_spans/2026-03-01/", i, ".parquet"), Size: 7, Rows: 9, MinTime: -1, MaxTime: 1, DepthShift: 1, ShiftFrom: -1 << 63})
	}
	serveViews(t, b, func(_ context.Context, got viewRequest, progress func(viewProgress)) (viewReply, error) {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request (-sent +received):\n%s", diff)
		}
		progress(viewProgress{Blocks: 5, Done: 1})
		progress(viewProgress{Blocks: 5, Done: 2, Waiting: true})
		return reply, nil
	})
	var told []viewProgress
	got, err := query.Materialize(testContext(t), want, func(p viewProgress) { told = append(told, p) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reply, got); diff != "" {
		t.Errorf("reply (-sent +received):\n%s", diff)
	}
	if len(told) != 2 || told[1] != (viewProgress{Blocks: 5, Done: 2, Waiting: true}) {
		t.Errorf("told %v", told)
	}
}

func testViewThatNobodyBuilds(t *testing.T, e *bustest.Env) {
	b, query := e.Open(t), e.Open(t)
	begin := time.Now()
	if _, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil); !errors.Is(err, bus.ErrNoOwner) || time.Since(begin) > timeout/2 {
		t.Errorf("nobody serves: error %v after %v, want ErrNoOwner at once", err, time.Since(begin))
	}
	refused := &bus.MaterializeError{Code: bus.UnknownInstance, Message: "Stream not found"}
	serveViews(t, b, func(_ context.Context, r viewRequest, _ func(viewProgress)) (viewReply, error) {
		if r.View == "images" {
			return viewReply{}, fmt.Errorf("look up: %w", refused)
		}
		return viewReply{}, errors.New("disk on fire")
	})
	var got *bus.MaterializeError
	if _, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil); !errors.As(err, &got) || *got != *refused || got.Retryable() {
		t.Errorf("refused: error %v", err)
	}
	if _, err := query.Materialize(testContext(t), viewRequest{View: "net_spans"}, nil); !errors.As(err, &got) || got.Code != bus.Failed || got.Message != "disk on fire" {
		t.Errorf("failed: error %v", err)
	}
}

// testWorkEndsWhenItsAskerIsGone has an asker that says that it goes, and one that does not come to that.
func testWorkEndsWhenItsAskerIsGone(t *testing.T, e *bustest.Env) {
	testAskerGoes(t, e, timeout, func(_ *bus.Bus, cancel func()) { cancel() })
	testAskerGoes(t, e, testSilent, func(query *bus.Bus, _ func()) { query.Close() })
}

func testAskerGoes(t *testing.T, e *bustest.Env, silent time.Duration, leave func(query *bus.Bus, cancel func())) {
	t.Helper()
	b, query := e.Open(t), e.Open(t)
	query.SetMaterializeTimes(testSign, testSilent)
	begun, ended := make(chan struct{}), make(chan error, 1)
	stop := serveViews(t, b, func(ctx context.Context, _ viewRequest, _ func(viewProgress)) (viewReply, error) {
		close(begun)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return viewReply{}, ctx.Err()
	})
	defer stop()
	b.SetMaterializeTimes(testSign, silent)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := query.Materialize(ctx, viewRequest{View: "images"}, nil)
		failed <- err
	}()
	<-begun
	select { // longer than the silence of an asker that is gone
	case err := <-ended:
		t.Fatal("the work ended while its asker waited:", err)
	case <-time.After(2 * testSilent):
	}
	leave(query, cancel)
	var got *bus.MaterializeError
	if err := <-failed; !errors.As(err, &got) || got.Code != bus.Interrupted || !got.Retryable() {
		t.Errorf("asker: error %v", err)
	}
	select {
	case err := <-ended:
		if !strings.Contains(err.Error(), "asker is gone") {
			t.Errorf("the work ended for %v", err)
		}
	case <-time.After(timeout / 2):
		t.Error("the work goes on without its asker")
	}
}

func testViewIsAskedForAgainWhenAProcessStops(t *testing.T, e *bustest.Env) {
	one, two, query := e.Open(t), e.Open(t), e.Open(t)
	query.SetMaterializeTimes(testSign, testSilent)
	var stop func()
	begun := make(chan struct{})
	stop = serveViews(t, one, func(ctx context.Context, _ viewRequest, _ func(viewProgress)) (viewReply, error) {
		close(begun)
		<-ctx.Done()
		return viewReply{}, ctx.Err()
	})
	go func() {
		<-begun
		serveViews(t, two, func(context.Context, viewRequest, func(viewProgress)) (viewReply, error) {
			return viewReply{CommitNo: 2}, nil
		})
		stop()
	}()
	if reply, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil); err != nil || reply.CommitNo != 2 {
		t.Errorf("reply %+v, error %v", reply, err)
	}
}

func testViewIsAskedForAgainWhenAProcessDies(t *testing.T, e *bustest.Env) {
	one, two, query := e.Open(t), e.Open(t), e.Open(t)
	query.SetMaterializeTimes(testSign, testSilent)
	var tries atomic.Int32
	die := func(ctx context.Context, _ viewRequest, _ func(viewProgress)) (viewReply, error) {
		if tries.Add(1) > 1 {
			return viewReply{CommitNo: 2}, nil
		}
		<-ctx.Done()
		return viewReply{}, ctx.Err()
	}
	serveViews(t, one, die)
	serveViews(t, two, die)
	one.SetMaterializeTimes(time.Hour, time.Hour) // it gives no sign of life, as if it were dead
	two.SetMaterializeTimes(time.Hour, time.Hour)
	if reply, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil); err != nil || reply.CommitNo != 2 {
		t.Errorf("reply %+v, error %v", reply, err)
	}
}

func testRequestsForViewsAreBounded(t *testing.T, e *bustest.Env) {
	b := e.Open(t, func(c *bus.Config) { c.MaxMaterializes = 2 })
	query := e.Open(t)
	query.SetMaterializeTimes(testSign, time.Hour)
	begun, release := make(chan struct{}, 9), make(chan struct{})
	serveViews(t, b, func(context.Context, viewRequest, func(viewProgress)) (viewReply, error) {
		begun <- struct{}{}
		<-release
		return viewReply{CommitNo: 1}, nil
	})
	failed := make(chan error, 2)
	ask := func() {
		_, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil)
		failed <- err
	}
	go ask()
	go ask()
	<-begun
	<-begun
	var got *bus.MaterializeError
	if _, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil); !errors.As(err, &got) || got.Code != bus.Busy {
		t.Errorf("a third request: error %v, want busy", err)
	}
	close(release)
	for range 2 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if _, err := query.Materialize(testContext(t), viewRequest{View: "images"}, nil); err != nil {
		t.Error("afterwards:", err)
	}
}
