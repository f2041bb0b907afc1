package engine

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	duckdb "github.com/duckdb/duckdb-go-bindings"
)

// timestampType is the type of every timestamp that clients see. The zone's spelling is part of
// the type for some of them.
var timestampType = &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "+00:00"}

// itemName is the name of a list's child field unless a hint names it otherwise.
const itemName = "item"

// plan chooses the Arrow type of each column, and the column that makes it.
func plan(names []string, types []duckdb.LogicalType, opts QueryOptions) (*arrow.Schema, []column, *Error) {
	fields, columns := make([]arrow.Field, len(names)), make([]column, len(names))
	p := planner{dictionaries: opts.PreserveDictionary}
	for i, name := range names {
		var hint Hint
		if i < len(opts.Hints) {
			hint = opts.Hints[i]
		}
		t, c, err := p.column(types[i], hint.Type)
		if err == nil && depthOf(t) > maxDepth {
			err = &Error{Class: Bind, Message: fmt.Sprintf("types nested deeper than %d cannot be sent; cast the value to VARCHAR", maxDepth), Position: -1}
		}
		if err != nil {
			err.Message = fmt.Sprintf("column %q: %s", name, err.Message)
			return nil, nil, err
		}
		fields[i] = arrow.Field{Name: name, Type: t, Nullable: !hint.NotNull}
		columns[i] = c
	}
	return arrow.NewSchema(fields, nil), columns, nil
}

// maxDepth is how deep lists and structs may nest: clients read no message that is deeper than Arrow's 64.
const maxDepth = 60

// depthOf returns the levels of a type.
func depthOf(t arrow.DataType) int {
	deepest := 0
	if nested, ok := t.(arrow.NestedType); ok {
		for _, f := range nested.Fields() {
			deepest = max(deepest, depthOf(f.Type))
		}
	}
	return deepest + 1
}

type planner struct{ dictionaries bool }

// fixedTypes are those whose values Arrow stores as DuckDB does.
var fixedTypes = map[duckdb.Type]arrow.FixedWidthDataType{
	duckdb.TypeTinyInt:     arrow.PrimitiveTypes.Int8.(arrow.FixedWidthDataType),
	duckdb.TypeSmallInt:    arrow.PrimitiveTypes.Int16.(arrow.FixedWidthDataType),
	duckdb.TypeInteger:     arrow.PrimitiveTypes.Int32.(arrow.FixedWidthDataType),
	duckdb.TypeBigInt:      arrow.PrimitiveTypes.Int64.(arrow.FixedWidthDataType),
	duckdb.TypeUTinyInt:    arrow.PrimitiveTypes.Uint8.(arrow.FixedWidthDataType),
	duckdb.TypeUSmallInt:   arrow.PrimitiveTypes.Uint16.(arrow.FixedWidthDataType),
	duckdb.TypeUInteger:    arrow.PrimitiveTypes.Uint32.(arrow.FixedWidthDataType),
	duckdb.TypeUBigInt:     arrow.PrimitiveTypes.Uint64.(arrow.FixedWidthDataType),
	duckdb.TypeFloat:       arrow.PrimitiveTypes.Float32.(arrow.FixedWidthDataType),
	duckdb.TypeDouble:      arrow.PrimitiveTypes.Float64.(arrow.FixedWidthDataType),
	duckdb.TypeDate:        arrow.PrimitiveTypes.Date32.(arrow.FixedWidthDataType),
	duckdb.TypeTime:        arrow.FixedWidthTypes.Time64us,
	duckdb.TypeTimeNS:      arrow.FixedWidthTypes.Time64ns,
	duckdb.TypeTimestampNS: timestampType,
}

