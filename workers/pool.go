package workers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
)

// Catalog is what the pool needs of the catalog.
type Catalog interface {
	ownership.Leases
	Checkpoint(ctx context.Context, consumer string, s catalog.ShardID) (catalog.Checkpoint, error)
	CommitView(ctx context.Context, c *catalog.ViewCommit) (int64, error)
}

// finishTimeout bounds the last commit of an owner, after its context is done.
const finishTimeout = 2 * time.Second

// validName is what Consumer.Name may be: it is part of lease names and checkpoints.
var validName = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// Pool runs consumers.
type Pool struct {
	cfg   Config
	bus   *bus.Bus
	cat   Catalog
	packs bus.PackSource
	subs  []Subscription
	log   *slog.Logger

	keeper   *ownership.Keeper
	handlers chan struct{} // one token per running Handle

	mu    sync.Mutex
	stats map[statsKey]*counters
}

type statsKey struct {
	consumer string
	shard    bus.Shard
}

// counters belong to one (consumer, shard) in this process.
type counters struct {
	owned                          atomic.Bool
	gen                            atomic.Int32
	seq, committed                 atomic.Uint64
	handled, failed, dead, skipped atomic.Int64
}

// Stats is how one consumer stands on one shard, as far as this process knows.
type Stats struct {
	Consumer  string
	Shard     bus.Shard
	Owned     bool // by this process, now
	Gen       int32
	Seq       uint64 // handled up to here
	Committed uint64 // durable up to here
	Handled   int64  // records
	Failed    int64  // calls of Handle that failed
	Dead      int64  // records that became dead letters
	Skipped   int64  // records whose bytes are damaged
}

// New returns a Pool, to be started with Run. owner names this process among all that share the catalog; it should be
// the same after a restart. packs is where frames come from that the bus does not hold any more.
func New(cfg Config, b *bus.Bus, cat Catalog, packs bus.PackSource, owner string, subs []Subscription, log *slog.Logger) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, s := range subs {
		name := s.Consumer.Name()
		if !validName.MatchString(name) {
			return nil, fmt.Errorf("workers: consumer name %q is not 1 to 64 of a-z, 0-9, '-', '_'", name)
		}
		if seen[name] {
			return nil, fmt.Errorf("workers: two consumers are called %q", name)
		}
		seen[name] = true
	}
	return &Pool{
		cfg: cfg, bus: b, cat: cat, packs: packs, subs: subs, log: log,
		keeper: ownership.NewKeeper(cfg.Ownership, cat, owner, log), handlers: make(chan struct{}, cfg.MaxHandlers), stats: map[statsKey]*counters{},
	}, nil
}

// Run works until ctx is done: running Handle calls may then finish within Config.Grace, positions are committed and
// leases released.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, sub := range p.subs {
		wg.Go(func() { p.share(ctx, sub) })
	}
	wg.Wait()
	return nil
}

// share runs one consumer on this process's share of its shards.
func (p *Pool) share(ctx context.Context, sub Subscription) {
	name := sub.Consumer.Name()
	shards := map[string]bus.Shard{}
	for _, shard := range p.bus.Shards() {
		if len(sub.Classes) == 0 || slices.Contains(sub.Classes, shard.Class) {
			shards[fmt.Sprintf("consumer/%s/%s", name, shard)] = shard
			p.counters(name, shard)
		}
	}
	p.keeper.Share(ctx, "consumer."+name, slices.Collect(maps.Keys(shards)), func(ctx context.Context, l catalog.Lease) error {
		return p.own(ctx, sub, shards[l.Name], l)
	})
}

// own runs one consumer on one shard while this process holds the lease.
func (p *Pool) own(ctx context.Context, sub Subscription, shard bus.Shard, l catalog.Lease) error {
	name := sub.Consumer.Name()
	c := p.counters(name, shard)
	c.owned.Store(true)
	defer c.owned.Store(false)
	r := &runner{
		pool: p, sub: sub, shard: shard, epoch: l.Epoch, counters: c,
		consumer: checkpointName(name), log: p.log.With("consumer", name, "shard", shard.String()),
	}
	return r.run(ctx)
}

// checkpointName keeps consumers' checkpoints apart from the stages' own.
func checkpointName(consumer string) string { return "consumer/" + consumer }

func (p *Pool) counters(consumer string, shard bus.Shard) *counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := statsKey{consumer, shard}
	if p.stats[key] == nil {
		p.stats[key] = &counters{}
	}
	return p.stats[key]
}

// Stats returns how every consumer stands on every shard it reads.
func (p *Pool) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Stats
	for _, sub := range p.subs {
		for _, shard := range p.bus.Shards() {
			c := p.stats[statsKey{sub.Consumer.Name(), shard}]
			if c == nil {
				continue
			}
			all = append(all, Stats{
				Consumer: sub.Consumer.Name(), Shard: shard, Owned: c.owned.Load(),
				Gen: c.gen.Load(), Seq: c.seq.Load(), Committed: c.committed.Load(),
				Handled: c.handled.Load(), Failed: c.failed.Load(), Dead: c.dead.Load(), Skipped: c.skipped.Load(),
			})
		}
	}
	return all
}

// runner is one consumer on one shard, while this process owns it. It is used by one goroutine.
type runner struct {
	pool     *Pool
	sub      Subscription
	shard    bus.Shard
	epoch    int64
	counters *counters
	consumer string // as its checkpoints are called
	log      *slog.Logger

	gen       int32
	done      uint64 // handled up to here
	committed uint64 // durable up to here
	nextTry   time.Time
}

