// Package freezer moves the rows of blocks whose day is long over from the catalog into Parquet objects of the lake, so that the
// catalog keeps a few days of rows however long it lives.
// Reads rows of blocks and frozen files; writes frozen files (package schemas/lake/frozen) and commits them to the catalog.
//
// Invariants: the objects of a freeze are durable before the commit that names them, and the commit moves exactly the rows that they
// hold. So a crash leaves rows or files, never both or neither, and at worst some orphans. A freezer that lost its lease loses at the
// compare of the version.
//
// Know first: a unit of freezing is a day of begin times. Days so old that only stray blocks still come for them, and
// days of the future, which only clocks that are wrong tell, share a unit a year, so that a client cannot make as many files as it can
// think of days. Rows that come late for a unit wait a day, or until they are many, and then take small files of their unit with
// them into a new one: a unit that blocks keep trickling into has a handful of files.
package freezer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
)

// Config says when rows are frozen, and bounds the work.
type Config struct {
	// FreezeAfter is how long a day must be over. It is above catalog.FreezeGuard by an hour at least.
	FreezeAfter time.Duration
	// Every is how often it is looked for rows to freeze, beside once at the start; RetryAfter is the pause after a failure.
	Every, RetryAfter time.Duration
	// LateRows and LateAge are how many rows that came late for a unit, or how long the first of them, make the unit be frozen again.
	LateRows int64
	LateAge  time.Duration
	// FileRows is where a file is cut; a file is in memory until it is put.
	FileRows int64
	// SweepRows is how many rows are removed from the catalog in one transaction.
	SweepRows int
	// Keeper holds this process's leases.
	Keeper *ownership.Keeper
}

// DefaultConfig is what serve runs with. The caller has to name a Keeper, unless it only calls Freeze.
func DefaultConfig() Config {
	return Config{
		FreezeAfter: 72 * time.Hour,
		Every:       time.Hour, RetryAfter: time.Minute,
		LateRows: 64 << 10, LateAge: 24 * time.Hour,
		FileRows:  frozen.FileRows,
		SweepRows: 4 << 10, // some 15 ms
	}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("freezer: "+format, args...))
		}
	}
	least := catalog.FreezeGuard + time.Hour
	check(c.FreezeAfter >= least, "freeze after %s is below %s", c.FreezeAfter, least)
	check(c.Every > 0 && c.RetryAfter > 0, "pauses %s and %s are not both positive", c.Every, c.RetryAfter)
	check(c.LateRows > 0 && c.LateAge >= 0, "late rows %d or late age %s is too small", c.LateRows, c.LateAge)
	check(c.FileRows > 0 && c.FileRows <= frozen.FileRows, "file rows %d are not in 1..%d", c.FileRows, frozen.FileRows)
	check(c.SweepRows > 0, "sweep rows %d are not positive", c.SweepRows)
	return errors.Join(errs...)
}

// Catalog is the part of the catalog that a Freezer needs.
type Catalog interface {
	Now(ctx context.Context) (int64, error)
	Frozen(ctx context.Context, begin, end int64) (catalog.Frozen, error)
	Freezable(ctx context.Context, before, after int64) (catalog.Freezable, error)
	FreezableBlocks(ctx context.Context, s catalog.FreezeSpan) iter.Seq2[catalog.BlockRow, error]
	CommitFreeze(ctx context.Context, c *catalog.FreezeCommit) (version int64, err error)
	SweepFrozen(ctx context.Context, limit int) (more bool, err error)
}

// Objects is the part of the lake that a Freezer needs.
type Objects interface {
	frozen.Objects
	// Put must be durable when it returns. It must not keep data.
	Put(ctx context.Context, key string, data []byte) error
}

// Freezer freezes days.
type Freezer struct {
	cfg     Config
	cat     Catalog
	objects Objects
	reader  *frozen.Reader
	log     *slog.Logger
	hook    func(step) error // tests: called at each step; its error is the step's failure

	mu    sync.Mutex
	stats Stats
}

