package query_test

import (
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
)

// TestProgressCountsWhatIsBuilt follows statements over one and over many threads: what is to be built is known before it is, and nothing
// is told of what is there.
func TestProgressCountsWhatIsBuilt(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.fleetFixture(t)
	follow := func(sql string) (told []query.Progress) {
		t.Helper()
		answer, err := h.Service.Query(t.Context(), query.Request{
			SQL: ids(sql), Range: &query.Range{Begin: querytest.At(0), End: querytest.At(3600)},
			Progress: func(p query.Progress) { told = append(told, p) },
		})
		if err != nil {
			t.Fatal(err)
		}
		answer.Close()
		return told
	}
	h.bus.progress = &bus.MaterializeProgress{Done: 1, Blocks: 2}
	if got, want := follow("SELECT * FROM view_instance('thread_spans', 'S3')"), []query.Progress{{Done: 1, Blocks: 2}, {Done: 2, Blocks: 2}}; !slices.Equal(got, want) {
		t.Errorf("one thread: %+v", got)
	}
	h.bus.progress = nil
	got := follow("SELECT count(*) FROM thread_spans")
	costs := make([]int64, 0, len(got))
	for i, p := range got {
		if p.Done > p.Blocks || i > 0 && p.Done < got[i-1].Done {
			t.Errorf("from %+v to %+v", got[max(i-1, 0)], p)
		}
		if p.Done == 0 {
			costs = append(costs, p.Blocks)
		}
	}
	last := got[len(got)-1]
	if len(costs) != 3 || costs[2] != last.Blocks || last.Done != last.Blocks {
		t.Errorf("three threads: %+v", got)
	}
	if got := follow("SELECT count(*) FROM thread_spans"); len(got) != 0 {
		t.Errorf("nothing is to be built: %+v", got)
	}
}
