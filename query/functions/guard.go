package functions

import "fmt"

// budget is what the functions that make large values may make of one chunk of rows, in bytes:
// DuckDB's memory limit does not count their results. Each thread computes a chunk at a time.
const budget = 128 << 20

func guardScalars() []Scalar {
	return []Scalar{
		{"mm_budget", []Type{Text, Float64}, Bool, spend},
		{"mm_arrow_name", []Type{Text, Text}, Text, stateless(arrowName)},
	}
}

// spend adds up the sizes that a function asks for; true as long as the budget lasts.
func spend() Row {
	spent := 0.0
	return func(in *Args, out *Out) error {
		if spent += max(in.Float[1], 0); !(spent <= budget) { // also for NaN
			return fmt.Errorf("limit: %s would take more than %d Mi bytes or steps", in.Text[0], budget>>20)
		}
		out.Int = 1
		return nil
	}
}
