package dialect

import "slices"

// inOrder says whether the rows of a query come in the order of the one relation that it reads. In doubt it is true: a relation
// that is in order for nobody costs time, and one that should be and is not is wrong.
func inOrder(n *node) bool {
	switch n.str("type") {
	case "SELECT_NODE":
	case "SET_OPERATION_NODE":
		return n.str("setop_type") == "UNION" && n.isTrue("setop_all") && !reorders(n) && inOrder(n.get("left")) && inOrder(n.get("right"))
	default:
		return false
	}
	if reorders(n) || len(n.list("group_expressions")) > 0 || n.str("aggregate_handling") != "STANDARD_HANDLING" ||
		slices.ContainsFunc(n.list("select_list"), aggregates) {
		return false
	}
	switch from := n.get("from_table"); from.str("type") {
	case "BASE_TABLE", "TABLE_FUNCTION":
		return true
	case "SUBQUERY":
		return inOrder(from.get("subquery").get("node"))
	default:
		return false
	}
}

// reorders says whether a query sorts its rows, or looks for equal ones.
func reorders(n *node) bool {
	return slices.ContainsFunc(n.list("modifiers"), func(m *node) bool {
		return m.str("type") == "ORDER_MODIFIER" || m.str("type") == "DISTINCT_MODIFIER"
	})
}

// otherAggregates are those that have no place in aggregateNames. One that is missing here costs time.
var otherAggregates = wordSet(`count_star make_histogram sum_histograms arg_max arg_min max_by min_by mode quantile quantile_cont quantile_disc
	approx_quantile approx_count_distinct approx_top_k histogram list product first last geomean kurtosis skewness entropy mad count_if`)

// aggregates says whether an item of a select list computes an aggregate.
func aggregates(n *node) bool {
	switch n.class() {
	case "FUNCTION":
		if name := lowerASCII(n.str("function_name")); isAggregate(name) || otherAggregates[name] {
			return true
		}
	case "WINDOW", "SUBQUERY": // of its own rows
		return false
	}
	return slices.ContainsFunc(n.members, func(m member) bool { return m.value.kind != scalar && aggregates(m.value) }) ||
		slices.ContainsFunc(n.items, aggregates)
}
