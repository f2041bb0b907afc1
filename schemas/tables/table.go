package tables

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

// Column is one column of a table.
type Column struct {
	Name     string
	Type     Type
	Nullable bool
	Doc      string
}

// ArrowTypeName returns the column's type as information_schema prints it.
func (c *Column) ArrowTypeName() string { return c.Type.ArrowTypeName() }

// DuckDBType returns the type that the engine gives the column as stored.
func (c *Column) DuckDBType() string { return c.Type.DuckDBType() }

// InstanceKind says what the id of a table's instances other than global is.
type InstanceKind uint8

// The kinds of instances.
const (
	None    InstanceKind = iota // the table has no instance but global, and view_instance does not know it
	Process                     // one instance per process id
	Stream                      // one instance per stream id
)

// String returns none, process or stream.
func (k InstanceKind) String() string {
	return [...]string{"none", "process", "stream"}[k]
}

// RangeRule says how a query's time range [B, E], both ends inclusive, filters the rows:
// Begin <= E and End + Span > B, where a Span of zero means a row that ends at End itself (End >= B).
type RangeRule struct {
	Begin, End string        // columns
	Span       time.Duration // length of what a row stands for, beyond End
}

// FirstEnd returns the least value of the End column that meets a range starting at begin.
func (r RangeRule) FirstEnd(begin int64) int64 {
	if r.Span == 0 {
		return begin
	}
	first := begin - int64(r.Span) + 1
	if first > begin { // begin is close to the least time there is
		return begin
	}
	return first
}

// Table describes a view set of the SQL surface, or the result of a table function.
type Table struct {
	Name       string
	No         int // number of the view, never reused; 0 for results of functions
	Columns    []Column
	Global     bool         // usable as a plain table name
	Instance   InstanceKind // what view_instance accepts beside global
	SchemaHash []byte       // tells files of this schema from files of earlier ones
	HasMaker   bool         // instances can be made by view_instance
	Range      RangeRule
	SortOrder  []string // order of rows in files that list_partitions reports; empty = not promised
	Doc        string

	// Fleet is the rows of many instances side by side, with columns that say whose they are before the table's own: what a
	// statement reads that names the table as it is, though it has no global instance. nil for most. It has the table's name and is
	// not a view set: All does not list it, and neither do SHOW TABLES and information_schema.
	Fleet *Table
}

// Column returns the column called name.
func (t *Table) Column(name string) (*Column, bool) {
	i := t.Index(name)
	if i < 0 {
		return nil, false
	}
	return &t.Columns[i], true
}

// Index returns the position of the column called name, or -1.
func (t *Table) Index(name string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
}

// ColumnNames returns the names of the columns in order.
func (t *Table) ColumnNames() []string {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = t.Columns[i].Name
	}
	return names
}

// ArrowSchema returns the served form: what clients get for SELECT * FROM the table.
func (t *Table) ArrowSchema(preserveDictionary bool) *arrow.Schema {
	return t.schema(func(c *Column) arrow.DataType { return c.Type.ArrowType(preserveDictionary) })
}

// FileSchema returns the stored form: the columns of the table's Parquet files.
func (t *Table) FileSchema() *arrow.Schema {
	return t.schema(func(c *Column) arrow.DataType { return c.Type.FileType() })
}

func (t *Table) schema(typeOf func(*Column) arrow.DataType) *arrow.Schema {
	fields := make([]arrow.Field, len(t.Columns))
	for i := range t.Columns {
		c := &t.Columns[i]
		fields[i] = arrow.Field{Name: c.Name, Type: typeOf(c), Nullable: c.Nullable}
	}
	return arrow.NewSchema(fields, nil)
}

// SchemaText describes the columns in one line, as list_view_sets shows them.
func (t *Table) SchemaText() string {
	var b strings.Builder
	for i := range t.Columns {
		c := &t.Columns[i]
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %s", c.Name, c.ArrowTypeName())
		if c.Nullable {
			b.WriteString(" (nullable)")
		}
	}
	return b.String()
}

// columnsHash is the schema hash of tables whose hash follows from their columns.
func columnsHash(columns []Column) []byte {
	t := Table{Columns: columns}
	sum := sha256.Sum256([]byte(t.SchemaText()))
	return sum[:8]
}
