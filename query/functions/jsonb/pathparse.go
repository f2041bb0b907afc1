package jsonb

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPathDepth bounds the nesting of a path's expressions.
const maxPathDepth = 64

// CompilePath reads a JSONPath. Its error is a *PathError.
func CompilePath(text string) (*Path, error) {
	if !utf8.ValidString(text) {
		return nil, &PathError{0, "path is not UTF-8"}
	}
	p := pathParser{s: text}
	x, err := p.or(0, true)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i != len(p.s) {
		return nil, p.fail("unexpected character")
	}
	switch x := x.(type) {
	case *pathExpr:
		return &Path{steps: x.steps}, nil
	case *literal, *arithmetic:
		return nil, p.fail("a path must begin with $ or a name, or be a condition")
	default:
		return &Path{predicate: x}, nil
	}
}

type pathParser struct {
	s string
	i int
}

func (p *pathParser) fail(message string) error { return &PathError{p.i, message} }

func (p *pathParser) space() {
	for p.i < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.i]) >= 0 {
		p.i++
	}
}

func (p *pathParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// take consumes an operator or keyword after white space.
func (p *pathParser) take(token string) bool {
	p.space()
	if !strings.HasPrefix(p.s[p.i:], token) {
		return false
	}
	end := p.i + len(token)
	if isWordByte(token[len(token)-1]) && end < len(p.s) && isWordByte(p.s[end]) {
		return false
	}
	p.i = end
	return true
}

// top is true outside of filters, where a bare name begins a path.
func (p *pathParser) or(depth int, top bool) (expr, error) {
	return p.chain("||", depth, top, p.and)
}

func (p *pathParser) and(depth int, top bool) (expr, error) {
	return p.chain("&&", depth, top, p.not)
}

func (p *pathParser) chain(op string, depth int, top bool, operand func(int, bool) (expr, error)) (expr, error) {
	left, err := operand(depth, top)
	if err != nil {
		return nil, err
	}
	for p.take(op) {
		right, err := operand(depth, top)
		if err != nil {
			return nil, err
		}
		left = &logic{op, left, right}
	}
	return left, nil
}

func (p *pathParser) not(depth int, top bool) (expr, error) {
	if depth > maxPathDepth {
		return nil, p.fail("nesting is too deep")
	}
	p.space()
	if p.peek() == '!' && !strings.HasPrefix(p.s[p.i:], "!=") {
		p.i++
		x, err := p.not(depth+1, top)
		return &logic{"!", x, nil}, err
	}
	back := p.i
	if p.take("exists") && p.take("(") {
		x, err := p.or(depth+1, top)
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.fail("expected )")
		}
		return &logic{"exists", x, nil}, nil
	}
	p.i = back
	return p.comparison(depth, top)
}

func (p *pathParser) comparison(depth int, top bool) (expr, error) {
	left, err := p.sum(depth, top)
	if err != nil {
		return nil, err
	}
	op := ""
	for _, token := range []string{"==", "!=", "<>", "<=", ">=", "<", ">", "starts with", "="} {
		if p.take(token) {
			op = token
			break
		}
	}
	switch op {
	case "":
		return left, nil
	case "<>":
		op = "!="
	case "=":
		op = "=="
	}
	right, err := p.sum(depth, top)
	if err != nil {
		return nil, err
	}
	return &comparison{op, left, right}, nil
}

func (p *pathParser) sum(depth int, top bool) (expr, error) {
	return p.binary("+-", depth, top, p.product)
}

func (p *pathParser) product(depth int, top bool) (expr, error) {
	return p.binary("*/%", depth, top, p.unary)
}

func (p *pathParser) binary(ops string, depth int, top bool, operand func(int, bool) (expr, error)) (expr, error) {
	left, err := operand(depth, top)
	if err != nil {
		return nil, err
	}
	for {
		p.space()
		c := p.peek()
		if c == 0 || strings.IndexByte(ops, c) < 0 {
			return left, nil
		}
		p.i++
		right, err := operand(depth, top)
		if err != nil {
			return nil, err
		}
		left = &arithmetic{c, left, right}
	}
}

