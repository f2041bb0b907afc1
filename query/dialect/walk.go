package dialect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Bounds of what one statement may hold.
const (
	maxSelects   = 2000 // SELECTs, also in subqueries and set operations
	maxCTEs      = 500
	maxRelations = 1000 // tables, instances and table functions in FROM clauses
)

// rewriter walks one tree: it guards, collects and patches in one pass, children first.
type rewriter struct {
	ctx    context.Context
	parser Parser
	names  Catalog
	opts   Options
	text   string    // the client's
	at     positions // from the parsed text to text
	st     *Statement
	seen   map[string]bool // views listed in st
	first  *Statement      // of the second look: the statement that was printed
	shape  shape           // of the query that was walked last
	widest int             // fields of the largest column of any query so far

	ownersOf []ownersQuery // of the statement's Fleets

	selects, ctes, relations int
}

// scope is a chain of the CTEs that a name may mean, innermost first.
type scope struct {
	parent   *scope
	relation relation
}

// find returns the CTE called name. Names compare as the engine compares them.
func (s *scope) find(name string) (relation, bool) {
	for ; s != nil; s = s.parent {
		if lowerASCII(s.relation.name) == lowerASCII(name) {
			return s.relation, true
		}
	}
	return relation{}, false
}

// relation is a name in a FROM clause with what is known of its columns.
type relation struct {
	name    string
	columns []Column // nil = unknown
	shape   shape
}

// frame is the FROM clause of one SELECT.
type frame struct {
	parent    *frame
	relations []relation
	fleets    []fleetLeg // of the relations
	outer     bool       // an outer join: any column may be NULL
	merged    bool       // USING or NATURAL: a star shows some columns once
}

// env is what surrounds a node.
type env struct {
	ctes   *scope
	frame  *frame
	scalar bool // below an expression: output names do not show
}

// fault makes e point at the token of n.
func (r *rewriter) fault(n *node, e *Error) error {
	if at := n.location(); at >= 0 && e.Line == 0 {
		e = e.at(r.text, r.at.source(at))
	}
	return e
}

// statement walks the outermost query.
func (r *rewriter) statement(n *node) error {
	columns, err := r.query(n, env{}, true)
	r.st.Columns = columns
	return err
}

// query walks a query node and returns its columns, nil when they are not known.
func (r *rewriter) query(n *node, e env, top bool) ([]Column, error) {
	e, err := r.withCTEs(n, e)
	if err != nil {
		return nil, err
	}
	switch kind := n.str("type"); kind {
	case "SELECT_NODE":
		return r.selectNode(n, e, top)
	case "SET_OPERATION_NODE":
		columns, err := r.query(n.get("left"), e, top)
		if err != nil {
			return nil, err
		}
		left := r.shape
		if _, err := r.query(n.get("right"), e, top); err != nil {
			return nil, err
		}
		both := left.and(r.shape) // BY NAME has the columns of both
		if err := r.others(n, e, "type", "cte_map", "left", "right"); err != nil {
			return nil, err
		}
		r.shape = both
		return mergeable(columns), nil
	case "RECURSIVE_CTE_NODE":
		columns, err := r.query(n.get("left"), e, false)
		if err != nil {
			return nil, err
		}
		name := n.str("cte_name")
		right, left := e, r.shape
		right.ctes = &scope{parent: e.ctes, relation: relation{name: name, shape: left}}
		if _, err := r.query(n.get("right"), right, false); err != nil {
			return nil, err
		}
		if err := r.others(n, e, "type", "cte_map", "left", "right"); err != nil {
			return nil, err
		}
		r.shape = left
		return mergeable(columns), nil
	default:
		return nil, fmt.Errorf("walk query: %w", r.fault(n, planError("queries of the form %s are not supported", kind)))
	}
}

// mergeable keeps of the first branch of a set operation what holds for all branches: the names.
func mergeable(columns []Column) []Column {
	for i := range columns {
		columns[i] = Column{Name: columns[i].Name}
	}
	return columns
}

