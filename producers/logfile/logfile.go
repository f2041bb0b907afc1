// Package logfile follows log files as they grow and records their lines through package sdk: lines of text, or a JSON object a line.
//
// A file is known by what it is, not by its name (device and inode), and by a hash of its first bytes. One that is renamed is read to its
// end under any name, also one renamed while the producer was away; so no line is lost and none comes twice. One that is copied and then
// cut to nothing (copytruncate) begins anew, and what its copy has beyond what was read is read first: the copy is found by its name, which is
// the file's with a number behind, as in app.log.1, and by its first bytes. What only a compressed copy has is not found.
//
// A line ends at its newline; one without waits for it. A line that begins with a blank continues the entry before it. Everything is
// bounded: files, the length of lines and entries, properties; what is cut is counted.
//
// The files are their own queue. After each few megabytes the producer waits until the library has delivered all of it, and reads on
// then: a gateway that is away is waited for, and a backlog of any size is not faster than the library. Positions are written at those
// moments alone, to a file that is replaced as a whole. So what is read is recorded at least once, and after an end in good order once.
//
// An entry is stamped with the time at which it is read. Its own time is the property "time" when that differs by more than a second; its file
// is the property "log_file".
package logfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

// Format says what lines are.
type Format string

// The formats.
const (
	Auto Format = "auto" // JSON where a line is a JSON object, else text
	Text Format = "text"
	JSON Format = "json" // what is none is recorded as text, and counted
)

// Bounds of the producer.
const (
	minPoll       = time.Millisecond
	minLineBytes  = 64
	maxLineBytes  = 1 << 20
	maxEntryLines = 1000            // joined into one entry
	chunkBytes    = 256 << 10       // read from a file at a time, so that all get their turn
	maxAhead      = 4 << 20         // bytes recorded that may not be delivered yet
	saveEvery     = 5 * time.Second // positions
	flushTimeout  = 2 * time.Second // of waiting for the delivery, while no file is looked after
	lastFlush     = 5 * time.Second // likewise, at the end
	entryWait     = time.Second     // for a line that continues the last entry
	goneGrace     = 5 * time.Second // a file that has no name any more is read as long as it grows, and so much longer
)

// Config says what is read, and how.
type Config struct {
	Paths     []string // patterns of package path/filepath
	Format    Format
	Target    string // of all entries
	Positions string // file that keeps positions; "" = none, a new start begins anew
	FromEnd   bool   // begin at the end of files that are there at the start and have no position

	DetectLevel bool // find the level of text by words such as ERROR, or level=error
	Multiline   bool // join lines that begin with a blank to the line before

	// Keys of JSON objects, the first that is there counts. The others become properties.
	TimeKeys, LevelKeys, MessageKeys []string

	Poll         time.Duration // between looks at the files
	MaxFiles     int           // followed at a time
	MaxLineBytes int           // longer ones are cut
}

