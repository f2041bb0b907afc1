// Package ownership keeps a piece of work running under a lease: it takes the lease when it is free, runs the work, renews
// the lease beside it, and cancels the work when the lease is lost.
//
// A lease gives liveness only. What the work writes must be guarded by the lease's epoch in the catalog, because an owner
// that was paused for longer than its lease still believes in it for a moment after it wakes.
package ownership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// ErrLost is the cause of the cancellation when the lease was lost or could not be renewed in time.
var ErrLost = errors.New("ownership: lease lost")

// Leases is the part of the catalog that is used here.
type Leases interface {
	AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error)
	RenewLease(ctx context.Context, l catalog.Lease, ttl time.Duration) (catalog.Lease, error)
	ReleaseLease(ctx context.Context, l catalog.Lease) error
}

// Config holds the times of the protocol.
type Config struct {
	// Heartbeat is how often the lease is renewed.
	Heartbeat time.Duration
	// Expiry is how long a lease lives without renewal; a few heartbeats, so that one lost renewal does no harm.
	Expiry time.Duration
	// RetryMin and RetryMax bound the pause after work that failed; it doubles from one to the other.
	RetryMin, RetryMax time.Duration
	// ReleaseTimeout bounds the release at the end, which happens after ctx is done.
	ReleaseTimeout time.Duration
}

// DefaultConfig is a heartbeat of 2 s and an expiry of 6 s.
func DefaultConfig() Config {
	return Config{
		Heartbeat: 2 * time.Second, Expiry: 6 * time.Second,
		RetryMin: 100 * time.Millisecond, RetryMax: 5 * time.Second,
		ReleaseTimeout: time.Second,
	}
}

// Run is Config.Run with the default times.
func Run(ctx context.Context, cat Leases, name, owner string, log *slog.Logger, fn func(ctx context.Context, lease catalog.Lease) error) error {
	return DefaultConfig().Run(ctx, cat, name, owner, log, fn)
}

// Run works under the lease name until ctx is done or fn returns nil; it returns nil in both cases. Whenever the lease is
// free it takes it and calls fn with a context that ends with ctx, or, with cause ErrLost, when the lease is lost. After
// fn returned, the lease is released, so that the next owner need not wait for its expiry. When fn fails, or lost its
// lease, Run starts over after a pause.
//
// The owner's name must belong to one process at a time: a process that comes back under its old name takes its leases
// back at once.
func (c Config) Run(ctx context.Context, cat Leases, name, owner string, log *slog.Logger, fn func(ctx context.Context, lease catalog.Lease) error) error {
	pause := c.RetryMin
	for ctx.Err() == nil {
		lease, err := cat.AcquireLease(ctx, name, owner, c.Expiry)
		var held *catalog.HeldError
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.release(ctx, cat, lease, log)
			}
			return nil
		case errors.As(err, &held):
			wait(ctx, c.untilFree(held))
			continue
		case err != nil:
			log.Warn("lease not acquired", "lease", name, "err", err)
			wait(ctx, pause)
			pause = min(2*pause, c.RetryMax)
			continue
		}
		begun := time.Now()
		log.Info("lease acquired", "lease", name, "epoch", lease.Epoch)
		err = c.hold(ctx, cat, lease, log, fn)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrLost):
			log.Warn("lease lost", "lease", name, "epoch", lease.Epoch)
		default:
			log.Warn("work under lease failed", "lease", name, "epoch", lease.Epoch, "err", err)
		}
		if time.Since(begun) > c.RetryMax { // it went well for a while
			pause = c.RetryMin
		}
		wait(ctx, pause)
		pause = min(2*pause, c.RetryMax)
	}
	return nil
}

// untilFree is how long to wait for a held lease: until it expires, but not longer than a heartbeat, since its owner may
// release it.
func (c Config) untilFree(held *catalog.HeldError) time.Duration {
	d := time.Until(time.Unix(0, held.Expires))
	d = max(min(d, c.Heartbeat), c.Heartbeat/20)
	return d + time.Duration(rand.Int64N(int64(d)/10+1)) // waiting owners spread out
}

// hold runs fn under the lease, and returns when fn has returned and the lease is released or lost.
func (c Config) hold(ctx context.Context, cat Leases, lease catalog.Lease, log *slog.Logger, fn func(context.Context, catalog.Lease) error) error {
	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	renewCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // fn may need a while to end after ctx is done
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.renew(renewCtx, cat, lease, log, cancel)
	}()
	err := fn(workCtx, lease)
	stop()
	<-done
	if cause := context.Cause(workCtx); errors.Is(cause, ErrLost) {
		return fmt.Errorf("%w: %w", cause, errOr(err))
	}
	c.release(ctx, cat, lease, log)
	return err
}

func errOr(err error) error {
	if err == nil {
		return context.Canceled
	}
	return err
}

// renew extends the lease every heartbeat until ctx is done. It calls lose once, when the lease belongs to another or is
// about to expire unrenewed.
func (c Config) renew(ctx context.Context, cat Leases, lease catalog.Lease, log *slog.Logger, lose context.CancelCauseFunc) {
	// The time counts from before the call, so that the owner gives up before the catalog gives the lease away.
	good := time.Now()
	ticker := time.NewTicker(c.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		begun := time.Now()
		callCtx, cancel := context.WithDeadline(ctx, good.Add(c.Expiry))
		_, err := cat.RenewLease(callCtx, lease, c.Expiry)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			good = begun
		case errors.Is(err, catalog.ErrLeaseLost):
			lose(ErrLost)
			return
		default:
			log.Warn("lease not renewed", "lease", lease.Name, "err", err)
			if time.Now().Add(c.Heartbeat / 2).After(good.Add(c.Expiry)) {
				lose(fmt.Errorf("%w: not renewed for %s: %w", ErrLost, time.Since(good).Round(time.Millisecond), err))
				return
			}
		}
	}
}

func (c Config) release(ctx context.Context, cat Leases, lease catalog.Lease, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.ReleaseTimeout)
	defer cancel()
	if err := cat.ReleaseLease(ctx, lease); err != nil && !errors.Is(err, catalog.ErrLeaseLost) {
		log.Warn("lease not released; it expires", "lease", lease.Name, "err", err)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
