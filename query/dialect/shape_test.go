package dialect_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/sqltest"
)

// doubled nests a query in levels of SELECT item, item.
func doubled(query, item string, levels int) string {
	for i := range levels {
		query = fmt.Sprintf("SELECT %s FROM (%s) AS t%d", item, query, i)
	}
	return query
}

// chain writes levels of CTEs, each made of the one before it.
func chain(first, next string, levels int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "WITH c0 AS (%s)", first)
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, ", c%d AS (%s)", i, strings.ReplaceAll(next, "prev", fmt.Sprintf("c%d", i-1)))
	}
	return fmt.Sprintf("%s SELECT * FROM c%d", b.String(), levels-1)
}

func TestRelationsThatGrowAreRefused(t *testing.T) {
	e := sqltest.OpenEngine(t)
	f := func(sql string, fits bool) {
		t.Helper()
		_, err := dialect.Rewrite(t.Context(), e, views{"t"}, sql, dialect.Options{})
		fault, refused := errors.AsType[*dialect.Error](err)
		if fits != (err == nil) || err != nil && (!refused || !strings.Contains(fault.Message, "columns")) {
			t.Errorf("%.100s: %v", sql, err)
		}
	}
	f(doubled("SELECT * FROM log_entries", "*, *", 4), true)
	f(doubled("SELECT * FROM log_entries", "*, *", 30), false)
	f(doubled("SELECT a FROM t", "* EXCLUDE (b), *", 30), false)
	f(doubled("SELECT 1 AS a", "COLUMNS(*) + 1, COLUMNS('a')", 30), false)
	f(chain("SELECT * FROM processes", "SELECT x.*, y.* FROM prev x, prev y", 16), false)
	f(chain("SELECT * FROM processes", "SELECT * FROM prev x POSITIONAL JOIN prev y", 16), false)
	f(chain("SELECT * FROM processes", "SELECT * FROM prev UNION ALL BY NAME SELECT * FROM prev", 30), false)
	f(chain("SELECT 1 AS a", "SELECT x.a FROM prev x, prev y", 30), true)
	for _, item := range []string{"{'a': s, 'b': s}", "struct_pack(a := s, b := s)", "row(s, s)", "named_struct('a', s, 'b', s)", "(s, s)", "[{'a': s[1], 'b': s}]", "coalesce({'a': s, 'b': abs(s)}, NULL)"} {
		f(chain("SELECT 1 AS s", "SELECT "+item+" AS s FROM prev", 5), true)
		f(chain("SELECT 1 AS s", "SELECT "+item+" AS s FROM prev", 40), false)
	}
	f(chain("SELECT {'a': 1, 'b': 2} AS s", "SELECT * FROM (VALUES ({'a': (SELECT s FROM prev), 'b': (SELECT s FROM prev)})) v(s)", 40), false)
	f(chain("SELECT 1 AS s", "SELECT [s, s] AS s FROM prev", 40), true)
	f("SELECT "+strings.TrimSuffix(strings.Repeat("1,", 20000), ","), false)

	// What people write.
	many := "SELECT a0.msg FROM (SELECT * FROM log_entries) a0"
	for i := range 60 {
		many += fmt.Sprintf(" JOIN (SELECT * FROM processes) p%d ON a0.process_id = p%d.process_id", i, i)
	}
	f(many, true)
	f(chain("SELECT * FROM log_entries", "SELECT *, level + 1 AS l FROM prev WHERE level > 0", 50), true)
}
