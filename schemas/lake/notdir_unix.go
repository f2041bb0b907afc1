//go:build unix

package lake

import (
	"errors"
	"syscall"
)

// isNotDir tells whether a path went through a file as if it were a folder.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
