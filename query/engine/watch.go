package engine

import (
	"fmt"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"
)

// Not all memory of a statement comes from DuckDB's allocator: aggregates that keep C++ maps, such as histogram and mode,
// grow outside it. The watch looks at what the process holds beside Go's heap and ends the running statements when it is
// too much.

// watchEvery is how often the watch looks; such aggregates grow by some 100 MiB meanwhile.
const watchEvery = 100 * time.Millisecond

// watch ends running statements while the process holds more than limit bytes beside Go's heap.
func (e *Engine) watch(limit int64) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.closed:
			return
		case <-tick.C:
		}
		if e.running.Load() == 0 {
			continue
		}
		if held, ok := heldOutsideGo(); ok && held > limit {
			e.log.Warn("engine ends its statements: too much memory", "held", held, "limit", limit)
			e.stopAll()
		}
	}
}

// stopAll interrupts every statement under way.
func (e *Engine) stopAll() {
	e.linksMu.Lock()
	defer e.linksMu.Unlock()
	for l := range e.links {
		if l.busy.Load() {
			l.over.Store(true)
			duckdb.Interrupt(l.raw)
		}
	}
}

// trim gives back what a query left behind, when it is much: otherwise it would stand in the way of the next.
func (e *Engine) trim() {
	if held, ok := heldOutsideGo(); ok && held-e.atStart > e.cfg.MemoryLimit/4 {
		trimMemory()
	}
}

// enter lists an open connection for the watch.
func (e *Engine) enter(l *link) *link {
	e.linksMu.Lock()
	defer e.linksMu.Unlock()
	e.links[l] = true
	return l
}

// leave must be called before the connection is closed.
func (e *Engine) leave(l *link) {
	e.linksMu.Lock()
	defer e.linksMu.Unlock()
	delete(e.links, l)
}

// tooMuch is the error of a statement that the watch ended.
func (e *Engine) tooMuch() *Error {
	return &Error{Class: Resource, Position: -1, Message: fmt.Sprintf("the running queries took more than %d MiB of memory", e.cfg.MemoryLimit>>20)}
}
