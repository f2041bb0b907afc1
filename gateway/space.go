package gateway

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// The free-space reserve of the data folder. Below it the gateway refuses bodies, because a full disk stops the bus for
// good (JetStream latches), while everything that frees space needs some.
const (
	ReserveBytes   = 512 << 20
	ReservePercent = 5
)

// spaceEvery is how often the file system is asked. At 1 GB/s that is half of the reserve.
const spaceEvery = 250 * time.Millisecond

// Space is what a file system has and what an ordinary user may still fill.
type Space struct {
	Free, Total uint64
}

// Reserve is how much of a file system must stay free.
func (s Space) Reserve() uint64 { return max(ReserveBytes, s.Total/100*ReservePercent) }

// FreeSpace returns a function for New: it returns an error while the file system of dir has less than the reserve
// free, or does not answer. Stat is asked at most every 250 ms; nil means the machine's statfs, and no check
// where there is none.
func FreeSpace(dir string, stat func(dir string) (Space, error)) func() error {
	if stat == nil {
		stat = StatSpace
	}
	c := &spaceCheck{dir: dir, stat: stat, begin: time.Now()}
	c.verdict.Store(&spaceVerdict{err: c.ask()})
	c.next.Store(int64(spaceEvery))
	return c.check
}

type spaceCheck struct {
	dir     string
	stat    func(dir string) (Space, error)
	begin   time.Time
	next    atomic.Int64 // when to ask again, since begin
	verdict atomic.Pointer[spaceVerdict]
}

type spaceVerdict struct{ err error }

// check asks when it is time, in one caller at once; the others go by the last answer.
func (c *spaceCheck) check() error {
	now, next := int64(time.Since(c.begin)), c.next.Load()
	if now >= next && c.next.CompareAndSwap(next, now+int64(spaceEvery)) {
		c.verdict.Store(&spaceVerdict{err: c.ask()})
	}
	return c.verdict.Load().err
}

func (c *spaceCheck) ask() error {
	s, err := c.stat(c.dir)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("free space of %s: %w", c.dir, err)
	}
	if s.Free < s.Reserve() {
		return fmt.Errorf("free space of %s: %d MiB left, %d MiB are reserved; free some space or enlarge the disk", c.dir, s.Free>>20, s.Reserve()>>20)
	}
	return nil
}
