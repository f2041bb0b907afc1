package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/filesink"
)

// segment is a file of requests of one class. It is written, then sealed, then read as a whole, and removed when all of its requests are
// delivered or dropped.
type segment struct {
	path    string
	class   sdk.Class
	adopted *folder // nil = it is in this process's own
	bytes   int64
	left    int64 // requests that are neither delivered nor dropped
	events  int64 // of those left, until it is read
	gone    bool  // evicted: what is under way of it is not kept any more

	// What follows is there once the segment is read.
	records  []*record
	next     int       // records[:next] were given out at least once
	returned []*record // given out and taken back
}

// record is a request of a segment.
type record struct {
	kept deliver.Kept
	seg  *segment
	out  bool // given out
	done bool
}

func segmentName(class sdk.Class, number uint64) string {
	return fmt.Sprintf("%d-%020d%s", class, number, segmentEnd)
}

// parseSegmentName returns the class of a segment file; false: it is none.
func parseSegmentName(name string) (sdk.Class, bool) {
	stem, ok := strings.CutSuffix(name, segmentEnd)
	class, _, ok2 := strings.Cut(stem, "-")
	n, err := strconv.ParseUint(class, 10, 8)
	return sdk.Class(n), ok && ok2 && err == nil && n < sdk.NumClasses
}

// segmentWriter appends to a segment.
type segmentWriter struct {
	seg *segment
	f   *os.File
	buf []byte
}

func createSegment(folder string, class sdk.Class, number uint64) (*segmentWriter, error) {
	path := filepath.Join(folder, segmentName(class, number))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &segmentWriter{seg: &segment{path: path, class: class}, f: f}, nil
}

// write appends a request, whole or not at all. After an error the writer is of no more use when broken is true.
func (w *segmentWriter) write(k *deliver.Kept) (n int64, broken bool, err error) {
	w.buf = filesink.AppendFrame(w.buf[:0], &filesink.Frame{Request: k.Request, Since: k.Since})
	n = int64(len(w.buf))
	if _, err := w.f.Write(w.buf); err != nil {
		trimErr := w.f.Truncate(w.seg.bytes) // a reader stops at half a frame, so nothing may follow one
		return 0, trimErr != nil, errors.Join(err, trimErr)
	}
	if cap(w.buf) > 1<<20 {
		w.buf = nil
	}
	return n, false, nil
}

// readSegment visits the requests that a segment file holds, as far as it is whole. damaged is how many frames are not: a torn end is one.
func readSegment(path string, visit func(*filesink.Frame)) (damaged int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := filesink.NewReader(f)
	for {
		frame, err := r.Next()
		if err == nil {
			visit(&frame)
			continue
		}
		damaged = int64(r.Damaged())
		if r.Torn() {
			damaged++
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return damaged, err
	}
}

// load reads the segment's requests. What cannot be read is missing.
func (s *segment) load() (records []*record, err error) {
	_, err = readSegment(s.path, func(f *filesink.Frame) {
		f.Class = s.class
		records = append(records, &record{seg: s, kept: deliver.Kept{Request: f.Request, Since: f.Since}})
	})
	for _, r := range records {
		r.kept.Place = r
	}
	return records, err
}

// due returns a record to be given out, taking it; nil: there is none now. next is when a returned one may be.
func (s *segment) due(now time.Time, take bool) (r *record, next time.Time) {
	for i, r := range s.returned {
		if !r.kept.NotBefore.After(now) {
			if take {
				s.returned = append(s.returned[:i], s.returned[i+1:]...)
			}
			return r, time.Time{}
		}
		if next.IsZero() || r.kept.NotBefore.Before(next) {
			next = r.kept.NotBefore
		}
	}
	if s.next < len(s.records) {
		r = s.records[s.next]
		if take {
			s.next++
		}
		return r, time.Time{}
	}
	return nil, next
}