// withCTEs walks the CTEs of n. Each sees those before it; its own name only when it is recursive.
func (r *rewriter) withCTEs(n *node, e env) (env, error) {
	for _, entry := range n.get("cte_map").list("map") {
		if r.ctes++; r.ctes > maxCTEs && r.first == nil {
			return e, planError("more than %d common table expressions", maxCTEs)
		}
		name := entry.str("key")
		if !plainName(name) || refusedPrefix(name) && !r.opts.internal {
			return e, planError("'%s' is no name for a common table expression: use letters, digits, '_', '-' and spaces", Clip(name, 64))
		}
		value := entry.get("value")
		columns, err := r.query(value.get("query").get("node"), env{ctes: e.ctes, frame: e.frame}, false)
		if err != nil {
			return e, err
		}
		e.ctes = &scope{parent: e.ctes, relation: relation{name, renamed(columns, value.list("aliases")), r.shape}}
		if err := r.others(value, e, "query", "aliases", "materialized"); err != nil {
			return e, err
		}
	}
	return e, nil
}

// plainName says whether s can be the name of a CTE and nothing else, such as a file.
func plainName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' && c != '-' && c != ' ' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// renamed gives columns the names of a list such as t(a, b).
func renamed(columns []Column, names []*node) []Column {
	if columns == nil || len(names) == 0 {
		return columns
	}
	out := append([]Column(nil), columns...)
	for i := range min(len(names), len(out)) {
		out[i].Name, _ = names[i].text()
	}
	return out
}

func (r *rewriter) selectNode(n *node, e env, top bool) ([]Column, error) {
	if r.selects++; r.selects > maxSelects && r.first == nil {
		return nil, planError("more than %d SELECTs in one statement", maxSelects)
	}
	f := &frame{parent: e.frame}
	e.frame = f
	from, err := r.table(n.get("from_table"), e, f)
	if err != nil {
		return nil, err
	}
	n.set("from_table", from)
	size, err := r.sizeOf(n.list("select_list"), f)
	if err != nil {
		return nil, err
	}
	columns, err := r.selectList(n, e, top)
	if err != nil {
		return nil, err
	}
	if err := r.others(n, e, "type", "cte_map", "from_table", "select_list"); err != nil {
		return nil, err
	}
	r.owners(n, f)
	r.shape = size
	return columns, nil
}

// selectList walks the items, names them, and says what is known of each.
func (r *rewriter) selectList(n *node, e env, top bool) ([]Column, error) {
	items := n.list("select_list")
	columns, known := make([]Column, 0, len(items)), true
	for i, item := range items {
		if item.class() == "STAR" {
			expanded, ok := e.frame.star(item)
			columns, known = append(columns, expanded...), known && ok
		} else {
			c := r.column(item, e.frame)
			c.item = i
			columns = append(columns, c)
		}
		name := ""
		if !e.scalar && item.str("alias") == "" {
			name = e.frame.outputName(item)
		}
		integer := top && isIntegerConstant(item)
		alias := item.get("alias")
		out, err := r.walk(item, e)
		if err != nil {
			return nil, err
		}
		if integer {
			out = cast(out, typeOf("BIGINT"))
		}
		switch {
		case name != "":
			out.set("alias", quote(name))
		case alias != nil && out != item:
			out.set("alias", alias)
		}
		if last := len(columns) - 1; top && item.class() != "STAR" && columns[last].Name == "" {
			columns[last].Name = out.str("alias")
		}
		items[i] = out
	}
	if !known {
		return nil, nil
	}
	return columns, nil
}

// others walks every member of n that is not in done, so that no place of the tree goes unseen.
func (r *rewriter) others(n *node, e env, done ...string) error {
next:
	for i := range n.members {
		m := &n.members[i]
		for _, d := range done {
			if m.key == d {
				continue next
			}
		}
		out, err := r.walk(m.value, e)
		if err != nil {
			return err
		}
		n.members[i].value = out
	}
	return nil
}

