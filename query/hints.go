package query

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// describe returns the schema of the answer without executing the statement.
func (r *run) describe(ctx context.Context) (*arrow.Schema, error) {
	sql, opts, err := r.execution(ctx)
	if err != nil {
		return nil, err
	}
	return r.conn.Describe(ctx, sql, opts)
}

// execution returns what the engine is to run, and what its columns must look like.
func (r *run) execution(ctx context.Context) (string, engine.QueryOptions, error) {
	opts := engine.QueryOptions{PreserveDictionary: r.req.PreserveDictionary}
	switch r.st.Kind {
	case dialect.Explain:
		return "EXPLAIN " + r.st.SQL, opts, nil
	case dialect.ExplainAnalyze:
		return "EXPLAIN ANALYZE " + r.st.SQL, opts, nil
	}
	if err := r.settleDifferences(ctx, opts); err != nil {
		return "", opts, err
	}
	columns := r.st.Columns
	if columns == nil {
		plain, err := r.conn.Describe(ctx, r.st.SQL, opts)
		if err != nil {
			return "", opts, err
		}
		columns = r.guess(plain)
	}
	opts.Hints = make([]engine.Hint, len(columns))
	for i, c := range columns {
		opts.Hints[i] = hintOf(c, r.req.PreserveDictionary)
	}
	return r.st.SQL, opts, nil
}

// settleDifferences finds out which differences are of timestamps: the dialect cannot know the types of all columns, and the
// engine's own difference of timestamps is an INTERVAL of microseconds.
func (r *run) settleDifferences(ctx context.Context, opts engine.QueryOptions) error {
	unknown := false
	for i := range r.st.Columns {
		unknown = unknown || r.st.Columns[i].Minus
	}
	if !unknown {
		return nil
	}
	schema, err := r.conn.Describe(ctx, r.st.SQL, opts)
	if err != nil {
		return err
	}
	var intervals []int
	for i, f := range schema.Fields() {
		if i < len(r.st.Columns) && r.st.Columns[i].Minus && f.Type.ID() == arrow.INTERVAL_MONTH_DAY_NANO {
			intervals = append(intervals, i)
		}
	}
	if len(intervals) == 0 {
		return nil
	}
	r.st, err = r.st.Durations(ctx, r.s.parts.Engine, intervals)
	return err
}

// hintOf says how a column leaves the engine.
func hintOf(c dialect.Column, preserveDictionary bool) engine.Hint {
	h := engine.Hint{NotNull: c.NotNull}
	switch {
	case c.Duration:
		h.Type = arrow.FixedWidthTypes.Duration_ns
	case c.Decimal:
		h.Type = &arrow.Decimal128Type{}
	case c.Type != 0:
		h.Type = c.Type.ArrowType(preserveDictionary)
	}
	return h
}

// guess gives the columns of a statement with a star the types that their names have in its tables. A name that has
// different types there gets none. Nullability is taken over only from a lone table, since a join may add NULLs.
func (r *run) guess(schema *arrow.Schema) []dialect.Column {
	var sources []*tables.Table
	for _, t := range r.st.Tables {
		sources = append(sources, t.Table)
	}
	for _, v := range r.st.Instances {
		sources = append(sources, v.Table)
	}
	for _, f := range r.st.Functions {
		if t, ok := tables.Function(f.Name); ok {
			sources = append(sources, t)
		}
	}
	out := make([]dialect.Column, schema.NumFields())
	for i, f := range schema.Fields() {
		out[i].Name = f.Name
		for _, t := range sources {
			c, ok := t.Column(f.Name)
			if !ok {
				continue
			}
			if out[i].Type != 0 && out[i].Type != c.Type {
				out[i].Type = 0
				break
			}
			out[i].Type = c.Type
		}
	}
	if len(sources) == 1 && sameNames(schema, sources[0]) {
		for i := range out {
			out[i].NotNull = !sources[0].Columns[i].Nullable
		}
	}
	return out
}

func sameNames(schema *arrow.Schema, t *tables.Table) bool {
	if schema.NumFields() != len(t.Columns) {
		return false
	}
	for i, f := range schema.Fields() {
		if f.Name != t.Columns[i].Name {
			return false
		}
	}
	return true
}
