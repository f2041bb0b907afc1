package sqlite

import (
	"errors"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// A reader that slept through more freezes than are kept cannot be told what went.
func TestOldFreezesAreForgotten(t *testing.T) {
	db := openInternal(t)
	const n = catalog.KeptFreezes + 3
	err := db.writer.do(t.Context(), func(t *tx) error {
		for v := int64(1); v <= n; v++ {
			c := &catalog.FreezeCommit{FreezeSpan: catalog.FreezeSpan{UpTo: map[catalog.ShardID]uint64{{Class: 'e'}: uint64(v)}}, Version: v - 1}
			if err := note(t, c, v); err != nil {
				return err
			}
		}
		_, err := t.exec("UPDATE clock SET frozen_no = ?", int64(n))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := db.Freezes(t.Context(), 3)
	if err != nil || len(all) != catalog.KeptFreezes || all[0].Version != 4 || all[0].UpTo[catalog.ShardID{Class: 'e'}] != 4 {
		t.Fatalf("%d freezes, %v", len(all), err)
	}
	if _, err := db.Freezes(t.Context(), 2); !errors.Is(err, catalog.ErrStale) {
		t.Fatal(err)
	}
	var positions int
	if err := db.read.QueryRowContext(t.Context(), "SELECT count(*) FROM freeze_positions").Scan(&positions); err != nil || positions != catalog.KeptFreezes {
		t.Fatalf("%d positions, %v", positions, err)
	}
}
