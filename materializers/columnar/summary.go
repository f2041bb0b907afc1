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

// Add adds the rows named in sel. The time is that of the column named by the table's range rule, the insert time that of
// insert_time, where the table has one.
func (s *Summary) Add(rows *Rows, sel []int32) {
	if len(sel) == 0 {
		return
	}
	first := s.Rows == 0
	s.Rows += int64(len(sel))
	s.MinTime, s.MaxTime = bounds(rows, rows.Table.Index(rows.Table.Range.Begin), sel, s.MinTime, s.MaxTime, first)
	if i := rows.Table.Index("insert_time"); i >= 0 {
		s.MinInsert, s.MaxInsert = bounds(rows, i, sel, s.MinInsert, s.MaxInsert, first)
	}
	if s.Processes == nil {
		s.Processes = make([]byte, catalog.ProcessBitmapBytes)
	}
	i := rows.Table.Index("process_id")
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
