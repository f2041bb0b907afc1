package flight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/schemas/identity"
)

// Keepalive of connections: a client that went away without a word is noticed, and its queries end.
const (
	pingAfter    = 30 * time.Second
	pingTimeout  = 20 * time.Second
	minPingAfter = 5 * time.Second // clients may ping this often
	// callBuffer is the per-connection write buffer: a record batch leaves in few system calls.
	callBuffer = 256 << 10
	// startWindow is the HTTP/2 window that request messages start with; answers are bounded by the client's.
	startWindow = 1 << 20
)

// Server is the FlightSQL server.
type Server struct {
	grpc   *grpc.Server
	health *health.Server
	log    *slog.Logger
}

// New makes a server that answers from q. Nil keys let every caller in.
func New(cfg Config, q query.Querier, keys *identity.Keys, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a, r := auth{keys: keys}, recoverer{log: log}
	s := grpc.NewServer(
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(cfg.MaxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.WriteBufferSize(callBuffer),
		grpc.InitialWindowSize(startWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingAfter, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(r.unary, a.unary),
		grpc.ChainStreamInterceptor(r.stream, a.stream),
	)
	svc, err := newService(cfg, q, a, log)
	if err != nil {
		return nil, err
	}
	flight.RegisterFlightServiceServer(s, svc)
	h := health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	return &Server{grpc: s, health: h, log: log}, nil
}

// newService wires the commands of FlightSQL to the service that executes them.
func newService(cfg Config, q query.Querier, a auth, log *slog.Logger) (*service, error) {
	cmds := &commands{query: q, running: newRunning()}
	if err := cmds.registerInfo(); err != nil {
		return nil, fmt.Errorf("register SQL info: %w", err)
	}
	return &service{
		FlightServer: flightsql.NewFlightServer(cmds),
		commands:     cmds,
		followed:     newFollowed(),
		auth:         a,
		cfg:          cfg,
		log:          log,
	}, nil
}

// Serve answers calls on l until Shutdown. It then returns nil.
func (s *Server) Serve(l net.Listener) error {
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	err := s.grpc.Serve(l)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Shutdown stops taking calls and waits for those under way; when ctx ends first it cuts them off and returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
		return fmt.Errorf("stop FlightSQL server: %w", ctx.Err())
	}
}
