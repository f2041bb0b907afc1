package flight_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	aflight "github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/flight"
	"github.com/micromegas-go/micromegas/schemas/identity"
)

// fake answers every statement with the batches of its plan.
type fake struct {
	schema   *arrow.Schema
	batches  func(yield func(arrow.RecordBatch, error) bool)
	warnings []string
	err      error
	last     atomic.Pointer[query.Request]
	closed   atomic.Int64
}

func (f *fake) Query(ctx context.Context, req query.Request) (*query.Answer, error) {
	f.last.Store(&req)
	if f.err != nil {
		return nil, f.err
	}
	s := &fakeStream{ctx: ctx, schema: f.schema, closed: &f.closed}
	s.next, s.stop = pull(f.batches)
	return query.NewAnswer("id", f.warnings, s), nil
}

func (f *fake) Prepare(_ context.Context, req query.Request) (*arrow.Schema, error) {
	f.last.Store(&req)
	return f.schema, f.err
}

type fakeStream struct {
	ctx    context.Context
	schema *arrow.Schema
	next   func() (arrow.RecordBatch, error, bool)
	stop   func()
	closed *atomic.Int64
}

func (s *fakeStream) Schema() *arrow.Schema { return s.schema }

func (s *fakeStream) Next() (arrow.RecordBatch, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	b, err, ok := s.next()
	if !ok {
		return nil, io.EOF
	}
	return b, err
}

func (s *fakeStream) Close() error {
	s.stop()
	s.closed.Add(1)
	return nil
}

func numbers() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "s", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
}

// numberBatch has rows from, from+1, …; every third text is NULL.
func numberBatch(from, rows int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, numbers())
	defer b.Release()
	for i := from; i < from+rows; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		if i%3 == 0 {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("text %d", i))
		}
	}
	return b.NewRecordBatch()
}

func plan(sizes ...int) func(func(arrow.RecordBatch, error) bool) {
	return func(yield func(arrow.RecordBatch, error) bool) {
		at := 0
		for _, n := range sizes {
			if !yield(numberBatch(at, n), nil) {
				return
			}
			at += n
		}
	}
}

// serve starts a server on loopback and returns its address.
func serve(t testing.TB, q query.Querier, keys *identity.Keys) (string, *flight.Server) {
	t.Helper()
	s, err := flight.New(flight.DefaultConfig(), q, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), s
}

