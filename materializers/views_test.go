package materializers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// entries is the lines that the entries of a log block give, without ids.
func (m *maker) entries(block, n int, offset time.Duration) []string {
	var lines []string
	for i := range n {
		msg := fmt.Sprint("static ", block)
		if i%2 == 1 {
			msg = fmt.Sprint(m.process.Exe, " block ", block, " entry ", i)
		}
		lines = append(lines, fmt.Sprintf("%q %d %q %d %q", m.process.ID.String(), catalog.TruncateToMicroseconds(start)+int64(offset)+int64(i)*int64(time.Millisecond), "target", 4, msg))
	}
	return lines
}

var logColumns = []string{"process_id", "time", "target", "level", "msg"}

func sorted(lines ...[]string) []string {
	all := slices.Concat(lines...)
	slices.Sort(all)
	return all
}

func TestBlocksBecomeRows(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(10, time.Second))
	m.postValues(e, m.valueBlock(9, 2*time.Second))
	m.postLog(e, m.logBlock(5, 3*time.Second))
	if reply := e.flush(); reply.Parked != 0 || reply.CommitNo == 0 {
		t.Errorf("flush answered %+v", reply)
	}
	want := sorted(m.entries(1, 10, time.Second), m.entries(3, 5, 3*time.Second))
	if diff := cmp.Diff(want, e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	values := e.rows("measures", "process_id", "exe", "name", "unit", "target", "properties", "process_properties")
	if len(values) != 9 || values[0] != fmt.Sprintf(`%q "exe1" "metric0" "target" "target" "{}" "{\"n\":\"1\"}"`, m.process.ID.String()) {
		t.Errorf("measures: %d rows, %s", len(values), values[0])
	}
	stats := e.rows("log_stats")
	bin := catalog.TruncateToMicroseconds(start) / 60e9 * 60e9
	if diff := cmp.Diff([]string{fmt.Sprintf("%d %q 4 %q 15", bin, m.process.ID.String(), "target")}, stats); diff != "" {
		t.Error(diff)
	}
}

