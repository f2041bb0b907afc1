package deploy

import (
	"strings"
	"testing"
)

const benchOutput = `goos: linux
pkg: github.com/micromegas-go/micromegas/sdk/peers
BenchmarkLatency/log_with_3_arguments-2   112960   21.00 clock-ns   613340 max-ns   20.00 p50-ns   395.0 p99.9-ns
BenchmarkLatency/log_with_3_arguments-2   112960   22.00 clock-ns   500000 max-ns   24.00 p50-ns   400.0 p99.9-ns
BenchmarkLog/micromegas/1-2   3933571   9.90 ns/op   0 B/op   0 allocs/op
BenchmarkLog/micromegas/1-2   3933571   15.40 ns/op   8 B/op   0 allocs/op
BenchmarkLog/micromegas/2-2   3933571    9.50 ns/op   0 B/op   0 allocs/op
BenchmarkLog/zerolog/1-2      483566   153.2 ns/op   0 B/op   0 allocs/op
BenchmarkLog/zap/1-2          248626   133.5 ns/op   0 B/op   1 allocs/op
BenchmarkLogArgs/micromegas/1-2   10   25 ns/op   16 B/op   0 allocs/op
BenchmarkContextSpan/micromegas/1-2   10   40 ns/op   96 B/op   2 allocs/op
BenchmarkClock/micromegas/1-2   7446753   8.0 ns/op   0 B/op   0 allocs/op
BenchmarkClock/time.Now/1-2   1000000   45 ns/op   0 B/op   0 allocs/op
Benchmark
--- SKIP: BenchmarkLog/zap/2
PASS
`

func TestRowsOfTheSDK(t *testing.T) {
	results := parseBench(benchOutput)
	rows := append(sdkCallRows(results, benchResults{"Log/near": {"ns/op": 9}, "Clock": {"ns/op": 7}}), sdkLatencyRows(results)...)
	want := []struct {
		name, mark, peer string
		figure           float64
		met              string
	}{
		{"SDK: clock read", "", "time.Now", 7, "none"},
		{"SDK: log, static", "≤ 10, 0 allocs", "zap", 9.9, "yes"},
		{"SDK: log, static, two goroutines, per event of both", "", "", 9.5, "none"},
		{"SDK: log, 3 arguments", "≤ 20, 0 allocs", "", 25, "no"},
		{"SDK: span in a context, without parent", "≤ 45, 1 allocs", "", 40, "no"}, // one allocation too many
		{"SDK: log with 3 arguments, single call, p99.9", "", "", 395, "none"},
	}
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %d: %+v", len(rows), len(want), rows)
	}
	for i, w := range want {
		r, met := rows[i], "none"
		if r.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*r.Met]
		}
		if r.Name != w.name || r.Mark != w.mark || r.Peer != w.peer || r.Figure != w.figure || met != w.met {
			t.Errorf("row %d is %+v, met %s; want %+v", i, r, met, w)
		}
	}
	if note := rows[1].Note; note != "0 allocs; 9.00 to lines that no other core read; zap 134, 1 allocs; zerolog 153, 0 allocs" {
		t.Errorf("note %q", note)
	}
	if note := rows[5].Note; !strings.HasPrefix(note, "p50 20.0, max 500000;") {
		t.Errorf("note %q", note)
	}
}

func TestSDKIsNotMeasuredWithoutSources(t *testing.T) {
	t.Chdir(t.TempDir())
	rows, err := benchSDK(t.Context(), &bench{})
	if err != nil || len(rows) != 1 || !strings.HasPrefix(rows[0].Note, "not measured: no ") {
		t.Errorf("%+v, %v", rows, err)
	}
}

func TestRowsAsMarkdown(t *testing.T) {
	var out strings.Builder
	if err := printMarkdown(&out, []row{atMost("a|b", 3, "ns", 2).beside("zap", 20)}); err != nil {
		t.Fatal(err)
	}
	want := "| what | figure | unit | mark | met | beside | note |\n|---|---|---|---|---|---|---|\n| a\\|b | 3.00 | ns | ≤ 2 | missed | zap 20.0 |  |\n"
	if _, table, _ := strings.Cut(out.String(), "\n\n"); table != want {
		t.Errorf("%s", out.String())
	}
}
