package deliver

import (
	"fmt"
	"sync"
	"time"
)

// reporter tells somebody about errors, but not too often.
type reporter struct {
	fn       func(error)
	interval time.Duration

	mu      sync.Mutex
	last    time.Time
	skipped int
}

// report passes err on, with the number of those that it kept back since the last one.
func (r *reporter) report(err error) {
	if r.fn == nil {
		return
	}
	r.mu.Lock()
	now := time.Now()
	if !r.last.IsZero() && now.Sub(r.last) < r.interval {
		r.skipped++
		r.mu.Unlock()
		return
	}
	skipped := r.skipped
	r.last, r.skipped = now, 0
	r.mu.Unlock()
	if skipped > 0 {
		err = fmt.Errorf("%w (and %d errors before it)", err, skipped)
	}
	r.fn(err)
}
