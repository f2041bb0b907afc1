package query

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/tables"
)

// The SQL in this file is the service's own: it goes to the engine past the dialect, and nothing of it comes from a
// client but ids that were parsed as UUIDs.

// createView returns the statement that makes a TEMP view.
func createView(name, body string) string {
	return "CREATE OR REPLACE TEMP VIEW " + quoteName(name) + " AS " + body
}

// quoteName writes an identifier.
func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteText writes a text constant.
func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// timeConstant writes a time to the nanosecond.
func timeConstant(ns int64) string { return "make_timestamp_ns(" + strconv.FormatInt(ns, 10) + ")" }

// foreignColumn reports whether a column of blocks belongs to the block's stream or process.
func foreignColumn(name string) bool { return strings.Contains(name, ".") }

// scan writes the FROM item that reads files. Paths come newest first, and the engine keeps their order.
func scan(paths []string) string {
	var b strings.Builder
	b.WriteString("read_parquet([")
	for i, p := range paths {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteText(p))
	}
	b.WriteString("])")
	return b.String()
}

// rangeConditions writes the filter that a query's range puts on a table, "" without one. Columns are prefixed by prefix.
func rangeConditions(t *tables.Table, r *Range, prefix string) []string {
	if r == nil || t.Range.Begin == "" {
		return nil
	}
	var out []string
	if r.End < math.MaxInt64 {
		out = append(out, prefix+quoteName(t.Range.Begin)+" <= "+timeConstant(r.End))
	}
	if r.Begin > minEngineTime {
		out = append(out, prefix+quoteName(t.Range.End)+" >= "+timeConstant(t.Range.FirstEnd(r.Begin)))
	}
	return out
}

// minEngineTime is the earliest instant that the engine can hold: the numbers below mean minus infinity there.
const minEngineTime = -math.MaxInt64

func where(conditions ...string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

// columnList writes the columns of a table, each prefixed by prefix.
func columnList(t *tables.Table, prefix string) string {
	var b strings.Builder
	for i := range t.Columns {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(prefix + quoteName(t.Columns[i].Name))
	}
	return b.String()
}

// emptyRelation is a table's columns without a row. The engine has no Parquet scan of no file.
func emptyRelation(t *tables.Table) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i := range t.Columns {
		c := &t.Columns[i]
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "CAST(NULL AS %s) AS %s", c.DuckDBType(), quoteName(c.Name))
	}
	b.WriteString(" WHERE false")
	return b.String()
}

// fileRelation is a table read from its files, under the query's range and further conditions.
func fileRelation(t *tables.Table, paths []string, r *Range, conditions ...string) string {
	if len(paths) == 0 {
		return emptyRelation(t)
	}
	conditions = append(rangeConditions(t, r, ""), conditions...)
	if t.No == tables.NoLogStats {
		return logStatsRelation(paths, conditions)
	}
	return "SELECT " + columnList(t, "") + " FROM " + scan(paths) + where(conditions...)
}

// layerRelation is a table read from a FROM item, under the query's range.
func layerRelation(t *tables.Table, from string, r *Range) string {
	return "SELECT " + columnList(t, "") + " FROM " + from + where(rangeConditions(t, r, "")...)
}

// logStatsRelation adds up the counts of all files: a minute's entries come in several commits, each with its own rows.
func logStatsRelation(paths, conditions []string) string {
	return `SELECT "time_bin","process_id","level","target",CAST(sum("count") AS BIGINT) AS "count" FROM ` +
		scan(paths) + where(conditions...) + ` GROUP BY ALL`
}

// blocksRelation is the wide table of blocks: the blocks' own columns, from rows and from frozen files, beside those of their stream
// and process. A block whose stream or process is not registered yet is not listed. streams and processes are FROM items.
func blocksRelation(t *tables.Table, rows, frozen []string, streams, processes string, r *Range) string {
	if len(rows)+len(frozen) == 0 {
		return emptyRelation(t)
	}
	var b strings.Builder
	b.WriteString("SELECT ")
	for i := range t.Columns {
		name := t.Columns[i].Name
		if i > 0 {
			b.WriteByte(',')
		}
		owner, column, foreign := strings.Cut(name, ".")
		switch {
		case !foreign:
			b.WriteString("b." + quoteName(name))
		case owner == "streams":
			b.WriteString("s." + quoteName(column) + " AS " + quoteName(name))
		default:
			b.WriteString("p." + quoteName(column) + " AS " + quoteName(name))
		}
	}
	b.WriteString(" FROM (" + ownBlocks(rows, frozen) + ") b")
	b.WriteString(" JOIN " + streams + " s ON b.stream_id = s.stream_id")
	b.WriteString(" JOIN " + processes + " p ON b.process_id = p.process_id")
	b.WriteString(where(rangeConditions(t, r, "b.")...))
	return b.String()
}

// ownBlocks selects the blocks' own columns. The two kinds of files have other columns beside them, each its own, so each is a scan.
func ownBlocks(kinds ...[]string) string {
	var names, scans []string
	for _, f := range ownFields() {
		names = append(names, quoteName(f.Name))
	}
	for _, paths := range kinds {
		if len(paths) > 0 {
			scans = append(scans, "SELECT "+strings.Join(names, ",")+" FROM "+scan(paths))
		}
	}
	return strings.Join(scans, " UNION ALL ")
}

// constantRelation is a relation of constants: rows of SQL expressions under typed columns.
func constantRelation(columns []typedColumn, rows [][]string) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, c := range columns {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "CAST(c%d AS %s) AS %s", i, c.duckdb, quoteName(c.name))
	}
	if len(rows) == 0 {
		b.WriteString(" FROM (SELECT ")
		for i := range columns {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "NULL AS c%d", i)
		}
		b.WriteString(") WHERE false")
		return b.String()
	}
	b.WriteString(" FROM (VALUES ")
	for i, row := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("(" + strings.Join(row, ",") + ")")
	}
	b.WriteString(") t(")
	for i := range columns {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "c%d", i)
	}
	b.WriteString(")")
	return b.String()
}

// typedColumn is a column of a constant relation.
type typedColumn struct{ name, duckdb string }

// typedColumns returns the columns of a table as the engine types them.
func typedColumns(t *tables.Table) []typedColumn {
	out := make([]typedColumn, len(t.Columns))
	for i := range t.Columns {
		out[i] = typedColumn{t.Columns[i].Name, t.Columns[i].DuckDBType()}
	}
	return out
}
