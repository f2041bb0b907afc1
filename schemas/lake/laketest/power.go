package laketest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/lake"
)

// PowerFS is a file system for lake.NewFolder that works on real files below a root and records every change, so that
// LosePower can rebuild in another folder what a power loss would leave at any moment of the record.
//
// The model is the weakest file system that the folder bucket assumes: a file has the bytes it had at its last Sync; a
// folder has the names it had at its last SyncDir; a rename is two changes of names, of which either may be lost (but a name
// always leads to the old file or the new one). Of what was not synced anything may have reached the disk all the same: a prefix of a file's
// later bytes, a prefix of a folder's later changes.
type PowerFS struct {
	root string
	real lake.FS
	// Hook, if set, is called before each change, without a lock held.
	Hook func(change, path string)

	mu     sync.Mutex
	record []change
	inodes int
}

type change struct {
	what  string // mkdir, create, write, sync, rename, remove, syncdir
	path  string // below the root, "" for the root
	to    string
	inode int
	bytes []byte
}

// NewPowerFS records below root, which must exist and be empty, and counts as durable.
func NewPowerFS(root string) *PowerFS {
	return &PowerFS{root: root, real: lake.OS()}
}

// Root is the folder below which it records.
func (p *PowerFS) Root() string { return p.root }

// Len is the number of changes so far: a moment for LosePower.
func (p *PowerFS) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.record)
}

func (p *PowerFS) do(c change, act func() error) error {
	if p.Hook != nil {
		p.Hook(c.what, c.path)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := act(); err != nil {
		return err
	}
	p.record = append(p.record, c)
	return nil
}

// rel is the path below the root.
func (p *PowerFS) rel(path string) string {
	r, err := filepath.Rel(p.root, path)
	if err != nil || strings.HasPrefix(r, "..") {
		panic(fmt.Sprintf("laketest: %s is outside of %s", path, p.root))
	}
	if r == "." {
		return ""
	}
	return r
}

// Mkdir implements lake.FS.
func (p *PowerFS) Mkdir(path string) error {
	return p.do(change{what: "mkdir", path: p.rel(path)}, func() error { return p.real.Mkdir(path) })
}

// Create implements lake.FS.
func (p *PowerFS) Create(path string) (lake.File, error) {
	if p.Hook != nil {
		p.Hook("create", p.rel(path))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := p.real.Create(path)
	if err != nil {
		return nil, err
	}
	p.inodes++
	rel := p.rel(path)
	p.record = append(p.record, change{what: "create", path: rel, inode: p.inodes})
	return &powerFile{fs: p, file: f, inode: p.inodes, path: rel}, nil
}

// Rename implements lake.FS.
func (p *PowerFS) Rename(from, to string) error {
	f, t := p.rel(from), p.rel(to)
	return p.do(change{what: "rename", path: f, to: t}, func() error { return p.real.Rename(from, to) })
}

// Remove implements lake.FS.
func (p *PowerFS) Remove(path string) error {
	return p.do(change{what: "remove", path: p.rel(path)}, func() error { return p.real.Remove(path) })
}

// SyncDir implements lake.FS. The real folder is not fsynced: nobody pulls the real plug.
func (p *PowerFS) SyncDir(path string) error {
	return p.do(change{what: "syncdir", path: p.rel(path)}, func() error { _, err := os.Stat(path); return err })
}

type powerFile struct {
	fs    *PowerFS
	file  lake.File
	inode int
	path  string
}

func (f *powerFile) Write(b []byte) (n int, err error) {
	c := change{what: "write", path: f.path, inode: f.inode, bytes: slices.Clone(b)}
	err = f.fs.do(c, func() error { n, err = f.file.Write(b); return err })
	return n, err
}

func (f *powerFile) Sync() error {
	return f.fs.do(change{what: "sync", path: f.path, inode: f.inode}, func() error { return nil })
}

func (f *powerFile) Close() error { return f.file.Close() }

// node is a file or folder of the model.
type node struct {
	folder  bool
	data    []byte // file: all bytes
	synced  int    // file: how many of them are durable
	names   map[string]*node
	durable map[string]*node // folder: names at the last SyncDir
	pending []nameChange     // folder: changes since
}

type nameChange struct {
	name string
	to   *node // nil: removed
}

func newFolder() *node {
	return &node{folder: true, names: map[string]*node{}, durable: map[string]*node{}}
}

func (n *node) set(name string, to *node) {
	if to == nil {
		delete(n.names, name)
	} else {
		n.names[name] = to
	}
	n.pending = append(n.pending, nameChange{name, to})
}

// LosePower rebuilds in dir what is left when the power goes after the first n changes. With a nil random only what was
// synced is left; else a random part of the rest as well.
func (p *PowerFS) LosePower(dir string, n int, random *rand.Rand) error {
	p.mu.Lock()
	record := p.record[:n]
	p.mu.Unlock()
	root := newFolder()
	inodes := map[int]*node{}
	for _, c := range record {
		if err := apply(root, inodes, c); err != nil {
			return fmt.Errorf("replay %s %s: %w", c.what, c.path, err)
		}
	}
	return restore(dir, root, random)
}

func apply(root *node, inodes map[int]*node, c change) error {
	parent, name, err := find(root, c.path)
	if err != nil {
		return err
	}
	switch c.what {
	case "mkdir":
		if parent.names[name] == nil {
			parent.set(name, newFolder())
		}
	case "create":
		inodes[c.inode] = &node{}
		parent.set(name, inodes[c.inode])
	case "write":
		inodes[c.inode].data = append(inodes[c.inode].data, c.bytes...)
	case "sync":
		inodes[c.inode].synced = len(inodes[c.inode].data)
	case "remove":
		parent.set(name, nil)
	case "rename":
		target, to, err := find(root, c.to)
		if err != nil {
			return err
		}
		file := parent.names[name]
		parent.set(name, nil)
		target.set(to, file)
	case "syncdir":
		d := root
		if c.path != "" {
			d = parent.names[name]
		}
		d.durable, d.pending = maps.Clone(d.names), nil
	}
	return nil
}

// find returns the folder that holds a path, and the last part of the path.
func find(root *node, path string) (*node, string, error) {
	dir, name := filepath.Split(path)
	n := root
	for part := range strings.SplitSeq(filepath.ToSlash(filepath.Clean(dir)), "/") {
		if part == "." || part == "" {
			continue
		}
		if n = n.names[part]; n == nil || !n.folder {
			return nil, "", fs.ErrNotExist
		}
	}
	return n, name, nil
}

func restore(path string, n *node, random *rand.Rand) error {
	if !n.folder {
		length := n.synced
		if random != nil && len(n.data) > length {
			length += random.IntN(len(n.data) - length + 1)
		}
		return os.WriteFile(path, n.data[:length], 0o600)
	}
	names := maps.Clone(n.durable)
	if random != nil && len(n.pending) > 0 {
		for _, c := range n.pending[:random.IntN(len(n.pending)+1)] {
			if c.to == nil {
				delete(names, c.name)
			} else {
				names[c.name] = c.to
			}
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := restore(filepath.Join(path, name), names[name], random); err != nil {
			return err
		}
	}
	return nil
}
