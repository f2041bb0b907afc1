package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"time"
)

// headBytes is how much of the begin of a file tells it from others.
const headBytes = 1024

// maxSiblings bounds the search for copies in a folder.
const maxSiblings = 10_000

// head is the begin of a file.
type head struct {
	n   int
	sum uint64
}

// headOf returns the first n bytes of a file; false = it is shorter, or cannot be read.
func headOf(r io.ReaderAt, n int) (head, bool) {
	b := make([]byte, n)
	if got, err := r.ReadAt(b, 0); got < n || err != nil && !errors.Is(err, io.EOF) {
		return head{}, false
	}
	h := fnv.New64a()
	h.Write(b) //nolint:errcheck // a hash takes everything
	return head{n, h.Sum64()}, true
}

// isOf reports whether the file still begins so.
func (h head) isOf(r io.ReaderAt) bool {
	if h.n == 0 {
		return true
	}
	got, ok := headOf(r, h.n)
	return ok && got == h
}

// follower is an open file.
type follower struct {
	id    fileID
	path  string // its last name
	no    int64  // in the order of finding
	file  *os.File
	lines lines
	head  head // of what was read
	open  *openEntry
	seen  int64     // the last round in which it had a name
	grown time.Time // when something was read

	// copyOf is the file that this one was copied from, as long as that is not cut: until then all of it is read from there.
	copyOf *follower
}

// openEntry is an entry that the next line may continue.
type openEntry struct {
	text  []byte
	lines int
	begin int64 // offset of its first line
	since time.Time
}

func openFile(path string, maxLine int) (*follower, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &follower{id: idOf(path, info), path: path, file: file, lines: lines{max: maxLine}}, nil
}

// size returns the size of the file, 0 when it cannot be told.
func (f *follower) size() int64 {
	info, err := f.file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// learnHead takes note of the begin of what was read.
func (f *follower) learnHead() {
	n := int(min(headBytes, f.lines.at))
	if n <= f.head.n {
		return
	}
	if h, ok := headOf(f.file, n); ok {
		f.head = h
	}
}

// done returns the offset of what is not recorded yet.
func (f *follower) done() int64 {
	if f.open != nil {
		return f.open.begin
	}
	return f.lines.begin
}

// read reads a chunk and reports whether there may be more.
func (p *Producer) read(f *follower, now time.Time) bool {
	if f.copyOf != nil {
		return false
	}
	size := f.size()
	if size == f.lines.at {
		return false
	}
	// A file that was cut and written since may be longer than before, but it begins otherwise.
	if size < f.lines.at || !f.head.isOf(f.file) {
		p.beginAnew(f, now)
		return size > 0
	}
	n, err := f.file.ReadAt(p.chunk, f.lines.at)
	if err != nil && !errors.Is(err, io.EOF) {
		p.trouble(f.path, err)
	} else {
		p.trouble(f.path, nil)
	}
	if n == 0 {
		return false
	}
	f.grown = now
	p.bytes.Add(int64(n))
	bytesRead.Add(uint64(n))
	f.lines.feed(p.chunk[:n], func(l line) { p.addLine(f, l, now) })
	f.learnHead()
	return n == len(p.chunk)
}

// beginAnew begins at the new begin of a file that was cut. What is not read of it is read from its copy, if there is one, which goes on where
// the file was.
func (p *Producer) beginAnew(f *follower, now time.Time) {
	p.truncated.Add(1)
	if c := p.copyBeyond(f); c != nil {
		if known := p.files[c.id]; known != nil {
			c.file.Close()
			c = known
		} else {
			p.follow(c, now)
		}
		c.copyOf, c.no, c.lines, c.open, c.head = nil, f.no, f.lines, f.open, f.head
		f.lines, f.open = lines{max: p.cfg.MaxLineBytes}, nil
		f.no = p.nextNo()
	}
	p.lastLine(f)
	f.lines.reset(0)
	f.head = head{}
	p.releaseCopies(f)
}

// copyBeyond opens the newest file beside f that begins as f did and is not shorter than what was read of it; nil = there is none.
func (p *Producer) copyBeyond(f *follower) *follower {
	return p.sibling(f.path, func(c *follower) bool {
		known := p.files[c.id]
		return c.id != f.id && (known == nil || known.copyOf == f) && f.head.n > 0 && c.size() >= f.lines.at && f.head.isOf(c.file)
	})
}

// sibling opens the newest file in the folder of path with the name of a copy of path for which ok holds; nil = there is none.
func (p *Producer) sibling(path string, ok func(*follower) bool) *follower {
	var best *follower
	var bestTime time.Time
	for _, name := range namesBeside(path) {
		if !copyNameOf(name, path) || isCompressed(name) {
			continue
		}
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		c, err := openFile(name, p.cfg.MaxLineBytes)
		if err != nil {
			continue
		}
		if !ok(c) || best != nil && info.ModTime().Before(bestTime) {
			c.file.Close()
			continue
		}
		if best != nil {
			best.file.Close()
		}
		best, bestTime = c, info.ModTime()
	}
	return best
}

// namesBeside returns the names in the folder of a file.
func namesBeside(path string) []string {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxSiblings)
	if err != nil {
		return nil
	}
	for i := range names {
		names[i] = filepath.Join(filepath.Dir(path), names[i])
	}
	return names
}

// originalOf returns the file that a new one is a copy of; nil = it is none.
func (p *Producer) originalOf(c *follower) *follower {
	for _, f := range p.files {
		if f.head.n > 0 && copyNameOf(c.path, f.path) && f.head.isOf(c.file) {
			return f
		}
	}
	return nil
}

// addLine takes a line of a file.
func (p *Producer) addLine(f *follower, l line, now time.Time) {
	p.lines.Add(1)
	linesRead.Add(1)
	if l.cut {
		p.cut.Add(1)
		linesCut.Add(1)
	}
	if len(bytes.TrimSpace(l.text)) == 0 {
		return
	}
	if o := f.open; o != nil {
		if isBlank(l.text[0]) && o.lines < maxEntryLines && len(o.text)+len(l.text) < maxEntryBytes {
			o.text = append(append(o.text, '\n'), l.text...)
			o.lines++
			o.since = now
			return
		}
		p.closeEntry(f)
	}
	if e, ok := p.parse.object(l.text, now); ok {
		p.record(f, e)
		return
	}
	if p.cfg.Format == JSON {
		p.malformed.Add(1)
	}
	if !p.cfg.Multiline {
		p.record(f, p.parse.text(l.text, now))
		return
	}
	f.open = &openEntry{text: bytes.Clone(l.text), lines: 1, begin: l.begin, since: now}
}

// closeEntry records the entry that waits for lines.
func (p *Producer) closeEntry(f *follower) {
	if f.open != nil {
		p.record(f, p.parse.text(f.open.text, f.open.since))
		f.open = nil
	}
}

// lastLine records all that is there of a file that will not grow.
func (p *Producer) lastLine(f *follower) {
	f.lines.feed([]byte{'\n'}, func(l line) {
		if len(l.text) > 0 {
			p.addLine(f, l, time.Now())
		}
	})
	p.closeEntry(f)
}