// Stats says what a Freezer did since the start of the process, for /status.
type Stats struct {
	Freezes  int64 `json:"freezes"` // commits
	Rows     int64 `json:"rows"`    // moved out of the catalog
	Files    int64 `json:"files"`
	Bytes    int64 `json:"bytes"`
	Merged   int64 `json:"merged"` // files that were taken into others
	Failures int64 `json:"failures"`
}

// New returns a Freezer.
func New(cfg Config, cat Catalog, o Objects, log *slog.Logger) (*Freezer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Freezer{cfg: cfg, cat: cat, objects: o, reader: frozen.NewReader(o), log: log, hook: func(step) error { return nil }}, nil
}

// Role is what freezers are members of. It has one lease: two would only lose to each other.
const Role = "freeze"

// Run freezes whenever that falls to this process, until ctx is done. Trouble of lake and catalog does not end it.
func (f *Freezer) Run(ctx context.Context) error {
	if f.cfg.Keeper == nil {
		return errors.New("freezer: no keeper of leases")
	}
	f.cfg.Keeper.Share(ctx, Role, []string{Role}, func(ctx context.Context, _ catalog.Lease) error {
		for ctx.Err() == nil {
			pause := f.cfg.Every
			if err := f.Freeze(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("freezing days stopped early", "pause", f.cfg.RetryAfter, "err", err)
				pause = f.cfg.RetryAfter
			}
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		return nil
	})
	return nil
}

// Stats returns the counts.
func (f *Freezer) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *Freezer) count(update func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	update(&f.stats)
}

// Freeze freezes everything that is due now.
func (f *Freezer) Freeze(ctx context.Context) error {
	err := f.freeze(ctx)
	if errors.Is(err, catalog.ErrStale) { // another freezer was faster
		f.log.Info("days were frozen by another", "err", err)
		return nil
	}
	if err != nil {
		f.count(func(s *Stats) { s.Failures++ })
	}
	return err
}

func (f *Freezer) freeze(ctx context.Context) error {
	if err := f.sweep(ctx); err != nil { // what a freezer before left
		return err
	}
	now, err := f.cat.Now(ctx)
	if err != nil {
		return fmt.Errorf("read the catalog's clock: %w", err)
	}
	w := windowAt(now, f.cfg.FreezeAfter)
	have, err := f.cat.Freezable(ctx, w.before, w.after)
	if err != nil {
		return err
	}
	version := have.Version
	for _, u := range w.units(have.Days) {
		files, err := f.filesOf(ctx, &u, version)
		if err != nil {
			return err
		}
		if !f.due(&u, files, now) {
			continue
		}
		if version, err = f.freezeUnit(ctx, &u, have.UpTo, version, f.toMerge(&u, files)); err != nil {
			return fmt.Errorf("freeze %s: %w", &u, err)
		}
		if err := f.sweep(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sweep has the catalog remove the rows that are frozen, in steps between which others commit.
func (f *Freezer) sweep(ctx context.Context) error {
	for {
		more, err := f.cat.SweepFrozen(ctx, f.cfg.SweepRows)
		if err != nil || !more {
			return err
		}
	}
}

// filesOf returns the files of a unit at a version: those of a later one hold rows that are still to be read from the catalog.
func (f *Freezer) filesOf(ctx context.Context, u *unit, version int64) ([]catalog.FrozenFile, error) {
	all, err := f.cat.Frozen(ctx, u.from, u.to)
	if err != nil {
		return nil, err
	}
	if all.Version != version {
		return nil, fmt.Errorf("frozen files of version %d, not %d: %w", all.Version, version, catalog.ErrStale)
	}
	var files []catalog.FrozenFile
	for _, p := range all.Files {
		if p.Level == u.level && p.Bucket == u.bucket {
			files = append(files, p)
		}
	}
	return files, nil
}

// due reports whether a unit is frozen now: at once the first time, later when its rows are many or old.
func (f *Freezer) due(u *unit, files []catalog.FrozenFile, now int64) bool {
	return len(files) == 0 || u.rows >= f.cfg.LateRows || now-u.firstInsert >= int64(f.cfg.LateAge)
}
