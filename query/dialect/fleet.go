package dialect

import (
	"slices"
	"strconv"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// A table with a Fleet is one of many instances, far too many to build, and its rows alone do not say whose they are. FROM such a
// table is the rows of the instances that the statement means, and what it means is in its WHERE clause: the conjuncts that are about
// the owners of rows only. They become a statement of their own, which names the instances before any is built:
//
//	SELECT name, sum(duration) FROM thread_spans WHERE exe = 'game' AND depth < 3 GROUP BY name
//	SELECT DISTINCT stream_id FROM "fleet/owners" AS thread_spans WHERE (exe = 'game')
//
// The conjuncts stay where they were, so that reading more instances than meant is never wrong, and reading fewer is: a conjunct is
// taken only when a row whose owner fails it cannot show in the result. That is so when the clause filters the rows of the table as
// they are, or those of a join that keeps each row of the table or drops it, without filling in NULLs for it.

// OwnersView is the relation that FleetRef.Owners reads: a row for each instance, with the columns tables.OwnerColumns.
const OwnersView = "fleet/owners"

// maxFleets bounds how often a statement names a table with a Fleet: each time asks which instances are meant.
const maxFleets = 8

// FleetRef is one occurrence of a table with a Fleet in a FROM clause: a relation named ViewName with the rows of many instances.
type FleetRef struct {
	ViewName string        // "fleet/<n>"
	Table    *tables.Table // the Fleet
	Owners   string        // SQL for the engine, of one column: the ids of the instances whose rows may be wanted
	Sample   float64       // part of these instances that is wanted: 1 = all
}

// fleetLeg is such a table in the FROM clause that is walked.
type fleetLeg struct {
	ref     int // of Statement.Fleets
	alias   string
	renamed bool // its columns have other names
	apart   bool // it is a leg of a join, or something like it, whose result needs rows that the WHERE clause drops
}

// fleet puts the relation there that will hold the rows of the instances.
func (r *rewriter) fleet(n *node, alias string, t *tables.Table, f *frame) (*node, error) {
	if len(r.st.Fleets) == maxFleets {
		return nil, r.fault(n, planError("more than %d times %s in one statement", maxFleets, t.Name).
			withHint("name it once in a common table expression"))
	}
	sample, err := r.fleetSample(n, t)
	if err != nil {
		return nil, err
	}
	view := "fleet/" + strconv.Itoa(len(r.st.Fleets)+1)
	f.fleets = append(f.fleets, fleetLeg{ref: len(r.st.Fleets), alias: alias, renamed: len(n.list("column_name_alias")) > 0})
	r.st.Fleets = append(r.st.Fleets, FleetRef{ViewName: view, Table: t.Fleet, Sample: sample})
	out := baseTableNode(n, view, alias)
	out.set("sample", literal("null"))
	f.enter(out, alias, tableColumns(t.Fleet), plain(len(t.Fleet.Columns)))
	return out, nil
}

// fleetSample reads TABLESAMPLE behind the table: a share of the instances, whatever the method.
func (r *rewriter) fleetSample(n *node, t *tables.Table) (float64, error) {
	sample := n.get("sample")
	if sample.isNull() {
		return 1, nil
	}
	size := sample.get("sample_size").get("value")
	if sample.isTrue("is_percentage") && size != nil {
		if percent, err := strconv.ParseFloat(size.raw, 64); err == nil && percent > 0 && percent <= 100 {
			return percent / 100, nil
		}
	}
	return 0, r.fault(n, planError("TABLESAMPLE of %s takes a percentage above zero", t.Name).
		withHint("threads are sampled as a whole: FROM %s TABLESAMPLE 10 PERCENT; LIMIT bounds the rows", t.Name))
}

// joined marks the tables that stand on one side of a join, from the given one on, unless the join keeps or drops each row of that side
// as it is. ASOF and POSITIONAL joins look at the neighbours of a row, and an outer join makes rows with NULLs for those that are not there.
func (f *frame) joined(n *node, side string, from int) {
	keeps := false
	if n.get("sample").isNull() {
		switch n.str("ref_type") {
		case "REGULAR", "CROSS", "NATURAL":
			switch n.str("join_type") {
			case "INNER":
				keeps = true
			case "LEFT", "SEMI", "ANTI":
				keeps = side == "left"
			case "RIGHT":
				keeps = side == "right"
			}
		}
	}
	if !keeps {
		for i := range f.fleets[from:] {
			f.fleets[from+i].apart = true
		}
	}
}

// ownersQuery is the tree of a FleetRef's Owners.
type ownersQuery struct {
	ref   int // of Statement.Fleets
	query *node
}

// owners keeps for each such table of a FROM clause what its SELECT, which has been walked, says about the owners.
func (r *rewriter) owners(n *node, f *frame) {
	for _, leg := range f.fleets {
		query := selectOf(reference("stream_id"))
		query.set("modifiers", listOf(objectOf(member{"type", quote("DISTINCT_MODIFIER")}, member{"distinct_on_targets", listOf()})))
		query.set("from_table", baseTableNode(objectOf(), OwnersView, leg.alias))
		switch c := f.ownerConjuncts(n, leg); len(c) {
		case 0:
		case 1:
			query.set("where_clause", c[0])
		default:
			query.set("where_clause", objectOf(
				member{"class", quote("CONJUNCTION")}, member{"type", quote("CONJUNCTION_AND")}, member{"alias", quote("")},
				member{"query_location", literal(unknownLocation)}, member{"children", listOf(c...)},
			))
		}
		r.ownersOf = append(r.ownersOf, ownersQuery{leg.ref, query})
	}
}

// printOwners writes the statements about owners.
func (r *rewriter) printOwners() error {
	for _, o := range r.ownersOf {
		if err := r.checkCopies(o.query); err != nil {
			return err
		}
		sql, err := r.print(o.query)
		if err != nil {
			return err
		}
		r.st.Fleets[o.ref].Owners = sql
	}
	return nil
}

// reference makes a reference to a column.
func reference(name string) *node {
	return objectOf(
		member{"class", quote("COLUMN_REF")}, member{"type", quote("COLUMN_REF")}, member{"alias", quote("")},
		member{"query_location", literal(unknownLocation)}, member{"column_names", listOf(quote(name))},
	)
}

// ownerConjuncts returns copies of the conjuncts of a SELECT's WHERE clause that each row of an owner in the table fails or
// none, and that may be asked of the owner alone.
func (f *frame) ownerConjuncts(n *node, leg fleetLeg) []*node {
	same := 0
	for _, other := range f.relations {
		if lowerASCII(other.name) == lowerASCII(leg.alias) {
			same++
		}
	}
	if leg.renamed || leg.apart || same != 1 || !n.get("sample").isNull() {
		return nil
	}
	var out []*node
	for _, c := range conjuncts(n.get("where_clause")) {
		if aboutOwner(c, leg.alias, len(f.relations) == 1) {
			out = append(out, c.clone())
		}
	}
	return out
}

// conjuncts returns the conditions all of which must be true.
func conjuncts(n *node) []*node {
	if n.isNull() {
		return nil
	}
	if n.class() != "CONJUNCTION" || n.str("type") != "CONJUNCTION_AND" {
		return []*node{n}
	}
	var all []*node
	for _, c := range n.list("children") {
		all = append(all, conjuncts(c)...)
	}
	return all
}

// aboutOwner says whether an expression depends on the columns of the owner only, and is the same each time that it is computed. Columns
// without the table's name belong to the table when it is alone: the engine prefers them to the aliases of the select list.
func aboutOwner(n *node, alias string, alone bool) bool {
	switch n.class() {
	case "CONSTANT":
		return true
	case "COLUMN_REF":
		return isOwnerColumn(n.list("column_names"), alias, alone)
	case "FUNCTION":
		if name := lowerASCII(n.str("function_name")); unsteady()[name] || serviceCalls()[name] || isAggregate(name) || name == "unnest" {
			return false
		}
	case "", "CAST", "CASE", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "COLLATE":
	default:
		return false
	}
	differs := func(n *node) bool { return !aboutOwner(n, alias, alone) }
	return !slices.ContainsFunc(n.members, func(m member) bool { return m.value.kind != scalar && differs(m.value) }) &&
		!slices.ContainsFunc(n.items, differs)
}

// isOwnerColumn says whether a name is that of a column of the owner.
func isOwnerColumn(names []*node, alias string, alone bool) bool {
	if len(names) == 0 || len(names) > 2 || len(names) == 1 && !alone {
		return false
	}
	if table, _ := names[0].text(); len(names) == 2 && lowerASCII(table) != lowerASCII(alias) {
		return false
	}
	name, _ := names[len(names)-1].text()
	return ownerColumns()[lowerASCII(name)]
}

var ownerColumns = sync.OnceValue(func() map[string]bool {
	set := map[string]bool{}
	for _, c := range tables.OwnerColumns() {
		set[c.Name] = true
	}
	return set
})

// unsteady are the allowed functions whose result is another one each time, or in each statement.
var unsteady = sync.OnceValue(func() map[string]bool {
	return wordSet(`random rand uuid gen_random_uuid uuidv4 uuidv7 now age today current_date current_time current_timestamp localtimestamp
		current_localtime current_localtimestamp get_current_time get_current_timestamp transaction_timestamp`)
})
