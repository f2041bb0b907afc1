package query

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// spanOrder is the order of a thread's spans: parents before their children.
const spanOrder = `"begin","depth","id"`

// writtenOrder is spanOrder with all else that a trace has of a span, for spans that may have equal ids: those of a client that counts them wrong.
const writtenOrder = spanOrder + `,"end","parent","name","target","filename","line"`

// grantedRelation reads exactly what was granted: the files, in their order, and the spans that are open. Of a thread, rows come in
// spanOrder if that is wanted: sorting is left out where the files are in order as they are, and where nobody sees it, since a count
// would pay for it.
func grantedRelation(t *tables.Table, g *granted, r *Range, ordered bool) string {
	if len(g.paths)+len(g.Open) == 0 {
		return emptyRelation(t)
	}
	conditions := rangeConditions(t, neededOfFiles(t, r, g.Files), "")
	var scans []string
	for from := 0; from < len(g.paths); {
		to := from + 1
		for to < len(g.paths) && sameShift(&g.Files[from], &g.Files[to]) {
			to++
		}
		scans = append(scans, "SELECT "+shiftedColumns(t, &g.Files[from])+" FROM "+scan(g.paths[from:to])+where(conditions...))
		from = to
	}
	if len(g.Open) > 0 {
		scans = append(scans, constantRelation(typedColumns(t), spanRows(g.Open)))
	}
	all := strings.Join(scans, " UNION ALL ")
	if !ordered || t.No != tables.NoThreadSpans || inSpanOrder(g) {
		return all
	}
	return "SELECT * FROM (" + all + ") ORDER BY " + spanOrder
}

// neededOfFiles returns the part of a query's range that some of the files reach beyond; see needed.
func neededOfFiles(t *tables.Table, r *Range, files []bus.MaterializedFile) *Range {
	if r == nil {
		return nil
	}
	open := Range{Begin: math.MinInt64, End: math.MaxInt64}
	first := t.Range.FirstEnd(r.Begin)
	for i := range files {
		if files[i].MinTime < first {
			open.Begin = r.Begin
		}
		if files[i].MaxTime > r.End {
			open.End = r.End
		}
	}
	return &open
}

// inSpanOrder reports whether the files as they are, one after the other, are in spanOrder: each is, and none begins before the
// one before has ended.
func inSpanOrder(g *granted) bool {
	if len(g.Open) > 0 {
		return false
	}
	for i := 1; i < len(g.Files); i++ {
		if g.Files[i].MinTime <= g.Files[i-1].MaxTime {
			return false
		}
	}
	return true
}

// sameShift reports whether one scan may read both files.
func sameShift(a, b *bus.MaterializedFile) bool {
	return a.DepthShift == b.DepthShift && (a.DepthShift == 0 || a.ShiftFrom == b.ShiftFrom)
}

// shiftedColumns writes the columns of a file, with what must be added to the depth.
func shiftedColumns(t *tables.Table, f *bus.MaterializedFile) string {
	if f.DepthShift == 0 || t.Index("depth") < 0 {
		return columnList(t, "")
	}
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = quoteName(t.Columns[i].Name)
		if t.Columns[i].Name == "depth" {
			from := max(f.ShiftFrom, minEngineTime+1)
			names[i] = fmt.Sprintf(`CAST("depth" + CASE WHEN %s >= %s THEN %d ELSE 0 END AS UINTEGER) AS "depth"`,
				quoteName(t.Range.Begin), timeConstant(from), f.DepthShift)
		}
	}
	return strings.Join(names, ",")
}

// spanRows writes spans as rows of thread_spans.
func spanRows(spans []telemetry.Span) [][]string {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, compareSpans)
	rows := make([][]string, len(spans))
	for i := range spans {
		s := &spans[i]
		rows[i] = []string{
			strconv.FormatInt(s.ID, 10), strconv.FormatInt(s.Parent, 10), strconv.FormatUint(uint64(s.Depth), 10), strconv.FormatUint(uint64(s.Hash), 10),
			timeConstant(s.Begin), timeConstant(s.End), strconv.FormatInt(s.End-s.Begin, 10),
			quoteForeign(s.Name), quoteForeign(s.Target), quoteForeign(s.Filename), strconv.FormatUint(uint64(s.Line), 10),
		}
	}
	return rows
}

// compareSpans orders spans as spanOrder does.
func compareSpans(a, b telemetry.Span) int {
	return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.ID, b.ID))
}

// quoteForeign writes a text constant of what a client's program calls something: any bytes. The engine takes no zero byte in a
// statement, and no text that is not UTF-8.
func quoteForeign(s string) string {
	return strings.ReplaceAll(quoteText(strings.ToValidUTF8(s, "\uFFFD")), "\x00", "' || chr(0) || '")
}
