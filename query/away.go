package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// catalogTimeout bounds one call to the catalog: each is a page of rows or less. A server that hangs is told of in time, and not at
// the end of the query's own.
const catalogTimeout = 5 * time.Second

// awayError says that a part of the lake does not answer: the client may ask again.
type awayError struct {
	part string
	err  error
}

func (e *awayError) Error() string { return fmt.Sprintf("the %s does not answer: %v", e.part, e.err) }
func (e *awayError) Unwrap() error { return e.err }

// away returns the error of a query that met an awayError, nil for any other.
func away(err error) *Error {
	a, ok := errors.AsType[*awayError](err)
	if !ok {
		return nil
	}
	return &Error{
		Code: codes.Unavailable, Message: fmt.Sprintf("External error: the %s does not answer", a.part),
		Help: "nothing that was acknowledged is lost; ask again when it is back", Err: err,
	}
}

// turn lets one query at a time follow the catalog for all. Who waits for it gives up when its query ends, and does not ask a catalog
// again that has not answered meanwhile: each would wait as long as the one before.
type turn struct {
	place  chan struct{} // holds a token while somebody has the turn
	failed time.Time     // when the catalog did not answer last; guarded by place, as is err
	err    error
}

func newTurn() turn { return turn{place: make(chan struct{}, 1)} }

// do calls f when it is the caller's turn.
func (t *turn) do(ctx context.Context, f func() error) error {
	called := time.Now()
	select {
	case t.place <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for other queries: %w", ctx.Err())
	}
	defer func() { <-t.place }()
	if t.failed.After(called) {
		return t.err
	}
	err := f()
	if isAway(err) {
		t.failed, t.err = time.Now(), err
	}
	return err
}

// isAway reports whether a part of the lake did not answer.
func isAway(err error) bool {
	_, ok := errors.AsType[*awayError](err)
	return ok
}

// patientCatalog bounds each call to a catalog and says so when it does not answer. What the catalog itself says, and the
// end of the query, come through as they are.
type patientCatalog struct{ Catalog }

// patiently makes one call.
func patiently[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	v, err := call(bounded)
	if err == nil || ctx.Err() != nil || errors.Is(err, catalog.ErrInvalid) || errors.Is(err, catalog.ErrStale) {
		return v, err
	}
	return v, &awayError{"catalog", err}
}

func (c patientCatalog) Processes(ctx context.Context, ids []telemetry.ID) ([]catalog.ProcessRow, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.ProcessRow, error) { return c.Catalog.Processes(ctx, ids) })
}

func (c patientCatalog) Streams(ctx context.Context, ids []telemetry.ID) ([]catalog.StreamRow, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.StreamRow, error) { return c.Catalog.Streams(ctx, ids) })
}

func (c patientCatalog) ProcessesAfter(ctx context.Context, no int64, limit int) ([]catalog.ProcessRow, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.ProcessRow, error) {
		return c.Catalog.ProcessesAfter(ctx, no, limit)
	})
}

func (c patientCatalog) StreamsAfter(ctx context.Context, no int64, limit int) ([]catalog.StreamRow, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.StreamRow, error) { return c.Catalog.StreamsAfter(ctx, no, limit) })
}

func (c patientCatalog) ChangedProcesses(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	return patiently(ctx, func(ctx context.Context) (catalog.Changes, error) {
		return c.Catalog.ChangedProcesses(ctx, after, limit)
	})
}

func (c patientCatalog) ChangedStreams(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	return patiently(ctx, func(ctx context.Context) (catalog.Changes, error) { return c.Catalog.ChangedStreams(ctx, after, limit) })
}

func (c patientCatalog) BlocksSince(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (rows []catalog.BlockRow, next map[catalog.ShardID]uint64, err error) {
	rows, err = patiently(ctx, func(ctx context.Context) (rows []catalog.BlockRow, err error) {
		rows, next, err = c.Catalog.BlocksSince(ctx, after, limit)
		return rows, err
	})
	return rows, next, err
}

func (c patientCatalog) ArchivePositions(ctx context.Context) (map[catalog.ShardID]uint64, error) {
	return patiently(ctx, c.Catalog.ArchivePositions)
}

func (c patientCatalog) Partitions(ctx context.Context, sinceCommit int64) (catalog.PartitionDelta, error) {
	return patiently(ctx, func(ctx context.Context) (catalog.PartitionDelta, error) {
		return c.Catalog.Partitions(ctx, sinceCommit)
	})
}

func (c patientCatalog) Freezes(ctx context.Context, after int64) ([]catalog.Freeze, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.Freeze, error) { return c.Catalog.Freezes(ctx, after) })
}

func (c patientCatalog) ProcessStreams(ctx context.Context, processes []telemetry.ID) ([]catalog.StreamRow, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.StreamRow, error) {
		return c.Catalog.ProcessStreams(ctx, processes)
	})
}

func (c patientCatalog) AllInstancePartitions(ctx context.Context, limit int) ([]catalog.Partition, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.Partition, error) {
		return c.Catalog.AllInstancePartitions(ctx, limit)
	})
}

func (c patientCatalog) StreamBlocks(ctx context.Context, stream telemetry.ID, q catalog.BlockQuery) ([]catalog.BlockRow, error) {
	return patiently(ctx, func(ctx context.Context) ([]catalog.BlockRow, error) { return c.Catalog.StreamBlocks(ctx, stream, q) })
}

func (c patientCatalog) Frozen(ctx context.Context, begin, end int64) (catalog.Frozen, error) {
	return patiently(ctx, func(ctx context.Context) (catalog.Frozen, error) { return c.Catalog.Frozen(ctx, begin, end) })
}

// honestFiles says so when the bucket does not answer.
type honestFiles struct{ Files }

func (f honestFiles) LocalPaths(ctx context.Context, files []lake.Ref) ([]string, error) {
	paths, err := f.Files.LocalPaths(ctx, files)
	if err == nil || ctx.Err() != nil || errors.Is(err, lake.ErrNotFound) || errors.Is(err, lake.ErrDamaged) || errors.Is(err, lake.ErrCacheFull) {
		return paths, err
	}
	return nil, &awayError{"object store", err}
}

func (f honestFiles) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	data, err := f.Files.GetRange(ctx, key, off, n)
	if err == nil || ctx.Err() != nil || errors.Is(err, lake.ErrNotFound) {
		return data, err
	}
	return nil, &awayError{"object store", err}
}
