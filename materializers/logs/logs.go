// Package logs builds the views log_entries, a row per log entry, and log_stats, which counts them.
package logs

import (
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Positions of the columns after those that all event views have.
const (
	columnLevel = materializers.ColumnTarget + 1 + iota
	columnMsg
	columnProperties
)

// View returns log_entries, with log_stats derived from it.
func View() materializers.View {
	entries, stats := tables.Must("log_entries"), tables.Must("log_stats")
	return materializers.View{
		Table: entries, Tag: telemetry.TagLog, Order: columnar.NewOrder(entries, "process_id", "time"), Append: appendEntries,
		Derived: []materializers.Derived{{
			Table: stats, Append: appendStats,
			Order: columnar.NewOrder(stats, "time_bin", "process_id", "level", "target").Summing(stats, "count"),
		}},
	}
}

func appendEntries(dst *columnar.Rows, src *materializers.Source) (wire.Counts, error) {
	var (
		times   = &dst.Columns[materializers.ColumnTime]
		targets = &dst.Columns[materializers.ColumnTarget]
		levels  = &dst.Columns[columnLevel]
		msgs    = &dst.Columns[columnMsg]
		props   = &dst.Columns[columnProperties]
		before  = dst.Columns[materializers.ColumnTime].Len()
	)
	limit := before + src.MaxRows
	counts, err := src.Decoder.Logs(src.Block, func(e *telemetry.LogEntry) error {
		if len(times.Ints) == limit {
			return materializers.ErrTooManyRows
		}
		times.Ints = append(times.Ints, src.Clock.Time(e.Ticks))
		targets.Index = append(targets.Index, targets.Dict.InternShared(e.Target))
		levels.Ints = append(levels.Ints, int64(e.Level))
		msgs.Index = append(msgs.Index, msgs.Dict.Append(e.Msg))
		props.Index = append(props.Index, props.Dict.InternShared(e.Properties.JSON))
		return nil
	})
	if err != nil {
		return counts, err
	}
	src.Repeat(dst, times.Len()-before)
	return counts, nil
}