func (p planner) column(lt duckdb.LogicalType, hint arrow.DataType) (arrow.DataType, column, *Error) {
	id := duckdb.GetTypeId(lt)
	if t, ok := fixedTypes[id]; ok {
		var sent arrow.DataType = t
		if id == duckdb.TypeBigInt && isDuration(hint) {
			sent = hint
		}
		return sent, &fixed{t: sent, width: t.BitWidth() / 8}, nil
	}
	switch id {
	case duckdb.TypeBoolean:
		return arrow.FixedWidthTypes.Boolean, &boolean{}, nil
	case duckdb.TypeTimestamp, duckdb.TypeTimestampTZ:
		return timestampType, &mapped[int64, int64]{t: timestampType, convert: scaled(1e3)}, nil
	case duckdb.TypeTimestampMS:
		return timestampType, &mapped[int64, int64]{t: timestampType, convert: scaled(1e6)}, nil
	case duckdb.TypeTimestampS:
		return timestampType, &mapped[int64, int64]{t: timestampType, convert: scaled(1e9)}, nil
	case duckdb.TypeHugeInt:
		return arrow.PrimitiveTypes.Int64, &mapped[huge, int64]{t: arrow.PrimitiveTypes.Int64, convert: hugeToInt}, nil
	case duckdb.TypeUHugeInt:
		return arrow.PrimitiveTypes.Int64, &mapped[huge, int64]{t: arrow.PrimitiveTypes.Int64, convert: uhugeToInt}, nil
	case duckdb.TypeDecimal:
		t, c := decimalColumn(lt, hint)
		return t, c, nil
	case duckdb.TypeInterval:
		if isDuration(hint) {
			return hint, &mapped[interval, int64]{t: hint, convert: intervalToDuration}, nil
		}
		t := arrow.FixedWidthTypes.MonthDayNanoInterval
		return t, &mapped[interval, arrow.MonthDayNanoInterval]{t: t, convert: intervalToArrow}, nil
	case duckdb.TypeVarchar, duckdb.TypeBlob, duckdb.TypeBit:
		t, c := p.textColumn(id, duckdb.LogicalTypeGetAlias(lt), hint)
		return t, c, nil
	case duckdb.TypeUUID:
		return arrow.BinaryTypes.String, &printed[huge]{print: uuidText}, nil
	case duckdb.TypeEnum:
		return arrow.BinaryTypes.String, enumColumn(lt), nil
	case duckdb.TypeSQLNull:
		return arrow.Null, &null{}, nil
	case duckdb.TypeList, duckdb.TypeArray, duckdb.TypeMap:
		return p.listColumn(id, lt, hint)
	case duckdb.TypeStruct:
		return p.structColumn(lt, hint)
	default:
		return nil, nil, &Error{Class: Bind, Message: "this type cannot be sent; cast it to VARCHAR", Position: -1}
	}
}

func isDuration(t arrow.DataType) bool {
	d, ok := t.(*arrow.DurationType)
	return ok && d.Unit == arrow.Nanosecond
}

// textColumn sends a text as what it stands for: JSON as binary documents; JSON, and what a
// hint says, as dictionaries where those are kept.
func (p planner) textColumn(id duckdb.Type, alias string, hint arrow.DataType) (arrow.DataType, column) {
	var value arrow.DataType = arrow.BinaryTypes.String
	encode := verbatim
	wantsDictionary := false
	index := arrow.PrimitiveTypes.Int32
	switch {
	case alias == jsonAlias:
		value, encode, wantsDictionary = arrow.BinaryTypes.Binary, binaryJSON, true
	case id != duckdb.TypeVarchar:
		value = arrow.BinaryTypes.Binary
	}
	switch h := hint.(type) {
	case *arrow.FixedSizeBinaryType:
		if id == duckdb.TypeBlob {
			return h, &fixedBinary{t: h}
		}
	case *arrow.DictionaryType:
		wantsDictionary = true
		if h.IndexType.ID() == arrow.INT16 {
			index = h.IndexType
		}
	case *arrow.StringType, *arrow.BinaryType:
		wantsDictionary = false
	}
	if wantsDictionary && p.dictionaries {
		t := &arrow.DictionaryType{IndexType: index, ValueType: value}
		return t, &dictionary{t: t, interner: interner{encode: encode}}
	}
	if alias == jsonAlias {
		return value, &encoded{interner: interner{encode: encode}}
	}
	return value, &text{t: value}
}

func enumColumn(lt duckdb.LogicalType) column {
	values := make([]string, duckdb.EnumDictionarySize(lt))
	for i := range values {
		values[i] = duckdb.EnumDictionaryValue(lt, duckdb.IdxT(i))
	}
	switch duckdb.EnumInternalType(lt) {
	case duckdb.TypeUTinyInt:
		return &printed[uint8]{print: func(i uint8) string { return values[i] }}
	case duckdb.TypeUSmallInt:
		return &printed[uint16]{print: func(i uint16) string { return values[i] }}
	default:
		return &printed[uint32]{print: func(i uint32) string { return values[i] }}
	}
}

// decimalColumn sends floats, or decimals to a column that was cast to DECIMAL by its author.
func decimalColumn(lt duckdb.LogicalType, hint arrow.DataType) (arrow.DataType, column) {
	scale := int32(duckdb.DecimalScale(lt))
	if _, ok := hint.(*arrow.Decimal128Type); ok {
		t := &arrow.Decimal128Type{Precision: int32(duckdb.DecimalWidth(lt)), Scale: scale}
		switch duckdb.DecimalInternalType(lt) {
		case duckdb.TypeSmallInt:
			return t, &mapped[int16, decimal128.Num]{t: t, convert: widenDecimal[int16]}
		case duckdb.TypeInteger:
			return t, &mapped[int32, decimal128.Num]{t: t, convert: widenDecimal[int32]}
		case duckdb.TypeBigInt:
			return t, &mapped[int64, decimal128.Num]{t: t, convert: widenDecimal[int64]}
		default:
			return t, &fixed{t: t, width: 16}
		}
	}
	divisor := 1.0
	for range scale {
		divisor *= 10
	}
	t := arrow.PrimitiveTypes.Float64
	switch duckdb.DecimalInternalType(lt) {
	case duckdb.TypeSmallInt:
		return t, &mapped[int16, float64]{t: t, convert: dividing[int16](divisor)}
	case duckdb.TypeInteger:
		return t, &mapped[int32, float64]{t: t, convert: dividing[int32](divisor)}
	case duckdb.TypeBigInt:
		return t, &mapped[int64, float64]{t: t, convert: dividing[int64](divisor)}
	default:
		return t, &mapped[huge, float64]{t: t, convert: func(h huge) (float64, bool, *Error) { return h.float() / divisor, true, nil }}
	}
}

