package flight

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// commands are the FlightSQL commands: statements, prepared statements and metadata.
type commands struct {
	flightsql.BaseServer
	query   query.Querier
	running *running
	infoIDs []uint32
}

// tableType is the one type of table there is.
const tableType = "table"

// utf8Text checks the text of a statement.
func utf8Text(text []byte) (string, bool, error) {
	if !utf8.Valid(text) {
		return "", false, status.Error(codes.InvalidArgument, "the statement is not UTF-8")
	}
	return string(text), true, nil
}

// describe returns the schema that the answer to sql would have.
func (c *commands) describe(ctx context.Context, sql string) (*arrow.Schema, error) {
	req, err := requestOf(ctx, sql)
	if err != nil {
		return nil, err
	}
	schema, err := c.query.Prepare(ctx, req)
	return schema, statusOf(err)
}

// GetFlightInfoStatement plans a statement: one endpoint without a location, whose ticket is the text.
func (c *commands) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	schema, err := c.describe(ctx, q.GetQuery())
	if err != nil {
		return nil, err
	}
	ticket, err := proto.Marshal(&pb.TicketStatementQuery{StatementHandle: []byte(q.GetQuery())})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return info(schema, d, ticket), nil
}

// GetSchemaStatement returns a statement's schema.
func (c *commands) GetSchemaStatement(ctx context.Context, q flightsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	return c.schemaResult(ctx, q.GetQuery())
}

// CreatePreparedStatement plans a statement. The handle is its text, so there is nothing to keep.
func (c *commands) CreatePreparedStatement(ctx context.Context, r flightsql.ActionCreatePreparedStatementRequest) (flightsql.ActionCreatePreparedStatementResult, error) {
	schema, err := c.describe(ctx, r.GetQuery())
	if err != nil {
		return flightsql.ActionCreatePreparedStatementResult{}, err
	}
	return flightsql.ActionCreatePreparedStatementResult{Handle: []byte(r.GetQuery()), DatasetSchema: schema}, nil
}

// ClosePreparedStatement has nothing to do.
func (c *commands) ClosePreparedStatement(context.Context, flightsql.ActionClosePreparedStatementRequest) error {
	return nil
}

// GetFlightInfoPreparedStatement plans a prepared statement again.
func (c *commands) GetFlightInfoPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	sql, _, err := utf8Text(q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	schema, err := c.describe(ctx, sql)
	if err != nil {
		return nil, err
	}
	return info(schema, d, d.GetCmd()), nil
}

// GetSchemaPreparedStatement returns a prepared statement's schema.
func (c *commands) GetSchemaPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	sql, _, err := utf8Text(q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	return c.schemaResult(ctx, sql)
}

func (c *commands) schemaResult(ctx context.Context, sql string) (*flight.SchemaResult, error) {
	schema, err := c.describe(ctx, sql)
	if err != nil {
		return nil, err
	}
	return &flight.SchemaResult{Schema: flight.SerializeSchema(schema, memory.DefaultAllocator)}, nil
}

// CancelFlightInfo ends the caller's running queries whose tickets the info names.
func (c *commands) CancelFlightInfo(ctx context.Context, r *flight.CancelFlightInfoRequest) (flight.CancelFlightInfoResult, error) {
	n := 0
	for _, e := range r.GetInfo().GetEndpoint() {
		if sql, ok, err := statementOf(e.GetTicket().GetTicket()); err == nil && ok {
			n += c.running.cancel(callerOf(ctx), sql)
		}
	}
	if n == 0 {
		return flight.CancelFlightInfoResult{Status: flight.CancelStatusNotCancellable}, nil
	}
	return flight.CancelFlightInfoResult{Status: flight.CancelStatusCancelled}, nil
}

// GetFlightInfoCatalogs and the methods below describe the catalog: one without a name, with one schema without a name.
func (c *commands) GetFlightInfoCatalogs(_ context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return info(schema_ref.Catalogs, d, d.GetCmd()), nil
}

// DoGetCatalogs lists the catalog.
func (c *commands) DoGetCatalogs(context.Context) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return rows(schema_ref.Catalogs, []string{""})
}

// GetFlightInfoSchemas announces the schemas.
func (c *commands) GetFlightInfoSchemas(_ context.Context, _ flightsql.GetDBSchemas, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return info(schema_ref.DBSchemas, d, d.GetCmd()), nil
}