func (p *pathParser) unary(depth int, top bool) (expr, error) {
	if depth > maxPathDepth {
		return nil, p.fail("nesting is too deep")
	}
	p.space()
	if c := p.peek(); c == '-' || c == '+' {
		p.i++
		x, err := p.unary(depth+1, top)
		if err != nil || c == '+' {
			return x, err
		}
		return &arithmetic{'-', &literal{UintValue(0)}, x}, nil
	}
	return p.primary(depth, top)
}

func (p *pathParser) primary(depth int, top bool) (expr, error) {
	switch c := p.peek(); {
	case c == '(':
		p.i++
		x, err := p.or(depth+1, top)
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.fail("expected )")
		}
		return x, nil
	case c == '$', c == '@' && !top:
		p.i++
		steps, err := p.steps(depth)
		return &pathExpr{c == '@', steps}, err
	case c == '"' || c == '\'':
		first := top && p.i == 0
		s, err := p.quoted()
		if err != nil {
			return nil, err
		}
		if first {
			return p.namedPath(s, depth) // "quoted".name
		}
		return &literal{StringValue(s)}, nil
	case c >= '0' && c <= '9':
		return p.number()
	case c == 0:
		return nil, p.fail("unexpected end")
	}
	for word, v := range map[string]Value{"null": {Kind: Null}, "true": BoolValue(true), "false": BoolValue(false)} {
		if p.take(word) {
			return &literal{v}, nil
		}
	}
	if top && p.i == 0 {
		return p.relativePath(depth)
	}
	return nil, p.fail("unexpected character")
}

// relativePath reads a path without $: a name, or a step.
func (p *pathParser) relativePath(depth int) (expr, error) {
	if strings.IndexByte(".:[", p.peek()) >= 0 {
		steps, err := p.steps(depth)
		return &pathExpr{false, steps}, err
	}
	name, err := p.name()
	if err != nil {
		return nil, err
	}
	return p.namedPath(name, depth)
}

func (p *pathParser) namedPath(name string, depth int) (expr, error) {
	steps, err := p.steps(depth)
	return &pathExpr{false, append([]step{{kind: stepMember, name: name}}, steps...)}, err
}

func (p *pathParser) number() (expr, error) {
	begin := p.i
	for p.i < len(p.s) && (isWordByte(p.s[p.i]) || p.s[p.i] == '.' ||
		(p.s[p.i] == '-' || p.s[p.i] == '+') && lowerASCII(p.s[p.i-1]) == 'e') {
		p.i++
	}
	v, err := Parse(p.s[begin:p.i])
	if err != nil || !v.IsNumber() {
		p.i = begin
		return nil, p.fail("invalid number")
	}
	return &literal{v}, nil
}

func (p *pathParser) quoted() (string, error) {
	q := parser{s: p.s, i: p.i}
	s, err := q.quoted()
	if err != nil {
		return "", p.fail("invalid string")
	}
	p.i = q.i
	return s, nil
}

// name reads an unquoted member name; a hyphen belongs to it when a letter follows.
func (p *pathParser) name() (string, error) {
	if c := p.peek(); c == '"' || c == '\'' {
		return p.quoted()
	}
	begin := p.i
	for p.i < len(p.s) {
		c := p.s[p.i]
		if isWordByte(c) || c == '#' || c == '~' ||
			c == '-' && p.i > begin && p.i+1 < len(p.s) && isWordByte(p.s[p.i+1]) && (p.s[p.i+1] < '0' || p.s[p.i+1] > '9') {
			p.i++
			continue
		}
		break
	}
	if p.i == begin {
		return "", p.fail("expected a name")
	}
	return p.s[begin:p.i], nil
}

