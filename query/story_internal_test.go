package query

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// TestTraceOfTies writes rows of one time that differ in one column each: in whatever order they come, the trace is the same.
func TestTraceOfTies(t *testing.T) {
	dir := t.TempDir()
	c := engine.DefaultConfig()
	c.TempDir, c.AllowedDirs = filepath.Join(dir, "temp"), []string{dir}
	e, err := engine.Open(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	conn, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	type writer func(context.Context, *engine.Conn, string, *perfetto.Process) error
	f := func(name string, write writer, columns string, row, other []string) {
		t.Helper()
		rows := []string{strings.Join(row, ",")}
		for i := range row {
			if row[i] != other[i] {
				changed := slices.Clone(row)
				changed[i] = other[i]
				rows = append(rows, strings.Join(changed, ","))
			}
		}
		var first []byte
		for range rows {
			rows = append(rows[1:], rows[0])
			for range 2 {
				slices.Reverse(rows)
				var trace bytes.Buffer
				w := perfetto.New(func(chunk []byte) error { trace.Write(chunk); return nil }, (&story{}).options())
				err := write(t.Context(), conn, "SELECT * FROM (VALUES ("+strings.Join(rows, "),(")+")) v("+columns+")", w.Process(telemetry.ID{1}, "game.exe"))
				if err == nil {
					err = w.End()
				}
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if first == nil {
					first = trace.Bytes()
				} else if !bytes.Equal(first, trace.Bytes()) {
					t.Errorf("%s: another trace of %q", name, rows)
				}
			}
		}
	}
	const at, later = "make_timestamp_ns(7)", "make_timestamp_ns(8)"
	f("logs", writeLogs, `"time","level","target","msg"`, []string{at, "4", "'a'", "'a'"}, []string{at, "5", "'b'", "'b'"})
	f("measures", writeMeasures, `"time","name","unit","value"`, []string{at, "'a'", "'a'", "CAST(1 AS DOUBLE)"}, []string{at, "'b'", "'b'", "CAST(2 AS DOUBLE)"})
	f("net", writeNet, `"is_outgoing","connection_name","kind","name","depth","begin_time","end_time","bit_size","begin_bits"`,
		[]string{"true", "'a'", "'a'", "'a'", "1", at, later, "CAST(1 AS BIGINT)", "CAST(1 AS BIGINT)"},
		[]string{"false", "'b'", "'b'", "'b'", "2", at, at, "CAST(2 AS BIGINT)", "CAST(2 AS BIGINT)"})
	f("images", writeImages, `"time","name","format","data"`, []string{at, "'a'", "'jpg'", "'a'::BLOB"}, []string{at, "'b'", "'png'", "'b'::BLOB"})
	async := func(ctx context.Context, conn *engine.Conn, begins string, p *perfetto.Process) error {
		events := begins + ` UNION ALL SELECT * REPLACE ('end' AS event_type, make_timestamp_ns(epoch_ns("time") + 5 + "line") AS "time") FROM (` + begins + `)`
		return eachSpan(ctx, conn, asyncSpansOf(events, writtenOrder), p.Async().Span)
	}
	f("async", async, `"event_type","span_id","parent_span_id","depth","hash","time","name","target","filename","line"`,
		[]string{"'begin'", "CAST(1 AS BIGINT)", "CAST(2 AS BIGINT)", "CAST(1 AS UINTEGER)", "7", at, "'a'", "'a'", "'a'", "CAST(1 AS UINTEGER)"},
		[]string{"'begin'", "CAST(1 AS BIGINT)", "CAST(3 AS BIGINT)", "CAST(2 AS UINTEGER)", "7", at, "'b'", "'b'", "'b'", "CAST(2 AS UINTEGER)"})
}
