package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Bounds of a connection.
const (
	// maxMessage is the largest message taken: a batch of rows that cannot be split may be large.
	maxMessage = math.MaxInt32
	// window is the HTTP/2 window of a connection and its streams: what the server may send ahead.
	window = 8 << 20
)

// Options of a connection.
type Options struct {
	BearerToken string // API key, sent with each call; "" = none
	TLS         bool   // use TLS also for grpc://; grpc+tls:// does always
}

// QueryOptions of one statement.
type QueryOptions struct {
	Begin, End         time.Time // range of the query, both ends included; both zero = all of time
	Limit              int64     // most rows; 0 = all
	PreserveDictionary bool      // take dictionaries rather than plain values
	Strict             bool      // fail where the answer may be incomplete, instead of warning

	// Progress, unless nil, is told every now and then how many blocks of raw events are decoded that Query waits for, and of how many as
	// far as is known: one call at a time, none after Query has returned. A server that cannot say is waited for without.
	Progress func(done, blocks int64)
}

// Client is a connection to one server. It is safe for concurrent use.
type Client struct {
	conn   *grpc.ClientConn
	flight pb.FlightServiceClient
	token  string
}

// Dial makes a client for an address like grpc://localhost:50051, grpc+tls://host:443 or host:port. It does not wait for
// the server.
func Dial(address string, opts Options) (*Client, error) {
	target, secure, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure || opts.TLS {
		creds = credentials.NewTLS(nil)
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &Client{conn: conn, flight: pb.NewFlightServiceClient(conn), token: opts.BearerToken}, nil
}

// parseAddress returns the host and port in an address, and whether it asks for TLS.
func parseAddress(address string) (target string, secure bool, err error) {
	if !strings.Contains(address, "://") {
		address = "grpc://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", false, fmt.Errorf("server address: %w", err)
	}
	switch u.Scheme {
	case "grpc", "grpc+tcp", "http":
	case "grpc+tls", "https":
		secure = true
	default:
		return "", false, fmt.Errorf("server address %q: want grpc://host:port or grpc+tls://host:port", address)
	}
	if u.Hostname() == "" || u.Port() == "" {
		return "", false, fmt.Errorf("server address %q: want a host and a port", address)
	}
	return u.Host, secure, nil
}

// Close ends the connection and everything under way on it.
func (c *Client) Close() error { return c.conn.Close() }

// Query runs a statement. It returns when the server has checked and planned it; rows follow. Rows must be closed.
func (c *Client) Query(ctx context.Context, sql string, opts QueryOptions) (*Rows, error) {
	ticket, err := proto.Marshal(&pb.TicketStatementQuery{StatementHandle: []byte(sql)})
	if err != nil {
		return nil, fmt.Errorf("make the ticket: %w", err)
	}
	md := c.headers(opts)
	if opts.Progress != nil {
		defer c.follow(ctx, md, opts.Progress)()
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	stream, err := c.flight.DoGet(ctx, &flight.Ticket{Ticket: ticket})
	if err != nil {
		cancel()
		return nil, err
	}
	rows, err := newRows(stream, cancel)
	if err != nil {
		cancel()
		return nil, err
	}
	return rows, nil
}

// headers carry what a statement's text does not say.
func (c *Client) headers(opts QueryOptions) metadata.MD {
	md := metadata.Pairs("x-client-type", "go")
	if c.token != "" {
		md.Set("authorization", "Bearer "+c.token)
	}
	if !opts.Begin.IsZero() || !opts.End.IsZero() {
		end := opts.End
		if end.IsZero() {
			end = time.Now()
		}
		md.Set("query_range_begin", opts.Begin.UTC().Format(time.RFC3339Nano))
		md.Set("query_range_end", end.UTC().Format(time.RFC3339Nano))
	}
	if opts.Limit > 0 {
		md.Set("limit", strconv.FormatInt(opts.Limit, 10))
	}
	if opts.PreserveDictionary {
		md.Set("preserve_dictionary", "true")
	}
	if opts.Strict {
		md.Set("x-strict", "true")
	}
	return md
}

// Rows are the batches of an answer. They are not safe for concurrent use.
type Rows struct {
	reader   *flight.Reader
	warnings []string
	cancel   context.CancelFunc
}

// warningReader notes the metadata of the first message, which is the schema.
type warningReader struct {
	flight.DataStreamReader
	first *flight.FlightData
}

// Recv implements flight.DataStreamReader.
func (w *warningReader) Recv() (*flight.FlightData, error) {
	d, err := w.DataStreamReader.Recv()
	if err == nil && w.first == nil {
		w.first = d
	}
	return d, err
}

func newRows(stream flight.DataStreamReader, cancel context.CancelFunc) (*Rows, error) {
	w := &warningReader{DataStreamReader: stream}
	reader, err := flight.NewRecordReader(w)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the server ended the answer before its schema")
		}
		return nil, err
	}
	r := &Rows{reader: reader, cancel: cancel}
	if meta := w.first.GetAppMetadata(); len(meta) > 0 {
		var m struct {
			Warnings []string `json:"warnings"`
		}
		if err := json.Unmarshal(meta, &m); err == nil {
			r.warnings = m.Warnings
		}
	}
	return r, nil
}

// Schema returns the columns.
func (r *Rows) Schema() *arrow.Schema { return r.reader.Schema() }

// Warnings say what may be missing from the rows. They are complete from the start.
func (r *Rows) Warnings() []string { return r.warnings }

// Next returns the next batch, or io.EOF after the last. The batch is valid until the following call of Next or Close;
// who needs it longer must retain it.
func (r *Rows) Next() (arrow.RecordBatch, error) {
	if r.reader.Next() {
		return r.reader.RecordBatch(), nil
	}
	if err := r.reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, io.EOF
}

// Close ends the answer, also in the middle: the server stops working.
func (r *Rows) Close() error {
	r.cancel()
	r.reader.Release()
	return nil
}
