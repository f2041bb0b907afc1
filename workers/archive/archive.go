// Package archive makes what is on the bus part of the lake: it copies frames verbatim into packs, and writes the
// catalog's rows about them: registrations, blocks, and which copies do not count.
// Reads frames of both classes; writes packs, and processes, streams, layouts, packs, blocks and skips in the catalog.
//
// Each (class, shard) has one owner, by lease. From its checkpoint A it works in steps: read the frames A+1..A', write them
// as a pack, then commit in one transaction the checkpoint A→A' with all rows, then let the bus drop what may go. The
// invariants:
//
//   - The pack is durable before the row that names it. A crash between the two leaves an orphan and the checkpoint where
//     it was, and the next owner does the same frames again.
//   - A frame is trimmed from the bus only when a committed pack holds it.
//   - Of all copies of a block one counts: the first in this shard's order, unless another shard archived one before.
//     Every other copy, and every record that cannot be read, has a skip in the catalog.
//   - An owner whose lease passed to another loses at the compare-and-swap of the checkpoint, whatever it still believes.
//
// Know first: whether a block is archived already is not asked beforehand. The insert itself finds out: when the catalog
// answers ErrDuplicateBlocks the owner asks which ones exist, puts skips in their place and commits again. Copies are
// rare, so this saves a look-up for each block; the pack, which holds all copies, stays the same. Of blocks so old that
// their rows may be frozen the catalog alone does not know: it answers ErrFrozen, and the owner looks into the frozen files.
package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
)

// Config bounds the work of an archive.
type Config struct {
	// PackBytes ends a batch: at so many bytes of frames it becomes a pack. A batch exceeds it by less than a frame.
	PackBytes int
	// PackAge is how long the first frame of a batch waits for more, when at least LazyBytes are there.
	PackAge time.Duration
	// LazyAge is how long the first frame of a smaller batch waits. The bus holds the frames durably meanwhile, and a flush
	// does not wait; so an idle house does not fill its lake with tiny packs.
	LazyAge   time.Duration
	LazyBytes int
	// Grace is how long a commit under way may take after the end of Run's context.
	Grace time.Duration
	// RetryMin and RetryMax bound the pause after the lake or the catalog failed; it doubles from one to the other.
	RetryMin, RetryMax time.Duration
	// MaxLayout bounds the type layouts of one stream, encoded. They live in the catalog.
	MaxLayout int
	// Ownership has the times of the leases.
	Ownership ownership.Config
	// Keeper holds the leases of all parts of this process. Nil: the archive has one of its own, under the owner's name.
	Keeper *ownership.Keeper
}

// DefaultConfig is what serve runs with.
func DefaultConfig() Config {
	return Config{
		PackBytes: 4 << 20,
		PackAge:   time.Second,
		LazyAge:   3 * time.Second,
		LazyBytes: 1 << 20,
		Grace:     5 * time.Second,
		RetryMin:  20 * time.Millisecond,
		RetryMax:  2 * time.Second,
		MaxLayout: 4 << 20,
		Ownership: ownership.DefaultConfig(),
	}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("archive: "+format, args...))
		}
	}
	check(c.PackBytes > 0 && c.PackBytes <= lake.MaxPackBytes/2, "pack bytes %d are not in 1..%d", c.PackBytes, lake.MaxPackBytes/2)
	check(c.PackAge > 0, "pack age %s is not positive", c.PackAge)
	check(c.LazyAge >= c.PackAge, "lazy age %s is below pack age %s", c.LazyAge, c.PackAge)
	check(c.LazyBytes >= 0, "lazy bytes %d are negative", c.LazyBytes)
	check(c.Grace >= 0, "grace %s is negative", c.Grace)
	check(c.RetryMin > 0 && c.RetryMax >= c.RetryMin, "retry pauses %s to %s", c.RetryMin, c.RetryMax)
	check(c.MaxLayout > 0, "max layout %d is not positive", c.MaxLayout)
	if c.Keeper == nil {
		errs = append(errs, c.Ownership.Validate())
	}
	return errors.Join(errs...)
}