func TestOrderIsNotAssumed(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postLog(e, m.logBlock(4, time.Second))
	if reply := e.flush(); reply.Parked != 1 {
		t.Errorf("a block without its stream: %+v", reply)
	}
	e.eventually("parking", func() bool { e.flush(); return true })
	m.postStreams(e)
	m.postLog(e, m.logBlock(3, 2*time.Second))
	if reply := e.flush(); reply.Parked != 2 {
		t.Errorf("blocks without their process: %+v", reply)
	}
	if rows := e.rows("log_entries"); len(rows) != 0 {
		t.Errorf("%d rows without a process", len(rows))
	}
	m.postProcess(e)
	e.flush()
	want := sorted(m.entries(1, 4, time.Second), m.entries(2, 3, 2*time.Second))
	e.eventually("building of parked copies", func() bool { return len(e.rows("log_entries")) == len(want) })
	if diff := cmp.Diff(want, e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	if reply := e.flush(); reply.Parked != 0 {
		t.Errorf("after the registrations: %+v", reply)
	}
}

// Parked copies below the checkpoint come from packs, also for an owner that never saw them.
func TestParkedCopiesSurviveTheirOwner(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.CommitAge = 20 * time.Millisecond
	stop := e.startViews(cfg)
	m := newMaker(1)
	m.postLog(e, m.logBlock(4, time.Second))
	parked := func() int {
		rows, err := e.cat.Parked(t.Context(), catalog.ConsumerViews, catalog.ParkedFilter{})
		if err != nil {
			t.Fatal(err)
		}
		return len(rows)
	}
	e.eventually("parking", func() bool { return parked() == 1 })
	stop()
	m.postProcess(e)
	m.postStreams(e)
	e.startViews(cfg)
	e.eventually("building", func() bool { return parked() == 0 })
	if diff := cmp.Diff(sorted(m.entries(1, 4, time.Second)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

func TestDuplicatesAreLeftOut(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.SeenBlocks = 1 // some are foreseen, others found by archive's skips only
	e.startViews(cfg)
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	want, bodies := []string{}, [][]byte{}
	for i := range 6 {
		offset := time.Duration(i) * time.Second
		bodies = append(bodies, m.logBlock(3, offset))
		want = append(want, m.entries(i+1, 3, offset)...)
	}
	for _, body := range bodies {
		m.postLog(e, body)
		m.postLog(e, body)
	}
	e.flush()
	for _, body := range bodies {
		m.postLog(e, body)
	}
	e.flush()
	if diff := cmp.Diff(sorted(want), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

func TestAbsurdTimesShareOneFile(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	for _, offset := range []time.Duration{-50 * 365 * 24 * time.Hour, 3 * 24 * time.Hour, 40 * 365 * 24 * time.Hour, time.Second, 20 * time.Minute} {
		m.postLog(e, m.logBlock(2, offset))
	}
	e.flush()
	buckets := map[int64]int64{}
	for _, p := range e.partitions() {
		if p.View == "log_entries" {
			buckets[p.Bucket] += p.Rows
		}
	}
	if len(buckets) != 3 || buckets[materializers.OverflowBucket] != 6 {
		t.Errorf("rows by bucket: %v", buckets)
	}
	e.rows("log_entries")
	e.rows("log_stats")
}

// A block that spans buckets is split by row.
func TestBlocksAreSplitByBucket(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	offset := materializers.BucketLength - time.Minute - 3*time.Millisecond
	m.postLog(e, m.logBlock(10, offset))
	e.flush()
	if diff := cmp.Diff(sorted(m.entries(1, 10, offset)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	if n := len(e.partitions()); n != 4 {
		t.Errorf("%d partitions, want two each of log_entries and log_stats", n)
	}
}

func TestUndecodableBlockIsDead(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(3, time.Second))
	b := telemetry.Block{ID: telemetry.NewID(), StreamID: m.logs.ID, ProcessID: m.process.ID, BeginTime: start, EndTime: start + 1, EndTicks: 1, NbObjects: 1}
	m.postLog(e, wire.AppendBlock(nil, &b, wire.Compress(nil, nil), wire.Compress(nil, []byte{200, 1, 2, 3})))
	m.postLog(e, m.logBlock(3, 2*time.Second))
	e.flush()
	e.flush()
	if diff := cmp.Diff(sorted(m.entries(1, 3, time.Second), m.entries(2, 3, 2*time.Second)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	letters, err := e.bus.ReadDeadLetters(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].BlockID != b.ID || letters[0].View != "log_entries" || letters[0].Reason == "" {
		t.Errorf("dead letters: %+v", letters)
	}
	dead := true
	rows, err := e.cat.Parked(t.Context(), catalog.ConsumerViews, catalog.ParkedFilter{Dead: &dead})
	if err != nil || len(rows) != 1 || rows[0].Reason != letters[0].Reason {
		t.Errorf("dead copies: %+v %v", rows, err)
	}
}

// A copy that waits for long counts as a dead letter, and is still built.
func TestOldParkedCopiesAreDeadLettersToo(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.CommitAge, cfg.ParkedDead = 10*time.Millisecond, 20*time.Millisecond
	e.startViews(cfg)
	m := newMaker(1)
	m.postLog(e, m.logBlock(4, time.Second))
	e.eventually("a dead letter", func() bool {
		letters, err := e.bus.ReadDeadLetters(t.Context(), 10)
		return err == nil && len(letters) == 1 && letters[0].StreamID == m.logs.ID
	})
	m.postProcess(e)
	m.postStreams(e)
	e.eventually("building", func() bool { return len(e.rows("log_entries")) == 4 })
}

func TestFlushAnswersAtOnceWhenNothingMeets(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	e.flush()
	m.postLog(e, m.logBlock(3, time.Second))
	ask := func(req bus.FlushRequest) {
		t.Helper()
		req.Target = bus.TargetViews
		reply, err := e.bus.Flush(t.Context(), bus.Shard{Class: bus.Eager}, req)
		if err != nil || reply.Err != "" {
			t.Fatalf("flush: %+v %v", reply, err)
		}
	}
	ask(bus.FlushRequest{Begin: 1, End: 2})
	ask(bus.FlushRequest{Process: telemetry.NewID()})
	ask(bus.FlushRequest{Views: []string{"measures"}})
	if n := len(e.partitions()); n != 0 {
		t.Errorf("%d partitions were written for nobody", n)
	}
	ask(bus.FlushRequest{Views: []string{"log_stats"}, Process: m.process.ID, Begin: start, End: start + int64(time.Hour)})
	if n := len(e.partitions()); n != 2 {
		t.Errorf("%d partitions", n)
	}
}

// A body that is too large for a frame lies in the lake.
func TestOversizeBlocks(t *testing.T) {
	e := newEnv(t, func(c *bus.Config) { c.MaxFrame = 8 << 10 })
	e.startArchive()
	e.startViews(config())
	m := newMaker(1)
	m.postLog(e, m.logBlock(9000, time.Second)) // before its registrations: read again from the lake
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(9000, 20*time.Second))
	e.flush()
	e.eventually("building", func() bool { return e.flush().Parked == 0 })
	want := sorted(m.entries(1, 9000, time.Second), m.entries(2, 9000, 20*time.Second))
	if diff := cmp.Diff(want, e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

// A block with more rows than the bound is a dead letter, and costs no more than the bound.
func TestBlocksWithTooManyRows(t *testing.T) {
	e := newEnv(t)
	e.startArchive()
	cfg := config()
	cfg.MaxBlockRows, cfg.CommitAge = 100, 20*time.Millisecond
	e.startViews(cfg)
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(100, time.Second))
	m.postLog(e, m.logBlock(101, 2*time.Second))
	e.eventually("a dead letter", func() bool {
		letters, err := e.bus.ReadDeadLetters(t.Context(), 10)
		return err == nil && len(letters) == 1 && letters[0].Reason == "too large: too many rows in one block"
	})
	e.eventually("the other block's rows", func() bool { return len(e.rows("log_entries")) == 100 })
}

// Without archive nothing is committed, and nothing is lost.
func TestViewsWaitForArchive(t *testing.T) {
	e := newEnv(t)
	cfg := config()
	cfg.CommitAge = time.Millisecond
	reached := make(chan struct{})
	views := e.newMaterializers("views", cfg)
	views.SetHook(func(at string) error {
		if at == "after put" {
			select {
			case <-reached:
			default:
				close(reached)
			}
		}
		return nil
	})
	e.background(views.Run)
	m := newMaker(1)
	m.postProcess(e)
	m.postStreams(e)
	m.postLog(e, m.logBlock(5, time.Second))
	<-reached
	if n := len(e.partitions()); n != 0 {
		t.Errorf("%d partitions above archive's checkpoint", n)
	}
	e.startArchive()
	e.eventually("the commit", func() bool { return len(e.rows("log_entries")) == 5 })
}
