package apart_test

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/deploy/parts"
)

// rig is a cluster whose ways to its servers can be broken.
type rig struct {
	*cluster
	toPostgres *parts.Proxy
	toS3       *parts.HTTPFaults
	members    map[string][]*member
	fleet      *fleet
}

// newRig starts two of each role with faults between them and the servers.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{cluster: newCluster(t, clusterOptions{})}
	toxics, err := parts.StartToxiproxy(t.Context(), filepath.Join(r.dir, "toxiproxy"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { toxics.Stop() })
	if r.toPostgres, err = toxics.Proxy("postgres", r.postgres.Addr()); err != nil {
		t.Fatal(err)
	}
	if r.toS3, err = parts.StartHTTPFaults(r.s3.Endpoint()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.toS3.Stop() })
	r.env["MICROMEGAS_SQL_CONNECTION_STRING"] = strings.Replace(r.postgres.URL("micromegas"), r.postgres.Addr(), r.toPostgres.Addr(), 1)
	r.env["MICROMEGAS_OBJECT_STORE_URI"] = r.s3.URIAt(r.toS3.URL(), "lake")
	r.members = r.startAll(map[string]int{"gateway": 2, "workers": 2, "materializers": 2, "query": 1})
	r.fleet = newFleet(1, 50, r.members["gateway"][0].url(), r.members["gateway"][1].url())
	r.fleet.twice, r.fleet.late = 0.01, 0.01
	return r
}

// fault is something that breaks between the processes and their servers, and is mended after a while.
type fault struct {
	name  string
	lasts time.Duration
	begin func(r *rig) error
	end   func(r *rig) error
	// acks says that clients are acknowledged while it lasts: then no ack may take longer than this. 0: they may be refused.
	acks time.Duration
	// typed says that queries which read the broken part fail with this code rather than hang; codes.OK: they go on.
	typed codes.Code
}

// The whole of TestFaultsBetweenParts is one command; without the flag each fault lasts half as long, but for those that
// take their time whatever one does, such as elections of NATS servers:
//
//	go test ./deploy/apart -run TestFaultsBetweenParts -v -timeout 20m -faults.for 1
var faultsFor = flag.Float64("faults.for", 0.5, "share of the durations of TestFaultsBetweenParts")

const (
	faultRate     = 5_000            // events a second that flow meanwhile
	faultSettle   = 2 * time.Second  // of load before and after
	faultCatchUp  = 60 * time.Second // after which everything must be there again
	faultQuery    = 15 * time.Second // longest answer of a query, also when it is an error
	downFor       = 30 * time.Second // of PostgreSQL
	shortlyBroken = 10 * time.Second
	busBroken     = 20 * time.Second // what answers late: elections of NATS take up to 9 s, a query's calls as long
)

