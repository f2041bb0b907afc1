package dialect

import (
	"context"
	"fmt"
	"strconv"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Parser parses and prints SQL. It must not bind or execute what it is given.
type Parser interface {
	// SerializeSQL must return what json_serialize_sql returns for sql, also when that reports a syntax error.
	SerializeSQL(ctx context.Context, sql string) ([]byte, error)

	// DeserializeSQL must return the text that json_deserialize_sql prints for a tree.
	DeserializeSQL(ctx context.Context, tree []byte) (string, error)
}

// Catalog is what a statement may name.
type Catalog interface {
	// Table returns the view set or static table of that name. A view set whose Global is false can only be
	// reached through view_instance.
	Table(name string) (*tables.Table, bool)

	// Names must list every name that Table knows, in any order.
	Names() []string
}

// Options are the caller's side of a rewrite.
type Options struct {
	// Admin allows the administrator's functions.
	Admin bool

	// Eval returns the values of the one row of a SELECT without FROM. It is called for arguments of table
	// functions that are constant but not literals, after the guard has seen them. Without it such arguments are refused.
	// It must return string, int64, float64, bool, nil or time.Time.
	Eval func(ctx context.Context, sql string) ([]any, error)

	// internal lets the names of the package's own output pass the guard: for the second look at what is printed.
	internal bool
}

// Kind is what a statement asks for.
type Kind uint8

// The kinds of statements.
const (
	Select         Kind = iota // rows of SQL
	Show                       // SHOW TABLES and SHOW FUNCTIONS: SQL selects from internal relations
	ShowColumns                // SHOW COLUMNS FROM t: SQL selects from an internal relation
	Describe                   // DESCRIBE: the answer is the schema of SQL as rows column_name, data_type, is_nullable
	Explain                    // EXPLAIN: the answer is the engine's plan of SQL as plan_type, plan
	ExplainAnalyze             // EXPLAIN ANALYZE: as Explain, after executing SQL
)

// Statement is a checked statement, ready for the engine. It is shared by callers and must not be changed.
type Statement struct {
	Kind      Kind
	SQL       string        // to execute on the engine; for Explain without the prefix
	Tables    []TableRef    // global tables, in order of first use
	Instances []InstanceRef // view instances
	Fleets    []FleetRef    // tables with a Fleet, each occurrence for itself
	Functions []FunctionRef // table functions with input or output
	Internals []Internal    // relations about the catalog that the SQL reads
	Calls     []string      // scalar functions with side effects or I/O (get_payload, retire_partition_by_file, …), each once
	Columns   []Column      // the select list of the outermost SELECT; nil when it holds a star
	Volatile  bool          // constant arguments were evaluated: the statement may not be kept
	InOrder   bool          // its rows come in the order of the relation that it reads: it neither sorts nor groups nor joins
	Stream    *Projection   // of the only member of Functions; nil when the rows need the engine
	text      string        // what the client sent
	tree      *node         // what SQL was printed from
}

// TableRef is a global table that must exist under ViewName when SQL runs.
type TableRef struct {
	Name     string
	ViewName string
	Table    *tables.Table
}

// InstanceRef is view_instance(set, id): a relation named ViewName with the columns of the view set.
type InstanceRef struct {
	Set      string
	ID       string // "global" or a UUID in lower case with hyphens
	ViewName string // "vi/<set>/<id>"
	Table    *tables.Table
}

// FunctionRef is one call of a table function with input or output: a relation named ViewName that holds its result.
// Calls with equal arguments share one.
type FunctionRef struct {
	Name     string
	Args     []any  // string, int64 (also timestamps, as nanoseconds); checked against the function's signature
	ViewName string // "fn/<n>"
}

// Internal names a relation about the catalog itself.
type Internal uint8

// The relations about the catalog. Each must exist under Internal.ViewName with the columns that its comment lists.
const (
	InternalTables     Internal = iota // table_catalog, table_schema, table_name, table_type
	InternalColumns                    // table_catalog, table_schema, table_name, column_name, ordinal_position, column_default, is_nullable, data_type, character_maximum_length, character_octet_length, numeric_precision, numeric_precision_radix, numeric_scale, datetime_precision, interval_type
	InternalViews                      // table_catalog, table_schema, table_name, definition
	InternalSchemata                   // catalog_name, schema_name, schema_owner
	InternalSettings                   // name, value, description
	InternalRoutines                   // routine_name, routine_type, function_type
	InternalParameters                 // specific_name, ordinal_position, parameter_name, data_type
)

// Column is one column of a result, with what the dialect knows of it without the engine.
type Column struct {
	Name     string      // what the client sees; "" leaves it to the engine
	Type     tables.Type // of columns that come from a table as they are, and of a few functions; 0 = the engine's own
	NotNull  bool        // never NULL
	Duration bool        // a difference of two timestamps, known to be one: SQL yields int64, to be sent as duration[ns]
	Minus    bool        // a difference of unknown types: when the engine says INTERVAL, use Statement.Durations
	Decimal  bool        // an explicit cast to DECIMAL: sent as decimal128
	item     int         // of the select list of the leftmost SELECT; only for columns with Duration or Minus
}

// Rewrite checks one statement of a client and rewrites it for the engine. A fault of the client's is returned as *Error.
func Rewrite(ctx context.Context, p Parser, names Catalog, sql string, opts Options) (*Statement, error) {
	l, fault := lexPass(sql)
	if fault != nil {
		return nil, fault
	}
	r := &rewriter{ctx: ctx, parser: p, names: names, opts: opts, text: sql, st: &Statement{text: sql}, seen: map[string]bool{}}
	before, err := l.readPrefix(r)
	if err != nil {
		return nil, err
	}
	r.st.Kind = before.kind
	switch {
	case before.sql != "":
		r.st.SQL = before.sql
		return r.st, nil
	case before.table != "":
		return r.describeTable(before)
	}
	parsed, at := l.print(before.first)
	r.at = at
	query, err := r.parse(parsed)
	if err != nil {
		return nil, err
	}
	r.st.InOrder, r.st.Stream = inOrder(query), projection(query)
	if err := r.statement(query); err != nil {
		return nil, err
	}
	r.durations(query)
	if err := r.checkCopies(query); err != nil {
		return nil, err
	}
	r.st.tree = query
	r.st.SQL, err = r.print(query)
	if err != nil {
		return nil, err
	}
	if err := r.printOwners(); err != nil {
		return nil, err
	}
	return r.st, nil
}

// parse has the parser make the tree of one query.
func (r *rewriter) parse(sql string) (*node, error) {
	data, err := r.parser.SerializeSQL(r.ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("parse statement: %w", err)
	}
	tree, err := parseTree(data)
	if err != nil {
		return nil, err
	}
	if tree.isTrue("error") {
		return nil, r.parseFault(tree)
	}
	statements := tree.list("statements")
	if len(statements) != 1 {
		return nil, &Error{Code: Unimplemented, Message: "This feature is not implemented: only one statement per query"}
	}
	if params := statements[0].get("named_param_map"); params != nil && (len(params.items) > 0 || len(params.members) > 0) {
		return nil, planError("parameters such as $1 and ? are not supported").withHint("write the value into the statement")
	}
	query := statements[0].get("node")
	if query == nil {
		return nil, fmt.Errorf("parse statement: %w", errTreeSyntax)
	}
	return query, nil
}

// parseFault makes a client's error of what the parser says.
func (r *rewriter) parseFault(tree *node) error {
	message := tree.str("error_message")
	if tree.str("error_type") == "not implemented" {
		return planError("only SELECT statements are allowed")
	}
	e := &Error{Code: Invalid, Message: prefixSQL + message}
	if at, err := strconv.Atoi(tree.str("position")); err == nil {
		e = e.at(r.text, r.at.source(at))
	}
	return e
}

// durations turns differences that are known to be of timestamps into nanoseconds.
func (r *rewriter) durations(query *node) {
	items := selectItems(query)
	for i := range r.st.Columns {
		c := &r.st.Columns[i]
		if !c.Duration {
			continue
		}
		diff, ok := difference(items[c.item])
		if ok {
			items[c.item] = diff
		}
		c.Duration = ok
	}
}

// printTree returns the SQL text of a query node.
func printTree(ctx context.Context, p Parser, query *node) (string, error) {
	data := make([]byte, 0, 4096)
	data = append(data, `{"error":false,"statements":[{"node":`...)
	data = query.append(data)
	data = append(data, `,"named_param_map":[]}]}`...)
	sql, err := p.DeserializeSQL(ctx, data)
	if err != nil {
		return "", fmt.Errorf("print statement: %w", err)
	}
	return sql, nil
}
