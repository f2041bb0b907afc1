package lake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// GCCatalog is the part of the catalog that garbage collection needs.
type GCCatalog interface {
	// Now is the time by the catalog's clock, ns: the one by which partitions are retired.
	Now(ctx context.Context) (int64, error)
	RetiredBefore(ctx context.Context, t int64, limit int) ([]catalog.Partition, error)
	ForgetPartitions(ctx context.Context, partNos []int64) error
	KeysReferenced(ctx context.Context, keys []string) ([]bool, error)
}

// UnreferencedAge is the age at which an object that no row names is an orphan. A commit refuses its own objects when
// they are older than half of it (catalog.MaxObjectAge), and the other half is for clocks that differ.
const UnreferencedAge = 2 * catalog.MaxObjectAge

// DefaultRetiredAge is how long the object of a retired partition stays: longer than any query that may still read it.
const DefaultRetiredAge = 10 * time.Minute

// gcBatch is how many keys or rows one question to the catalog carries.
const gcBatch = 500

// maxGCErrors bounds the failures that a run reports one by one; all are counted.
const maxGCErrors = 8

// GCOptions are the optional settings of a collection.
type GCOptions struct {
	// RetiredAge must be longer than the longest query; 0 means DefaultRetiredAge.
	RetiredAge time.Duration
	// ClaimOnBus must tell whether the bus may still hold, or be about to get, the record that points to this oversize
	// body. Nil keeps every body that no row names.
	ClaimOnBus func(Object) bool
	// OldestRead must tell the least commit number that a running query reads at, false when none runs. What was retired
	// after it stays, however old it looks: clocks leap, and a machine that slept stops the queries' time but not its own.
	// Nil: RetiredAge alone decides.
	OldestRead func() (commitNo int64, any bool)
	// Ahead judges ages as if it were so much later than it is.
	Ahead time.Duration
}

// GCResult counts what a collection did.
type GCResult struct {
	Scanned      int   // objects listed
	Orphans      int   // unreferenced objects deleted
	OrphanBytes  int64 //
	Retired      int   // objects of retired partitions deleted
	RetiredBytes int64
	Temp         int // leftovers of interrupted writes removed
	ClaimsKept   int // unreferenced oversize bodies that the bus may need
	Failures     int // objects that could not be deleted; the next run tries again
}

// GC deletes the objects of partitions that were retired longer ago than the longest query runs, then objects older
// than UnreferencedAge that no row names, then leftovers of interrupted writes. An object goes before its row, so a crash
// in between leaves a row that the next run finds; live rows are never touched. It is safe to run it twice at once.
// A failed deletion does not stop the run; the error joins the first few.
//
// This process's clock has no say: one that is an hour ahead would take what is about to be committed for an hour old. Retirements
// are judged by the catalog's clock, which stamped them. An orphan must be old by the clock that stamped it, the bucket's, and by the
// catalog's, so that no one wrong clock costs an object.
func (l *Lake) GC(ctx context.Context, cat GCCatalog, opts GCOptions) (GCResult, error) {
	if opts.RetiredAge <= 0 {
		opts.RetiredAge = DefaultRetiredAge
	}
	ns, err := cat.Now(ctx)
	if err != nil {
		return GCResult{}, fmt.Errorf("the catalog's clock: %w", err)
	}
	catalogNow := time.Unix(0, ns)
	bucketNow, err := l.bucketNow(ctx)
	if err != nil {
		return GCResult{}, fmt.Errorf("the bucket's clock: %w", err)
	}
	g := &collection{lake: l, cat: cat, opts: opts, retiredBefore: catalogNow.Add(opts.Ahead - opts.RetiredAge).UnixNano()}
	g.orphanedBefore = catalogNow.Add(opts.Ahead - UnreferencedAge)
	if bucketNow.Before(catalogNow) {
		g.orphanedBefore = bucketNow.Add(opts.Ahead - UnreferencedAge)
	}
	err = errors.Join(g.retired(ctx), g.orphans(ctx), g.temp(ctx))
	return g.result, errors.Join(append(g.failures, err)...)
}

// clockFolder holds objects that ask for the bucket's time. It is below a prefix that is collected, where one that is left is found.
const clockFolder = ViewPrefix + "clock/"

