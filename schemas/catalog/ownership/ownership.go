// Package ownership shares leases among the processes that live: each takes its fair part of a role's names, works under
// them, and gives back what is too much when another comes.
// Written and read by every process with a role, through the catalog's leases; nothing else passes between them.
//
// A process announces itself as a member of a role by a lease of its own, member/<role>/<owner>. One look at all leases,
// several times a second, tells it who lives, what is free and what it lost; the same call renews what it holds. Members
// that see the same leases come to the same shares, so nobody leads: with n names and m members a process holds n/m of
// them, rounded either way. Invariants:
//
//   - The work of a name runs at most once in a process, and ends before its lease is given back.
//   - A process gives up a lease that it cannot renew before the catalog gives it to another.
//   - Whether a lease is free is decided by the catalog's clock alone. A process measures durations, and never compares
//     its clock with another's.
//
// A lease gives liveness only. What the work writes must be guarded by the lease's epoch in the catalog, because an owner
// that was paused for longer than its lease still believes in it for a moment after it wakes.
//
// How long nobody owns a name after its owner was killed, with the default times, at worst: 3 s until the lease expires
// (it was renewed just before), 0.3 s until another looks, and what the work needs to begin and to catch up. After an end
// that was asked for: what the work needs to stop, and 0.3 s. Nothing but the look at the leases is needed for it.
package ownership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// Why the context of work ends, beside the end of Share's.
var (
	// ErrLost: the lease was lost, or could not be renewed in time. What the work commits now would fail.
	ErrLost = errors.New("ownership: lease lost")
	// ErrSurplus: another member is to have the lease. The work should finish what is under way; the lease is kept meanwhile.
	ErrSurplus = errors.New("ownership: lease goes to another member")
)

// Leases is the part of the catalog that is used here.
type Leases interface {
	AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error)
	ReleaseLease(ctx context.Context, l catalog.Lease) error
	KeepLeases(ctx context.Context, held []catalog.Lease, ttl time.Duration) (all []catalog.Lease, now int64, err error)
	ForgetLeases(ctx context.Context, prefix string, before int64) error
}

// Config holds the times of the protocol.
type Config struct {
	// Poll is how often the leases are looked at: how soon a free one, a new member or a loss is noticed.
	Poll time.Duration
	// Heartbeat is how often leases are renewed, all of a process at once. A renewal that fails is repeated every Poll.
	Heartbeat time.Duration
	// Expiry is how long a lease lives without renewal; a few heartbeats, so that one lost renewal does no harm.
	Expiry time.Duration
	// RetryMin and RetryMax bound the pause after work that failed; it doubles from one to the other.
	RetryMin, RetryMax time.Duration
	// ReleaseTimeout bounds the release at the end, which happens after ctx is done.
	ReleaseTimeout time.Duration
}

// DefaultConfig is a look every 300 ms, a heartbeat of 1 s and an expiry of 3 s: six renewals may fail before a lease is
// given up, and a query that waits for an owner that was killed waits less than 5 s.
func DefaultConfig() Config {
	return Config{
		Poll: 300 * time.Millisecond, Heartbeat: time.Second, Expiry: 3 * time.Second,
		RetryMin: 100 * time.Millisecond, RetryMax: 2 * time.Second,
		ReleaseTimeout: time.Second,
	}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.Poll <= 0 || c.Heartbeat < c.Poll || c.Expiry < 2*c.Heartbeat {
		errs = append(errs, fmt.Errorf("ownership: poll %s, heartbeat %s and expiry %s: each must be above the one before, expiry twice", c.Poll, c.Heartbeat, c.Expiry))
	}
	if c.RetryMin <= 0 || c.RetryMax < c.RetryMin {
		errs = append(errs, fmt.Errorf("ownership: retry pauses %s to %s", c.RetryMin, c.RetryMax))
	}
	if c.ReleaseTimeout <= 0 {
		errs = append(errs, fmt.Errorf("ownership: release timeout %s is not positive", c.ReleaseTimeout))
	}
	return errors.Join(errs...)
}

// callTimeout bounds one call to the catalog, so that a hung one leaves time for another before leases expire.
func (c Config) callTimeout() time.Duration { return c.Expiry / 2 }

// Work is done under a lease. It should go on until ctx ends, finish what must not be cut, and return; when it returns
// before, it is called again after a pause, here or in another process. context.Cause(ctx) says why it ends: ErrLost,
// ErrSurplus, or the end of Share's context.
type Work func(ctx context.Context, lease catalog.Lease) error

// Share is Keeper.Share of a keeper that has nothing else to share.
func (c Config) Share(ctx context.Context, cat Leases, role string, names []string, owner string, log *slog.Logger, work Work) {
	NewKeeper(c, cat, owner, log).Share(ctx, role, names, work)
}
