package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// flightClient connects to the server's FlightSQL address.
func (p *process) flightClient() flight.Client {
	p.T.Helper()
	c, err := flight.NewClientWithMiddleware(p.Flight, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() { c.Close() })
	return c
}

// statementTicket is the ticket that the Python client sends: the statement's text in a packed TicketStatementQuery.
func statementTicket(sql string) (*flight.Ticket, error) {
	packed, err := anypb.New(&pb.TicketStatementQuery{StatementHandle: []byte(sql)})
	if err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(packed)
	if err != nil {
		return nil, err
	}
	return &flight.Ticket{Ticket: raw}, nil
}

// query runs sql by one DoGet and returns the schema and the rows as text, cells joined by '|'.
func (p *process) query(ctx context.Context, sql string) (*arrow.Schema, []string, error) {
	ticket, err := statementTicket(sql)
	if err != nil {
		return nil, nil, err
	}
	return readTicket(ctx, p.flightClient(), ticket)
}

// mustQuery is query over all of time, for tests that are not about its errors.
func (p *process) mustQuery(sql string) []string {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, rows, err := p.query(ctx, sql)
	if err != nil {
		p.T.Fatalf("%s: %v\n%s", sql, err, p.LogTail())
	}
	return rows
}

func readTicket(ctx context.Context, c flight.Client, ticket *flight.Ticket) (*arrow.Schema, []string, error) {
	stream, err := c.DoGet(ctx, ticket)
	if err != nil {
		return nil, nil, err
	}
	r, err := flight.NewRecordReader(stream)
	if err != nil {
		return nil, nil, err
	}
	defer r.Release()
	var rows []string
	for r.Next() {
		rows = deploytest.AppendRows(rows, r.RecordBatch())
	}
	if err := r.Err(); err != nil && !errors.Is(err, io.EOF) {
		return r.Schema(), rows, err
	}
	return r.Schema(), rows, nil
}

// arrowTypeText is how the checks spell a type.
func arrowTypeText(t arrow.DataType) string { return strings.TrimPrefix(t.String(), "type=") }

// logColumns are the columns of log_entries as clients get them: name, and type with and without dictionaries.
var logColumns = [][3]string{
	{"process_id", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"stream_id", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"block_id", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"insert_time", "timestamp[ns, tz=+00:00]", "timestamp[ns, tz=+00:00]"},
	{"exe", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"username", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"computer", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"time", "timestamp[ns, tz=+00:00]", "timestamp[ns, tz=+00:00]"},
	{"target", "dictionary<values=utf8, indices=int32, ordered=false>", "utf8"},
	{"level", "int32", "int32"},
	{"msg", "utf8", "utf8"},
	{"properties", "dictionary<values=binary, indices=int32, ordered=false>", "binary"},
	{"process_properties", "dictionary<values=binary, indices=int32, ordered=false>", "binary"},
}

func checkLogColumns(t *testing.T, p *process) {
	for mode, header := range []map[string]string{{"preserve_dictionary": "true"}, nil} {
		schema, rows, err := p.query(checkContext(t, check{span: whole, header: header}), "SELECT * FROM log_entries")
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 8 || schema.NumFields() != len(logColumns) {
			t.Fatalf("mode %d: %d rows and %d columns, want 8 and %d", mode, len(rows), schema.NumFields(), len(logColumns))
		}
		for i, want := range logColumns {
			f := schema.Field(i)
			if f.Name != want[0] || arrowTypeText(f.Type) != want[1+mode] {
				t.Errorf("mode %d: column %d is %s %s, want %s %s", mode, i, f.Name, f.Type, want[0], want[1+mode])
			}
		}
	}
}

func checkEmpty(t *testing.T, p *process) {
	ticket, err := statementTicket("SELECT * FROM log_entries WHERE level = 99")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := p.flightClient().DoGet(checkContext(t, check{span: whole}), ticket)
	if err != nil {
		t.Fatal(err)
	}
	messages := 0
	for {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		messages++
	}
	if messages != 1 {
		t.Errorf("%d messages, want the schema alone", messages)
	}
	schema, rows, err := p.query(checkContext(t, check{span: whole}), "SELECT * FROM log_entries WHERE level = 99")
	if err != nil || len(rows) != 0 || schema.NumFields() != 13 {
		t.Errorf("%d rows, schema %v, error %v; want 0 rows and 13 fields", len(rows), schema, err)
	}
}

