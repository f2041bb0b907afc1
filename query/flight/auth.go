package flight

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/micromegas-go/micromegas/schemas/identity"
)

// Methods that anybody may call: health has nothing to tell, and the handshake checks what it is given.
const (
	healthService   = "/grpc.health.v1.Health/"
	handshakeMethod = "/arrow.flight.protocol.FlightService/Handshake"
)

// anonymous is the token that a handshake hands out when there are no keys: drivers insist on sending one.
const anonymous = "anonymous"

// auth checks credentials. With nil keys every caller is let in.
type auth struct {
	keys *identity.Keys
}

var errUnauthenticated = status.Error(codes.Unauthenticated, "invalid token")

func open(method string) bool {
	return strings.HasPrefix(method, healthService) || method == handshakeMethod
}

// check returns the context with the caller's name.
func (a auth) check(ctx context.Context) (context.Context, error) {
	if a.keys == nil {
		return context.WithValue(ctx, callerKey{}, ""), nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	name, err := a.keys.Check(last(md, headerAuth))
	if err != nil {
		return nil, errUnauthenticated
	}
	return context.WithValue(ctx, callerKey{}, name), nil
}

type callerKey struct{}

// callerOf returns the name of the key that a call came with, "" without keys.
func callerOf(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

func (a auth) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if open(info.FullMethod) {
		return handler(ctx, req)
	}
	ctx, err := a.check(ctx)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (a auth) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if open(info.FullMethod) {
		return handler(srv, ss)
	}
	ctx, err := a.check(ss.Context())
	if err != nil {
		return err
	}
	return handler(srv, &callStream{ServerStream: ss, ctx: ctx})
}

// callStream is a stream with a context of its own.
type callStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *callStream) Context() context.Context { return s.ctx }

// Handshake turns a user name and password, or a bearer token, into the header that every other call needs. The password
// is an API key. It comes as the authorization header or, from older drivers, as the handshake's payload.
func (s *service) Handshake(stream flight.FlightService_HandshakeServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	token, ok := tokenOf(last(md, headerAuth))
	if !ok {
		req, err := stream.Recv()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		token = tokenOfPayload(req.GetPayload())
	}
	if s.auth.keys != nil {
		if _, err := s.auth.keys.Check("Bearer " + token); err != nil {
			return errUnauthenticated
		}
	}
	if token == "" {
		token = anonymous
	}
	if err := stream.SetHeader(metadata.Pairs(headerAuth, "Bearer "+token)); err != nil {
		return err
	}
	return stream.Send(&flight.HandshakeResponse{Payload: []byte(token)})
}

// tokenOf returns the key in an authorization header of either kind.
func tokenOf(header string) (string, bool) {
	kind, rest, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(kind, "bearer"):
		return rest, true
	case strings.EqualFold(kind, "basic"):
		plain, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", true
		}
		_, password, _ := strings.Cut(string(plain), ":")
		return password, true
	}
	return "", false
}

// tokenOfPayload returns the password of a handshake's payload, or the payload itself when it is not a BasicAuth message.
func tokenOfPayload(payload []byte) string {
	var basic flight.BasicAuth
	if err := proto.Unmarshal(payload, &basic); err == nil && basic.GetPassword() != "" {
		return basic.GetPassword()
	}
	return string(payload)
}
