package dialect

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// argumentKind says how an argument of a table function is checked.
type argumentKind uint8

const (
	textArgument   argumentKind = iota
	processID                   // the UUID of a process
	blockID                     // the UUID of a block
	traceID                     // 32 hexadecimal digits
	processIDs                  // UUIDs of processes, separated by commas
	spanTypes                   // thread, async or both
	threadOnly                  // thread
	timeArgument                // RFC 3339 with an offset, or an expression of a timestamp
	countArgument               // an integer
	marginArgument              // an integer that is not negative, 0 where it is left out
)

// argument describes one argument: its name for f(name => value), and what a message says about it.
type argument struct {
	name string
	kind argumentKind
	what string // as in "must be a string (the process ID)"
}

// signature is a table function with input or output: it is executed by the service, and SQL reads its result.
type signature struct {
	admin bool
	args  []argument
}

var (
	beginArgument = argument{"begin", timeArgument, "a timestamp (start time)"}
	endArgument   = argument{"end", timeArgument, "a timestamp (end time)"}
	calls         = []argument{
		{"process_ids", processIDs, "a string (the process IDs, separated by commas)"},
		{"span_types", threadOnly, "a string: 'thread'"},
	}
	steps = []argument{
		{"view_name", textArgument, "a string (the view name)"},
		beginArgument,
		endArgument,
		{"delta_seconds", countArgument, "an integer (the step in seconds)"},
	}
)

// signatures lists the table functions that the service executes.
var signatures = map[string]signature{
	"list_partitions":    {},
	"list_view_sets":     {},
	"list_query_denials": {admin: true},
	"retire_partitions": {admin: true, args: []argument{
		{"view_set_name", textArgument, "a string (the view set name)"},
		{"view_instance_id", textArgument, "a string (the view instance ID)"},
		beginArgument, endArgument,
	}},
	"materialize_partitions": {admin: true, args: steps},
	"regenerate_partitions":  {admin: true, args: steps},
	"deny_queries": {admin: true, args: []argument{
		{"match_expr", textArgument, "a string (the expression that matches queries)"},
		{"reason", textArgument, "a string (the reason)"},
	}},
	"perfetto_trace_chunks": {args: []argument{
		{"process_id", processID, "a string (the process ID)"},
		{"span_types", spanTypes, "a string: 'thread', 'async', or 'both'"},
		beginArgument, endArgument,
	}},
	"perfetto_trace": {args: []argument{
		{"process_ids", processIDs, "a string (the process IDs, separated by commas)"},
		{"contents", textArgument, "a string: threads, async, logs, measures, net, images, or all"},
		beginArgument, endArgument,
	}},
	"process_spans": {args: []argument{
		{"process_id", processID, "a string (the process ID)"},
		{"span_types", spanTypes, "a string: 'thread', 'async', or 'both'"},
	}},
	"span_streams": {},
	"instance_cost": {args: []argument{
		{"view_set_name", textArgument, "a string (the view set name)"},
		{"view_instance_id", textArgument, "a string (the view instance ID)"},
	}},
	"spans_around": {args: []argument{
		{"process_id", processID, "a string (the process ID)"},
		{"time", timeArgument, "a timestamp (the instant)"},
		{"margin", marginArgument, "an integer (nanoseconds around it)"},
	}},
	"call_tree":   {args: calls},
	"call_names":  {args: calls},
	"trace_spans": {args: []argument{{"trace_id", traceID, "a string (the trace ID)"}}},
	"parse_block": {args: []argument{{"block_id", blockID, "a string (the block ID)"}}},
}

func signatureOf(name string) (signature, bool) {
	s, ok := signatures[name]
	return s, ok
}

// valueTableFunctions expand one value into rows.
var valueTableFunctions = wordSet(`jsonb_each jsonb_array_elements expand_histogram`)