// faults are what a deployment meets; TestFaultsBetweenParts has them one after the other on one deployment.
var faults = []fault{
	{
		name: "PostgreSQL is down", lasts: downFor, acks: 2 * time.Second, typed: codes.Unavailable,
		begin: func(r *rig) error { return r.postgres.Kill() },
		end:   func(r *rig) error { return r.postgres.Restart(context.Background()) },
	},
	{
		name: "PostgreSQL cannot be reached", lasts: busBroken, acks: 2 * time.Second, typed: codes.Unavailable,
		begin: func(r *rig) error { return r.toPostgres.Cut() },
		end:   func(r *rig) error { return r.toPostgres.Heal() },
	},
	{
		name: "PostgreSQL hangs", lasts: busBroken, acks: 3 * time.Second, typed: codes.Unavailable,
		begin: func(r *rig) error { return r.postgres.Pause() },
		end:   func(r *rig) error { return r.postgres.Resume() },
	},
	{
		name: "PostgreSQL refuses writes", lasts: shortlyBroken, acks: 2 * time.Second,
		begin: func(r *rig) error { return r.readOnly(true) },
		end:   func(r *rig) error { return r.readOnly(false) },
	},
	{
		name: "PostgreSQL is slow", lasts: shortlyBroken, acks: 2 * time.Second,
		begin: func(r *rig) error { return r.toPostgres.Latency(100*time.Millisecond, 50*time.Millisecond) },
		end:   func(r *rig) error { return r.toPostgres.Heal() },
	},
	{
		name: "S3 answers 500 and 503 at 5 %", lasts: shortlyBroken, acks: 2 * time.Second,
		begin: func(r *rig) error { r.toS3.Set(parts.Faults{Error500: 0.025, Error503: 0.025}, 1); return nil },
		end:   healS3,
	},
	{
		name: "S3 times out at 5 %", lasts: shortlyBroken, acks: 2 * time.Second,
		begin: func(r *rig) error { r.toS3.Set(parts.Faults{Timeout: 0.05, Hold: time.Minute}, 2); return nil },
		end:   healS3,
	},
	{
		name: "S3 tears reads and loses replies at 10 %", lasts: shortlyBroken, acks: 2 * time.Second,
		begin: func(r *rig) error { r.toS3.Set(parts.Faults{Torn: 0.1, LostReply: 0.1}, 3); return nil },
		end:   healS3,
	},
	{
		name: "S3 is down", lasts: shortlyBroken, acks: 2 * time.Second,
		begin: func(r *rig) error { return r.s3.Kill() },
		end:   func(r *rig) error { return r.s3.Restart(context.Background()) },
	},
	{
		name: "a NATS server is killed", lasts: busBroken, acks: 15 * time.Second,
		begin: func(r *rig) error { return r.nats.Kill(0) },
		end:   func(r *rig) error { return r.nats.Restart(context.Background(), 0) },
	},
	{
		name: "a NATS server hangs", lasts: busBroken, acks: 20 * time.Second,
		begin: func(r *rig) error { return r.nats.Pause(1) },
		end:   func(r *rig) error { return r.nats.Resume(1) },
	},
	{
		name: "a NATS server is cut off from the others", lasts: busBroken, acks: 20 * time.Second,
		begin: func(r *rig) error { r.nats.Partition(2); return nil },
		end:   func(r *rig) error { r.nats.Heal(2); return nil },
	},
	{
		name: "two of three NATS servers hang", lasts: shortlyBroken,
		begin: func(r *rig) error {
			if err := r.nats.Pause(0); err != nil {
				return err
			}
			return r.nats.Pause(1)
		},
		end: func(r *rig) error {
			if err := r.nats.Resume(0); err != nil {
				return err
			}
			return r.nats.Resume(1)
		},
	},
}

func healS3(r *rig) error { r.toS3.Set(parts.Faults{}, 0); return nil }

// readOnly makes the database server refuse writes, as one does that is being failed over or has run out of space.
func (r *rig) readOnly(on bool) error {
	return r.postgres.Exec(context.Background(),
		fmt.Sprintf("ALTER SYSTEM SET default_transaction_read_only = %v", on), "SELECT pg_reload_conf()")
}

// TestFaultsBetweenParts breaks one part after the other under load. While one is broken clients are acknowledged or told 503, and
// queries end; when it is mended every acknowledged row is there once. It logs for each fault how long, how many were
// acknowledged, and how long it took until all was there.
func TestFaultsBetweenParts(t *testing.T) {
	r := newRig(t)
	for _, f := range faults {
		if f.lasts != busBroken {
			f.lasts = time.Duration(*faultsFor * float64(f.lasts))
		}
		t.Run(f.name, func(t *testing.T) { r.meet(t, f) })
	}
}

// meet lets a fault happen under load.
func (r *rig) meet(t *testing.T, f fault) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	fl := r.fleet
	fl.longestAck.Store(0)
	var load sync.WaitGroup
	load.Go(func() { fl.run(ctx, 4, faultRate) })
	letPass(faultSettle)
	before, refused, broken := fl.acks.Load(), fl.refused.Load(), fl.broken.Load()
	probes := newProbes(r.members["query"][0])
	probeCtx, stopProbes := context.WithCancel(ctx)
	var probing sync.WaitGroup
	if err := f.begin(r); err != nil {
		t.Fatalf("begin: %v", err)
	}
	probing.Go(func() { probes.run(probeCtx) })
	letPass(f.lasts)
	acked, longest := fl.acks.Load()-before, time.Duration(fl.longestAck.Load())
	stopProbes()
	probing.Wait()
	if err := f.end(r); err != nil {
		t.Fatalf("end: %v", err)
	}
	mended := time.Now()
	letPass(faultSettle)
	stop()
	load.Wait()
	r.catchUp(t)
	caughtUp := time.Since(mended)
	sum := fl.audit(t, r.members["query"][0])
	t.Logf("%v broken: %d acknowledged meanwhile, %d answered 503, %d connections broken, longest ack %v; queries: %s; all there %v after the mend; of %d blocks and %d rows %d lost, %d doubled",
		f.lasts, acked, fl.refused.Load()-refused, fl.broken.Load()-broken, longest.Round(time.Millisecond), probes, caughtUp.Round(time.Millisecond), sum.blocks, sum.rows, sum.lost, sum.doubled)
	if f.acks > 0 && acked == 0 {
		t.Errorf("nothing was acknowledged while it lasted, though the bus was there")
	}
	if f.acks > 0 && longest > f.acks {
		t.Errorf("an ack took %v, at most %v are right", longest, f.acks)
	}
	if probes.longest > faultQuery {
		t.Errorf("a query took %v to answer or fail", probes.longest)
	}
	if f.typed != codes.OK && probes.codes[f.typed] == 0 {
		t.Errorf("no query failed with %v: %s", f.typed, probes)
	}
	for code := range probes.codes {
		if !slices.Contains([]codes.Code{codes.OK, codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, f.typed}, code) {
			t.Errorf("a query failed with %v: %s", code, probes.example[code])
		}
	}
}

