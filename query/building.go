package query

import (
	"log/slog"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

// Progress is how far the views have come that a query waits for, in blocks of raw events.
type Progress struct {
	Done   int64 // decoded
	Blocks int64 // to decode in all, as far as is known yet; never less than Done
}

// buildingEvery is how often the log says how far a build has come that a query waits for.
const buildingEvery = 2 * time.Second

// building sums up how far the views of a query have come, for its caller and for the log. It is safe for concurrent use.
type building struct {
	tell func(Progress) // nil = nobody wants to know
	log  *slog.Logger
	id   string // of the query

	mu     sync.Mutex
	views  map[wish]Progress // nil as long as nothing is known
	sum    Progress
	logged time.Time
}

func newBuilding(tell func(Progress), log *slog.Logger, id string) *building {
	return &building{tell: tell, log: log, id: id, logged: time.Now()}
}

// expect notes what a view will cost, before it is asked for.
func (b *building) expect(w wish, blocks int64) { b.set(w, Progress{Blocks: blocks}) }

// end notes that a view is there.
func (b *building) end(w wish) {
	b.mu.Lock()
	known := b.views[w]
	b.mu.Unlock()
	b.set(w, Progress{Done: known.Blocks, Blocks: known.Blocks})
}

// of returns what takes the progress of a view.
func (b *building) of(w wish) func(bus.MaterializeProgress) {
	return func(p bus.MaterializeProgress) {
		sum := b.set(w, Progress{Done: p.Done, Blocks: max(p.Done, p.Blocks)})
		if b.timeToLog() {
			b.log.Info("a view is being built for a query", "view", w.view, "instance", w.id.String(), "blocks_done", p.Done, "blocks", p.Blocks, "waiting", p.Waiting,
				"query_blocks_done", sum.Done, "query_blocks", sum.Blocks, "query_id", b.id)
		}
	}
}

func (b *building) timeToLog() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.logged) < buildingEvery {
		return false
	}
	b.logged = time.Now()
	return true
}

// set replaces what is known of a view, and returns the sum.
func (b *building) set(w wish, p Progress) Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.views[w]
	if p == old {
		return b.sum
	}
	if b.views == nil {
		b.views = map[wish]Progress{}
	}
	b.views[w] = p
	b.sum.Done += p.Done - old.Done
	b.sum.Blocks += p.Blocks - old.Blocks
	if b.tell != nil {
		b.tell(b.sum)
	}
	return b.sum
}
