package columnar

import (
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Summary describes rows for the catalog: what queries prune files by.
type Summary struct {
	Rows                 int64
	MinTime, MaxTime     int64
	MinInsert, MaxInsert int64
	// Processes is a bitmap with the catalog.ProcessBit of every process_id set.
	Processes []byte
}

// Add adds the rows named in sel. The times are those of the columns named by the table's range rule, the insert time that of
// insert_time, and the processes those of process_id, where the table has these.
func (s *Summary) Add(rows *Rows, sel []int32) {
	if len(sel) == 0 {
		return
	}
	first := s.Rows == 0
	s.Rows += int64(len(sel))
	rule := rows.Table.Range
	least, greatest := bounds(rows, rows.Table.Index(rule.Begin), sel, s.MinTime, s.MaxTime, first)
	if rule.End != rule.Begin {
		_, greatest = bounds(rows, rows.Table.Index(rule.End), sel, s.MinTime, s.MaxTime, first)
	}
	s.MinTime, s.MaxTime = least, greatest
	if i := rows.Table.Index("insert_time"); i >= 0 {
		s.MinInsert, s.MaxInsert = bounds(rows, i, sel, s.MinInsert, s.MaxInsert, first)
	}
	i := rows.Table.Index("process_id")
	if i < 0 {
		return
	}
	if s.Processes == nil {
		s.Processes = make([]byte, catalog.ProcessBitmapBytes)
	}
	c := &rows.Columns[i]
	last := int32(-1)
	for _, row := range sel {
		if id := c.Index[row]; id != last {
			last = id
			if process, err := telemetry.ParseID(c.Dict.text(id)); err == nil {
				bit := catalog.ProcessBit(process)
				s.Processes[bit/8] |= 1 << (bit % 8)
			}
		}
	}
}

func bounds(rows *Rows, column int, sel []int32, least, greatest int64, first bool) (int64, int64) {
	values := rows.Columns[column].Ints
	if first {
		least, greatest = values[sel[0]], values[sel[0]]
	}
	for _, row := range sel {
		v := values[row]
		least, greatest = min(least, v), max(greatest, v)
	}
	return least, greatest
}
