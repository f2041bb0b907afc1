package dialect

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The rules of the tree pass. Each takes a node whose children have been patched and returns what stands in its place. What a
// macro could do is left to the engine's macros; these need to see the node: its form, constants, FILTER, DISTINCT.

// patch applies the rules to an expression.
func (r *rewriter) patch(n *node) (*node, error) {
	switch n.class() {
	case "CAST":
		return r.patchCast(n), nil
	case "FUNCTION":
		return r.patchFunction(n)
	case "WINDOW":
		return r.patchWindow(n), nil
	}
	return n, nil
}

// patchConstant makes decimal literals doubles: 0.1 + 0.2 is a Float64 for clients. The printer writes a double as digits,
// which would be read as a decimal again, so it goes by its text.
func (r *rewriter) patchConstant(n *node) *node {
	value := n.get("value")
	if value.isTrue("is_null") || value.get("value") == nil {
		return n
	}
	switch value.get("type").str("id") {
	case "DECIMAL":
		return moveAlias(n, cast(n, typeOf("DOUBLE")))
	case "DOUBLE", "FLOAT":
		return moveAlias(n, cast(textConstant(n, value.get("value").raw), typeOf("DOUBLE")))
	}
	return n
}

// moveAlias gives out the alias of n, such as the name of a field of struct_pack.
func moveAlias(n, out *node) *node {
	if n == out {
		return n
	}
	if alias := n.get("alias"); alias != nil && alias.raw != `""` {
		out.set("alias", alias)
		n.set("alias", quote(""))
	}
	return out
}

// patchCast makes casts of timestamps, intervals and floats to integers and text what DataFusion makes of them.
func (r *rewriter) patchCast(n *node) *node {
	child, t := n.get("child"), n.get("cast_type").str("id")
	if child.class() == "CAST" && child.get("child").class() == "CONSTANT" && child.get("cast_type").str("id") == "DOUBLE" &&
		child.get("child").get("value").get("type").str("id") == "DECIMAL" && (t == "DECIMAL" || t == "DOUBLE" || t == "FLOAT") {
		n.set("child", child.get("child")) // CAST(1.239 AS DECIMAL(10, 2)) keeps its digits
		return n
	}
	if n.isTrue("try_cast") {
		return n
	}
	switch t {
	case "BIGINT":
		if isIntegerValued(child) || isTextValued(child) {
			return n
		}
		return moveAlias(n, r.asInteger(child))
	case "INTEGER", "SMALLINT", "TINYINT", "UTINYINT", "USMALLINT", "UINTEGER":
		if !isIntegerValued(child) && !isTextValued(child) {
			n.set("child", r.asInteger(child))
		}
	case "VARCHAR":
		if isTextValued(child) || isIntegerValued(child) {
			return n
		}
		return moveAlias(n, call(n, "mm_cast_str", child))
	}
	return n
}

// asInteger is CAST(n AS BIGINT) with nanoseconds for timestamps and intervals, and truncation for floats.
func (r *rewriter) asInteger(n *node) *node {
	if args := n.list("children"); n.isFunction("-") && len(args) == 2 {
		return call(n, "mm_diff_i64", args[0], args[1])
	}
	return call(n, "mm_cast_i64", n)
}

// isIntegerValued says whether n is an integer or a truth value whatever its arguments are: its cast needs no care. The
// macro would copy n several times.
func isIntegerValued(n *node) bool {
	switch n.class() {
	case "COMPARISON", "CONJUNCTION", "BETWEEN":
		return true
	case "CONSTANT":
		return isIntegerConstant(n) || n.get("value").get("type").str("id") == "BOOLEAN"
	case "OPERATOR":
		switch n.str("type") {
		case "OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "COMPARE_IN", "COMPARE_NOT_IN":
			return true
		}
	case "FUNCTION":
		switch n.str("function_name") {
		case "count", "count_star", "trunc", "floor", "ceil", "length", "len", "epoch_ns", "mm_cast_i64", "mm_diff_i64", "~~", "!~~", "~~*", "!~~*", "row_number":
			return true
		case "+", "-", "*", "/", "//", "%":
			return !slices.ContainsFunc(n.list("children"), func(c *node) bool { return !isIntegerValued(c) })
		}
	case "CAST":
		switch n.get("cast_type").str("id") {
		case "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN":
			return true
		}
	}
	return false
}

// isTextValued says whether n is text whatever its arguments are.
func isTextValued(n *node) bool {
	if _, ok := constantText(n); ok {
		return true
	}
	if n.class() == "CAST" {
		return n.get("cast_type").str("id") == "VARCHAR"
	}
	if n.class() != "FUNCTION" {
		return false
	}
	switch n.str("function_name") {
	case "mm_cast_str", "lower", "upper", "concat", "concat_ws", "substr", "substring", "trim", "replace", "property_get", "jsonb_as_string", "jsonb_format_json":
		return true
	}
	return false
}

