package materializers

import (
	"maps"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// ShardStats tells how far an owner of this process is.
type ShardStats struct {
	Read, Committed uint64 // sequences
	PendingRows     int
	Parked          int
	Commits, Rows   int64 // since the shard was taken
	LastCommit      time.Time
	Backlog         int    // open ranges of the shard
	BacklogFrames   uint64 // positions in them
}

// Stats tells what the materializers of this process do.
type Stats struct {
	Shards        map[string]ShardStats // by bus.Shard.String, those owned now
	Unknown       int64                 // events of unknown types
	Cut, NULs     int64                 // texts that were cut or had NULs replaced
	Merges        int64                 // merges done
	MergedRows    int64                 // rows rewritten by them
	MergeFailures int64

	BacklogChunks, BacklogRows int64 // of the backlog, built by this process
	BacklogFailures            int64
}

// counters holds Stats.
type counters struct {
	mu sync.Mutex
	Stats
}

func (c *counters) update(fn func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(&c.Stats)
}

func (c *counters) shard(s bus.Shard, fn func(*ShardStats)) {
	c.update(func(all *Stats) {
		if all.Shards == nil {
			all.Shards = map[string]ShardStats{}
		}
		one := all.Shards[s.String()]
		fn(&one)
		all.Shards[s.String()] = one
	})
}

func (c *counters) count(n wire.Counts) {
	if n.Unknown+n.Cut+n.NULs == 0 {
		return
	}
	c.update(func(all *Stats) {
		all.Unknown += int64(n.Unknown)
		all.Cut += int64(n.Cut)
		all.NULs += int64(n.NULs)
	})
}

func (c *counters) read(s bus.Shard, seq uint64, rows int) {
	c.shard(s, func(one *ShardStats) { one.Read, one.PendingRows = seq, rows })
}

func (c *counters) commit(s bus.Shard, seq uint64, rows, parked int) {
	c.shard(s, func(one *ShardStats) {
		one.Committed, one.PendingRows, one.Parked, one.LastCommit = seq, 0, parked, time.Now()
		one.Commits++
		one.Rows += int64(rows)
	})
}

func (c *counters) leave(s bus.Shard) {
	c.update(func(all *Stats) { delete(all.Shards, s.String()) })
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.Stats
	s.Shards = maps.Clone(c.Shards)
	return s
}
