package functions

import "fmt"

// budget is what the functions that make large values may make of one chunk of rows, in bytes:
// DuckDB's memory limit does not count their results. Each thread computes a chunk at a time.
const budget = 128 << 20

func guardScalars() []Scalar {
	return []Scalar{
		{"mm_budget", []Type{Text, Float64}, Bool, spend},
		{"mm_shallow", []Type{Text}, JSON, stateless(shallow)},
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

// maxNesting is how deep the documents may be that DuckDB walks by recursion. It survives 10,000.
const maxNesting = 512

var errTooDeep = fmt.Errorf("limit: JSON is nested deeper than %d", maxNesting)

// shallow passes a document on, unless it is too deep.
func shallow(in *Args, out *Out) error {
	out.Text = in.Text[0]
	if nesting(in.Text[0]) > maxNesting {
		return errTooDeep
	}
	return nil
}

// nesting returns the depth of a text's brackets, also of a text that is no JSON.
func nesting(text string) int {
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}