func checkShowTables(t *testing.T, p *process) {
	schema, rows, err := p.query(checkContext(t, check{}), "SHOW TABLES")
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, f := range schema.Fields() {
		columns = append(columns, f.Name)
	}
	if want := []string{"table_catalog", "table_schema", "table_name", "table_type"}; !slices.Equal(columns, want) {
		t.Errorf("columns %v, want %v", columns, want)
	}
	for _, name := range []string{"log_entries", "blocks", "streams", "processes", "measures", "log_stats"} {
		if !slices.ContainsFunc(rows, func(r string) bool { return strings.HasPrefix(r, "datafusion|public|"+name+"|") }) {
			t.Errorf("%s is missing in %q", name, rows)
		}
	}
}

func (p *process) sqlClient() *flightsql.Client {
	p.T.Helper()
	c, err := flightsql.NewClient(p.Flight, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() { c.Close() })
	return c
}

func checkPrepared(t *testing.T, p *process) {
	ctx := checkContext(t, check{})
	const sql = "select count(*) from log_entries"
	prepared, err := p.sqlClient().Prepare(ctx, sql)
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close(ctx)
	if got := string(prepared.Handle()); got != sql {
		t.Errorf("handle %q, want the text", got)
	}
	checkSchema(t, prepared.DatasetSchema(), "count(*) int64")
	before := p.mustQuery("SELECT count(*) FROM list_partitions()")
	second, err := p.sqlClient().Prepare(ctx, names.Replace("SELECT count(*) AS c FROM view_instance('log_entries','P2')"))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close(ctx)
	if after := p.mustQuery("SELECT count(*) FROM list_partitions()"); after[0] != before[0] {
		t.Errorf("preparing made partitions: %s before, %s after", before[0], after[0])
	}
}

func checkFlightInfo(t *testing.T, p *process) {
	ctx := checkContext(t, check{})
	client := p.sqlClient()
	info, err := client.Execute(ctx, "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Endpoint) != 1 || len(info.Endpoint[0].Location) != 0 {
		t.Fatalf("endpoints %v, want one without a location", info.Endpoint)
	}
	schema, rows, err := readTicket(ctx, client.Client, info.Endpoint[0].Ticket)
	if err != nil {
		t.Fatal(err)
	}
	checkSchema(t, schema, "Int64(1) int64 not null")
	if !slices.Equal(rows, []string{"1"}) {
		t.Errorf("rows %q, want 1", rows)
	}
	told, err := flight.DeserializeSchema(info.Schema, nil)
	if err != nil || !told.Equal(schema) {
		t.Errorf("flight info says schema %v (%v), the stream has %v", told, err, schema)
	}
}

func checkTables(t *testing.T, p *process) {
	ctx := checkContext(t, check{})
	client := p.sqlClient()
	info, err := client.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"BASE TABLE", "table"}})
	if err != nil {
		t.Fatal(err)
	}
	_, rows, err := readTicket(ctx, client.Client, info.Endpoint[0].Ticket)
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for _, r := range rows {
		tables = append(tables, strings.Split(r, "|")[2])
	}
	if want := []string{"blocks", "log_entries", "log_stats", "measures", "processes", "streams"}; !slices.Equal(tables, want) {
		t.Errorf("tables %v, want %v", tables, want)
	}

	pattern := "measures"
	info, err = client.GetTables(ctx, &flightsql.GetTablesOpts{TableNameFilterPattern: &pattern, IncludeSchema: true})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	if !reader.Next() || reader.RecordBatch().NumRows() != 1 {
		t.Fatalf("no single row for %s: %v", pattern, reader.Err())
	}
	raw := reader.RecordBatch().Column(4).(*array.Binary).Value(0)
	schema, err := flight.DeserializeSchema(raw, nil)
	if err != nil || schema.NumFields() != 14 {
		t.Errorf("schema of %s: %v, %v; want 14 fields", pattern, schema, err)
	}
}

func checkSQLInfo(t *testing.T, p *process) {
	ctx := checkContext(t, check{})
	client := p.sqlClient()
	info, err := client.GetSqlInfo(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, rows, err := readTicket(ctx, client.Client, info.Endpoint[0].Ticket)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(rows, func(r string) bool {
		return strings.HasPrefix(r, "0|") && strings.Contains(r, "Micromegas Flight SQL Server")
	}) {
		t.Errorf("no server name in %q", rows)
	}
}

// count runs a statement whose answer is one integer.
func (p *process) count(sql string) int {
	p.T.Helper()
	rows := p.mustQuery(sql)
	if len(rows) != 1 {
		p.T.Fatalf("%s: rows %q, want one", sql, rows)
	}
	var n int
	if _, err := fmt.Sscan(rows[0], &n); err != nil {
		p.T.Fatalf("%s: %q is no count", sql, rows[0])
	}
	return n
}
