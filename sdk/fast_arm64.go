//go:build !race && !micromegas_plain

package sdk

import "sync/atomic"

func cntvct() int64

// ticks reads the clock that events carry, the virtual counter; its unit is found by calibration, see clock.
func ticks() int64 { return cntvct() }

// publish lets the reader see the words before n: a store-release.
func (c *chunk) publish(n int) { atomic.StoreInt64(&c.filled, int64(n)) }
