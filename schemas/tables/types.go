package tables

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
)

// Type is the type of a column, in the short names of the SQL surface.
type Type uint8

// The column types. A dictionary type says that values repeat: it is stored as a dictionary page,
// and served as an Arrow dictionary when the client asked for dictionaries.
const (
	Str     Type = iota + 1 // UTF-8 text
	DStr                    // dictionary of text, 32-bit indices
	DStr16                  // dictionary of text, 16-bit indices
	DBin                    // dictionary of JSONB documents; stored as JSON text
	Bin                     // bytes
	TS                      // nanoseconds since the Unix epoch, UTC
	I32                     // signed 32 bit
	I64                     // signed 64 bit
	U32                     // unsigned 32 bit
	U64                     // unsigned 64 bit
	F64                     // double
	Bool                    // boolean
	ListStr                 // list of text, items named tag and never null
	FSB16                   // 16 bytes
	FSB8                    // 8 bytes
)

// TimeZone is the zone of every served timestamp. Clients compare the text, so "UTC" is another type.
const TimeZone = "+00:00"

// ListItem is the name of the items of a ListStr column.
const ListItem = "tag"

// form holds the names and Arrow types of one Type.
type form struct {
	short, duckdb string
	served        arrow.DataType // with dictionaries
	flat          arrow.DataType // dictionaries expanded
	stored        arrow.DataType // in Parquet files
	text          string         // served type as information_schema prints it
}

// formOf returns the forms of t; it panics on a value that is no Type.
func formOf(t Type) form {
	switch t {
	case Str:
		return plain("str", "VARCHAR", arrow.BinaryTypes.String, "Utf8")
	case DStr:
		d := dictionary(arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String)
		return form{"dstr", "VARCHAR", d, arrow.BinaryTypes.String, d, "Dictionary(Int32, Utf8)"}
	case DStr16:
		d := dictionary(arrow.PrimitiveTypes.Int16, arrow.BinaryTypes.String)
		return form{"dstr16", "VARCHAR", d, arrow.BinaryTypes.String, d, "Dictionary(Int16, Utf8)"}
	case DBin:
		return form{
			"dbin", "JSON", dictionary(arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.Binary),
			arrow.BinaryTypes.Binary, jsonText(), "Dictionary(Int32, Binary)",
		}
	case Bin:
		return plain("bin", "BLOB", arrow.BinaryTypes.Binary, "Binary")
	case TS:
		served := &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: TimeZone}
		stored := &arrow.TimestampType{Unit: arrow.Nanosecond}
		return form{"ts", "TIMESTAMP_NS", served, served, stored, `Timestamp(ns, "+00:00")`}
	case I32:
		return plain("i32", "INTEGER", arrow.PrimitiveTypes.Int32, "Int32")
	case I64:
		return plain("i64", "BIGINT", arrow.PrimitiveTypes.Int64, "Int64")
	case U32:
		return plain("u32", "UINTEGER", arrow.PrimitiveTypes.Uint32, "UInt32")
	case U64:
		return plain("u64", "UBIGINT", arrow.PrimitiveTypes.Uint64, "UInt64")
	case F64:
		return plain("f64", "DOUBLE", arrow.PrimitiveTypes.Float64, "Float64")
	case Bool:
		return plain("bool", "BOOLEAN", arrow.FixedWidthTypes.Boolean, "Boolean")
	case ListStr:
		list := arrow.ListOfField(arrow.Field{Name: ListItem, Type: arrow.BinaryTypes.String})
		return plain("list<str>", "VARCHAR[]", list, "List(non-null Utf8, field: 'tag')")
	case FSB16:
		return plain("fsb16", "BLOB", &arrow.FixedSizeBinaryType{ByteWidth: 16}, "FixedSizeBinary(16)")
	case FSB8:
		return plain("fsb8", "BLOB", &arrow.FixedSizeBinaryType{ByteWidth: 8}, "FixedSizeBinary(8)")
	}
	panic(fmt.Sprintf("tables: no type %d", t))
}

func plain(short, duckdb string, t arrow.DataType, text string) form {
	return form{short: short, duckdb: duckdb, served: t, flat: t, stored: t, text: text}
}

func dictionary(index, value arrow.DataType) arrow.DataType {
	return &arrow.DictionaryType{IndexType: index, ValueType: value}
}

// jsonText is text that Parquet marks with the JSON logical type, so that DuckDB reads it as JSON.
func jsonText() arrow.DataType {
	t, err := extensions.NewJSONType(arrow.BinaryTypes.String)
	if err != nil {
		panic(err) // text is a storage type that JSONType accepts
	}
	return t
}

// String returns the short name of the type, such as dstr.
func (t Type) String() string { return formOf(t).short }

// Dictionary reports whether clients may receive the type as an Arrow dictionary.
func (t Type) Dictionary() bool { return t == DStr || t == DStr16 || t == DBin }

// ArrowType returns what clients get: dictionaries as such when preserveDictionary is set, else expanded.
func (t Type) ArrowType(preserveDictionary bool) arrow.DataType {
	if preserveDictionary {
		return formOf(t).served
	}
	return formOf(t).flat
}

// FileType returns the Arrow type of the stored form.
func (t Type) FileType() arrow.DataType { return formOf(t).stored }

// ArrowTypeName returns the type as information_schema.columns.data_type and arrow_typeof print it.
func (t Type) ArrowTypeName() string { return formOf(t).text }

// DuckDBType returns the type that the engine gives the stored form.
func (t Type) DuckDBType() string { return formOf(t).duckdb }
