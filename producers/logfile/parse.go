package logfile

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

// Bounds of entries.
const (
	maxProps      = 64
	maxKeyBytes   = 128
	maxValueBytes = 8 << 10
	levelWithin   = 256         // bytes of a text in which its level is looked for
	timeApart     = time.Second // an entry's own time is told when it differs by more
)

// entry is what is recorded of a line, or of several.
type entry struct {
	level   sdk.Level
	msg     string
	props   []telemetry.Property
	leftOut int64 // properties, or parts of them
}

// parser makes entries of text.
type parser struct{ cfg *Config }

// text makes an entry of text. now is when it was read.
func (p parser) text(text []byte, now time.Time) entry {
	e := entry{level: sdk.Info, msg: valid(text)}
	if p.cfg.DetectLevel {
		if level, ok := levelInText(e.msg); ok {
			e.level = level
		}
	}
	if t, ok := leadingTime(e.msg); ok {
		e.addTime(t, now)
	}
	return e
}

// valid returns b with what is not UTF-8 replaced.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// addTime adds the entry's own time, if it is worth telling.
func (e *entry) addTime(t, now time.Time) {
	if d := now.Sub(t); d > timeApart || d < -timeApart {
		e.props = append(e.props, telemetry.Property{Key: "time", Value: t.UTC().Format(time.RFC3339Nano)})
	}
}

// object makes an entry of a line that is a JSON object; false = it is none, or is not meant to be one.
func (p parser) object(text []byte, now time.Time) (entry, bool) {
	text = bytes.TrimSpace(text)
	if p.cfg.Format == Text || len(text) == 0 || text[0] != '{' {
		return entry{}, false
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return entry{}, false
	}
	e := entry{level: sdk.Info}
	if key, ok := first(fields, p.cfg.MessageKeys); ok {
		e.msg = textOf(fields[key])
		delete(fields, key)
	} else {
		e.msg = valid(text)
	}
	if key, ok := first(fields, p.cfg.LevelKeys); ok {
		if level, ok := levelOf(textOf(fields[key])); ok {
			e.level = level
			delete(fields, key)
		}
	}
	var own time.Time
	key, hasTime := first(fields, p.cfg.TimeKeys)
	if hasTime {
		if own, hasTime = timeOf(textOf(fields[key])); hasTime {
			delete(fields, key)
		}
	}
	e.addFields(fields)
	if hasTime {
		e.addTime(own, now)
	}
	return e, true
}

// first returns the first of keys that is there.
func first(fields map[string]json.RawMessage, keys []string) (string, bool) {
	for _, k := range keys {
		if _, ok := fields[k]; ok {
			return k, true
		}
	}
	return "", false
}

// addFields adds fields as properties, in the order of their keys, as far as there is room.
func (e *entry) addFields(fields map[string]json.RawMessage) {
	for i, key := range slices.Sorted(maps.Keys(fields)) {
		if i >= maxProps {
			e.leftOut += int64(len(fields) - maxProps)
			return
		}
		value := textOf(fields[key])
		if len(key) > maxKeyBytes || len(value) > maxValueBytes {
			e.leftOut++
			key, value = cutText(key, maxKeyBytes), cutText(value, maxValueBytes)
		}
		if key != "" {
			e.props = append(e.props, telemetry.Property{Key: key, Value: value})
		}
	}
}

// cutText returns the first n bytes of s, whole characters of them.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// textOf returns a text's characters, and anything else as JSON.
func textOf(raw json.RawMessage) string {
	var s string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return valid(raw)
	}
	return valid(b.Bytes())
}

// levelNames are what levels are called, in lower case.
var levelNames = map[string]sdk.Level{
	"fatal": sdk.Fatal, "panic": sdk.Fatal, "dpanic": sdk.Fatal, "critical": sdk.Fatal, "crit": sdk.Fatal, "alert": sdk.Fatal,
	"emergency": sdk.Fatal, "emerg": sdk.Fatal,
	"error": sdk.Error, "err": sdk.Error, "severe": sdk.Error,
	"warn": sdk.Warn, "warning": sdk.Warn,
	"info": sdk.Info, "information": sdk.Info, "notice": sdk.Info,
	"debug": sdk.Debug, "fine": sdk.Debug,
	"trace": sdk.Trace, "verbose": sdk.Trace, "finest": sdk.Trace,
}

