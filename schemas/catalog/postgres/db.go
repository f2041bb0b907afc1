package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// patience is DB.patience outside of tests. No healthy transaction takes as long.
const patience = 10 * time.Second

// DB is a catalog in a PostgreSQL database.
type DB struct {
	pool  *pgxpool.Pool
	log   *slog.Logger
	clock clock
	known known
	days  days
	// bulk holds a token for each read of many rows under way. It is half as large as the pool, so that renewals of leases and
	// commits never wait behind such reads.
	bulk chan struct{}
	// patience is how long a statement waits for a lock, and how long the holder of one may be silent (evict).
	patience time.Duration
	// keptChanges is the weight of the notes of changes that are kept of a shard; catalog.ChangesKept outside of tests.
	keptChanges int64
	// traceIDs and traceFilterBytes are how much of the index of traces is kept.
	traceIDs, traceFilterBytes int64

	mu     sync.Mutex // guards closed, and calls.Add against Close
	closed bool
	calls  sync.WaitGroup
}

var _ catalog.Catalog = (*DB)(nil)

// Open connects to the database of a connection string, postgres://user:password@host:port/database, and brings its tables up to
// date; others may do the same at this moment. The parameters of pgx and pgxpool may be given (pool_max_conns), several hosts
// too. Tables are made in the first schema of the role's search path.
//
// What is wrong is one of ErrConnString, ErrUnreachable, ErrPasswordRefused, ErrDatabaseMissing, ErrForbidden,
// ErrReadOnly and a *NewerSchemaError; no error holds the password.
func Open(ctx context.Context, connString string, log *slog.Logger) (*DB, error) {
	cfg, err := configure(connString)
	if err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	place := describe(cfg.ConnConfig)
	now, err := prepare(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", place, err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", place, startError(err))
	}
	db := &DB{
		pool: pool, log: log, bulk: make(chan struct{}, max(1, cfg.MaxConns/2)), patience: patience,
		keptChanges: catalog.ChangesKept, traceIDs: catalog.MaxTraceIDs, traceFilterBytes: catalog.MaxTraceFilterBytes,
	}
	db.clock.set(now)
	db.days.now = db.clock.now
	log.Debug("catalog opened", "place", place)
	return db, nil
}

// enter counts a call in, unless the catalog is closed; leave counts it out.
func (db *DB) enter() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return catalog.ErrClosed
	}
	db.calls.Add(1)
	return nil
}

func (db *DB) leave() { db.calls.Done() }

// Close waits for the calls under way; later ones get catalog.ErrClosed, and so does a second Close.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return catalog.ErrClosed
	}
	db.closed = true
	db.mu.Unlock()
	db.calls.Wait()
	db.pool.Close()
	return nil
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	_, err := db.CommitNo(ctx)
	return err
}

// clock estimates the server's time between the moments when it was read.
type clock struct {
	mu    sync.Mutex
	store int64
	local time.Time // when store was read, by the monotonic clock
}

func (c *clock) set(store int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store, c.local = store, time.Now()
}

func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store + int64(time.Since(c.local))
}
