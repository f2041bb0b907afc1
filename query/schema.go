package query

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Names of what clients think of as the database.
const (
	catalogName     = "datafusion"
	schemaName      = "public"
	informationName = "information_schema"
)

// partitionFormat is the version of partition files that list_partitions reports.
const partitionFormat = 2

// names is what statements may name. It never changes while the service runs.
type names struct {
	all   []*tables.Table
	byKey map[string]*tables.Table
}

func newNames() *names {
	n := &names{all: tables.All(), byKey: make(map[string]*tables.Table)}
	for _, t := range n.all {
		n.byKey[t.Name] = t
	}
	return n
}

// Table implements dialect.Catalog.
func (n *names) Table(name string) (*tables.Table, bool) {
	t, ok := n.byKey[name]
	return t, ok
}

// Names implements dialect.Catalog.
func (n *names) Names() []string {
	out := make([]string, len(n.all))
	for i, t := range n.all {
		out[i] = t.Name
	}
	return out
}

// global returns the tables that can be named as such, by name.
func (n *names) global() []*tables.Table {
	out := slices.DeleteFunc(slices.Clone(n.all), func(t *tables.Table) bool { return !t.Global })
	slices.SortFunc(out, func(a, b *tables.Table) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// viewSetsRelation is the result of list_view_sets().
func (n *names) viewSetsRelation() string {
	t, _ := tables.Function("list_view_sets")
	rows := make([][]string, len(n.all))
	for i, v := range n.all {
		rows[i] = []string{
			quoteText(v.Name), "unhex(" + quoteText(hex.EncodeToString(v.SchemaHash)) + ")", quoteText(v.SchemaText()),
			strconv.FormatBool(v.HasMaker), strconv.FormatBool(v.Global),
		}
	}
	return constantRelation(typedColumns(t), rows)
}

// internalRelation is one of the relations about the catalog.
func (n *names) internalRelation(which dialect.Internal) string {
	text := func(list ...string) []typedColumn {
		out := make([]typedColumn, len(list))
		for i, name := range list {
			out[i] = typedColumn{name, "VARCHAR"}
		}
		return out
	}
	switch which {
	case dialect.InternalTables:
		return constantRelation(text("table_catalog", "table_schema", "table_name", "table_type"), n.tableRows())
	case dialect.InternalColumns:
		return constantRelation(columnsOfColumns(), n.columnRows())
	case dialect.InternalSchemata:
		return constantRelation(text("catalog_name", "schema_name", "schema_owner"), [][]string{
			{quoteText(catalogName), quoteText(schemaName), "NULL"},
			{quoteText(catalogName), quoteText(informationName), "NULL"},
		})
	case dialect.InternalViews:
		return constantRelation(text("table_catalog", "table_schema", "table_name", "definition"), nil)
	case dialect.InternalSettings:
		return constantRelation(text("name", "value", "description"), nil)
	case dialect.InternalRoutines:
		return constantRelation(text("routine_name", "routine_type", "function_type"), n.routineRows())
	default:
		return constantRelation([]typedColumn{
			{"specific_name", "VARCHAR"}, {"ordinal_position", "UBIGINT"}, {"parameter_name", "VARCHAR"}, {"data_type", "VARCHAR"},
		}, nil)
	}
}

func (n *names) tableRows() [][]string {
	var rows [][]string
	add := func(schema, name, kind string) {
		rows = append(rows, []string{quoteText(catalogName), quoteText(schema), quoteText(name), quoteText(kind)})
	}
	for _, t := range n.global() {
		add(schemaName, t.Name, "BASE TABLE")
	}
	for _, name := range []string{"tables", "views", "columns", "df_settings", "schemata", "routines", "parameters"} {
		add(informationName, name, "VIEW")
	}
	return rows
}

func columnsOfColumns() []typedColumn {
	return []typedColumn{
		{"table_catalog", "VARCHAR"},
		{"table_schema", "VARCHAR"},
		{"table_name", "VARCHAR"},
		{"column_name", "VARCHAR"},
		{"ordinal_position", "UBIGINT"},
		{"column_default", "VARCHAR"},
		{"is_nullable", "VARCHAR"},
		{"data_type", "VARCHAR"},
		{"character_maximum_length", "UBIGINT"},
		{"character_octet_length", "UBIGINT"},
		{"numeric_precision", "UBIGINT"},
		{"numeric_precision_radix", "UBIGINT"},
		{"numeric_scale", "UBIGINT"},
		{"datetime_precision", "UBIGINT"},
		{"interval_type", "VARCHAR"},
	}
}

func (n *names) columnRows() [][]string {
	var rows [][]string
	for _, t := range n.global() {
		for i := range t.Columns {
			c := &t.Columns[i]
			row := []string{
				quoteText(catalogName), quoteText(schemaName), quoteText(t.Name), quoteText(c.Name),
				strconv.Itoa(i), "NULL", quoteText(yesNo(c.Nullable)), quoteText(c.ArrowTypeName()),
			}
			for len(row) < len(columnsOfColumns()) {
				row = append(row, "NULL")
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func (n *names) routineRows() [][]string {
	var rows [][]string
	for _, t := range tables.Functions() {
		rows = append(rows, []string{quoteText(t.Name), "'FUNCTION'", "'TABLE'"})
	}
	return rows
}

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

// Columns that files of partitions have beside those of list_partitions: the number of the instance, which a stream's or a process's row
// has, and 0 for global.
const (
	streamNo  = "stream_no"
	processNo = "process_no"
)

// partitionBatch makes the rows of list_partitions(), of partitions of the global instance and of others. Theirs are without ids.
func partitionBatch(global []*catalog.Partition, instances []catalog.Partition) arrow.RecordBatch {
	t, _ := tables.Function("list_partitions")
	views := make(map[string]*tables.Table)
	for _, v := range tables.All() {
		views[v.Name] = v
	}
	fields := append(t.FileSchema().Fields(), arrow.Field{Name: streamNo, Type: arrow.PrimitiveTypes.Int64}, arrow.Field{Name: processNo, Type: arrow.PrimitiveTypes.Int64})
	c := newColumnBuilder(arrow.NewSchema(fields, nil), len(global)+len(instances))
	add := func(p *catalog.Partition) {
		v := views[p.View]
		if v == nil {
			v = &tables.Table{} // a view of the service's own, such as frozen blocks
		}
		empty := p.Instance != 0 && p.Size == 0 && p.Rows == 0
		c.text(p.View)
		c.text("global")
		c.time(p.MinInsert)
		c.time(p.MaxInsert)
		c.timeUnless(empty, p.MinTime)
		c.timeUnless(empty, p.MaxTime)
		c.time(p.MaxInsert)                 // no file says when it was written; it was not before this
		if p.Instance != 0 && p.Size == 0 { // no rows, or all are open
			c.null()
		} else {
			c.text(p.Key)
		}
		c.int64(p.Size)
		c.bytes(v.SchemaHash)
		c.bytes(sourceHash(p))
		c.int64(p.Rows)
		c.int32(partitionFormat)
		c.null()
		c.timeUnless(p.Instance == 0 || p.MaxSortKey == 0, p.MaxSortKey)
		stream, process := int64(0), int64(0)
		if v.Instance == tables.Stream {
			stream = p.Instance
		} else {
			process = p.Instance
		}
		c.int64(stream)
		c.int64(process)
	}
	for _, p := range global {
		add(p)
	}
	for i := range instances {
		add(&instances[i])
	}
	return c.batch()
}

// sourceHash is the number of source objects in 8 bytes, which for rows of events is the number of rows, or what the
// partition says.
func sourceHash(p *catalog.Partition) []byte {
	if p.Instance != 0 {
		return binary.LittleEndian.AppendUint64(nil, uint64(p.Objects))
	}
	if len(p.SrcHash) > 0 {
		return p.SrcHash
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(p.Rows))
}
