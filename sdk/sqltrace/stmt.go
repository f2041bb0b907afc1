package sqltrace

import (
	"context"
	"database/sql/driver"
)

// stmt is a prepared statement. As with connections, what can be answered by a method is; a driver.ColumnConverter is a type of its own.
type stmt struct {
	driver.Stmt
	c         *conn
	statement string
}

type convertingStmt struct {
	*stmt
	driver.ColumnConverter //nolint:staticcheck // a driver that has nothing newer
}

func wrapStmt(inner driver.Stmt, c *conn, statement string) driver.Stmt {
	if len(statement) > c.tracer.maxStatement {
		statement = cut(statement, c.tracer.maxStatement) // a statement may live long
	}
	s := &stmt{inner, c, statement}
	if cc, ok := inner.(driver.ColumnConverter); ok { //nolint:staticcheck // a driver that has nothing newer
		return convertingStmt{s, cc}
	}
	return s
}

// CheckNamedValue implements driver.NamedValueChecker: that of the connection serves where the statement has none.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return s.c.CheckNamedValue(v)
}

// ExecContext implements driver.StmtExecContext.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	ctx, span := s.c.tracer.start(ctx, execSpan, s.statement)
	result, err := s.exec(ctx, args)
	s.c.tracer.finish(span, err)
	return result, err
}

func (s *stmt) exec(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := s.Stmt.(driver.StmtExecContext); ok {
		return e.ExecContext(ctx, args)
	}
	return withValues(ctx, args, s.Stmt.Exec) //nolint:staticcheck // a driver that has nothing newer
}

// QueryContext implements driver.StmtQueryContext.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	ctx, span := s.c.tracer.start(ctx, querySpan, s.statement)
	rows, err := s.query(ctx, args)
	s.c.tracer.finish(span, err)
	return rows, err
}

func (s *stmt) query(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := s.Stmt.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, args)
	}
	return withValues(ctx, args, s.Stmt.Query) //nolint:staticcheck // a driver that has nothing newer
}
