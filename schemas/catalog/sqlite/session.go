package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
)

// session is the one connection that writes. It talks to the driver directly: database/sql's checks and conversions cost
// more than SQLite's own work on a small row. It keeps each statement prepared, by its text, and is used by one
// goroutine at a time.
//
// The texts are constants or made from them for a handful of row counts, so the set of statements is bounded.
type session struct {
	conn  driver.Conn
	stmts map[string]*statement
	named []driver.NamedValue // reused by each call
}

// statement is what a prepared statement of the driver can do.
type statement struct {
	driver.Stmt
	execer  driver.StmtExecContext
	queryer driver.StmtQueryContext
}

func newSession(conn driver.Conn) *session {
	return &session{conn: conn, stmts: map[string]*statement{}}
}

func (s *session) prepare(query string) (*statement, error) {
	if st, ok := s.stmts[query]; ok {
		return st, nil
	}
	stmt, err := s.conn.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", firstLine(query), err)
	}
	execer, canExec := stmt.(driver.StmtExecContext)
	queryer, canQuery := stmt.(driver.StmtQueryContext)
	if !canExec || !canQuery {
		return nil, errors.Join(errors.New("sqlite driver without contexts"), stmt.Close())
	}
	st := &statement{stmt, execer, queryer}
	s.stmts[query] = st
	return st, nil
}

func (s *session) bind(args []driver.Value) []driver.NamedValue {
	s.named = s.named[:0]
	for i, a := range args {
		s.named = append(s.named, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s.named
}

// exec runs a statement and returns the number of rows it changed. Arguments must be int64, string, []byte or nil.
// There is no context: a statement on the writer runs to its end.
func (s *session) exec(query string, args ...driver.Value) (int64, error) {
	st, err := s.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := st.execer.ExecContext(context.Background(), s.bind(args))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", firstLine(query), err)
	}
	return res.RowsAffected()
}

// query calls each with the values of every row; they are valid during the call only.
func (s *session) query(query string, each func(row []driver.Value) error, args ...driver.Value) (err error) {
	st, err := s.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.queryer.QueryContext(context.Background(), s.bind(args))
	if err != nil {
		return fmt.Errorf("%s: %w", firstLine(query), err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", firstLine(query), err)
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// queryInt returns the first column of the first row; errNoRow when there is none.
func (s *session) queryInt(query string, args ...driver.Value) (int64, error) {
	n, found := int64(0), false
	err := s.query(query, func(row []driver.Value) error {
		if v, ok := row[0].(int64); ok && !found {
			n, found = v, true
		}
		return nil
	}, args...)
	if err == nil && !found {
		err = errNoRow
	}
	return n, err
}

var errNoRow = errors.New("no row")

// execScript runs several statements without arguments, unprepared.
func (s *session) execScript(text string) error {
	execer, ok := s.conn.(driver.ExecerContext)
	if !ok {
		return errors.New("sqlite driver without ExecerContext")
	}
	_, err := execer.ExecContext(context.Background(), text, nil)
	return err
}

// rollback ends the transaction, if SQLite has not ended it by itself already.
func (s *session) rollback() {
	_, _ = s.exec("ROLLBACK") // the one error is that there is no transaction
}

func (s *session) close() error {
	var err error
	for _, st := range s.stmts {
		err = errors.Join(err, st.Close())
	}
	return errors.Join(err, s.conn.Close())
}

func firstLine(query string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(query), "\n")
	if len(line) > 60 {
		line = line[:60] + "…"
	}
	return line
}

// groupSizes are the row counts of multi-row statements: one prepared text each. A statement of 64 block rows costs per
// row a third of 64 statements of one row; beyond that nothing is gained.
var groupSizes = [...]int{64, 8, 1}

// inGroups cuts n rows into groups of groupSizes.
func inGroups(n int, each func(from, to int) error) error {
	from := 0
	for _, size := range groupSizes {
		for ; n-from >= size; from += size {
			if err := each(from, from+size); err != nil {
				return err
			}
		}
	}
	return nil
}

// multi is a statement with a list of rows in its middle, prepared for the group sizes.
type multi map[int]string

// newMulti makes the texts: before, then "(?,?),(?,?)…" of so many columns, then after.
func newMulti(before string, columns int, after string) multi {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	m := multi{}
	for _, n := range groupSizes {
		m[n] = before + strings.TrimSuffix(strings.Repeat(row+",", n), ",") + after
	}
	return m
}
