package perfetto

import (
	"strings"

	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
)

// internedOverhead is what an interned string costs beside its bytes.
const internedOverhead = 64

// scope is where an event comes from, as numbers of interned strings.
type scope struct {
	name, category, location uint64
}

type place struct {
	file string
	line uint32
}

// interner gives strings numbers: kind by kind from 1, in the order of first use. What is new since the last packet waits
// in fresh for the packet that uses it. Strings are copied when they are kept, so callers' buffers may go.
type interner struct {
	names      map[string]uint64
	categories map[string]uint64
	locations  map[place]uint64
	arguments  map[string]uint64
	bodies     uint64 // texts of log entries have numbers, but are not remembered

	bytes     int
	fresh     *tracepb.InternedData // nil if nothing is new
	forgotten bool                  // since the last packet
}

func (n *interner) init() {
	n.names = map[string]uint64{}
	n.categories = map[string]uint64{}
	n.locations = map[place]uint64{}
	n.arguments = map[string]uint64{}
}

// full reports whether there are as many strings, or bytes of them, as there may be.
func (n *interner) full(count, bytes int) bool {
	return len(n.names)+len(n.categories)+len(n.locations)+len(n.arguments) >= count || n.bytes >= bytes
}

// forget makes the next packet the first that knows no strings.
func (n *interner) forget() {
	n.init() // rather than clear: a map keeps the room that it had at its largest
	n.bodies, n.bytes, n.forgotten = 0, 0, true
}

// scope returns the numbers of a span's strings.
func (n *interner) scope(name, target, file string, line uint32) scope {
	return scope{name: n.name(name), category: n.category(target), location: n.location(file, line)}
}

func (n *interner) name(name string) uint64 {
	if id, ok := n.names[name]; ok {
		return id
	}
	id := uint64(len(n.names) + 1)
	n.names[n.keep(name)] = id
	f := n.new()
	f.EventNames = append(f.EventNames, &tracepb.EventName{Iid: &id, Name: text(name)})
	return id
}

func (n *interner) category(target string) uint64 {
	if id, ok := n.categories[target]; ok {
		return id
	}
	id := uint64(len(n.categories) + 1)
	n.categories[n.keep(target)] = id
	f := n.new()
	f.EventCategories = append(f.EventCategories, &tracepb.EventCategory{Iid: &id, Name: text(target)})
	return id
}

func (n *interner) location(file string, line uint32) uint64 {
	if id, ok := n.locations[place{file, line}]; ok {
		return id
	}
	id := uint64(len(n.locations) + 1)
	n.locations[place{n.keep(file), line}] = id
	f := n.new()
	f.SourceLocations = append(f.SourceLocations,
		&tracepb.SourceLocation{Iid: &id, FileName: text(file), LineNumber: new(line)})
	return id
}

func (n *interner) argument(name string) uint64 {
	if id, ok := n.arguments[name]; ok {
		return id
	}
	id := uint64(len(n.arguments) + 1)
	n.arguments[n.keep(name)] = id
	f := n.new()
	f.DebugAnnotationNames = append(f.DebugAnnotationNames, &tracepb.DebugAnnotationName{Iid: &id, Name: text(name)})
	return id
}

// body introduces the text of a log entry. It gets a number each time: texts are too many to look for equal ones.
func (n *interner) body(message string) uint64 {
	n.bodies++
	f := n.new()
	f.LogMessageBody = append(f.LogMessageBody, &tracepb.LogMessageBody{Iid: new(n.bodies), Body: text(message)})
	return n.bodies
}

func (n *interner) keep(s string) string {
	n.bytes += len(s) + internedOverhead
	return strings.Clone(s)
}

func (n *interner) new() *tracepb.InternedData {
	if n.fresh == nil {
		n.fresh = &tracepb.InternedData{}
	}
	return n.fresh
}

// text returns s as a field of a message, whose strings must be UTF-8.
func text(s string) *string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return &s
}
