package query_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// fakeBus has two shards of each class. It stands for the owners: it notes what it is asked, may do something, and answers.
type fakeBus struct {
	reply  bus.FlushReply
	err    error
	silent bool
	do     func(bus.FlushRequest)

	mu   sync.Mutex
	asks []string
}

func (f *fakeBus) Shards() []bus.Shard {
	return []bus.Shard{{Class: bus.Eager}, {Class: bus.Eager, Shard: 1}, {Class: bus.Raw}, {Class: bus.Raw, Shard: 1}}
}

func (f *fakeBus) ShardOf(class bus.Class, id telemetry.ID) bus.Shard {
	return bus.Shard{Class: class, Shard: int32(id[0] & 1)}
}

func (f *fakeBus) Flush(ctx context.Context, s bus.Shard, req bus.FlushRequest) (bus.FlushReply, error) {
	f.mu.Lock()
	text := s.String() + " " + req.Target
	if len(req.Views) > 0 {
		text += " " + strings.Join(req.Views, ",")
	}
	if !req.Process.IsZero() {
		text += " " + req.Process.String()[:2]
	}
	f.asks = append(f.asks, text)
	if f.do != nil {
		f.do(req)
	}
	f.mu.Unlock()
	if f.silent {
		<-ctx.Done()
		return bus.FlushReply{}, ctx.Err()
	}
	return f.reply, f.err
}

func (f *fakeBus) Materialize(context.Context, bus.MaterializeRequest, func(bus.MaterializeProgress)) (bus.MaterializeReply, error) {
	return bus.MaterializeReply{}, bus.ErrNoOwner
}

// taken returns what was asked since the last call, sorted.
func (f *fakeBus) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.asks
	f.asks = nil
	slices.Sort(out)
	return out
}

func TestOnlyOwnersOfWhatIsReadAreAsked(t *testing.T) {
	b := &fakeBus{}
	e := querytest.Start(t, querytest.Options{Bus: b})
	e.Fixture(t)
	c := e.Dial(t, "")
	p1, p2 := querytest.P1.String(), querytest.P2.String()
	f := func(sql string, want ...string) {
		t.Helper()
		if _, err := ask(t.Context(), c, sql, span(0, 3600)); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if got := b.taken(); !slices.Equal(got, want) {
			t.Errorf("%s asked %q, want %q", sql, got, want)
		}
	}
	f("SELECT 1")
	f("SELECT * FROM list_partitions()")
	f("SELECT count(*) FROM log_entries", "eager/0 views log_entries", "eager/1 views log_entries")
	f("SELECT count(*) FROM log_stats, measures", "eager/0 views log_stats,measures", "eager/1 views log_stats,measures")
	f("SELECT count(*) FROM processes", "eager/0 archive", "eager/1 archive", "raw/0 archive", "raw/1 archive")
	f("SELECT count(*) FROM span_streams()", "eager/0 archive", "eager/1 archive", "raw/0 archive", "raw/1 archive")
	f("SELECT count(*) FROM thread_spans WHERE exe = 'nobody'", "eager/0 archive", "eager/1 archive", "raw/0 archive", "raw/1 archive")
	f("SELECT count(*) FROM view_instance('measures','"+p1+"')", "eager/1 views measures 11")
	f("SELECT count(*) FROM view_instance('measures','"+p1+"') a, view_instance('log_entries','"+p2+"') b",
		"eager/0 views measures,log_entries 22", "eager/1 views measures,log_entries 11")
	f("SELECT count(*) FROM view_instance('log_entries','"+p1+"') a, log_entries b", "eager/0 views log_entries", "eager/1 views log_entries")
}

func TestAnswerSeesWhatOwnersCommit(t *testing.T) {
	b := &fakeBus{}
	e := querytest.Start(t, querytest.Options{Bus: b})
	e.Fixture(t)
	c := e.Dial(t, "")
	n := 0
	b.do = func(req bus.FlushRequest) {
		if req.Target == bus.TargetViews {
			n++
			e.Partition(t, "log_entries", querytest.Log(querytest.P2, querytest.At(1000+float64(n)), 4, "srv", "late", "{}"))
		}
	}
	for want := range 3 {
		got, err := ask(t.Context(), c, "SELECT count(*) FROM log_entries WHERE msg = 'late'", span(0, 3600))
		if err != nil {
			t.Fatal(err)
		}
		if wantText := string(rune('0' + 2*(want+1))); got != wantText { // two shards, a row each
			t.Errorf("query %d sees %s late rows, want %s", want, got, wantText)
		}
	}
}

func TestProcessRegisteredAMomentAgo(t *testing.T) {
	b := &fakeBus{}
	e := querytest.Start(t, querytest.Options{Bus: b})
	e.Fixture(t)
	c := e.Dial(t, "")
	id := telemetry.NewID()
	b.do = func(req bus.FlushRequest) {
		if req.Target == bus.TargetArchive && req.Process == id {
			e.Archive(t, []catalog.ProcessReg{{Process: telemetry.Process{ID: id, Exe: "new"}, InsertTime: querytest.At(5)}}, nil, nil)
		}
	}
	if got, err := ask(t.Context(), c, "SELECT count(*) FROM view_instance('log_entries','"+id.String()+"')", client.QueryOptions{}); err != nil || got != "0" {
		t.Errorf("got %q, %v", got, err)
	}
	b.do = nil
	if got, err := ask(t.Context(), c, "SELECT exe FROM processes WHERE process_id = '"+id.String()+"'", client.QueryOptions{}); err != nil || got != "new" {
		t.Errorf("a process without a block: %q, %v", got, err)
	}
}

func TestDoubtsAreToldOrRefused(t *testing.T) {
	b := &fakeBus{}
	e := querytest.Start(t, querytest.Options{Bus: b, Config: func(c *query.Config) { c.FreshenTimeout = 50 * time.Millisecond }})
	e.Fixture(t)
	c := e.Dial(t, "")
	f := func(want string) {
		t.Helper()
		rows, err := c.Query(t.Context(), "SELECT count(*) FROM log_entries", client.QueryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		warnings := strings.Join(rows.Warnings(), "\n")
		rows.Close()
		if want == "" && warnings != "" || !strings.Contains(warnings, want) {
			t.Errorf("warnings %q, want %q in them", warnings, want)
		}
		_, err = c.Query(t.Context(), "SELECT count(*) FROM log_entries", client.QueryOptions{Strict: true})
		if code := status.Code(err); (want == "") != (code == codes.OK) || want != "" && code != codes.Unavailable {
			t.Errorf("strict: %v", err)
		}
	}
	f("")
	b.err = bus.ErrNoOwner
	f("views of shard eager/1: nobody owns it")
	b.err = nil
	b.reply.Backlog = true
	f("backlog")
	b.reply = bus.FlushReply{Parked: 3}
	f("3 blocks wait for the registration")
	b.reply = bus.FlushReply{Err: "disk full"}
	f("disk full")
	b.reply = bus.FlushReply{}
	b.silent = true
	f("no answer within 50ms")
}
