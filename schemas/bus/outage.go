package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A server of a cluster that is cut off from the others keeps its clients, and can do nothing for them; it does not say
// so. Elections end after at most 9 s, so an outage of some seconds means either one of those, and then another server is as
// good, or that, and then another server is better: the connection is moved.

// outagePatience is how long nothing may succeed before the connection is moved; up to half of it is added by chance, so
// that not everybody moves at once.
const outagePatience = 4 * time.Second

// outage is since when nothing succeeded of what needs the streams' leaders.
type outage struct{ since atomic.Int64 } // nanoseconds; 0 = the last thing succeeded

// fared notes how something fared that only the streams' leaders can do. What they refuse they could have done.
func (b *Bus) fared(err error) {
	if errors.Is(err, context.Canceled) {
		return // the connection was cut, or whoever asked went away
	}
	if err == nil || !transient(err) {
		b.outage.since.Store(0)
		return
	}
	now := time.Now().UnixNano()
	if b.outage.since.CompareAndSwap(0, now) || !b.clustered() {
		return
	}
	since := b.outage.since.Load()
	if since == 0 || time.Duration(now-since) < outagePatience+rand.N(outagePatience/2) {
		return
	}
	if b.nc.IsConnected() && b.outage.since.CompareAndSwap(since, now) {
		b.log.Warn("the bus does nothing: trying another of its servers", "server", b.nc.ConnectedAddr(), "error", err)
		if err := b.nc.ForceReconnect(); err != nil {
			b.log.Debug("connection not moved", "error", err)
		}
	}
}
