package ownership

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	// memberPrefix begins the names of the leases by which processes announce themselves.
	memberPrefix = "member/"
	// forgetAfter is how long the row of a member that is gone stays. Each container that ever ran left one.
	forgetAfter = time.Minute
	// forgetEvery is the least pause between two removals of such rows.
	forgetEvery = 30 * time.Second
)

// Keeper holds the leases of one process: one look at the catalog serves everything that the process shares. It is safe
// for concurrent use.
type Keeper struct {
	cfg   Config
	cat   Leases
	owner string
	log   *slog.Logger

	wake  chan struct{} // holds one token: look at the leases now
	looks sync.Mutex    // held during a look: what it has acquired is in its group, or given back, when it ends

	mu      sync.Mutex
	groups  []*group // what is shared now
	looping bool     // a goroutine looks at the leases
	status  Status

	// Of the looping goroutine.
	failing   bool // the last look failed
	forgotten time.Time
}

// NewKeeper returns a keeper that holds leases as owner, which must be the name of one living process. It should be the
// same after a restart: a process that comes back takes its old leases at once.
func NewKeeper(cfg Config, cat Leases, owner string, log *slog.Logger) *Keeper {
	return &Keeper{cfg: cfg, cat: cat, owner: owner, log: log, wake: make(chan struct{}, 1)}
}

// Owner is the name under which leases are held.
func (k *Keeper) Owner() string { return k.owner }

// Config has the times by which leases are held.
func (k *Keeper) Config() Config { return k.cfg }

// Share makes this process a member of a role until ctx ends, and calls work for each of names that falls to it, at the
// same time. It returns when no work runs any more and the leases are released. All members of a role must have the same
// names.
func (k *Keeper) Share(ctx context.Context, role string, names []string, work Work) {
	g := newGroup(ctx, k, role, names, work)
	k.join(g)
	<-ctx.Done()
	k.leave(g)
}

// join begins to share.
func (k *Keeper) join(g *group) {
	k.mu.Lock()
	k.groups = append(k.groups, g)
	start := !k.looping
	k.looping = true
	k.mu.Unlock()
	if start {
		go k.loop()
	}
	k.look()
}

// leave withdraws the membership, so that others need not wait for the work to end before they take their part, and then
// waits for the work.
func (k *Keeper) leave(g *group) {
	k.mu.Lock()
	g.leaving = true
	member := g.member
	g.member = nil
	k.mu.Unlock()
	if member != nil {
		k.release(member.lease)
	}
	k.lookEnds()
	g.works.Wait()
	k.mu.Lock()
	k.groups = slices.DeleteFunc(k.groups, func(o *group) bool { return o == g })
	k.mu.Unlock()
	k.look()
}

// look has the looping goroutine look at the leases soon.
func (k *Keeper) look() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// lookEnds waits for a look under way, which may be acquiring a lease.
func (k *Keeper) lookEnds() {
	k.looks.Lock()
	defer k.looks.Unlock()
}

// loop looks at the leases until nothing is shared any more.
func (k *Keeper) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.wake:
		case <-timer.C:
		}
		k.mu.Lock()
		groups := slices.Clone(k.groups)
		if len(groups) == 0 {
			k.looping = false
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		k.round(groups)
		timer.Reset(k.pause(groups))
	}
}

// pause is the time until the next look: Poll, or less when work is to be tried again.
func (k *Keeper) pause(groups []*group) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.cfg.Poll - k.cfg.Poll/10 + rand.N(k.cfg.Poll/5+1) // processes spread out
	for _, g := range groups {
		for name, r := range g.retries {
			if left := time.Until(r.at); left > 0 && g.tenures[name] == nil {
				d = min(d, left)
			}
		}
	}
	return d
}

// call returns a context for one call to the catalog. It does not end with the process's work: leases are kept until it
// has ended.
func (k *Keeper) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), k.cfg.callTimeout())
}