// engineTableFunctions are the engine's own that a statement may use.
var engineTableFunctions = wordSet(`unnest range generate_series json_each json_tree`)

// tableFunction checks a call in a FROM clause, and puts the relation there that will hold its result.
func (r *rewriter) tableFunction(n *node, e env, f *frame) (*node, error) {
	fn := n.get("function")
	if fn.class() != "FUNCTION" {
		return nil, r.fault(n, planError("a FROM clause takes table functions only"))
	}
	name := lowerASCII(fn.str("function_name"))
	schema := fn.str("schema")
	if fn.str("catalog") != "" || schema != "" && schema != "main" {
		return nil, r.fault(fn, r.noTableFunction(strings.TrimPrefix(schema+"."+name, ".")))
	}
	alias := n.str("alias")
	if alias == "" {
		alias = name
	}
	switch {
	case name == "view_instance":
		return r.viewInstance(n, fn, alias, e, f)
	case valueTableFunctions[name]:
		return r.expand(n, fn, name, alias, e, f)
	case engineTableFunctions[name]:
		if err := r.others(fn, e, "class", "type"); err != nil {
			return nil, err
		}
		var columns []Column
		if name == "range" || name == "generate_series" {
			if len(n.list("column_name_alias")) == 0 {
				n.set("alias", quote(alias)) // a list of columns needs a name before it
				n.set("column_name_alias", listOf(quote("value")))
			}
			columns = []Column{{Name: "value"}}
		}
		f.enter(n, alias, columns, r.engineShape(fn, f))
		return n, nil
	}
	sig, ok := signatureOf(name)
	if !ok || sig.admin && !r.opts.Admin {
		return nil, r.fault(fn, r.noTableFunction(name))
	}
	values, err := r.arguments(fn, name, sig.args, e)
	if err != nil {
		return nil, err
	}
	view := r.functionView(name, values)
	var columns []Column
	if t, ok := tables.Function(name); ok {
		columns = tableColumns(t)
	}
	out := baseTableNode(n, view, alias)
	f.enter(out, alias, columns, plain(maxTableColumns))
	return out, nil
}

// functionView returns the view of a call; equal calls share one.
func (r *rewriter) functionView(name string, values []any) string {
	key := fmt.Sprintf("%s(%q)", name, values)
	for _, f := range r.st.Functions {
		if fmt.Sprintf("%s(%q)", f.Name, f.Args) == key {
			return f.ViewName
		}
	}
	view := "fn/" + strconv.Itoa(len(r.st.Functions)+1)
	r.st.Functions = append(r.st.Functions, FunctionRef{Name: name, Args: values, ViewName: view})
	return view
}

// baseTableNode makes a table reference in the place of n.
func baseTableNode(n *node, name, alias string) *node {
	sample := n.get("sample")
	if sample == nil {
		sample = literal("null")
	}
	names := n.get("column_name_alias")
	if names == nil {
		names = listOf()
	}
	return objectOf(
		member{"type", quote("BASE_TABLE")}, member{"alias", quote(alias)}, member{"sample", sample},
		member{"query_location", locationOf(n)}, member{"schema_name", quote("")}, member{"table_name", quote(name)},
		member{"column_name_alias", names}, member{"catalog_name", quote("")}, member{"at_clause", literal("null")},
	)
}

// noTableFunction says that a table function does not exist, and what to use.
func (r *rewriter) noTableFunction(name string) *Error {
	e := planError("table function '%s' not found", Clip(name, 128))
	if instanceOf(name) != tables.None {
		return e.withHint("use view_instance('%s', <%s id>)", name, instanceOf(name))
	}
	if _, ok := r.names.Table(name); ok {
		return e.withHint("%s is a table: SELECT … FROM %s", name, name)
	}
	candidates := []string{"view_instance"}
	for f, s := range signatures {
		if !s.admin || r.opts.Admin {
			candidates = append(candidates, f)
		}
	}
	for f := range valueTableFunctions {
		candidates = append(candidates, f)
	}
	if near := closest(name, candidates); len(near) > 0 && !refused()[name] {
		return e.withHint("did you mean %s?", strings.Join(near, " or "))
	}
	return e
}