// renames are functions that have another name, and the same arguments.
var renames = map[string]string{
	"approx_distinct": "approx_count_distinct", "percentile_cont": "quantile_cont", "percentile_disc": "quantile_disc",
	"var": "var_samp", "var_sample": "var_samp", "var_population": "var_pop", "covar": "covar_samp", "mean": "avg",
	"make_array": "list_value", "first_value": "first", "last_value": "last", "get_current_timestamp": "now",
	"array_any_value": "list_any_value",
}

// windowRenames are those that also stand before OVER.
var windowRenames = map[string]string{
	"approx_distinct": "approx_count_distinct", "percentile_cont": "quantile_cont", "var": "var_samp", "var_sample": "var_samp",
	"var_population": "var_pop", "covar": "covar_samp", "mean": "avg",
}

func (r *rewriter) patchFunction(n *node) (*node, error) {
	name := lowerASCII(n.str("function_name"))
	args := n.list("children")
	if to := renames[name]; to != "" {
		n.set("function_name", quote(to))
		return n, nil
	}
	switch name {
	case "arrow_cast":
		return r.patchArrowCast(n, args)
	case "+", "-":
		return r.patchInterval(n, name, args), nil
	case "approx_percentile_cont", "approx_median":
		return r.patchQuantile(n, args), nil
	case "make_histogram":
		// With constant bounds there is a histogram also of no rows; a macro cannot see that they are constant.
		if len(args) == 4 && notConstant(args[0]) == "" && notConstant(args[1]) == "" && notConstant(args[2]) == "" {
			n.set("function_name", quote("mm_make_histogram"))
		}
	case "named_struct":
		return r.patchNamedStruct(n, args)
	case "struct", "row":
		return r.structPack(n, args, func(i int) string { return "c" + strconv.Itoa(i) }), nil
	case "~~", "!~~", "~~*", "!~~*":
		return r.patchLike(n, name, args), nil
	case "^":
		n.set("function_name", quote("xor"))
		n.set("is_operator", literal("false"))
	case "regexp_replace":
		if len(args) >= 3 {
			if s, ok := constantText(args[2]); ok && strings.Contains(s, "$") {
				args[2] = textConstant(args[2], groupReference().ReplaceAllString(s, `\$1$2`))
			}
		}
	case "timezone": // guarded: the zone is UTC
		if len(args) == 2 {
			return moveAlias(n, args[1]), nil
		}
	case "regexp_full_match":
		n.set("schema", quote("")) // the operator ~: the macro of that name searches
	}
	return n, nil
}

// groupReference matches $1 and ${1}.
var groupReference = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\$(?:(\d+)|\{(\d+)\})`) })

func (r *rewriter) patchWindow(n *node) *node {
	name := lowerASCII(n.str("function_name"))
	if to := windowRenames[name]; to != "" {
		n.set("function_name", quote(to))
	}
	if name == "approx_percentile_cont" || name == "approx_median" {
		return r.patchQuantile(n, n.list("children"))
	}
	return n
}

// patchQuantile makes approx_quantile, whose result is Float64 like DataFusion's when its argument is.
func (r *rewriter) patchQuantile(n *node, args []*node) *node {
	if len(args) == 0 {
		return n
	}
	p := textConstant(n, "0.5")
	if n.str("function_name") != "approx_median" {
		if len(args) < 2 {
			return n
		}
		p = args[1]
	}
	n.set("function_name", quote("approx_quantile"))
	n.set("children", listOf(cast(args[0], typeOf("DOUBLE")), r.patchCast(cast(p, typeOf("FLOAT")))))
	return n
}

// intervalMakers are the functions behind INTERVAL '1' HOUR and its like.
var intervalMakers = wordSet(`to_years to_months to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds
	to_weeks to_quarters to_decades to_centuries to_millennia`)

func isInterval(n *node) bool {
	return n.class() == "CAST" && n.get("cast_type").str("id") == "INTERVAL" ||
		n.class() == "FUNCTION" && intervalMakers[n.str("function_name")]
}

// patchInterval keeps the nanoseconds of a timestamp that an interval is added to or taken from.
func (r *rewriter) patchInterval(n *node, op string, args []*node) *node {
	if len(args) != 2 || isInterval(args[0]) == isInterval(args[1]) {
		return n
	}
	t, interval := args[0], args[1]
	if isInterval(t) {
		if op == "-" {
			return n
		}
		t, interval = interval, t
	}
	to := "mm_ts_add"
	if op == "-" {
		to = "mm_ts_sub"
	}
	if inner := t.str("function_name"); (inner == "mm_ts_add" || inner == "mm_ts_sub") && isFixed(interval) && isFixed(t.list("children")[1]) {
		// t - a - b is t - (a + b): the macro would copy the inner call.
		sum := "+"
		if inner != to {
			sum = "-"
		}
		args := t.list("children")
		both := call(n, sum, args[1], interval)
		both.set("is_operator", literal("true"))
		to, t, interval = inner, args[0], both
	}
	return moveAlias(n, call(n, to, t, interval))
}

// isFixed says whether an interval is a constant length of time: months are not, nor is what a column holds.
func isFixed(n *node) bool {
	if n.class() == "FUNCTION" {
		args := n.list("children")
		switch name := n.str("function_name"); name {
		case "to_days", "to_hours", "to_minutes", "to_seconds", "to_milliseconds", "to_microseconds", "to_weeks":
			return notConstant(n) == ""
		case "+", "-":
			return len(args) == 2 && isFixed(args[0]) && isFixed(args[1])
		}
		return false
	}
	s, ok := constantText(n.get("child"))
	return ok && n.class() == "CAST" && !calendarUnit().MatchString(s)
}

// calendarUnit matches the units whose length depends on the date, and the abbreviations that might be one.
var calendarUnit = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)mon|year|yr|quarter|dec|cent|mil+en|[0-9]\s*[ycqm]\b`)
})

