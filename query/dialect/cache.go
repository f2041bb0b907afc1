package dialect

import (
	"container/list"
	"context"
	"sync"
)

// maxCachedText bounds the texts that a Cache keeps.
const maxCachedText = 32 << 10

// Cache keeps statements by their text: dashboards send the same ones all day. It is safe for concurrent use. The catalog
// must not change what its names mean while the cache lives.
type Cache struct {
	parser Parser
	names  Catalog
	size   int

	mu      sync.Mutex
	entries map[cacheKey]*list.Element // of *cacheEntry
	recent  *list.List                 // most recently used first
}

type cacheKey struct {
	sql   string
	admin bool
}

type cacheEntry struct {
	key       cacheKey
	statement *Statement
}

// NewCache makes a cache of at most size statements.
func NewCache(p Parser, names Catalog, size int) *Cache {
	return &Cache{parser: p, names: names, size: size, entries: map[cacheKey]*list.Element{}, recent: list.New()}
}

// Rewrite is the function Rewrite with the cache's parser and catalog. Statements that hold values of the moment, and errors,
// are not kept.
func (c *Cache) Rewrite(ctx context.Context, sql string, opts Options) (*Statement, error) {
	key := cacheKey{sql, opts.Admin}
	if st := c.find(key); st != nil {
		return st, nil
	}
	st, err := Rewrite(ctx, c.parser, c.names, sql, opts)
	if err == nil && !st.Volatile && len(sql) <= maxCachedText {
		c.keep(key, st)
	}
	return st, err
}

func (c *Cache) find(key cacheKey) *Statement {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cacheEntry).statement
}

func (c *Cache) keep(key cacheKey, st *Statement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] != nil {
		return // another caller was faster
	}
	c.entries[key] = c.recent.PushFront(&cacheEntry{key, st})
	for c.recent.Len() > c.size {
		last := c.recent.Back()
		c.recent.Remove(last)
		delete(c.entries, last.Value.(*cacheEntry).key)
	}
}
