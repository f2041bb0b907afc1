package deploy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockName is the file in the data folder that a server holds while it runs; it contains the server's pid.
const lockName = "lock"

// errFolderInUse says that another server holds the data folder.
var errFolderInUse = errors.New("data folder in use")

// lockFolder makes dir and takes it for this process. The lock goes with the process, however it ends: it is the
// kernel's (flock), the pid in the file is for people.
func lockFolder(dir string) (unlock func(), err error) {
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock of data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
		}
		pid, _ := io.ReadAll(io.LimitReader(f, 32)) // best effort: the pid only makes the message better
		return nil, fmt.Errorf("%w: process %s serves %s; stop it, or give this one another folder with --data",
			errFolderInUse, strings.TrimSpace(string(pid)), dir)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write lock of data folder: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write lock of data folder: %w", err)
	}
	return func() { f.Close() }, nil
}

// makeFolder makes dir and what is missing above it, durably: each new folder's name is synced in the one above.
func makeFolder(dir string) error {
	above := filepath.Dir(dir)
	if _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(above); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		// Its maker may have been killed before the sync. Where this user cannot do it, it was the installation's.
		_ = syncFolder(above)
		return nil
	}
	if err != nil {
		return err
	}
	return syncFolder(above)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
