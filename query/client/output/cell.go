package output

import (
	"encoding/hex"
	"math"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/query/functions/jsonb"
)

// timeForm is RFC 3339 with all nine digits, so that texts sort and columns align.
const timeForm = "2006-01-02T15:04:05.000000000Z07:00"

// appendCell appends the text of a value that is not NULL.
func appendCell(dst []byte, a arrow.Array, row int) []byte {
	switch a := a.(type) {
	case *array.String:
		return append(dst, a.Value(row)...)
	case *array.Timestamp:
		return timeOf(a, row).AppendFormat(dst, timeForm)
	case *array.Duration:
		unit := a.DataType().(*arrow.DurationType).Unit.Multiplier()
		return append(dst, (time.Duration(a.Value(row)) * unit).String()...)
	case *array.Float64:
		return strconv.AppendFloat(dst, a.Value(row), 'g', -1, 64)
	case *array.Float32:
		return strconv.AppendFloat(dst, float64(a.Value(row)), 'g', -1, 32)
	case *array.Int64:
		return strconv.AppendInt(dst, a.Value(row), 10)
	case *array.Int32:
		return strconv.AppendInt(dst, int64(a.Value(row)), 10)
	case *array.Binary:
		return appendBinary(dst, a.Value(row))
	case *array.FixedSizeBinary:
		return hex.AppendEncode(dst, a.Value(row))
	case *array.Dictionary:
		return appendCell(dst, a.Dictionary(), a.GetValueIndex(row))
	case array.ListLike:
		return appendList(dst, a, row)
	case *array.Struct:
		return appendStruct(dst, a, row)
	}
	return append(dst, a.ValueStr(row)...)
}

func timeOf(a *array.Timestamp, row int) time.Time {
	return a.Value(row).ToTime(a.DataType().(*arrow.TimestampType).Unit).UTC()
}

// appendBinary writes a JSONB document as JSON, other bytes in hexadecimal digits.
func appendBinary(dst, b []byte) []byte {
	if v, err := jsonb.Decode(b); err == nil {
		return jsonb.AppendJSON(dst, &v)
	}
	return hex.AppendEncode(dst, b)
}

func appendList(dst []byte, a array.ListLike, row int) []byte {
	dst = append(dst, '[')
	from, to := a.ValueOffsets(row)
	for i := from; i < to; i++ {
		if i > from {
			dst = append(dst, ", "...)
		}
		dst = appendOrNull(dst, a.ListValues(), int(i))
	}
	return append(dst, ']')
}

func appendStruct(dst []byte, a *array.Struct, row int) []byte {
	fields := a.DataType().(*arrow.StructType).Fields()
	dst = append(dst, '{')
	for i := range fields {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, fields[i].Name...)
		dst = append(dst, ": "...)
		dst = appendOrNull(dst, a.Field(i), row)
	}
	return append(dst, '}')
}

func appendOrNull(dst []byte, a arrow.Array, row int) []byte {
	if a.IsNull(row) {
		return append(dst, "NULL"...)
	}
	return appendCell(dst, a, row)
}

// appendJSON appends a value as JSON.
func appendJSON(dst []byte, a arrow.Array, row int) []byte {
	if a.IsNull(row) {
		return append(dst, "null"...)
	}
	switch a := a.(type) {
	case *array.Boolean:
		return strconv.AppendBool(dst, a.Value(row))
	case *array.Float64:
		return appendNumber(dst, a.Value(row), 64)
	case *array.Float32:
		return appendNumber(dst, float64(a.Value(row)), 32)
	case *array.Int8, *array.Int16, *array.Int32, *array.Int64, *array.Uint8, *array.Uint16, *array.Uint32, *array.Uint64:
		return append(dst, a.ValueStr(row)...)
	case *array.Duration:
		unit := a.DataType().(*arrow.DurationType).Unit.Multiplier()
		return strconv.AppendInt(dst, int64(time.Duration(a.Value(row))*unit), 10)
	case *array.Binary:
		if v, err := jsonb.Decode(a.Value(row)); err == nil {
			return jsonb.AppendJSON(dst, &v)
		}
	case *array.Dictionary:
		return appendJSON(dst, a.Dictionary(), a.GetValueIndex(row))
	case array.ListLike:
		dst = append(dst, '[')
		from, to := a.ValueOffsets(row)
		for i := from; i < to; i++ {
			if i > from {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, a.ListValues(), int(i))
		}
		return append(dst, ']')
	case *array.Struct:
		fields := a.DataType().(*arrow.StructType).Fields()
		dst = append(dst, '{')
		for i := range fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendQuoted(dst, fields[i].Name), ':')
			dst = appendJSON(dst, a.Field(i), row)
		}
		return append(dst, '}')
	}
	return appendQuoted(dst, string(appendCell(nil, a, row)))
}

// appendNumber writes null for what JSON has no number for.
func appendNumber(dst []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, bits)
}
