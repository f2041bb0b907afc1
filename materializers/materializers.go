package materializers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

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
	hook func(at string) error
	// ownership is how leases are kept.
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
	return &Materializers{
		cfg: cfg, bus: b, catalog: cat, objects: l, packs: &lake.Packs{Lake: l, Catalog: cat}, owner: owner, views: views, log: log,
		nudge: make(chan struct{}, 1), work: make(chan struct{}, cfg.BacklogWorkers), ownership: ownership.DefaultConfig(),
	}, nil
}

// Run owns every eager shard that it can lease, works off backlog of any shard, and merges files, until ctx ends. What is not committed then is dropped: the bus
// still has it.
func (m *Materializers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, shard := range m.bus.Shards() {
		if shard.Class != bus.Eager {
			continue
		}
		g.Go(func() error {
			return m.ownership.Run(ctx, m.catalog, leaseName(shard), m.owner, m.log, func(ctx context.Context, lease catalog.Lease) error {
				err := m.run(ctx, shard, lease)
				if ctx.Err() != nil && !errors.Is(context.Cause(ctx), ownership.ErrLost) {
					return nil
				}
				return err
			})
		})
	}
	g.Go(func() error {
		return m.ownership.Run(ctx, m.catalog, mergeLease, m.owner, m.log, m.merge)
	})
	for n := range m.cfg.BacklogWorkers {
		g.Go(func() error { return m.workBacklog(ctx, fmt.Sprintf("%s/%d", m.owner, n)) })
	}
	return g.Wait()
}

// mergeLease is the lease of the merger, of which there is one for all views.
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
