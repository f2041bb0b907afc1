package query

import (
	"container/list"
	"sync"

	"github.com/micromegas-go/micromegas/query/dialect"
)

// maxKeptStatement is the longest text whose rewritten form is kept. Dashboards repeat short statements.
const maxKeptStatement = 16 << 10

// statementKey is what the rewriting of a statement depends on.
type statementKey struct {
	sql   string
	admin bool
}

// statementCache keeps the rewritten forms of the statements asked last.
type statementCache struct {
	limit int

	mu    sync.Mutex
	byKey map[statementKey]*list.Element
	order *list.List // of *keptStatement, the last used first
}

type keptStatement struct {
	key statementKey
	st  *dialect.Statement
}

func newStatementCache(limit int) *statementCache {
	return &statementCache{limit: limit, byKey: make(map[statementKey]*list.Element), order: list.New()}
}

func (c *statementCache) get(key statementKey) (*dialect.Statement, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*keptStatement).st, true
}

func (c *statementCache) put(key statementKey, st *dialect.Statement) {
	if len(key.sql) > maxKeptStatement || c.limit == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok {
		return
	}
	c.byKey[key] = c.order.PushFront(&keptStatement{key, st})
	if c.order.Len() > c.limit {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*keptStatement).key)
	}
}
