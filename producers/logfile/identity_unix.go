//go:build unix

package logfile

import (
	"os"
	"syscall"
)

// fileID tells files apart, whatever their names.
type fileID struct {
	device, inode uint64
	path          string // where there are no inodes
}

func idOf(path string, info os.FileInfo) fileID {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{path: path}
	}
	return fileID{device: uint64(s.Dev), inode: uint64(s.Ino)} //nolint:unconvert // their types differ between systems
}
