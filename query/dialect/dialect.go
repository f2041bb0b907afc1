package dialect

import (
	"context"

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

	// internal lets the names of the package's own output pass the guard: used to test that a second pass changes nothing.
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
	Functions []FunctionRef // table functions with input or output
	Internals []Internal    // relations about the catalog that the SQL reads
	Calls     []string      // scalar functions with side effects or I/O (get_payload, retire_partition_by_file, …), each once
	Columns   []Column      // the select list of the outermost SELECT; nil when it holds a star
	Volatile  bool          // constant arguments were evaluated: the statement may not be kept
	text      string        // what the client sent
	positions positions     // from SQL as parsed back to text
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

// Column is one item of the select list.
type Column struct {
	Name     string // the name the client sees
	Duration bool   // a difference of two timestamps: an int64 of nanoseconds to be labelled duration[ns]
	Decimal  bool   // an explicit cast to DECIMAL: keep decimal128
}

// Rewrite checks one statement of a client and rewrites it for the engine. A fault of the client's is returned as *Error.
func Rewrite(ctx context.Context, p Parser, names Catalog, sql string, opts Options) (*Statement, error) {
	return nil, &Error{Code: Unimplemented, Message: "not yet"}
}