// run handles the shard's generations one after another, until ctx is done.
func (r *runner) run(ctx context.Context) error {
	for gen := int32(-1); ; {
		next, ok := r.generationAfter(gen)
		if !ok {
			return fmt.Errorf("generation %d has ended, and the bus has opened none after it", gen)
		}
		gen = next.Gen
		switch err := r.generation(ctx, next); {
		case errors.Is(err, io.EOF):
			r.log.Info("generation finished", "generation", gen, "seq", r.done)
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("generation %d: %w", gen, err)
		}
	}
}

func (r *runner) generationAfter(gen int32) (bus.Generation, bool) {
	for _, g := range r.pool.bus.Generations(r.shard) {
		if g.Gen > gen {
			return g, true
		}
	}
	return bus.Generation{}, false
}

// generation handles one generation's frames from the checkpoint on. io.EOF: it is closed, and all is handled.
func (r *runner) generation(ctx context.Context, g bus.Generation) error {
	checkpoint, err := r.pool.cat.Checkpoint(ctx, r.consumer, r.shardID(g.Gen))
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	r.gen = g.Gen
	r.progress(checkpoint.Seq, checkpoint.Seq)
	reader, err := r.pool.bus.NewReader(ctx, bus.Position{Shard: r.shard, Gen: g.Gen, Seq: checkpoint.Seq}, r.pool.packs)
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }() // it holds nothing that could be lost
	err = r.follow(ctx, reader)
	if errors.Is(context.Cause(ctx), ownership.ErrLost) {
		return err
	}
	if commitErr := r.finish(ctx); commitErr != nil {
		return errors.Join(err, commitErr)
	}
	return err
}

// follow handles frames until the reader or ctx ends, and commits now and then.
func (r *runner) follow(ctx context.Context, reader *bus.Reader) error {
	for {
		frame, err := r.next(ctx, reader)
		switch {
		case errors.Is(err, errCommitDue):
		case err != nil:
			return err
		default:
			if err := r.frame(ctx, frame); err != nil {
				return err
			}
			r.progress(frame.Seq, r.committed)
		}
		if r.done > r.committed && !time.Now().Before(r.nextTry) {
			if err := r.commit(ctx); err != nil {
				return err
			}
		}
	}
}

// errCommitDue says that no frame came before the next commit is due.
var errCommitDue = errors.New("commit is due")

// next waits for a frame; no longer than until the next commit when there is something to commit.
func (r *runner) next(ctx context.Context, reader *bus.Reader) (bus.Frame, error) {
	if r.done == r.committed {
		frame, err := reader.Next(ctx)
		r.nextTry = time.Now().Add(r.pool.cfg.CommitInterval)
		return frame, err
	}
	limited, cancel := context.WithDeadlineCause(ctx, r.nextTry, errCommitDue)
	defer cancel()
	frame, err := reader.Next(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return frame, errCommitDue
	}
	return frame, err
}

func (r *runner) progress(done, committed uint64) {
	r.done, r.committed = done, committed
	r.counters.gen.Store(r.gen)
	r.counters.seq.Store(done)
	r.counters.committed.Store(committed)
}

func (r *runner) shardID(gen int32) catalog.ShardID {
	return catalog.ShardID{Class: byte(r.shard.Class), Gen: gen, Shard: r.shard.Shard}
}

// finish commits as much as possible before the lease is given back: it asks the archive to pass what was handled.
func (r *runner) finish(ctx context.Context) error {
	if r.done == r.committed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	// Whatever comes of it: what is not committed is handled again.
	_, err := r.pool.bus.Flush(ctx, r.shard, bus.FlushRequest{Target: bus.TargetArchive, Gen: r.gen, UpTo: r.done})
	r.log.Debug("archive asked to pass what was handled", "seq", r.done, "error", err)
	return r.commit(ctx)
}

// commit makes the position durable: what was handled, as far as the archive has passed it, since a position above the
// archive could not be read again if the bus were lost.
func (r *runner) commit(ctx context.Context) error {
	r.nextTry = time.Now().Add(r.pool.cfg.CommitInterval)
	archived, err := r.pool.cat.Checkpoint(ctx, catalog.ConsumerArchive, r.shardID(r.gen))
	if err != nil {
		r.commitLater(ctx, err)
		return nil
	}
	to := min(r.done, archived.Seq)
	if to <= r.committed {
		return nil
	}
	_, err = r.pool.cat.CommitView(ctx, &catalog.ViewCommit{
		Consumer: r.consumer,
		Moves:    []catalog.Move{{Shard: r.shardID(r.gen), From: r.committed, To: to, Epoch: r.epoch}},
	})
	if errors.Is(err, catalog.ErrOutcomeUnknown) {
		return r.settle(ctx, to)
	}
	if errors.Is(err, catalog.ErrConflict) {
		return fmt.Errorf("commit %d..%d: another owner is at work: %w", r.committed, to, err)
	}
	if err != nil {
		r.commitLater(ctx, err)
		return nil
	}
	r.progress(r.done, to)
	return nil
}

// settle finds out whether a commit of to took place.
func (r *runner) settle(ctx context.Context, to uint64) error {
	now, err := r.pool.cat.Checkpoint(ctx, r.consumer, r.shardID(r.gen))
	switch {
	case err != nil:
		r.commitLater(ctx, err)
	case now.Seq == to && now.Epoch == r.epoch:
		r.progress(r.done, to)
	case now.Seq != r.committed:
		return fmt.Errorf("checkpoint is %d, not %d or %d: %w", now.Seq, r.committed, to, catalog.ErrConflict)
	}
	return nil
}

// commitLater lets work go on without a commit: the catalog is away, and the next commit covers this one.
func (r *runner) commitLater(ctx context.Context, err error) {
	if ctx.Err() == nil {
		r.log.Warn("position not committed", "seq", r.done, "committed", r.committed, "error", err)
	}
}
