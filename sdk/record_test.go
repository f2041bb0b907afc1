package sdk

import (
	"runtime"
	"sync"
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

// Many goroutines meet full lanes at once and change their Ps meanwhile. Whoever waited for something while it is pinned would end the
// program ("schedule: holding locks").
func TestManyWritersFillLanes(t *testing.T) {
	memory.mu.Lock()
	bound := memory.bound
	memory.bound = 1 << 40
	memory.mu.Unlock()
	defer func() {
		memory.mu.Lock()
		defer memory.mu.Unlock()
		memory.bound = bound
	}()
	const writers, events, words = 64, 20_000, 64 // 32 events fill a chunk
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range events {
				l, w := write(words)
				if w == nil {
					t.Error("no room")
					return
				}
				clear(w)
				l.release(words)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		writing.Wait()
		close(done)
	}()
	read := 0
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		for i := range lanesUsed.Load() {
			lanes[i].drain(func(w []uint64) { read += len(w) })
		}
	}
	if want := writers * events * words; read < want {
		t.Errorf("%d words of %d", read, want)
	}
}
