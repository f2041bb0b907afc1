package hostmetrics

import "syscall"

const supported = true

// roomOf returns the room of the file system at a path.
func roomOf(path string) (bytesOf, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return bytesOf{}, err
	}
	unit := uint64(s.Frsize)
	if unit == 0 {
		unit = uint64(s.Bsize)
	}
	return bytesOf{total: s.Blocks * unit, free: s.Bfree * unit, available: s.Bavail * unit}, nil
}
