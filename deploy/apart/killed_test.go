package apart_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// The whole of TestKilledInTurn is one command:
//
//	go test ./deploy/apart -run TestKilledInTurn -v -timeout 20m -killed.for 2m -killed.rounds 1000 -killed.rate 50000
//
// It prints its seed; -killed.seed repeats it.
var (
	killedFor    = flag.Duration("killed.for", 25*time.Second, "how long TestKilledInTurn kills")
	killedRounds = flag.Int("killed.rounds", 150, "how often TestKilledInTurn posts and queries")
	killedRate   = flag.Float64("killed.rate", 20_000, "events a second that flow beside")
	killedNATS   = flag.Int("killed.nats", 3, "NATS servers under TestKilledInTurn")
	killedSeed   = flag.Uint64("killed.seed", 0, "seed of TestKilledInTurn; 0 draws one")
)

const (
	killEvery   = 2 * time.Second
	longestWait = 5 * time.Second // that a query may take, whoever died
	busKeep     = 24 << 20        // bytes of archived frames that the bus keeps, small enough to be reached
)

// TestKilledInTurn runs 2 gateways, 2 archives, 3 materializers and 2 query processes over PostgreSQL, S3 and a NATS cluster
// and kills them in turn with kill -9, each time starting the process anew, while clients post (some blocks twice, some
// before their registration). Meanwhile blocks are posted and queried at once: their rows must be there, in time. In the
// end every acknowledged row is there exactly once, nothing is left in the bucket that no row names, and the bus holds no more than it may.
func TestKilledInTurn(t *testing.T) {
	seed := *killedSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d, for %v", seed, *killedFor)
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, clusterOptions{natsServers: *killedNATS, env: map[string]string{"MICROMEGAS_BUS_KEEP_BYTES": fmt.Sprint(busKeep)}})
	members := c.startAll(map[string]int{"gateway": 2, "workers": 2, "materializers": 3, "query": 2})
	f := newFleet(seed, 250, members["gateway"][0].url(), members["gateway"][1].url())
	f.twice, f.late = 0.01, 0.01

	loadCtx, stopLoad := context.WithCancel(t.Context())
	var load, rounds sync.WaitGroup
	load.Go(func() { f.run(loadCtx, 16, *killedRate) })
	r := &roundTrips{fleet: f, query: members["query"], goal: *killedRounds, within: *killedFor}
	rounds.Go(func() { r.run(t) })

	kills := 0
	order := slices.Concat(members["gateway"], members["workers"], members["materializers"], members["query"])
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for deadline := time.Now().Add(*killedFor); time.Now().Before(deadline); kills++ {
		next := time.After(killEvery)
		m := order[kills%len(order)]
		m.process().Kill()
		m.start()
		<-next
	}
	rounds.Wait()
	stopLoad()
	load.Wait()
	sum := f.audit(t, members["query"][kills%2])
	t.Logf("%d kills, %d requests, %d acknowledged, %d answered 503, %d broken; %d blocks posted twice, %d before their registration; longest ack %v",
		kills, f.posts.Load(), f.acks.Load(), f.refused.Load(), f.broken.Load(), f.duplicates.Load(), f.lateBlocks.Load(), time.Duration(f.longestAck.Load()))
	t.Logf("%d blocks with %d rows acknowledged: %d lost, %d doubled; %d never answered", sum.blocks, sum.rows, sum.lost, sum.doubled, len(f.unsure))
	r.report(t)
	checkNothingLeft(t, c, members)
}

// roundTrips posts blocks and asks for their rows at once.
type roundTrips struct {
	fleet  *fleet
	query  []*member
	goal   int
	within time.Duration

	turn    atomic.Int64
	retried atomic.Int64 // calls on connections that broke
	mu      sync.Mutex
	waits   []time.Duration
	audits  int
}

const roundTripsAtOnce = 4

// run makes the rounds, spread over the time, and looks every second at all that was acknowledged in the last ones.
func (r *roundTrips) run(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), r.within+2*time.Minute)
	defer cancel()
	every := r.within * roundTripsAtOnce / time.Duration(r.goal)
	done := make(chan struct{})
	var auditing, wg sync.WaitGroup
	auditing.Go(func() { r.auditLatest(ctx, t, done) })
	for range roundTripsAtOnce {
		wg.Go(func() {
			s := r.fleet.newSender()
			if !s.register(ctx, "log_entries") {
				t.Error("a sender could not register")
				return
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for r.turn.Add(1) <= int64(r.goal) && ctx.Err() == nil {
				r.round(ctx, t, s)
				<-tick.C
			}
		})
	}
	wg.Wait()
	close(done)
	auditing.Wait()
}

// round posts a block and asks for its rows.
func (r *roundTrips) round(ctx context.Context, t *testing.T, s *sender) {
	id, ok := s.postBlock(ctx, "log_entries")
	if !ok {
		t.Error("a block was not acknowledged in time")
		return
	}
	a, wait, err := r.ask(ctx, "SELECT count(*) FROM log_entries WHERE block_id = '"+id.String()+"'", time.Unix(0, s.process.StartTime).Add(-time.Second))
	if err != nil {
		t.Errorf("query after %v: %v", wait, err)
		return
	}
	if len(a.rows) != 1 || a.rows[0] != fmt.Sprint(s.fleet.rows) {
		t.Errorf("block %s: %v rows right after its ack, want %d; waited %v; warnings %v", id, a.rows, s.fleet.rows, wait, a.warnings)
	}
}

