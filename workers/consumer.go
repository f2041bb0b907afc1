// Package workers runs custom consumers: programs' own readers of the bus, beside the built-in stages.
// Reads frames of both classes; writes its checkpoints in the catalog, and dead letters.
//
// A Pool gives each consumer every record it wants, from the beginning, in the order of each shard. Each (consumer, shard)
// has one owner among all processes, by lease, so more processes share the work. The position is durable in the catalog,
// as a compare-and-swap under the lease's epoch; behind the bus the records come from packs.
//
// Delivery is at least once: after a crash, or when an owner is replaced, the records since the last commit come again,
// and a client's retry is a second copy on the bus. Consumers must be idempotent by block id. A record that cannot be
// handled becomes a dead letter after a bounded number of tries, and the rest goes on.
package workers

import (
	"context"
	"errors"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

// ErrNotNow says, wrapped in an error of Handle, that the failure is not the records' fault: a database is away, perhaps.
// The Pool then waits and tries again, without an end and without dead letters.
var ErrNotNow = errors.New("cannot handle records at the moment")

// Consumer handles records.
type Consumer interface {
	// Name must be unique and must stay the same across restarts, since the position is kept under it: 1 to 64
	// characters of a-z, 0-9, '-' and '_'.
	Name() string
	// Handle must be idempotent, and must not keep records or their bodies after it returns. Bodies are whole (claimed
	// ones have been fetched). It may be called for several shards at once. When it fails, the same records come again
	// one by one, so that one bad record does not spoil the others.
	Handle(ctx context.Context, records []bus.Record) error
}

// Subscription is a consumer and what it wants.
type Subscription struct {
	Consumer Consumer
	// Classes are the classes it reads; empty = all.
	Classes []bus.Class
	// Want says which records it gets; nil = all. The body is not there yet when it is claimed.
	Want func(*bus.Record) bool
}
