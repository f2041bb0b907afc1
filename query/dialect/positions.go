package dialect

import (
	"slices"
	"strings"
)

// positions maps byte offsets of the text that the engine parses back to the client's text: the pieces of the
// output in order, with the place each came from.
type positions []piece

type piece struct{ out, in int }

// source returns the offset in the client's text of offset out in the text that was parsed.
func (p positions) source(out int) int {
	i, found := slices.BinarySearchFunc(p, out, func(e piece, t int) int { return e.out - t })
	if !found {
		i--
	}
	if i < 0 {
		return 0
	}
	in := p[i].in + out - p[i].out
	if i+1 < len(p) && p[i+1].in > p[i].in { // a piece that grew does not reach into the next one
		in = min(in, p[i+1].in)
	}
	return in
}

// lineColumn returns the line and the column, from 1, of a byte offset in text.
func lineColumn(text string, offset int) (line, column int) {
	offset = min(max(offset, 0), len(text))
	before := text[:offset]
	return strings.Count(before, "\n") + 1, offset - strings.LastIndexByte(before, '\n')
}
