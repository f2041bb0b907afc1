package dialect_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/sqltest"
)

func TestInOrder(t *testing.T) {
	e := sqltest.OpenEngine(t)
	const view = `view_instance('thread_spans', '11111111-2222-3333-4444-555555555555')`
	f := func(sql string, want bool) {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{})
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if st.InOrder != want {
			t.Errorf("%s: in order %v, want %v", sql, st.InOrder, want)
		}
	}
	f("SELECT * FROM "+view, true)
	f("SELECT id, upper(name) FROM "+view+" WHERE depth > 1 LIMIT 10", true)
	f("SELECT id FROM (SELECT id, name FROM "+view+") t", true)
	f("SELECT id FROM "+view+" UNION ALL SELECT id FROM "+view, true)
	f("SELECT id, (SELECT max(level) FROM log_entries) FROM "+view, true)
	f("SELECT id, lag(id) OVER (ORDER BY id) FROM "+view, true)
	f("SELECT count(*), sum(duration) FROM "+view, false)
	f("SELECT count(*) FROM "+view, false)
	f("SELECT make_histogram(0, 100, 10, duration) FROM "+view, false)
	f("SELECT 1 + max(duration) FROM "+view, false)
	f("SELECT name FROM "+view+" GROUP BY name", false)
	f("SELECT name, id FROM "+view+" GROUP BY ALL", false)
	f("SELECT DISTINCT name FROM "+view, false)
	f("SELECT name FROM "+view+" ORDER BY duration", false)
	f("SELECT name FROM (SELECT name FROM "+view+" ORDER BY 1) t", false)
	f("SELECT a.id FROM "+view+" a JOIN "+view+" b ON a.id = b.parent", false)
	f("SELECT id FROM "+view+" UNION SELECT id FROM "+view, false)
	f("SELECT 1", false)
}

func TestProjection(t *testing.T) {
	e := sqltest.OpenEngine(t)
	const f = ` FROM perfetto_trace_chunks('11111111-2222-3333-4444-555555555555', 'both', TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-02')`
	check := func(sql string, want *dialect.Projection) {
		t.Helper()
		st, err := dialect.Rewrite(t.Context(), e, views{}, sql, dialect.Options{Eval: e.Eval})
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if diff := cmp.Diff(want, st.Stream); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sql, diff)
		}
	}
	type column = dialect.ProjectedColumn
	is := func(limit int64, columns ...column) *dialect.Projection {
		return &dialect.Projection{Columns: columns, Limit: limit}
	}
	check("SELECT chunk_id, chunk_data"+f, is(-1, column{0, "chunk_id"}, column{1, "chunk_data"}))
	check("SELECT *"+f, is(-1, column{0, "chunk_id"}, column{1, "chunk_data"}))
	check("SELECT chunk_data"+f+" ORDER BY chunk_id", is(-1, column{1, "chunk_data"}))
	check("SELECT c.chunk_data AS d, c.chunk_id, 'x'"+f+" AS c", nil)
	check("SELECT c.chunk_data AS d, c.chunk_id"+f+" AS c ORDER BY c.chunk_id ASC LIMIT 3", is(3, column{1, "d"}, column{0, "chunk_id"}))
	check("SELECT count(*)"+f, nil)
	check("SELECT chunk_id, chunk_data AS chunk_id"+f, nil)
	check("SELECT chunk_id"+f+" WHERE chunk_id > 3", nil)
	check("SELECT chunk_id"+f+" ORDER BY chunk_id DESC", nil)
	check("SELECT chunk_id"+f+" LIMIT 3 OFFSET 1", nil)
	check("SELECT DISTINCT chunk_id"+f, nil)
	check("SELECT chunk_id"+f+" t(chunk_id, b)", nil)
	check("SELECT chunk_id"+f+" GROUP BY chunk_id", nil)
	check("SELECT chunk_id FROM (SELECT chunk_id"+f+") t", nil)
	check("SELECT level FROM log_entries", nil)
}
