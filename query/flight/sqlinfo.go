package flight

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// sqlInfo is what clients may ask about the server. Unknown questions are left out of the answer, as upstream does:
// drivers ask for more than they need.
func sqlInfo() map[flightsql.SqlInfo]any {
	return map[flightsql.SqlInfo]any{
		flightsql.SqlInfoFlightSqlServerName:         "Micromegas Flight SQL Server",
		flightsql.SqlInfoFlightSqlServerVersion:      "1",
		flightsql.SqlInfoFlightSqlServerArrowVersion: "1.3",
		flightsql.SqlInfoKeywords: []string{
			"ANALYZE", "DESCRIBE", "EXPLAIN", "FILTER", "ILIKE", "INTERVAL", "LIMIT", "OFFSET", "OVER", "PARTITION", "QUALIFY", "SHOW", "UNNEST", "WINDOW",
		},
		flightsql.SqlInfoNumericFunctions: []string{
			"abs", "acos", "asin", "atan", "atan2", "bin_center", "cbrt", "ceil", "cos", "degrees", "exp", "floor", "gcd", "lcm", "lerp", "ln", "log", "log10", "log2",
			"pi", "power", "radians", "round", "sign", "sin", "sqrt", "tan", "trunc", "unlerp",
		},
		flightsql.SqlInfoStringFunctions: []string{
			"ascii", "btrim", "char_length", "chr", "concat", "concat_ws", "contains", "initcap", "left", "length", "lower", "lpad", "ltrim", "position", "regexp_like",
			"regexp_replace", "repeat", "replace", "reverse", "right", "rpad", "rtrim", "split_part", "starts_with", "strpos", "substr", "to_hex", "translate", "trim", "upper",
		},
		flightsql.SqlInfoSystemFunctions: []string{"arrow_cast", "arrow_typeof", "coalesce", "nullif"},
		flightsql.SqlInfoDateTimeFunctions: []string{
			"current_date", "current_timestamp", "date_bin", "date_part", "date_trunc", "from_unixtime", "now", "to_char", "to_date", "to_timestamp",
			"to_timestamp_micros", "to_timestamp_millis", "to_timestamp_nanos", "to_timestamp_seconds", "to_unixtime",
		},
	}
}

func (c *commands) registerInfo() error {
	for id, v := range sqlInfo() {
		if err := c.RegisterSqlInfo(id, v); err != nil {
			return err
		}
		c.infoIDs = append(c.infoIDs, uint32(id))
	}
	slices.Sort(c.infoIDs)
	return nil
}

// asked is a request for known ids.
type asked []uint32

func (a asked) GetInfo() []uint32 { return a }

// DoGetSqlInfo answers what is known of what is asked; nothing asked means all.
//
//nolint:revive // the name is that of the interface it implements
func (c *commands) DoGetSqlInfo(ctx context.Context, q flightsql.GetSqlInfo) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	want := asked(c.infoIDs)
	if len(q.GetInfo()) > 0 {
		want = nil
		for _, id := range q.GetInfo() {
			if _, known := slices.BinarySearch(c.infoIDs, id); known {
				want = append(want, id)
			}
		}
		if len(want) == 0 {
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema_ref.SqlInfo)
			defer b.Release()
			return schema_ref.SqlInfo, chunk(b.NewRecordBatch()), nil
		}
	}
	return c.BaseServer.DoGetSqlInfo(ctx, want)
}
