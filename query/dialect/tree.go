package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// node is a value of the parser's JSON. Members of an object keep their order, and a value that nobody touched is
// written back byte for byte: numbers of 64 bits and the names of numbers beyond JSON (Infinity) survive.
type node struct {
	raw     string   // scalars: the JSON text
	members []member // objects
	items   []*node  // arrays
	kind    nodeKind
}

type member struct {
	key   string
	value *node
}

type nodeKind uint8

const (
	scalar nodeKind = iota
	object
	array
)

// maxTreeDepth bounds the recursion over a tree: an expression of the greatest depth that the parser lets through
// takes about four levels of JSON a step.
const maxTreeDepth = 20_000

var errTreeDepth = errors.New("syntax tree is too deep")

// parseTree reads JSON. It keeps parts of data.
func parseTree(data []byte) (*node, error) {
	p := treeParser{data: string(data)}
	n, err := p.value(0)
	if err != nil {
		return nil, fmt.Errorf("read syntax tree at byte %d: %w", p.pos, err)
	}
	p.space()
	if p.pos != len(p.data) {
		return nil, fmt.Errorf("read syntax tree at byte %d: %w", p.pos, errTreeSyntax)
	}
	return n, nil
}

var errTreeSyntax = errors.New("not a syntax tree")

type treeParser struct {
	data string
	pos  int
	slab []node // nodes are cut from larger pieces: a tree has thousands
}

func (p *treeParser) node(kind nodeKind) *node {
	if len(p.slab) == 0 {
		p.slab = make([]node, min(128, len(p.data)/64+8))
	}
	n := &p.slab[0]
	p.slab = p.slab[1:]
	n.kind = kind
	return n
}

func (p *treeParser) space() {
	for p.pos < len(p.data) && (p.data[p.pos] == ' ' || p.data[p.pos] == '\n' || p.data[p.pos] == '\t' || p.data[p.pos] == '\r') {
		p.pos++
	}
}

func (p *treeParser) value(depth int) (*node, error) {
	if depth > maxTreeDepth {
		return nil, errTreeDepth
	}
	p.space()
	if p.pos >= len(p.data) {
		return nil, errTreeSyntax
	}
	switch p.data[p.pos] {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		end := stringEnd(p.data, p.pos)
		if end < 0 {
			return nil, errTreeSyntax
		}
		n := p.node(scalar)
		n.raw = p.data[p.pos:end]
		p.pos = end
		return n, nil
	}
	start := p.pos
	for p.pos < len(p.data) && (isDigit(p.data[p.pos]) || isWordStart(p.data[p.pos]) || p.data[p.pos] == '-' || p.data[p.pos] == '+' || p.data[p.pos] == '.') {
		p.pos++
	}
	if p.pos == start {
		return nil, errTreeSyntax
	}
	n := p.node(scalar)
	n.raw = p.data[start:p.pos]
	return n, nil
}

func (p *treeParser) object(depth int) (*node, error) {
	n := p.node(object)
	p.pos++
	for {
		p.space()
		if p.eat('}') {
			return n, nil
		}
		if len(n.members) > 0 && !p.eat(',') {
			return nil, errTreeSyntax
		}
		p.space()
		if p.pos >= len(p.data) || p.data[p.pos] != '"' {
			return nil, errTreeSyntax
		}
		end := stringEnd(p.data, p.pos)
		if end < 0 {
			return nil, errTreeSyntax
		}
		key := p.data[p.pos+1 : end-1]
		p.pos = end
		p.space()
		if !p.eat(':') {
			return nil, errTreeSyntax
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if n.members == nil {
			n.members = make([]member, 0, 12)
		}
		n.members = append(n.members, member{key, v})
	}
}

func (p *treeParser) array(depth int) (*node, error) {
	n := p.node(array)
	p.pos++
	for {
		p.space()
		if p.eat(']') {
			return n, nil
		}
		if len(n.items) > 0 && !p.eat(',') {
			return nil, errTreeSyntax
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, v)
	}
}

func (p *treeParser) eat(c byte) bool {
	if p.pos < len(p.data) && p.data[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

// stringEnd returns the offset behind the JSON string that begins at i, or -1.
func stringEnd(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// append writes the tree as JSON.
func (n *node) append(dst []byte) []byte {
	switch n.kind {
	case object:
		dst = append(dst, '{')
		for i, m := range n.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, '"')
			dst = append(dst, m.key...)
			dst = append(dst, '"', ':')
			dst = m.value.append(dst)
		}
		return append(dst, '}')
	case array:
		dst = append(dst, '[')
		for i, v := range n.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = v.append(dst)
		}
		return append(dst, ']')
	default:
		return append(dst, n.raw...)
	}
}

// get returns the member called key, or nil; nil has no members.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for i := range n.members {
		if n.members[i].key == key {
			return n.members[i].value
		}
	}
	return nil
}