// ask asks one query process, and the next one while the connection is broken, because the process was killed or has come
// back a moment ago.
func (r *roundTrips) ask(ctx context.Context, sql string, begin time.Time) (answer, time.Duration, error) {
	first := time.Now()
	for at := int(r.turn.Load()); ; at++ {
		begun := time.Now()
		callCtx, cancel := context.WithTimeout(ctx, 2*longestWait)
		a, err := r.query[at%len(r.query)].ask(callCtx, sql, begin, time.Now().Add(time.Minute))
		cancel()
		wait := time.Since(begun)
		if brokenConnection(err) && time.Since(first) < longestWait {
			r.retried.Add(1)
			<-time.After(50 * time.Millisecond)
			continue
		}
		if err == nil {
			r.mu.Lock()
			r.waits = append(r.waits, wait)
			r.mu.Unlock()
		}
		return a, wait, err
	}
}

// brokenConnection says whether a call failed between the processes, rather than in the one that was called.
func brokenConnection(err error) bool {
	return status.Code(err) == codes.Unavailable && (strings.Contains(err.Error(), "connection error") || strings.Contains(err.Error(), "reading from server") ||
		strings.Contains(err.Error(), "transport"))
}

// auditWindow is how far back the running audit looks.
const auditWindow = 10 * time.Second

// auditLatest compares, again and again, all rows of the last seconds with what was acknowledged before the question.
func (r *roundTrips) auditLatest(ctx context.Context, t *testing.T, done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		since := time.Now().Add(-auditWindow)
		for _, table := range []string{"log_entries", "measures"} {
			must, _ := r.fleet.account(table, since.UnixNano())
			a, wait, err := r.ask(ctx, "SELECT block_id, count(*) FROM "+table+" GROUP BY block_id", since)
			if err != nil {
				t.Errorf("audit of the latest %s after %v: %v", table, wait, err)
				continue
			}
			if lost, doubled, example := compareRows(a.rows, must, nil); lost+doubled > 0 {
				t.Errorf("latest %s: of %d blocks %d lost, %d doubled: %s; waited %v; warnings %v", table, len(must), lost, doubled, example, wait, a.warnings)
			}
			r.audits++
		}
	}
}

func (r *roundTrips) report(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waits) == 0 {
		t.Fatal("no query was answered")
	}
	slices.Sort(r.waits)
	longest := r.waits[len(r.waits)-1]
	t.Logf("%d queries, %d audits of the latest rows: p50 %v, p99 %v, longest %v; %d asked again over a broken connection",
		len(r.waits), r.audits, r.waits[len(r.waits)/2], r.waits[len(r.waits)*99/100], longest, r.retried.Load())
	if longest > longestWait {
		t.Errorf("a query waited %v, the limit is %v", longest, longestWait)
	}
}

// checkNothingLeft looks at the bucket and at the bus after everything was archived: garbage collection, as it would run hours later,
// leaves no object that no row names and takes none that one names; and the bus was trimmed.
func checkNothingLeft(t *testing.T, c *cluster, members map[string][]*member) {
	t.Helper()
	limit := int64(busKeep)/busShards(members["workers"][0].process()) + trimSlack
	deploytest.Eventually(t, time.Minute, "everything archived and trimmed", func() bool {
		for _, s := range members["workers"][0].process().Status()["shards"].([]any) {
			shard := s.(map[string]any)
			if shard["archive_lag"].(float64) > 0 || int64(shard["bytes"].(float64)) > limit {
				return false
			}
		}
		return true
	})
	for _, role := range []string{"gateway", "workers", "materializers", "query"} {
		for _, m := range members[role] {
			m.process().Stop()
		}
	}
	cat, l := c.openCatalog(), c.openLake()
	result, err := l.GC(t.Context(), cat, lake.GCOptions{Ahead: 3 * time.Hour, ClaimOnBus: func(lake.Object) bool { return false }})
	if err != nil {
		t.Fatalf("collect garbage: %v", err)
	}
	var keys []string
	for _, prefix := range []string{lake.PackPrefix, lake.ViewPrefix, lake.ClaimPrefix} {
		for o, err := range l.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
	}
	referenced, err := cat.KeysReferenced(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, ok := range referenced {
		if !ok {
			t.Errorf("orphan in the bucket: %s", keys[i])
		}
	}
	for _, key := range namedKeys(t, cat) {
		if !slices.Contains(keys, key) {
			t.Errorf("object %s is named by a row and is gone", key)
		}
	}
	t.Logf("bucket: %d objects, all named; collected %d orphans and %d retired files", len(keys), result.Orphans, result.Retired)
}

// trimSlack is what may be on a stream beyond its part of what is kept: steps of trimming, and what came since the last look.
const trimSlack = 12 << 20

func busShards(p *deploytest.Process) int64 { return int64(len(p.Status()["shards"].([]any))) }

// namedKeys lists the objects that rows name: packs, adopted bodies aside, and live partitions.
func namedKeys(t *testing.T, cat catalog.Catalog) []string {
	t.Helper()
	delta, err := cat.Partitions(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i := range delta.Added {
		keys = append(keys, delta.Added[i].Key)
	}
	generations, err := cat.Generations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range generations {
		for after := uint64(0); ; {
			packs, err := cat.PacksAfter(t.Context(), g.ShardID, after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if len(packs) == 0 {
				break
			}
			for i := range packs {
				keys = append(keys, packs[i].Key)
			}
			after = packs[len(packs)-1].LastSeq
		}
	}
	return keys
}
