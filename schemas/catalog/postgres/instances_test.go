package postgres

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// explain returns the plan of a statement.
func explain(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "EXPLAIN "+sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// The blocks of a stream are found in the trees of their days, whatever the server knows of the tables, and days without the times
// asked for are not looked into.
func TestBlocksOfAStreamAreFoundByTheirTree(t *testing.T) {
	url := database(t)
	db, h, conn := open(t, url), newHouse(400, 100), raw(t, url)
	today := catalog.DayOf(h.begin)
	for day := range catalog.Day(3) {
		h.begin, h.n = (today - day).Begin(), 0
		for range 3 {
			if err := db.CommitArchive(t.Context(), h.commit(4000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const first, last = int64(math.MinInt64), int64(math.MaxInt64)
	newest := 5
	walk := regexp.MustCompile(`Seq Scan on blocks_\d`) // blocks_default is empty
	for _, known := range []bool{false, true} {
		if known {
			exec(t, conn, "ANALYZE")
		}
		for name, args := range map[string][]any{
			"all":       {first, last, last, first, nil},
			"under way": {first, last, today.End(), today.Begin(), nil},
			"begun":     {today.Begin(), today.End(), last, first, nil},
			"newest":    {first, today.End(), last, first, &newest},
		} {
			plan := explain(t, conn, selectStreamBlocks, append([]any{[16]byte(h.streams[7])}, args...)...)
			if walk.MatchString(plan) || !strings.Contains(plan, "Index Cond: ((stream_no = s.stream_no) AND (begin_time >=") {
				t.Errorf("%s, statistics %v: the tree is not used:\n%s", name, known, plan)
			}
			if name == "begun" && strings.Contains(plan, partitionOf(int64(today-1))) {
				t.Errorf("%s, statistics %v: a day too many:\n%s", name, known, plan)
			}
		}
	}
}
