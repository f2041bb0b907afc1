package sqlite

import (
	"context"
	"database/sql"
	"strings"
	"testing"
)

// explain returns the plan of a query.
func explain(t *testing.T, db *DB, query string, args int) string {
	t.Helper()
	steps, err := collect(context.Background(), db.read, func(rows *sql.Rows) (step string, err error) {
		var id, parent, unused int
		err = rows.Scan(&id, &parent, &unused, &step)
		return step, err
	}, "EXPLAIN QUERY PLAN "+query, make([]any, args)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(steps, "\n")
}

// What is asked about one stream, instance or trace goes by an index.
func TestFewRowsAreFoundByIndexes(t *testing.T) {
	db := openInternal(t)
	for _, q := range []struct {
		query string
		args  int
		want  string
	}{
		{selectStreamBlocks + "ORDER BY b.begin_time, b.block_id", 5, "SEARCH b USING PRIMARY KEY (stream_no=? AND begin_time>? AND begin_time<?)"},
		{selectStreamBlocks + "ORDER BY b.begin_time DESC, b.block_id DESC", 5, "SEARCH b USING PRIMARY KEY (stream_no=? AND begin_time>? AND begin_time<?)"},
		{selectInstance, 2, "SEARCH p USING INDEX partitions_instance (view_no=? AND instance_no=?)"},
		{countInPlace, 4, "INDEX partitions_instance (view_no=? AND instance_no=? AND bucket=? AND level=?)"},
		{selectTraceFilters, 2, "SEARCH f USING INDEX trace_filters_end (end_time>?)"},
		{selectOldTraces, 2, "SEARCH trace_blocks USING INTEGER PRIMARY KEY (rowid<?)"},
		{selectOldFilters, 2, "SEARCH trace_filters USING INTEGER PRIMARY KEY (rowid<?)"},
		{selectStreamsOf + " WHERE p.process_id IN (?)", 1, "SEARCH s USING INDEX streams_process (process_no=?)"},
	} {
		if plan := explain(t, db, q.query, q.args); !strings.Contains(plan, q.want) || strings.Contains(plan, "SCAN") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s\n%s\nwant %s", firstLine(q.query), plan, q.want)
		}
	}
}
