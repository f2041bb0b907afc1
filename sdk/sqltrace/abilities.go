package sqltrace

import (
	"context"
	"database/sql/driver"
	"errors"
)

// database/sql asks a connection by type assertions what it can do. For four abilities it matters that a driver without them seems to have
// none, so there is a type for each of the sixteen combinations: arguments are converted in another way for what cannot execute or query without
// a prepared statement; and a connection is thrown away after a transaction that a context ended, unless it can be both reset and validated.
const (
	canExec = 1 << iota
	canQuery
	canReset
	canValidate
)

func wrapConn(inner driver.Conn, t *tracer) driver.Conn {
	c := &conn{inner, t}
	e, q := newExecer(c), newQueryer(c)
	r, resets := inner.(driver.SessionResetter)
	v, validates := inner.(driver.Validator)
	return c.with(e, q, resetter{r}, validator{v}, mask(e.exec != nil, q.query != nil, resets, validates))
}

func mask(bits ...bool) (m int) {
	for i, b := range bits {
		if b {
			m |= 1 << i
		}
	}
	return m
}

// with returns the connection with some abilities.
func (c *conn) with(e execer, q queryer, r resetter, v validator, abilities int) driver.Conn {
	switch abilities {
	case canExec:
		return struct {
			*conn
			execer
		}{c, e}
	case canQuery:
		return struct {
			*conn
			queryer
		}{c, q}
	case canExec | canQuery:
		return struct {
			*conn
			execer
			queryer
		}{c, e, q}
	case canReset:
		return struct {
			*conn
			resetter
		}{c, r}
	case canExec | canReset:
		return struct {
			*conn
			execer
			resetter
		}{c, e, r}
	case canQuery | canReset:
		return struct {
			*conn
			queryer
			resetter
		}{c, q, r}
	case canExec | canQuery | canReset:
		return struct {
			*conn
			execer
			queryer
			resetter
		}{c, e, q, r}
	case canValidate:
		return struct {
			*conn
			validator
		}{c, v}
	case canExec | canValidate:
		return struct {
			*conn
			execer
			validator
		}{c, e, v}
	case canQuery | canValidate:
		return struct {
			*conn
			queryer
			validator
		}{c, q, v}
	case canExec | canQuery | canValidate:
		return struct {
			*conn
			execer
			queryer
			validator
		}{c, e, q, v}
	case canReset | canValidate:
		return struct {
			*conn
			resetter
			validator
		}{c, r, v}
	case canExec | canReset | canValidate:
		return struct {
			*conn
			execer
			resetter
			validator
		}{c, e, r, v}
	case canQuery | canReset | canValidate:
		return struct {
			*conn
			queryer
			resetter
			validator
		}{c, q, r, v}
	case canExec | canQuery | canReset | canValidate:
		return struct {
			*conn
			execer
			queryer
			resetter
			validator
		}{c, e, q, r, v}
	}
	return c
}

type (
	resetter  struct{ driver.SessionResetter }
	validator struct{ driver.Validator }
)

// execer executes without a prepared statement.
type execer struct {
	c    *conn
	exec func(context.Context, string, []driver.NamedValue) (driver.Result, error) // nil = the driver cannot
}

func newExecer(c *conn) execer {
	if e, ok := c.Conn.(driver.ExecerContext); ok {
		return execer{c, e.ExecContext}
	}
	old, ok := c.Conn.(driver.Execer) //nolint:staticcheck // a driver that has nothing newer
	if !ok {
		return execer{}
	}
	return execer{c, func(ctx context.Context, query string, named []driver.NamedValue) (driver.Result, error) {
		return withValues(ctx, named, func(args []driver.Value) (driver.Result, error) { return old.Exec(query, args) })
	}}
}

// ExecContext implements driver.ExecerContext.
func (e execer) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	ctx, span := e.c.tracer.start(ctx, execSpan, query)
	result, err := e.exec(ctx, query, args)
	e.c.tracer.finish(span, err)
	return result, err
}

// queryer queries without a prepared statement.
type queryer struct {
	c     *conn
	query func(context.Context, string, []driver.NamedValue) (driver.Rows, error) // nil = the driver cannot
}

func newQueryer(c *conn) queryer {
	if q, ok := c.Conn.(driver.QueryerContext); ok {
		return queryer{c, q.QueryContext}
	}
	old, ok := c.Conn.(driver.Queryer) //nolint:staticcheck // a driver that has nothing newer
	if !ok {
		return queryer{}
	}
	return queryer{c, func(ctx context.Context, query string, named []driver.NamedValue) (driver.Rows, error) {
		return withValues(ctx, named, func(args []driver.Value) (driver.Rows, error) { return old.Query(query, args) })
	}}
}

// QueryContext implements driver.QueryerContext.
func (q queryer) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	ctx, span := q.c.tracer.start(ctx, querySpan, query)
	rows, err := q.query(ctx, query, args)
	q.c.tracer.finish(span, err)
	return rows, err
}

// withValues calls a function of a driver that knows neither contexts nor names.
func withValues[T any](ctx context.Context, named []driver.NamedValue, f func([]driver.Value) (T, error)) (none T, err error) {
	args := make([]driver.Value, len(named))
	for i, v := range named {
		if v.Name != "" {
			return none, errors.New("sql: driver does not support the use of Named Parameters")
		}
		args[i] = v.Value
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return f(args)
}
