package wire

import (
	"errors"
	"math"
	"time"
)

var errTime = errors.New("not an RFC 3339 time")

// parseTime reads an RFC 3339 time with any offset and any number of fractional digits (those beyond nanoseconds are dropped),
// with T, t or a space between date and time. A time that int64 nanoseconds cannot hold becomes the nearest one that they can.
// It does not allocate.
func parseTime(b []byte) (int64, error) {
	if len(b) < 20 || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' {
		return 0, errTime
	}
	if b[10] != 'T' && b[10] != 't' && b[10] != ' ' {
		return 0, errTime
	}
	year, ok0 := number(b[0:4])
	month, ok1 := number(b[5:7])
	day, ok2 := number(b[8:10])
	hour, ok3 := number(b[11:13])
	minute, ok4 := number(b[14:16])
	second, ok5 := number(b[17:19])
	digits := ok0 && ok1 && ok2 && ok3 && ok4 && ok5
	if !digits || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour > 23 || minute > 59 || second > 60 { // 60 is a leap second: the first one of the next minute
		return 0, errTime
	}
	nanos, rest, err := fraction(b[19:])
	if err != nil {
		return 0, err
	}
	offset, err := zone(rest)
	if err != nil {
		return 0, err
	}
	seconds := daysSinceEpoch(year, month, day)*86_400 + hour*3_600 + minute*60 + second - offset
	return nanoseconds(seconds, nanos), nil
}

func nanoseconds(seconds, nanos int64) int64 {
	const last, first = math.MaxInt64 / 1_000_000_000, math.MinInt64/1_000_000_000 - 1
	switch {
	case seconds >= last:
		return math.MaxInt64
	case seconds <= first:
		return math.MinInt64
	}
	return seconds*1_000_000_000 + nanos
}

// number reads decimal digits only.
func number(b []byte) (int64, bool) {
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// fraction reads the optional part of a second and returns what follows.
func fraction(b []byte) (nanos int64, rest []byte, err error) {
	if len(b) == 0 || b[0] != '.' {
		return 0, b, nil
	}
	i, scale := 1, int64(100_000_000)
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		nanos += int64(b[i]-'0') * scale
		scale /= 10
	}
	if i == 1 {
		return 0, nil, errTime
	}
	return nanos, b[i:], nil
}

// zone reads Z or an offset and returns it in seconds east of UTC.
func zone(b []byte) (int64, error) {
	if len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, nil
	}
	if len(b) != 6 || (b[0] != '+' && b[0] != '-') || b[3] != ':' {
		return 0, errTime
	}
	h, ok0 := number(b[1:3])
	m, ok1 := number(b[4:6])
	if !ok0 || !ok1 || h > 23 || m > 59 {
		return 0, errTime
	}
	if b[0] == '-' {
		return -(h*3_600 + m*60), nil
	}
	return h*3_600 + m*60, nil
}

func daysIn(year, month int64) int64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSinceEpoch counts from 1970-01-01. Years begin in March here, so that the leap day is the last of its year and the days before
// a month follow (153m+2)/5.
func daysSinceEpoch(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return year*365 + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719_468
}

// appendTime appends a time with nanoseconds and a numeric offset, as blocks carry it.
func appendTime(dst []byte, ns int64) []byte {
	return time.Unix(0, ns).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000000+00:00")
}

// appendStartTime appends a time with Z and the fewest of 0, 3, 6 or 9 fractional digits, as processes carry it.
func appendStartTime(dst []byte, ns int64) []byte {
	layout := "2006-01-02T15:04:05.000000000Z"
	switch {
	case ns%1_000_000_000 == 0:
		layout = "2006-01-02T15:04:05Z"
	case ns%1_000_000 == 0:
		layout = "2006-01-02T15:04:05.000Z"
	case ns%1_000 == 0:
		layout = "2006-01-02T15:04:05.000000Z"
	}
	return time.Unix(0, ns).UTC().AppendFormat(dst, layout)
}
