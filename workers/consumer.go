// Package workers runs what reads records from the bus beside the built-in stages: custom consumers, each with a durable
// position of its own, spread over processes by lease.
package workers

import (
	"context"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

// Consumer is a custom reader of records.
type Consumer interface {
	// Name must be unique and stay the same across restarts: the position is kept under it.
	Name() string
	// Handle must be idempotent: after a crash the records since the last commit come again. An error makes the same
	// records come again one by one, and those that keep failing become dead letters.
	Handle(ctx context.Context, records []bus.Record) error
}
