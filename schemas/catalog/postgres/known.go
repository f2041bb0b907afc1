package postgres

import (
	"crypto/sha256"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const (
	// maxKnown bounds each set of known; a full one starts over. 64 k ids are 3 MiB.
	maxKnown = 64 << 10
	// maxBodies bounds the bytes of layouts that are kept to be read again.
	maxBodies = 64 << 20
)

// known is what this process knows to be in the database, so that it need not be sent or read again. Nothing rests on it: a row
// that is missing after all fails its statement, and then all is forgotten.
type known struct {
	mu      sync.Mutex
	streams map[telemetry.ID]struct{}
	layouts map[[sha256.Size]byte]struct{}
	views   map[string]struct{}
	bodies  map[int64][]byte // layouts by number; never changed
	size    int              // of all bodies
}

func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.streams, k.layouts, k.views, k.bodies, k.size = nil, nil, nil, nil, 0
}

// addBounded notes a key in a set that starts over when it is full.
func addBounded[K comparable](set map[K]struct{}, k K) map[K]struct{} {
	if set == nil || len(set) >= maxKnown {
		set = map[K]struct{}{}
	}
	set[k] = struct{}{}
	return set
}

func (k *known) hasStream(id telemetry.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.streams[id]
	return ok
}

func (k *known) hasLayout(sum [sha256.Size]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.layouts[sum]
	return ok
}

func (k *known) hasView(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.views[name]
	return ok
}

// learn takes over what a commit that stands has written.
func (k *known) learn(streams []telemetry.ID, layouts [][sha256.Size]byte, views []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range streams {
		k.streams = addBounded(k.streams, id)
	}
	for _, sum := range layouts {
		k.layouts = addBounded(k.layouts, sum)
	}
	for _, v := range views {
		k.views = addBounded(k.views, v)
	}
}

func (k *known) body(no int64) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.bodies[no]
	return b, ok
}

func (k *known) learnBody(no int64, body []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bodies == nil || k.size+len(body) > maxBodies {
		k.bodies, k.size = map[int64][]byte{}, 0
	}
	if _, ok := k.bodies[no]; !ok && len(body) <= maxBodies {
		k.bodies[no] = body
		k.size += len(body)
	}
}
