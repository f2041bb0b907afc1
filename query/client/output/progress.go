package output

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

const (
	// progressAfter is how long a query may take before somebody wonders.
	progressAfter = 400 * time.Millisecond
	progressEvery = 200 * time.Millisecond
)

// IsTerminal reports whether f is a character device, where a progress line is read rather than kept.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Progress keeps one line of a terminal up to date while a query runs.
type Progress struct {
	w     io.Writer
	began time.Time
	stop  chan struct{}
	done  sync.WaitGroup

	mu    sync.Mutex
	rows  int64
	built string        // how far the server has come before the first row; "" = unknown
	text  func() string // instead of the rows
	shown bool
	quiet bool
}

// NewProgress starts the line; it appears only when the query takes a while. Stop must be called.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, began: time.Now(), stop: make(chan struct{})}
	p.done.Go(p.run)
	return p
}

func (p *Progress) run() {
	timer := time.NewTimer(progressAfter)
	defer timer.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-timer.C:
			p.show()
			timer.Reset(progressEvery)
		}
	}
}

func (p *Progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		return
	}
	p.shown = true
	text := fmt.Sprintf("%d rows", p.rows)
	if p.text != nil {
		text = p.text()
	}
	fmt.Fprintf(p.w, "\r\x1b[Kwaiting %.1f s, %s%s", time.Since(p.began).Seconds(), p.built, text)
}

// Building notes how many blocks the server has decoded for the query, and of how many.
func (p *Progress) Building(done, blocks int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.built = fmt.Sprintf("%d of %d blocks decoded, ", done, blocks)
}

// Describe makes the line say what text returns instead of the number of rows. text is called by another goroutine.
func (p *Progress) Describe(text func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
}

// Clear removes the line for good, because rows are about to be written to the same terminal.
func (p *Progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet = true
	if p.shown {
		p.shown = false
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// Stop ends the line and removes it. It may be called twice.
func (p *Progress) Stop() {
	p.mu.Lock()
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.mu.Unlock()
	p.done.Wait()
	p.Clear()
}

// Watch returns rows that count themselves on the line, which no longer speaks of blocks: there are rows only when all are decoded. With
// clear the line goes when the first batch comes.
func (p *Progress) Watch(rows Source, clear bool) Source {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.built = ""
	return &watched{rows, p, clear}
}

type watched struct {
	Source
	p     *Progress
	clear bool
}

func (w *watched) Next() (arrow.RecordBatch, error) {
	batch, err := w.Source.Next()
	if err == nil {
		if w.clear {
			w.p.Clear()
		}
		w.p.mu.Lock()
		w.p.rows += batch.NumRows()
		w.p.mu.Unlock()
	}
	return batch, err
}
