package sqltest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/sqltest"
)

// stand is an engine with the fixture's relations.
type stand struct {
	engine *engine.Engine
	admin  bool
}

func newStand(t testing.TB, scripts ...string) *stand {
	t.Helper()
	e := sqltest.OpenEngine(t, scripts...)
	return &stand{engine: e, admin: true}
}

// ours is the folder of the statements that are our own.
const ours = "testdata/dialect"

// newFixture loads the fixture that all statements are written for.
func newFixture(t testing.TB) *stand {
	t.Helper()
	s := newStand(t)
	sqltest.LoadFixture(t, s.engine)
	return s
}

// Execute rewrites a statement, makes its views, and runs it.
func (s *stand) Execute(ctx context.Context, sql string) (*sqltest.Result, error) {
	st, err := dialect.Rewrite(ctx, s.engine, sqltest.FixtureNames{}, sql, dialect.Options{Admin: s.admin, Eval: s.engine.Eval})
	if err != nil {
		return nil, err
	}
	conn, err := s.engine.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for _, f := range st.Functions {
		if err := conn.Exec(ctx, fmt.Sprintf(`CREATE TEMP VIEW "%s" AS %s`, f.ViewName, sqltest.FixtureFunction(f.Name))); err != nil {
			return nil, err
		}
	}
	for _, i := range st.Internals {
		if err := conn.Exec(ctx, fmt.Sprintf(`CREATE TEMP VIEW "%s" AS %s`, i.ViewName(), internalStandIn(i))); err != nil {
			return nil, err
		}
	}
	if st, err = s.differences(ctx, conn, st); err != nil {
		return nil, mapError(err, st)
	}
	rows, err := conn.Query(ctx, st.SQL, engine.QueryOptions{Hints: hints(st)})
	if err != nil {
		return nil, mapError(err, st)
	}
	defer rows.Close()
	got := &sqltest.Result{}
	got.Append(rows.Schema(), nil)
	for {
		batch, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return nil, mapError(err, st)
		}
		got.Append(rows.Schema(), batch)
		batch.Release()
	}
}

// differences asks for nanoseconds where the engine would give an interval.
func (s *stand) differences(ctx context.Context, conn *engine.Conn, st *dialect.Statement) (*dialect.Statement, error) {
	if !slices.ContainsFunc(st.Columns, func(c dialect.Column) bool { return c.Minus }) {
		return st, nil
	}
	schema, err := conn.Describe(ctx, st.SQL, engine.QueryOptions{})
	if err != nil {
		return st, err
	}
	var columns []int
	for i, c := range st.Columns {
		if c.Minus && schema.Field(i).Type.ID() == arrow.INTERVAL_MONTH_DAY_NANO {
			columns = append(columns, i)
		}
	}
	return st.Durations(ctx, s.engine, columns)
}

func hints(st *dialect.Statement) []engine.Hint {
	out := make([]engine.Hint, len(st.Columns))
	for i, c := range st.Columns {
		if c.Duration {
			out[i].Type = arrow.FixedWidthTypes.Duration_ns
		}
		out[i].NotNull = c.NotNull
	}
	return out
}

func mapError(err error, st *dialect.Statement) error {
	var fault *engine.Error
	if !errors.As(err, &fault) {
		return err
	}
	return dialect.MapEngineError(dialect.EngineFault{
		Class: fault.Class.String(), Message: fault.Message, Subtype: fault.Subtype, Kind: fault.Kind, Name: fault.Name, Candidates: fault.Candidates,
	}, st)
}

func internalStandIn(i dialect.Internal) string {
	switch i {
	case dialect.InternalTables:
		return "SELECT 'datafusion' AS table_catalog, 'public' AS table_schema, 'log_entries' AS table_name, 'BASE TABLE' AS table_type"
	case dialect.InternalColumns:
		return "SELECT 'datafusion' AS table_catalog, 'public' AS table_schema, 'log_entries' AS table_name, 'time' AS column_name, CAST(7 AS UBIGINT) AS ordinal_position, 'NO' AS is_nullable, 'Timestamp(ns, \"+00:00\")' AS data_type"
	}
	return "SELECT 1 AS routine_name, 2 AS function_type"
}

func TestPublishedStatements(t *testing.T) {
	dir := sqltest.SpecDir(t)
	s := newFixture(t)
	files, err := filepath.Glob(filepath.Join(dir, "1*.sql"))
	if err != nil || len(files) != 7 {
		t.Fatalf("files %v, error %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			sqltest.Run(t, file, s.Execute, sqltest.CheckShape, sqltest.Unfit)
		})
	}
}

func TestExpressions(t *testing.T) {
	s := newFixture(t)
	sqltest.Run(t, filepath.Join(ours, "expressions.sql"), s.Execute, sqltest.CheckValue, nil)
}

func TestStatements(t *testing.T) {
	s := newFixture(t)
	sqltest.Run(t, filepath.Join(ours, "statements.sql"), s.Execute, sqltest.CheckRows, nil)
}

func TestRefusedStatements(t *testing.T) {
	s := newFixture(t)
	cases, err := sqltest.ReadCases(filepath.Join(ours, "refused.sql"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		_, err := dialect.Rewrite(t.Context(), s.engine, sqltest.FixtureNames{}, c.SQL, dialect.Options{Admin: true})
		if _, ok := errors.AsType[*dialect.Error](err); !ok {
			t.Errorf("line %d: %s: got %v, want a refusal", c.Line, c.SQL, err)
			continue
		}
		want := c.Expected()
		if strings.HasPrefix(want, "a scope trick") {
			want = "table 'x.csv' not found"
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("line %d: %s:\n got %v\nwant %s", c.Line, c.SQL, err, want)
		}
	}
	if got, err := s.Execute(t.Context(), "SELECT 1"); err != nil || len(got.Rows) != 1 {
		t.Fatalf("after the refusals SELECT 1 gives %v, %v", got, err)
	}
	if len(cases) < 40 {
		t.Fatalf("read %d cases only", len(cases))
	}
}

func TestErrors(t *testing.T) {
	s := newFixture(t)
	cases, err := sqltest.ReadCases(filepath.Join(ours, "errors.sql"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		_, err := s.Execute(t.Context(), c.SQL)
		var fault *dialect.Error
		if !errors.As(err, &fault) || fault.Code != dialect.Invalid || !strings.Contains(err.Error(), c.Expected()) {
			t.Errorf("line %d: %s:\n got %v\nwant %s", c.Line, c.SQL, err, c.Expected())
		}
	}
}

func TestScripts(t *testing.T) {
	s := newFixture(t)
	sqltest.RunScripts(t, "testdata/*.test", s.Execute)
}
