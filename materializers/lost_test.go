package materializers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// smallFrames makes bodies of more than 4 kB oversize.
func smallFrames(c *bus.Config) { c.MaxFrame = 4 << 10 }

// oversize returns the keys of the oversize bodies in the lake.
func (e *env) oversize() (keys []string) {
	e.t.Helper()
	for o, err := range e.lake.List(e.t.Context(), lake.ClaimPrefix) {
		if err != nil {
			e.t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// collect removes what no row names, as if it were old.
func (e *env) collect() lake.GCResult {
	e.t.Helper()
	result, err := e.lake.GC(e.t.Context(), e.cat, lake.GCOptions{
		ClaimOnBus: func(lake.Object) bool { return false },
		Ahead:      2 * lake.UnreferencedAge,
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return result
}

// parkedRows counts the copies that the catalog has as parked, and the dead ones among them.
func (e *env) parkedRows() (dead, all int) {
	e.t.Helper()
	rows, err := e.cat.Parked(e.t.Context(), catalog.ConsumerViews, catalog.ParkedFilter{})
	if err != nil {
		e.t.Fatal(err)
	}
	for _, r := range rows {
		if r.Dead {
			dead++
		}
	}
	return dead, len(rows)
}

// largeRegistration makes the registration of the log stream an oversize body.
func (m *maker) largeRegistration() {
	for i := range 200 {
		m.logs.Properties = append(m.logs.Properties, telemetry.Property{Key: "key" + strings.Repeat("x", i), Value: "value"})
	}
}

// Views that come late find no body of a registration, nor of a copy that archive skipped: nothing needs them.
func TestCollectedBodiesAreNotMissed(t *testing.T) {
	for _, late := range []bool{false, true} {
		e := newEnv(t, smallFrames)
		e.startArchive()
		cfg := config()
		if late { // what comes after the stop is built from the backlog
			cfg = lagging()
			cfg.BacklogBytes, cfg.BacklogFrames = 1, 1
		}
		cfg.CommitAge = 10 * time.Millisecond
		m := newMaker(0)
		m.largeRegistration()
		body := m.logBlock(2000, 0)
		stop := e.startViews(cfg)
		m.postProcess(e)
		m.postLog(e, body) // parked: its stream comes later
		e.eventually("parking", func() bool { _, rows := e.parkedRows(); return rows == 1 })
		stop()
		m.postStreams(e)
		m.postLog(e, body)
		for range 8 {
			m.postProcess(e)
		}
		e.archived()
		if n := e.collect().Orphans; n != 2 {
			t.Fatalf("%d objects collected, want the stream and the second copy", n)
		}
		e.startViews(cfg)
		e.flush()
		e.drained()
		e.eventually("building of the parked copy", func() bool { return e.flush().Parked == 0 })
		if diff := cmp.Diff(sorted(m.entries(1, 2000, 0)), e.rows("log_entries", logColumns...)); diff != "" {
			t.Error(diff)
		}
		if letters, err := e.bus.ReadDeadLetters(t.Context(), 10); err != nil || len(letters) != 0 {
			t.Errorf("dead letters %+v, %v", letters, err)
		}
	}
}

// A body that the lake lost stops nobody: its copy is dead, and the next copy of the block counts.
func TestLostBodyIsDead(t *testing.T) {
	e := newEnv(t, smallFrames)
	m := newMaker(0)
	m.postProcess(e)
	m.postStreams(e)
	body := m.logBlock(2000, 0)
	m.postLog(e, body)
	for _, key := range e.oversize() {
		if err := e.lake.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	m.postLog(e, body)
	e.startArchive()
	e.startViews(config())
	e.flush()
	if diff := cmp.Diff(sorted(m.entries(1, 2000, 0)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
}

// A parked copy whose body was lost since is dead, and holds up no other.
func TestLostParkedBodyIsDead(t *testing.T) {
	e := newEnv(t, smallFrames)
	e.startArchive()
	cfg := config()
	cfg.CommitAge = 10 * time.Millisecond
	e.startViews(cfg)
	m := newMaker(0)
	m.postLog(e, m.logBlock(2000, 0))
	small := m.logBlock(2, time.Minute)
	m.postLog(e, small)
	if n := e.flush().Parked; n != 2 {
		t.Fatalf("%d copies are parked", n)
	}
	e.eventually("a commit", func() bool { _, rows := e.parkedRows(); return rows == 2 })
	for _, key := range e.oversize() {
		if err := e.lake.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	m.postProcess(e)
	m.postStreams(e)
	e.eventually("the end of parking", func() bool { dead, rows := e.parkedRows(); return dead == 1 && rows == 1 })
	e.flush()
	if diff := cmp.Diff(sorted(m.entries(2, 2, time.Minute)), e.rows("log_entries", logColumns...)); diff != "" {
		t.Error(diff)
	}
	letters, err := e.bus.ReadDeadLetters(t.Context(), 10)
	if err != nil || len(letters) != 1 || !strings.HasPrefix(letters[0].Reason, "lost: ") {
		t.Errorf("dead letters %+v, %v", letters, err)
	}
}
