package lake_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

// startS3 starts a server that this process is let into.
func startS3(t *testing.T) *parts.S3 {
	t.Helper()
	s, err := parts.StartS3(t.Context(), t.TempDir())
	if err != nil {
		prerequisite(t, "an S3 server, which is built from deploy/tools/go.mod", err)
	}
	s.Setenv(t.Setenv)
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// prerequisite skips a test whose server cannot be had, except where it must.
func prerequisite(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s: %v", what, err)
	}
	t.Skipf("this test needs %s: %v", what, err)
}

func startFaults(t *testing.T, s *parts.S3) *parts.HTTPFaults {
	t.Helper()
	f, err := parts.StartHTTPFaults(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func openLake(t *testing.T, uri string, opts lake.Options) *lake.Lake {
	t.Helper()
	l, err := lake.Open(t.Context(), uri, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeLake(t, l) })
	return l
}

// newBucket opens a new, empty bucket of a server by way of an endpoint.
func newBucket(t *testing.T, s *parts.S3, endpoint string, counter *atomic.Int64) lake.Bucket {
	t.Helper()
	uri := s.URIAt(endpoint, fmt.Sprintf("bucket-%d", counter.Add(1)))
	b, err := lake.OpenBucket(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestS3Bucket(t *testing.T) {
	s := startS3(t)
	var counter atomic.Int64
	laketest.Run(t, func(t *testing.T) lake.Bucket { return newBucket(t, s, s.Endpoint(), &counter) })
	t.Run("prefix", func(t *testing.T) {
		laketest.Run(t, func(t *testing.T) lake.Bucket {
			uri := s.URI("shared")
			uri = strings.Replace(uri, "shared?", fmt.Sprintf("shared/some/place-%d?", counter.Add(1)), 1)
			b, err := lake.OpenBucket(t.Context(), uri)
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
	})
}

// TestS3BucketThroughFaults is the same with one request in twenty going wrong, and says what it cost.
func TestS3BucketThroughFaults(t *testing.T) {
	s := startS3(t)
	f := startFaults(t, s)
	var counter atomic.Int64
	var stats lake.RemoteStats
	begun := time.Now()
	f.Set(parts.Every(0.05, time.Hour), 1)
	laketest.Run(t, func(t *testing.T) lake.Bucket {
		b := newBucket(t, s, f.URL(), &counter)
		t.Cleanup(func() { stats = addStats(stats, b.(interface{ RemoteStats() lake.RemoteStats }).RemoteStats()) })
		return b
	})
	c := f.Counts()
	t.Logf("%d operations in %s, %d requests of which %d went wrong (%d×500, %d×503, %d time-outs, %d torn, %d replies lost): %d tried again, %d failed",
		stats.Operations, time.Since(begun).Round(time.Millisecond), c.Requests, c.Faults(), c.Error500, c.Error503, c.Timeouts, c.Torn, c.LostReply,
		stats.Retries, stats.Failures)
	// A reply may be torn behind what somebody reads of it: then there is nothing to try again.
	if c.Faults() == 0 || stats.Failures != 0 || stats.Retries < c.Faults()-c.Torn {
		t.Errorf("stats = %+v, faults = %+v", stats, c)
	}
}

// TestManyOperationsThroughFaults has sixteen writers and readers at once lose one request in twenty: nothing acknowledged is
// lost, and nothing wrong is read.
func TestManyOperationsThroughFaults(t *testing.T) {
	s := startS3(t)
	f := startFaults(t, s)
	l := openLake(t, s.URIAt(f.URL(), "lake"), lake.Options{})
	f.Set(parts.Every(0.05, time.Hour), 11)
	begun := time.Now()
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 25 {
				frames := frames(uint64(worker*1000+i*10+1), 3, 3000)
				p, offsets, err := l.PutPack(t.Context(), eager0, frames)
				if err != nil {
					t.Errorf("put: %v", err)
					continue
				}
				if got, err := l.ReadPack(t.Context(), p.Key); err != nil || len(got) != 3 || !sameFrame(got[2], frames[2]) {
					t.Errorf("read: %d frames, %v", len(got), err)
				}
				got, err := l.GetRange(t.Context(), p.Key, offsets[1], int64(len(frames[1].Data)))
				if err != nil || !bytes.Equal(got, frames[1].Data) {
					t.Errorf("range: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	c, r := f.Counts(), l.Stats().Requests
	t.Logf("%d operations in %s, %d requests of which %d went wrong (%d×500, %d×503, %d time-outs, %d torn, %d replies lost): %d tried again, %d failed",
		r.Operations, time.Since(begun).Round(time.Millisecond), c.Requests, c.Faults(), c.Error500, c.Error503, c.Timeouts, c.Torn, c.LostReply, r.Retries, r.Failures)
	if r.Failures != 0 || r.Retries != c.Faults() || min(c.Error500, c.Error503, c.Timeouts, c.Torn+c.LostReply) == 0 {
		t.Errorf("faults = %+v, requests = %+v", c, r)
	}
	packs := 0
	for _, err := range l.List(t.Context(), lake.PackPrefix) {
		if err != nil {
			t.Fatal(err)
		}
		packs++
	}
	if packs != 400 {
		t.Errorf("%d packs are listed, want 400: each once", packs)
	}
}

func addStats(a, b lake.RemoteStats) lake.RemoteStats {
	a.Operations += b.Operations
	a.Retries += b.Retries
	a.Failures += b.Failures
	a.Timeouts += b.Timeouts
	a.Refused += b.Refused
	a.Connections += b.Connections
	return a
}
