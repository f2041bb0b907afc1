package query_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/querytest"
)

// measure is a row of measures.
func measure(at float64, name string, value float64) querytest.Row {
	return querytest.Row{
		"process_id": querytest.P1.String(), "stream_id": querytest.StreamID(2).String(), "block_id": querytest.BlockID(1).String(),
		"insert_time": querytest.At(at + 1), "time": querytest.At(at), "exe": "game.exe", "target": "game", "name": name, "unit": "ms", "value": value,
		"properties": "{}", "process_properties": "{}",
	}
}

// storyOf is a statement of a trace with the measures of P1.
func storyOf(columns string) string {
	return ids("SELECT " + columns + " FROM perfetto_trace('" + querytest.P1.String() + "', 'measures', TIMESTAMP '2026-03-01T10:00:00Z', TIMESTAMP '2026-03-01T11:00:00Z')")
}

// TestStoryOfManyMeasures has one measure more than a trace shows.
func TestStoryOfManyMeasures(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	a := spanAsker{t, h.Dial(t, "")}
	f := func(want ...string) {
		t.Helper()
		for _, columns := range []string{"*", "count(*)"} { // streamed, and from a file
			if got := a.warnings(storyOf(columns), span(0, 3600)); !slices.Equal(got, want) {
				t.Errorf("%s: warnings %q, want %q", columns, got, want)
			}
		}
	}
	f()
	var rows []querytest.Row
	for i := range 1000 {
		rows = append(rows, measure(1, fmt.Sprintf("m%04d", i), 1), measure(2, fmt.Sprintf("m%04d", i), 2))
	}
	h.Partition(t, "measures", rows...)
	f()
	h.Partition(t, "measures", measure(3, "other", 3))
	f("process " + querytest.P1.String() + " has 1001 measures in the range; those after the first 1000, by name, are not in the trace")
}

// TestWhatHasNoPlaceInATrace has a value that no curve shows.
func TestWhatHasNoPlaceInATrace(t *testing.T) {
	var log bytes.Buffer
	h := newSpanHouse(t, querytest.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	h.spanFixture(t)
	f := func(sql string, want bool) {
		t.Helper()
		log.Reset()
		answer, err := h.Service.Query(t.Context(), query.Request{SQL: sql})
		if err != nil {
			t.Fatal(err)
		}
		for batch, err := answer.Next(); err == nil; batch, err = answer.Next() {
			batch.Release()
		}
		if err := answer.Close(); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), "query_id="+answer.QueryID) && strings.Contains(log.String(), "left_out=1"); got != want {
			t.Errorf("%s: logged %q", sql, log.String())
		}
	}
	h.Partition(t, "measures", measure(1, "frame", 16))
	f(storyOf("*"), false)
	h.Partition(t, "measures", measure(2, "frame", math.NaN()))
	f(storyOf("*"), true)
	f(storyOf("count(*)"), true)
}