// viewInstance checks view_instance(set, id).
func (r *rewriter) viewInstance(n, fn *node, alias string, e env, f *frame) (*node, error) {
	values, err := r.arguments(fn, "view_instance", []argument{
		{"view_set_name", textArgument, "a string (the view set name)"},
		{"view_instance_id", textArgument, "a string (the view instance ID)"},
	}, e)
	if err != nil {
		return nil, err
	}
	set, id := values[0].(string), values[1].(string)
	t, ok := r.names.Table(set)
	if !ok || t.Instance == tables.None {
		e := planError("error making view: view set %s not found", Clip(set, 64))
		if ok {
			return nil, r.fault(fn, e.withHint("%s is a plain table: SELECT … FROM %s", set, set))
		}
		var sets []string
		for _, t := range tables.All() {
			if t.Instance != tables.None {
				sets = append(sets, t.Name)
			}
		}
		return nil, r.fault(fn, e.withHint("view sets with instances are %s", strings.Join(sets, ", ")))
	}
	if id != "global" {
		parsed, err := telemetry.ParseID(id)
		if err != nil {
			return nil, r.fault(fn, planError("error making view %s: Uuid::parse_str: view_instance: the second argument must be a UUID or 'global', given '%s'", set, Clip(id, 64)))
		}
		id = parsed.String()
	} else if !t.Global {
		why := set + " does not support global view access"
		if t.Instance == tables.Stream {
			why = "the global view is not implemented for thread spans"
		}
		return nil, r.fault(fn, planError("error making view: %s", why).
			withHint("give the id of a %s: view_instance('%s', <%s id>)", t.Instance, set, t.Instance))
	}
	view := "vi/" + set + "/" + id
	if !r.seen[view] {
		r.seen[view] = true
		r.st.Instances = append(r.st.Instances, InstanceRef{Set: set, ID: id, ViewName: view, Table: t})
	}
	out := baseTableNode(n, view, alias)
	f.enter(out, alias, tableColumns(t), plain(len(t.Columns)))
	return out, nil
}

// ordinals begin the messages about arguments.
var ordinals = [...]string{"First", "Second", "Third", "Fourth"}

// arguments evaluates the arguments of a table function and checks them against its signature. Further arguments are
// ignored, as upstream does.
func (r *rewriter) arguments(fn *node, name string, want []argument, e env) ([]any, error) {
	given := make([]*node, len(want))
	for i, arg := range fn.list("children") {
		at := i
		if alias := arg.str("alias"); alias != "" {
			for k := range want {
				if want[k].name == lowerASCII(alias) {
					at = k
				}
			}
		}
		if at < len(given) {
			given[at] = arg
		}
	}
	values := make([]any, len(want))
	var bad error
	for i, w := range want {
		v, err := r.argument(given[i], name, i, w, e)
		if err != nil {
			if _, mine := asError(err); !mine {
				return nil, err
			}
			// A malformed id is reported only when nothing else is wrong: the other messages say more.
			if w.kind == processID && given[i] != nil && v != nil {
				bad = err
				continue
			}
			return nil, err
		}
		values[i] = v
	}
	return values, bad
}

