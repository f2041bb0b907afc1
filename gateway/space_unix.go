//go:build linux || darwin

package gateway

import "golang.org/x/sys/unix"

// StatSpace asks the file system of dir.
func StatSpace(dir string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Space{}, err
	}
	block := uint64(s.Bsize)
	return Space{Free: s.Bavail * block, Total: s.Blocks * block}, nil
}
