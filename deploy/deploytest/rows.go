package deploytest

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// AppendRows appends the rows of a batch as text, cells joined by '|'.
func AppendRows(rows []string, b arrow.RecordBatch) []string {
	cells := make([]string, b.NumCols())
	for i := range int(b.NumRows()) {
		for c := range cells {
			cells[c] = CellText(b.Column(c), i)
		}
		rows = append(rows, strings.Join(cells, "|"))
	}
	return rows
}

// CellText prints one value: NULL, RFC 3339 for timestamps, hex for bytes, shortest decimals, JSON for nested values.
func CellText(a arrow.Array, i int) string {
	if a.IsNull(i) {
		return "NULL"
	}
	switch a := a.(type) {
	case *array.Timestamp:
		return time.Unix(0, int64(a.Value(i))).UTC().Format(time.RFC3339Nano)
	case *array.Binary:
		return hex.EncodeToString(a.Value(i))
	case *array.Float64:
		return strconv.FormatFloat(a.Value(i), 'g', -1, 64)
	case *array.Dictionary:
		return CellText(a.Dictionary(), a.GetValueIndex(i))
	default:
		return a.ValueStr(i)
	}
}
