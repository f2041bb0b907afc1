package query_test

import (
	"fmt"
	"testing"

	"github.com/micromegas-go/micromegas/query/querytest"
)

// loadCalls fills the threads S3 and S4 with spans of some hundred functions, up to ten deep, and returns how many there are.
func (h *spanHouse) loadCalls(t testing.TB, blocks, perBlock int) int {
	t.Helper()
	h.spanFixture(t)
	var bodies [][]byte
	for i := range blocks {
		stream := 3 + i%2
		begin := 100 + float64(i)*10
		var events []spanEvent
		var open []string
		for k := 0; len(events)+len(open) < perBlock; k++ {
			at := begin + float64(len(events))*0.0001
			if len(open) > 0 && (len(open) == 10 || k%3 == 2) {
				events = append(events, e(open[len(open)-1], at))
				open = open[:len(open)-1]
				continue
			}
			name := fmt.Sprintf("game::world::tick_%d", len(open)*12+k%7)
			fixtureScopes[name] = fixtureScopes["Update"]
			events = append(events, b(name, at))
			open = append(open, name)
		}
		for len(open) > 0 {
			events = append(events, e(open[len(open)-1], begin+float64(len(events))*0.0001))
			open = open[:len(open)-1]
		}
		bodies = append(bodies, spanBody(1000+i, stream, begin, begin+10, int64(1000+i/2*perBlock), events...))
	}
	h.store(t, nil, nil, bodies...)
	return blocks * perBlock / 2
}

// BenchmarkCallTree adds up two threads' spans that are built already.
func BenchmarkCallTree(b *testing.B) {
	h := newSpanHouse(b, querytest.Options{}, nil)
	spans := h.loadCalls(b, 100, 20_000)
	c := h.Dial(b, "")
	sql := ids("SELECT count(*) AS paths, sum(calls) AS calls FROM call_tree('P1','thread')")
	got, err := ask(b.Context(), c, sql, span(90, 3600))
	if want := fmt.Sprintf("36,%d", spans); err != nil || got != want {
		b.Fatalf("got %s, %v, want %s", got, err, want)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ask(b.Context(), c, sql, span(90, 3600)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(spans)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mspans/s")
}
