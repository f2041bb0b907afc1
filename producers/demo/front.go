package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// The services, as targets: levels can be set for each, and each row says where it is from.
const (
	targetFront    = "demo/front"
	targetAccounts = "demo/accounts"
	targetDB       = "demo/db"
)

const (
	requestEvery = 50 * time.Millisecond // on average
	maxRequests  = 32                    // at once
	slowRequest  = 150 * time.Millisecond
)

// What is constant of an event is declared once.
var (
	started = sdk.NewLog(sdk.Info, "demo started with seed %d", sdk.Target("demo"))
	stopped = sdk.NewLog(sdk.Info, "demo stops", sdk.Target("demo"))

	requestSpan  = sdk.NewSpan("", sdk.Target(targetFront)) // each has the name of its route
	renderSpan   = sdk.NewSpan("render", sdk.Target(targetFront))
	accountsSpan = sdk.NewSpan("accounts.authorize", sdk.Target(targetAccounts))
	querySpan    = sdk.NewSpan("db.query", sdk.Target(targetDB))

	requestBegun = sdk.NewLog(sdk.Debug, "request %d: %s for player %d", sdk.Target(targetFront))
	requestDone  = sdk.NewLog(sdk.Info, "request %d: %s answered %d", sdk.Target(targetFront))
	requestSlow  = sdk.NewLog(sdk.Warn, "request %d: %s took %s", sdk.Target(targetFront))
	requestFails = sdk.NewLog(sdk.Error, "request %d: %s failed: %s", sdk.Target(targetFront))
	accountKnown = sdk.NewLog(sdk.Debug, "player %d authorized by %s", sdk.Target(targetAccounts))
	queryFails   = sdk.NewLog(sdk.Error, "query of request %d: %s", sdk.Target(targetDB))

	requests        = sdk.NewCounter("requests", "count", sdk.Target(targetFront))
	requestErrors   = sdk.NewCounter("request_errors", "count", sdk.Target(targetFront))
	requestDuration = sdk.NewFloat("request_duration", "ms", sdk.Target(targetFront))
	requestsOpen    = sdk.NewInt("requests_open", "count", sdk.Target(targetFront))
	queryRows       = sdk.NewInt("query_rows", "count", sdk.Target(targetDB))
)

// route is what can be asked for.
type route struct {
	name    string
	share   int // of a hundred requests
	queries int
	ok      *sdk.Properties // of measures, by outcome: sets of properties are made once
	failed  *sdk.Properties
}

func newRoute(name string, share, queries int) route {
	p := sdk.Props("route", name)
	return route{name, share, queries, p.And("status", "200"), p.And("status", "503")}
}

var (
	routes = []route{
		newRoute("GET /players/{id}", 50, 1), newRoute("GET /leaderboard", 25, 3), newRoute("POST /match", 15, 2), newRoute("POST /login", 10, 1),
	}
	failures = []string{"connection reset by peer", "deadlock detected", "too many connections"}
)

// request is all that is random of a request.
type request struct {
	number    int
	route     *route
	player    int
	authorize time.Duration
	queries   []query
	render    time.Duration
	failure   string // of the last query; "" = none
}

type query struct {
	duration time.Duration
	rows     int64
}

// planner draws requests.
type planner struct {
	random *rand.Rand
	last   int
}

func newPlanner(seed uint64) *planner {
	return &planner{random: rand.New(rand.NewPCG(seed, randomFront))}
}

// next returns the next request, and how long after the one before it comes.
func (p *planner) next() (request, time.Duration) {
	p.last++
	r := p.random
	q := request{
		number: p.last, player: r.IntN(500), authorize: between(r, 200*time.Microsecond, 2*time.Millisecond),
		render: between(r, time.Millisecond, 4*time.Millisecond),
	}
	at := r.IntN(100)
	for i := range routes {
		q.route = &routes[i]
		if at -= routes[i].share; at < 0 {
			break
		}
	}
	factor := time.Duration(1)
	if r.IntN(60) == 0 {
		factor = 40 // the database is slow now and then
	}
	for range q.route.queries {
		q.queries = append(q.queries, query{factor * between(r, time.Millisecond, 8*time.Millisecond), r.Int64N(200)})
	}
	if r.IntN(40) == 0 {
		q.failure = failures[r.IntN(len(failures))]
	}
	return q, time.Duration(r.ExpFloat64() * float64(requestEvery))
}

// between draws a duration; most are short.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	x := r.Float64()
	return low + time.Duration(x*x*float64(high-low))
}

// duration is how long the request takes.
func (q *request) duration() time.Duration {
	d := q.authorize + q.render
	for _, s := range q.queries {
		d += s.duration
	}
	return d
}

// playFront lets requests come.
func playFront(ctx context.Context, seed uint64) {
	p := newPlanner(seed)
	room := make(chan struct{}, maxRequests)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		q, after := p.next()
		if !pause(ctx, after) {
			return
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		requestsOpen.Record(int64(len(room)))
		open.Go(func() {
			q.serve(ctx)
			<-room
		})
	}
}

// serve answers a request: its span is the root of a trace.
func (q *request) serve(ctx context.Context) {
	ctx, span := requestSpan.StartNamed(ctx, q.route.name)
	defer span.End()
	span.SetText("request", fmt.Sprint(q.number))
	requestBegun.LogIn(ctx, sdk.Int(q.number), sdk.String(q.route.name), sdk.Int(q.player))
	q.callAccounts(ctx)
	for i := range q.queries {
		q.query(ctx, i)
	}
	q.renderAnswer(ctx)

	props, status := q.route.ok, 200
	if q.failure != "" {
		props, status = q.route.failed, 503
		requestFails.LogIn(ctx, sdk.Int(q.number), sdk.String(q.route.name), sdk.String(q.failure))
		requestErrors.Add(1)
	}
	span.Set(props)
	requests.Add(1)
	requestDuration.With(props).Record(q.duration().Seconds() * 1e3)
	if d := q.duration(); d > slowRequest {
		requestSlow.With(props).LogIn(ctx, sdk.Int(q.number), sdk.String(q.route.name), sdk.Duration(d))
	}
	requestDone.LogIn(ctx, sdk.Int(q.number), sdk.String(q.route.name), sdk.Int(status))
}

// callAccounts calls another service as one does over HTTP: all that crosses is a header.
func (q *request) callAccounts(ctx context.Context) {
	header := sdk.TraceParent(ctx)
	q.authorizeIn(sdk.WithTraceParent(ctx, header))
}

// authorizeIn is the other service: its span is of the trace of the caller.
func (q *request) authorizeIn(ctx context.Context) {
	ctx, span := accountsSpan.Start(ctx)
	defer span.End()
	pause(ctx, q.authorize)
	accountKnown.LogIn(ctx, sdk.Int(q.player), sdk.String("token"))
}

func (q *request) query(ctx context.Context, i int) {
	ctx, span := querySpan.Start(ctx)
	defer span.End()
	pause(ctx, q.queries[i].duration)
	if q.failure != "" && i == len(q.queries)-1 {
		span.SetText("error", q.failure)
		queryFails.LogIn(ctx, sdk.Int(q.number), sdk.String(q.failure))
		return
	}
	queryRows.Record(q.queries[i].rows)
}

func (q *request) renderAnswer(ctx context.Context) {
	ctx, span := renderSpan.Start(ctx)
	defer span.End()
	pause(ctx, q.render)
}
