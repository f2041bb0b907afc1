package query

import (
	"context"
	"math"
	"strings"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// spanStreamsRelation is the result of span_streams(): blocks of the query's range, counted by stream.
func (r *run) spanStreamsRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	t, _ := tables.Function(f.Name)
	if r.unread() {
		return emptyRelation(t), nil
	}
	files, err := r.blockFiles(ctx, tables.Must("blocks"))
	if err != nil {
		return "", err
	}
	if len(files.rows)+len(files.frozen) == 0 {
		return emptyRelation(t), nil
	}
	// Streams are told apart first: most blocks are of others.
	streams := `SELECT "stream_id", "process_id", ` + streamTag + ` AS "tag", ` + threadNameText + ` AS "thread_name" FROM ` + files.streams
	counts := `SELECT "stream_id", CAST(count(*) AS BIGINT) AS "blocks", CAST(sum("nb_objects") AS BIGINT) AS "events",` +
		` CAST(sum("payload_size") AS BIGINT) AS "bytes", min("begin_time") AS "first", max("end_time") AS "last"` +
		` FROM (` + ownBlocks(files.rows, files.frozen) + `)` + where(meetsRange(r.req.Range)...) + ` GROUP BY "stream_id"`
	return `SELECT s."process_id", p."exe", s."stream_id", s."thread_name", s."tag", b."blocks", b."events", b."bytes", b."first", b."last"` +
		` FROM (` + counts + `) b JOIN (` + streams + `) s ON b."stream_id" = s."stream_id" JOIN ` + files.processes + ` p ON s."process_id" = p."process_id"` +
		where(`s."tag" IN (`+tagTexts(telemetry.TagCPU, telemetry.TagImage, telemetry.TagNet)+`)`), nil
}

// meetsRange writes the condition that a block has instants in common with a range.
func meetsRange(r *Range) []string {
	if r == nil {
		return nil
	}
	var out []string
	if r.End < math.MaxInt64 {
		out = append(out, `"begin_time" <= `+timeConstant(r.End))
	}
	if r.Begin > minEngineTime {
		out = append(out, `"end_time" >= `+timeConstant(firstEnd(r)))
	}
	return out
}

// streamTag is telemetry.TagOf in SQL, NULL for a family that is not known.
var streamTag = `list_filter("tags", lambda x: x IN (` + tagTexts(telemetry.TagLog, telemetry.TagMetrics, telemetry.TagCPU, telemetry.TagImage, telemetry.TagNet,
	telemetry.TagTrace) + `))[1]`

// threadNameText is telemetry.ThreadName in SQL.
const threadNameText = `concat_ws('-', NULLIF("properties"->>'thread-name', ''), COALESCE(NULLIF("properties"->>'thread-id', ''), "stream_id"))`

// tagTexts writes tags as a list of text constants.
func tagTexts(tags ...telemetry.Tag) string {
	texts := make([]string, len(tags))
	for i, tag := range tags {
		texts[i] = quoteText(tag.String())
	}
	return strings.Join(texts, ",")
}
