package flight

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/metadata"

	"github.com/micromegas-go/micromegas/query"
)

// actionProgress asks how far a query has come.
const actionProgress = "QueryProgress"

// maxProgressID bounds the name of a query that is followed, in bytes.
const maxProgressID = 64

// followed knows how far the queries have come whose callers gave them a name to ask by. It keeps one value a query under way.
type followed struct {
	mu      sync.Mutex
	queries map[followedQuery]*query.Progress
}

// followedQuery is a name, which counts for its caller only.
type followedQuery struct{ caller, id string }

func newFollowed() *followed { return &followed{queries: map[followedQuery]*query.Progress{}} }

// begin has the progress of a request kept that has a name; the returned function must be called when nothing more will come. Of two
// queries with one name the later is known.
func (f *followed) begin(ctx context.Context, req *query.Request) (end func()) {
	md, _ := metadata.FromIncomingContext(ctx)
	id := last(md, headerProgress)
	if id == "" || len(id) > maxProgressID {
		return func() {}
	}
	key, p := followedQuery{callerOf(ctx), id}, &query.Progress{}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries[key] = p
	req.Progress = func(now query.Progress) {
		f.mu.Lock()
		defer f.mu.Unlock()
		*p = now
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.queries[key] == p {
			delete(f.queries, key)
		}
	}
}

// of returns how far a query has come, or false when that is not known, or nothing is built for it.
func (f *followed) of(caller, id string) (query.Progress, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.queries[followedQuery{caller, id}]
	if p == nil || p.Blocks == 0 {
		return query.Progress{}, false
	}
	return *p, true
}

// progressResult is the body of the action's result.
type progressResult struct {
	Done   int64 `json:"blocks_done"`
	Blocks int64 `json:"blocks"`
}

// DoAction answers the action of this package; the others are FlightSQL's.
func (s *service) DoAction(action *flight.Action, stream flight.FlightService_DoActionServer) error {
	if action.GetType() != actionProgress {
		return s.FlightServer.DoAction(action, stream)
	}
	p, ok := s.followed.of(callerOf(stream.Context()), string(action.GetBody()))
	if !ok {
		return nil
	}
	body, err := json.Marshal(progressResult(p))
	if err != nil {
		return err
	}
	return stream.Send(&flight.Result{Body: body})
}

// ListActions lists the actions of FlightSQL and of this package.
func (s *service) ListActions(e *flight.Empty, stream flight.FlightService_ListActionsServer) error {
	if err := s.FlightServer.ListActions(e, stream); err != nil {
		return err
	}
	return stream.Send(&flight.ActionType{Type: actionProgress, Description: "how far the query has come that the body names, as its header " + headerProgress + " did"})
}
