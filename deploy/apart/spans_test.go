package apart_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/producers/loadgen"
)

// The threads of TestSpansWhileMaterializersDie: each is asked about once while they die.
const (
	spanThreads    = 100
	spanBlocks     = 12
	spanEdges      = 4000 // of a block
	spanAtOnce     = 6
	spanKillEvery  = 900 * time.Millisecond
	spanAskTimeout = 40 * time.Second
)

// TestSpansWhileMaterializersDie asks for the spans of a hundred threads, which are built for it, while all processes that could build them
// are killed and started anew, again and again. Each answer is right, or an error that says to try again; afterwards all are right.
func TestSpansWhileMaterializersDie(t *testing.T) {
	c := newCluster(t, clusterOptions{natsServers: 1})
	members := c.startAll(map[string]int{"gateway": 1, "workers": 1, "materializers": 3, "query": 2})
	f := newFleet(1, 1, members["gateway"][0].url())
	threads := make([]*loadgen.Thread, spanThreads)
	var posting sync.WaitGroup
	places := make(chan struct{}, 8)
	for i := range threads {
		posting.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			threads[i] = postThread(t, f, uint64(i))
		})
	}
	posting.Wait()
	if t.Failed() {
		return
	}

	killing, stopKilling := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	var kills atomic.Int64
	killer.Go(func() {
		tick := time.NewTicker(spanKillEvery)
		defer tick.Stop()
		for {
			select {
			case <-killing.Done():
				return
			case <-tick.C:
			}
			for _, m := range members["materializers"] {
				m.process().Kill()
			}
			for _, m := range members["materializers"] {
				m.start()
			}
			kills.Add(1)
		}
	})
	var right, retryable atomic.Int64
	var asking sync.WaitGroup
	next := make(chan *loadgen.Thread)
	for i := range spanAtOnce {
		query := members["query"][i%2]
		asking.Go(func() {
			for thread := range next {
				switch err := askSpans(t.Context(), query, thread); {
				case err == nil:
					right.Add(1)
				case status.Code(err) == codes.Unavailable:
					retryable.Add(1)
				default:
					t.Errorf("an answer that is neither right nor asks to try again: %v", err)
				}
			}
		})
	}
	for _, thread := range threads {
		next <- thread
	}
	close(next)
	asking.Wait()
	stopKilling()
	killer.Wait()
	t.Logf("%d requests: %d right, %d to be tried again; all materializers killed %d times", len(threads), right.Load(), retryable.Load(), kills.Load())
	if kills.Load() < 2 {
		t.Error("the materializers were hardly killed")
	}
	for _, thread := range threads {
		if err := askSpans(t.Context(), members["query"][0], thread); err != nil {
			t.Errorf("afterwards: %v\n%s", err, c.logTails())
		}
	}
}

// postThread posts a thread whose spans all end.
func postThread(t *testing.T, f *fleet, seed uint64) *loadgen.Thread {
	thread := loadgen.NewThread("spans", time.Now().Add(-time.Minute), seed)
	requests := thread.Registrations()
	for range spanBlocks {
		requests = append(requests, thread.Block(spanEdges))
	}
	for _, r := range append(requests, thread.Last()) {
		code, err := f.send(t.Context(), f.gateways[0], strings.TrimPrefix(r.Path, "/ingestion/"), r.Body)
		if err != nil || code != http.StatusOK {
			t.Errorf("post %s: %d, %v", r.Path, code, err)
		}
	}
	return thread
}

// askSpans asks for a thread's spans and compares them with what was posted.
func askSpans(ctx context.Context, m *member, thread *loadgen.Thread) error {
	ctx, cancel := context.WithTimeout(ctx, spanAskTimeout)
	defer cancel()
	sql := fmt.Sprintf("SELECT count(*), CAST(sum(duration) AS BIGINT), count(DISTINCT id) FROM view_instance('thread_spans', '%s') WHERE id >= 0", thread.Stream.ID)
	a, err := m.ask(ctx, sql, time.Unix(0, thread.Process.StartTime), thread.End())
	if err != nil {
		return err
	}
	want := fmt.Sprintf("%d|%d|%[1]d", thread.Spans, thread.Duration)
	if len(a.rows) != 1 || a.rows[0] != want || len(a.warnings) > 0 {
		return fmt.Errorf("got %v with warnings %v, want %s", a.rows, a.warnings, want)
	}
	return nil
}
