// Package pgxtrace records what a program asks of PostgreSQL through pgx with package sdk:
//
//	config, err := pgxpool.ParseConfig(url)
//	config.ConnConfig.Tracer = pgxtrace.New(pgxtrace.Options{Name: "orders"})
//
// Each call is a span in its context: pg.connect, pg.query (Query, QueryRow and Exec), pg.prepare, pg.batch and pg.copy_from, with the
// properties db (Options.Name), statement, command_tag as the server answered, and error. A query's span ends when its rows are closed. That of a
// batch has the first statements as statement.0, statement.1 …, and their number as statements. The counter pg_errors counts the calls
// that failed. Arguments are not recorded; what an error says, and constants in statements, are.
//
// Nothing here uses a database of its own. A database that a sink keeps telemetry in must not have the tracer: what it writes would make more to
// write.
package pgxtrace

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/sdk"
)

// DefaultMaxStatement is how many bytes of a statement are recorded unless Options say otherwise.
const DefaultMaxStatement = 2 << 10

// maxBatchStatements is how many statements of a batch are recorded.
const maxBatchStatements = 16

// Options change a tracer.
type Options struct {
	// Name is the database's in the property db; "" = there is no such property. It is one of few.
	Name string
	// MaxStatement is how many bytes of a statement are recorded: DefaultMaxStatement. Negative = statements are not recorded.
	MaxStatement int
}

var (
	connectSpan  = sdk.NewSpan("pg.connect")
	querySpan    = sdk.NewSpan("pg.query")
	prepareSpan  = sdk.NewSpan("pg.prepare")
	batchSpan    = sdk.NewSpan("pg.batch")
	copyFromSpan = sdk.NewSpan("pg.copy_from")
	pgErrors     = sdk.NewCounter("pg_errors", "count")
)

// Tracer is what pgx.ConnConfig.Tracer takes. Connections may share one.
type Tracer struct {
	props        *sdk.Properties
	maxStatement int // bytes; 0 = not recorded
}

var (
	_ pgx.QueryTracer    = (*Tracer)(nil)
	_ pgx.BatchTracer    = (*Tracer)(nil)
	_ pgx.CopyFromTracer = (*Tracer)(nil)
	_ pgx.PrepareTracer  = (*Tracer)(nil)
	_ pgx.ConnectTracer  = (*Tracer)(nil)
)

// New returns a tracer.
func New(o Options) *Tracer {
	if o.MaxStatement == 0 {
		o.MaxStatement = DefaultMaxStatement
	}
	t := &Tracer{maxStatement: max(0, o.MaxStatement)}
	if o.Name != "" {
		t.props = sdk.Props("db", o.Name)
	}
	return t
}

// call is a call under way. pgx takes it from start to end in the context.
type call struct {
	span       *sdk.ContextSpan // nil = not recorded
	statements int              // of a batch
}

type callKey struct{}

// start opens the span of a call. The context has the call also when there is no span: its end must not find the call around it.
func (t *Tracer) start(ctx context.Context, site *sdk.Span, statement string) context.Context {
	ctx, span := site.Start(ctx)
	span.Set(t.props)
	t.statement(span, "statement", statement)
	return context.WithValue(ctx, callKey{}, &call{span: span})
}

// statement records a statement as a property.
func (t *Tracer) statement(span *sdk.ContextSpan, key, statement string) {
	if span != nil && statement != "" && t.maxStatement > 0 {
		span.SetText(key, cut(statement, t.maxStatement))
	}
}

// end ends the span of a call.
func end(ctx context.Context, tag string, err error) {
	if err != nil {
		pgErrors.Add(1)
	}
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil || c.span == nil {
		return
	}
	if tag != "" {
		c.span.SetText("command_tag", tag)
	}
	if c.statements > 0 {
		c.span.SetText("statements", strconv.Itoa(c.statements))
	}
	if err != nil {
		c.span.SetText("error", err.Error())
	}
	c.span.End()
}

// cut returns at most n bytes of a text, whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimSpace(s[:n])
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	return t.start(ctx, querySpan, d.SQL)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *Tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	end(ctx, d.CommandTag.String(), d.Err)
}

// TraceBatchStart implements pgx.BatchTracer.
func (t *Tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return t.start(ctx, batchSpan, "")
}

// TraceBatchQuery implements pgx.BatchTracer.
func (t *Tracer) TraceBatchQuery(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil || c.span == nil {
		return
	}
	n := strconv.Itoa(c.statements)
	if c.statements < maxBatchStatements {
		t.statement(c.span, "statement."+n, d.SQL)
	}
	if d.Err != nil {
		c.span.SetText("failed_statement", n)
	}
	c.statements++
}

// TraceBatchEnd implements pgx.BatchTracer.
func (t *Tracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchEndData) {
	end(ctx, "", d.Err)
}

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (t *Tracer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceCopyFromStartData) context.Context {
	return t.start(ctx, copyFromSpan, "COPY "+d.TableName.Sanitize())
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (t *Tracer) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceCopyFromEndData) {
	end(ctx, d.CommandTag.String(), d.Err)
}

// TracePrepareStart implements pgx.PrepareTracer.
func (t *Tracer) TracePrepareStart(ctx context.Context, _ *pgx.Conn, d pgx.TracePrepareStartData) context.Context {
	return t.start(ctx, prepareSpan, d.SQL)
}

// TracePrepareEnd implements pgx.PrepareTracer.
func (t *Tracer) TracePrepareEnd(ctx context.Context, _ *pgx.Conn, d pgx.TracePrepareEndData) {
	end(ctx, "", d.Err)
}

// TraceConnectStart implements pgx.ConnectTracer.
func (t *Tracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return t.start(ctx, connectSpan, "")
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (t *Tracer) TraceConnectEnd(ctx context.Context, d pgx.TraceConnectEndData) {
	end(ctx, "", d.Err)
}
