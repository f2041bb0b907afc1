package dialect

import (
	"slices"
	"strings"
)

// outputName returns the name that DataFusion gives a column without an alias, "" for a plain column, which keeps its own, and for
// forms whose text we do not reproduce, which the engine names. Columns inside aggregates and operators carry their table's
// name when the FROM clause has exactly one: sum(log_stats.count).
func (f *frame) outputName(n *node) string {
	if c := n.class(); c == "COLUMN_REF" || c == "STAR" {
		return ""
	}
	if n.isFunction("unnest") && len(n.list("children")) == 1 && n.list("children")[0].class() == "STAR" {
		return ""
	}
	p := namer{frame: f}
	p.write(n, false)
	if p.odd || p.b.Len() == 0 || p.b.Len() > maxNameBytes {
		if !rewritten(n) {
			return ""
		}
		p = namer{frame: f, lenient: true} // the engine's text would show our own functions
		p.write(n, false)
		if p.odd || p.b.Len() > maxNameBytes {
			return ""
		}
	}
	return p.b.String()
}

// maxNameBytes bounds a made name.
const maxNameBytes = 4096

type namer struct {
	b       strings.Builder
	frame   *frame
	lenient bool // name also what is better left to the engine
	odd     bool // a form that has no name here
}

// write appends the name of n. With bare, columns are written as in the statement: so they are inside scalar functions.
func (p *namer) write(n *node, bare bool) {
	if p.b.Len() > maxNameBytes {
		p.odd = true
		return
	}
	switch n.class() {
	case "COLUMN_REF":
		p.column(n, bare)
	case "CONSTANT":
		p.constant(n)
	case "FUNCTION", "WINDOW":
		p.function(n, bare)
	case "CAST":
		if v, ok := truth(n); ok {
			p.b.WriteString("Boolean(" + v + ")")
			return
		}
		if bare && !p.lenient {
			p.odd = true // an argument: the engine shows the types
			return
		}
		if _, literal := constantText(n.get("child")); literal && !p.lenient {
			p.odd = true
			return
		}
		p.write(n.get("child"), bare)
	case "COMPARISON":
		p.binary(n.get("left"), comparisons[n.str("type")], n.get("right"), bare)
	case "CONJUNCTION":
		op := "AND"
		if n.str("type") == "CONJUNCTION_OR" {
			op = "OR"
		}
		for i, c := range n.list("children") {
			if i > 0 {
				p.b.WriteString(" " + op + " ")
			}
			p.write(c, bare)
		}
	case "OPERATOR":
		p.operator(n, bare)
	default:
		p.odd = true
	}
}

// truth returns the text of TRUE and FALSE, which the parser writes as casts.
func truth(n *node) (string, bool) {
	if n.get("cast_type").str("id") != "BOOLEAN" {
		return "", false
	}
	switch s, _ := constantText(n.get("child")); s {
	case "t":
		return "true", true
	case "f":
		return "false", true
	}
	return "", false
}

var comparisons = map[string]string{
	"COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "!=", "COMPARE_LESSTHAN": "<", "COMPARE_GREATERTHAN": ">",
	"COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHANOREQUALTO": ">=",
	"COMPARE_DISTINCT_FROM": "IS DISTINCT FROM", "COMPARE_NOT_DISTINCT_FROM": "IS NOT DISTINCT FROM",
}

func (p *namer) binary(left *node, op string, right *node, bare bool) {
	if op == "" {
		p.odd = true
		return
	}
	p.write(left, bare)
	p.b.WriteString(" " + op + " ")
	p.write(right, bare)
}

func (p *namer) operator(n *node, bare bool) {
	children := n.list("children")
	switch kind := n.str("type"); {
	case kind == "OPERATOR_NOT" && len(children) == 1:
		p.b.WriteString("NOT ")
		p.write(children[0], bare)
	case kind == "OPERATOR_IS_NULL" && len(children) == 1:
		p.write(children[0], bare)
		p.b.WriteString(" IS NULL")
	case kind == "OPERATOR_IS_NOT_NULL" && len(children) == 1:
		p.write(children[0], bare)
		p.b.WriteString(" IS NOT NULL")
	case kind == "OPERATOR_COALESCE":
		p.list("coalesce", children, false, bare)
	default:
		p.odd = true
	}
}

// column writes a name as in the statement, with its table where that is the only one.
func (p *namer) column(n *node, bare bool) {
	names := n.list("column_names")
	if len(names) == 1 && !bare && p.frame != nil && len(p.frame.relations) == 1 && p.frame.relations[0].name != "" {
		p.b.WriteString(p.frame.relations[0].name)
		p.b.WriteByte('.')
	}
	for i, part := range names {
		if i > 0 {
			p.b.WriteByte('.')
		}
		s, _ := part.text()
		p.b.WriteString(s)
	}
}

