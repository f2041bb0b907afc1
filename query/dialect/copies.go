package dialect

import (
	"sync"

	"github.com/micromegas-go/micromegas/query/functions"
)

// The engine's macros write each argument into every place that names it. A call inside a call inside a call grows by the
// product, before anything runs and out of reach of a deadline: seven intervals taken from a timestamp one after the other
// cost eight seconds of planning. So the size of a statement after expansion is computed before the engine sees it.

// maxCopies bounds the nodes that expansion adds to a statement. At this size planning takes about half a second.
const maxCopies = 50_000

// checkCopies refuses a statement that grows too much.
func (r *rewriter) checkCopies(query *node) error {
	plain, expanded := measure(query, macroFactors())
	if expanded-plain <= maxCopies {
		return nil
	}
	return planError("the statement nests functions too deeply: it would grow by %.0f expressions", expanded-plain).
		withHint("compute inner values in a subquery, or use fewer casts inside one another")
}

// measure returns the number of expressions below n as written and after the macros are expanded.
func measure(n *node, factors map[string]int) (plain, expanded float64) {
	for _, m := range n.members {
		if m.value.kind != scalar && m.key != "value" && m.key != "cast_type" {
			p, e := measure(m.value, factors)
			plain, expanded = plain+p, expanded+e
		}
	}
	for _, item := range n.items {
		if item.kind != scalar {
			p, e := measure(item, factors)
			plain, expanded = plain+p, expanded+e
		}
	}
	if n.class() == "" {
		return plain, expanded
	}
	if f := factors[n.str("function_name")]; f > 1 {
		expanded *= float64(f)
	}
	return plain + 1, expanded + 1
}

// macroFactors returns how often each macro writes the argument that it writes most often, calls of other macros included.
var macroFactors = sync.OnceValue(func() map[string]int {
	factors := map[string]int{}
	tokens, err := lex(functions.Macros)
	if err != nil {
		panic(err) // the macros are part of the program
	}
	l := &lexed{sql: functions.Macros, tokens: tokens}
	for i := 0; i < len(tokens); i++ {
		if !tokens[i].is("macro") {
			continue
		}
		name := tokens[i+1].out
		if tokens[i+1].kind == quotedName {
			name = name[1 : len(name)-1]
		}
		i = l.macro(i+2, name, factors)
	}
	return factors
})

// macro reads the overloads (parameters) AS body of a macro from token i on and returns the last token of it.
func (l *lexed) macro(i int, name string, factors map[string]int) int {
	most := 1
	for l.peek(i).is("(") {
		end := l.closing(i)
		uses := map[string]int{}
		for _, t := range l.tokens[i+1 : end] {
			if t.kind == word || t.kind == quotedName {
				uses[t.out] = 0
			}
		}
		i = l.countUses(end+1, uses, factors)
		for _, n := range uses {
			most = max(most, n)
		}
		if !l.peek(i).is(",") {
			break
		}
		i++
	}
	factors[name] = max(factors[name], most)
	return i
}

// countUses adds up the uses of the parameters in a body, times the factors of the macros around them, and returns the
// token that ends the body: a semicolon, or the comma before the next overload.
func (l *lexed) countUses(i int, uses, factors map[string]int) int {
	around := []int{1}
	for ; i < len(l.tokens); i++ {
		t := &l.tokens[i]
		last := around[len(around)-1]
		switch {
		case t.is(";"), t.is(",") && len(around) == 1:
			return i
		case t.is("("), t.is("["), t.is("{"):
			if prev := l.peek(i - 1); t.out == "(" && prev.kind == word && factors[prev.out] > 1 && !l.peek(i-2).is(".") {
				last *= factors[prev.out]
			}
			around = append(around, last)
		case t.is(")"), t.is("]"), t.is("}"):
			if len(around) > 1 {
				around = around[:len(around)-1]
			}
		case t.kind == word || t.kind == quotedName:
			if _, ok := uses[t.out]; ok && !l.peek(i-1).is(".") && !l.peek(i+1).is("(") {
				uses[t.out] += last
			}
		}
	}
	return i
}
