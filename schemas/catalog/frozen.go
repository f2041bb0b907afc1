package catalog

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Frozen blocks. Rows of blocks whose day is long over move from the catalog's table into Parquet objects, so that the table
// stays as small as a few days are. A file of frozen rows is a partition of the view FrozenView, with what look-ups need
// beside it. Each block is, at any one commit number, either a row or in exactly one live file.

// FrozenView is the view of the partitions that hold frozen block rows.
const FrozenView = "blocks"

// FreezeGuard is how far from the store's present a begin time must be for its blocks to be frozen. So no freeze under way is
// about the blocks within, see SplitTimes.
const FreezeGuard = 48 * time.Hour

// SplitTimes returns the begin times of blocks that may be frozen now, and the range of all others; first > last when there are no
// others. The others are in a file only if they were far ahead of their time when it was made: such a file reaches over the present,
// which files seldom do, so that one look at the range is enough.
func SplitTimes(blocks []BlockReg, now int64) (far []int64, first, last int64) {
	first, last = math.MaxInt64, math.MinInt64
	for i := range blocks {
		begin := TruncateToMicroseconds(blocks[i].BeginTime)
		if begin < now-int64(FreezeGuard) || begin > now+int64(FreezeGuard) {
			far = append(far, begin)
		} else {
			first, last = min(first, begin), max(last, begin)
		}
	}
	return far, first, last
}

// Day is the number of a day since 1970-01-01, UTC.
type Day int64

const dayLength = int64(24 * time.Hour)

// DayOf returns the day of a time.
func DayOf(t int64) Day {
	d := t / dayLength
	if t%dayLength < 0 {
		d--
	}
	return Day(d)
}

// Begin returns the first nanosecond of a day, or the first there is.
func (d Day) Begin() int64 {
	if int64(d) < math.MinInt64/dayLength {
		return math.MinInt64
	}
	return int64(d) * dayLength
}

// End returns the last nanosecond of a day, or the last there is.
func (d Day) End() int64 {
	if int64(d) >= math.MaxInt64/dayLength {
		return math.MaxInt64
	}
	return (d + 1).Begin() - 1
}

// FrozenFile is a Parquet object of frozen block rows; package schemas/lake/frozen has its format.
type FrozenFile struct {
	// Partition is of the view FrozenView. MinTime is the least begin time; MaxTime is the greatest insert time, but at least MinTime.
	Partition
	MaxBegin                int64 // greatest begin time
	MaxEnd                  int64 // greatest end time, at least MaxBegin
	FirstStream, LastStream telemetry.ID
	TailSize                int64  // bytes of the object's end that hold its footer
	TailCRC                 uint32 // CRC-32C of them
}

// Frozen is a set of files at one moment. Version is the commit number of the last freeze, 0 = none; each freeze has a greater one.
type Frozen struct {
	Version int64
	Files   []FrozenFile
}

// BlockKey returns the block's key.
func (b *BlockRow) BlockKey() BlockKey {
	return BlockKey{StreamID: b.StreamID, BeginTime: b.BeginTime, BlockID: b.ID}
}

// Compare orders by stream, begin time and block, as frozen files are.
func (k BlockKey) Compare(o BlockKey) int {
	switch c := k.StreamID.Compare(o.StreamID); {
	case c != 0:
		return c
	case k.BeginTime < o.BeginTime:
		return -1
	case k.BeginTime > o.BeginTime:
		return 1
	}
	return k.BlockID.Compare(o.BlockID)
}

// DayRows says how many rows of a day may be frozen, and when the first of them was taken.
type DayRows struct {
	Day         Day
	Rows        int64
	FirstInsert int64
}

// Freezable is what may be frozen at one moment: rows up to UpTo.
type Freezable struct {
	Version int64
	Days    []DayRows // in order
	UpTo    map[ShardID]uint64
}

// FreezeSpan names rows: of blocks that began in [From, To], both included, archived at positions up to UpTo. A shard that is not
// in UpTo has none.
type FreezeSpan struct {
	From, To int64
	UpTo     map[ShardID]uint64
}

// Holds reports whether a row is of the span.
func (s *FreezeSpan) Holds(b *BlockRow) bool {
	return b.BeginTime >= s.From && b.BeginTime <= s.To && b.PackSeq <= s.UpTo[b.Shard]
}

// Freeze is a freeze that was done.
type Freeze struct {
	Version int64
	FreezeSpan
}

// KeptFreezes is how many freezes a catalog remembers at least.
const KeptFreezes = 1000

// FreezeCommit moves the rows of a span into files.
type FreezeCommit struct {
	FreezeSpan
	Version int64 // at which the span was read
	Moved   int64 // rows of the span
	// Added are the files. They hold the rows of the span and those of Retired, and nothing else.
	Added   []FrozenFile
	Retired []int64 // part numbers of frozen files; each must be live
	// ObjectsSince is when the first object of Added was put, by this process's clock; 0 = not checked.
	ObjectsSince int64
}

// Validate reports a commit that contradicts itself.
func (c *FreezeCommit) Validate() error {
	if c.From > c.To || c.Moved <= 0 || len(c.Added) == 0 {
		return fmt.Errorf("%w: freeze of %d rows from %d to %d into %d files", ErrInvalid, c.Moved, c.From, c.To, len(c.Added))
	}
	for i := range c.Added {
		if err := c.Added[i].validate(); err != nil {
			return fmt.Errorf("%w: frozen file %q: %w", ErrInvalid, c.Added[i].Key, err)
		}
	}
	return checkAge(c.ObjectsSince)
}

func (f *FrozenFile) validate() error {
	switch {
	case f.View != FrozenView || f.Instance != 0:
		return fmt.Errorf("it is of view %q, instance %d", f.View, f.Instance)
	case f.Key == "" || f.Rows <= 0:
		return fmt.Errorf("it has %d rows", f.Rows)
	case f.TailSize <= 0 || f.TailSize > f.Size:
		return fmt.Errorf("its tail is %d bytes of %d", f.TailSize, f.Size)
	case f.MaxTime < f.MinTime || f.MaxBegin < f.MinTime || f.MaxEnd < f.MaxBegin:
		return errors.New("its times are out of order")
	case f.FirstStream.Compare(f.LastStream) > 0:
		return errors.New("its streams are out of order")
	case len(f.Procs) != 0 && len(f.Procs) != ProcessBitmapBytes:
		return fmt.Errorf("its bitmap is of %d bytes", len(f.Procs))
	}
	return nil
}

// CheckGuard reports ErrInvalid for a span that reaches into the time that is never frozen. now is the store's clock.
func (c *FreezeCommit) CheckGuard(now int64) error {
	if c.To < now-int64(FreezeGuard) || c.From > now+int64(FreezeGuard) {
		return nil
	}
	return fmt.Errorf("%w: freeze from %d to %d at %d: nothing within %s of now is frozen", ErrInvalid, c.From, c.To, now, FreezeGuard)
}
