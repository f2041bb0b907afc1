// Package sqltrace records what a program asks of a database through database/sql with package sdk:
//
//	connector, err := driver.OpenConnector(dsn) // or sqltrace.Open(driver, dsn)
//	db := sql.OpenDB(sqltrace.Wrap(connector, sqltrace.Options{Name: "orders"}))
//
// Each call of the driver that talks to the database is a span in the context of the call: sql.connect, sql.ping, sql.prepare, sql.exec,
// sql.query, sql.begin, sql.commit and sql.rollback, with the properties db (Options.Name), statement and error. A query's span ends when the
// driver has answered, not when the rows are read. Commit and rollback have no context, so theirs is that of the transaction's begin.
// The counter sql_errors counts the calls that failed. Arguments are not recorded; what an error says, and constants in statements, are.
//
// The driver behaves as before: database/sql asks a driver what else it can do, and gets the answers that it would get without the wrapper. A
// function given to sql.Conn.Raw gets the wrapper, see Unwrap.
//
// Nothing here uses a database of its own. A database that a sink keeps telemetry in must not be wrapped: what it writes would make more to write.
package sqltrace

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/sdk"
)

// DefaultMaxStatement is how many bytes of a statement are recorded unless Options say otherwise.
const DefaultMaxStatement = 2 << 10

// Options change what Wrap does.
type Options struct {
	// Name is the database's in the property db; "" = there is no such property. It is one of few.
	Name string
	// MaxStatement is how many bytes of a statement are recorded: DefaultMaxStatement. Negative = statements are not recorded.
	MaxStatement int
}

// The spans. A call that the driver declines, to have the statement prepared first, is one with the property "declined".
var (
	connectSpan  = sdk.NewSpan("sql.connect")
	pingSpan     = sdk.NewSpan("sql.ping")
	prepareSpan  = sdk.NewSpan("sql.prepare")
	execSpan     = sdk.NewSpan("sql.exec")
	querySpan    = sdk.NewSpan("sql.query")
	beginSpan    = sdk.NewSpan("sql.begin")
	commitSpan   = sdk.NewSpan("sql.commit")
	rollbackSpan = sdk.NewSpan("sql.rollback")
	sqlErrors    = sdk.NewCounter("sql_errors", "count")
)

// Wrap returns a connector whose connections are recorded.
func Wrap(c driver.Connector, o Options) driver.Connector {
	if o.MaxStatement == 0 {
		o.MaxStatement = DefaultMaxStatement
	}
	t := &tracer{maxStatement: max(0, o.MaxStatement)}
	if o.Name != "" {
		t.props = sdk.Props("db", o.Name)
	}
	return &connector{c, t}
}

// Open returns a connector of a driver that may have none of its own, to be given to Wrap.
func Open(d driver.Driver, dsn string) (driver.Connector, error) {
	if c, ok := d.(driver.DriverContext); ok {
		return c.OpenConnector(dsn)
	}
	return dsnConnector{d, dsn}, nil
}

// Unwrap returns the driver's connection of what a function given to sql.Conn.Raw gets.
func Unwrap(driverConn any) any {
	if c, ok := driverConn.(interface{ unwrap() driver.Conn }); ok {
		return c.unwrap()
	}
	return driverConn
}

// dsnConnector is what database/sql makes of a driver without connectors.
type dsnConnector struct {
	driver driver.Driver
	dsn    string
}

// Connect implements driver.Connector.
func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements driver.Connector.
func (c dsnConnector) Driver() driver.Driver { return c.driver }

// tracer records calls.
type tracer struct {
	props        *sdk.Properties
	maxStatement int // bytes; 0 = not recorded
}

// start opens the span of a call. The caller must finish it.
func (t *tracer) start(ctx context.Context, site *sdk.Span, statement string) (context.Context, *sdk.ContextSpan) {
	ctx, span := site.Start(ctx)
	span.Set(t.props)
	if span != nil && statement != "" && t.maxStatement > 0 {
		span.SetText("statement", cut(statement, t.maxStatement))
	}
	return ctx, span
}

// finish ends the span of a call.
func (t *tracer) finish(span *sdk.ContextSpan, err error) {
	switch {
	case err == nil:
	case errors.Is(err, driver.ErrSkip):
		span.SetText("declined", "true")
	default:
		sqlErrors.Add(1)
		if span != nil {
			span.SetText("error", err.Error())
		}
	}
	span.End()
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

type connector struct {
	driver.Connector
	tracer *tracer
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, span := c.tracer.start(ctx, connectSpan, "")
	inner, err := c.Connector.Connect(ctx)
	c.tracer.finish(span, err)
	if err != nil {
		return nil, err
	}
	return wrapConn(inner, c.tracer), nil
}

// Close implements io.Closer, which sql.DB.Close asks for.
func (c *connector) Close() error {
	if closer, ok := c.Connector.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}
