package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/metadata"
)

// followEvery is how often the server is asked how far a query has come.
const followEvery = 250 * time.Millisecond

// follow names the query that will be sent with md, and asks the server how far it has come until stop is called, which waits.
func (c *Client) follow(ctx context.Context, md metadata.MD, tell func(done, blocks int64)) (stop func()) {
	id := rand.Text()
	md.Set("x-progress-id", id)
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, md))
	var asking sync.WaitGroup
	asking.Go(func() {
		ticker := time.NewTicker(followEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			p, ok, err := c.progress(ctx, id)
			if err != nil {
				return // it does not know the action, or is gone: then the query says so
			}
			if ok {
				tell(p.Done, p.Blocks)
			}
		}
	})
	return func() {
		cancel()
		asking.Wait()
	}
}

type progress struct {
	Done   int64 `json:"blocks_done"`
	Blocks int64 `json:"blocks"`
}

// progress asks once. It is false when the server has nothing to say.
func (c *Client) progress(ctx context.Context, id string) (p progress, ok bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.flight.DoAction(ctx, &pb.Action{Type: "QueryProgress", Body: []byte(id)})
	if err != nil {
		return p, false, err
	}
	result, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	return p, true, json.Unmarshal(result.GetBody(), &p)
}
