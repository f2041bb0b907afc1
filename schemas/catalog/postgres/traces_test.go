package postgres

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/catalogtest"
)

func TestOldTracesAreDropped(t *testing.T) {
	url := database(t)
	db := open(t, url)
	db.traceIDs, db.traceFilterBytes = 100, 20*catalog.TraceFilterUnit
	exec(t, raw(t, url), "SELECT setval('trace_numbers', (1 << 16) - 60)") // the numbers go from one era into the next
	catalogtest.TraceBounds(t, db, 100, 20)
	left := 0
	err := raw(t, url).QueryRow(t.Context(), "SELECT count(*) FROM trace_ids t LEFT JOIN trace_blocks b USING(block_no) WHERE b.block_no IS NULL").Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d ids of no block, %v", left, err)
	}
}