// Archive owns this process's share of all (class, shard).
type Archive struct {
	cfg    Config
	bus    *bus.Bus
	cat    catalog.Catalog
	lake   *lake.Lake
	frozen *frozen.Reader
	keeper *ownership.Keeper
	log    *slog.Logger
	hook   func(step) error // tests: called at each step; its error is the step's failure

	shards []*shard
}

// New returns an Archive. owner names this process in leases; it must be no other living process's name, and should stay
// the same over restarts, so that a process that comes back need not wait for its old leases to expire.
func New(cfg Config, b *bus.Bus, cat catalog.Catalog, l *lake.Lake, owner string, log *slog.Logger) (*Archive, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if owner == "" {
		return nil, errors.New("archive: no owner name")
	}
	keeper := cfg.Keeper
	if keeper == nil {
		keeper = ownership.NewKeeper(cfg.Ownership, cat, owner, log)
	}
	a := &Archive{cfg: cfg, bus: b, cat: cat, lake: l, frozen: frozen.NewReader(l), keeper: keeper, log: log, hook: func(step) error { return nil }}
	for _, s := range b.Shards() {
		a.shards = append(a.shards, newShard(a, s))
	}
	return a, nil
}

// LeaseName is the name of the lease of a shard's archive.
func LeaseName(s bus.Shard) string { return fmt.Sprintf("archive/%s/%d", s.Class, s.Shard) }

// Role is what archives are members of.
const Role = "archive"

// Run archives this process's share of the shards until ctx is done: then it finishes the commit under way, within
// Config.Grace, and releases its leases. Trouble of bus, lake and catalog does not end it.
func (a *Archive) Run(ctx context.Context) error {
	byLease := make(map[string]*shard, len(a.shards))
	names := make([]string, len(a.shards))
	for i, s := range a.shards {
		names[i] = LeaseName(s.name)
		byLease[names[i]] = s
	}
	a.keeper.Share(ctx, Role, names, func(ctx context.Context, lease catalog.Lease) error {
		return byLease[lease.Name].own(ctx, lease)
	})
	return nil
}

// Stats says what an archive did and how far it is, for /status.
type Stats struct {
	Shards []ShardStats `json:"shards"`
}

// ShardStats are the counts of one shard since the start of the process.
type ShardStats struct {
	Shard         string `json:"shard"`
	Owned         bool   `json:"owned"`
	Epoch         int64  `json:"epoch"` // of the lease held now or last
	Gen           int32  `json:"gen"`
	Seq           uint64 `json:"seq"` // archived up to here
	ReadSeq       uint64 `json:"read_seq"`
	LagMs         int64  `json:"lag_ms"` // age of the oldest frame that is read and not archived, by the gateway's stamp
	Packs         int64  `json:"packs"`
	Bytes         int64  `json:"bytes"`
	Blocks        int64  `json:"blocks"`
	Adopted       int64  `json:"adopted"`
	Registrations int64  `json:"registrations"`
	Unindexed     int64  `json:"unindexed"` // blocks whose trace ids are damaged
	// Skips by reason.
	Duplicates int64 `json:"duplicates"`
	Unreadable int64 `json:"unreadable"`
	// Settled counts commits that were repeated because blocks were archived already, or may be in frozen files; Retries
	// counts failures of lake and catalog that were tried again; Lost counts commits that lost at the compare-and-swap.
	Settled int64 `json:"settled"`
	Retries int64 `json:"retries"`
	Lost    int64 `json:"lost"`
	// Holes counts places where frames are missing on the bus that nobody archived: data was lost.
	Holes int64 `json:"holes"`
}

// Stats returns the counts of all shards.
func (a *Archive) Stats() Stats {
	s := Stats{Shards: make([]ShardStats, 0, len(a.shards))}
	for _, sh := range a.shards {
		s.Shards = append(s.Shards, sh.snapshot())
	}
	slices.SortFunc(s.Shards, func(x, y ShardStats) int { return strings.Compare(x.Shard, y.Shard) })
	return s
}