// levelOf returns the level of a name, or of a number: up to 7 of syslog, from 10 on those of the libraries that count in tens.
func levelOf(s string) (sdk.Level, bool) {
	if level, ok := levelNames[strings.ToLower(s)]; ok {
		return level, true
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil || n < 0:
		return 0, false
	case n <= 7:
		return [...]sdk.Level{sdk.Fatal, sdk.Fatal, sdk.Fatal, sdk.Error, sdk.Warn, sdk.Info, sdk.Info, sdk.Debug}[n], true
	case n >= 10 && n <= 60:
		return [...]sdk.Level{sdk.Trace, sdk.Debug, sdk.Info, sdk.Warn, sdk.Error, sdk.Fatal}[n/10-1], true
	}
	return 0, false
}

// levelWords are the words that name the level of a text where they stand in upper case.
var levelWords = []string{"FATAL", "PANIC", "CRITICAL", "ERROR", "ERR", "WARN", "WARNING", "INFO", "NOTICE", "DEBUG", "TRACE"}

// levelInText returns the level that a text names first: a word in upper case, or level=error in any.
func levelInText(s string) (sdk.Level, bool) {
	s, _, _ = strings.Cut(cutText(s, levelWithin), "\n")
	isLetter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	for i := 0; i < len(s); {
		if !isLetter(s[i]) {
			i++
			continue
		}
		begin := i
		for i < len(s) && isLetter(s[i]) {
			i++
		}
		word := s[begin:i]
		if slices.Contains(levelWords, word) || begin > 0 && isLevelKey(s[:begin]) {
			if level, ok := levelOf(word); ok {
				return level, true
			}
		}
	}
	return 0, false
}

// isLevelKey reports whether a text ends in level= or the like.
func isLevelKey(s string) bool {
	s = strings.TrimSuffix(s, `"`)
	for _, key := range []string{"level=", "lvl=", "severity="} {
		if before, ok := strings.CutSuffix(s, key); ok && (before == "" || isBlank(before[len(before)-1])) {
			return true
		}
	}
	return false
}

// layouts are those of times in logs; a fraction of the second may follow in each, behind a dot or a comma. Those without a zone are in the
// zone of this machine.
var layouts = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05",
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z0700", "2006-01-02 15:04:05", "2006/01/02 15:04:05", time.RFC1123Z,
}

// timeOf reads a time, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, which its size tells.
func timeOf(s string) (time.Time, bool) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		for bound, ns := 1e11, 1e9; ns >= 1; bound, ns = bound*1e3, ns/1e3 { // a number of seconds is below 1e11 up to the year 5138
			if n >= 1e8 && n < bound && n*ns < math.MaxInt64 {
				return time.Unix(0, int64(n*ns)), true
			}
		}
		return time.Time{}, false
	}
	return timeIn(s)
}

// leadingTime returns the time that a text begins with, in its first words, up to three; the most that make a time count.
func leadingTime(s string) (time.Time, bool) {
	s = strings.TrimPrefix(cutText(s, 64), "[")
	if s == "" || s[0] < '0' || s[0] > '9' {
		return time.Time{}, false
	}
	var ends []int
	for i := range len(s) {
		if s[i] == ' ' || s[i] == ']' {
			if ends = append(ends, i); len(ends) == 3 {
				break
			}
		}
	}
	if len(ends) < 3 {
		ends = append(ends, len(s))
	}
	for _, end := range slices.Backward(ends) {
		if t, ok := timeIn(s[:end]); ok {
			return t, true
		}
	}
	return time.Time{}, false
}

// timeIn reads a time in one of the layouts.
func timeIn(s string) (time.Time, bool) {
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil && t.Year() >= 1970 && t.Year() < 2262 {
			return t, true
		}
	}
	return time.Time{}, false
}