func (p *pathParser) steps(depth int) ([]step, error) {
	var steps []step
	for {
		back := p.i
		p.space()
		var s step
		var err error
		switch p.peek() {
		case '.':
			p.i++
			s, err = p.dotStep()
		case ':':
			p.i++
			s.name, err = p.name()
		case '[':
			p.i++
			s, err = p.bracketStep()
		case '?':
			p.i++
			s, err = p.filterStep(depth)
		default:
			p.i = back
			return steps, nil
		}
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
}

func (p *pathParser) dotStep() (step, error) {
	p.space()
	if strings.HasPrefix(p.s[p.i:], "**") {
		p.i += 2
		return p.recursiveStep()
	}
	if p.peek() == '*' {
		p.i++
		return step{kind: stepAllMembers}, nil
	}
	name, err := p.name()
	return step{kind: stepMember, name: name}, err
}

// recursiveStep reads {n}, {n to m} or nothing after .**.
func (p *pathParser) recursiveStep() (step, error) {
	s := step{kind: stepRecursive, to: MaxDepth}
	if !p.take("{") {
		return s, nil
	}
	from, fromLast, err := p.level()
	if err != nil {
		return s, err
	}
	s.from, s.to = from, from
	if fromLast {
		s.to = MaxDepth
	}
	if p.take("to") {
		to, _, err := p.level()
		if err != nil {
			return s, err
		}
		s.to = to
	}
	if !p.take("}") {
		return s, p.fail("expected }")
	}
	return s, nil
}

func (p *pathParser) level() (n int, last bool, err error) {
	if p.take("last") {
		return MaxDepth, true, nil
	}
	p.space()
	n, err = p.integer()
	return min(n, MaxDepth), false, err
}

func (p *pathParser) integer() (int, error) {
	begin := p.i
	for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		p.i++
	}
	n, err := strconv.Atoi(p.s[begin:p.i])
	if err != nil || n > math.MaxInt32 {
		p.i = begin
		return 0, p.fail("expected an index")
	}
	return n, nil
}

func (p *pathParser) bracketStep() (step, error) {
	p.space()
	s := step{kind: stepElements}
	switch p.peek() {
	case '*':
		p.i++
		s.kind = stepAllElements
	case '"', '\'':
		name, err := p.quoted()
		if err != nil {
			return s, err
		}
		s = step{kind: stepMember, name: name}
	default:
		for {
			r, err := p.indexRange()
			if err != nil {
				return s, err
			}
			s.ranges = append(s.ranges, r)
			if !p.take(",") {
				break
			}
		}
	}
	if !p.take("]") {
		return s, p.fail("expected ]")
	}
	return s, nil
}

func (p *pathParser) indexRange() (indexRange, error) {
	from, err := p.index()
	if err != nil || !p.take("to") {
		return indexRange{from, from}, err
	}
	to, err := p.index()
	return indexRange{from, to}, err
}

// index reads n, -n, last, last - n or last + n.
func (p *pathParser) index() (index, error) {
	if p.take("last") {
		p.space()
		c := p.peek()
		if c != '-' && c != '+' {
			return index{0, true}, nil
		}
		p.i++
		p.space()
		n, err := p.integer()
		if c == '-' {
			n = -n
		}
		return index{n, true}, err
	}
	p.space()
	if p.peek() == '-' {
		p.i++
		n, err := p.integer()
		return index{-n, false}, err
	}
	n, err := p.integer()
	return index{n, false}, err
}

func (p *pathParser) filterStep(depth int) (step, error) {
	if !p.take("(") {
		return step{}, p.fail("expected (")
	}
	x, err := p.or(depth+1, false)
	if err != nil {
		return step{}, err
	}
	switch x.(type) {
	case *literal, *arithmetic:
		return step{}, p.fail("a filter must be a condition")
	}
	if !p.take(")") {
		return step{}, p.fail("expected )")
	}
	return step{kind: stepFilter, filter: x}, nil
}
