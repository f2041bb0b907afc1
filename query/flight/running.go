package flight

import (
	"context"
	"sync"
)

// running knows the statements that are being answered, so that their caller can cancel them.
// A ticket is the SQL text, so a text is also what a cancellation names.
type running struct {
	mu    sync.Mutex
	next  uint64
	calls map[statement]map[uint64]context.CancelFunc
}

type statement struct{ caller, sql string }

func newRunning() *running {
	return &running{calls: make(map[statement]map[uint64]context.CancelFunc)}
}

// begin notes a statement; the returned function must be called when it has ended.
func (r *running) begin(ctx context.Context, caller, sql string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	key := statement{caller, sql}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	no := r.next
	if r.calls[key] == nil {
		r.calls[key] = make(map[uint64]context.CancelFunc)
	}
	r.calls[key][no] = cancel
	return ctx, func() {
		cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.calls[key], no)
		if len(r.calls[key]) == 0 {
			delete(r.calls, key)
		}
	}
}

// cancel ends every run of a caller's statement and returns how many there were.
func (r *running) cancel(caller, sql string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls[statement{caller, sql}]
	for _, cancel := range calls {
		cancel()
	}
	return len(calls)
}
