package loadgen_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// sent is a block that was sent, of ten events.
func sent(tag telemetry.Tag) *loadgen.Request {
	r := &loadgen.Request{Path: loadgen.BlockPath, Tag: tag}
	r.Block.ID, r.Block.NbObjects, r.Block.BeginTime, r.Block.EndTime = telemetry.NewID(), 10, 100, 200
	return r
}

func TestVerdictNamesWhatIsWrong(t *testing.T) {
	log, cpu, unsure, unknown := sent(telemetry.TagLog), sent(telemetry.TagCPU), sent(telemetry.TagLog), sent(telemetry.TagLog)
	blocks := func(c *loadgen.Check) {
		c.Block(log.Block.ID, 10)
		c.Block(cpu.Block.ID, 10)
	}
	rows := func(c *loadgen.Check) { c.Rows(telemetry.TagLog, log.Block.ID, 10) }
	for name, tc := range map[string]struct {
		tell func(c *loadgen.Check)
		want string
		id   telemetry.ID // named as a fault; zero = there is none
	}{
		"all there": {
			func(c *loadgen.Check) { blocks(c); rows(c) },
			"all 2 acked blocks (20 events) are there, each once; cpu 1 of 1 blocks, log_entries 10 of 10 rows; of 1 blocks that were sent and never acked 0 are there",
			telemetry.ID{},
		},
		"unsure is there": {
			func(c *loadgen.Check) {
				blocks(c)
				rows(c)
				c.Block(unsure.Block.ID, 10)
				c.Rows(telemetry.TagLog, unsure.Block.ID, 10)
			},
			"of 1 blocks that were sent and never acked 1 are there",
			telemetry.ID{},
		},
		"unsure is there twice": {
			func(c *loadgen.Check) { blocks(c); rows(c); c.Block(unsure.Block.ID, 10); c.Block(unsure.Block.ID, 10) },
			"there more than once: 1", unsure.Block.ID,
		},
		"missing": {
			func(c *loadgen.Check) { c.Block(log.Block.ID, 10); rows(c) },
			"cpu 0 of 1 blocks, log_entries 10 of 10 rows; of 1 blocks that were sent and never acked 0 are there; missing: 1;", cpu.Block.ID,
		},
		"doubled": {
			func(c *loadgen.Check) { blocks(c); rows(c); c.Block(cpu.Block.ID, 10) },
			"there more than once: 1", cpu.Block.ID,
		},
		"changed": {
			func(c *loadgen.Check) { c.Block(log.Block.ID, 10); c.Block(cpu.Block.ID, 9); rows(c) },
			"another number of events: 1", cpu.Block.ID,
		},
		"no rows":      {blocks, "log_entries 0 of 10 rows; of 1 blocks that were sent and never acked 0 are there; short of rows: 1", log.Block.ID},
		"doubled rows": {func(c *loadgen.Check) { blocks(c); rows(c); rows(c) }, "with too many rows: 1", log.Block.ID},
		"strange": {
			func(c *loadgen.Check) { blocks(c); rows(c); c.Block(unknown.Block.ID, 10) },
			"there and never sent: 1", unknown.Block.ID,
		},
		"rows of another family": {
			func(c *loadgen.Check) { blocks(c); rows(c); c.Rows(telemetry.TagLog, cpu.Block.ID, 10) },
			"there and never sent: 1", cpu.Block.ID,
		},
	} {
		l := &loadgen.Ledger{}
		l.Acked(log)
		l.Acked(cpu)
		l.Unsure(unsure)
		c := l.Check()
		c.View(telemetry.TagLog, "log_entries")
		tc.tell(c)
		v := c.Verdict()
		if got := v.String(); !strings.Contains(got, tc.want) || tc.id != (telemetry.ID{}) && !strings.Contains(got, tc.id.String()) {
			t.Errorf("%s: %s", name, got)
		}
		if v.OK() != (tc.id == telemetry.ID{}) {
			t.Errorf("%s: OK is %v: %+v", name, v.OK(), v)
		}
	}
}

func TestNothingAckedIsNothingVerified(t *testing.T) {
	v := (&loadgen.Ledger{}).Check().Verdict()
	if v.OK() || !strings.Contains(v.String(), "nothing to verify") {
		t.Errorf("%v %s", v.OK(), v.String())
	}
}

func TestVerdictNamesAFewOfMany(t *testing.T) {
	l := &loadgen.Ledger{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 250 {
				l.Acked(sent(telemetry.TagMetrics))
			}
		})
	}
	wg.Wait()
	v := l.Check().Verdict()
	if v.Missing != 1000 || len(v.Examples) > 10 || !strings.Contains(v.String(), "missing: 1,000") {
		t.Errorf("%+v", v)
	}
	if begin, end := l.Span(); begin != 100 || end != 200 {
		t.Errorf("from %d to %d", begin, end)
	}
}
