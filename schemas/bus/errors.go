package bus

import "errors"

var (
	// ErrUnavailable says that the bus did not take a record: nothing was promised, try again later (503). The record
	// may have been stored nevertheless; whoever publishes it again makes a second copy, which archive settles.
	ErrUnavailable = errors.New("bus unavailable")
	// ErrTooLarge says that a record fits neither a frame nor, for want of an object store, anywhere else.
	ErrTooLarge = errors.New("record too large for the bus")
	// ErrHole says that frames are missing that neither the bus nor the packs have: damage, an operator must look.
	ErrHole = errors.New("frames are missing")
	// ErrUnreadable says that bytes of a frame or record are damaged, or of an unknown version.
	ErrUnreadable = errors.New("unreadable record")
	// ErrNoOwner says that nobody serves a flush target on a shard at the moment.
	ErrNoOwner = errors.New("shard has no owner")
	// ErrShardCount says that another number of shards is configured than there are: a process's records would be looked for
	// in another shard than they are in.
	ErrShardCount = errors.New("the number of shards per class is another")
	// ErrClosed says that the Bus or Reader was closed.
	ErrClosed = errors.New("bus closed")
)
