package logs

import (
	"cmp"
	"math"
	"slices"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// Positions of the columns of log_stats.
const (
	statsTimeBin = iota
	statsProcessID
	statsLevel
	statsTarget
	statsCount
)

// levels is the number of levels that are counted in an array; others, which no client sends, are counted in a map.
const levels = 8

// counter counts the entries of one process and minute.
type counter struct {
	dense   []int64 // by target*levels + level
	touched []int32 // places of dense that are not 0
	sparse  map[sparseKey]int64
}

type sparseKey struct {
	target int32
	level  int64
}

// appendStats counts entries per minute, process, level and target. In the view's order the entries of one process and minute
// lie together, so they are counted in an array and written when the minute ends.
func appendStats(dst, src *columnar.Rows, sel []int32) {
	process := src.Columns[0].Index
	times := src.Columns[materializers.ColumnTime].Ints
	target := src.Columns[materializers.ColumnTarget].Index
	level := src.Columns[columnLevel].Ints
	c := counter{dense: make([]int64, levels*src.Columns[materializers.ColumnTarget].Dict.Len())}
	for i := 0; i < len(sel); {
		first := sel[i]
		bin := minute(times[first])
		end := bin + int64(tables.LogStatsBin)
		for i < len(sel) && process[sel[i]] == process[first] && times[sel[i]] >= bin && (times[sel[i]] < end || end < bin) {
			c.count(target[sel[i]], level[sel[i]])
			i++
		}
		c.flush(dst, src, bin, process[first])
	}
}

// minute returns the start of the minute of t; minutes are aligned on the epoch.
func minute(t int64) int64 {
	r := t % int64(tables.LogStatsBin)
	if r < 0 {
		r += int64(tables.LogStatsBin)
	}
	if t < math.MinInt64+r { // the first minute that int64 has is not whole
		return math.MinInt64
	}
	return t - r
}

func (c *counter) count(target int32, level int64) {
	if level < 0 || level >= levels {
		if c.sparse == nil {
			c.sparse = map[sparseKey]int64{}
		}
		c.sparse[sparseKey{target, level}]++
		return
	}
	at := target*levels + int32(level)
	if c.dense[at] == 0 {
		c.touched = append(c.touched, at)
	}
	c.dense[at]++
}

// flush appends the counts as rows, and starts over.
func (c *counter) flush(dst, src *columnar.Rows, bin int64, process int32) {
	for _, at := range c.touched {
		appendCount(dst, src, bin, process, int64(at%levels), at/levels, c.dense[at])
		c.dense[at] = 0
	}
	c.touched = c.touched[:0]
	keys := make([]sparseKey, 0, len(c.sparse))
	for k := range c.sparse {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b sparseKey) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.target, b.target))
	})
	for _, k := range keys {
		appendCount(dst, src, bin, process, k.level, k.target, c.sparse[k])
	}
	clear(c.sparse)
}

func appendCount(dst, src *columnar.Rows, bin int64, process int32, level int64, target int32, count int64) {
	dst.Columns[statsTimeBin].RepeatInt(bin, 1)
	dst.Columns[statsProcessID].AppendFrom(&src.Columns[0], process)
	dst.Columns[statsLevel].RepeatInt(level, 1)
	dst.Columns[statsTarget].AppendFrom(&src.Columns[materializers.ColumnTarget], target)
	dst.Columns[statsCount].RepeatInt(count, 1)
}
