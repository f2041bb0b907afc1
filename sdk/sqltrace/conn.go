package sqltrace

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/micromegas-go/micromegas/sdk"
)

// conn is a connection of a driver that has no optional ability which database/sql must not see without its being there, see abilities.go.
// The others conn always has: their lack can be answered in the words of package driver, or by doing what database/sql would.
type conn struct {
	driver.Conn
	tracer *tracer
}

func (c *conn) unwrap() driver.Conn { return c.Conn }

// Ping implements driver.Pinger: without one, a connection is as good as opened.
func (c *conn) Ping(ctx context.Context) error {
	p, ok := c.Conn.(driver.Pinger)
	if !ok {
		return nil
	}
	ctx, span := c.tracer.start(ctx, pingSpan, "")
	err := p.Ping(ctx)
	c.tracer.finish(span, err)
	return err
}

// CheckNamedValue implements driver.NamedValueChecker; ErrSkip has database/sql do what it does without one.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	ctx, span := c.tracer.start(ctx, prepareSpan, query)
	s, err := c.prepare(ctx, query)
	c.tracer.finish(span, err)
	if err != nil {
		return nil, err
	}
	return wrapStmt(s, c, query), nil
}

func (c *conn) prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	s, err := c.Conn.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = s.Close()
		return nil, ctx.Err()
	}
	return s, err
}

// Prepare implements driver.Conn.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// BeginTx implements driver.ConnBeginTx.
func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	inside, span := c.tracer.start(ctx, beginSpan, "")
	inner, err := c.begin(inside, o)
	c.tracer.finish(span, err)
	if err != nil {
		return nil, err
	}
	return &tx{inner, c.tracer, ctx}, nil
}

// The errors of database/sql for a driver without driver.ConnBeginTx.
var (
	errIsolation = errors.New("sql: driver does not support non-default isolation level")
	errReadOnly  = errors.New("sql: driver does not support read-only transactions")
)

func (c *conn) begin(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if b, ok := c.Conn.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, o)
	}
	if o.Isolation != driver.IsolationLevel(sql.LevelDefault) {
		return nil, errIsolation
	}
	if o.ReadOnly {
		return nil, errReadOnly
	}
	inner, err := c.Conn.Begin() //nolint:staticcheck // a driver that has nothing newer
	if err == nil && ctx.Err() != nil {
		_ = inner.Rollback()
		return nil, ctx.Err()
	}
	return inner, err
}

// Begin implements driver.Conn.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// tx is a transaction. It has the context of its begin, as Commit and Rollback get none.
type tx struct {
	driver.Tx
	tracer *tracer
	ctx    context.Context
}

// Commit implements driver.Tx.
func (x *tx) Commit() error { return x.end(commitSpan, x.Tx.Commit) }

// Rollback implements driver.Tx.
func (x *tx) Rollback() error { return x.end(rollbackSpan, x.Tx.Rollback) }

func (x *tx) end(site *sdk.Span, f func() error) error {
	_, span := x.tracer.start(x.ctx, site, "")
	err := f()
	x.tracer.finish(span, err)
	return err
}
