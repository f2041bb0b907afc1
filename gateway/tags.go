package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// TagSource answers for streams whose registration this gateway did not see (the catalog does).
type TagSource interface {
	// StreamTag must return false for a stream that is not registered yet.
	StreamTag(ctx context.Context, id telemetry.ID) (telemetry.Tag, bool, error)
}

// tagCache remembers the tag of each stream, because a block does not carry it. It is a least-recently-used cache in
// one slice: entry 0 is the head of the ring of uses, next is towards less recent.
type tagCache struct {
	source      TagSource
	negativeTTL time.Duration
	timeout     time.Duration
	lookups     chan struct{} // one token for each question to the source

	mu      sync.Mutex
	byID    map[telemetry.ID]int32
	entries []tagEntry
	max     int
	asking  map[telemetry.ID]chan struct{} // closed when the answer is in the cache
	rest    time.Time                      // the source failed: it is not asked until then
	stats   TagStats
}

type tagEntry struct {
	id         telemetry.ID
	prev, next int32
	tag        telemetry.Tag
	until      time.Time // zero: the tag stands; else "not registered" is believed until then
}

// TagStats counts what the tag cache did.
type TagStats struct {
	Entries int
	Hits    int64
	Misses  int64 // the source was asked
	Unasked int64 // too many questions already, or the source failed a moment ago; taken as not registered
	Errors  int64 // the source did not answer; taken as not registered
}

func newTagCache(source TagSource, cfg Config) *tagCache {
	return &tagCache{
		source: source, negativeTTL: cfg.TagNegativeTTL, timeout: cfg.TagTimeout,
		lookups: make(chan struct{}, cfg.TagLookups),
		byID:    map[telemetry.ID]int32{}, entries: make([]tagEntry, 1), max: cfg.TagCacheEntries,
		asking: map[telemetry.ID]chan struct{}{},
	}
}

// tag returns the stream's tag, TagUnknown when nobody knows it. It asks the source at most once at a time for a stream.
func (c *tagCache) tag(ctx context.Context, id telemetry.ID) telemetry.Tag {
	c.mu.Lock()
	if tag, ok := c.lookup(id); ok {
		c.stats.Hits++
		c.mu.Unlock()
		return tag
	}
	if answer, ok := c.asking[id]; ok {
		c.mu.Unlock()
		<-answer // bounded by the timeout of the one who asks
		c.mu.Lock()
		defer c.mu.Unlock()
		tag, _ := c.lookup(id)
		return tag
	}
	if c.source == nil {
		c.mu.Unlock()
		return telemetry.TagUnknown
	}
	if time.Now().Before(c.rest) { // one request a while waits for a source that is away, not each
		c.stats.Unasked++
		c.mu.Unlock()
		return telemetry.TagUnknown
	}
	select {
	case c.lookups <- struct{}{}:
	default:
		c.stats.Unasked++
		c.mu.Unlock()
		return telemetry.TagUnknown
	}
	answer := make(chan struct{})
	c.asking[id] = answer
	c.stats.Misses++
	c.mu.Unlock()
	return c.ask(ctx, id, answer)
}

func (c *tagCache) ask(ctx context.Context, id telemetry.ID, answer chan struct{}) telemetry.Tag {
	// Others wait for this answer, so it does not end with the request that asks.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	tag, known, err := c.source.StreamTag(ctx, id)
	cancel()

	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asking, id)
	close(answer)
	<-c.lookups
	if err != nil {
		c.stats.Errors++
		c.rest = time.Now().Add(c.negativeTTL)
	}
	if err != nil || !known {
		if tag, ok := c.lookup(id); ok { // the registration passed by in the meantime
			return tag
		}
		c.store(id, telemetry.TagUnknown, time.Now().Add(c.negativeTTL))
		return telemetry.TagUnknown
	}
	c.store(id, tag, time.Time{})
	return tag
}

// learn notes a registration that passes by. The first one wins, as in the catalog.
func (c *tagCache) learn(id telemetry.ID, tag telemetry.Tag) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, ok := c.byID[id]; ok && c.entries[i].until.IsZero() {
		c.use(i)
		return
	}
	c.store(id, tag, time.Time{})
}

func (c *tagCache) snapshot() TagStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Entries = len(c.byID)
	return s
}

// The methods below are called with mu held.

func (c *tagCache) lookup(id telemetry.ID) (telemetry.Tag, bool) {
	i, ok := c.byID[id]
	if !ok {
		return telemetry.TagUnknown, false
	}
	e := &c.entries[i]
	if !e.until.IsZero() && !time.Now().Before(e.until) {
		return telemetry.TagUnknown, false
	}
	c.use(i)
	return e.tag, true
}

// store sets an entry, in the place of the least recently used one when the cache is full.
func (c *tagCache) store(id telemetry.ID, tag telemetry.Tag, until time.Time) {
	i, ok := c.byID[id]
	switch {
	case ok:
		c.unlink(i)
	case len(c.entries) <= c.max:
		i = int32(len(c.entries))
		c.entries = append(c.entries, tagEntry{})
	default:
		i = c.entries[0].prev
		c.unlink(i)
		delete(c.byID, c.entries[i].id)
	}
	c.entries[i].id, c.entries[i].tag, c.entries[i].until = id, tag, until
	c.byID[id] = i
	c.link(i)
}

func (c *tagCache) use(i int32) {
	if c.entries[0].next != i {
		c.unlink(i)
		c.link(i)
	}
}

func (c *tagCache) unlink(i int32) {
	e := &c.entries[i]
	c.entries[e.prev].next = e.next
	c.entries[e.next].prev = e.prev
}

func (c *tagCache) link(i int32) {
	first := c.entries[0].next
	c.entries[i].prev, c.entries[i].next = 0, first
	c.entries[first].prev = i
	c.entries[0].next = i
}
