package ownership_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
)

var discard = slog.New(slog.DiscardHandler)

// leases is a catalog's leases in memory, on a clock that differs from every process's. A test can take it away.
type leases struct {
	mu    sync.Mutex
	skew  time.Duration
	rows  map[string]catalog.Lease
	fail  error
	looks int
}

func newLeases() *leases { return &leases{skew: -time.Hour, rows: map[string]catalog.Lease{}} }

func (l *leases) now() int64 { return time.Now().Add(l.skew).UnixNano() }

func (l *leases) AcquireLease(_ context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return catalog.Lease{}, l.fail
	}
	h := l.rows[name]
	if h.Owner != "" && h.Owner != owner && h.Expires > l.now() {
		return catalog.Lease{}, &catalog.HeldError{Name: name, Owner: h.Owner, Expires: h.Expires}
	}
	h = catalog.Lease{Name: name, Owner: owner, Epoch: h.Epoch + 1, Expires: l.now() + int64(ttl)}
	l.rows[name] = h
	return h, nil
}

func (l *leases) ReleaseLease(_ context.Context, lease catalog.Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	h := l.rows[lease.Name]
	if h.Epoch != lease.Epoch || h.Owner != lease.Owner {
		return catalog.ErrLeaseLost
	}
	l.rows[lease.Name] = catalog.Lease{Name: lease.Name, Epoch: h.Epoch}
	return nil
}

func (l *leases) KeepLeases(_ context.Context, held []catalog.Lease, ttl time.Duration) ([]catalog.Lease, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	if l.fail != nil {
		return nil, 0, l.fail
	}
	for _, lease := range held {
		if h := l.rows[lease.Name]; h.Epoch == lease.Epoch && h.Owner == lease.Owner {
			h.Expires = l.now() + int64(ttl)
			l.rows[lease.Name] = h
		}
	}
	return slices.Collect(maps.Values(l.rows)), l.now(), nil
}

func (l *leases) ForgetLeases(_ context.Context, prefix string, before int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.rows, func(name string, h catalog.Lease) bool { return strings.HasPrefix(name, prefix) && h.Expires < before })
	return l.fail
}

func (l *leases) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// steal gives a lease to another owner, as if it had expired.
func (l *leases) steal(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[name] = catalog.Lease{Name: name, Owner: "thief", Epoch: l.rows[name].Epoch + 1, Expires: l.now() + int64(time.Minute)}
}

func (l *leases) row(name string) catalog.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rows[name]
}

func (l *leases) looked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks
}

func (l *leases) members() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for name := range l.rows {
		if strings.HasPrefix(name, "member/") {
			n++
		}
	}
	return n
}

var errAway = errors.New("catalog away")

// world runs processes that share names, and watches that no epoch is worked under twice and that none works when another has
// begun with a higher one.
type world struct {
	t     *testing.T
	cat   ownership.Leases
	cfg   ownership.Config
	names []string

	mu       sync.Mutex
	epochs   map[string]int64  // highest begun
	owners   map[string]string // who works, by name
	handover time.Duration     // how long work takes to end
	started  []*process
}

// end stops all processes: the clock of a test stands still after it.
func (w *world) end() {
	for _, p := range w.started {
		p.stop()
	}
	for _, p := range w.started {
		<-p.done
	}
}

func newWorld(t *testing.T, cat ownership.Leases, names int) *world {
	w := &world{t: t, cat: cat, cfg: ownership.DefaultConfig(), epochs: map[string]int64{}, owners: map[string]string{}}
	for i := range names {
		w.names = append(w.names, fmt.Sprint("views/", i))
	}
	return w
}

// process is a member that can be stopped, or be dead.
type process struct {
	w    *world
	name string
	stop context.CancelFunc
	done chan struct{}
}

func (w *world) start(name string) *process {
	ctx, cancel := context.WithCancel(w.t.Context())
	p := &process{w: w, name: name, stop: cancel, done: make(chan struct{})}
	w.mu.Lock()
	w.started = append(w.started, p)
	w.mu.Unlock()
	go func() {
		defer close(p.done)
		w.cfg.Share(ctx, w.cat, "views", w.names, name, discard, p.work)
	}()
	return p
}

