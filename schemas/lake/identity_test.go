package lake_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

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
