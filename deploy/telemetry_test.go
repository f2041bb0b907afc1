package deploy_test

import (
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

// A server that records itself: what it says of itself can be asked for like anybody's, and it does not feed on itself.
func TestServerRecordsItself(t *testing.T) {
	t.Setenv("MICROMEGAS_FLUSH_PERIOD", "0.2")
	p := startServe(t, t.TempDir(), "--telemetry", "self")
	const own = " AND process_id IN (SELECT process_id FROM processes WHERE exe = 'micromegas')"
	for what, sql := range map[string]string{
		"entries":          "SELECT count(*) FROM log_entries WHERE target LIKE 'github.com/micromegas-go/%'" + own,
		"measures":         "SELECT count(*) FROM measures WHERE name = 'status.memory.heap_bytes' AND unit = 'bytes'" + own,
		"shards":           "SELECT count(*) FROM measures WHERE name = 'status.shards.last_seq' AND property_get(properties, 'class') = 'eager'" + own,
		"blocks of spans":  `SELECT count(*) FROM blocks WHERE list_contains("streams.tags", 'cpu')` + own,
		"named as a whole": "SELECT count(*) FROM processes WHERE property_get(properties, 'service') = 'micromegas'" + own,
	} {
		deploytest.Eventually(t, 30*time.Second, what, func() bool { return p.count(sql) > 0 })
	}

	// Queries, posts and commits go on; what they make the server record comes at a steady, small rate: some 10 events a query.
	events := func() int { return p.count("SELECT coalesce(sum(nb_objects), 0) FROM blocks WHERE true" + own) }
	perQuery := func() float64 {
		queries, before := 2, events()
		for begin := time.Now(); time.Since(begin) < 2*time.Second; queries++ {
			p.count("SELECT 1")
		}
		return float64(events()-before) / float64(queries)
	}
	first := perQuery()
	second := perQuery()
	t.Logf("%.1f and %.1f events a query", first, second)
	if second > 20 || second > 2*first+5 {
		t.Errorf("%.1f events a query, then %.1f", first, second)
	}
	p.Stop()
}
