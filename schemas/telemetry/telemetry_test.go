package telemetry_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func TestParseIDAcceptsTheFormsOfProducers(t *testing.T) {
	const want = "0634ee82-b747-5e34-8aac-e22e091284ea"
	for _, s := range []string{
		want, strings.ToUpper(want), strings.ReplaceAll(want, "-", ""), "{" + want + "}", "urn:uuid:" + want, "URN:UUID:" + strings.ToUpper(want),
	} {
		id, err := telemetry.ParseID(s)
		if err != nil || id.String() != want {
			t.Errorf("%q: %s, %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "x", want[:35], want + "0", "{" + want + ")", strings.ReplaceAll(want, "-", "_"), strings.Replace(want, "e", "g", 1),
		"0634ee8-2b747-5e34-8aac-e22e091284ea", "urn:uuix:" + want, strings.Replace(want, "b", "\x00", 1),
	} {
		if id, err := telemetry.ParseID(s); !errors.Is(err, telemetry.ErrBadID) || !id.IsZero() {
			t.Errorf("%q: %s, %v", s, id, err)
		}
	}
}

func TestNewIDsAreRandomUUIDs(t *testing.T) {
	a, b := telemetry.NewID(), telemetry.NewID()
	if a == b || a.IsZero() || a.Compare(b) == 0 {
		t.Errorf("%s and %s", a, b)
	}
	if s := a.String(); s[14] != '4' || !strings.ContainsRune("89ab", rune(s[19])) {
		t.Errorf("%s is not of version 4", s)
	}
	if back, err := telemetry.ParseID(a.String()); err != nil || back != a {
		t.Errorf("%s, %v", back, err)
	}
}

func TestTagOfNamesTheFamily(t *testing.T) {
	for tag := telemetry.TagLog; tag <= telemetry.TagTrace; tag++ {
		if got := telemetry.TagOf([]string{"mine", tag.String()}); got != tag {
			t.Errorf("%s: %s", tag, got)
		}
	}
	if got := telemetry.TagOf([]string{"mine", "unknown"}); got != telemetry.TagOther {
		t.Errorf("tags of no family: %s", got)
	}
	eager := []telemetry.Tag{telemetry.TagUnknown, telemetry.TagLog, telemetry.TagMetrics}
	for tag := telemetry.TagUnknown; tag <= telemetry.TagOther; tag++ {
		if tag.Eager() != slices.Contains(eager, tag) {
			t.Errorf("%s: eager is %v", tag, tag.Eager())
		}
	}
}

func TestPropertySetsAreSortedAndUnique(t *testing.T) {
	s := telemetry.NewPropertySet([]telemetry.Property{prop("b", "1"), prop("a", "x"), prop("b", "2"), prop("c", ""), prop("a", "y")})
	if diff := cmp.Diff([]telemetry.Property{prop("a", "y"), prop("b", "2"), prop("c", "")}, s.Props); diff != "" {
		t.Error(diff)
	}
	if s.JSON != `{"a":"y","b":"2","c":""}` {
		t.Error(s.JSON)
	}
	if v, ok := s.Lookup("b"); !ok || v != "2" {
		t.Error(v, ok)
	}
	if _, ok := s.Lookup("d"); ok {
		t.Error("found a key that is not there")
	}
	if telemetry.NewPropertySet(nil) != telemetry.EmptyProperties || telemetry.EmptyProperties.JSON != "{}" {
		t.Error("the empty set is not shared")
	}
	unsorted := []telemetry.Property{prop("z", "1"), prop("a", "2")}
	if got := telemetry.PropertiesJSON(unsorted); got != `{"a":"2","z":"1"}` || unsorted[0].Key != "z" {
		t.Errorf("%s, %v", got, unsorted)
	}
}

func TestJSONStringsAreEscapedAsServersDo(t *testing.T) {
	for in, want := range map[string]string{
		"":                   `""`,
		"plain / ünï 日本 🚀":   `"plain / ünï 日本 🚀"`,
		"q\"b\\":             `"q\"b\\"`,
		"\b\f\n\r\t\x01\x1f": `"\b\f\n\r\t\u0001\u001f"`,
		"\x7f<>&":            "\"\x7f<>&\"",
		"a\xffb\xc3":         "\"a\uFFFDb\uFFFD\"",
	} {
		if got := string(telemetry.AppendJSONString(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestClockConvertsTicks(t *testing.T) {
	start := time.Date(2026, 11, 20, 22, 4, 38, 603_166_435, time.UTC).UnixNano()
	p := telemetry.Process{TSCFrequency: 2_000_000_000, StartTime: start, StartTicks: 1_000}
	c, err := telemetry.NewClock(p, telemetry.Block{})
	if err != nil {
		t.Fatal(err)
	}
	micro := start - 435
	for _, row := range []struct{ ticks, want int64 }{{1_000, micro}, {1_001, micro + 1}, {1_003, micro + 2}, {999, micro - 1}, {3_000, micro + 1_000}} {
		if got := c.Time(row.ticks); got != row.want {
			t.Errorf("ticks %d: %d, want %d", row.ticks, got-micro, row.want-micro)
		}
	}
	if got := c.DurationMs(3_000_000); got != 1.5 {
		t.Errorf("duration %v", got)
	}
	for ticks, want := range map[int64]int64{math.MaxInt64: math.MaxInt64/2 + micro, math.MinInt64: math.MinInt64/2 + micro} {
		if got := c.Relative(ticks); math.Abs(float64(got)-float64(want)) > 1024 {
			t.Errorf("relative %d: %d, want about %d", ticks, got, want)
		}
	}
	p.TSCFrequency = 1
	if c, err = telemetry.NewClock(p, telemetry.Block{}); err != nil {
		t.Fatal(err)
	}
	if got := c.Relative(math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("far future: %d", got)
	}
	if got := c.Relative(math.MinInt64); got != math.MinInt64 {
		t.Errorf("far past: %d", got)
	}
}

func TestClockEstimatesAnUnknownFrequency(t *testing.T) {
	start := time.Date(2026, 11, 20, 22, 4, 38, 603_166_435, time.UTC).UnixNano()
	p := telemetry.Process{StartTime: start}
	b := telemetry.Block{EndTime: start + 700_000_000, EndTicks: 1_400_000_001}
	c, err := telemetry.NewClock(p, b)
	if err != nil {
		t.Fatal(err)
	}
	// 1,400,000,001 ticks in 0.7 s are 2,000,000,001.43 a second, rounded to 2,000,000,001.
	if got, want := c.DurationMs(2_000_000_001), 1000.0; math.Abs(got-want) > 1e-9 {
		t.Errorf("a second of ticks is %v ms", got)
	}
	for name, b := range map[string]telemetry.Block{
		"no time":        {EndTime: start, EndTicks: 5},
		"no ticks":       {EndTime: start + 1e9},
		"ends before":    {EndTime: start - 1e9, EndTicks: 5},
		"negative ticks": {EndTime: start + 1e9, EndTicks: -5},
	} {
		if _, err := telemetry.NewClock(p, b); !errors.Is(err, telemetry.ErrNoFrequency) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.StartTime = math.MinInt64
	if _, err := telemetry.NewClock(p, telemetry.Block{EndTime: math.MaxInt64, EndTicks: math.MaxInt64}); err != nil {
		t.Errorf("the longest process: %v", err)
	}
}

func TestTruncateMicrosGoesToThePast(t *testing.T) {
	for in, want := range map[int64]int64{0: 0, 999: 0, 1_000: 1_000, -1: -1_000, -1_000: -1_000, -1_001: -2_000, math.MaxInt64: math.MaxInt64 - 807} {
		if got := telemetry.TruncateMicros(in); got != want {
			t.Errorf("%d: %d, want %d", in, got, want)
		}
	}
	if got := telemetry.TruncateMicros(math.MinInt64); got > math.MinInt64+1000 {
		t.Errorf("the first time: %d", got)
	}
}

func prop(key, value string) telemetry.Property { return telemetry.Property{Key: key, Value: value} }