// DefaultConfig returns the defaults of everything but Paths.
func DefaultConfig() Config {
	return Config{
		Format: Auto, Target: "logfile", DetectLevel: true, Multiline: true,
		TimeKeys: []string{"time", "ts", "@timestamp", "timestamp"}, LevelKeys: []string{"level", "severity", "lvl"},
		MessageKeys: []string{"msg", "message"},
		Poll:        250 * time.Millisecond, MaxFiles: 1000, MaxLineBytes: 64 << 10,
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if len(c.Paths) == 0 {
		errs = append(errs, errors.New("no paths: name a file or a pattern such as /var/log/app/*.log"))
	}
	for _, p := range c.Paths {
		if _, err := filepath.Match(p, ""); err != nil || p == "" {
			errs = append(errs, fmt.Errorf("path %q is no pattern", p))
		}
	}
	if !slices.Contains([]Format{Auto, Text, JSON}, c.Format) {
		errs = append(errs, fmt.Errorf("no format %q: choose of %s, %s, %s", c.Format, Auto, Text, JSON))
	}
	if c.Target == "" {
		errs = append(errs, errors.New("no target"))
	}
	if c.Poll < minPoll {
		errs = append(errs, fmt.Errorf("poll every %s is below %s", c.Poll, minPoll))
	}
	if c.MaxFiles < 1 {
		errs = append(errs, errors.New("max files must be positive"))
	}
	if c.MaxLineBytes < minLineBytes || c.MaxLineBytes > maxLineBytes {
		errs = append(errs, fmt.Errorf("lines of %d bytes are not in %d..%d", c.MaxLineBytes, minLineBytes, maxLineBytes))
	}
	return errors.Join(errs...)
}

// Statistics are counts since the Producer was made.
type Statistics struct {
	Lines     int64 // blank ones too
	Bytes     int64 // read
	Entries   int64 // recorded
	Cut       int64 // lines that were longer than the bound
	LeftOut   int64 // properties, or parts of them
	Malformed int64 // lines that should be JSON objects and are not
	Truncated int64 // files that began anew
	Files     int64 // followed now
}

var (
	linesRead = sdk.NewCounter("logfile_lines", "count")
	bytesRead = sdk.NewCounter("logfile_bytes", "bytes")
	linesCut  = sdk.NewCounter("logfile_cut", "count")
)

// Producer follows files. One goroutine runs it.
type Producer struct {
	cfg   Config
	log   *slog.Logger
	parse parser
	grace time.Duration // goneGrace, but for tests

	files     map[fileID]*follower
	no        int64 // of the last file
	round     int64 // of looking for files
	saved     []position
	written   []position // what the positions file holds
	savedAt   time.Time
	ahead     int // bytes recorded since the last delivery
	troubles  map[string]string
	chunk     []byte
	lines     atomic.Int64
	bytes     atomic.Int64
	entries   atomic.Int64
	cut       atomic.Int64
	leftOut   atomic.Int64
	malformed atomic.Int64
	truncated atomic.Int64
	following atomic.Int64
}

// New makes a Producer and reads its positions; the files are not touched before Run.
func New(cfg Config, log *slog.Logger) (*Producer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("logfile config: %w", err)
	}
	saved, err := loadPositions(cfg.Positions)
	if err != nil {
		return nil, fmt.Errorf("logfile positions: %w", err)
	}
	return &Producer{
		cfg: cfg, log: log, parse: parser{&cfg}, grace: goneGrace, files: map[fileID]*follower{}, saved: saved,
		troubles: map[string]string{}, chunk: make([]byte, chunkBytes),
	}, nil
}

// Stats returns the counts so far. It is safe to call while Run runs.
func (p *Producer) Stats() Statistics {
	return Statistics{
		Lines: p.lines.Load(), Bytes: p.bytes.Load(), Entries: p.entries.Load(), Cut: p.cut.Load(), LeftOut: p.leftOut.Load(),
		Malformed: p.malformed.Load(), Truncated: p.truncated.Load(), Files: p.following.Load(),
	}
}

// Run follows the files until ctx ends. It returns nil, unless the positions cannot be written at the end: files that are not there, or
// cannot be read, are reported and looked for again. What it reads is recorded by package sdk, which must be started; the caller stops it
// afterwards.
func (p *Producer) Run(ctx context.Context) error {
	p.resume()
	p.savedAt = time.Now()
	ticker := time.NewTicker(p.cfg.Poll)
	defer ticker.Stop()
	for {
		p.poll(ctx, time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return p.finish(ctx)
		}
	}
}

// poll looks for files and reads what they have.
func (p *Producer) poll(ctx context.Context, now time.Time) {
	p.scan(now)
	p.following.Store(int64(len(p.files)))
	for more := true; more && ctx.Err() == nil; {
		more = false
		for _, f := range p.order() {
			if p.ahead >= maxAhead && !p.deliver(ctx, flushTimeout) {
				return
			}
			more = p.read(f, now) || more
		}
	}
	for _, f := range p.order() {
		if f.open != nil && now.Sub(f.open.since) >= entryWait && f.size() == f.lines.at {
			p.closeEntry(f)
		}
		if f.seen != p.round && now.Sub(f.grown) >= p.grace {
			p.end(f)
		}
	}
	p.following.Store(int64(len(p.files)))
	if now.Sub(p.savedAt) >= saveEvery {
		p.savedAt = now
		p.deliver(ctx, flushTimeout)
	}
}

// order returns the files in the order of finding; of those found at once, those first that were changed longest ago.
func (p *Producer) order() []*follower {
	all := make([]*follower, 0, len(p.files))
	for _, f := range p.files {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *follower) int { return cmp.Compare(a.no, b.no) })
	return all
}

// finish records what is complete and writes the positions.
func (p *Producer) finish(ctx context.Context) error {
	for _, f := range p.order() {
		p.closeEntry(f)
	}
	delivered := p.deliver(context.WithoutCancel(ctx), lastFlush)
	for _, f := range p.files {
		f.file.Close()
	}
	if !delivered && p.cfg.Positions != "" {
		return errors.New("positions are of an earlier moment: lines may come twice after the next start")
	}
	return nil
}

