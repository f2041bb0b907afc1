// Package lockfile has files that one process holds as long as it lives: spool's folders and the files of package crash are told apart from
// those of dead processes by them.
package lockfile

import "errors"

// ErrHeld is the error of Open for a file that a living process holds.
var ErrHeld = errors.New("held by a process that is alive")
