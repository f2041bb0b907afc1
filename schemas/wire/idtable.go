package wire

import "math/rand/v2"

// depKind says what a dependency is.
type depKind uint8

const (
	depText depKind = iota
	depObject
	depSet
)

// depRef is a dependency: its kind and its index among those of its kind.
type depRef uint32

const depIndexBits = 30

func newDepRef(k depKind, index int) depRef { return depRef(uint32(k)<<depIndexBits | uint32(index)) }

func (r depRef) kind() depKind { return depKind(r >> depIndexBits) }
func (r depRef) index() int    { return int(r & (1<<depIndexBits - 1)) }

// idTable maps the ids of one block to its dependencies: open addressing at half load at most. Clearing it is a new generation, so that
// small blocks do not pay for a large one before them. The seed keeps a producer from choosing ids that collide.
type idTable struct {
	slots      []idSlot // a power of two
	shift      uint8
	seed       uint64
	generation uint32
	used       int
}

type idSlot struct {
	id         uint64
	ref        depRef
	generation uint32
}

const (
	idTableSlots = 256     // at first
	idTableKeep  = 1 << 16 // slots kept from one block to the next
)

func (t *idTable) reset() {
	t.used = 0
	if t.generation++; t.slots == nil || len(t.slots) > idTableKeep || t.generation == 0 {
		t.seed = rand.Uint64() | 1
		t.allocate(idTableSlots)
	}
}

func (t *idTable) allocate(slots int) {
	t.slots = make([]idSlot, slots)
	t.generation = 1
	t.shift = 64
	for ; slots > 1; slots >>= 1 {
		t.shift--
	}
}

// start spreads an id with a 128-bit-like mix: multiply, fold, multiply; the top bits choose the slot.
func (t *idTable) start(id uint64) int {
	h := (id ^ t.seed) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32) * t.seed
	return int(h >> t.shift)
}

func (t *idTable) find(id uint64) (depRef, bool) {
	mask := len(t.slots) - 1
	for i := t.start(id); ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.generation != t.generation {
			return 0, false
		}
		if s.id == id {
			return s.ref, true
		}
	}
}

// insert returns false when the id is there already.
func (t *idTable) insert(id uint64, ref depRef) bool {
	if 2*(t.used+1) > len(t.slots) {
		t.double()
	}
	mask := len(t.slots) - 1
	for i := t.start(id); ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.generation != t.generation {
			*s = idSlot{id: id, ref: ref, generation: t.generation}
			t.used++
			return true
		}
		if s.id == id {
			return false
		}
	}
}

func (t *idTable) double() {
	old, generation := t.slots, t.generation
	t.allocate(2 * len(old))
	t.used = 0
	for i := range old {
		if old[i].generation == generation {
			t.insert(old[i].id, old[i].ref)
		}
	}
}
