package jsonb

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// ErrPathTooCostly is the error of an evaluation that used up its visits.
var ErrPathTooCostly = errors.New("JSONPath visits too many values")

// Path is a compiled JSONPath. It may be used by several goroutines.
//
//	$ .name :name ."quoted" ["quoted"]   root and members
//	.* [*]                               all members, all elements
//	[i] [i,j] [i to j] [last - n] [-1]   elements
//	.** .**{2} .**{1 to 3}               the value and its descendants, by level
//	?(@.a == "x" && @.b > 1)             filters
//
// A path may begin with a member's name instead of $. A whole path may also be a predicate, as
// in $.a > 1, whose result is true or false.
type Path struct {
	steps     []step
	predicate expr // instead of steps
}

type stepKind uint8

const (
	stepMember stepKind = iota
	stepAllMembers
	stepAllElements
	stepElements
	stepRecursive
	stepFilter
)

type step struct {
	kind     stepKind
	name     string
	ranges   []indexRange // of stepElements
	from, to int          // levels of stepRecursive
	filter   expr
}

// index is an element's position, counted from the end when fromLast is set.
type index struct {
	n        int
	fromLast bool
}

type indexRange struct{ from, to index }

func (x index) resolve(length int) int {
	if x.fromLast || x.n < 0 {
		offset := x.n
		if x.fromLast {
			offset--
		}
		return length + offset
	}
	return x.n
}

// Query returns the values that the path selects, in document order. The values belong to doc.
// Each value it looks at costs one of visits, which is decreased: .** repeated would visit a
// power of the document's size, and nobody can interrupt it.
func (p *Path) Query(doc *Value, visits *int) ([]*Value, error) {
	e := evaluation{root: doc, visits: visits}
	if p.predicate != nil {
		truth, err := p.predicate.truth(&e, doc)
		if err != nil {
			return nil, err
		}
		v := BoolValue(truth)
		return []*Value{&v}, nil
	}
	return e.walk([]*Value{doc}, p.steps)
}

type evaluation struct {
	root   *Value
	visits *int
}

func (e *evaluation) visit() error {
	if *e.visits--; *e.visits < 0 {
		return ErrPathTooCostly
	}
	return nil
}

func (e *evaluation) walk(values []*Value, steps []step) ([]*Value, error) {
	for i := range steps {
		var next []*Value
		for _, v := range values {
			if err := e.visit(); err != nil {
				return nil, err
			}
			var err error
			if next, err = e.step(next, v, &steps[i]); err != nil {
				return nil, err
			}
		}
		values = next
	}
	return values, nil
}

// step appends what one step selects below v.
func (e *evaluation) step(out []*Value, v *Value, s *step) ([]*Value, error) {
	switch s.kind {
	case stepMember:
		for i := range v.Members {
			if v.Members[i].Key == s.name {
				out = append(out, &v.Members[i].Value)
			}
		}
	case stepAllMembers:
		for i := range v.Members {
			out = append(out, &v.Members[i].Value)
		}
	case stepAllElements:
		for i := range v.Items {
			out = append(out, &v.Items[i])
		}
	case stepElements:
		return e.elements(out, v, s.ranges)
	case stepRecursive:
		return e.descend(out, v, s, 0)
	case stepFilter:
		truth, err := s.filter.truth(e, v)
		if err != nil {
			return nil, err
		}
		if truth {
			out = append(out, v)
		}
	}
	return out, nil
}

func (e *evaluation) elements(out []*Value, v *Value, ranges []indexRange) ([]*Value, error) {
	for _, r := range ranges {
		from, to := r.from.resolve(len(v.Items)), r.to.resolve(len(v.Items))
		for i := max(from, 0); i <= min(to, len(v.Items)-1); i++ {
			if err := e.visit(); err != nil {
				return nil, err
			}
			out = append(out, &v.Items[i])
		}
	}
	return out, nil
}

