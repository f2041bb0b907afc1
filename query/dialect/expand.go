package dialect

import (
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// The functions that expand one value into rows become derived tables, so that their argument may be a subquery of several
// rows. In the templates mm_argument stands for the query of the argument, and q.hit is NULL when that has no row.
// The values are JSON text, as everywhere in the engine.
const (
	eachTemplate = `SELECT unnest(mm_jsonb_keys(q.j)) AS key, unnest(mm_jsonb_values(q.j)) AS value
		FROM (SELECT CASE WHEN b.hit IS NULL THEN error('jsonb_each subquery returned no rows')
				WHEN b.j IS NULL OR json_type(b.j) IN ('OBJECT', 'ARRAY') THEN b.j ELSE error('jsonb_each: input is not a JSONB object or array') END AS j
			FROM (SELECT 1) AS one(x) LEFT JOIN (SELECT CAST(a.j AS JSON) AS j, TRUE AS hit FROM mm_argument AS a(j)) AS b ON TRUE) AS q`

	elementsTemplate = `SELECT unnest(mm_jsonb_elements(q.j)) AS value FROM (SELECT
		CASE WHEN b.j IS NULL OR json_type(b.j) = 'ARRAY' THEN b.j ELSE error('jsonb_array_elements: input is not a JSONB array') END AS j
		FROM (SELECT CAST(a.j AS JSON) AS j FROM mm_argument AS a(j)) AS b) AS q`

	histogramTemplate = `SELECT r.bin_center AS bin_center, r.count AS count FROM (SELECT unnest(CASE
		WHEN q.hit IS NULL THEN error('expand_histogram subquery returned no rows')
		ELSE list_transform(q.h.bins, lambda b, i: struct_pack(bin_center := q.h."start" + (i - CAST(0.5 AS DOUBLE)) *
			CASE WHEN abs(q.h."end" - q.h."start") < CAST(2.220446049250313e-16 AS DOUBLE) THEN CAST(1.0 AS DOUBLE) ELSE (q.h."end" - q.h."start") / CAST(len(q.h.bins) AS DOUBLE) END, count := b)) END) AS r
		FROM (SELECT 1) AS one(x) LEFT JOIN (SELECT a.h, TRUE AS hit FROM mm_argument AS a(h) LIMIT 1) AS q ON TRUE) AS e`
)

func expandTemplate(name string) string {
	switch name {
	case "jsonb_each":
		return eachTemplate
	case "jsonb_array_elements":
		return elementsTemplate
	default:
		return histogramTemplate
	}
}

// expand puts the derived table in the place of a call.
func (r *rewriter) expand(n, fn *node, name, alias string, e env, f *frame) (*node, error) {
	args := fn.list("children")
	if len(args) != 1 {
		what := "a JSONB value"
		if name == "expand_histogram" {
			what = "a histogram"
		}
		return nil, r.fault(fn, planError("%s requires exactly one argument (%s)", name, what))
	}
	query, err := r.argumentQuery(args[0], name, e)
	if err != nil {
		return nil, err
	}
	data, err := r.parser.SerializeSQL(r.ctx, expandTemplate(name))
	if err != nil {
		return nil, fmt.Errorf("parse template of %s: %w", name, err)
	}
	tree, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("parse template of %s: %w", name, err)
	}
	statements := tree.list("statements")
	if len(statements) != 1 || !graft(statements[0], query) {
		return nil, fmt.Errorf("parse template of %s: no place for the argument", name)
	}
	var columns []Column
	if t, ok := tables.Function(name); ok && name == "expand_histogram" {
		columns = tableColumns(t)
	} else if ok {
		for _, c := range t.Columns {
			columns = append(columns, Column{Name: c.Name}) // the engine's JSON tells itself
		}
	}
	out := derivedTable(n, alias, statements[0].get("node"))
	f.enter(out, alias, columns, plain(maxTableColumns))
	return out, nil
}

// argumentQuery returns the query whose rows are expanded: the subquery of the argument, or SELECT argument.
func (r *rewriter) argumentQuery(arg *node, name string, e env) (*node, error) {
	if arg.class() == "SUBQUERY" && arg.str("subquery_type") == "SCALAR" {
		query := arg.get("subquery").get("node")
		columns, err := r.query(query, env{ctes: e.ctes, scalar: true}, false)
		if err != nil {
			return nil, err
		}
		if items := query.list("select_list"); len(items) != 1 && (len(items) > 0 || columns != nil && len(columns) != 1) {
			return nil, r.fault(arg, planError("%s subquery must return exactly one column, got %d", name, max(len(items), len(columns))))
		}
		return query, nil
	}
	if column := outerColumn(arg); column != "" {
		return nil, r.fault(arg, planError("%s: the argument cannot be a column, given '%s'", name, Clip(column, 64)).
			withHint("give a subquery in parentheses: %s((SELECT %s FROM …))", name, Clip(column, 64)))
	}
	out, err := r.walk(arg, env{ctes: e.ctes, frame: &frame{}, scalar: true})
	if err != nil {
		return nil, err
	}
	return selectOf(out), nil
}

// outerColumn returns the name of a column that the argument takes from beside its call, "" when there is none.
func outerColumn(n *node) string {
	switch n.class() {
	case "SUBQUERY", "LAMBDA":
		return ""
	case "COLUMN_REF":
		names := n.list("column_names")
		name, _ := names[len(names)-1].text()
		if name == "current_timestamp" || name == "localtimestamp" {
			return ""
		}
		return name
	}
	for _, m := range n.members {
		if column := outerColumn(m.value); column != "" {
			return column
		}
	}
	for _, item := range n.items {
		if column := outerColumn(item); column != "" {
			return column
		}
	}
	return ""
}

// graft puts query in the place of the table mm_argument.
func graft(n, query *node) bool {
	for i := range n.members {
		v := n.members[i].value
		if v.str("type") == "BASE_TABLE" && v.str("table_name") == "mm_argument" {
			out := derivedTable(v, v.str("alias"), query)
			out.set("column_name_alias", v.get("column_name_alias"))
			n.members[i].value = out
			return true
		}
		if graft(v, query) {
			return true
		}
	}
	for _, item := range n.items {
		if graft(item, query) {
			return true
		}
	}
	return false
}

// derivedTable makes (query) AS alias in the place of n.
func derivedTable(n *node, alias string, query *node) *node {
	names := n.get("column_name_alias")
	if names == nil {
		names = listOf()
	}
	return objectOf(
		member{"type", quote("SUBQUERY")}, member{"alias", quote(alias)}, member{"sample", literal("null")},
		member{"query_location", locationOf(n)},
		member{"subquery", objectOf(member{"node", query}, member{"named_param_map", listOf()})},
		member{"column_name_alias", names},
	)
}