func widenDecimal[T int16 | int32 | int64](v T) (decimal128.Num, bool, *Error) {
	return decimal128.FromI64(int64(v)), true, nil
}

func dividing[T int16 | int32 | int64](divisor float64) func(T) (float64, bool, *Error) {
	return func(v T) (float64, bool, *Error) { return float64(v) / divisor, true, nil }
}

func (p planner) listColumn(id duckdb.Type, lt duckdb.LogicalType, hint arrow.DataType) (arrow.DataType, column, *Error) {
	if id == duckdb.TypeMap {
		return p.mapColumn(lt)
	}
	var elem duckdb.LogicalType
	size := 0
	if id == duckdb.TypeArray {
		elem, size = duckdb.ArrayTypeChildType(lt), int(duckdb.ArrayTypeArraySize(lt))
	} else {
		elem = duckdb.ListTypeChildType(lt)
	}
	defer duckdb.DestroyLogicalType(&elem)
	field := arrow.Field{Name: itemName, Nullable: true}
	if h, ok := hint.(*arrow.ListType); ok {
		field = h.ElemField()
	}
	t, child, err := p.column(elem, field.Type)
	if err != nil {
		return nil, nil, err
	}
	field.Type = t
	sent := arrow.ListOfField(field)
	return sent, &list{t: sent, array: size, child: child}, nil
}

func (p planner) mapColumn(lt duckdb.LogicalType) (arrow.DataType, column, *Error) {
	key, value := duckdb.MapTypeKeyType(lt), duckdb.MapTypeValueType(lt)
	defer duckdb.DestroyLogicalType(&key)
	defer duckdb.DestroyLogicalType(&value)
	kt, kc, err := p.column(key, nil)
	if err != nil {
		return nil, nil, err
	}
	vt, vc, err := p.column(value, nil)
	if err != nil {
		return nil, nil, err
	}
	sent := arrow.MapOf(kt, vt)
	entry := &structure{t: sent.Elem(), children: []column{kc, vc}}
	return sent, &list{t: sent, child: entry}, nil
}

func (p planner) structColumn(lt duckdb.LogicalType, hint arrow.DataType) (arrow.DataType, column, *Error) {
	n := int(duckdb.StructTypeChildCount(lt))
	fields, children := make([]arrow.Field, n), make([]column, n)
	hinted, _ := hint.(*arrow.StructType)
	if hinted == nil && isHistogram(lt) {
		hinted = histogramType
	}
	for i := range n {
		field := arrow.Field{Name: duckdb.StructTypeChildName(lt, duckdb.IdxT(i)), Nullable: true}
		if hinted != nil && i < hinted.NumFields() && hinted.Field(i).Name == field.Name {
			field = hinted.Field(i)
		}
		child := duckdb.StructTypeChildType(lt, duckdb.IdxT(i))
		t, c, err := p.column(child, field.Type)
		duckdb.DestroyLogicalType(&child)
		if err != nil {
			return nil, nil, err
		}
		field.Type = t
		fields[i], children[i] = field, c
	}
	sent := arrow.StructOf(fields...)
	return sent, &structure{t: sent, children: children}, nil
}

// histogramType is what make_histogram and sum_histograms return.
var histogramType = arrow.StructOf(
	arrow.Field{Name: "start", Type: arrow.PrimitiveTypes.Float64},
	arrow.Field{Name: "end", Type: arrow.PrimitiveTypes.Float64},
	arrow.Field{Name: "min", Type: arrow.PrimitiveTypes.Float64},
	arrow.Field{Name: "max", Type: arrow.PrimitiveTypes.Float64},
	arrow.Field{Name: "sum", Type: arrow.PrimitiveTypes.Float64},
	arrow.Field{Name: "sum_sq", Type: arrow.PrimitiveTypes.Float64},
	arrow.Field{Name: "count", Type: arrow.PrimitiveTypes.Uint64},
	arrow.Field{Name: "bins", Type: arrow.ListOfField(arrow.Field{Name: "bin", Type: arrow.PrimitiveTypes.Uint64})},
)

func isHistogram(lt duckdb.LogicalType) bool {
	if int(duckdb.StructTypeChildCount(lt)) != histogramType.NumFields() {
		return false
	}
	for i, f := range histogramType.Fields() {
		if duckdb.StructTypeChildName(lt, duckdb.IdxT(i)) != f.Name {
			return false
		}
	}
	return true
}
