package dialect

import (
	"slices"
	"strings"
)

// expression guards an expression, walks what is below it, and patches it.
func (r *rewriter) expression(n *node, e env) (*node, error) {
	class := n.class()
	done := []string{"class", "type"}
	switch class {
	case "CONSTANT":
		return r.patchConstant(n), nil
	case "COLUMN_REF":
		return r.columnRef(n, e)
	case "FUNCTION", "WINDOW":
		if err := r.function(n); err != nil {
			return nil, err
		}
	case "CAST":
		if err := r.checkType(n, n.get("cast_type")); err != nil {
			return nil, err
		}
		done = append(done, "cast_type")
	case "SUBQUERY":
		e.scalar = true
		if _, err := r.query(n.get("subquery").get("node"), e, false); err != nil {
			return nil, err
		}
		done = append(done, "subquery")
		if child := n.get("child"); child != nil && child.isFunction("row") { // (a, b) IN (SELECT …) is no struct
			if err := r.others(child, e, "class", "type"); err != nil {
				return nil, err
			}
			done = append(done, "child")
		}
	case "LAMBDA":
		// The parameters are names: with two of them the parser writes row(a, b), which is no call.
		if !isParameterList(n.get("lhs")) {
			out, err := r.walk(n.get("lhs"), e) // an arrow between two values of JSON
			if err != nil {
				return nil, err
			}
			n.set("lhs", out)
		}
		done = append(done, "lhs")
	case "STAR":
		quoteRelation(n)
	case "CASE", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "COLLATE", "POSITIONAL_REFERENCE":
	case "PARAMETER":
		return nil, r.fault(n, planError("parameters such as $1 and ? are not supported").withHint("write the value into the statement"))
	default:
		return nil, r.fault(n, planError("expressions of the form %s are not supported", class))
	}
	arrow := r.arrowTypeof(n, e.frame)
	if err := r.others(n, e, done...); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(arrow, "Dictionary"):
		return call(n, "mm_arrow_typeof", n.list("children")[0], textConstant(n, arrow)), nil
	case arrow != "":
		return textConstant(n, arrow), nil
	}
	return r.patch(n)
}

// quoteRelation quotes the name in t.*: the printer writes that one name as it is, so that "x FROM y --".* would become
// other SQL than was checked.
func quoteRelation(n *node) {
	if name := n.str("relation_name"); name != "" {
		n.set("relation_name", quote(`"`+strings.ReplaceAll(name, `"`, `""`)+`"`))
	}
}

// isParameterList says whether n is the left side of a lambda: a name, or several as row(a, b).
func isParameterList(n *node) bool {
	if n.class() == "COLUMN_REF" {
		return len(n.list("column_names")) == 1
	}
	return n.isFunction("row") && !slices.ContainsFunc(n.list("children"), func(c *node) bool { return c.class() != "COLUMN_REF" })
}

// function refuses every function that is not on the list.
func (r *rewriter) function(n *node) error {
	name := lowerASCII(n.str("function_name"))
	schema := n.str("schema")
	if n.str("catalog") != "" || schema != "" && schema != "main" {
		full := strings.TrimPrefix(n.str("catalog")+"."+schema+"."+name, ".")
		return r.fault(n, planError("Invalid function '%s': function '%s' is not available", Clip(full, 128), Clip(full, 128)))
	}
	switch {
	case name == "timezone" && len(n.list("children")) == 2:
		if zone, _ := constantText(n.list("children")[0]); !isUTC(zone) {
			return r.fault(n, planError("AT TIME ZONE is not supported").withHint("timestamps are UTC: use date_bin or INTERVAL arithmetic"))
		}
	case r.opts.internal && (name == "error" || strings.HasPrefix(name, "mm_")):
		return nil
	case refusedPrefix(name), !allowedFunctions()[name] && !adminFunctions()[name], adminFunctions()[name] && !r.opts.Admin:
		return r.fault(n, r.noFunction(name))
	}
	if serviceCalls()[name] && !slices.Contains(r.st.Calls, name) {
		r.st.Calls = append(r.st.Calls, name)
	}
	return nil
}

func isUTC(zone string) bool {
	switch lowerASCII(zone) {
	case "utc", "+00:00", "z", "etc/utc", "gmt":
		return true
	}
	return false
}

func refusedPrefix(name string) bool {
	name = lowerASCII(name)
	return slices.ContainsFunc(refusedPrefixes[:], func(p string) bool { return strings.HasPrefix(name, p) })
}

