//go:build !(amd64 || arm64) || race || micromegas_plain

package sdk

import (
	"runtime"
	"sync/atomic"
	"time"
)

// What fast.go does without locks, by what the language promises alone: a lane has a mutex, the clock is the standard library's.

const littleEndian = false // as far as is known

var nanotimeBase = time.Now()

func nanotime() int64 { return int64(time.Since(nanotimeBase)) + 1 }

func ticks() int64 { return nanotime() }

var nextLane atomic.Uint32

// pin returns the lane to write to; the caller must release it soon.
func pin() *lane {
	n := uint32(min(runtime.GOMAXPROCS(0), maxLanes))
	l := &lanes[nextLane.Add(1)%n]
	l.mu.Lock()
	return l
}

// unpin releases a lane.
func (l *lane) unpin() { l.mu.Unlock() }

// add adds to a cell of a lane.
func (c *cell) add(n uint64) { atomic.AddUint64(&c.n, n) }

// publish lets the reader see the words before n.
func (c *chunk) publish(n int) { atomic.StoreInt64(&c.filled, int64(n)) }
