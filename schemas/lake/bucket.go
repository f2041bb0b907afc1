package lake

import (
	"context"
	"errors"
	"iter"
	"time"
)

// ErrNotFound says that a bucket has no object of that key.
var ErrNotFound = errors.New("object not found")

// Object is one entry of a listing.
type Object struct {
	Key     string
	Size    int64
	ModTime time.Time
}

// Bucket is what the lake needs of an object store. Keys were checked by the Lake. Every implementation passes
// laketest.Run; implementations must be safe for concurrent use.
type Bucket interface {
	// Put must be durable when it returns, must be all or nothing to readers, and must succeed when the object
	// exists already (it replaces it). It must not keep data.
	Put(ctx context.Context, key string, data []byte) error

	// Read returns n bytes from off, or all from off when n < 0. It must return ErrNotFound (wrapped) for a missing
	// object and an error when fewer than n bytes are there.
	Read(ctx context.Context, key string, off, n int64) ([]byte, error)

	// Stat must return ErrNotFound (wrapped) for a missing object.
	Stat(ctx context.Context, key string) (Object, error)

	// Delete must succeed when the object is not there.
	Delete(ctx context.Context, key string) error

	// List yields the objects whose key begins with prefix, in order of their keys. After an error it ends.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]

	Close() error
}

// localBucket is the optional ability of a bucket whose objects are files that the engine can open.
type localBucket interface {
	// Local must return the path of the object's file, which it has made sure of: an error that wraps ErrNotFound when there is none,
	// ErrDamaged when it is not what was written.
	Local(ctx context.Context, o Ref) (string, error)
}

// creator is the optional ability of a bucket to write an object only where there is none, even when several try at once.
type creator interface {
	// Create returns false when there is an object, whose bytes stay.
	Create(ctx context.Context, key string, data []byte) (created bool, err error)
}

// tailReader is the optional ability of a bucket to read a range without knowing where the object ends.
type tailReader interface {
	// ReadSome is Read, but returns fewer than n bytes where the object ends before.
	ReadSome(ctx context.Context, key string, off, n int64) ([]byte, error)
}

// remoteBucket is a bucket beyond a network.
type remoteBucket interface {
	RemoteStats() RemoteStats
}

// pinger is the optional ability of a bucket to say why it cannot be used.
type pinger interface {
	Ping(ctx context.Context) error
}

// clock is the optional ability of a bucket whose objects are stamped by this machine's clock. It tells the time even when its disk
// is full.
type clock interface {
	Now() time.Time
}

// sweeper is the optional ability of a bucket to remove what interrupted writes left behind.
type sweeper interface {
	SweepTemp(ctx context.Context, before time.Time) (removed int, err error)
}
