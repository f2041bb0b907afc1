package frozen

import (
	"container/list"
	"sync"
)

// lru keeps the values used last, up to a number of them.
type lru[K comparable, V any] struct {
	most int

	mu    *sync.Mutex
	byKey map[K]*list.Element // of *entry[K, V]
	order *list.List          // most recently used first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](most int) lru[K, V] {
	return lru[K, V]{most: most, mu: &sync.Mutex{}, byKey: map[K]*list.Element{}, order: list.New()}
}

func (l *lru[K, V]) get(key K) (value V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[key]
	if !ok {
		return value, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.byKey[key]; ok { // another call read it too
		return
	}
	l.byKey[key] = l.order.PushFront(&entry[K, V]{key, value})
	for len(l.byKey) > l.most {
		last := l.order.Back()
		l.order.Remove(last)
		delete(l.byKey, last.Value.(*entry[K, V]).key)
	}
}
