package apart_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// fleet is many clients that post blocks to any of several gateways, and the list of what was acknowledged to them: the
// sender's own account, against which the rows are counted.
type fleet struct {
	gateways []string
	http     *http.Client
	rows     int // events of a block
	twice    float64
	late     float64

	mu     sync.Mutex
	rng    *rand.Rand
	acked  map[telemetry.ID]posted
	unsure map[telemetry.ID]posted // sent, and never answered with 200: they may be there or not

	posts, acks, refused, broken, duplicates, lateBlocks, events atomic.Int64
	longestAck                                                   atomic.Int64 // ns, from the first try to the 200
}

// posted is a block as its sender knows it.
type posted struct {
	table      string // of its rows; "" when it is only archived
	rows       int
	begin, end int64
}

// The tables that the fleet's blocks go to, by turns; the empty one stands for blocks that are only archived.
var fleetTables = []string{"log_entries", "log_entries", "measures", "log_entries", "measures", ""}

// fleetTryFor is how long a client tries to post one block: longer than any fault of the tests lasts.
const fleetTryFor = 3 * time.Minute

func newFleet(seed uint64, rows int, gateways ...string) *fleet {
	return &fleet{
		gateways: gateways, rows: rows, rng: rand.New(rand.NewPCG(seed, 7)),
		http:  &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
		acked: map[telemetry.ID]posted{}, unsure: map[telemetry.ID]posted{},
	}
}

// float draws from the seeded source.
func (f *fleet) float() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rng.Float64()
}

// sender is one client process with a stream for each table.
type sender struct {
	fleet   *fleet
	process telemetry.Process
	streams map[string]telemetry.Stream
	next    int64
}

func (f *fleet) newSender() *sender {
	s := &sender{fleet: f, streams: map[string]telemetry.Stream{}}
	s.process = telemetry.Process{
		ID: telemetry.NewID(), Exe: "fleet", Computer: "test", TSCFrequency: 1e9, StartTime: time.Now().Truncate(time.Microsecond).UnixNano(), StartTicks: 1,
	}
	for table, tag := range map[string]string{"log_entries": "log", "measures": "metrics", "": "cpu"} {
		stream := telemetry.Stream{ID: telemetry.NewID(), ProcessID: s.process.ID, Tags: []string{tag}}
		switch tag {
		case "log":
			stream.Dependencies, stream.Objects = wire.LogTypes()
		case "metrics":
			stream.Dependencies, stream.Objects = wire.MetricsTypes()
		default:
			stream.Dependencies, stream.Objects = wire.CPUTypes()
		}
		s.streams[table] = stream
	}
	return s
}

// register posts the process and the streams of tables; false when one was not acknowledged.
func (s *sender) register(ctx context.Context, tables ...string) bool {
	for _, table := range tables {
		stream := s.streams[table]
		if !s.fleet.post(ctx, "insert_stream", wire.AppendStream(nil, &stream)) {
			return false
		}
	}
	return s.fleet.post(ctx, "insert_process", wire.AppendProcess(nil, &s.process))
}

// block makes the sender's next block. Its events end now.
func (s *sender) block(table string) (telemetry.ID, []byte, posted) {
	n := s.next
	s.next++
	rows := int64(s.fleet.rows)
	end := time.Now().UnixNano()
	begin := end - rows*1000
	ticks := func(t int64) int64 { return 1 + t - s.process.StartTime }
	var e deploytest.Emitter
	for i := range rows {
		switch at := ticks(begin) + i*1000; table {
		case "log_entries":
			e.Log(at, uint32(2+i%4), "fleet", fmt.Sprintf("block %d entry %d", n, i))
		case "measures":
			e.Float(at, "fleet", "frame_time", "ms", float64(n)+float64(i)/1000)
		}
	}
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: s.streams[table].ID, ProcessID: s.process.ID, NbObjects: int32(rows), ObjectOffset: n * rows,
		BeginTicks: ticks(begin), EndTicks: ticks(end), BeginTime: begin, EndTime: end,
	}
	return b.ID, e.Body(b), posted{table: table, rows: int(rows), begin: begin, end: end}
}

// post sends a body until it is acknowledged, alternating between the gateways; false when ctx ended, or time was over.
func (f *fleet) post(ctx context.Context, route string, body []byte) bool {
	begun := time.Now()
	pause := 10 * time.Millisecond
	at := int(f.float() * float64(len(f.gateways)))
	for try := 0; ctx.Err() == nil && time.Since(begun) < fleetTryFor; try++ {
		f.posts.Add(1)
		code, err := f.send(ctx, f.gateways[(at+try)%len(f.gateways)], route, body)
		switch {
		case err == nil && code == http.StatusOK:
			f.acks.Add(1)
			f.longestAck.Store(max(f.longestAck.Load(), int64(time.Since(begun))))
			return true
		case err == nil && code == http.StatusServiceUnavailable:
			f.refused.Add(1)
		case err == nil:
			panic(fmt.Sprintf("%s answered %d: only 200 and 503 are allowed", route, code))
		default:
			f.broken.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 500*time.Millisecond)
	}
	return false
}

