package deploy

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
)

// TestCollectorKnowsTheLongestQuery leaves files to the slowest process that ever answered queries.
func TestCollectorKnowsTheLongestQuery(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, c := range []struct{ timeout, longest time.Duration }{
		{0, 0},
		{time.Minute, 64 * time.Second},
		{10 * time.Minute, 1024 * time.Second},
		{time.Second, 1024 * time.Second},
		{maxQueryTimeout, 131072 * time.Second},
	} {
		if c.timeout > 0 {
			if err := recordQueryTimeout(t.Context(), db, c.timeout); err != nil {
				t.Fatal(err)
			}
		}
		if longest, err := longestQueryTimeout(t.Context(), db); err != nil || longest != c.longest {
			t.Errorf("after a timeout of %v the longest is %v, %v, want %v", c.timeout, longest, err, c.longest)
		}
	}
}