// walk visits any node and returns what takes its place.
func (r *rewriter) walk(n *node, e env) (*node, error) {
	switch n.kind {
	case array:
		for i := range n.items {
			out, err := r.walk(n.items[i], e)
			if err != nil {
				return nil, err
			}
			n.items[i] = out
		}
		return n, nil
	case object:
		if n.class() != "" {
			return r.expression(n, e)
		}
		switch kind := n.str("type"); {
		case strings.HasSuffix(kind, "_NODE"):
			e.scalar = true
			_, err := r.query(n, e, false)
			return n, err
		case kind == "" || strings.HasSuffix(kind, "_MODIFIER") || strings.HasPrefix(kind, "ORDER_") || kind == "ASCENDING" || kind == "DESCENDING":
			return n, r.others(n, e)
		default:
			return nil, r.fault(n, planError("%s is not supported here", kind))
		}
	}
	return n, nil
}

// table walks what stands in a FROM clause and enters it into f.
func (r *rewriter) table(n *node, e env, f *frame) (*node, error) {
	kind := n.str("type")
	if kind == "EMPTY" {
		return n, nil
	}
	if r.relations++; r.relations > maxRelations && r.first == nil {
		return nil, planError("more than %d tables in one statement", maxRelations)
	}
	switch kind {
	case "BASE_TABLE":
		return r.baseTable(n, e, f)
	case "TABLE_FUNCTION":
		return r.tableFunction(n, e, f)
	case "SUBQUERY":
		columns, err := r.query(n.get("subquery").get("node"), env{ctes: e.ctes, frame: f}, false)
		if err != nil {
			return nil, err
		}
		f.enter(n, n.str("alias"), columns, r.shape)
		return n, r.others(n, e, "type", "subquery", "column_name_alias", "sample")
	case "JOIN":
		return r.join(n, e, f)
	case "EXPRESSION_LIST":
		f.enter(n, n.str("alias"), nil, r.valuesShape(n, f))
		return n, r.others(n, e, "type", "expected_types", "expected_names")
	case "SHOW_REF":
		return nil, r.fault(n, planError("SHOW, DESCRIBE and SUMMARIZE cannot be part of a query"))
	default:
		return nil, r.fault(n, planError("%s is not supported in a FROM clause", kind))
	}
}

// enter adds a relation with the names that the FROM clause gives its columns.
func (f *frame) enter(n *node, name string, columns []Column, size shape) {
	differs := func(c Column) bool { return c.Duration || c.Minus } // true of the item that computes it only
	if slices.ContainsFunc(columns, differs) {
		columns = slices.Clone(columns)
		for i := range columns {
			columns[i].Duration, columns[i].Minus = false, false
		}
	}
	f.relations = append(f.relations, relation{name, renamed(columns, n.list("column_name_alias")), size})
}

func (r *rewriter) join(n *node, e env, f *frame) (*node, error) {
	for _, side := range [...]string{"left", "right"} {
		fleets := len(f.fleets)
		out, err := r.table(n.get(side), e, f)
		if err != nil {
			return nil, err
		}
		n.set(side, out)
		f.joined(n, side, fleets)
	}
	if kind := n.str("join_type"); kind != "INNER" && kind != "SEMI" && kind != "ANTI" {
		f.outer = true
	}
	if len(n.list("using_columns")) > 0 || n.str("ref_type") == "NATURAL" {
		f.merged = true
	}
	if kind := n.str("join_type"); kind == "SEMI" || kind == "ANTI" {
		f.merged = true
	}
	return n, r.others(n, e, "type", "left", "right", "using_columns")
}