func (p *namer) constant(n *node) {
	value := n.get("value")
	raw := ""
	if v := value.get("value"); v != nil {
		raw = v.raw
	}
	switch id := value.get("type").str("id"); {
	case value.isTrue("is_null"):
		p.b.WriteString("NULL")
	case id == "VARCHAR":
		s, _ := value.get("value").text()
		p.b.WriteString(`Utf8("` + s + `")`)
	case isIntegerConstant(n):
		p.b.WriteString("Int64(" + raw + ")")
	case id == "DOUBLE":
		p.b.WriteString("Float64(" + raw + ")")
	case id == "BOOLEAN":
		p.b.WriteString("Boolean(" + raw + ")")
	case id == "DECIMAL" && p.lenient:
		p.b.WriteString("Float64(" + decimalText(value) + ")")
	default:
		p.odd = true
	}
}

// decimalText prints a decimal literal, which the tree holds as an integer and a scale.
func decimalText(value *node) string {
	digits := value.get("value").raw
	scale := 0
	if s := value.get("type").get("type_info").get("scale"); s != nil {
		for _, c := range s.raw {
			scale = scale*10 + int(c-'0')
		}
	}
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	if scale == 0 || scale > 40 || !isDigit(digits[0]) {
		return sign + digits
	}
	for len(digits) <= scale {
		digits = "0" + digits
	}
	text := digits[:len(digits)-scale] + "." + strings.TrimRight(digits[len(digits)-scale:], "0")
	return sign + strings.TrimSuffix(text, ".")
}

// infix are the operators whose names stand between their arguments.
var infix = wordSet(`+ - * / % & | << >> || ^`)

var likes = map[string]string{"~~": "LIKE", "!~~": "NOT LIKE", "~~*": "ILIKE", "!~~*": "NOT ILIKE"}

func (p *namer) function(n *node, bare bool) {
	name, args := lowerASCII(n.str("function_name")), n.list("children")
	if n.class() == "WINDOW" || !n.get("filter").isNull() || len(n.get("order_bys").list("orders")) > 0 {
		p.odd = true // the engine prints frames, filters and orders
		return
	}
	if name == "//" { // what the parser makes of / with integer division
		name = "/"
	}
	switch {
	case name == "count_star":
		p.b.WriteString("count(*)")
	case len(args) == 2 && likes[name] != "":
		p.binary(args[0], likes[name], args[1], bare)
	case len(args) == 2 && infix[name]:
		p.binary(args[0], name, args[1], bare)
	case len(args) == 1 && name == "-":
		p.b.WriteString("(- ")
		p.write(args[0], bare)
		p.b.WriteByte(')')
	case !isWordStart(name[0]), name == "struct_pack", name == "row", name == "list_value":
		p.odd = true
	default:
		p.list(name, args, n.isTrue("distinct"), bare || !isAggregate(name))
	}
}

func (p *namer) list(name string, args []*node, distinct, bare bool) {
	p.b.WriteString(name)
	p.b.WriteByte('(')
	if distinct {
		p.b.WriteString("DISTINCT ")
	}
	for i, a := range args {
		if i > 0 {
			p.b.WriteByte(',')
		}
		p.write(a, bare)
	}
	p.b.WriteByte(')')
}

// isAggregate says whether columns inside the function are written with their table.
func isAggregate(name string) bool { return aggregateNames[name] }

var aggregateNames = wordSet(`sum count avg mean min max median stddev stddev_pop stddev_samp var var_pop var_samp var_sample
	var_population first_value last_value array_agg string_agg approx_distinct approx_median approx_percentile_cont corr
	covar covar_pop covar_samp bit_and bit_or bit_xor bool_and bool_or any_value`)

// rewritten says whether the patched form of n shows functions of our own.
func rewritten(n *node) bool {
	switch n.class() {
	case "CAST":
		switch n.get("cast_type").str("id") {
		case "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "VARCHAR":
			return true
		}
	case "FUNCTION":
		switch name := n.str("function_name"); name {
		case "arrow_cast", "arrow_typeof", "approx_percentile_cont", "approx_median", "approx_distinct", "first_value", "last_value", "make_histogram":
			return true
		case "+", "-":
			if slices.ContainsFunc(n.list("children"), isInterval) {
				return true
			}
		}
	}
	for _, m := range n.members {
		if m.value.kind != scalar && rewritten(m.value) {
			return true
		}
	}
	return slices.ContainsFunc(n.items, rewritten)
}
