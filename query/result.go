package query

import (
	"context"
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// resultStream is the stream of an Answer: the engine's result, cut at the request's limit. Its end frees the query.
type resultStream struct {
	run    *run
	ctx    context.Context //nolint:containedctx // the query's own, which ends with the stream
	result engine.Result
	left   int64 // rows that may still be sent; negative = all
	failed error
}

func (r *run) wrap(ctx context.Context, result engine.Result) Stream {
	s := &resultStream{run: r, ctx: ctx, result: result, left: -1}
	if r.req.Limit != nil {
		s.left = *r.req.Limit
	}
	return s
}

// Schema implements Stream.
func (s *resultStream) Schema() *arrow.Schema { return s.result.Schema() }

// Next implements Stream.
func (s *resultStream) Next() (arrow.RecordBatch, error) {
	if s.left == 0 {
		return nil, io.EOF
	}
	batch, err := s.result.Next()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		s.failed = s.run.fail(s.ctx, err)
		return nil, s.failed
	}
	if s.left > 0 {
		if n := batch.NumRows(); n > s.left {
			cut := batch.NewSlice(0, s.left)
			batch.Release()
			batch = cut
		}
		s.left -= batch.NumRows()
	}
	s.run.rows += batch.NumRows()
	return batch, nil
}

// Close implements Stream.
func (s *resultStream) Close() error {
	if s.run.ended {
		return nil
	}
	cerr := s.result.Close()
	if s.failed == nil && s.ctx.Err() != nil {
		s.failed = s.run.fail(s.ctx, s.ctx.Err()) // the caller left before the last row
	}
	s.run.end(s.failed)
	if s.failed == nil && cerr != nil {
		return s.run.fail(s.ctx, cerr)
	}
	return nil
}

// batchResult is a result of batches at hand.
type batchResult struct {
	schema  *arrow.Schema
	batches []arrow.RecordBatch
}

var _ engine.Result = (*batchResult)(nil)

func (b *batchResult) Schema() *arrow.Schema { return b.schema }

func (b *batchResult) Next() (arrow.RecordBatch, error) {
	if len(b.batches) == 0 {
		return nil, io.EOF
	}
	batch := b.batches[0]
	b.batches = b.batches[1:]
	return batch, nil
}

func (b *batchResult) Close() error {
	for _, batch := range b.batches {
		batch.Release()
	}
	b.batches = nil
	return nil
}

// textSchema is a schema of text columns.
func textSchema(names ...string) *arrow.Schema {
	fields := make([]arrow.Field, len(names))
	for i, name := range names {
		fields[i] = arrow.Field{Name: name, Type: arrow.BinaryTypes.String}
	}
	return arrow.NewSchema(fields, nil)
}

func describeSchema() *arrow.Schema { return textSchema("column_name", "data_type", "is_nullable") }

func explainSchema() *arrow.Schema { return textSchema("plan_type", "plan") }

// describeResult makes a schema the rows of DESCRIBE.
func describeResult(s *arrow.Schema) engine.Result {
	c := newColumnBuilder(describeSchema(), s.NumFields())
	for _, f := range s.Fields() {
		c.text(f.Name)
		c.text(typeName(f.Type))
		c.text(yesNo(f.Nullable))
	}
	return &batchResult{describeSchema(), []arrow.RecordBatch{c.batch()}}
}

// typeName writes an Arrow type as information_schema does.
func typeName(t arrow.DataType) string {
	for c := tables.Str; c <= tables.FSB8; c++ {
		for _, dictionaries := range []bool{true, false} {
			if arrow.TypeEqual(c.ArrowType(dictionaries), t) && !c.Dictionary() || dictionaries && arrow.TypeEqual(c.ArrowType(true), t) {
				return c.ArrowTypeName()
			}
		}
	}
	switch t := t.(type) {
	case *arrow.DurationType:
		return "Duration(" + t.Unit.String() + ")"
	case *arrow.Date32Type:
		return "Date32"
	case *arrow.NullType:
		return "Null"
	case *arrow.ListType:
		return "List(" + typeName(t.Elem()) + ")"
	}
	return t.String()
}

// planResult renames the columns of the engine's plan.
type planResult struct{ engine.Result }

func explainResult(r engine.Result) engine.Result { return planResult{r} }

func (p planResult) Schema() *arrow.Schema { return explainSchema() }

func (p planResult) Next() (arrow.RecordBatch, error) {
	batch, err := p.Result.Next()
	if err != nil {
		return nil, err
	}
	defer batch.Release()
	cols := make([]arrow.Array, 2)
	for i := range cols {
		cols[i] = textColumn(batch, i)
		defer cols[i].Release()
	}
	return array.NewRecordBatch(explainSchema(), cols, batch.NumRows()), nil
}

// textColumn returns a column of a batch as text, empty where it is something else.
func textColumn(batch arrow.RecordBatch, i int) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	for row := range int(batch.NumRows()) {
		if i < int(batch.NumCols()) && !batch.Column(i).IsNull(row) {
			b.Append(batch.Column(i).ValueStr(row))
		} else {
			b.Append("")
		}
	}
	return b.NewStringArray()
}
