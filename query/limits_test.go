package query_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/querytest"
)

// endless runs until it is stopped, in bounded memory.
const endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE (a.value * b.value) % 7 = 8"

func TestQueryEndsAtItsTimeout(t *testing.T) {
	e := querytest.Start(t, querytest.Options{Config: func(c *query.Config) { c.Timeout = 300 * time.Millisecond }})
	c := e.Dial(t, "")
	began := time.Now()
	_, err := ask(t.Context(), c, endless, client.QueryOptions{})
	if s := status.Convert(err); s.Code() != codes.DeadlineExceeded || !strings.Contains(s.Message(), "300ms") || !strings.Contains(s.Message(), "query_id=") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("ended after %s", took)
	}
	if got, err := ask(t.Context(), c, "SELECT 1", client.QueryOptions{}); err != nil || got != "1" {
		t.Errorf("afterwards: %q %v", got, err)
	}
}

func TestCancelStopsTheEngine(t *testing.T) {
	e := querytest.Start(t, querytest.Options{Engine: func(c *engine.Config) { c.MaxConcurrent = 1 }})
	c := e.Dial(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := ask(ctx, c, endless, client.QueryOptions{})
		done <- err
	}()
	for e.Service.Stats().Running == 0 {
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := <-done; status.Code(err) != codes.Canceled {
		t.Errorf("error %v", err)
	}
	// The one place of the engine is free again at once.
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got, err := ask(ctx, c, "SELECT 1", client.QueryOptions{}); err != nil || got != "1" {
		t.Errorf("afterwards: %q %v", got, err)
	}
}

// A client that stops to read does not keep its place for longer than a query may run.
func TestStalledReaderLosesItsPlace(t *testing.T) {
	e := querytest.Start(t, querytest.Options{
		Config: func(c *query.Config) { c.Timeout = 500 * time.Millisecond },
		Engine: func(c *engine.Config) { c.MaxConcurrent = 1 },
	})
	rows, err := e.Dial(t, "").Query(t.Context(), "SELECT * FROM range(100000000)", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if _, err := rows.Next(); err != nil {
		t.Fatal(err)
	}
	other := e.Dial(t, "")
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := ask(t.Context(), other, "SELECT 1", client.QueryOptions{})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the place is never free: %v", err)
		}
	}
	for err == nil {
		_, err = rows.Next()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the client that stalled gets %v", err)
	}
}

func TestAbandonedAnswerFreesItsPlace(t *testing.T) {
	e := querytest.Start(t, querytest.Options{Engine: func(c *engine.Config) { c.MaxConcurrent = 1 }})
	e.Fixture(t)
	c := e.Dial(t, "")
	for range 5 {
		rows, err := c.Query(t.Context(), "SELECT a.msg, b.value FROM log_entries a, range(100000000) b", client.QueryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rows.Next(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := ask(ctx, c, "SELECT 1", client.QueryOptions{}); err != nil {
		t.Fatal(err)
	}
	waitIdle(t, e)
	if _, held := e.Service.OldestCommit(); held {
		t.Error("partitions stay pinned")
	}
}

func waitIdle(t *testing.T, e *querytest.Env) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); e.Service.Stats().Running > 0; {
		if time.Now().After(end) {
			t.Fatalf("queries go on: %+v", e.Service.Stats())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestMemoryLimitIsTyped(t *testing.T) {
	e := querytest.Start(t, querytest.Options{Engine: func(c *engine.Config) { c.MemoryLimit, c.TempDir = 64<<20, "" }})
	c := e.Dial(t, "")
	_, err := ask(t.Context(), c, "SELECT count(*) FROM (SELECT DISTINCT value, value * 3 AS w, repeat('x', 20) || value AS t FROM range(20000000))", client.QueryOptions{})
	if s := status.Convert(err); s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "Resources exhausted: ") {
		t.Errorf("error %v", err)
	}
}

// TestQueriesSeeTheirOwnFiles runs queries over different ranges at the same time while commits come and go.
func TestQueriesSeeTheirOwnFiles(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 15 {
				opts, want := span(0, 30), "3"
				if i%2 == 0 {
					opts, want = span(60, 200), "4"
				}
				if got, err := ask(t.Context(), c, "SELECT count(*) FROM log_entries", opts); err != nil || got != want {
					t.Errorf("got %q, %v; want %s", got, err, want)
					return
				}
				if got, err := ask(t.Context(), c, "SELECT count(*) FROM blocks b JOIN streams s ON b.stream_id = s.stream_id", client.QueryOptions{}); err != nil || got != "11" {
					t.Errorf("blocks: %q, %v", got, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		e.Partition(t, "log_entries", querytest.Log(querytest.P2, querytest.At(1000+float64(i)), 4, "srv", "other", "{}"))
	}
	wg.Wait()
}

func TestBlocksGrowInSegments(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	for i := range 40 {
		e.ExtraBlocks(t, i, 1+i%3)
		rows, err := c.Query(t.Context(), "SELECT block_id FROM blocks", client.QueryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		for {
			b, err := rows.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n += b.NumRows()
		}
		rows.Close()
		if want := e.Blocks(t); n != want {
			t.Fatalf("after step %d: %d blocks, want %d", i, n, want)
		}
	}
	if got, err := ask(t.Context(), c, "SELECT count(DISTINCT block_id), count(*) FROM blocks", client.QueryOptions{}); err != nil || got != "90,90" {
		t.Errorf("got %q, %v", got, err)
	}
}
