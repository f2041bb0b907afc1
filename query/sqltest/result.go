package sqltest

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Executor runs one statement and returns all of its rows. The error's text is what the client sees.
type Executor func(ctx context.Context, sql string) (*Result, error)

// Result is what a statement returned.
type Result struct {
	Columns []Column
	Rows    [][]any // nil, bool, int64, uint64, float64, string, []byte, Time, Duration, []any, Struct
}

// Column names a column and its type in the short names of the published statements: str, i64, ts, jsonb …
type Column struct{ Name, Type string }

// Time is nanoseconds since the Unix epoch.
type Time int64

// Duration is nanoseconds.
type Duration int64

// Struct is a value with named fields, in order.
type Struct []Field

// Field is a field of a Struct.
type Field struct {
	Name  string
	Value any
}

// Append adds the rows of a batch to a result that has the batch's columns, and sets the columns when it has none.
func (r *Result) Append(schema *arrow.Schema, batch arrow.RecordBatch) {
	if r.Columns == nil {
		r.Columns = columnsOf(schema)
	}
	if batch == nil {
		return
	}
	for i := range int(batch.NumRows()) {
		row := make([]any, batch.NumCols())
		for c := range row {
			row[c] = value(batch.Column(c), i)
		}
		r.Rows = append(r.Rows, row)
	}
}

func columnsOf(schema *arrow.Schema) []Column {
	columns := make([]Column, schema.NumFields())
	for i, f := range schema.Fields() {
		columns[i] = Column{Name: f.Name, Type: typeName(f.Type)}
	}
	return columns
}

// typeName returns the short name of a type; a dictionary is its values.
func typeName(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.StringType, *arrow.LargeStringType:
		return "str"
	case *arrow.BinaryType, *arrow.LargeBinaryType, *arrow.FixedSizeBinaryType:
		return "bin"
	case *arrow.TimestampType:
		if t.Unit == arrow.Nanosecond && t.TimeZone == "+00:00" {
			return "ts"
		}
	case *arrow.DurationType:
		return "dur"
	case *arrow.BooleanType:
		return "bool"
	case *arrow.DictionaryType:
		if typeName(t.ValueType) == "bin" {
			return "jsonb"
		}
		return typeName(t.ValueType)
	case *arrow.ListType:
		return "list<" + typeName(t.Elem()) + ">"
	case *arrow.StructType:
		if _, ok := t.FieldByName("bins"); ok {
			return "histogram"
		}
		if _, ok := t.FieldByName("key"); ok && t.NumFields() == 2 {
			return "struct<key,value>"
		}
		return "struct"
	}
	switch t.ID() {
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64:
		return "i" + strings.TrimPrefix(t.Name(), "int")
	case arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
		return "u" + strings.TrimPrefix(t.Name(), "uint")
	case arrow.FLOAT32, arrow.FLOAT64:
		return "f" + strings.TrimPrefix(t.Name(), "float")
	}
	return t.String()
}

// value returns element i of a column as a Go value.
func value(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Boolean:
		return a.Value(i)
	case *array.Int8:
		return int64(a.Value(i))
	case *array.Int16:
		return int64(a.Value(i))
	case *array.Int32:
		return int64(a.Value(i))
	case *array.Int64:
		return a.Value(i)
	case *array.Uint8:
		return uint64(a.Value(i))
	case *array.Uint16:
		return uint64(a.Value(i))
	case *array.Uint32:
		return uint64(a.Value(i))
	case *array.Uint64:
		return a.Value(i)
	case *array.Float32:
		return float64(a.Value(i))
	case *array.Float64:
		return a.Value(i)
	case *array.String:
		return strings.Clone(a.Value(i))
	case *array.Binary:
		return append([]byte{}, a.Value(i)...)
	case *array.FixedSizeBinary:
		return append([]byte{}, a.Value(i)...)
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		return Time(int64(a.Value(i)) * int64(unit.Multiplier()))
	case *array.Duration:
		unit := a.DataType().(*arrow.DurationType).Unit
		return Duration(int64(a.Value(i)) * int64(unit.Multiplier()))
	case *array.Date32:
		return a.Value(i).ToTime().Format(time.DateOnly)
	case *array.Dictionary:
		return value(a.Dictionary(), a.GetValueIndex(i))
	case *array.Map:
		return pairs(a, i)
	case *array.MonthDayNanoInterval:
		v := a.Value(i)
		return []any{"iv", int64(v.Months), int64(v.Days), v.Nanoseconds}
	case *array.List:
		return listOf(a.ListValues(), a, i)
	case *array.Struct:
		fields := a.DataType().(*arrow.StructType).Fields()
		s := make(Struct, len(fields))
		for f := range fields {
			s[f] = Field{fields[f].Name, value(a.Field(f), i)}
		}
		return s
	}
	return a.ValueStr(i)
}

// pairs returns a map as a list of pairs.
func pairs(m *array.Map, i int) []any {
	begin, end := m.ValueOffsets(i)
	out := make([]any, 0, end-begin)
	for k := begin; k < end; k++ {
		out = append(out, []any{value(m.Keys(), int(k)), value(m.Items(), int(k))})
	}
	return out
}

func listOf(items arrow.Array, list interface {
	ValueOffsets(int) (int64, int64)
}, i int,
) []any {
	begin, end := list.ValueOffsets(i)
	out := make([]any, 0, end-begin)
	for k := begin; k < end; k++ {
		out = append(out, value(items, int(k)))
	}
	return out
}

// format prints a value for a script: text as it is, NULL for NULL.
func format(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case string:
		return strings.NewReplacer("\\", `\\`, "\n", `\n`, "\t", `\t`, "|", `\|`).Replace(v)
	case []byte:
		return fmt.Sprintf("x%x", v)
	case Time:
		return time.Unix(0, int64(v)).UTC().Format(time.RFC3339Nano)
	case Duration:
		return strconv.FormatInt(int64(v), 10) + "ns"
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1e15 {
			return strconv.FormatFloat(v, 'f', 1, 64)
		}
		return strconv.FormatFloat(v, 'g', 15, 64)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = format(v[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case Struct:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = v[i].Name + ": " + format(v[i].Value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v)
}
