package flight

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Request metadata that clients send.
const (
	headerBegin      = "query_range_begin"
	headerEnd        = "query_range_end"
	headerLimit      = "limit"
	headerDictionary = "preserve_dictionary"
	headerStrict     = "x-strict"
	headerProgress   = "x-progress-id"
	headerAuth       = "authorization"
)

// requestOf reads a call's headers. A header that cannot be read fails the call; all are optional.
func requestOf(ctx context.Context, sql string) (query.Request, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	req := query.Request{
		SQL:                sql,
		PreserveDictionary: strings.EqualFold(last(md, headerDictionary), "true"),
		Strict:             strings.EqualFold(last(md, headerStrict), "true"),
		Admin:              true, // API keys are all alike, so nobody is less than an administrator
		Client:             clientOf(ctx, md),
	}
	var err error
	if req.Range, err = rangeOf(md); err != nil {
		return query.Request{}, err
	}
	if values := md.Get(headerLimit); len(values) > 0 {
		n, err := strconv.ParseUint(values[len(values)-1], 10, 63)
		if err != nil {
			return query.Request{}, status.Errorf(codes.InvalidArgument, "error parsing limit: %q is not a whole number of rows", values[len(values)-1])
		}
		limit := int64(n)
		req.Limit = &limit
	}
	return req, nil
}

// rangeOf reads the time range, which counts only when both ends are there.
func rangeOf(md metadata.MD) (*query.Range, error) {
	begin, end := last(md, headerBegin), last(md, headerEnd)
	if begin == "" || end == "" {
		return nil, nil //nolint:nilnil // no range is an answer
	}
	b, err := parseTime(headerBegin, begin)
	if err != nil {
		return nil, err
	}
	e, err := parseTime(headerEnd, end)
	if err != nil {
		return nil, err
	}
	return &query.Range{Begin: b, End: e}, nil
}

// parseTime reads an RFC 3339 time. One beyond what nanoseconds can say is taken to the nearest time they can.
func parseTime(header, text string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, status.Errorf(codes.InvalidArgument, "Unable to parse %s as a rfc3339 datetime: %q", header, text)
	}
	return telemetry.Nanoseconds(t), nil
}

func clientOf(ctx context.Context, md metadata.MD) query.Client {
	user := last(md, "x-user-id")
	if plain, err := url.PathUnescape(user); err == nil {
		user = plain
	}
	return query.Client{
		Type:       last(md, "x-client-type"),
		Agent:      last(md, "x-client-agent"),
		Entrypoint: last(md, "x-client-entrypoint"),
		Session:    last(md, "x-client-session"),
		User:       user,
		Address:    addressOf(ctx, md),
	}
}

// addressOf returns the address a call came from: what the nearest proxy says, else the peer's.
func addressOf(ctx context.Context, md metadata.MD) string {
	if chain := last(md, "x-forwarded-for"); chain != "" {
		return strings.TrimSpace(chain[strings.LastIndexByte(chain, ',')+1:])
	}
	if ip := last(md, "x-real-ip"); ip != "" {
		return ip
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

// last returns the last value of a header, or "".
func last(md metadata.MD, key string) string {
	values := md.Get(key)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
