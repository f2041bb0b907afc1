package ownership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// group is one role of this process: the names that its members share. Its fields below works are guarded by the keeper's
// lock.
type group struct {
	k     *Keeper
	ctx   context.Context // of Share; the work's ends with it
	role  string
	names []string // in the order in which this process wants them
	work  Work
	works sync.WaitGroup // Add under the lock, and not after leaving

	leaving bool
	member  *tenure // the membership; nil while it is not announced
	tenures map[string]*tenure
	retries map[string]retry // of names whose work failed here
}

// retry says when the work of a name is tried again, and how long the pause is.
type retry struct {
	at    time.Time
	pause time.Duration
}

// tenure is a lease that this process holds.
type tenure struct {
	g      *group
	lease  catalog.Lease
	good   time.Time // the lease lives for Expiry from then on; guarded by the keeper's lock, as is over
	over   bool      // lost, or the work has ended: not to be renewed
	expiry *time.Timer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newGroup(ctx context.Context, k *Keeper, role string, names []string, work Work) *group {
	g := &group{k: k, ctx: ctx, role: role, work: work, names: slices.Clone(names), tenures: map[string]*tenure{}, retries: map[string]retry{}}
	// Each process has an order of its own, so that newcomers do not all reach for the same names.
	slices.SortFunc(g.names, func(a, b string) int { return cmp.Compare(g.hash(a), g.hash(b)) })
	return g
}

func (g *group) hash(name string) uint64 { return hash(g.k.owner, name) }

func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	// FNV's high bits, which decide an order, hardly depend on the last bytes of the text: mix them.
	sum := h.Sum64()
	sum = (sum ^ sum>>32) * 0x9e3779b97f4a7c15
	return sum ^ sum>>29
}

func (g *group) prefix() string { return memberPrefix + g.role + "/" }

// announce makes this process a member. One that holds nothing and whose work failed withdraws for the pause, so that the
// others' shares cover its part.
func (g *group) announce() error {
	g.k.mu.Lock()
	withdrawn := len(g.tenures) == 0 && g.pausing(time.Now())
	member := g.member
	if withdrawn {
		g.member = nil
	}
	skip := g.leaving || g.ctx.Err() != nil
	g.k.mu.Unlock()
	switch {
	case skip:
		return nil
	case withdrawn:
		if member != nil {
			g.k.release(member.lease)
		}
		return nil
	case member != nil:
		return nil
	}
	lease, begun, err := g.acquire(g.prefix() + g.k.owner)
	if errors.Is(err, catalog.ErrHeld) { // by a stranger: until it expires
		return nil
	}
	if err != nil {
		return fmt.Errorf("announce as %s: %w", g.role, err)
	}
	g.k.mu.Lock()
	if !g.leaving {
		g.member = &tenure{g: g, lease: lease, good: begun}
		g.k.mu.Unlock()
		return nil
	}
	g.k.mu.Unlock()
	g.k.release(lease)
	return nil
}

// pausing reports whether the work of some name has failed again and again, until a moment ago. The lock must be held.
func (g *group) pausing(now time.Time) bool {
	for _, r := range g.retries {
		if r.pause >= g.k.cfg.Poll && now.Before(r.at) {
			return true
		}
	}
	return false
}

// living returns how many of the group's names each living member holds.
func (g *group) living(rows map[string]catalog.Lease, now int64) map[string]int {
	living := map[string]int{}
	for name, l := range rows {
		if owner, ok := strings.CutPrefix(name, g.prefix()); ok && l.Owner == owner && l.Expires > now {
			living[owner] = 0
		}
	}
	for _, name := range g.names {
		l := rows[name]
		if _, ok := living[l.Owner]; ok && l.Expires > now {
			living[l.Owner]++
		}
	}
	return living
}

// share is how many of n names a member may hold: n/m, rounded up for as many as needed. Those that hold most round up, so
// that as few leases as possible change hands; living says what each holds.
func share(role string, n int, living map[string]int, member string) int {
	if _, ok := living[member]; !ok {
		return 0
	}
	order := make([]string, 0, len(living))
	for m := range living {
		order = append(order, m)
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(living[b], living[a]), cmp.Compare(hash(role, a), hash(role, b)), cmp.Compare(a, b))
	})
	s := n / len(order)
	if slices.Index(order, member) < n%len(order) {
		s++
	}
	return s
}

// balance gives back what is more than this process's share, and takes what is free up to it; when cautious only what was
// its own. It returns an error when the catalog does not answer.
func (g *group) balance(rows map[string]catalog.Lease, now int64, living map[string]int, cautious bool) error {
	wanted, unwanted := g.plan(rows, now, living, cautious)
	for _, l := range unwanted {
		g.k.release(l)
	}
	for _, name := range wanted {
		if g.full(living) {
			break
		}
		lease, begun, err := g.acquire(name)
		if errors.Is(err, catalog.ErrHeld) { // another was faster
			continue
		}
		if err != nil {
			return fmt.Errorf("acquire %s: %w", name, err)
		}
		g.begin(lease, begun)
	}
	return nil
}

