package filesink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
)

// Config says which file requests go to.
type Config struct {
	// Path is the file that is written. Older ones are Path.1 (the youngest), Path.2, … One process writes a path at a time.
	Path     string
	MaxBytes int64 // of a file, before the next one is begun
	MaxFiles int   // with the one that is written; the oldest is removed

	Delivery deliver.Config // the queue in front of the file; one request is written at a time
}

// DefaultConfig keeps ten files of 64 MiB.
func DefaultConfig() Config {
	return Config{MaxBytes: 64 << 20, MaxFiles: 10, Delivery: deliver.DefaultConfig()}
}

const maxFiles = 10_000

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.Path == "" {
		errs = append(errs, errors.New("path is missing"))
	}
	if c.MaxBytes <= 0 {
		errs = append(errs, fmt.Errorf("files of %d bytes: want more than 0", c.MaxBytes))
	}
	if c.MaxFiles < 1 || c.MaxFiles > maxFiles {
		errs = append(errs, fmt.Errorf("%d files: want 1 to %d", c.MaxFiles, maxFiles))
	}
	return errors.Join(append(errs, c.Delivery.Validate())...)
}

var _ sdk.Sink = (*Sink)(nil)

// Sink appends requests to a file. A request that cannot be written is dropped as sdk.DropDisk, and the next one is tried: when there is
// room again, writing goes on. It must be closed when no longer needed.
type Sink struct {
	sink   *deliver.Sink
	close  func() error
	closed atomic.Bool
}

// New returns a sink on a file, which need not be writable yet. What a crash left at the end of it is cut off.
func New(cfg Config) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("filesink: %w", err)
	}
	f := &files{cfg: cfg}
	return start(cfg.Delivery, f, f.close)
}

// NewWriter returns a sink on a writer, which is not closed. After a write that failed half way nothing more is written.
func NewWriter(w io.Writer, cfg deliver.Config) (*Sink, error) {
	return start(cfg, &writer{w: w}, func() error { return nil })
}

func start(cfg deliver.Config, p deliver.Poster, closing func() error) (*Sink, error) {
	cfg.MaxInFlight = 1
	s, err := deliver.New(cfg, p)
	if err != nil {
		return nil, fmt.Errorf("filesink: %w", err)
	}
	return &Sink{sink: s, close: closing}, nil
}

// Send queues the request, or drops it.
func (s *Sink) Send(r sdk.Request) { s.sink.Send(r) }

// Flush returns when everything sent before is delivered or dropped, or with ctx's error.
func (s *Sink) Flush(ctx context.Context) error { return s.sink.Flush(ctx) }

// Stats returns the numbers so far.
func (s *Sink) Stats() sdk.SinkStats { return s.sink.Stats() }

// Close flushes and closes the file.
func (s *Sink) Close(ctx context.Context) error {
	if s.closed.Swap(true) {
		return nil
	}
	return errors.Join(s.sink.Close(ctx), s.close())
}

// frameOf returns the bytes of a request that is written now, in a buffer that is used again.
func frameOf(buf []byte, r *sdk.Request) ([]byte, error) {
	if len(r.Body) > MaxBody {
		return buf, fmt.Errorf("body of %d bytes: a frame holds %d", len(r.Body), MaxBody)
	}
	return AppendFrame(buf[:0], &Frame{Request: *r, Since: time.Now()}), nil
}

const keepBuffer = 8 << 20 // a larger one is not kept for the next frame

func keep(buf []byte) []byte {
	if cap(buf) > keepBuffer {
		return nil
	}
	return buf
}

func failed(err error) deliver.Answer {
	return deliver.Answer{Verdict: deliver.Refused, Reason: sdk.DropDisk, Err: err}
}

// writer writes to an io.Writer.
type writer struct {
	w      io.Writer
	buf    []byte
	broken error
}

// Post writes a frame.
func (w *writer) Post(_ context.Context, r *sdk.Request) deliver.Answer {
	if w.broken != nil {
		return failed(w.broken)
	}
	frame, err := frameOf(w.buf, r)
	if err != nil {
		return failed(err)
	}
	n, err := w.w.Write(frame)
	w.buf = keep(frame)
	if err == nil {
		return deliver.Answer{}
	}
	if n > 0 {
		w.broken = fmt.Errorf("written half a frame: %w", err)
	}
	return failed(err)
}

// files writes to a file that is rotated. The lock is for a Close that does not wait for a write that hangs.
type files struct {
	cfg Config

	mu     sync.Mutex
	closed bool
	f      *os.File // nil = not open
	size   int64    // of f, up to its last whole frame
	buf    []byte
}

// Post writes a frame.
func (f *files) Post(_ context.Context, r *sdk.Request) deliver.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	frame, err := frameOf(f.buf, r)
	if err == nil {
		f.buf = keep(frame)
		err = f.write(frame)
	}
	if err != nil {
		return failed(err)
	}
	return deliver.Answer{}
}

func (f *files) write(frame []byte) error {
	if f.closed {
		return os.ErrClosed
	}
	if err := f.open(); err != nil {
		return err
	}
	if f.size > 0 && f.size+int64(len(frame)) > f.cfg.MaxBytes {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	if _, err := f.f.Write(frame); err != nil {
		return errors.Join(err, f.restore())
	}
	f.size += int64(len(frame))
	return nil
}

// open opens the file and cuts off what is no frame at its end.
func (f *files) open() error {
	if f.f != nil {
		return nil
	}
	file, err := os.OpenFile(f.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := Repair(file)
	if err != nil {
		file.Close()
		return err
	}
	f.f, f.size = file, size
	return nil
}

// Repair cuts off what is no frame at the end of a file, and returns the size that is left.
func Repair(f *os.File) (int64, error) {
	r := NewReader(io.NewSectionReader(f, 0, 1<<62))
	for {
		_, err := r.Next()
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		if r.Torn() {
			if err := f.Truncate(r.Offset()); err != nil {
				return 0, fmt.Errorf("cut off a torn frame: %w", err)
			}
		}
		return r.Offset(), nil
	}
}

// restore takes half a frame back. When that fails too, the file is opened anew for the next frame, which repairs it.
func (f *files) restore() error {
	err := f.f.Truncate(f.size)
	if err != nil {
		err = errors.Join(err, f.f.Close())
		f.f = nil
	}
	return err
}

// rotate begins a new file.
func (f *files) rotate() error {
	err := f.f.Close()
	f.f = nil
	if err != nil {
		return err
	}
	name := func(i int) string { return fmt.Sprintf("%s.%d", f.cfg.Path, i) }
	if f.cfg.MaxFiles == 1 {
		err = os.Remove(f.cfg.Path)
	} else {
		os.Remove(name(f.cfg.MaxFiles - 1))
		for i := f.cfg.MaxFiles - 2; i >= 1; i-- {
			if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		err = os.Rename(f.cfg.Path, name(1))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return f.open()
}

func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}
