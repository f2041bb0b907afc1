package ownership_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
)

var discard = slog.New(slog.DiscardHandler)

// leases is a catalog's leases in memory on the bubble's clock, whose answers a test can withhold.
type leases struct {
	mu   sync.Mutex
	held map[string]catalog.Lease
	fail error // of RenewLease
}

func newLeases() *leases { return &leases{held: map[string]catalog.Lease{}} }

func (l *leases) AcquireLease(_ context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[name]
	if h.Owner != "" && h.Owner != owner && h.Expires > time.Now().UnixNano() {
		return catalog.Lease{}, &catalog.HeldError{Name: name, Owner: h.Owner, Expires: h.Expires}
	}
	h = catalog.Lease{Name: name, Owner: owner, Epoch: h.Epoch + 1, Expires: time.Now().Add(ttl).UnixNano()}
	l.held[name] = h
	return h, nil
}

func (l *leases) RenewLease(_ context.Context, lease catalog.Lease, ttl time.Duration) (catalog.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[lease.Name]
	if l.fail != nil {
		return catalog.Lease{}, l.fail
	}
	if h.Epoch != lease.Epoch || h.Owner != lease.Owner {
		return catalog.Lease{}, catalog.ErrLeaseLost
	}
	h.Expires = time.Now().Add(ttl).UnixNano()
	l.held[lease.Name] = h
	return h, nil
}

func (l *leases) ReleaseLease(_ context.Context, lease catalog.Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[lease.Name]
	if h.Epoch != lease.Epoch {
		return catalog.ErrLeaseLost
	}
	l.held[lease.Name] = catalog.Lease{Name: lease.Name, Epoch: h.Epoch}
	return nil
}

func (l *leases) lease(name string) catalog.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[name]
}

// steal gives the lease to another owner, as if it had expired.
func (l *leases) steal(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[name] = catalog.Lease{Name: name, Owner: "thief", Epoch: l.held[name].Epoch + 1, Expires: time.Now().Add(time.Minute).UnixNano()}
}

func (l *leases) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func TestLeaseIsKeptWhileWorkRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		begun := time.Now()
		err := ownership.Run(t.Context(), l, "x", "a", discard, func(ctx context.Context, lease catalog.Lease) error {
			time.Sleep(time.Minute)
			if ctx.Err() != nil || l.lease("x").Expires < time.Now().UnixNano() || lease.Epoch != 1 {
				t.Errorf("lease %+v, held %+v, %v", lease, l.lease("x"), ctx.Err())
			}
			return nil
		})
		if err != nil || time.Since(begun) != time.Minute || l.lease("x").Owner != "" {
			t.Fatalf("%v after %s, %+v", err, time.Since(begun), l.lease("x"))
		}
	})
}

func TestStolenLeaseCancelsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		ctx, cancel := context.WithCancel(t.Context())
		var epochs []int64
		err := ownership.Run(ctx, l, "x", "a", discard, func(ctx context.Context, lease catalog.Lease) error {
			epochs = append(epochs, lease.Epoch)
			if len(epochs) == 1 {
				l.steal("x")
				begun := time.Now()
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), ownership.ErrLost) || time.Since(begun) > 2*time.Second {
					t.Errorf("%v after %s", context.Cause(ctx), time.Since(begun))
				}
				return ctx.Err()
			}
			cancel() // taken back when the thief's lease expired
			return nil
		})
		if err != nil || len(epochs) != 2 || epochs[1] != 3 {
			t.Fatalf("%v, epochs %v", err, epochs)
		}
	})
}

// When the catalog is away the owner stops before anybody else can hold the lease.
func TestUnrenewedLeaseIsGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		ctx, cancel := context.WithCancel(t.Context())
		err := ownership.Run(ctx, l, "x", "a", discard, func(workCtx context.Context, _ catalog.Lease) error {
			time.Sleep(10 * time.Second)
			expires := time.Unix(0, l.lease("x").Expires)
			l.setFail(errors.New("catalog away"))
			<-workCtx.Done()
			if !errors.Is(context.Cause(workCtx), ownership.ErrLost) || time.Now().After(expires) {
				t.Errorf("%v, %s after expiry", context.Cause(workCtx), time.Since(expires))
			}
			cancel()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestOneFailedHeartbeatDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		err := ownership.Run(t.Context(), l, "x", "a", discard, func(ctx context.Context, _ catalog.Lease) error {
			l.setFail(errors.New("catalog away"))
			time.Sleep(3 * time.Second)
			l.setFail(nil)
			time.Sleep(time.Minute)
			return ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestFailedWorkStartsOverWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		var at []time.Duration
		begun := time.Now()
		err := ownership.Run(t.Context(), l, "x", "a", discard, func(context.Context, catalog.Lease) error {
			at = append(at, time.Since(begun))
			if len(at) == 4 {
				return nil
			}
			return errors.New("no luck")
		})
		if err != nil || len(at) != 4 || at[3] < 700*time.Millisecond || at[3] > time.Second {
			t.Fatalf("%v, %v", err, at)
		}
	})
}

func TestEndOfContextHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		ctxA, stopA := context.WithCancel(t.Context())
		ctxB, stopB := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var stopped atomic.Int64
		wg.Go(func() {
			_ = ownership.Run(ctxA, l, "x", "a", discard, func(ctx context.Context, _ catalog.Lease) error {
				<-ctx.Done()
				time.Sleep(8 * time.Second) // a slow end: the lease is kept meanwhile
				stopped.Store(time.Now().UnixNano())
				return ctx.Err()
			})
		})
		time.Sleep(time.Second)
		wg.Go(func() {
			_ = ownership.Run(ctxB, l, "x", "b", discard, func(context.Context, catalog.Lease) error {
				after := time.Now().UnixNano() - stopped.Load()
				if stopped.Load() == 0 || time.Duration(after) > 3*time.Second {
					t.Errorf("b began %s after a's end", time.Duration(after))
				}
				stopB()
				return nil
			})
		})
		time.Sleep(10 * time.Second)
		stopA()
		wg.Wait()
	})
}

// Over a real catalog, many owners of one name: never two at once.
func TestOneOwnerAtATime(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.sqlite"), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	cfg := ownership.Config{Heartbeat: 20 * time.Millisecond, Expiry: time.Second, RetryMin: time.Millisecond, RetryMax: time.Millisecond, ReleaseTimeout: time.Second}
	var owners, turns atomic.Int64
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := cfg.Run(ctx, db, "x", string(rune('a'+i)), discard, func(context.Context, catalog.Lease) error {
				if owners.Add(1) != 1 {
					t.Error("two owners")
				}
				turns.Add(1)
				owners.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if turns.Load() != 5 {
		t.Fatalf("%d turns", turns.Load())
	}
}
