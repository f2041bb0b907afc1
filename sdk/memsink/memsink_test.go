package memsink_test

import (
	"cmp"
	"slices"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(*testing.T) sinktest.Opened {
		s := memsink.New(0)
		return sinktest.Opened{Sink: s, Arrived: func(*testing.T) (bodies [][]byte) {
			for _, r := range s.Requests() {
				bodies = append(bodies, r.Body)
			}
			return bodies
		}}
	})
}

func TestFullSinkDropsAllButRegistrations(t *testing.T) {
	s := memsink.New(10_000)
	s.Send(sinktest.Noise(sdk.ClassLogs, 9_000))
	s.Send(sinktest.Noise(sdk.ClassLogs, 2_000))
	s.Send(sinktest.Noise(sdk.ClassMetadata, 2_000))
	got := s.Stats()
	sinktest.CheckStats(t, got)
	if sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropQueueFull) != 1 || got.Delivered != 2 {
		t.Errorf("%+v", got)
	}
	s.Reset()
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests after a reset", n)
	}
	s.Send(sinktest.Noise(sdk.ClassLogs, 9_000))
	if got := s.Stats(); got.Delivered != 3 {
		t.Errorf("a reset makes no room: %+v", got)
	}
}

func TestDecodeGivesLogsMeasuresAndSpans(t *testing.T) {
	s := memsink.New(0)
	for _, r := range sinktest.Requests(6) {
		s.Send(r)
	}
	d, err := s.Decode()
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Processes) != 1 || len(d.Streams) != 3 || len(d.Blocks) != 6 {
		t.Fatalf("%d processes, %d streams, %d blocks", len(d.Processes), len(d.Streams), len(d.Blocks))
	}
	logs, err := d.Logs()
	if err != nil || len(logs) != 2 || logs[1].Msg != "message 3" || logs[1].Target != "sinktest" || logs[1].Time != 1_700_000_000_000_003_000 {
		t.Errorf("%+v, %v", logs, err)
	}
	measures, err := d.Measures()
	if err != nil || len(measures) != 2 || measures[1].Name != "measured" || measures[1].Value != 4 {
		t.Errorf("%+v, %v", measures, err)
	}
	spans, err := d.Objects(telemetry.TagCPU)
	if err != nil || len(spans) != 2 || spans[1].Type != "BeginThreadSpanEvent" || spans[1].Time != 1_700_000_000_000_005_000 {
		t.Errorf("%+v, %v", spans, err)
	} else if name := spans[0].Field("thread_span_desc").Object.Field("name").Text; name != "spanned" {
		t.Errorf("span %q", name)
	}
}

func TestLogsAndMeasuresComeInTheOrderOfTime(t *testing.T) {
	d, err := memsink.Decode(sinktest.Requests(30))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(d.Blocks)
	logs, err := d.Logs()
	if err != nil || len(logs) != 10 || !slices.IsSortedFunc(logs, func(a, b memsink.Log) int { return cmp.Compare(a.Time, b.Time) }) {
		t.Errorf("%+v, %v", logs, err)
	}
	measures, err := d.Measures()
	if err != nil || len(measures) != 10 ||
		!slices.IsSortedFunc(measures, func(a, b memsink.Measure) int { return cmp.Compare(a.Time, b.Time) }) {
		t.Errorf("%+v, %v", measures, err)
	}
}

func TestBlocksOfUnknownStreamsAreAnError(t *testing.T) {
	d, err := memsink.Decode(sinktest.Requests(1)[4:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Logs(); err == nil {
		t.Error("no error")
	}
	if _, err := memsink.Decode([]sdk.Request{sinktest.Noise(sdk.ClassLogs, 0)}); err == nil {
		t.Error("an empty body is no block")
	}
}
