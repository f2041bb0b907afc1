package justintime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// leasePrefix begins the names of the leases by which one process at a time builds an instance. They save double work; that nothing is
// there twice is for the commit to see to.
const leasePrefix = "jit/"

// instanceLock is held by one request of this process at a time.
type instanceLock struct {
	held  chan struct{} // holds a token while it is held
	users int           // that hold it or wait
}

// lock waits until nobody else builds the instance, here or in another process; waiting is called now and then meanwhile. The returned
// context ends when the lease is lost. release must be called.
func (s *Service) lock(ctx context.Context, name string, waiting func()) (lease catalog.Lease, work context.Context, release func(), err error) {
	unlock, err := s.lockHere(ctx, name, waiting)
	if err != nil {
		return lease, nil, nil, err
	}
	if err := s.builds.Acquire(ctx, 1); err != nil {
		unlock()
		return lease, nil, nil, fmt.Errorf("wait for a place to build: %w", err)
	}
	free := func() {
		s.builds.Release(1)
		unlock()
	}
	if lease, err = s.acquire(ctx, name, waiting); err != nil {
		free()
		return lease, nil, nil, err
	}
	work, lost := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(work, lease, lost)
	}()
	return lease, work, func() {
		lost(nil)
		<-kept
		endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.LeaseExpiry)
		defer cancel()
		if err := s.parts.Catalog.ReleaseLease(endCtx, lease); err != nil && !errors.Is(err, catalog.ErrLeaseLost) {
			s.log.Debug("lease not released, it will expire", "lease", name, "error", err)
		}
		free()
	}, nil
}

// lockHere takes the lock of this process.
func (s *Service) lockHere(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	s.mu.Lock()
	l := s.locks[name]
	if l == nil {
		l = &instanceLock{held: make(chan struct{}, 1)}
		s.locks[name] = l
	}
	l.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.locks, name)
		}
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case l.held <- struct{}{}:
			return func() {
				<-l.held
				leave()
			}, nil
		case <-ticker.C:
			waiting()
		case <-ctx.Done():
			leave()
			return nil, fmt.Errorf("wait for the build of %s: %w", name, context.Cause(ctx))
		}
	}
}

// acquire takes the lease, waiting for another process that has it.
func (s *Service) acquire(ctx context.Context, name string, waiting func()) (catalog.Lease, error) {
	for told := time.Now(); ; {
		lease, err := s.parts.Catalog.AcquireLease(ctx, name, s.parts.Owner, s.cfg.LeaseExpiry)
		var held *catalog.HeldError
		if err == nil || !errors.As(err, &held) {
			return lease, err
		}
		if time.Since(told) > time.Second/2 {
			waiting()
			told = time.Now()
		}
		timer := time.NewTimer(s.cfg.LeasePoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return lease, fmt.Errorf("wait for %s, which %s builds: %w", name, held.Owner, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// keep renews a lease until ctx ends, and calls lost when it is another's, or could not be renewed in time.
func (s *Service) keep(ctx context.Context, lease catalog.Lease, lost func(error)) {
	ticker := time.NewTicker(s.cfg.LeaseExpiry / 3)
	defer ticker.Stop()
	good := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		all, _, err := s.parts.Catalog.KeepLeases(ctx, []catalog.Lease{lease}, s.cfg.LeaseExpiry)
		switch {
		case err == nil && stands(all, lease):
			good = time.Now()
		case err == nil:
			lost(fmt.Errorf("%s: %w", lease.Name, catalog.ErrLeaseLost))
			return
		case time.Since(good) > s.cfg.LeaseExpiry:
			lost(fmt.Errorf("%s could not be renewed: %w", lease.Name, catalog.ErrLeaseLost))
			return
		}
	}
}

func stands(all []catalog.Lease, lease catalog.Lease) bool {
	for _, l := range all {
		if l.Name == lease.Name {
			return l.Owner == lease.Owner && l.Epoch == lease.Epoch
		}
	}
	return false
}

// forgetLeases removes the rows of leases that nobody has held for long.
func (s *Service) forgetLeases(ctx context.Context) {
	now, err := s.parts.Catalog.Now(ctx)
	if err == nil {
		err = s.parts.Catalog.ForgetLeases(ctx, leasePrefix, now-int64(s.cfg.ForgetLeases))
	}
	if err != nil && ctx.Err() == nil {
		s.log.Debug("old leases of builds not removed", "error", err)
	}
}