// set replaces or adds a member.
func (n *node) set(key string, value *node) {
	for i := range n.members {
		if n.members[i].key == key {
			n.members[i].value = value
			return
		}
	}
	n.members = append(n.members, member{key, value})
}

// list returns the items of the member called key.
func (n *node) list(key string) []*node {
	if v := n.get(key); v != nil {
		return v.items
	}
	return nil
}

// str returns the text of the member called key, "" when it is none.
func (n *node) str(key string) string {
	s, _ := n.get(key).text()
	return s
}

// text returns the text of a JSON string.
func (n *node) text() (string, bool) {
	if n == nil || n.kind != scalar || len(n.raw) < 2 || n.raw[0] != '"' {
		return "", false
	}
	body := n.raw[1 : len(n.raw)-1]
	for i := range len(body) {
		if body[i] == '\\' {
			var s string
			if json.Unmarshal([]byte(n.raw), &s) != nil {
				return "", false
			}
			return s, true
		}
	}
	return body, true
}

// isNull says whether n is absent or null.
func (n *node) isNull() bool { return n == nil || n.kind == scalar && n.raw == "null" }

// isTrue says whether the member called key is true.
func (n *node) isTrue(key string) bool {
	v := n.get(key)
	return v != nil && v.raw == "true"
}

// location returns where in the parsed text the node's token stands, or -1.
func (n *node) location() int {
	v := n.get("query_location")
	if v == nil {
		return -1
	}
	at, err := strconv.ParseInt(v.raw, 10, 64) // the parser's "unknown" is out of range
	if err != nil {
		return -1
	}
	return int(at)
}

// class returns the class of an expression, "" for what is none.
func (n *node) class() string { return n.str("class") }

// isFunction says whether n is a call of the function called name.
func (n *node) isFunction(name string) bool {
	return n.class() == "FUNCTION" && n.str("function_name") == name
}

// clone returns a copy that shares nothing that may be changed.
func (n *node) clone() *node {
	c := *n
	c.members = make([]member, len(n.members))
	for i, m := range n.members {
		c.members[i] = member{m.key, m.value.clone()}
	}
	c.items = make([]*node, len(n.items))
	for i, v := range n.items {
		c.items[i] = v.clone()
	}
	return &c
}

// literal makes a scalar of JSON text.
func literal(raw string) *node { return &node{raw: raw} }

// quote makes a JSON string.
func quote(s string) *node { return &node{raw: string(appendQuoted(nil, s))} }

func appendQuoted(dst []byte, s string) []byte {
	plain := utf8.ValidString(s)
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string can always be encoded
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

func listOf(items ...*node) *node { return &node{kind: array, items: items} }

func objectOf(members ...member) *node { return &node{kind: object, members: members} }

// unknownLocation is what the parser writes for a node that no token stands for.
const unknownLocation = "18446744073709551615"

// locationOf copies a node's location for one that takes its place.
func locationOf(n *node) *node {
	if v := n.get("query_location"); v != nil {
		return literal(v.raw)
	}
	return literal(unknownLocation)
}

// call makes a function call at the place of at.
func call(at *node, name string, args ...*node) *node {
	return objectOf(
		member{"class", quote("FUNCTION")}, member{"type", quote("FUNCTION")}, member{"alias", quote("")},
		member{"query_location", locationOf(at)}, member{"function_name", quote(name)}, member{"schema", quote("")},
		member{"children", listOf(args...)}, member{"filter", literal("null")},
		member{"order_bys", objectOf(member{"type", quote("ORDER_MODIFIER")}, member{"orders", listOf()})},
		member{"distinct", literal("false")}, member{"is_operator", literal("false")},
		member{"export_state", literal("false")}, member{"catalog", quote("")},
	)
}

// typeOf makes a type without parameters, such as BIGINT.
func typeOf(id string) *node {
	return objectOf(member{"id", quote(id)}, member{"type_info", literal("null")})
}

// cast makes CAST(child AS t).
func cast(child, t *node) *node {
	return objectOf(
		member{"class", quote("CAST")}, member{"type", quote("OPERATOR_CAST")}, member{"alias", quote("")},
		member{"query_location", locationOf(child)}, member{"child", child}, member{"cast_type", t},
		member{"try_cast", literal("false")},
	)
}

// textConstant makes a text literal.
func textConstant(at *node, s string) *node {
	return objectOf(
		member{"class", quote("CONSTANT")}, member{"type", quote("VALUE_CONSTANT")}, member{"alias", quote("")},
		member{"query_location", locationOf(at)},
		member{"value", objectOf(member{"type", typeOf("VARCHAR")}, member{"is_null", literal("false")}, member{"value", quote(s)})},
	)
}