// bucketNow is the time by the clock that stamps the bucket's objects. A store beyond a network tells it by an object that is new.
func (l *Lake) bucketNow(ctx context.Context) (time.Time, error) {
	if b, ok := l.bucket.(clock); ok {
		return b.Now(), nil
	}
	key := clockFolder + uuid.NewString()
	if err := l.Put(ctx, key, nil); err != nil {
		return time.Time{}, err
	}
	o, err := l.Stat(ctx, key)
	_ = l.Delete(ctx, key) // one that stays is an orphan like others
	return o.ModTime, err
}

// collection is one run.
type collection struct {
	lake           *Lake
	cat            GCCatalog
	opts           GCOptions
	retiredBefore  int64
	orphanedBefore time.Time
	result         GCResult
	failures       []error
}

func (g *collection) delete(ctx context.Context, key string) bool {
	err := g.lake.Delete(ctx, key)
	if err == nil {
		return true
	}
	g.result.Failures++
	if len(g.failures) < maxGCErrors {
		g.failures = append(g.failures, err)
	}
	return false
}

func (g *collection) retired(ctx context.Context) error {
	for {
		parts, err := g.cat.RetiredBefore(ctx, g.retiredBefore, gcBatch)
		if err != nil {
			return fmt.Errorf("retired partitions: %w", err)
		}
		var gone []int64
		for i := range g.unread(parts) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if g.delete(ctx, parts[i].Key) {
				gone = append(gone, parts[i].PartNo)
				g.result.Retired++
				g.result.RetiredBytes += parts[i].Size
			}
		}
		if len(gone) == 0 { // none left, or none that can be deleted now
			return nil
		}
		if err := g.cat.ForgetPartitions(ctx, gone); err != nil {
			return fmt.Errorf("forget %d retired partitions: %w", len(gone), err)
		}
	}
}

// unread cuts a list of retired partitions, in order of retirement, where a running query may still read one.
func (g *collection) unread(parts []catalog.Partition) []catalog.Partition {
	if g.opts.OldestRead == nil {
		return parts
	}
	oldest, reading := g.opts.OldestRead()
	if !reading {
		return parts
	}
	for i := range parts {
		if parts[i].Retired > oldest {
			return parts[:i]
		}
	}
	return parts
}

func (g *collection) orphans(ctx context.Context) error {
	for _, prefix := range collectedPrefixes {
		batch := make([]Object, 0, gcBatch)
		for o, err := range g.lake.List(ctx, prefix) {
			if err != nil {
				return err
			}
			g.result.Scanned++
			if !o.ModTime.Before(g.orphanedBefore) {
				continue
			}
			if batch = append(batch, o); len(batch) == gcBatch {
				if err := g.collect(ctx, batch); err != nil {
					return err
				}
				batch = batch[:0]
			}
		}
		if err := g.collect(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// collect deletes those of the old objects that nothing needs.
func (g *collection) collect(ctx context.Context, batch []Object) error {
	if len(batch) == 0 {
		return nil
	}
	// The bus is asked first: once it has dropped a body's record, the row that adopted the body is there to be found.
	onBus := make([]bool, len(batch))
	keys := make([]string, len(batch))
	for i, o := range batch {
		keys[i] = o.Key
		onBus[i] = IsClaimKey(o.Key) && (g.opts.ClaimOnBus == nil || g.opts.ClaimOnBus(o))
	}
	referenced, err := g.cat.KeysReferenced(ctx, keys)
	if err != nil {
		return fmt.Errorf("look up %d keys: %w", len(keys), err)
	}
	if len(referenced) != len(keys) {
		return fmt.Errorf("look up %d keys: %d answers", len(keys), len(referenced))
	}
	for i, o := range batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case referenced[i]:
		case onBus[i]:
			g.result.ClaimsKept++
		case g.delete(ctx, o.Key):
			g.result.Orphans++
			g.result.OrphanBytes += o.Size
		}
	}
	return nil
}

func (g *collection) temp(ctx context.Context) error {
	s, ok := g.lake.bucket.(sweeper)
	if !ok {
		return nil
	}
	n, err := s.SweepTemp(ctx, g.orphanedBefore)
	g.result.Temp = n
	if err != nil {
		return fmt.Errorf("sweep temporary files: %w", err)
	}
	return nil
}
