package logfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Bounds of the positions file.
const (
	positionsVersion  = 1
	maxPositionsBytes = 16 << 20
)

// position is how far a file was recorded.
type position struct {
	Path      string `json:"path"`
	Device    uint64 `json:"device"`
	Inode     uint64 `json:"inode"`
	Offset    int64  `json:"offset"`
	HeadBytes int    `json:"head_bytes"`
	Head      uint64 `json:"head"` // FNV-1a of so many bytes
}

func (s position) head() head { return head{s.HeadBytes, s.Head} }

type positionsFile struct {
	Version int        `json:"version"`
	Files   []position `json:"files"`
}

// loadPositions reads the file of positions; none is no position.
func loadPositions(path string) ([]position, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPositionsBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var p positionsFile
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("%s is damaged, remove it to read all files from their begin: %w", path, err)
	}
	if p.Version != positionsVersion {
		return nil, fmt.Errorf("%s has version %d, this program reads %d", path, p.Version, positionsVersion)
	}
	for _, s := range p.Files {
		if s.Offset < 0 || s.HeadBytes < 0 || s.HeadBytes > headBytes {
			return nil, fmt.Errorf("%s is damaged, remove it to read all files from their begin: %+v", path, s)
		}
	}
	return p.Files, nil
}

// savePositions replaces the file of positions by one of now, if something has changed.
func (p *Producer) savePositions() error {
	var now []position
	for _, f := range p.files {
		if f.copyOf != nil {
			continue // how far it is read is known when its original is cut
		}
		now = append(now, position{f.path, f.id.device, f.id.inode, f.done(), f.head.n, f.head.sum})
	}
	slices.SortFunc(now, func(a, b position) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Inode, b.Inode)) })
	if p.written != nil && slices.Equal(now, p.written) {
		return nil
	}
	text, err := json.MarshalIndent(positionsFile{positionsVersion, now}, "", "\t")
	if err != nil {
		return err
	}
	if err := replaceFile(p.cfg.Positions, append(text, '\n')); err != nil {
		return err
	}
	p.written = append([]position{}, now...)
	return nil
}

// replaceFile writes a file so that at any moment the old one or the new one is there as a whole.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing once it has its name
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), path)
}

// resume opens the files that have positions: under their names, under any name in their folder, or as copies with what was not read.
func (p *Producer) resume() {
	for _, find := range []func(position) *follower{p.sameFile, p.sameName, p.copied} {
		var missing []position
		for _, s := range p.saved {
			if s.HeadBytes == 0 {
				continue // nothing was read of it
			}
			f := find(s)
			if f == nil {
				missing = append(missing, s)
				continue
			}
			f.lines.reset(s.Offset)
			f.head = s.head()
			p.follow(f, time.Now())
		}
		p.saved = missing
	}
	for _, s := range p.saved {
		p.log.Warn("a file with a position is not there any more", "path", s.Path, "offset", s.Offset)
	}
}

// continues reports whether a file that is not followed yet is what a position is of.
func (p *Producer) continues(f *follower, s position) bool {
	return p.files[f.id] == nil && f.size() >= s.Offset && s.head().isOf(f.file)
}

// sameFile finds a file by its device and inode.
func (p *Producer) sameFile(s position) *follower {
	if s.Inode == 0 {
		return nil
	}
	for _, name := range append([]string{s.Path}, namesBeside(s.Path)...) {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if id := idOf(name, info); id.device != s.Device || id.inode != s.Inode {
			continue
		}
		if f := p.openIf(name, s); f != nil {
			return f
		}
	}
	return nil
}

// sameName finds a file by its name: one that was restored, or moved to another disk.
func (p *Producer) sameName(s position) *follower {
	if info, err := os.Stat(s.Path); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return p.openIf(s.Path, s)
}

// copied finds the copy of a file that was cut.
func (p *Producer) copied(s position) *follower {
	return p.sibling(s.Path, func(c *follower) bool { return p.continues(c, s) })
}

func (p *Producer) openIf(name string, s position) *follower {
	f, err := openFile(name, p.cfg.MaxLineBytes)
	if err != nil {
		return nil
	}
	if !p.continues(f, s) {
		f.file.Close()
		return nil
	}
	return f
}