func (e *evaluation) descend(out []*Value, v *Value, s *step, level int) ([]*Value, error) {
	if err := e.visit(); err != nil {
		return nil, err
	}
	if level >= s.from && level <= s.to {
		out = append(out, v)
	}
	if level >= s.to {
		return out, nil
	}
	var err error
	for i := range v.Items {
		if out, err = e.descend(out, &v.Items[i], s, level+1); err != nil {
			return nil, err
		}
	}
	for i := range v.Members {
		if out, err = e.descend(out, &v.Members[i].Value, s, level+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// expr is a node of a filter: it has a truth, or values, or both.
type expr interface {
	truth(e *evaluation, current *Value) (bool, error)
	values(e *evaluation, current *Value) ([]*Value, error)
}

var errNotPredicate = errors.New("a value is used as a condition")

// pathExpr is $… or @….
type pathExpr struct {
	current bool
	steps   []step
}

func (p *pathExpr) values(e *evaluation, current *Value) ([]*Value, error) {
	from := e.root
	if p.current {
		from = current
	}
	return e.walk([]*Value{from}, p.steps)
}

// truth of a path alone: it selects something that is true.
func (p *pathExpr) truth(e *evaluation, current *Value) (bool, error) {
	vs, err := p.values(e, current)
	for _, v := range vs {
		if v.Kind == True {
			return true, err
		}
	}
	return false, err
}

type literal struct{ v Value }

func (l *literal) values(*evaluation, *Value) ([]*Value, error) { return []*Value{&l.v}, nil }
func (l *literal) truth(*evaluation, *Value) (bool, error)      { return l.v.Kind == True, nil }
func boolValues(b bool, err error) ([]*Value, error)            { v := BoolValue(b); return []*Value{&v}, err }

func (x *logic) values(e *evaluation, c *Value) ([]*Value, error) { return boolValues(x.truth(e, c)) }

// logic is && || ! and exists.
type logic struct {
	op          string
	left, right expr
}

func (x *logic) truth(e *evaluation, current *Value) (bool, error) {
	if x.op == "exists" {
		vs, err := x.left.values(e, current)
		return len(vs) > 0, err
	}
	left, err := x.left.truth(e, current)
	if err != nil {
		return false, err
	}
	switch {
	case x.op == "!":
		return !left, nil
	case x.op == "&&" && !left, x.op == "||" && left:
		return left, nil
	default:
		return x.right.truth(e, current)
	}
}

// comparison is true when any pair of values of its sides compares.
type comparison struct {
	op          string
	left, right expr
}

func (x *comparison) values(e *evaluation, c *Value) ([]*Value, error) {
	return boolValues(x.truth(e, c))
}

func (x *comparison) truth(e *evaluation, current *Value) (bool, error) {
	left, err := x.left.values(e, current)
	if err != nil {
		return false, err
	}
	right, err := x.right.values(e, current)
	if err != nil {
		return false, err
	}
	for _, a := range left {
		for _, b := range right {
			if err := e.visit(); err != nil {
				return false, err
			}
			if compare(x.op, a, b) {
				return true, nil
			}
		}
	}
	return false, nil
}

func compare(op string, a, b *Value) bool {
	switch op {
	case "==":
		return a.Equal(b)
	case "!=":
		return !a.Equal(b)
	case "starts with":
		return a.Kind == String && b.Kind == String && strings.HasPrefix(a.Str, b.Str)
	}
	var c int
	switch {
	case a.IsNumber() && b.IsNumber():
		if c = compareNumbers(a, b); c == 2 {
			return false
		}
	case a.Kind == String && b.Kind == String:
		c = strings.Compare(a.Str, b.Str)
	case isBool(a) && isBool(b):
		c = int(a.Kind) - int(b.Kind)
	default:
		return false
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default:
		return c >= 0
	}
}

func isBool(v *Value) bool { return v.Kind == True || v.Kind == False }

// arithmetic computes over the first number of each side; anything else gives no value.
type arithmetic struct {
	op          byte
	left, right expr
}

func (x *arithmetic) truth(*evaluation, *Value) (bool, error) { return false, errNotPredicate }

func (x *arithmetic) values(e *evaluation, current *Value) ([]*Value, error) {
	left, err := x.left.values(e, current)
	if err != nil {
		return nil, err
	}
	right, err := x.right.values(e, current)
	if err != nil {
		return nil, err
	}
	if len(left) != 1 || len(right) != 1 {
		return nil, nil
	}
	v, ok := calculate(x.op, left[0], right[0])
	if !ok {
		return nil, nil
	}
	return []*Value{&v}, nil
}

func calculate(op byte, a, b *Value) (Value, bool) {
	if i, ok := a.Int64(); ok && a.Kind != Float && b.Kind != Float {
		if j, ok := b.Int64(); ok {
			if v, ok := calculateInt(op, i, j); ok {
				return v, true
			}
		}
	}
	f, ok1 := a.Float64()
	g, ok2 := b.Float64()
	if !ok1 || !ok2 {
		return Value{}, false
	}
	switch op {
	case '+':
		return FloatValue(f + g), true
	case '-':
		return FloatValue(f - g), true
	case '*':
		return FloatValue(f * g), true
	case '/':
		return FloatValue(f / g), g != 0
	default:
		return FloatValue(math.Mod(f, g)), g != 0
	}
}

// calculateInt gives exact results where there are any; others are left to floats.
func calculateInt(op byte, i, j int64) (Value, bool) {
	switch op {
	case '+':
		return IntValue(i + j), (i+j > i) == (j > 0)
	case '-':
		return IntValue(i - j), (i-j < i) == (j > 0)
	case '*':
		const half = 1 << 31
		return IntValue(i * j), i < half && i > -half && j < half && j > -half
	case '%':
		if j == 0 || j == -1 {
			return Value{}, false
		}
		return IntValue(i % j), true
	default:
		if j == 0 || j == -1 || i%j != 0 {
			return Value{}, false
		}
		return IntValue(i / j), true
	}
}

// PathError is the error of a text that is no JSONPath.
type PathError struct {
	Offset  int
	Message string
}

func (e *PathError) Error() string { return fmt.Sprintf("%s at byte %d", e.Message, e.Offset) }
