package freezer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// oldDays is how many days back a day is a unit of its own.
const oldDays = 60

// Levels of frozen files in the catalog.
const (
	levelDay   int16 = 0
	levelYear  int16 = 1
	levelAhead int16 = 2 // a year, or the rest of one, that lay in the future when it was frozen
)

// unit is a range of begin times whose rows are frozen together.
type unit struct {
	level    int16
	bucket   int64 // first nanosecond of the day or year
	from, to int64 // begin times, both included
	// What the catalog says of its rows.
	rows, firstInsert int64
}

// String names the unit.
func (u *unit) String() string {
	layout := time.DateOnly
	if u.level != levelDay {
		layout = "2006"
	}
	return fmt.Sprintf("%s (%d rows)", time.Unix(0, u.bucket).UTC().Format(layout), u.rows)
}

// window is what may be frozen at a moment: what began before one day or after another.
type window struct {
	before, after int64       // as Catalog.Freezable takes them
	firstDay      catalog.Day // the first day that is a unit of its own
}

// windowAt returns the window at a time of the store's clock. The days of the future begin a day late, so that none of them
// comes under the catalog's guard while it is frozen.
func windowAt(now int64, freezeAfter time.Duration) window {
	last := catalog.DayOf(now - int64(freezeAfter))
	return window{
		before:   last.Begin(),
		after:    catalog.DayOf(now + int64(catalog.FreezeGuard+24*time.Hour)).End(),
		firstDay: last - oldDays,
	}
}

// units groups days, which are in order, oldest first.
func (w window) units(days []catalog.DayRows) []unit {
	var units []unit
	for _, d := range days {
		u := w.unitOf(d.Day)
		if n := len(units); n == 0 || units[n-1].level != u.level || units[n-1].bucket != u.bucket {
			u.firstInsert = math.MaxInt64
			units = append(units, u)
		}
		last := &units[len(units)-1]
		last.rows += d.Rows
		last.firstInsert = min(last.firstInsert, d.FirstInsert)
	}
	return units
}

// unitOf returns the unit of a day: the day, or what the window has of its year.
func (w window) unitOf(d catalog.Day) unit {
	begin := d.Begin()
	if d >= w.firstDay && begin < w.before {
		return unit{level: levelDay, bucket: begin, from: begin, to: d.End()}
	}
	year := time.Unix(0, d.End()).UTC().Year()
	u := unit{level: levelYear, bucket: yearBegin(year), from: yearBegin(year), to: yearEnd(year)}
	if begin < w.before {
		u.to = min(u.to, w.firstDay.Begin()-1)
	} else {
		u.level, u.from = levelAhead, max(u.from, w.after+1)
	}
	return u
}

// The years whose every nanosecond is an int64.
const firstYear, lastYear = 1678, 2261

// yearBegin returns the first nanosecond of a year, or the first there is.
func yearBegin(year int) int64 {
	if year < firstYear {
		return math.MinInt64
	}
	return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
}

// yearEnd returns the last nanosecond of a year, or the last there is.
func yearEnd(year int) int64 {
	if year > lastYear {
		return math.MaxInt64
	}
	return yearBegin(year+1) - 1
}

// A file with dominant times the rows of all smaller ones and of the new rows together is left alone, and so is one that is
// half full; maxMerged bounds the files that are read side by side.
const (
	dominant  = 2
	maxMerged = 8
)

// toMerge returns the files that a freeze of a unit takes in.
func (f *Freezer) toMerge(u *unit, files []catalog.FrozenFile) []catalog.FrozenFile {
	small := slices.DeleteFunc(slices.Clone(files), func(p catalog.FrozenFile) bool { return p.Rows > f.cfg.FileRows/2 })
	slices.SortFunc(small, func(a, b catalog.FrozenFile) int {
		return cmp.Or(cmp.Compare(a.Rows, b.Rows), cmp.Compare(a.PartNo, b.PartNo))
	})
	sum, n := u.rows, 0
	for i := range small[:min(len(small), maxMerged)] {
		if small[i].Rows <= dominant*sum {
			n = i + 1
		}
		sum += small[i].Rows
	}
	return small[:n]
}