// baseTable resolves a name: a CTE in scope, a relation of information_schema, a table of the catalog, and nothing else.
func (r *rewriter) baseTable(n *node, e env, f *frame) (*node, error) {
	catalog, schema, name := n.str("catalog_name"), n.str("schema_name"), n.str("table_name")
	if !n.get("at_clause").isNull() {
		return nil, r.fault(n, planError("AT is not supported"))
	}
	alias := n.str("alias")
	if alias == "" {
		alias = name
	}
	if catalog == "" && schema == "" {
		if cte, ok := e.ctes.find(name); ok {
			f.enter(n, alias, cte.columns, cte.shape)
			return n, nil
		}
	}
	if catalog != "" && catalog != "datafusion" || schema != "" && schema != "public" && schema != "information_schema" {
		full := strings.TrimPrefix(catalog+"."+schema+"."+name, ".")
		return nil, r.fault(n, planError("table '%s' not found: schema-qualified table %s is not available", full, full).
			withHint("tables are in datafusion.public, and there is information_schema"))
	}
	if schema == "information_schema" {
		return r.internalTable(n, f, name, alias)
	}
	if schema != "" {
		if _, hidden := e.ctes.find(name); hidden {
			return nil, r.fault(n, planError("table '%s' has the name of a common table expression: give that another name", name))
		}
		n.set("catalog_name", quote(""))
		n.set("schema_name", quote(""))
	}
	if r.opts.internal && r.isView(name) {
		f.enter(n, alias, nil, plain(maxTableColumns))
		return n, nil
	}
	t, ok := r.names.Table(name)
	if ok && t.Fleet != nil {
		return r.fleet(n, alias, t, f)
	}
	if !ok || !usable(t) {
		return nil, r.fault(n, r.noTable(name, t))
	}
	if !r.seen[name] {
		r.seen[name] = true
		r.st.Tables = append(r.st.Tables, TableRef{Name: name, ViewName: name, Table: t})
	}
	f.enter(n, alias, tableColumns(t), plain(len(t.Columns)))
	return n, nil
}

// usable says whether t may stand in a FROM clause by its name.
func usable(t *tables.Table) bool { return t != nil && (t.Global || t.Instance == tables.None) }

// noTable says that a table does not exist, and what does.
func (r *rewriter) noTable(name string, t *tables.Table) *Error {
	e := planError("table 'datafusion.public.%s' not found", Clip(name, 128))
	if t != nil || tables.None != instanceOf(name) {
		kind := instanceOf(name)
		if t != nil && t.Fleet != nil { // a statement may name it, but it is not listed
			return e.withHint("its columns are those of DESCRIBE SELECT * FROM %s; there is view_instance('%s', <%s id>) too", name, name, kind)
		}
		return e.withHint("%s has no global table: use view_instance('%s', <%s id>)", name, name, kind)
	}
	var global []string
	for _, candidate := range r.names.Names() {
		if t, ok := r.names.Table(candidate); ok && usable(t) {
			global = append(global, candidate)
		}
	}
	if near := closest(name, global); len(near) > 0 {
		return e.withHint("table '%s' not found; did you mean %s?", Clip(name, 128), strings.Join(near, " or "))
	}
	return e.withHint("table '%s' not found; there are %s", Clip(name, 128), strings.Join(someNames(global), ", "))
}

// someNames keeps a list of names readable.
func someNames(names []string) []string {
	const shown = 12
	if len(names) <= shown {
		return names
	}
	return append(append([]string(nil), names[:shown]...), fmt.Sprintf("and %d more", len(names)-shown))
}

// instanceOf returns what identifies the instances of the view set called name.
func instanceOf(name string) tables.InstanceKind {
	if t, ok := tables.Lookup(name); ok {
		return t.Instance
	}
	return tables.None
}

// tableColumns describes the columns of a table.
func tableColumns(t *tables.Table) []Column {
	columns := make([]Column, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = Column{Name: c.Name, Type: c.Type, NotNull: !c.Nullable}
	}
	return columns
}

// asError unwraps a client's fault.
func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