// plan tells surplus work to end, and returns the names that are free, best first, and the leases that an earlier life of
// this process left and that are not its share now.
func (g *group) plan(rows map[string]catalog.Lease, now int64, living map[string]int, cautious bool) (wanted []string, unwanted []catalog.Lease) {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	if g.leaving || g.member == nil || g.ctx.Err() != nil {
		return nil, nil
	}
	own := share(g.role, len(g.names), living, g.k.owner)
	surplus := g.holding() - own
	for _, name := range slices.Backward(g.names) {
		if t := g.tenures[name]; surplus > 0 && t != nil && t.ctx.Err() == nil {
			g.k.log.Info("lease goes to another member", "lease", name, "share", own)
			t.cancel(ErrSurplus)
			surplus--
		}
	}
	var others []string
	for _, name := range g.names {
		l := rows[name]
		mine := l.Owner == g.k.owner
		switch {
		case g.tenures[name] != nil || time.Now().Before(g.retries[name].at):
		case mine && surplus < 0:
			wanted = append(wanted, name) // what it had before it was killed, or while the catalog was away
			surplus++
		case mine && l.Expires > now:
			unwanted = append(unwanted, l)
		case !mine && !cautious && (l.Owner == "" || l.Expires <= now):
			others = append(others, name)
		}
	}
	return append(wanted, others...), unwanted
}

// holding counts the names whose work goes on. The lock must be held.
func (g *group) holding() int {
	n := 0
	for _, t := range g.tenures {
		if t.ctx.Err() == nil {
			n++
		}
	}
	return n
}

// full reports whether this process has its share.
func (g *group) full(living map[string]int) bool {
	own := share(g.role, len(g.names), living, g.k.owner)
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	return g.leaving || g.holding() >= own
}

// acquire takes a lease. It lives for Expiry from begun on, by this process's own measure, at least.
func (g *group) acquire(name string) (l catalog.Lease, begun time.Time, err error) {
	ctx, cancel := g.k.call()
	defer cancel()
	begun = time.Now()
	l, err = g.k.cat.AcquireLease(ctx, name, g.k.owner, g.k.cfg.Expiry)
	return l, begun, err
}

// begin starts the work of a lease.
func (g *group) begin(lease catalog.Lease, begun time.Time) {
	t := &tenure{g: g, lease: lease, good: begun}
	t.ctx, t.cancel = context.WithCancelCause(g.ctx)
	g.k.mu.Lock()
	if g.leaving {
		g.k.mu.Unlock()
		t.cancel(nil)
		g.k.release(lease)
		return
	}
	g.tenures[lease.Name] = t
	t.expiry = time.AfterFunc(time.Until(t.end()), t.expire)
	g.works.Add(1)
	g.k.mu.Unlock()
	g.k.log.Info("lease acquired", "lease", lease.Name, "epoch", lease.Epoch)
	go t.run()
}

// end is when the lease is given up unless it is renewed before: a little earlier than the catalog may give it away.
func (t *tenure) end() time.Time {
	expiry := t.g.k.cfg.Expiry
	return t.good.Add(expiry - expiry/10)
}

// renewed notes a renewal that was asked for at a time. The lock must be held.
func (t *tenure) renewed(begun time.Time) {
	t.good = begun
	if t.expiry != nil && !t.over {
		t.expiry.Reset(time.Until(t.end()))
	}
}

// lose ends the work of a lease that is another's, as its row says. The lock must be held.
func (t *tenure) lose(row catalog.Lease) {
	if t.over {
		return
	}
	if row.Owner == t.g.k.owner {
		t.g.k.log.Error("another process works under the name of this one: give each a name of its own", "lease", t.lease.Name, "owner", row.Owner)
	}
	if t == t.g.member {
		t.g.member = nil
		return
	}
	if t.cancel == nil { // a membership that is withdrawn already
		return
	}
	t.over = true
	t.cancel(ErrLost)
}

// expire ends the work of a lease that was not renewed in time.
func (t *tenure) expire() {
	t.g.k.mu.Lock()
	defer t.g.k.mu.Unlock()
	left := time.Until(t.end())
	switch {
	case t.over:
	case left > 0: // renewed in the meantime
		t.expiry.Reset(left)
	default:
		t.over = true
		t.cancel(fmt.Errorf("%w: not renewed for %s", ErrLost, time.Since(t.good).Round(time.Millisecond)))
	}
}

// run does the work, and gives the lease back when it has ended.
func (t *tenure) run() {
	defer t.g.works.Done()
	begun := time.Now()
	err := t.g.work(t.ctx, t.lease)
	cause := context.Cause(t.ctx)
	g, k := t.g, t.g.k
	k.mu.Lock()
	lost := t.over
	t.over = true
	t.expiry.Stop()
	k.mu.Unlock()
	switch {
	case lost:
		k.log.Warn("lease lost", "lease", t.lease.Name, "epoch", t.lease.Epoch, "cause", cause)
	case cause == nil:
		k.log.Warn("work under lease ended", "lease", t.lease.Name, "epoch", t.lease.Epoch, "err", err)
	}
	if !lost {
		k.release(t.lease)
	}
	t.cancel(nil)
	k.mu.Lock()
	delete(g.tenures, t.lease.Name)
	g.noteEnd(t.lease.Name, cause, time.Since(begun))
	k.mu.Unlock()
	k.look()
}

// noteEnd sets the pause after which the work of a name is tried again, when it ended by itself. The lock must be held.
func (g *group) noteEnd(name string, cause error, took time.Duration) {
	r := g.retries[name]
	if cause != nil || took > g.k.cfg.RetryMax { // it went well for a while
		delete(g.retries, name)
	}
	if cause != nil {
		return
	}
	pause := g.k.cfg.RetryMin
	if took <= g.k.cfg.RetryMax {
		pause = max(pause, min(2*r.pause, g.k.cfg.RetryMax))
	}
	g.retries[name] = retry{at: time.Now().Add(pause), pause: pause}
}