func (p *process) work(ctx context.Context, l catalog.Lease) error {
	w := p.w
	w.mu.Lock()
	if l.Epoch <= w.epochs[l.Name] {
		w.t.Errorf("%s begins with epoch %d of %s after %d", p.name, l.Epoch, l.Name, w.epochs[l.Name])
	}
	if other := w.owners[l.Name]; other != "" {
		w.t.Errorf("%s begins with %s while %s works", p.name, l.Name, other)
	}
	w.epochs[l.Name], w.owners[l.Name] = l.Epoch, p.name
	w.mu.Unlock()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), ownership.ErrLost) {
		time.Sleep(w.handover)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.owners, l.Name)
	return ctx.Err()
}

// shares returns how many names each process works on, as "a:2 b:1".
func (w *world) shares() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := map[string]int{}
	for _, owner := range w.owners {
		n[owner]++
	}
	var parts []string
	for _, owner := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%s:%d", owner, n[owner]))
	}
	return strings.Join(parts, " ")
}

// sorted is shares without the names: which process gets the odd one is nobody's promise.
func (w *world) sorted() string {
	var counts []string
	for part := range strings.FieldsSeq(w.shares()) {
		_, count, _ := strings.Cut(part, ":")
		counts = append(counts, count)
	}
	slices.Sort(counts)
	return strings.Join(counts, " ")
}

// want waits at most so many polls until the shares are as wanted.
func (w *world) want(polls int, shares string) {
	w.t.Helper()
	for range polls * 10 {
		if w.sorted() == shares {
			return
		}
		time.Sleep(w.cfg.Poll / 10)
	}
	w.t.Errorf("after %d polls the shares are %s, want %s", polls, w.shares(), shares)
}

func TestMembersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 8)
		defer w.end()
		w.handover = 50 * time.Millisecond
		a := w.start("a")
		w.want(1, "8")
		b := w.start("b")
		w.want(4, "4 4")
		c := w.start("c")
		w.want(4, "2 3 3")
		d := w.start("d")
		w.want(4, "2 2 2 2")
		before := maps.Clone(w.epochs)
		time.Sleep(time.Minute)
		if !maps.Equal(before, w.epochs) {
			t.Errorf("leases change hands though nobody comes or goes: %v, %v", before, w.epochs)
		}
		b.stop()
		w.want(3, "2 3 3")
		c.stop()
		d.stop()
		w.want(3, "8")
		a.stop()
		for _, p := range []*process{a, b, c, d} {
			<-p.done
		}
		l.mu.Lock() // keepers may still be looking
		defer l.mu.Unlock()
		for name, h := range l.rows {
			if h.Owner != "" {
				t.Errorf("%s is held by %s after the end", name, h.Owner)
			}
		}
	})
}

func TestFewerNamesThanMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, newLeases(), 1)
		defer w.end()
		var all []*process
		for i := range 5 {
			all = append(all, w.start(fmt.Sprint("p", i)))
		}
		w.want(4, "1")
		for len(all) > 0 { // whoever has it ends; another takes it
			i := slices.IndexFunc(all, func(p *process) bool { return strings.HasPrefix(w.shares(), p.name+":") })
			if i < 0 {
				t.Fatalf("owner %q is none of the living", w.shares())
			}
			all[i].stop()
			<-all[i].done
			all = slices.Delete(all, i, i+1)
			if len(all) > 0 {
				w.want(2, "1")
			}
		}
	})
}

// A process that is killed renews nothing: here one whose catalog goes away for itself alone.
func TestKilledMemberIsReplacedWithinTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 4)
		defer w.end()
		w.start("a")
		w.want(1, "4")
		cut := &cutOff{leases: l}
		own := newWorld(t, cut, 4)
		defer own.end()
		own.start("b")
		own.want(6, "2")
		w.want(1, "2")
		cut.set(true)
		begun := time.Now()
		for w.sorted() != "4" {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begun); took > w.cfg.Expiry+2*w.cfg.Poll {
			t.Errorf("the part of the dead member is taken after %s", took)
		}
		if own.sorted() != "" {
			t.Errorf("the member without a catalog still works: %s", own.shares())
		}
		cut.set(false)
		w.want(8, "2")
		own.want(8, "2")
	})
}

// cutOff is one process's way to the leases.
type cutOff struct {
	*leases
	mu  sync.Mutex
	cut bool
}

func (c *cutOff) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

func (c *cutOff) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return errAway
	}
	return nil
}

func (c *cutOff) AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error) {
	if err := c.err(); err != nil {
		return catalog.Lease{}, err
	}
	return c.leases.AcquireLease(ctx, name, owner, ttl)
}

func (c *cutOff) ReleaseLease(ctx context.Context, l catalog.Lease) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.leases.ReleaseLease(ctx, l)
}

// KeepLeases hangs while the way is cut, as a network that drops packets does.
func (c *cutOff) KeepLeases(ctx context.Context, held []catalog.Lease, ttl time.Duration) ([]catalog.Lease, int64, error) {
	if c.err() != nil {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return c.leases.KeepLeases(ctx, held, ttl)
}

func TestCatalogAwayForHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 6)
		defer w.end()
		w.start("a")
		w.start("b")
		w.start("c")
		w.want(5, "2 2 2")
		before := w.shares()
		l.setFail(errAway)
		time.Sleep(30 * time.Second)
		if w.sorted() != "" {
			t.Errorf("%s still works without a lease", w.shares())
		}
		l.setFail(nil)
		w.want(3, "2 2 2")
		if w.shares() != before {
			t.Errorf("shares %s, before %s", w.shares(), before)
		}
	})
}

func TestOneFailedRenewalDoesNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 2)
		defer w.end()
		w.start("a")
		w.want(1, "2")
		l.setFail(errAway)
		time.Sleep(1500 * time.Millisecond)
		l.setFail(nil)
		time.Sleep(time.Minute)
		if w.epochs["views/0"] != 1 || w.epochs["views/1"] != 1 {
			t.Errorf("leases were given up: %v", w.epochs)
		}
	})
}

// When the catalog is away the owner stops before anybody else can hold the lease.
func TestUnrenewedLeaseIsGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		ctx, cancel := context.WithCancel(t.Context())
		ownership.DefaultConfig().Share(ctx, l, "r", []string{"x"}, "a", discard, func(workCtx context.Context, _ catalog.Lease) error {
			time.Sleep(10 * time.Second)
			expires := l.row("x").Expires
			l.setFail(errAway)
			<-workCtx.Done()
			if !errors.Is(context.Cause(workCtx), ownership.ErrLost) || l.now() > expires {
				t.Errorf("%v, %s after expiry", context.Cause(workCtx), time.Duration(l.now()-expires))
			}
			cancel()
			return nil
		})
	})
}

func TestStolenLeaseCancelsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		ctx, cancel := context.WithCancel(t.Context())
		var epochs []int64
		ownership.DefaultConfig().Share(ctx, l, "r", []string{"x"}, "a", discard, func(ctx context.Context, lease catalog.Lease) error {
			epochs = append(epochs, lease.Epoch)
			if len(epochs) == 1 {
				l.steal("x")
				begun := time.Now()
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), ownership.ErrLost) || time.Since(begun) > time.Second {
					t.Errorf("%v after %s", context.Cause(ctx), time.Since(begun))
				}
				return ctx.Err()
			}
			cancel() // taken back when the thief's lease expired
			return nil
		})
		if len(epochs) != 2 || epochs[1] != 3 {
			t.Fatalf("epochs %v", epochs)
		}
	})
}

func TestFailedWorkStartsOverWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begun := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		ownership.DefaultConfig().Share(ctx, newLeases(), "r", []string{"x"}, "a", discard, func(context.Context, catalog.Lease) error {
			if at = append(at, time.Since(begun)); len(at) == 4 {
				cancel()
			}
			return errors.New("no luck")
		})
		if len(at) != 4 || at[3] < 700*time.Millisecond || at[3] > time.Second {
			t.Fatalf("tries at %v", at)
		}
	})
}

// A process whose work always fails does not keep the name from one that can do it.
func TestFailingMemberStepsAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 1)
		defer w.end()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.cfg.Share(ctx, l, "views", w.names, "broken", discard, func(_ context.Context, lease catalog.Lease) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.epochs[lease.Name] = lease.Epoch
			return errors.New("no disk")
		})
		time.Sleep(time.Second)
		w.start("good")
		w.want(20, "1")
		time.Sleep(time.Minute)
		w.want(1, "1")
	})
}

// The new life of a process that was killed takes its leases back at once, and gives back what is not its share any more.
func TestRestartUnderTheOldName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		for _, name := range []string{"views/0", "views/1", "views/2", "views/3", "member/views/a"} {
			if _, err := l.AcquireLease(t.Context(), name, "a", time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		w := newWorld(t, l, 4)
		defer w.end()
		w.start("b")
		time.Sleep(time.Second)
		if w.sorted() != "" {
			t.Fatalf("%s works under leases of another", w.shares())
		}
		w.start("a")
		w.want(3, "2 2")
	})
}

func TestSlowEndKeepsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 2)
		defer w.end()
		w.handover = 8 * time.Second // longer than a lease lives; w sees if another begins too early
		a := w.start("a")
		w.want(1, "2")
		w.start("b")
		time.Sleep(10 * time.Second)
		w.want(2, "1 1")
		a.stop()
		time.Sleep(9 * time.Second)
		w.want(1, "2")
	})
}

func TestRowsOfDeadMembersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		w := newWorld(t, l, 1)
		defer w.end()
		w.start("stays")
		for i := range 20 { // each life has a new name, and every second one is killed
			p := w.start(fmt.Sprint("container", i))
			time.Sleep(time.Second)
			p.stop()
			<-p.done
			if _, err := l.AcquireLease(t.Context(), fmt.Sprint("member/views/killed", i), "x", time.Second); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		if n := l.members(); n != 1 {
			t.Errorf("%d rows of members", n)
		}
	})
}

// All that a process shares is served by one look at the leases.
func TestOneLookForAllRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		k := ownership.NewKeeper(ownership.DefaultConfig(), l, "me", discard)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, role := range []string{"archive", "views", "merge"} {
			wg.Go(func() {
				k.Share(ctx, role, []string{role + "/0", role + "/1"}, func(ctx context.Context, _ catalog.Lease) error {
					<-ctx.Done()
					return nil
				})
			})
		}
		time.Sleep(time.Second)
		before := l.looked()
		time.Sleep(30 * time.Second)
		if n := l.looked() - before; n < 90 || n > 112 {
			t.Errorf("%d looks in 30 s", n)
		}
		s := k.Status()
		if len(s.Held) != 6 || s.Members["views"] != 1 || s.Owner != "me" || s.Looked.IsZero() {
			t.Errorf("status %+v", s)
		}
		cancel()
		wg.Wait()
		if s := k.Status(); len(s.Held) != 0 {
			t.Errorf("held after the end: %+v", s.Held)
		}
	})
}

// Over a real catalog: many short-lived members, never two at once.
func TestOneOwnerAtATime(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.sqlite"), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w := newWorld(t, db, 3)
	w.cfg.Poll = 5 * time.Millisecond
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 4 {
				p := w.start(fmt.Sprintf("p%d.%d", i, n))
				deadline := time.Now().Add(10 * time.Second)
				for !strings.Contains(w.shares(), p.name) && time.Now().Before(deadline) && n+1 < 4-i {
					time.Sleep(time.Millisecond)
				}
				p.stop()
				<-p.done
			}
		})
	}
	wg.Wait()
	if w.shares() != "" {
		t.Errorf("%s works after the end", w.shares())
	}
}