// noFunction says that a function does not exist, and which are alike.
func (r *rewriter) noFunction(name string) *Error {
	e := planError("Invalid function '%s': function '%s' is not available", Clip(name, 128), Clip(name, 128))
	if _, ok := signatureOf(name); ok || valueTableFunctions[name] {
		return e.withHint("%s is a table function: SELECT … FROM %s(…)", name, name)
	}
	if refused()[name] {
		return e
	}
	candidates := make([]string, 0, len(allowedFunctions()))
	for f := range allowedFunctions() {
		if isWordStart(f[0]) {
			candidates = append(candidates, f)
		}
	}
	if near := closest(name, candidates); len(near) > 0 {
		e.Message += ".\nDid you mean '" + near[0] + "'?"
	}
	return e
}

// columnRef refuses the words that the engine takes for functions, and makes others of them calls.
func (r *rewriter) columnRef(n *node, e env) (*node, error) {
	names := n.list("column_names")
	if len(names) == 0 {
		return nil, r.fault(n, planError("column without a name"))
	}
	first, _ := names[0].text()
	if len(names) == 1 {
		switch lower := lowerASCII(first); {
		case lower == "current_timestamp" || lower == "localtimestamp":
			return call(n, "now"), nil
		case valueNames()[lower], lower == "user" && !e.frame.mayHave("user"):
			return nil, r.fault(n, r.noFunction(lower))
		}
		return n, nil
	}
	// datafusion.public.t.c and public.t.c: tables are reached by their bare names.
	second, _ := names[1].text()
	switch {
	case first == "datafusion" && second == "public" && len(names) >= 4:
		n.set("column_names", listOf(names[2:]...))
	case first == "public" && len(names) >= 3:
		if t, ok := r.names.Table(second); ok && (usable(t) || t.Fleet != nil) {
			n.set("column_names", listOf(names[1:]...))
		}
	}
	return n, nil
}

// checkType refuses types that only the catalog of the engine could explain, and spells those that it calls otherwise.
func (r *rewriter) checkType(n, t *node) error {
	info := t.get("type_info")
	if t.str("id") == "UNBOUND" {
		name := lowerASCII(info.str("name"))
		id, ok := allowedTypes()[name]
		if name == "enum" {
			ok = true
		}
		if !ok || info.str("catalog") != "" || info.str("schema") != "" {
			return r.fault(n, planError("unknown type '%s'", Clip(info.str("name"), 64)))
		}
		for _, modifier := range info.list("user_type_modifiers") {
			if modifier.class() != "" && modifier.class() != "CONSTANT" {
				return r.fault(n, planError("the parameters of a type must be constants"))
			}
		}
		if id != "" {
			*t = *typeOf(id)
		}
		return nil
	}
	if !castTypes()[t.str("id")] {
		return r.fault(n, planError("type '%s' is not supported", Clip(t.str("id"), 64)))
	}
	return r.checkInnerTypes(n, info)
}

// checkInnerTypes checks the types inside lists, structs and maps.
func (r *rewriter) checkInnerTypes(n, info *node) error {
	if info == nil {
		return nil
	}
	if info.class() != "" {
		return r.fault(n, planError("the parameters of a type must be constants"))
	}
	for _, item := range info.items {
		if err := r.checkInnerTypes(n, item); err != nil {
			return err
		}
	}
	for _, m := range info.members {
		check := r.checkInnerTypes
		if m.value.get("id") != nil {
			check = r.checkType
		}
		if err := check(n, m.value); err != nil {
			return err
		}
	}
	return nil
}

// constantText returns the text of a text literal.
func constantText(n *node) (string, bool) {
	value := n.get("value")
	if n.class() != "CONSTANT" || value.get("type").str("id") != "VARCHAR" || value.isTrue("is_null") {
		return "", false
	}
	return value.get("value").text()
}

// constantInteger returns the value of an integer literal.
func constantInteger(n *node) (string, bool) {
	if !isIntegerConstant(n) {
		return "", false
	}
	return n.get("value").get("value").raw, true
}

// isIntegerConstant says whether n is an integer literal that a client takes for Int64.
func isIntegerConstant(n *node) bool {
	if n.class() != "CONSTANT" || n.get("value").isTrue("is_null") {
		return false
	}
	switch n.get("value").get("type").str("id") {
	case "INTEGER", "BIGINT", "SMALLINT", "TINYINT":
		return true
	}
	return false
}
