package catalog

import (
	"errors"
	"fmt"
	"time"
)

// What a caller branches on. All others are trouble of the store.
var (
	// ErrConflict: the checkpoint, or the range of the backlog, is not where the commit says, or a newer epoch moved it. The owner lost its shard, or
	// repeats a commit that was done: it must read the checkpoint before it goes on.
	ErrConflict = errors.New("catalog: checkpoint or epoch moved")
	// ErrDuplicateBlocks: a block of the commit is archived already. Nothing of the commit happened.
	ErrDuplicateBlocks = errors.New("catalog: a block of the commit is archived already")
	// ErrFrozen: blocks of the commit began in times of which rows are frozen. Nothing of the commit happened.
	ErrFrozen = errors.New("catalog: blocks of the commit began in frozen times")
	// ErrArchiveBehind: archive has not passed a position that the view commit moves to. Ask it to, and repeat.
	ErrArchiveBehind = errors.New("catalog: archive is behind the view's new position")
	// ErrStale: a partition to retire, a parked copy to remove or rows to freeze are gone; somebody else did the work.
	ErrStale = errors.New("catalog: a partition, parked copy or block row of the commit is gone")
	// ErrObjectsTooOld: the commit's objects were put so long ago that garbage collection may take them. Write them again.
	ErrObjectsTooOld = errors.New("catalog: objects of the commit are too old")
	// ErrLeaseLost: the lease has another epoch, or was released.
	ErrLeaseLost = errors.New("catalog: lease lost")
	// ErrHeld: another owner holds the lease. The error is a *HeldError.
	ErrHeld = errors.New("catalog: lease is held")
	// ErrOutcomeUnknown: the store failed while it committed. The commit may stand or not.
	ErrOutcomeUnknown = errors.New("catalog: outcome of the commit is unknown")
	// ErrInvalid: the commit contradicts itself; a mistake of the caller, not worth repeating.
	ErrInvalid = errors.New("catalog: invalid commit")
	// ErrClosed: the catalog was closed.
	ErrClosed = errors.New("catalog: closed")
)

// HeldError says who holds a lease, and until when unless it is renewed. It matches ErrHeld.
type HeldError struct {
	Name, Owner string
	// Expires and Now are times of the store's clock: the lease is free in Expires - Now, whatever the caller's clock says.
	Expires, Now int64
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("catalog: lease %s is held by %s until %s", e.Name, e.Owner,
		time.Unix(0, e.Expires).UTC().Format(time.RFC3339Nano))
}

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }
