// Package locate finds archived blocks and reads their bodies, whether their rows are in the catalog or frozen in files of the lake. It
// writes nothing. Materializers read spans, images and network traffic through it, and query single blocks.
//
// Invariant: an answer is of one frozen version, so no block is in it twice or missing because it was frozen meanwhile.
package locate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Catalog is the part of catalog.Catalog that a Locator reads.
type Catalog interface {
	Streams(ctx context.Context, ids []telemetry.ID) ([]catalog.StreamRow, error)
	StreamBlocks(ctx context.Context, stream telemetry.ID, q catalog.BlockQuery) ([]catalog.BlockRow, error)
	Frozen(ctx context.Context, begin, end int64) (catalog.Frozen, error)
}

// Objects is the part of the lake that a Locator reads.
type Objects interface {
	GetRange(ctx context.Context, key string, off, n int64) ([]byte, error)
}

// Locator finds blocks. It is safe for concurrent use.
type Locator struct {
	catalog Catalog
	objects Objects
	frozen  *frozen.Reader
}

// New returns a Locator over a lake and its catalog.
func New(c Catalog, o Objects) *Locator {
	return &Locator{catalog: c, objects: o, frozen: frozen.NewReader(o)}
}

// Meeting returns the blocks of a stream that were under way in [begin, end], both included, ordered by begin time and id.
func (l *Locator) Meeting(ctx context.Context, stream telemetry.ID, begin, end int64) ([]catalog.BlockRow, error) {
	if begin > end {
		return nil, nil
	}
	begin = catalog.TruncateToMicroseconds(begin) // as ends are kept: events may come up to a microsecond after a block's end
	q := catalog.AllBlocks()
	q.Begin, q.End = begin, end
	return l.find(ctx, stream, q, begin, end)
}

// Begun returns the blocks of a stream that begin in [from, to), ordered by begin time and id.
func (l *Locator) Begun(ctx context.Context, stream telemetry.ID, from, to int64) ([]catalog.BlockRow, error) {
	if from >= to {
		return nil, nil
	}
	q := catalog.AllBlocks()
	q.From, q.To = from, to
	rows, err := l.find(ctx, stream, q, from, to-1)
	return slices.DeleteFunc(rows, func(b catalog.BlockRow) bool { return b.BeginTime < from }), err
}

// lookBack are how far before a time frozen blocks are looked for, one after the other until there are enough.
var lookBack = []time.Duration{time.Hour, 24 * time.Hour, 30 * 24 * time.Hour, math.MaxInt64}

// Before returns the n blocks of a stream with the latest begin times before t, ordered by begin time and id.
func (l *Locator) Before(ctx context.Context, stream telemetry.ID, t int64, n int) ([]catalog.BlockRow, error) {
	if n <= 0 || t == math.MinInt64 {
		return nil, nil
	}
	q := catalog.AllBlocks()
	q.To, q.Newest = t, n
	first := int64(math.MinInt64) // no block of the stream begins before
	for i, back := range lookBack {
		if i == 1 {
			var err error
			if first, err = l.firstBegin(ctx, stream, t); err != nil {
				return nil, err
			}
		}
		from := first
		if back < math.MaxInt64 && t > math.MinInt64+int64(back) {
			from = max(first, t-int64(back))
		}
		rows, err := l.find(ctx, stream, q, from, t-1)
		if err != nil {
			return nil, err
		}
		// Those that began earlier and reach into the time looked at need not be the latest of all that did: frozen ones that did not
		// reach into it are missing among them.
		rows = slices.DeleteFunc(rows, func(b catalog.BlockRow) bool { return b.BeginTime < from })
		if from <= first || len(rows) >= n {
			return rows[max(0, len(rows)-n):], nil
		}
	}
	return nil, nil // not reached: the last one looks from first
}

// firstBegin returns the first begin time of a stream's blocks, so that nobody looks for older ones in all files there are; or t when it
// has none before.
func (l *Locator) firstBegin(ctx context.Context, stream telemetry.ID, t int64) (int64, error) {
	rows, err := l.catalog.Streams(ctx, []telemetry.ID{stream})
	if err != nil || len(rows) == 0 || !rows[0].HasBlocks {
		return t, err
	}
	return min(rows[0].FirstTime, t), nil
}

// find returns the rows of a query, and the frozen ones that were under way in [begin, end], in order. It repeats when something was
// frozen meanwhile.
func (l *Locator) find(ctx context.Context, stream telemetry.ID, q catalog.BlockQuery, begin, end int64) ([]catalog.BlockRow, error) {
	for {
		f, err := l.catalog.Frozen(ctx, begin, end)
		if err != nil {
			return nil, err
		}
		rows, err := l.catalog.StreamBlocks(ctx, stream, q)
		if err != nil {
			return nil, err
		}
		old, unread := l.frozen.Blocks(ctx, f.Files, stream, begin, end)
		now, err := l.catalog.Frozen(ctx, begin, end)
		if err != nil {
			return nil, errors.Join(unread, err)
		}
		if now.Version != f.Version {
			continue // also where a file is gone, since others took its rows in
		}
		if unread != nil {
			return nil, unread
		}
		if len(old) == 0 {
			return rows, nil
		}
		rows = append(rows, old...)
		slices.SortFunc(rows, func(a, b catalog.BlockRow) int {
			return cmp.Or(cmp.Compare(a.BeginTime, b.BeginTime), a.ID.Compare(b.ID))
		})
		return rows, nil
	}
}

// ErrNoBody says that a row names no place.
var ErrNoBody = errors.New("block has no body")

// Body reads the insert_block body of a block, as the client sent it. It belongs to the caller.
func (l *Locator) Body(ctx context.Context, b *catalog.BlockRow) ([]byte, error) {
	if b.PackKey == "" {
		return nil, fmt.Errorf("%w: %s", ErrNoBody, b.ID)
	}
	return l.objects.GetRange(ctx, b.PackKey, b.PackOffset, b.PackLength)
}
