package dialect

import (
	"slices"
	"strconv"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Projection is a statement that shows columns of one table function as they are: the service may hand the rows out while they are made,
// past the engine.
type Projection struct {
	Columns []ProjectedColumn
	Limit   int64 // rows at most; -1 = all
}

// ProjectedColumn is a column of the function under the name that the client sees.
type ProjectedColumn struct {
	Index int // of the function's columns
	Name  string
}

// streamed are the functions whose rows come one by one, in order of their first column.
var streamed = wordSet(`perfetto_trace_chunks perfetto_trace`)

// projection returns what a statement shows of a streamed function, nil when it does anything else.
func projection(n *node) *Projection {
	from := n.get("from_table")
	if n.str("type") != "SELECT_NODE" || len(n.get("cte_map").list("map")) > 0 || from.str("type") != "TABLE_FUNCTION" {
		return nil
	}
	fn := from.get("function")
	name := lowerASCII(fn.str("function_name"))
	t, ok := tables.Function(name)
	if !ok || !streamed[name] || fn.str("schema") != "" || len(from.list("column_name_alias")) > 0 || from.str("with_ordinality") == "WITH_ORDINALITY" {
		return nil
	}
	for _, clause := range [...]string{"where_clause", "having", "sample", "qualify"} {
		if !n.get(clause).isNull() {
			return nil
		}
	}
	if !from.get("sample").isNull() || len(n.list("group_expressions")) > 0 || n.str("aggregate_handling") != "STANDARD_HANDLING" {
		return nil
	}
	alias := from.str("alias")
	if alias == "" {
		alias = name
	}
	p := &Projection{Limit: -1}
	for _, item := range n.list("select_list") {
		if !p.add(item, t, alias) {
			return nil
		}
	}
	for _, m := range n.list("modifiers") {
		if !p.modify(m, t, alias) {
			return nil
		}
	}
	return p
}

// add notes what an item of the select list shows.
func (p *Projection) add(item *node, t *tables.Table, alias string) bool {
	if item.class() == "STAR" {
		columns, ok := (&frame{relations: []relation{{name: alias, columns: tableColumns(t)}}}).star(item)
		for i, c := range columns {
			p.Columns = append(p.Columns, ProjectedColumn{i, c.Name})
		}
		return ok
	}
	i := columnOf(item, t, alias)
	if i < 0 {
		return false
	}
	c := ProjectedColumn{i, t.Columns[i].Name}
	if as := item.str("alias"); as != "" && as != c.Name {
		if t.Index(as) >= 0 { // ORDER BY would mean this one
			return false
		}
		c.Name = as
	}
	p.Columns = append(p.Columns, c)
	return true
}

// columnOf returns the index of the function's column that an expression is, -1 when it is something else.
func columnOf(n *node, t *tables.Table, alias string) int {
	names := n.list("column_names")
	if n.class() != "COLUMN_REF" || len(names) == 0 || len(names) > 2 {
		return -1
	}
	if first, _ := names[0].text(); len(names) == 2 && first != alias {
		return -1
	}
	name, _ := names[len(names)-1].text()
	return t.Index(name)
}

// modify takes ORDER BY the first column, and LIMIT.
func (p *Projection) modify(m *node, t *tables.Table, alias string) bool {
	switch m.str("type") {
	case "ORDER_MODIFIER":
		return !slices.ContainsFunc(m.list("orders"), func(o *node) bool {
			return o.str("type") == "DESCENDING" || columnOf(o.get("expression"), t, alias) != 0
		})
	case "LIMIT_MODIFIER":
		if !m.get("offset").isNull() {
			return false
		}
		text, ok := constantInteger(m.get("limit"))
		limit, err := strconv.ParseInt(text, 10, 64)
		p.Limit = limit
		return ok && err == nil && limit >= 0
	default:
		return false
	}
}
