package dialect_test

import (
	"testing"

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
