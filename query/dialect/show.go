package dialect

import (
	"slices"
	"strings"
)

// ViewName is the name under which the SQL of a statement reads the relation.
func (i Internal) ViewName() string { return "mm/" + internalNames[i] }

// String returns the relation's name in information_schema.
func (i Internal) String() string { return internalNames[i] }

var internalNames = [...]string{
	InternalTables: "tables", InternalColumns: "columns", InternalViews: "views", InternalSchemata: "schemata",
	InternalSettings: "df_settings", InternalRoutines: "routines", InternalParameters: "parameters",
}

// internalTable puts the relation there that stands for a table of information_schema.
func (r *rewriter) internalTable(n *node, f *frame, name, alias string) (*node, error) {
	i := slices.Index(internalNames[:], lowerASCII(name))
	if i < 0 {
		return nil, r.fault(n, planError("table 'datafusion.information_schema.%s' not found", Clip(name, 128)).
			withHint("information_schema has %s", strings.Join(internalNames[:], ", ")))
	}
	r.needInternal(Internal(i))
	out := baseTableNode(n, Internal(i).ViewName(), alias)
	f.enter(out, alias, nil, plain(maxTableColumns))
	return out, nil
}

func (r *rewriter) needInternal(i Internal) {
	if !slices.Contains(r.st.Internals, i) {
		r.st.Internals = append(r.st.Internals, i)
	}
}

// prefix is a statement around a query: SHOW, DESCRIBE, EXPLAIN, or none.
type prefix struct {
	kind  Kind
	first int    // token at which the query begins
	table string // DESCRIBE t and SHOW COLUMNS FROM t
	at    int    // where in the client's text the table's name stands
	sql   string // a statement that is answered by a query of our own
}

// readPrefix looks at the first words of a statement.
func (l *lexed) readPrefix(r *rewriter) (prefix, error) {
	first := l.peek(0)
	if first.kind != word {
		return prefix{}, nil
	}
	switch first.out {
	case "show":
		return l.show(r)
	case "describe", "desc":
		return l.describe(), nil
	case "explain":
		return l.explain(), nil
	case "summarize":
		return prefix{}, planError("SUMMARIZE is not supported").withHint("use min, max, count and approx_distinct")
	}
	if hint, known := otherStatements[first.out]; known {
		e := planError("only SELECT statements are allowed").at(l.sql, first.start)
		e.Hint = hint
		return prefix{}, e
	}
	return prefix{}, nil
}

// otherStatements are the first words of what is no query, with what to do instead.
var otherStatements = map[string]string{
	"set": "settings cannot be changed", "reset": "settings cannot be changed", "pragma": "settings cannot be changed",
	"copy": "use the client to save results", "export": "use the client to save results",
	"create": "views are defined by the administrator", "alter": "views are defined by the administrator", "drop": "views are defined by the administrator",
	"insert": "data is read-only", "update": "data is read-only", "delete": "data is read-only", "merge": "data is read-only", "truncate": "data is read-only",
	"use": "one catalog only", "attach": "one catalog only", "detach": "one catalog only",
	"install": "extensions cannot be loaded", "load": "extensions cannot be loaded", "force": "extensions cannot be loaded",
	"call":  "use SELECT … FROM function(…)",
	"begin": "every statement stands for itself", "commit": "every statement stands for itself", "rollback": "every statement stands for itself", "start": "every statement stands for itself",
	"prepare": "prepare through the client", "execute": "prepare through the client", "deallocate": "prepare through the client",
	"import": "", "checkpoint": "", "vacuum": "", "analyze": "", "comment": "", "grant": "", "revoke": "", "unload": "", "declare": "", "do": "", "lock": "",
	"pivot": "use count(*) FILTER (WHERE …)", "unpivot": "use UNION ALL",
}

const showTables = `SELECT table_catalog, table_schema, table_name, table_type FROM "mm/tables"`

