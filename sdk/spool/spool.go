// Package spool is a sink that keeps requests on disk while the other end is away, so that neither a long outage nor the end of the
// program loses them.
//
// It stands between the program and a deliver.Poster, the one that httpsink.NewPoster makes: as long as that delivers, requests pass
// through memory only. When it has been away for Config.Delivery.ShelveAfter, or more waits than Delivery.ShelveBytes, requests are moved
// to segment files (frames of package filesink, one class in a file). When it is back they are read and posted, the most precious class
// first and the oldest first within it, and a segment is removed when all of it is delivered. A request may so be posted twice after
// a crash; the gateway takes the first. Close does not wait for a gateway that is away: it moves the rest to the disk and says so.
//
// The disk is bounded: to make room the oldest segments of spans go, then those of metrics, then of logs, never for something less
// precious, and never registrations. While the disk is full or the folder cannot be written, requests stay in memory as long as there is
// room. Nothing is synced: what is written survives the process, not the loss of power.
//
// # Folders
//
// Several processes may share Config.Dir. Each has a subfolder of its own, made when it is needed, with a lock that it holds as long as it
// lives:
//
//	process-<uuid>/lock
//	process-<uuid>/journal
//	process-<uuid>/<class>-<number>.seg
//
// A process looks for subfolders whose lock is free, when it starts and once in Config.AdoptInterval, takes them over and sends what
// they hold. Config.MaxBytes bounds what one process holds, adopted folders included.
//
// # Journal
//
// Events that were recorded but are in no request yet live in memory only. Journal is for them: the recorder appends, every 100 ms, what has
// come to its open blocks. When the process is killed, the next one makes blocks of what the journal holds. A block is forgotten
// when its request is delivered, dropped or on disk.
package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/filesink"
	"github.com/micromegas-go/micromegas/sdk/lockfile"
)

// Config says where requests are kept, and how much of them.
type Config struct {
	Dir           string        // shared by the processes of a machine; made if need be
	MaxBytes      int64         // on disk, of this process and those whose folders it has adopted
	JournalBytes  int64         // of the journal
	AdoptInterval time.Duration // between looks for the folders of processes that have died

	Delivery deliver.Config
}

// DefaultConfig returns the defaults of everything but the folder.
func DefaultConfig() Config {
	return Config{MaxBytes: 1 << 30, JournalBytes: 64 << 20, AdoptInterval: time.Minute, Delivery: deliver.DefaultConfig()}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("folder is missing"))
	}
	if c.MaxBytes <= 0 || c.JournalBytes <= 0 {
		errs = append(errs, fmt.Errorf("%d bytes of requests and %d of journal: want more than 0", c.MaxBytes, c.JournalBytes))
	}
	if c.AdoptInterval <= 0 {
		errs = append(errs, fmt.Errorf("adopt interval of %s: want more than 0", c.AdoptInterval))
	}
	return errors.Join(append(errs, c.Delivery.Validate())...)
}

var (
	_ sdk.Sink    = (*Spool)(nil)
	_ sdk.Journal = (*Spool)(nil)
)

// Spool delivers requests through a poster and keeps on disk what it does not take. It must be closed when no longer needed.
type Spool struct {
	cfg     Config
	sink    *deliver.Sink
	journal *journal
	home    *home
	shelf   *shelf

	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed atomic.Bool
}

// New returns a running spool. A folder that cannot be written is no error: the spool does without as long as it must.
func New(cfg Config, next deliver.Poster) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	h := &home{root: cfg.Dir}
	s := &Spool{cfg: cfg, home: h, shelf: newShelf(cfg.MaxBytes, h), journal: newJournal(h, cfg.JournalBytes)}
	settled := cfg.Delivery.Settled
	cfg.Delivery.Shelf = s.shelf
	cfg.Delivery.Settled = func(r *sdk.Request) {
		s.journal.settled(r)
		if settled != nil {
			settled(r)
		}
	}
	var err error
	if s.sink, err = deliver.New(cfg.Delivery, next); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	if lockfile.Freed {
		s.wg.Go(func() { s.adoptAll(ctx) })
	}
	return s, nil
}

