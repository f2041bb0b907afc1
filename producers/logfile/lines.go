package logfile

import (
	"bytes"
	"unicode/utf8"
)

// maxEntryBytes bounds entries of several lines.
const maxEntryBytes = 1 << 20

// line is a line without its end. Its text is valid during the call that it is handed to.
type line struct {
	text  []byte
	begin int64 // offset of its first byte
	cut   bool
}

// lines splits what is read into lines.
type lines struct {
	max   int    // bytes of a line that are kept
	begin int64  // offset of the line under way
	at    int64  // offset behind what was fed
	buf   []byte // of the line under way
	over  bool   // it is longer than max
}

// reset forgets the line under way and begins at an offset.
func (l *lines) reset(offset int64) {
	l.begin, l.at, l.buf, l.over = offset, offset, l.buf[:0], false
}

// feed takes what was read, and hands out the lines that end in it.
func (l *lines) feed(data []byte, emit func(line)) {
	for len(data) > 0 {
		if len(l.buf) == 0 && data[0] == 0 {
			// A writer that goes on at its old offset in a file that was cut leaves a hole, which reads as zeros.
			rest := bytes.TrimLeft(data, "\x00")
			l.at += int64(len(data) - len(rest))
			l.begin, data = l.at, rest
			continue
		}
		end := bytes.IndexByte(data, '\n')
		part := data
		if end >= 0 {
			part = data[:end]
		}
		take := min(len(part), l.max-len(l.buf))
		l.buf = append(l.buf, part[:take]...)
		l.over = l.over || take < len(part)
		l.at += int64(len(part))
		if end < 0 {
			return
		}
		l.at++
		text := bytes.TrimSuffix(l.buf, []byte{'\r'})
		if l.over {
			text = wholeRunes(text)
		}
		emit(line{text, l.begin, l.over})
		l.reset(l.at)
		data = data[end+1:]
	}
}

// wholeRunes returns b without the begin of a character at its end.
func wholeRunes(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
