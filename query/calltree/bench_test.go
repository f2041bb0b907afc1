package calltree_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/micromegas-go/micromegas/query/calltree"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// benchSpans are the spans of a thread that calls some hundred functions up to ten deep, by some thousand paths.
func benchSpans(count int) []telemetry.Span {
	rng := rand.New(rand.NewPCG(7, 8))
	thread := []telemetry.Span{{ID: -1, End: 1 << 40, Name: "main-7"}}
	depth := uint32(0)
	for i := 1; i < count; i++ {
		depth = uint32(max(1, min(10, int(depth)+2-rng.IntN(4))))
		n := int(depth)*30 + rng.IntN(3)
		thread = append(thread, telemetry.Span{
			ID: int64(i), Depth: depth, Begin: int64(i) * 100, End: int64(i)*100 + 50,
			Name: fmt.Sprintf("game::world::tick_%d", n), Target: "game::world", Filename: "src/world/tick.rs", Line: uint32(n),
		})
	}
	return thread
}

func report(b *testing.B, tree *calltree.Tree, spans int) {
	b.ReportMetric(float64(spans)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mspans/s")
	b.ReportMetric(float64(len(tree.Paths())), "paths")
}

func BenchmarkRows(b *testing.B) {
	thread := benchSpans(100_000)
	tree := calltree.New(calltree.Options{})
	b.ReportAllocs()
	for b.Loop() {
		add(tree, thread)
	}
	report(b, tree, len(thread))
}

func BenchmarkColumns(b *testing.B) {
	thread := benchSpans(100_000)
	tree := calltree.New(calltree.Options{})
	c := columns(tree, thread)
	b.ReportAllocs()
	for b.Loop() {
		tree.Thread()
		tree.AddColumns(c)
	}
	report(b, tree, len(thread))
}

func BenchmarkMerge(b *testing.B) {
	part := add(calltree.New(calltree.Options{}), benchSpans(100_000))
	tree := calltree.New(calltree.Options{})
	for b.Loop() {
		tree.Merge(part)
	}
	b.ReportMetric(float64(len(part.Paths())), "paths")
}
