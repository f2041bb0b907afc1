package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	// maxGroup bounds the commits that share one transaction, and with it how long the first of them waits.
	maxGroup = 64
	// maxWaiting bounds the commits that wait; more callers block before they queue.
	maxWaiting = 256
)

// writer is the one goroutine that changes the file. It takes all commits that wait, runs each inside a savepoint of one
// transaction, commits, and answers all: the fsync, by far the most expensive part of a small commit, is shared, and
// one commit's conflict does not fail the others.
type writer struct {
	session *session
	queue   chan *commit
	closing chan struct{}
	done    chan struct{} // closed when the goroutine has ended
	cache   numbers

	keptChanges                int64 // weight of the notes that are kept of a shard
	traceIDs, traceFilterBytes int64 // that are kept
}

// commit is a function to run in a transaction, and where to tell how it went.
type commit struct {
	ctx    context.Context
	fn     func(*tx) error
	result chan error // buffered
	err    error
	after  []func()
}

// tx is what a commit's function works with. It must not be kept.
type tx struct {
	*session
	w *writer
	c *commit
}

// afterCommit notes what to do, on the writer's goroutine, once the commit stands.
func (t *tx) afterCommit(f func()) { t.c.after = append(t.c.after, f) }

func newWriter(s *session) *writer {
	w := &writer{
		session: s,
		queue:   make(chan *commit, maxWaiting),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		cache:   newNumbers(),

		keptChanges: catalog.ChangesKept,
		traceIDs:    catalog.MaxTraceIDs, traceFilterBytes: catalog.MaxTraceFilterBytes,
	}
	go w.run()
	return w
}

// do runs fn in a transaction and returns when it is durable, or fn's error when it was rolled back. Once fn has begun,
// do waits for it whatever becomes of ctx: a commit on a local disk takes milliseconds, and its outcome is known.
func (w *writer) do(ctx context.Context, fn func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &commit{ctx: ctx, fn: fn, result: make(chan error, 1)}
	select {
	case <-w.closing:
		return catalog.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case w.queue <- c:
	}
	select {
	case err := <-c.result:
		return err
	case <-w.done: // closed before or while c was queued; it may have been answered still
		select {
		case err := <-c.result:
			return err
		default:
			return catalog.ErrClosed
		}
	}
}

func (w *writer) run() {
	defer close(w.done)
	group := make([]*commit, 0, maxGroup)
	for {
		select {
		case c := <-w.queue:
			group = append(group[:0], c)
		case <-w.closing:
			return
		}
	fill:
		for len(group) < maxGroup {
			select {
			case c := <-w.queue:
				group = append(group, c)
			default:
				break fill
			}
		}
		w.commit(group)
		for _, c := range group {
			c.result <- c.err
		}
		clear(group)
	}
}

// commit runs a group in one transaction and sets each one's err.
func (w *writer) commit(group []*commit) {
	if _, err := w.session.exec("BEGIN IMMEDIATE"); err != nil {
		failAll(group, fmt.Errorf("begin: %w", err))
		return
	}
	changed := false
	for i, c := range group {
		if c.err = c.ctx.Err(); c.err != nil {
			continue
		}
		if c.err = w.apply(c, len(group) == 1); errors.Is(c.err, errTransactionGone) {
			w.session.rollback()
			failAll(group[:i+1], c.err) // rolled back with it
			failAll(group[i+1:], c.err) // not begun
			return
		}
		changed = changed || c.err == nil
	}
	if !changed {
		w.session.rollback()
		return
	}
	if _, err := w.session.exec("COMMIT"); err != nil {
		w.session.rollback()
		// The log may hold the transaction, and a crash now may bring it back.
		failAll(group, fmt.Errorf("%w: %w", catalog.ErrOutcomeUnknown, err))
		return
	}
	for _, c := range group {
		if c.err == nil {
			for _, f := range c.after {
				f()
			}
		}
	}
}

// errTransactionGone: SQLite rolled the whole transaction back by itself, as it does when the disk is full or broken.
var errTransactionGone = errors.New("transaction was rolled back")

// apply runs one commit's function. A commit that is alone needs no savepoint, for which SQLite would copy every page
// before its change: its transaction is rolled back instead.
func (w *writer) apply(c *commit, alone bool) error {
	t := &tx{w.session, w, c}
	if alone {
		return c.fn(t)
	}
	if _, err := w.session.exec("SAVEPOINT one"); err != nil {
		return fmt.Errorf("%w: %w", errTransactionGone, err)
	}
	err := c.fn(t)
	if err != nil {
		if _, rerr := w.session.exec("ROLLBACK TO one"); rerr != nil {
			return fmt.Errorf("%w: %w", errTransactionGone, err)
		}
	}
	if _, rerr := w.session.exec("RELEASE one"); rerr != nil {
		return fmt.Errorf("%w: %w", errTransactionGone, rerr)
	}
	return err
}

// failAll gives err to all commits of a group that have none of their own.
func failAll(group []*commit, err error) {
	for _, c := range group {
		if c.err == nil {
			c.err = err
		}
	}
}

// close ends the goroutine after the group under way; what still waits gets ErrClosed.
func (w *writer) close() error {
	close(w.closing)
	<-w.done
	return w.session.close()
}
