package dialect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// What is known of result columns without asking the engine: it decides how the service labels them on the wire.

// column describes a select item before it is patched.
func (f *frame) resolve(n *node) (Column, bool) {
	names := n.list("column_names")
	if n.class() != "COLUMN_REF" || len(names) == 0 || len(names) > 2 {
		return Column{}, false
	}
	name, _ := names[len(names)-1].text()
	table := ""
	if len(names) == 2 {
		table, _ = names[0].text()
	}
	for ; f != nil; f = f.parent {
		for _, r := range f.relations {
			if r.columns == nil && (table == "" || table == r.name) {
				return Column{}, false
			}
			if table != "" && table != r.name {
				continue
			}
			for _, c := range r.columns {
				if c.Name == name {
					c.NotNull = c.NotNull && !f.outer
					return c, true
				}
			}
		}
	}
	return Column{}, false
}

// star expands * and t.*; false when the columns are not known.
func (f *frame) star(n *node) ([]Column, bool) {
	for _, list := range [...]string{"exclude_list", "replace_list", "qualified_exclude_list", "rename_list"} {
		if len(n.list(list)) > 0 {
			return nil, false
		}
	}
	if n.isTrue("columns") || !n.get("expr").isNull() || f.merged {
		return nil, false
	}
	table, found := n.str("relation_name"), false
	var columns []Column
	for _, r := range f.relations {
		if table != "" && table != r.name {
			continue
		}
		if r.columns == nil {
			return nil, false
		}
		found = true
		for _, c := range r.columns {
			c.NotNull = c.NotNull && !f.outer
			columns = append(columns, c)
		}
	}
	return columns, found
}

// mayHave says whether a column called name can be in reach.
func (f *frame) mayHave(name string) bool {
	for ; f != nil; f = f.parent {
		for _, r := range f.relations {
			if r.columns == nil || slices.ContainsFunc(r.columns, func(c Column) bool { return strings.EqualFold(c.Name, name) }) {
				return true
			}
		}
	}
	return false
}

// column describes a select item as the client wrote it.
func (r *rewriter) column(n *node, f *frame) Column {
	c := f.typeOf(n, 0)
	c.Name = n.str("alias")
	if names := n.list("column_names"); c.Name == "" && n.class() == "COLUMN_REF" && len(names) > 0 {
		c.Name, _ = names[len(names)-1].text()
	}
	return c
}

// maxInference bounds the depth to which types are followed.
const maxInference = 16

// typeOf infers the type of an expression from the tables it reads; a zero Type is not known.
func (f *frame) typeOf(n *node, depth int) Column {
	if depth > maxInference {
		return Column{}
	}
	switch n.class() {
	case "COLUMN_REF":
		c, _ := f.resolve(n)
		return c
	case "CONSTANT":
		if isIntegerConstant(n) {
			return Column{NotNull: true}
		}
	case "CAST":
		return Column{Decimal: n.get("cast_type").str("id") == "DECIMAL"}
	case "FUNCTION":
		return f.typeOfCall(n, depth)
	}
	return Column{}
}

func (f *frame) typeOfCall(n *node, depth int) Column {
	args := n.list("children")
	switch name := lowerASCII(n.str("function_name")); name {
	case "count", "count_star":
		return Column{NotNull: true}
	case "property_get", "jsonb_format_json", "jsonb_as_string":
		return Column{Type: tables.DStr}
	case "now", "date_bin", "date_trunc", "to_timestamp", "to_timestamp_nanos", "to_timestamp_micros", "to_timestamp_millis", "to_timestamp_seconds":
		return Column{Type: tables.TS}
	case "min", "max", "first_value", "last_value", "any_value":
		if len(args) == 1 {
			if c := f.typeOf(args[0], depth+1); c.Type == tables.TS {
				return Column{Type: tables.TS}
			}
		}
	case "-", "+":
		if len(args) != 2 {
			return Column{}
		}
		left, right := f.typeOf(args[0], depth+1), f.typeOf(args[1], depth+1)
		switch {
		case isInterval(args[0]) || isInterval(args[1]):
			if left.Type == tables.TS || right.Type == tables.TS {
				return Column{Type: tables.TS}
			}
		case name == "-" && isTimestamp(args[0], left) && isTimestamp(args[1], right):
			return Column{Duration: true}
		case name == "-" && left.Type == 0 && right.Type == 0 && args[0].class() != "CONSTANT" && args[1].class() != "CONSTANT":
			return Column{Minus: true}
		case name == "-" && (isTimestamp(args[0], left) || isTimestamp(args[1], right)):
			return Column{Minus: true}
		}
	}
	return Column{}
}

func isTimestamp(n *node, c Column) bool {
	return c.Type == tables.TS || n.class() == "CAST" && n.get("cast_type").str("id") == "TIMESTAMP_NS"
}

// arrowTypeof returns the name of the dictionary type that arrow_typeof(x) must tell: the engine knows text only.
func (r *rewriter) arrowTypeof(n *node, f *frame) string {
	args := n.list("children")
	if f == nil || !n.isFunction("arrow_typeof") || len(args) != 1 {
		return ""
	}
	c := f.typeOf(args[0], 0)
	switch c.Type {
	case tables.DStr, tables.DStr16, tables.ListStr, tables.FSB16, tables.FSB8:
		column := tables.Column{Type: c.Type}
		return column.ArrowTypeName()
	}
	return ""
}

// ErrNoDifference says that a column is not a difference of two values.
var ErrNoDifference = errors.New("column is not a difference")

// Durations returns the statement with the given columns, all of which must have Minus, as int64 nanoseconds: for
// differences that the engine found to be of type INTERVAL, which holds microseconds only.
func (st *Statement) Durations(ctx context.Context, p Parser, columns []int) (*Statement, error) {
	tree := st.tree.clone()
	list := selectItems(tree)
	out := *st
	out.tree = tree
	out.Columns = append([]Column(nil), st.Columns...)
	for _, i := range columns {
		if i < 0 || i >= len(out.Columns) || !out.Columns[i].Minus {
			return nil, fmt.Errorf("column %d: %w", i, ErrNoDifference)
		}
		item := out.Columns[i].item
		diff, ok := difference(list[item])
		if !ok {
			return nil, fmt.Errorf("column %d: %w", i, ErrNoDifference)
		}
		list[item] = diff
		out.Columns[i].Minus, out.Columns[i].Duration = false, true
	}
	sql, err := printTree(ctx, p, tree)
	if err != nil {
		return nil, err
	}
	out.SQL = sql
	return &out, nil
}

// difference turns a - b into nanoseconds as int64, keeping its name.
func difference(n *node) (*node, bool) {
	args := n.list("children")
	if !n.isFunction("-") || len(args) != 2 {
		return nil, false
	}
	out := call(n, "mm_diff_i64", args[0], args[1])
	out.set("alias", n.get("alias"))
	return out, true
}

// selectItems returns the select list that names the columns of a query.
func selectItems(n *node) []*node {
	for n.str("type") == "SET_OPERATION_NODE" {
		n = n.get("left")
	}
	return n.list("select_list")
}
