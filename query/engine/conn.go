package engine

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	duckdb "github.com/duckdb/duckdb-go-bindings"
)

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
	// Type is the Arrow type to send, when DuckDB's type can carry it: a string column as
	// Dictionary(Int32, Utf8), BIGINT or INTERVAL as Duration(ns), BLOB as FixedSizeBinary,
	// DECIMAL as Decimal128, another name of a list's item. Nil, or a type that does not fit,
	// is no hint.
	Type arrow.DataType
	// NotNull marks the field as never null.
	NotNull bool
}

// link is a DuckDB connection and the instance that it keeps open.
type link struct {
	engine *Engine
	inst   *instance
	raw    duckdb.Connection
	busy   atomic.Bool // a call is under way
	over   atomic.Bool // the watch ended it
}

// interruptEvery is how often a running call is told to stop: DuckDB forgets an interrupt that
// comes before the statement begins.
const interruptEvery = 5 * time.Millisecond

// run calls f, which blocks in DuckDB, and interrupts it when ctx is done. Any error of a call
// whose ctx is done is reported as the interruption.
func (l *link) run(ctx context.Context, f func() *Error) error {
	if ctx.Err() != nil {
		return interrupted(ctx)
	}
	done, exited := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(exited)
		tick := time.NewTicker(interruptEvery)
		defer tick.Stop()
		for {
			duckdb.Interrupt(l.raw)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	l.over.Store(false)
	l.busy.Store(true)
	l.engine.running.Add(1)
	err := f()
	l.engine.running.Add(-1)
	l.busy.Store(false)
	close(done)
	if !stop() {
		<-exited // nobody may touch the connection once run has returned
	}
	switch {
	case err == nil:
		return nil
	case err.fatal:
		l.inst.kill()
	case l.over.Load() && ctx.Err() == nil:
		return l.engine.tooMuch()
	case err.Class == Interrupted || ctx.Err() != nil:
		return interrupted(ctx)
	}
	return err
}

func (l *link) close() {
	l.engine.leave(l)
	duckdb.Disconnect(&l.raw)
	l.inst.release()
}

// Conn is one connection, with its own TEMP views. It is for one goroutine, and busy while a
// Result of it is open.
type Conn struct {
	engine *Engine
	link   *link
	closed bool
}

// Close throws the connection away, with its TEMP views. Results must be closed before.
func (c *Conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.link.close()
	c.engine.trim()
	<-c.engine.places
	return nil
}

// Exec runs statements whose rows nobody wants.
func (c *Conn) Exec(ctx context.Context, sql string) error {
	return c.link.run(ctx, func() *Error {
		var res duckdb.Result
		defer duckdb.DestroyResult(&res)
		if duckdb.Query(c.link.raw, sql, &res) != duckdb.StateSuccess {
			return resultError(&res)
		}
		return nil
	})
}

// Query starts one statement and returns when its first rows are ready. ctx bounds the
// statement until its Result is closed.
func (c *Conn) Query(ctx context.Context, sql string, opts QueryOptions) (Result, error) {
	s, err := c.link.query(ctx, sql, opts)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Describe prepares one statement and returns the schema that Query would give.
func (c *Conn) Describe(ctx context.Context, sql string, opts QueryOptions) (*arrow.Schema, error) {
	var schema *arrow.Schema
	err := c.link.run(ctx, func() *Error {
		stmt, e := c.link.prepare(sql)
		if e != nil {
			return e
		}
		defer duckdb.DestroyPrepare(&stmt)
		n := int(duckdb.PreparedStatementColumnCount(stmt))
		names, types := make([]string, n), make([]duckdb.LogicalType, n)
		for i := range n {
			names[i] = duckdb.PreparedStatementColumnName(stmt, duckdb.IdxT(i))
			types[i] = duckdb.PreparedStatementColumnLogicalType(stmt, duckdb.IdxT(i))
		}
		defer destroyTypes(types)
		schema, _, e = plan(names, types, opts)
		return e
	})
	return schema, err
}

func destroyTypes(types []duckdb.LogicalType) {
	for i := range types {
		duckdb.DestroyLogicalType(&types[i])
	}
}

// prepare compiles one statement; the caller must destroy it.
func (l *link) prepare(sql string) (duckdb.PreparedStatement, *Error) {
	var stmt duckdb.PreparedStatement
	if strings.IndexByte(sql, 0) >= 0 {
		return stmt, &Error{Class: Parse, Message: "statement holds a NUL character", Position: strings.IndexByte(sql, 0)}
	}
	if duckdb.Prepare(l.raw, sql, &stmt) != duckdb.StateSuccess {
		err := parseError(duckdb.PrepareError(stmt))
		duckdb.DestroyPrepare(&stmt)
		return stmt, err
	}
	return stmt, nil
}
