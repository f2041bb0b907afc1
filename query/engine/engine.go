// Package engine runs SQL on DuckDB and hands the rows out as Arrow batches. It is the only
// package that knows DuckDB.
package engine

import (
	"context"
	"errors"
	"log/slog"

	"github.com/apache/arrow-go/v18/arrow"
)

var errNotYet = errors.New("engine is not open")

// Config bounds the engine.
type Config struct {
	MemoryLimit   int64
	TempDir       string
	TempLimit     int64
	AllowedDirs   []string
	Threads       int
	MaxConcurrent int
}

// DefaultConfig is what one process on a small machine uses.
func DefaultConfig() Config { return Config{MemoryLimit: 1 << 30, MaxConcurrent: 4} }

// Validate reports every mistake at once.
func (c Config) Validate() error { return nil }

// Engine is one in-memory DuckDB instance.
type Engine struct{}

// Open starts the engine.
func Open(cfg Config, log *slog.Logger) (*Engine, error) { return nil, errNotYet }

// Close stops the engine.
func (e *Engine) Close() error { return nil }

// Conn waits for a free place and opens a connection.
func (e *Engine) Conn(ctx context.Context) (*Conn, error) { return nil, errNotYet }

// Eval runs a statement of one constant row.
func (e *Engine) Eval(ctx context.Context, sql string) ([]any, error) { return nil, errNotYet }

// SerializeSQL parses.
func (e *Engine) SerializeSQL(ctx context.Context, sql string) ([]byte, error) {
	return nil, errNotYet
}

// DeserializeSQL prints.
func (e *Engine) DeserializeSQL(ctx context.Context, tree []byte) (string, error) {
	return "", errNotYet
}

// Conn is one connection, with its own TEMP views.
type Conn struct{}

// Close gives the connection back.
func (c *Conn) Close() error { return nil }

// Exec runs a statement without rows.
func (c *Conn) Exec(ctx context.Context, sql string) error { return errNotYet }

// Query starts a statement.
func (c *Conn) Query(ctx context.Context, sql string, opts QueryOptions) (Result, error) {
	return nil, errNotYet
}

// Describe prepares only.
func (c *Conn) Describe(ctx context.Context, sql string, opts QueryOptions) (*arrow.Schema, error) {
	return nil, errNotYet
}

// QueryOptions shape the Arrow side of a result.
type QueryOptions struct {
	// PreserveDictionary keeps the dictionary types that Hints name, and sends JSON columns
	// as Dictionary(Int32, Binary). Without it every dictionary is flattened.
	PreserveDictionary bool
	// Hints by output position; it may be shorter than the row.
	Hints []Hint
}

// Hint says what a column must look like to clients, where DuckDB's type cannot tell.
type Hint struct {
	// Type is the Arrow type to send, when DuckDB's type can carry it (string column as
	// Dictionary(Int32, Utf8), BIGINT as Duration(ns), BLOB as FixedSizeBinary, DECIMAL as
	// Decimal128, another name of a list's item). Nil, or a type that does not fit, is no hint.
	Type arrow.DataType
	// NotNull marks the field as never null.
	NotNull bool
}

// Result streams the rows of one statement.
type Result interface {
	// Schema is what clients see.
	Schema() *arrow.Schema
	// Next returns the next batch, which the caller must release, or io.EOF.
	Next() (arrow.RecordBatch, error)
	// Close ends the statement, also before the last row. It may be called twice.
	Close() error
}
