// Package measures builds the view measures, a row per value of a metric.
package measures

import (
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Positions of the columns after those that all event views have.
const (
	columnName = materializers.ColumnTarget + 1 + iota
	columnUnit
	columnValue
	columnProperties
)

// View returns measures.
func View() materializers.View {
	table := tables.Must("measures")
	return materializers.View{
		Table: table, Tag: telemetry.TagMetrics, Order: columnar.NewOrder(table, "name", "process_id", "time"), Append: appendMeasures,
	}
}

func appendMeasures(dst *columnar.Rows, src *materializers.Source) (wire.Counts, error) {
	var (
		times   = &dst.Columns[materializers.ColumnTime]
		targets = &dst.Columns[materializers.ColumnTarget]
		names   = &dst.Columns[columnName]
		units   = &dst.Columns[columnUnit]
		values  = &dst.Columns[columnValue]
		props   = &dst.Columns[columnProperties]
		before  = dst.Columns[materializers.ColumnTime].Len()
	)
	limit := before + src.MaxRows
	counts, err := src.Decoder.Measures(src.Block, src.Clock, func(m *telemetry.Measure) error {
		if len(times.Ints) == limit {
			return materializers.ErrTooManyRows
		}
		times.Ints = append(times.Ints, src.Clock.Time(m.Ticks))
		targets.Index = append(targets.Index, targets.Dict.InternShared(m.Target))
		names.Index = append(names.Index, names.Dict.InternShared(m.Name))
		units.Index = append(units.Index, units.Dict.InternShared(m.Unit))
		values.Floats = append(values.Floats, m.Value)
		props.Index = append(props.Index, props.Dict.InternShared(m.Properties.JSON))
		return nil
	})
	if err != nil {
		return counts, err
	}
	src.Repeat(dst, times.Len()-before)
	return counts, nil
}
