package flight

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// recoverer turns a panic of one call into its error: one statement must not stop ingestion in the same process.
type recoverer struct {
	log *slog.Logger
}

func (r recoverer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	defer r.catch(info.FullMethod, &err)
	return handler(ctx, req)
}

func (r recoverer) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer r.catch(info.FullMethod, &err)
	return handler(srv, ss)
}

func (r recoverer) catch(method string, err *error) {
	if p := recover(); p != nil {
		r.log.Error("call panicked", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "Internal error: the server made a mistake; its log says more")
	}
}
