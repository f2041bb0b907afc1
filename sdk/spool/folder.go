package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk/lockfile"
)

const (
	lockName     = "lock"
	journalName  = "journal"
	segmentEnd   = ".seg"
	folderPrefix = "process-"
)

// folder is a subfolder that this process holds: its own, or one whose process has died.
type folder struct {
	path string
	lock *os.File
	uses int // segments and journals in it, of an adopted folder; guarded by the shelf's lock
}

// claim takes a folder. Between the opening of the lock and the locking, its holder may have removed the folder: then the file that
// is locked is not the one at the path any more.
func claim(path string, create bool) (*folder, error) {
	name := filepath.Join(path, lockName)
	lock, err := lockfile.Open(name, create)
	if err != nil {
		return nil, err
	}
	held, err := lock.Stat()
	if err == nil && canStatHeld {
		var there os.FileInfo
		if there, err = os.Stat(name); err == nil && !os.SameFile(held, there) {
			err = lockfile.ErrHeld
		}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &folder{path: path, lock: lock}, nil
}

// canStatHeld: where files that are open cannot be removed, the path cannot have changed.
const canStatHeld = os.PathSeparator == '/'

// release gives a folder up, and removes it when it is empty but for its lock. The lock file goes first, and while it is locked,
// so that nobody can take a folder that is about to go.
func (f *folder) release() {
	if names, err := contents(f.path); err == nil && len(names) == 0 {
		if !canStatHeld {
			f.lock.Close()
		}
		os.Remove(filepath.Join(f.path, lockName))
		os.Remove(f.path)
	}
	f.lock.Close()
}

// contents returns the names in a folder, without the lock.
func contents(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	var names []string
	for _, e := range entries {
		if e.Name() != lockName {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// home is the folder of this process, made when something is to be written first, so that a program whose gateway is always there leaves no
// trace on the disk.
type home struct {
	root string

	mu     sync.Mutex
	folder *folder
}

// path returns the folder, which it makes if need be.
func (h *home) path() (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder != nil {
		if _, err := os.Stat(h.folder.path); err == nil {
			return h.folder.path, nil
		}
		h.folder.lock.Close() // somebody removed it
		h.folder = nil
	}
	p := filepath.Join(h.root, folderPrefix+telemetry.NewID().String())
	if err := os.MkdirAll(p, 0o700); err != nil {
		return "", err
	}
	f, err := claim(p, true)
	if err != nil {
		return "", fmt.Errorf("claim new folder: %w", err)
	}
	h.folder = f
	return p, nil
}

// is reports whether path is this process's folder.
func (h *home) is(path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.folder != nil && h.folder.path == path
}

func (h *home) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder != nil {
		h.folder.release()
		h.folder = nil
	}
}