// Send takes the request over.
func (s *Spool) Send(r sdk.Request) {
	s.journal.sent(&r)
	s.sink.Send(r)
}

// Flush returns when everything sent before is delivered or dropped and nothing is on disk, or with ctx's error.
func (s *Spool) Flush(ctx context.Context) error { return s.sink.Flush(ctx) }

// Stats returns the numbers so far. What was adopted from processes that have died counts as sent.
func (s *Spool) Stats() sdk.SinkStats { return s.sink.Stats() }

// Append adds to the open block of a stream.
func (s *Spool) Append(g *sdk.Growth) { s.journal.append(g) }

// Cut says that the open block of a stream was handed to Send, or given up.
func (s *Spool) Cut(streamID telemetry.ID) { s.journal.cutStream(streamID) }

// JournalErrors returns how many writes of the journal have failed or found no room.
func (s *Spool) JournalErrors() int64 { return s.journal.errorCount() }

// Close flushes and ends the spool. What is undelivered when ctx is done, or when an attempt fails, is kept on disk.
func (s *Spool) Close(ctx context.Context) error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	s.wg.Wait()
	err := s.sink.Close(ctx)
	s.shelf.close()
	s.journal.close()
	s.home.release()
	return err
}

// adoptAll adopts the folders of dead processes, now and then.
func (s *Spool) adoptAll(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.AdoptInterval)
	defer ticker.Stop()
	for {
		entries, _ := os.ReadDir(s.cfg.Dir) // none, or not readable: the next time perhaps
		for _, e := range entries {
			path := filepath.Join(s.cfg.Dir, e.Name())
			if e.IsDir() && strings.HasPrefix(e.Name(), folderPrefix) && ctx.Err() == nil && !s.home.is(path) {
				s.adoptFolder(path)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// adoptFolder takes a folder over, unless its process lives or this one holds it already.
func (s *Spool) adoptFolder(path string) {
	f, err := claim(path, false)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			os.Remove(path) // its process died before it had locked the folder; it is empty then
		}
		return
	}
	if !s.recoverJournal(f) {
		f.lock.Close() // the next time, or the next process
		return
	}
	names, _ := contents(path)
	var segs []*segment
	var lost []sdk.Drop
	var total int64 // requests, the lost ones included
	for _, name := range names {
		class, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		seg := &segment{path: filepath.Join(path, name), class: class, adopted: f}
		damaged, _ := readSegment(seg.path, func(fr *filesink.Frame) {
			seg.left++
			seg.events += int64(fr.Events)
			seg.bytes += filesink.Size(len(fr.Body))
		})
		if damaged > 0 {
			lost = append(lost, sdk.Drop{Class: class, Reason: sdk.DropDisk, Requests: damaged})
		}
		total += damaged
		if seg.left == 0 {
			os.Remove(seg.path)
			continue
		}
		total += seg.left
		segs = append(segs, seg)
	}
	s.sink.Adopt(total, lost) // counted before they are found, so that no number is ever negative
	if f.uses = len(segs); f.uses == 0 {
		f.release()
		return
	}
	s.shelf.adopt(segs)
	s.sink.Adopt(0, nil) // and now there is something to find
}

// recoverJournal moves what the journal of a dead process holds to this process's own segments. False: it could not.
func (s *Spool) recoverJournal(f *folder) bool {
	path := filepath.Join(f.path, journalName)
	rs, since, err := recoverRequests(path)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	kept := make([]deliver.Kept, len(rs))
	for i, r := range rs {
		kept[i] = deliver.Kept{Request: r, Since: since}
	}
	if !s.sink.Take(kept) {
		return false
	}
	os.Remove(path)
	return true
}
