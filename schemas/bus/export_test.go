package bus

import (
	"context"
	"time"
)

// Forget deletes the server's record of r, for tests.
func (r *Reader) Forget(ctx context.Context) error {
	return r.bus.js.DeleteConsumer(ctx, r.shard.name, r.consumer)
}

// Distrust makes r ask at its next turn whether the stream holds more, for tests.
func (r *Reader) Distrust() { r.heard = time.Now().Add(-2 * stallAfter) }

// SetClaimAge sets how old an oversize body may be when its record is acknowledged, for tests.
func (b *Bus) SetClaimAge(d time.Duration) { b.claimAge = d }

// SetMaterializeTimes sets how long the sides of a request for a view wait for each other, for tests.
func (b *Bus) SetMaterializeTimes(sign, silent time.Duration) {
	b.materialize = materializeTimes{sign: sign, silent: silent, busy: time.Millisecond}
}
