// Package engine runs SQL on DuckDB and hands the rows out as Arrow batches. It is the only
// package that knows DuckDB.
//
// One in-memory instance serves a process. Each query has its own connection, which is opened
// for it and thrown away after it: that costs microseconds, drops the query's TEMP views, and
// leaves nothing behind of an interrupted or failed statement. Macros, functions and settings
// belong to the instance and are locked before the first query.
//
// The engine runs any SQL it is given: package dialect decides what a client may say.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/micromegas-go/micromegas/query/functions"
)

// Config bounds the engine.
type Config struct {
	// MemoryLimit bounds DuckDB's buffers, in bytes, over all queries.
	MemoryLimit int64
	// TempDir takes what does not fit in memory; empty means that such queries fail.
	TempDir string
	// TempLimit bounds TempDir, in bytes.
	TempLimit int64
	// AllowedDirs are the only folders that a statement can read, by absolute path.
	AllowedDirs []string
	// Threads of the whole instance; 0 is one for each CPU.
	Threads int
	// MaxConcurrent bounds the open connections; further callers wait.
	MaxConcurrent int
	// Waiting are functions beside those of package functions.
	Waiting []functions.Waiting
}

// DefaultConfig is what one process on a small machine uses.
func DefaultConfig() Config {
	return Config{MemoryLimit: 1 << 30, TempLimit: 4 << 30, MaxConcurrent: 4}
}

// minMemory is what DuckDB needs to open Parquet files with a few columns.
const minMemory = 64 << 20

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.MemoryLimit < minMemory {
		errs = append(errs, fmt.Errorf("memory limit %d is below %d bytes", c.MemoryLimit, minMemory))
	}
	if c.TempLimit < 0 {
		errs = append(errs, fmt.Errorf("temp limit %d is negative", c.TempLimit))
	}
	if c.TempDir != "" && !filepath.IsAbs(c.TempDir) {
		errs = append(errs, fmt.Errorf("temp folder %q is not an absolute path", c.TempDir))
	}
	for _, d := range c.AllowedDirs {
		if !filepath.IsAbs(d) {
			errs = append(errs, fmt.Errorf("allowed folder %q is not an absolute path", d))
		}
	}
	if c.Threads < 0 {
		errs = append(errs, fmt.Errorf("%d threads", c.Threads))
	}
	if c.MaxConcurrent < 1 {
		errs = append(errs, fmt.Errorf("%d concurrent queries", c.MaxConcurrent))
	}
	return errors.Join(errs...)
}

// ErrClosed is the error of a closed engine.
var ErrClosed = errors.New("engine is closed")

// Engine owns the DuckDB instance.
type Engine struct {
	cfg Config
	log *slog.Logger

	places chan struct{} // one for each open Conn
	idle   chan *parser  // parsers, opened when first needed

	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex // guards inst
	inst *instance

	atStart int64        // bytes that the process held beside Go's heap
	running atomic.Int64 // calls of DuckDB under way
	linksMu sync.Mutex   // guards links, and their connections against being closed
	links   map[*link]bool
}

// maxParsers bounds the statements that are parsed or folded at the same time.
const maxParsers = 4

// Open starts the engine.
func Open(cfg Config, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("engine configuration: %w", err)
	}
	inst, err := openInstance(cfg)
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	boundMemory(cfg.MemoryLimit + memorySlack(cfg.MemoryLimit))
	e := &Engine{
		cfg: cfg, log: log, inst: inst,
		places: make(chan struct{}, cfg.MaxConcurrent),
		idle:   make(chan *parser, maxParsers),
		closed: make(chan struct{}),
		links:  make(map[*link]bool),
	}
	if held, ok := heldOutsideGo(); ok {
		e.atStart = held
		go e.watch(held + cfg.MemoryLimit + memorySlack(cfg.MemoryLimit))
	}
	for range maxParsers {
		e.idle <- &parser{engine: e}
	}
	return e, nil
}

// Close stops the engine after the open connections are closed. Whoever waits for one gets
// ErrClosed.
func (e *Engine) Close() error {
	e.once.Do(func() {
		close(e.closed)
		for range maxParsers {
			(<-e.idle).close()
		}
		for range cap(e.places) {
			e.places <- struct{}{}
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.inst.release()
		boundMemory(-e.cfg.MemoryLimit - memorySlack(e.cfg.MemoryLimit))
	})
	return nil
}

// Conn waits for a free place and opens a connection. The caller must close it.
func (e *Engine) Conn(ctx context.Context) (*Conn, error) {
	select {
	case <-e.closed:
		return nil, ErrClosed
	default:
	}
	select {
	case e.places <- struct{}{}:
	case <-e.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, interrupted(ctx)
	}
	inst, raw, err := e.connect()
	if err != nil {
		<-e.places
		return nil, err
	}
	return &Conn{engine: e, link: e.enter(&link{engine: e, inst: inst, raw: *raw})}, nil
}

// connect opens a DuckDB connection, on a new instance when the last one died.
func (e *Engine) connect() (*instance, *duckdb.Connection, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	raw, err := e.inst.acquire()
	if raw != nil || err != nil {
		return e.inst, raw, err
	}
	e.log.Warn("engine restarts after a fatal error")
	inst, err := openInstance(e.cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("reopen engine: %w", err)
	}
	e.inst.release()
	e.inst = inst
	raw, err = inst.acquire()
	return inst, raw, err
}
