package materializers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Materializers owns eager shards, works off their backlog and merges files.
type Materializers struct {
	cfg     Config
	bus     Bus
	catalog Catalog
	objects Objects
	packs   bus.PackSource
	owner   string
	views   []View
	log     *slog.Logger
	nudge   chan struct{} // to the merger
	work    chan struct{} // to the workers on the backlog
	stats   counters

	priority priority

	// hook is called between any two steps of a commit or merge, with the name of the place; an error is a crash there.
	hook   func(at string) error
	keeper *ownership.Keeper
	// ownership has the keeper's times, by which claims of backlog live too.
	ownership ownership.Config
}

// New returns materializers that build views. The owner's name must be that of one process at a time.
func New(cfg Config, b Bus, cat catalog.Catalog, l *lake.Lake, owner string, views []View, log *slog.Logger) (*Materializers, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(views) == 0 {
		return nil, errors.New("materializers: no views")
	}
	m := &Materializers{
		cfg: cfg, bus: b, catalog: cat, objects: l, packs: &lake.Packs{Lake: l, Catalog: cat}, owner: owner, views: views, log: log,
		nudge: make(chan struct{}, 1), work: make(chan struct{}, cfg.BacklogWorkers),
	}
	m.keep(cfg.Keeper)
	return m, nil
}

// keep sets who holds the leases.
func (m *Materializers) keep(k *ownership.Keeper) {
	if k == nil {
		k = ownership.NewKeeper(ownership.DefaultConfig(), m.catalog, m.owner, m.log)
	}
	m.keeper, m.ownership = k, k.Config()
}

// Roles of materializers.
const (
	RoleViews = "views" // shares the eager shards
	RoleMerge = "merge" // has one lease, for one merger of all views
)

// Run owns this process's share of the eager shards, works off backlog of any shard, and merges files when that falls to this
// process, until ctx ends. What is not committed then is dropped: the bus still has it. Trouble of bus, lake and catalog
// does not end it.
func (m *Materializers) Run(ctx context.Context) error {
	shards := map[string]bus.Shard{}
	for _, shard := range m.bus.Shards() {
		if shard.Class == bus.Eager {
			shards[leaseName(shard)] = shard
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		m.keeper.Share(ctx, RoleViews, slices.Collect(maps.Keys(shards)), func(ctx context.Context, lease catalog.Lease) error {
			return m.run(ctx, shards[lease.Name], lease)
		})
		return nil
	})
	g.Go(func() error {
		m.keeper.Share(ctx, RoleMerge, []string{mergeLease}, m.merge)
		return nil
	})
	for n := range m.cfg.BacklogWorkers {
		g.Go(func() error { return m.workBacklog(ctx, fmt.Sprintf("%s/%d", m.owner, n)) })
	}
	return g.Wait()
}

// mergeLease is the lease of the merger.
const mergeLease = "views/merge"

func leaseName(s bus.Shard) string { return fmt.Sprintf("views/%d", s.Shard) }

// Stats returns what this process does.
func (m *Materializers) Stats() Stats { return m.stats.snapshot() }

// step marks a place between two steps.
func (m *Materializers) step(at string) error {
	if m.hook == nil {
		return nil
	}
	return m.hook(at)
}

// nudgeMerger tells the merger that there are new files.
func (m *Materializers) nudgeMerger() {
	select {
	case m.nudge <- struct{}{}:
	default:
	}
}
