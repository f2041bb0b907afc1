package sdk

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// lastID numbers all that blocks refer to: texts, sites, sets of properties. A number means one thing as long as the process lives.
var lastID atomic.Uint64

func nextID() uint64 { return lastID.Add(1) }

// text is an interned text.
type text struct {
	id uint64
	s  string
}

func (t text) ref() wire.StaticRef { return wire.StaticRef{ID: t.id, Len: uint32(len(t.s))} }

// Bounds of what is interned for the life of the process. What comes beyond is still sent, at the cost of a name in each block.
const (
	maxTexts     = 1 << 16
	maxTextBytes = 32 << 20 // of all
	maxSets      = 1 << 16
	maxSetBytes  = 32 << 20 // of the keys and values of all
)

var texts struct {
	sync.Mutex
	byText map[string]text
	bytes  int
}

// internName returns the text of a name, cleaned as rows may hold it.
func internName(s string) text {
	clean, cut, nuls := wire.CleanName(validText(s))
	if cut || nuls {
		drops.add(dropCut, 1)
	}
	return intern(clean)
}

// internMessage returns the text of a message, cleaned as rows may hold it.
func internMessage(s string) text {
	clean, cut := wire.CleanMessage(validText(s))
	if cut {
		drops.add(dropCut, 1)
	}
	return intern(clean)
}

func intern(s string) text {
	texts.Lock()
	defer texts.Unlock()
	if t, ok := texts.byText[s]; ok {
		return t
	}
	t := text{id: nextID(), s: strings.Clone(s)}
	if len(texts.byText) < maxTexts && texts.bytes+len(s) <= maxTextBytes {
		texts.bytes += len(s)
		if texts.byText == nil {
			texts.byText = map[string]text{}
		}
		texts.byText[t.s] = t
	}
	return t
}

// Properties is an immutable set of named values. Make one where it can be kept: to make a set costs a look-up and some hundred
// nanoseconds, to use it nothing. nil is the empty set.
type Properties struct {
	no    uint32 // index in sets.all; what events carry
	depID uint64
	props []property
}

type property struct{ key, value text }

// sets are all sets of properties; an event names one by its index.
var sets struct {
	sync.Mutex
	byText map[string]*Properties
	bytes  int
	all    atomic.Pointer[[]*Properties]
}

// Props returns the set of the given keys and values, in pairs; the last value of a key counts, and an odd one out is the key of "".
// Equal sets are the same pointer. A process makes at most 65,536 sets of 32 MiB in all; after that it gets one with the property "overflow" alone, and
// they are counted: a set is for what has few values, such as a route or a shard. What has many belongs into messages or onto spans.
func Props(keysAndValues ...string) *Properties {
	if len(keysAndValues) == 0 {
		return nil
	}
	props := make([]telemetry.Property, 0, len(keysAndValues)/2+1)
	for i := 0; i < len(keysAndValues); i += 2 {
		p := telemetry.Property{Key: keysAndValues[i]}
		if i+1 < len(keysAndValues) {
			p.Value = keysAndValues[i+1]
		}
		props = append(props, p)
	}
	return internSet(props)
}

// And returns the set with more keys and values.
func (p *Properties) And(keysAndValues ...string) *Properties {
	if p == nil {
		return Props(keysAndValues...)
	}
	all := make([]string, 0, 2*len(p.props)+len(keysAndValues))
	for _, kv := range p.props {
		all = append(all, kv.key.s, kv.value.s)
	}
	return Props(append(all, keysAndValues...)...)
}

func internSet(props []telemetry.Property) *Properties {
	for i := range props {
		props[i] = cleanProperty(props[i])
	}
	props = telemetry.SortProperties(props)
	var key strings.Builder
	for _, p := range props {
		key.WriteString(p.Key)
		key.WriteByte(0) // which no key has, and no value has before the next
		key.WriteString(strings.ReplaceAll(p.Value, "\x00", "\x00\x00"))
		key.WriteString("\x00\x01")
	}
	sets.Lock()
	defer sets.Unlock()
	if p := sets.byText[key.String()]; p != nil {
		return p
	}
	if len(sets.byText) == 0 {
		sets.byText = map[string]*Properties{}
	}
	if len(setsSnapshot()) >= maxSets || sets.bytes+key.Len() > maxSetBytes {
		drops.add(dropSet, 1)
		return overflow()
	}
	sets.bytes += key.Len()
	return addSet(key.String(), props)
}

// overflow is the set in place of those that are too many. The caller has the lock.
func overflow() *Properties {
	if p := sets.byText["overflow"]; p != nil {
		return p
	}
	return addSet("overflow", []telemetry.Property{{Key: "overflow", Value: "too many sets of properties"}})
}

func addSet(key string, props []telemetry.Property) *Properties {
	all := setsSnapshot()
	p := &Properties{no: uint32(len(all)), depID: nextID()}
	for _, kv := range props {
		p.props = append(p.props, property{intern(kv.Key), intern(kv.Value)})
	}
	grown := append(all, p)
	sets.all.Store(&grown)
	sets.byText[key] = p
	return p
}

// cleanProperty returns a property as rows may hold it.
func cleanProperty(p telemetry.Property) telemetry.Property {
	key, cut, nuls := wire.CleanName(validText(p.Key))
	value, cutValue := wire.CleanMessage(validText(p.Value))
	if cut || nuls || cutValue {
		drops.add(dropCut, 1)
	}
	return telemetry.Property{Key: key, Value: value}
}

// setsSnapshot returns all sets; the slice is not changed.
func setsSnapshot() []*Properties {
	if all := sets.all.Load(); all != nil {
		return *all
	}
	return nil
}

// Map returns the properties.
func (p *Properties) Map() map[string]string {
	m := map[string]string{}
	if p != nil {
		for _, kv := range p.props {
			m[kv.key.s] = kv.value.s
		}
	}
	return m
}

// merged returns the properties of a set and others, as they go into one block.
func (p *Properties) merged(more []telemetry.Property) []telemetry.Property {
	if p == nil {
		return more
	}
	all := make([]telemetry.Property, 0, len(p.props)+len(more))
	for _, kv := range p.props {
		all = append(all, telemetry.Property{Key: kv.key.s, Value: kv.value.s})
	}
	return slices.Concat(all, more)
}