// round announces, renews, and brings each group to its share.
func (k *Keeper) round(groups []*group) {
	k.looks.Lock()
	defer k.looks.Unlock()
	for _, g := range groups {
		if err := g.announce(); err != nil {
			k.away(err)
			return
		}
	}
	rows, now, err := k.keep(groups)
	if err != nil {
		k.away(err)
		return
	}
	// After a failure the others may not have renewed yet either: what they held is theirs for one more look.
	cautious := k.failing
	if k.failing {
		k.log.Info("leases are read again")
		k.failing = false
	}
	members := map[string]int{}
	for _, g := range groups {
		living := g.living(rows, now)
		members[g.role] = len(living)
		if err := g.balance(rows, now, living, cautious); err != nil {
			k.away(err)
			return
		}
	}
	k.mu.Lock()
	k.status.Members = members
	k.mu.Unlock()
	k.forget(rows, now)
}

// away notes that the catalog does not answer.
func (k *Keeper) away(err error) {
	if !k.failing {
		k.log.Warn("leases cannot be kept, the catalog is asked again", "owner", k.owner, "err", err)
	}
	k.failing = true
}

// keep reads all leases, renews this process's when that is due, and ends the work of those that it lost.
func (k *Keeper) keep(groups []*group) (rows map[string]catalog.Lease, now int64, err error) {
	begun := time.Now()
	held := k.held(groups)
	var renew []catalog.Lease
	for _, t := range held {
		if begun.Sub(t.good) >= k.cfg.Heartbeat-k.cfg.Poll/2 {
			renew = leasesOf(held)
			break
		}
	}
	ctx, cancel := k.call()
	defer cancel()
	all, now, err := k.cat.KeepLeases(ctx, renew, k.cfg.Expiry)
	if err != nil {
		return nil, 0, err
	}
	rows = make(map[string]catalog.Lease, len(all))
	for _, l := range all {
		rows[l.Name] = l
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Looked, k.status.Latency = time.Now(), time.Since(begun)
	for _, t := range held {
		row := rows[t.lease.Name]
		switch {
		case row.Owner != k.owner || row.Epoch != t.lease.Epoch:
			t.lose(row)
		case renew != nil:
			t.renewed(begun)
		}
	}
	return rows, now, nil
}

// held lists what is to be renewed: the memberships, and the leases of work that runs or ends in order.
func (k *Keeper) held(groups []*group) []*tenure {
	k.mu.Lock()
	defer k.mu.Unlock()
	var held []*tenure
	for _, g := range groups {
		if g.member != nil {
			held = append(held, g.member)
		}
		for _, t := range g.tenures {
			if !t.over {
				held = append(held, t)
			}
		}
	}
	return held
}

func leasesOf(held []*tenure) []catalog.Lease {
	leases := make([]catalog.Lease, len(held))
	for i, t := range held {
		leases[i] = t.lease
	}
	return leases
}

// release gives a lease back; a failure only means that it expires.
func (k *Keeper) release(l catalog.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), k.cfg.ReleaseTimeout)
	defer cancel()
	if err := k.cat.ReleaseLease(ctx, l); err != nil && !errors.Is(err, catalog.ErrLeaseLost) {
		k.log.Warn("lease not released; it expires", "lease", l.Name, "err", err)
	}
}

// forget removes the rows of members that are gone for long. Whichever process sees them does it.
func (k *Keeper) forget(rows map[string]catalog.Lease, now int64) {
	before := now - int64(forgetAfter)
	dead := 0
	for name, l := range rows {
		if strings.HasPrefix(name, memberPrefix) && l.Expires < before {
			dead++
		}
	}
	if dead == 0 || time.Since(k.forgotten) < forgetEvery {
		return
	}
	k.forgotten = time.Now()
	ctx, cancel := k.call()
	defer cancel()
	if err := k.cat.ForgetLeases(ctx, memberPrefix, before); err != nil {
		k.log.Warn("rows of members that are gone stay for now", "rows", dead, "err", err)
	}
}

// Status says what a keeper holds, and how the catalog answers it.
type Status struct {
	Owner   string
	Held    map[string]int64 // epoch by name of lease, of work that runs
	Members map[string]int   // living processes by role, as of Looked
	Looked  time.Time        // when the catalog answered last
	Latency time.Duration    // of that answer
}

// Status returns the state of this moment.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.status
	s.Owner, s.Members, s.Held = k.owner, maps.Clone(s.Members), map[string]int64{}
	for _, g := range k.groups {
		for name, t := range g.tenures {
			s.Held[name] = t.lease.Epoch
		}
	}
	return s
}