// deliver waits until what was recorded is delivered, or given up by the sink, and writes the positions then.
func (p *Producer) deliver(ctx context.Context, within time.Duration) bool {
	flush, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := sdk.Flush(flush); err != nil {
		if ctx.Err() == nil {
			p.trouble("delivery", err)
		}
		return false
	}
	p.trouble("delivery", nil)
	p.ahead = 0
	if p.cfg.Positions == "" {
		return true
	}
	err := p.savePositions()
	p.trouble("positions", err)
	return err == nil
}

// trouble reports an error with a thing once, until it is another one.
func (p *Producer) trouble(with string, err error) {
	before, had := p.troubles[with]
	switch {
	case err == nil && had:
		delete(p.troubles, with)
		p.log.Info("trouble is over", "with", with)
	case err != nil && err.Error() != before && len(p.troubles) < 2*p.cfg.MaxFiles:
		p.troubles[with] = err.Error()
		p.log.Warn("trouble, trying again", "with", with, "error", err)
	}
}

// record records an entry.
func (p *Producer) record(f *follower, e entry) {
	e.props = append(e.props, telemetry.Property{Key: "log_file", Value: f.path})
	sdk.LogProps(context.Background(), 0, p.cfg.Target, e.level, e.msg, e.props)
	p.entries.Add(1)
	p.leftOut.Add(e.leftOut)
	p.ahead += len(e.msg)
	for _, kv := range e.props {
		p.ahead += len(kv.Key) + len(kv.Value)
	}
}

// scan looks for files: new ones are opened, those that have no name any more are noticed.
func (p *Producer) scan(now time.Time) {
	p.round++
	var found []candidate
	for _, path := range p.paths() {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() { // it has gone since, or is a pipe, which would block
			continue
		}
		id := idOf(path, info)
		f := p.files[id]
		if f == nil {
			found = append(found, candidate{path, info})
			continue
		}
		if f.seen != p.round {
			f.path, f.seen = path, p.round
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, c := range found {
		p.trouble(c.path, p.begin(c, now))
	}
}

// candidate is a file that is not followed yet.
type candidate struct {
	path string
	info os.FileInfo
}

// paths returns what the patterns match, without what is compressed.
func (p *Producer) paths() []string {
	var all []string
	for _, pattern := range p.cfg.Paths {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // Validate has seen the pattern
		}
		for _, m := range matches {
			if !isCompressed(m) {
				all = append(all, m)
			}
		}
	}
	return all
}

func isCompressed(path string) bool {
	return slices.Contains([]string{".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".Z"}, filepath.Ext(path))
}

// begin opens a file that was found.
func (p *Producer) begin(c candidate, now time.Time) error {
	if len(p.files) >= p.cfg.MaxFiles {
		return fmt.Errorf("more than %d files", p.cfg.MaxFiles)
	}
	f, err := openFile(c.path, p.cfg.MaxLineBytes)
	if err != nil {
		return err
	}
	if p.files[f.id] != nil { // another name of the same file
		f.file.Close()
		return nil
	}
	f.copyOf = p.originalOf(f)
	if p.cfg.FromEnd && p.round == 1 {
		p.skip(f, f.size())
	}
	p.follow(f, now)
	return nil
}

func (p *Producer) follow(f *follower, now time.Time) {
	f.no, f.seen, f.grown = p.nextNo(), p.round, now
	p.files[f.id] = f
}

func (p *Producer) nextNo() int64 {
	p.no++
	return p.no
}

// skip sets a file's position.
func (p *Producer) skip(f *follower, offset int64) {
	f.lines.reset(offset)
	f.learnHead()
}

// end closes a file that has no name any more. Its last line has no newline, and will have none.
func (p *Producer) end(f *follower) {
	p.lastLine(f)
	f.file.Close()
	delete(p.files, f.id)
	p.releaseCopies(f)
}

// releaseCopies says that copies of a file have nothing that was not read from it.
func (p *Producer) releaseCopies(of *follower) {
	for _, c := range p.files {
		if c.copyOf == of {
			c.copyOf = nil
			p.skip(c, c.size())
		}
	}
}

// copyNameOf reports whether a file may be a copy of another by their names: app.log.1 or app.log-20260301 of app.log, or of app.log.2, whose
// name has changed since.
func copyNameOf(copied, original string) bool {
	stem := stemOf(copied)
	return stem == stemOf(original) && stem != copied
}

// stemOf returns a name without the numbers that rotation adds to it.
func stemOf(path string) string {
	for {
		short := strings.TrimRight(path, "0123456789")
		if short == path || short == "" || !strings.ContainsRune(".-_", rune(short[len(short)-1])) {
			return path
		}
		path = short[:len(short)-1]
	}
}