func dial(t testing.TB, addr, token string) *client.Client {
	t.Helper()
	c, err := client.Dial("grpc://"+addr, client.Options{BearerToken: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func raw(t testing.TB, addr string) pb.FlightServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pb.NewFlightServiceClient(conn)
}

func sqlClient(t testing.TB, addr string) *flightsql.Client {
	t.Helper()
	c, err := flightsql.NewClient(addr, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// drain reads all rows and checks that they are the numbers from 0.
func drain(t *testing.T, rows *client.Rows) (n int, batches int) {
	t.Helper()
	defer rows.Close()
	for {
		b, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return n, batches
		}
		if err != nil {
			t.Fatal(err)
		}
		batches++
		ints, texts := b.Column(0).(*array.Int64), b.Column(1).(*array.String)
		for i := range int(b.NumRows()) {
			if ints.Value(i) != int64(n) || texts.IsNull(i) != (n%3 == 0) || texts.IsValid(i) && texts.Value(i) != fmt.Sprintf("text %d", n) {
				t.Fatalf("row %d is (%d, %s)", n, ints.Value(i), texts.ValueStr(i))
			}
			n++
		}
	}
}

func TestRowsArriveWholeAndInOrder(t *testing.T) {
	f := &fake{schema: numbers(), batches: plan(3, 0, 1, 100_000, 500_000, 7)}
	addr, _ := serve(t, f, nil)
	rows, err := dial(t, addr, "").Query(t.Context(), "SELECT 1", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, batches := drain(t, rows)
	if n != 600_011 {
		t.Errorf("%d rows, want 600011", n)
	}
	// 600,000 rows of about 20 bytes are some 12 MB: at least 5 messages of 2 MiB beside the three small ones.
	if batches < 8 || batches > 16 {
		t.Errorf("%d messages: batches are not cut near 2 MiB, or empty ones are sent", batches)
	}
	if f.closed.Load() != 1 {
		t.Errorf("the answer was closed %d times", f.closed.Load())
	}
}

func TestSchemaAndWarningsComeBeforeRows(t *testing.T) {
	gate := make(chan struct{})
	f := &fake{schema: numbers(), warnings: []string{"shard eager/0 is silent"}, batches: func(yield func(arrow.RecordBatch, error) bool) {
		<-gate
		yield(numberBatch(0, 1), nil)
	}}
	addr, _ := serve(t, f, nil)
	rows, err := dial(t, addr, "").Query(t.Context(), "SELECT 1", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Schema().Equal(numbers()) {
		t.Errorf("schema %s", rows.Schema())
	}
	if got := rows.Warnings(); !slices.Equal(got, f.warnings) {
		t.Errorf("warnings %q", got)
	}
	close(gate)
	if n, _ := drain(t, rows); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestDictionariesAreSent(t *testing.T) {
	kind := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	schema := arrow.NewSchema([]arrow.Field{{Name: "d", Type: kind}}, nil)
	var want []string
	f := &fake{schema: schema, batches: func(yield func(arrow.RecordBatch, error) bool) {
		for i := range 3 {
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			for j := range 50 {
				s := fmt.Sprintf("%d/%d", i, j%4)
				want = append(want, s)
				if err := b.Field(0).(*array.BinaryDictionaryBuilder).AppendString(s); err != nil {
					panic(err)
				}
			}
			batch := b.NewRecordBatch()
			b.Release()
			if !yield(batch, nil) {
				return
			}
		}
	}}
	addr, _ := serve(t, f, nil)
	rows, err := dial(t, addr, "").Query(t.Context(), "SELECT 1", client.QueryOptions{PreserveDictionary: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for {
		b, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		d := b.Column(0).(*array.Dictionary)
		for i := range d.Len() {
			got = append(got, d.Dictionary().(*array.String).Value(d.GetValueIndex(i)))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d texts, want %d equal ones", len(got), len(want))
	}
	if !f.last.Load().PreserveDictionary {
		t.Error("the header did not reach the service")
	}
}

func TestHeaders(t *testing.T) {
	f := &fake{schema: numbers(), batches: plan()}
	addr, _ := serve(t, f, nil)
	c := raw(t, addr)
	call := func(pairs ...string) (query.Request, error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
		ticket, _ := proto.Marshal(&pb.TicketStatementQuery{StatementHandle: []byte("SELECT 1")})
		stream, err := c.DoGet(ctx, &aflight.Ticket{Ticket: ticket})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if r := f.last.Load(); r != nil {
			return *r, err
		}
		return query.Request{}, err
	}
	req, err := call("query_range_begin", "2026-03-01T10:00:30.000000001Z", "query_range_end", "2026-03-01T11:01:00+01:00", "limit", "3", "x-strict", "true")
	if err != nil {
		t.Fatal(err)
	}
	if want := (query.Range{Begin: 1772359230000000001, End: 1772359260000000000}); *req.Range != want {
		t.Errorf("range %+v, want %+v", *req.Range, want)
	}
	if *req.Limit != 3 || !req.Strict || req.SQL != "SELECT 1" {
		t.Errorf("request %+v", req)
	}
	if req, err = call("query_range_begin", "2026-03-01T10:00:30Z"); err != nil || req.Range != nil {
		t.Errorf("one end alone: range %v, error %v; want none", req.Range, err)
	}
	if req, err = call("query_range_begin", "0001-01-01T00:00:00Z", "query_range_end", "9999-12-31T00:00:00Z"); err != nil || req.Range.Begin > 0 || req.Range.End < 1<<62 {
		t.Errorf("range beyond nanoseconds: %v, error %v", req.Range, err)
	}
	for _, bad := range [][]string{
		{"query_range_begin", "yesterday", "query_range_end", "2026-03-01T10:00:30Z"},
		{"limit", "x"},
		{"limit", ""},
		{"limit", "-1"},
	} {
		if _, err := call(bad...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("headers %q: %v", bad, err)
		}
	}
}

func TestTicketsOfAllClients(t *testing.T) {
	f := &fake{schema: numbers(), batches: plan(2)}
	addr, _ := serve(t, f, nil)
	c := raw(t, addr)
	wrap := func(m proto.Message) []byte {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		out, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	bare, err := proto.Marshal(&pb.TicketStatementQuery{StatementHandle: []byte("SELECT 7")})
	if err != nil {
		t.Fatal(err)
	}
	for name, ticket := range map[string][]byte{
		"bare":     bare,
		"any":      wrap(&pb.TicketStatementQuery{StatementHandle: []byte("SELECT 7")}),
		"prepared": wrap(&pb.CommandPreparedStatementQuery{PreparedStatementHandle: []byte("SELECT 7")}),
	} {
		stream, err := c.DoGet(t.Context(), &aflight.Ticket{Ticket: ticket})
		if err != nil {
			t.Fatal(err)
		}
		r, err := aflight.NewRecordReader(stream)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows := int64(0)
		for r.Next() {
			rows += r.RecordBatch().NumRows()
		}
		if r.Err() != nil || rows != 2 || f.last.Load().SQL != "SELECT 7" {
			t.Errorf("%s: %d rows of %q, error %v", name, rows, f.last.Load().SQL, r.Err())
		}
		r.Release()
	}
	for name, ticket := range map[string][]byte{"garbage": {0xff, 0xff, 0xff}, "not UTF-8": wrap(&pb.TicketStatementQuery{StatementHandle: []byte{0xc3, 0x28}})} {
		stream, err := c.DoGet(t.Context(), &aflight.Ticket{Ticket: ticket})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsKeepCodeAndText(t *testing.T) {
	f := &fake{err: &query.Error{Code: codes.InvalidArgument, Phase: "error building dataframe", Message: "SQL error: no", Line: 1, Column: 3, Help: "try", QueryID: "q"}}
	addr, _ := serve(t, f, nil)
	_, err := dial(t, addr, "").Query(t.Context(), "SELEC", client.QueryOptions{})
	want := "error building dataframe: SQL error: no (at line 1, column 3)\nhelp: try (query_id=q)"
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || s.Message() != want {
		t.Errorf("got %v %q, want %q", s.Code(), s.Message(), want)
	}
	f = &fake{schema: numbers(), batches: func(yield func(arrow.RecordBatch, error) bool) {
		if yield(numberBatch(0, 5), nil) {
			yield(nil, &query.Error{Code: codes.ResourceExhausted, Message: "memory"})
		}
	}}
	addr, _ = serve(t, f, nil)
	rows, err := dial(t, addr, "").Query(t.Context(), "SELECT", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if b, err := rows.Next(); err != nil || b.NumRows() != 5 {
		t.Fatalf("rows before the error: %v", err)
	}
	if _, err := rows.Next(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error in the stream: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	keys, err := identity.ParseKeys(`[{"name":"a","key":"secret-a"},{"name":"b","key":"secret-b"}]`)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{schema: numbers(), batches: plan(1)}
	addr, _ := serve(t, f, keys)
	if _, err := dial(t, addr, "secret-b").Query(t.Context(), "SELECT 1", client.QueryOptions{}); err != nil {
		t.Errorf("a good key: %v", err)
	}
	c := raw(t, addr)
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "secret-a", "bearer secret-a ", "Basic " + base64.StdEncoding.EncodeToString([]byte("u:secret-a"))} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", header)
		check := func(method string, err error) {
			if status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != "invalid token" {
				t.Errorf("%s with %q: %v", method, header, err)
			}
		}
		stream, err := c.DoGet(ctx, &aflight.Ticket{})
		if err == nil {
			_, err = stream.Recv()
		}
		check("DoGet", err)
		_, err = c.GetFlightInfo(ctx, &aflight.FlightDescriptor{})
		check("GetFlightInfo", err)
		action, err := c.DoAction(ctx, &aflight.Action{Type: "CreatePreparedStatement"})
		if err == nil {
			_, err = action.Recv()
		}
		check("DoAction", err)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health without a key: %v %v", h, err)
	}
}

func TestHandshakeGivesBearer(t *testing.T) {
	keys, err := identity.ParseKeys(`[{"name":"a","key":"secret-a"}]`)
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := serve(t, &fake{schema: numbers(), batches: plan()}, keys)
	fc, err := aflight.NewClientWithMiddleware(addr, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer fc.Close()
	ctx, err := fc.AuthenticateBasicToken(t.Context(), "anyone", "secret-a")
	if err != nil {
		t.Fatal(err)
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	if got := md.Get("authorization"); !slices.Equal(got, []string{"Bearer secret-a"}) {
		t.Errorf("token %q", got)
	}
	if _, err := fc.AuthenticateBasicToken(t.Context(), "anyone", "secret-b"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestMetadataCommands(t *testing.T) {
	f := &fake{schema: numbers(), batches: plan(2)}
	addr, _ := serve(t, f, nil)
	c := sqlClient(t, addr)
	fetch := func(info *aflight.FlightInfo, err error) [][]string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Endpoint) != 1 || len(info.Endpoint[0].Location) != 0 {
			t.Fatalf("endpoints %v", info.Endpoint)
		}
		r, err := c.DoGet(t.Context(), info.Endpoint[0].Ticket)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		told, err := aflight.DeserializeSchema(info.Schema, memory.DefaultAllocator)
		if err != nil || !told.Equal(r.Schema()) {
			t.Errorf("told %s, sent %s (%v)", told, r.Schema(), err)
		}
		var out [][]string
		for r.Next() {
			b := r.RecordBatch()
			for row := range int(b.NumRows()) {
				var cells []string
				for _, col := range b.Columns() {
					cells = append(cells, col.ValueStr(row))
				}
				out = append(out, cells)
			}
		}
		return out
	}
	column := func(rows [][]string, i int) string {
		var s []string
		for _, r := range rows {
			s = append(s, r[i])
		}
		return strings.Join(s, " ")
	}
	ctx := t.Context()
	all := "blocks log_entries log_stats measures processes streams"
	if got := column(fetch(c.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"BASE TABLE", "table"}})), 2); got != all {
		t.Errorf("tables %q", got)
	}
	if got := column(fetch(c.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"TABLE"}})), 3); got != "table table table table table table" {
		t.Errorf("types %q", got)
	}
	pattern := "%s"
	if got := column(fetch(c.GetTables(ctx, &flightsql.GetTablesOpts{TableNameFilterPattern: &pattern, IncludeSchema: true})), 2); got != "blocks log_entries log_stats measures processes streams" {
		t.Errorf("pattern %q: %q", pattern, got)
	}
	pattern = `log\_%`
	if got := column(fetch(c.GetTables(ctx, &flightsql.GetTablesOpts{TableNameFilterPattern: &pattern})), 2); got != "log_entries log_stats" {
		t.Errorf("pattern %q: %q", pattern, got)
	}
	if got := fetch(c.GetCatalogs(ctx)); len(got) != 1 {
		t.Errorf("catalogs %q", got)
	}
	if got := fetch(c.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{})); len(got) != 1 {
		t.Errorf("schemas %q", got)
	}
	if got := column(fetch(c.GetTableTypes(ctx)), 0); got != "table" {
		t.Errorf("types %q", got)
	}
	if got := fetch(c.GetSqlInfo(ctx, []flightsql.SqlInfo{0, 8, 60000})); len(got) != 1 || got[0][0] != "0" || !strings.Contains(got[0][1], "Micromegas Flight SQL Server") {
		t.Errorf("info %q", got)
	}
	if got := fetch(c.GetSqlInfo(ctx, nil)); len(got) != 8 {
		t.Errorf("%d infos", len(got))
	}
	if got := fetch(c.GetSqlInfo(ctx, []flightsql.SqlInfo{8})); len(got) != 0 {
		t.Errorf("an unknown info: %q", got)
	}
	if got := fetch(c.Execute(ctx, "SELECT n")); len(got) != 2 {
		t.Errorf("rows %q", got)
	}
	st, err := c.Prepare(ctx, "SELECT prepared")
	if err != nil {
		t.Fatal(err)
	}
	if !st.DatasetSchema().Equal(numbers()) || string(st.Handle()) != "SELECT prepared" {
		t.Errorf("prepared %q with %s", st.Handle(), st.DatasetSchema())
	}
	if got := fetch(st.Execute(ctx)); len(got) != 2 || f.last.Load().SQL != "SELECT prepared" {
		t.Errorf("rows of the prepared statement %q", got)
	}
	if err := st.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestCancelEndsTheQuery(t *testing.T) {
	endless := func(yield func(arrow.RecordBatch, error) bool) {
		for i := 0; yield(numberBatch(i, 1), nil); i++ {
		}
	}
	f := &fake{schema: numbers(), batches: endless}
	addr, _ := serve(t, f, nil)
	closed := func() int64 { return f.closed.Load() }
	waitFor := func(what string, n int64) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); closed() < n; {
			if time.Now().After(end) {
				t.Fatalf("%s: the query goes on", what)
			}
			time.Sleep(time.Millisecond)
		}
	}
	c := dial(t, addr, "")
	rows, err := c.Query(t.Context(), "SELECT endless", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	waitFor("closed by the client", 1)

	if rows, err = c.Query(t.Context(), "SELECT endless", client.QueryOptions{}); err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	sc := sqlClient(t, addr)
	info, err := sc.Execute(t.Context(), "SELECT endless")
	if err != nil {
		t.Fatal(err)
	}
	res, err := sc.CancelFlightInfo(t.Context(), &aflight.CancelFlightInfoRequest{Info: info})
	if err != nil || res.Status != aflight.CancelStatusCancelled {
		t.Errorf("cancel: %v %v", res.Status, err)
	}
	waitFor("cancelled by CancelFlightInfo", 2)
}

// followedFake has views to build: it answers when the client has been told how far they are.
type followedFake struct {
	fake
	told chan struct{}
}

func (f *followedFake) Query(ctx context.Context, req query.Request) (*query.Answer, error) {
	if req.Progress != nil {
		req.Progress(query.Progress{Done: 3, Blocks: 17})
		select {
		case <-f.told:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return f.fake.Query(ctx, req)
}

// serveFollowed starts a server of a followedFake, for the callers a and b.
func serveFollowed(t *testing.T) (*followedFake, string) {
	t.Helper()
	keys, err := identity.ParseKeys(`[{"name":"a","key":"secret-a"},{"name":"b","key":"secret-b"}]`)
	if err != nil {
		t.Fatal(err)
	}
	f := &followedFake{fake: fake{schema: numbers(), batches: plan(3)}, told: make(chan struct{})}
	addr, _ := serve(t, f, keys)
	return f, addr
}

func TestQueryIsFollowed(t *testing.T) {
	f, addr := serveFollowed(t)
	tell := sync.OnceFunc(func() { close(f.told) })
	rows, err := dial(t, addr, "secret-a").Query(t.Context(), "SELECT 1", client.QueryOptions{Progress: func(done, blocks int64) {
		if done != 3 || blocks != 17 {
			t.Errorf("%d of %d", done, blocks)
		}
		tell()
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := drain(t, rows); n != 3 {
		t.Errorf("%d rows", n)
	}
}

// TestProgressIsTheCallers asks by hand: a name counts for its caller, while the query waits, and no longer.
func TestProgressIsTheCallers(t *testing.T) {
	f, addr := serveFollowed(t)
	c := raw(t, addr)
	as := func(key string, more ...string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), append(more, "authorization", "Bearer "+key)...)
	}
	progress := func(key, id string) string {
		t.Helper()
		stream, err := c.DoAction(as(key), &aflight.Action{Type: "QueryProgress", Body: []byte(id)})
		if err != nil {
			t.Fatal(err)
		}
		result, err := stream.Recv()
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return string(result.GetBody())
	}
	for _, id := range []string{"", "mine", strings.Repeat("x", 65)} {
		if got := progress("secret-a", id); got != "" {
			t.Errorf("no query, but %s", got)
		}
	}
	ticket, err := proto.Marshal(&pb.TicketStatementQuery{StatementHandle: []byte("SELECT 1")})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.DoGet(as("secret-a", "x-progress-id", "mine"), &aflight.Ticket{Ticket: ticket})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); progress("secret-a", "mine") != `{"blocks_done":3,"blocks":17}`; {
		if time.Now().After(end) {
			t.Fatal("nothing is told")
		}
	}
	if got := progress("secret-b", "mine") + progress("secret-a", "other"); got != "" {
		t.Errorf("told to others: %s", got)
	}
	close(f.told)
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if got := progress("secret-a", "mine"); got != "" {
		t.Errorf("told after the end: %s", got)
	}
	actions, err := c.ListActions(as("secret-a"), &aflight.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for {
		a, err := actions.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, a.GetType())
	}
	if !slices.Contains(names, "QueryProgress") || !slices.Contains(names, "CreatePreparedStatement") {
		t.Errorf("actions %q", names)
	}
}

func TestShutdownWaitsForQueries(t *testing.T) {
	gate := make(chan struct{})
	f := &fake{schema: numbers(), batches: func(yield func(arrow.RecordBatch, error) bool) {
		<-gate
		yield(numberBatch(0, 9), nil)
	}}
	addr, s := serve(t, f, nil)
	rows, err := dial(t, addr, "").Query(t.Context(), "SELECT 1", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	select {
	case <-stopped:
		t.Fatal("stopped under a query")
	case <-time.After(20 * time.Millisecond):
	}
	close(gate)
	if n, _ := drain(t, rows); n != 9 {
		t.Errorf("%d rows", n)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestPanicEndsOnlyItsCall(t *testing.T) {
	f := &fake{schema: numbers(), batches: func(func(arrow.RecordBatch, error) bool) { panic("oops") }}
	addr, _ := serve(t, f, nil)
	c := dial(t, addr, "")
	for range 2 {
		rows, err := c.Query(t.Context(), "SELECT 1", client.QueryOptions{})
		if err == nil {
			_, err = rows.Next()
		}
		if status.Code(err) != codes.Internal {
			t.Errorf("error %v", err)
		}
	}
}

// FuzzTicket sends any bytes as a ticket, a command and an action: each call must end with an answer or an error.
func FuzzTicket(f *testing.F) {
	bare, err := proto.Marshal(&pb.TicketStatementQuery{StatementHandle: []byte("SELECT 1")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bare)
	for _, m := range []proto.Message{
		&pb.TicketStatementQuery{StatementHandle: []byte("SELECT 1")}, &pb.CommandGetTables{IncludeSchema: true}, &pb.CommandGetSqlInfo{Info: []uint32{0}},
		&pb.CommandGetCatalogs{}, &pb.CommandPreparedStatementQuery{PreparedStatementHandle: []byte("x")}, &pb.ActionCreatePreparedStatementRequest{Query: "SELECT 1"},
		&pb.CommandStatementUpdate{Query: "DROP TABLE x"}, &pb.CommandGetPrimaryKeys{}, &pb.CommandGetXdbcTypeInfo{},
	} {
		wrapped, err := anypb.New(m)
		if err != nil {
			f.Fatal(err)
		}
		raw, err := proto.Marshal(wrapped)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	addr, _ := serve(f, &fake{schema: numbers(), batches: plan(1)}, nil)
	c := raw(f, addr)
	f.Fuzz(func(t *testing.T, b []byte) {
		if stream, err := c.DoGet(t.Context(), &aflight.Ticket{Ticket: b}); err == nil {
			for err == nil {
				_, err = stream.Recv()
			}
			if status.Convert(err).Message() == "Internal error: the server made a mistake; its log says more" {
				t.Errorf("ticket %x panics", b)
			}
		}
		if _, err := c.GetFlightInfo(t.Context(), &aflight.FlightDescriptor{Type: aflight.DescriptorCMD, Cmd: b}); status.Convert(err).Message() == "Internal error: the server made a mistake; its log says more" {
			t.Errorf("command %x panics", b)
		}
		if stream, err := c.DoAction(t.Context(), &aflight.Action{Type: "CreatePreparedStatement", Body: b}); err == nil {
			for err == nil {
				_, err = stream.Recv()
			}
		}
	})
}