// argument evaluates one argument. For a malformed id it returns the text and the error.
func (r *rewriter) argument(n *node, name string, i int, w argument, e env) (any, error) {
	wrong := func(at *node, detail string) error {
		return r.fault(at, planError("%s argument to %s must be %s%s", ordinals[i], name, w.what, detail))
	}
	if n == nil && w.kind == marginArgument {
		return int64(0), nil
	}
	if n == nil {
		return nil, planError("%s argument to %s must be %s, and is missing", ordinals[i], name, w.what)
	}
	if why := notConstant(n); why != "" {
		return nil, wrong(n, ", "+why)
	}
	v, err := r.fold(n, w.kind, e)
	if err != nil {
		return nil, err
	}
	switch w.kind {
	case timeArgument:
		if t, ok := v.(int64); ok {
			return t, nil
		}
		if s, ok := v.(string); ok {
			if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
				return telemetry.Nanoseconds(t), nil
			}
			return nil, wrong(n, fmt.Sprintf(" in RFC 3339 form with an offset, given '%s'", Clip(s, 64)))
		}
		return nil, wrong(n, "")
	case marginArgument:
		if c, ok := v.(int64); ok && c >= 0 {
			return c, nil
		}
		return nil, wrong(n, ", 0 or more")
	case countArgument:
		if c, ok := v.(int64); ok {
			return c, nil
		}
		return nil, wrong(n, "")
	}
	s, ok := v.(string)
	if !ok {
		return nil, wrong(n, "")
	}
	switch w.kind {
	case processID:
		id, err := telemetry.ParseID(s)
		if err != nil {
			return s, r.fault(n, planError("%s argument to %s must be a valid UUID (the process ID), given '%s': Process %s not found", ordinals[i], name, Clip(s, 64), Clip(s, 64)))
		}
		return id.String(), nil
	case traceID:
		digits := strings.ToLower(strings.ReplaceAll(s, "-", ""))
		if id, err := hex.DecodeString(digits); err != nil || len(id) != 16 {
			return nil, r.fault(n, planError("%s: '%s' is not a valid trace id: it has 32 hexadecimal digits", name, Clip(s, 64)))
		}
		return digits, nil
	case processIDs:
		ids, wrongID := parseIDs(s)
		if wrongID != nil {
			return nil, r.fault(n, planError("%s: %s", name, wrongID))
		}
		return ids, nil
	case blockID:
		id, err := telemetry.ParseID(s)
		if err != nil {
			return nil, r.fault(n, planError("%s: '%s' is not a valid block id", name, Clip(s, 64)))
		}
		return id.String(), nil
	case threadOnly:
		if s != "thread" {
			return nil, r.fault(n, planError("%s: span_types must be 'thread', given: '%s'", name, Clip(s, 64)).
				withHint("asynchronous spans need not lie within their parents, so they make no tree of calls"))
		}
	case spanTypes:
		if s != "thread" && s != "async" && s != "both" {
			return nil, r.fault(n, planError("%s: span_types must be 'thread', 'async', or 'both', given: '%s'", name, Clip(s, 64)))
		}
	}
	return s, nil
}

// maxProcessIDs bounds the processes that one call names.
const maxProcessIDs = 64

// parseIDs returns ids that are separated by commas in their usual form, each once.
func parseIDs(s string) (string, error) {
	var list []string
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		id, err := telemetry.ParseID(text)
		if err != nil {
			return "", fmt.Errorf("'%s' is not a valid UUID (process IDs are separated by commas)", Clip(text, 64))
		}
		if slices.Contains(list, id.String()) {
			continue
		}
		if list = append(list, id.String()); len(list) > maxProcessIDs {
			return "", fmt.Errorf("there are more than %d process IDs", maxProcessIDs)
		}
	}
	return strings.Join(list, ","), nil
}

// notConstant says what keeps an expression from being evaluated before the statement runs; "" when nothing does.
func notConstant(n *node) string {
	switch n.class() {
	case "SUBQUERY":
		return "not a subquery"
	case "STAR", "WINDOW", "LAMBDA", "POSITIONAL_REFERENCE":
		return "and a constant"
	case "COLUMN_REF":
		names := n.list("column_names")
		if name, _ := names[len(names)-1].text(); len(names) > 1 || name != "current_timestamp" && name != "localtimestamp" {
			return "not a column: '" + Clip(name, 64) + "'"
		}
	}
	for _, m := range n.members {
		if m.value.kind == scalar {
			continue
		}
		if why := notConstant(m.value); why != "" {
			return why
		}
	}
	for _, item := range n.items {
		if why := notConstant(item); why != "" {
			return why
		}
	}
	return ""
}