// letPass lets time pass in which faults and loads do their work: there is no event to wait for.
func letPass(d time.Duration) { <-time.After(d) }

// catchUp waits until a query says, without a warning, that it sees everything.
func (r *rig) catchUp(t *testing.T) {
	t.Helper()
	var last string
	defer func() {
		if t.Failed() {
			t.Logf("last answer: %s\n%s", last, r.logTails())
		}
	}()
	deploytest.Eventually(t, faultCatchUp, "an answer without a doubt", func() bool {
		for _, table := range []string{"log_entries", "measures", "blocks"} {
			ctx, cancel := context.WithTimeout(t.Context(), faultQuery)
			a, err := r.members["query"][0].ask(ctx, "SELECT count(*) FROM "+table, time.Time{}, time.Time{})
			cancel()
			if last = fmt.Sprint(a.warnings, err); err != nil || len(a.warnings) > 0 {
				return false
			}
		}
		return true
	})
}

// probes are queries while something is broken: how they end, and when.
type probes struct {
	query   *member
	codes   map[codes.Code]int
	example map[codes.Code]string
	warned  int
	longest time.Duration
}

func newProbes(query *member) *probes {
	return &probes{query: query, codes: map[codes.Code]int{}, example: map[codes.Code]string{}}
}

func (p *probes) run(ctx context.Context) {
	for ctx.Err() == nil {
		begun := time.Now()
		callCtx, cancel := context.WithTimeout(ctx, 2*faultQuery)
		a, err := p.query.ask(callCtx, "SELECT level, count(*) FROM log_entries GROUP BY level", begun.Add(-time.Minute), begun.Add(time.Minute))
		cancel()
		if ctx.Err() != nil {
			return
		}
		p.longest = max(p.longest, time.Since(begun))
		code := status.Code(err)
		p.codes[code]++
		if err != nil {
			p.example[code] = err.Error()
		}
		if len(a.warnings) > 0 {
			p.warned++
		}
		letPass(100 * time.Millisecond)
	}
}

func (p *probes) String() string {
	var b strings.Builder
	for code, n := range p.codes {
		fmt.Fprintf(&b, "%d × %v, ", n, code)
	}
	fmt.Fprintf(&b, "%d warned, longest %v", p.warned, p.longest.Round(time.Millisecond))
	return b.String()
}

// TestPostgresFailsOver loses the primary for good under load; the standby, which has every commit, takes over 5 s later. The
// processes were told of both.
func TestPostgresFailsOver(t *testing.T) {
	c := newCluster(t, clusterOptions{natsServers: 1})
	url := c.postgres.URL("micromegas")
	standby, err := parts.StartStandby(t.Context(), filepath.Join(c.dir, "standby"), c.postgres)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	if err := c.postgres.Synchronous(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.env["MICROMEGAS_SQL_CONNECTION_STRING"] = strings.Replace(url, c.postgres.Addr(), c.postgres.Addr()+","+standby.Addr(), 1) + "&target_session_attrs=read-write"
	r := &rig{cluster: c, members: c.startAll(map[string]int{"gateway": 1, "workers": 2, "materializers": 2, "query": 1})}
	r.fleet = newFleet(1, 50, r.members["gateway"][0].url())
	r.meet(t, fault{
		name: "PostgreSQL fails over", lasts: 5 * time.Second, acks: 2 * time.Second,
		begin: func(*rig) error { return c.postgres.Kill() },
		end:   func(*rig) error { return standby.Promote(context.Background()) },
	})
}
