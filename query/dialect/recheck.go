package dialect

import (
	"fmt"
	"slices"
	"strings"
)

// The guard judges a tree, and the engine gets a text. Between them stands the engine's printer, and a name that it forgot to
// quote could turn into SQL that nobody has judged. So what is printed is parsed again and guarded once more, against the
// list of what the first look found.

// print returns the SQL text of a query node, after the guard has seen it as well.
func (r *rewriter) print(query *node) (string, error) {
	sql, err := printTree(r.ctx, r.parser, query)
	if err != nil || r.opts.internal {
		return sql, err
	}
	again := &rewriter{
		ctx: r.ctx, parser: r.parser, names: r.names, text: sql, st: &Statement{text: sql}, seen: map[string]bool{},
		opts: Options{Admin: r.opts.Admin, internal: true}, first: r.st,
	}
	tree, err := again.parse(sql)
	if err == nil {
		err = again.statement(tree)
	}
	switch _, refused := asError(err); {
	case err != nil && !refused:
		return "", fmt.Errorf("check what was printed: %w", err)
	case refused || !again.within(r.st):
		return "", planError("a name in the statement cannot be handed to the engine").
			withHint("use letters, digits and '_' in quoted names")
	}
	return sql, nil
}

// within says whether the second look found nothing beside what the first one did.
func (r *rewriter) within(first *Statement) bool {
	for _, t := range r.st.Tables {
		if !slices.ContainsFunc(first.Tables, func(f TableRef) bool { return f.Name == t.Name }) {
			return false
		}
	}
	for _, c := range r.st.Calls {
		if !slices.Contains(first.Calls, c) {
			return false
		}
	}
	return len(r.st.Instances)+len(r.st.Fleets)+len(r.st.Functions)+len(r.st.Internals) == 0 // they stand there as views
}

// isView says whether name is a view of the statement: in the second look those of the first, in tests any.
func (r *rewriter) isView(name string) bool {
	if r.first == nil {
		return strings.HasPrefix(name, "vi/") || strings.HasPrefix(name, "fleet/") || strings.HasPrefix(name, "fn/") || strings.HasPrefix(name, "mm/")
	}
	return slices.ContainsFunc(r.first.Instances, func(v InstanceRef) bool { return v.ViewName == name }) ||
		slices.ContainsFunc(r.first.Fleets, func(v FleetRef) bool { return v.ViewName == name }) || len(r.first.Fleets) > 0 && name == OwnersView ||
		slices.ContainsFunc(r.first.Functions, func(f FunctionRef) bool { return f.ViewName == name }) ||
		slices.ContainsFunc(r.first.Internals, func(i Internal) bool { return i.ViewName() == name })
}
