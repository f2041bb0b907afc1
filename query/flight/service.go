package flight

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/micromegas-go/micromegas/query"
)

// service is the gRPC face. Statements are streamed here; all other commands go through the FlightServer of arrow-go,
// which knows the protocol's messages.
type service struct {
	flight.FlightServer
	commands *commands
	followed *followed
	auth     auth
	cfg      Config
	log      *slog.Logger
}

// DoGet answers a ticket.
func (s *service) DoGet(ticket *flight.Ticket, stream flight.FlightService_DoGetServer) error {
	sql, ok, err := statementOf(ticket.GetTicket())
	if err != nil {
		return err
	}
	if !ok {
		return s.FlightServer.DoGet(ticket, stream)
	}
	return statusOf(s.answer(stream, sql))
}

// statementOf returns the SQL text in a ticket, or false when the ticket is another command. A ticket that is no known
// command is read as a bare TicketStatementQuery.
func statementOf(ticket []byte) (sql string, ok bool, err error) {
	var wrapped anypb.Any
	if proto.Unmarshal(ticket, &wrapped) == nil {
		if cmd, err := wrapped.UnmarshalNew(); err == nil {
			switch cmd := cmd.(type) {
			case *pb.TicketStatementQuery:
				return utf8Text(cmd.GetStatementHandle())
			case *pb.CommandPreparedStatementQuery:
				return utf8Text(cmd.GetPreparedStatementHandle())
			case *pb.CommandStatementQuery:
				return cmd.GetQuery(), true, nil
			}
			return "", false, nil
		}
	}
	var bare pb.TicketStatementQuery
	if err := proto.Unmarshal(ticket, &bare); err != nil {
		return "", false, status.Error(codes.InvalidArgument, "the ticket is neither a FlightSQL command nor a statement")
	}
	return utf8Text(bare.GetStatementHandle())
}

// answer runs a statement and streams its rows. It returns when the query's time is over, whether the client reads or not:
// the query holds a place of the engine, and files.
func (s *service) answer(stream flight.FlightService_DoGetServer, sql string) error {
	ctx, end := s.commands.running.begin(stream.Context(), callerOf(stream.Context()), sql)
	defer end()
	req, err := requestOf(ctx, sql)
	if err != nil {
		return err
	}
	a, err := s.query(ctx, req)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- s.send(stream, a) }()
	select {
	case err := <-sent:
		return err
	case <-a.Done():
	}
	timer := time.NewTimer(stallGrace)
	defer timer.Stop()
	select {
	case err := <-sent:
		return err
	case <-timer.C:
		return a.Err() // the client does not read: the end of the call is what ends a message under way
	}
}

// query begins a query that its caller may follow.
func (s *service) query(ctx context.Context, req query.Request) (*query.Answer, error) {
	defer s.followed.begin(ctx, &req)()
	return s.commands.query.Query(ctx, req)
}

// stallGrace is how long a query may take to end by itself once its time is over.
const stallGrace = time.Second

// send streams an answer and closes it.
func (s *service) send(to sender, a *query.Answer) (err error) {
	defer recoverer{s.log}.catch("DoGet", &err)
	defer func() { // also when a panic passes
		if cerr := a.Close(); err == nil {
			err = cerr
		}
	}()
	return s.stream(to, a)
}

func (s *service) stream(to sender, a *query.Answer) error {
	w, err := newStreamWriter(to, a.Schema(), a.Warnings, s.cfg.BatchBytes)
	if err != nil {
		return err
	}
	return w.copyAll(a)
}

// statusOf turns an error of a query into a gRPC status.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	if qe, ok := errors.AsType[*query.Error](err); ok {
		return status.Error(qe.Code, qe.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(unwrapContext(err)).Err()
}

// unwrapContext returns the context error inside err, so that a cancelled call is told apart from a failure.
func unwrapContext(err error) error {
	for _, c := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, c) {
			return c
		}
	}
	return err
}
