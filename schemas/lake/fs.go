package lake

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is the few changes that a folder bucket makes to a file system. The real one is OS(); laketest records them to
// replay what a power loss would leave.
type FS interface {
	// Mkdir makes one folder; an existing one is not an error.
	Mkdir(path string) error
	// Create makes a new file for writing; it must fail when the name is taken.
	Create(path string) (File, error)
	// Rename replaces to, atomically to readers.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(path string) error
	// SyncDir makes the names in a folder durable: new, renamed and removed ones.
	SyncDir(path string) error
}

// File is a file being written.
type File interface {
	Write(p []byte) (int, error)
	// Sync makes the bytes written so far, and the file's length, durable.
	Sync() error
	Close() error
}

// OS is the machine's file system.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Mkdir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (osFS) Create(path string) (File, error) {
	return os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) Remove(path string) error { return os.Remove(path) }

func (osFS) SyncDir(path string) error {
	d, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