func (f *fleet) send(ctx context.Context, gateway, route string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway+"/ingestion/"+route, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// postBlock posts the sender's next block, sometimes twice at once, and notes what became of it.
func (s *sender) postBlock(ctx context.Context, table string) (telemetry.ID, bool) {
	f := s.fleet
	id, body, p := s.block(table)
	f.note(f.unsure, id, p)
	var again sync.WaitGroup
	if f.float() < f.twice {
		f.duplicates.Add(1)
		again.Go(func() { f.post(ctx, "insert_block", body) })
	}
	ok := f.post(ctx, "insert_block", body)
	again.Wait()
	if ok {
		f.settle(id, p)
	}
	return id, ok
}

// postLate posts a block of a process that nobody has heard of, and its registrations after that, also when ctx ends meanwhile or nobody
// answered: the block may be stored, and then it would wait for them for ever, and every query say so.
func (f *fleet) postLate(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	f.lateBlocks.Add(1)
	s := f.newSender()
	id, body, p := s.block("log_entries")
	f.note(f.unsure, id, p)
	acked := f.post(ctx, "insert_block", body)
	if s.register(ctx, "log_entries") && acked {
		f.settle(id, p)
	}
}

func (f *fleet) note(list map[telemetry.ID]posted, id telemetry.ID, p posted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list[id] = p
}

// settle moves a block to those that must be there.
func (f *fleet) settle(id telemetry.ID, p posted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.unsure, id)
	f.acked[id] = p
	f.events.Add(int64(p.rows))
}

// run posts at a rate of events a second from n clients until ctx ends, then waits for what is under way.
func (f *fleet) run(ctx context.Context, n int, rate float64) {
	every := time.Duration(float64(n*f.rows) / rate * float64(time.Second))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := f.newSender()
			if !s.register(ctx, "log_entries", "measures", "") {
				return
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for turn := i; ctx.Err() == nil; turn++ {
				if f.float() < f.late {
					f.postLate(ctx)
				} else {
					s.postBlock(ctx, fleetTables[turn%len(fleetTables)])
				}
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	wg.Wait()
}

// account is what must be in a table, and what may be.
func (f *fleet) account(table string, since int64) (must, may map[string]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	must, may = map[string]int{}, map[string]int{}
	for id, p := range f.acked {
		if p.begin >= since && (p.table == table || table == "blocks") {
			must[id.String()] = p.rows
		}
	}
	for id, p := range f.unsure {
		if p.table == table || table == "blocks" {
			may[id.String()] = p.rows
		}
	}
	return must, may
}

// compareRows compares the rows of a table, "block|count" each, with the account: every acknowledged block whole, no block
// more than once.
func compareRows(rows []string, must, may map[string]int) (lost, doubled int, example string) {
	seen := map[string]string{}
	for _, r := range rows {
		id, n, _ := strings.Cut(r, "|")
		seen[id] = n
	}
	for id, want := range must {
		switch got := seen[id]; got {
		case fmt.Sprint(want):
		case "":
			lost++
			example = fmt.Sprintf("block %s is missing", id)
		default:
			doubled++
			example = fmt.Sprintf("block %s has %s rows, want %d", id, got, want)
		}
	}
	for id, want := range may {
		if got := seen[id]; got != "" && got != fmt.Sprint(want) {
			doubled++
			example = fmt.Sprintf("block %s, which was never acknowledged, has %s rows of %d", id, got, want)
		}
	}
	return lost, doubled, example
}

// tally is what an audit found, for the report.
type tally struct {
	blocks, rows, lost, doubled int
}

// audit asks m for every row that the fleet was acknowledged, in the views and in blocks, and fails unless each is there exactly
// once.
func (f *fleet) audit(t testing.TB, m *member) tally {
	t.Helper()
	var sum tally
	for _, table := range []string{"log_entries", "measures", "blocks"} {
		must, may := f.account(table, 0)
		count := "count(*)"
		if table == "blocks" {
			count = "count(*) * min(nb_objects)"
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		a, err := m.ask(ctx, "SELECT block_id, "+count+" FROM "+table+" GROUP BY block_id", time.Time{}, time.Time{})
		cancel()
		if err != nil {
			t.Fatalf("audit of %s: %v\n%s", table, err, m.cluster.logTails())
		}
		lost, doubled, example := compareRows(a.rows, must, may)
		if lost+doubled > 0 {
			t.Errorf("%s: %d of %d acknowledged blocks lost, %d doubled or torn: %s\nwarnings: %v\n%s", table, lost, len(must), doubled, example, a.warnings, m.cluster.logTails())
		}
		sum.lost, sum.doubled = sum.lost+lost, sum.doubled+doubled
		if table == "blocks" {
			sum.blocks = len(must)
			continue
		}
		for _, n := range must {
			sum.rows += n
		}
	}
	return sum
}