// DoGetDBSchemas lists the schema.
func (c *commands) DoGetDBSchemas(_ context.Context, q flightsql.GetDBSchemas) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	if !equalOrAbsent(q.GetCatalog()) || !matchOrAbsent(q.GetDBSchemaFilterPattern(), "") {
		return rows(schema_ref.DBSchemas)
	}
	return rows(schema_ref.DBSchemas, []string{"", ""})
}

// GetFlightInfoTableTypes announces the types of tables.
func (c *commands) GetFlightInfoTableTypes(_ context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return info(schema_ref.TableTypes, d, d.GetCmd()), nil
}

// DoGetTableTypes lists the types of tables.
func (c *commands) DoGetTableTypes(context.Context) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return rows(schema_ref.TableTypes, []string{tableType})
}

// GetFlightInfoTables announces the tables.
func (c *commands) GetFlightInfoTables(_ context.Context, q flightsql.GetTables, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return info(tablesSchema(q), d, d.GetCmd()), nil
}

// DoGetTables lists the global views that pass the filters, by name.
func (c *commands) DoGetTables(_ context.Context, q flightsql.GetTables) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	schema := tablesSchema(q)
	if !equalOrAbsent(q.GetCatalog()) || !matchOrAbsent(q.GetDBSchemaFilterPattern(), "") || !wantsTables(q.GetTableTypes()) {
		return rows(schema)
	}
	var out [][]string
	for _, t := range tables.All() {
		if !t.Global || !matchOrAbsent(q.GetTableNameFilterPattern(), t.Name) {
			continue
		}
		row := []string{"", "", t.Name, tableType}
		if q.GetIncludeSchema() {
			row = append(row, string(flight.SerializeSchema(t.ArrowSchema(true), memory.DefaultAllocator)))
		}
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b []string) int { return cmp.Compare(a[2], b[2]) })
	return rows(schema, out...)
}

func tablesSchema(q flightsql.GetTables) *arrow.Schema {
	if q.GetIncludeSchema() {
		return schema_ref.TablesWithIncludedSchema
	}
	return schema_ref.Tables
}

// wantsTables reports whether a filter on types lets tables through. Drivers spell the type in several ways.
func wantsTables(types []string) bool {
	return len(types) == 0 || slices.ContainsFunc(types, func(t string) bool {
		return strings.EqualFold(t, tableType) || strings.EqualFold(t, "BASE TABLE")
	})
}

func equalOrAbsent(catalog *string) bool { return catalog == nil || *catalog == "" }

func matchOrAbsent(pattern *string, name string) bool {
	return pattern == nil || like(*pattern, name)
}

// like matches a LIKE pattern: % is any text, _ any character, a backslash takes the next character as it is.
// It runs in the product of the lengths at worst, whatever the pattern.
func like(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	pi, ti := 0, 0
	star, retry := -1, 0
	for ti < len(t) {
		lit := pi
		if pi+1 < len(p) && p[pi] == '\\' {
			lit = pi + 1
		}
		switch {
		case pi < len(p) && lit == pi && p[pi] == '%':
			star, retry = pi, ti
			pi++
		case lit < len(p) && (p[lit] == t[ti] || lit == pi && p[pi] == '_'):
			pi, ti = lit+1, ti+1
		case star >= 0:
			retry++
			pi, ti = star+1, retry
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '%' {
		pi++
	}
	return pi == len(p)
}

// info makes the FlightInfo of one endpoint, to be fetched over the same connection.
func info(schema *arrow.Schema, d *flight.FlightDescriptor, ticket []byte) *flight.FlightInfo {
	return &flight.FlightInfo{
		Schema:           flight.SerializeSchema(schema, memory.DefaultAllocator),
		FlightDescriptor: d,
		Endpoint:         []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: ticket}}},
		TotalRecords:     -1,
		TotalBytes:       -1,
	}
}

// rows makes an answer of text and binary columns.
func rows(schema *arrow.Schema, data ...[]string) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, row := range data {
		for i, v := range row {
			switch f := b.Field(i).(type) {
			case *array.StringBuilder:
				f.Append(v)
			case *array.BinaryBuilder:
				f.AppendString(v)
			}
		}
	}
	return schema, chunk(b.NewRecordBatch()), nil
}

// chunk gives one batch, and nothing when it is empty.
func chunk(batch arrow.RecordBatch) <-chan flight.StreamChunk {
	ch := make(chan flight.StreamChunk, 1)
	if batch.NumRows() > 0 {
		ch <- flight.StreamChunk{Data: batch}
	} else {
		batch.Release()
	}
	close(ch)
	return ch
}