// show answers SHOW TABLES, SHOW COLUMNS and SHOW FUNCTIONS; the settings are nobody's business.
func (l *lexed) show(r *rewriter) (prefix, error) {
	what := l.peek(1).out
	switch {
	case what == "tables" && len(l.tokens) == 2:
		r.needInternal(InternalTables)
		return prefix{kind: Show, sql: showTables}, nil
	case what == "functions" && len(l.tokens) == 2:
		r.needInternal(InternalRoutines)
		return prefix{kind: Show, sql: `SELECT routine_name AS function_name, function_type FROM "mm/routines" ORDER BY routine_name`}, nil
	case what == "columns" && (l.peek(2).is("from") || l.peek(2).is("in")):
		if name, at, ok := l.tableName(3); ok {
			return prefix{kind: ShowColumns, table: name, at: at}, nil
		}
	}
	e := planError("SHOW %s is not supported", Clip(what, 40)).at(l.sql, l.tokens[0].start)
	return prefix{}, e.withHint("there are SHOW TABLES, SHOW COLUMNS FROM <table>, SHOW FUNCTIONS and information_schema")
}

// describe answers DESCRIBE t like SHOW COLUMNS, with fewer columns; DESCRIBE query tells the query's columns.
func (l *lexed) describe() prefix {
	at := 1
	if l.peek(1).is("table") {
		at = 2
	}
	if name, pos, ok := l.tableName(at); ok {
		return prefix{kind: Describe, table: name, at: pos}
	}
	return prefix{kind: Describe, first: 1}
}

// tableName reads [datafusion.][public.]name up to the end of the statement.
func (l *lexed) tableName(i int) (name string, at int, ok bool) {
	for {
		t := l.peek(i)
		switch {
		case t.kind == word && t.out != "select" && t.out != "with" && t.out != "values" && t.out != "from":
			name, at = t.out, t.start
		case t.kind == quotedName:
			name, at = strings.ReplaceAll(t.out[1:len(t.out)-1], `""`, `"`), t.start
		default:
			return "", 0, false
		}
		if i+1 == len(l.tokens) {
			return name, at, true
		}
		if !l.peek(i+1).is(".") || name != "public" && name != "datafusion" {
			return "", 0, false
		}
		i += 2
	}
}

// explain skips EXPLAIN [(options)] [ANALYZE] [VERBOSE] [FORMAT x].
func (l *lexed) explain() prefix {
	p := prefix{kind: Explain, first: 1}
	if l.peek(1).is("(") {
		inner := l.peek(2)
		if end := l.closing(1); end > 0 && !inner.is("select") && !inner.is("with") && !inner.is("values") && !inner.is("from") && !inner.is("(") {
			for i := 2; i < end; i++ {
				if l.tokens[i].is("analyze") {
					p.kind = ExplainAnalyze
				}
			}
			p.first = end + 1
		}
	}
	for {
		switch t := l.peek(p.first); {
		case t.is("analyze"):
			p.kind = ExplainAnalyze
			p.first++
		case t.is("verbose"):
			p.first++
		case t.is("format"):
			p.first += 2
		default:
			return p
		}
	}
}

// describeTable is the query behind SHOW COLUMNS FROM t and DESCRIBE t.
func (r *rewriter) describeTable(p prefix) (*Statement, error) {
	t, ok := r.names.Table(p.table)
	if !ok || !usable(t) {
		return nil, r.noTable(p.table, t).at(r.text, p.at)
	}
	r.needInternal(InternalColumns)
	columns := "column_name, data_type, is_nullable"
	if p.kind == ShowColumns {
		columns = "table_catalog, table_schema, table_name, " + columns
	}
	r.st.Kind = ShowColumns
	r.st.SQL = "SELECT " + columns + ` FROM "mm/columns" WHERE table_name = '` + strings.ReplaceAll(p.table, "'", "''") + `' AND table_schema = 'public' ORDER BY ordinal_position`
	return r.st, nil
}
