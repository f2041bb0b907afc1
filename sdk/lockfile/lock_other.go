//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd && !windows

package lockfile

import "os"

// Freed says that there are no locks here: a folder is made by its owner, and nobody else's is touched.
const Freed = false

func Open(path string, create bool) (*os.File, error) {
	if !create {
		return nil, ErrHeld
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}
