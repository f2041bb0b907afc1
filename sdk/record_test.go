package sdk

import (
	"runtime"
	"testing"
)

// A writer that meets full lanes takes no more chunks than it fills, whatever lane it is given next.
func TestLanesAreFilled(t *testing.T) {
	ps := runtime.GOMAXPROCS(0)
	const events, words = 4 * chunkWords, 2
	memory.mu.Lock()
	bound, before := memory.bound, memory.out
	memory.bound = before + events*chunkWords
	memory.mu.Unlock()
	for range events {
		l, w := write(words)
		if w == nil {
			t.Fatal("no room")
		}
		clear(w)
		l.release(words)
	}
	memory.mu.Lock()
	defer memory.mu.Unlock()
	memory.bound = bound
	if took, most := (memory.out-before)/chunkWords, events*words/chunkWords+ps; took > most {
		t.Errorf("%d chunks for what fills %d", took, events*words/chunkWords)
	}
}