// fold evaluates a constant argument: literals here, anything else by Options.Eval, after the guard has seen it.
func (r *rewriter) fold(n *node, kind argumentKind, e env) (any, error) {
	if s, ok := constantText(n); ok {
		return s, nil
	}
	if n.class() == "CONSTANT" && n.get("value").isTrue("is_null") {
		return nil, nil
	}
	if s, ok := constantInteger(n); ok {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, r.fault(n, planError("'%s' is no 64-bit integer", Clip(s, 64)))
		}
		return v, nil
	}
	if n.class() == "CAST" && n.get("cast_type").str("id") == "TIMESTAMP_NS" {
		if s, ok := constantText(n.get("child")); ok {
			t, err := parseTimestamp(s)
			if err != nil {
				return nil, r.fault(n, planError("'%s' is no timestamp", Clip(s, 64)))
			}
			return t, nil
		}
	}
	return r.evaluate(n, kind, e)
}

// evaluate has the engine compute a constant expression.
func (r *rewriter) evaluate(n *node, kind argumentKind, e env) (any, error) {
	if r.opts.Eval == nil {
		return nil, r.fault(n, planError("the argument must be a literal"))
	}
	at := n
	n, err := r.walk(n.clone(), env{ctes: e.ctes, frame: &frame{}})
	if err != nil {
		return nil, err
	}
	n.set("alias", quote(""))
	if kind == timeArgument {
		n = call(n, "epoch_ns", cast(n, typeOf("TIMESTAMP_NS")))
	}
	sql, err := r.print(selectOf(n))
	if err != nil {
		return nil, err
	}
	r.st.Volatile = true
	row, err := r.opts.Eval(r.ctx, sql)
	if err != nil {
		if r.ctx.Err() != nil {
			return nil, fmt.Errorf("evaluate argument: %w", context.Cause(r.ctx))
		}
		return nil, r.fault(at, planError("evaluate the argument: %s", Clip(err.Error(), 400)))
	}
	if len(row) != 1 {
		return nil, fmt.Errorf("evaluate argument: %d values for one expression", len(row))
	}
	switch v := row[0].(type) {
	case int32:
		return int64(v), nil
	case int:
		return int64(v), nil
	case time.Time:
		return telemetry.Nanoseconds(v), nil
	case []byte:
		return string(v), nil
	default:
		return v, nil
	}
}

// selectOf makes SELECT item.
func selectOf(item *node) *node {
	return objectOf(
		member{"type", quote("SELECT_NODE")}, member{"modifiers", listOf()}, member{"cte_map", objectOf(member{"map", listOf()})},
		member{"select_list", listOf(item)},
		member{"from_table", objectOf(member{"type", quote("EMPTY")}, member{"alias", quote("")}, member{"sample", literal("null")}, member{"query_location", literal(unknownLocation)})},
		member{"where_clause", literal("null")}, member{"group_expressions", listOf()}, member{"group_sets", listOf()},
		member{"aggregate_handling", quote("STANDARD_HANDLING")}, member{"having", literal("null")},
		member{"sample", literal("null")}, member{"qualify", literal("null")},
	)
}

// timestampForms are what a cast of text to a timestamp accepts; without an offset it is UTC.
var timestampForms = [...]string{
	time.RFC3339Nano, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05",
	"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02",
}

func parseTimestamp(s string) (int64, error) {
	var first error
	for _, form := range timestampForms {
		t, err := time.Parse(form, strings.TrimSpace(s))
		if err == nil {
			return telemetry.Nanoseconds(t), nil
		}
		if first == nil {
			first = err
		}
	}
	return 0, first
}
