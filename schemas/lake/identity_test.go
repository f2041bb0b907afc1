package lake_test

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

func openCatalog(t *testing.T) *sqlite.DB {
	t.Helper()
	cat, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	return cat
}

func TestBucketAndCatalogBelongTogether(t *testing.T) {
	mine, others := openCatalog(t), openCatalog(t)
	l := openMem(t)
	for range 2 {
		if err := l.Bind(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Bind(t.Context(), others); !errors.Is(err, lake.ErrForeign) {
		t.Errorf("another catalog's bucket: %v", err)
	}
	if err := openMem(t).Bind(t.Context(), mine); !errors.Is(err, lake.ErrForeign) {
		t.Errorf("another bucket: %v", err)
	}
	if err := openMem(t).Bind(t.Context(), others); err != nil {
		t.Errorf("a catalog that was refused elsewhere: %v", err)
	}
}

// A crash at any step, or a bucket that is away, leaves what the next start completes.
func TestBindingIsCompletedLater(t *testing.T) {
	cat := openCatalog(t)
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	for _, fault := range []laketest.Fault{{Before: true}, {After: true}} {
		faults.Decide(func(op laketest.Op, _ string) laketest.Fault {
			if op == laketest.OpPut {
				return fault
			}
			return laketest.Fault{}
		})
		if err := l.Bind(t.Context(), cat); !errors.Is(err, laketest.ErrInjected) {
			t.Fatalf("error = %v", err)
		}
	}
	faults.Decide(nil)
	if err := l.Bind(t.Context(), cat); err != nil {
		t.Error(err)
	}
}

// Of many catalogs that find one empty bucket at the same moment one gets it, and all others know it.
func TestOneOfManyBindsABucket(t *testing.T) {
	s := startS3(t)
	for round := range 3 {
		uri := s.URI(fmt.Sprintf("bucket-%d", round))
		const n = 4
		lakes, cats, errs := make([]*lake.Lake, n), make([]*sqlite.DB, n), make([]error, n)
		for i := range n {
			lakes[i], cats[i] = openLake(t, uri, lake.Options{}), openCatalog(t)
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { errs[i] = lakes[i].Bind(t.Context(), cats[i]) })
		}
		wg.Wait()
		bound := 0
		for _, err := range errs {
			if err == nil {
				bound++
			} else if !errors.Is(err, lake.ErrForeign) {
				t.Error(err)
			}
		}
		if bound != 1 {
			t.Errorf("%d catalogs have the bucket, want 1: %v", bound, errs)
		}
	}
}

// The reply to the first write is lost: the second attempt finds the bucket's identity there, and knows it as its own.
func TestBindingSurvivesLostReplies(t *testing.T) {
	s := startS3(t)
	f := startFaults(t, s)
	l, cat := openLake(t, s.URIAt(f.URL(), "lake"), lake.Options{}), openCatalog(t)
	f.Set(parts.Faults{LostReply: 0.3}, 3)
	for i := range 10 {
		if err := l.Bind(t.Context(), cat); err != nil {
			t.Fatal(err)
		}
		if i == 9 && f.Counts().LostReply == 0 {
			t.Error("no reply was lost")
		}
		if err := l.Delete(t.Context(), lake.IdentityKey); err != nil {
			t.Fatal(err)
		}
		cat = openCatalog(t)
	}
}