// patchLike makes the backslash escape in patterns. A constant pattern without one needs nothing, and keeps the
// engine's fast paths.
func (r *rewriter) patchLike(n *node, op string, args []*node) *node {
	if len(args) != 2 {
		return n
	}
	if args[0].class() == "STAR" { // * LIKE 'pattern' selects columns
		return n
	}
	if s, ok := constantText(args[1]); ok && !strings.Contains(s, `\`) {
		return n
	}
	to := map[string]string{"~~": "like_escape", "!~~": "not_like_escape", "~~*": "ilike_escape", "!~~*": "not_ilike_escape"}[op]
	return moveAlias(n, call(n, to, args[0], args[1], textConstant(args[1], `\`)))
}

func (r *rewriter) patchNamedStruct(n *node, args []*node) (*node, error) {
	if len(args) == 0 || len(args)%2 != 0 {
		return nil, r.fault(n, planError("named_struct takes pairs of a name and a value"))
	}
	names, values := make([]string, 0, len(args)/2), make([]*node, 0, len(args)/2)
	for i := 0; i < len(args); i += 2 {
		name, ok := constantText(args[i])
		if !ok {
			return nil, r.fault(args[i], planError("named_struct: the names must be text literals"))
		}
		names, values = append(names, name), append(values, args[i+1])
	}
	return r.structPack(n, values, func(i int) string { return names[i] }), nil
}

func (r *rewriter) structPack(n *node, values []*node, name func(int) string) *node {
	for i, v := range values {
		v.set("alias", quote(name(i)))
	}
	n.set("function_name", quote("struct_pack"))
	n.set("children", listOf(values...))
	return n
}

// arrowTypes maps the types that arrow_cast names to the engine's.
var arrowTypes = map[string]string{
	"utf8": "VARCHAR", "largeutf8": "VARCHAR", "utf8view": "VARCHAR", "boolean": "BOOLEAN",
	"int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
	"uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
	"float16": "FLOAT", "float32": "FLOAT", "float64": "DOUBLE",
	"binary": "BLOB", "largebinary": "BLOB", "binaryview": "BLOB", "date32": "DATE", "date64": "DATE",
}

// patchArrowCast makes arrow_cast(x, 'T') a CAST.
func (r *rewriter) patchArrowCast(n *node, args []*node) (*node, error) {
	if len(args) != 2 {
		return nil, r.fault(n, planError("arrow_cast takes a value and the name of a type"))
	}
	name, ok := constantText(args[1])
	if !ok {
		return nil, r.fault(args[1], planError("arrow_cast: the type must be a text literal"))
	}
	t := arrowType(name)
	if t == nil {
		return nil, r.fault(args[1], planError("arrow_cast: unsupported type '%s'", Clip(name, 64)))
	}
	out := cast(args[0], t)
	out.set("alias", n.get("alias"))
	return r.patchCast(out), nil
}

// arrowType returns the engine's type for an Arrow type's text, nil for an unknown one.
func arrowType(name string) *node {
	name = strings.TrimSpace(name)
	base, inner, _ := strings.Cut(name, "(")
	inner = strings.TrimSuffix(strings.TrimSpace(inner), ")")
	switch base = lowerASCII(strings.TrimSpace(base)); base {
	case "timestamp":
		return typeOf("TIMESTAMP_NS")
	case "dictionary":
		_, value, ok := strings.Cut(inner, ",")
		if !ok {
			return nil
		}
		return arrowType(value)
	case "decimal128", "decimal256", "decimal":
		precision, scale, _ := strings.Cut(inner, ",")
		p, errP := strconv.Atoi(strings.TrimSpace(precision))
		s, errS := strconv.Atoi(strings.TrimSpace(scale))
		if errP != nil || errS != nil || p < 1 || p > 38 || s < 0 || s > p {
			return nil
		}
		t := typeOf("DECIMAL")
		t.set("type_info", objectOf(
			member{"type", quote("DECIMAL_TYPE_INFO")}, member{"alias", quote("")}, member{"extension_info", literal("null")},
			member{"width", literal(strconv.Itoa(p))}, member{"scale", literal(strconv.Itoa(s))},
		))
		return t
	}
	if id := arrowTypes[base]; id != "" && inner == "" {
		return typeOf(id)
	}
	return nil
}
