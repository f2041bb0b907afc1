//go:build !(linux || darwin)

package gateway

import "errors"

// StatSpace asks the file system of dir.
func StatSpace(string) (Space, error) { return Space{}, errors.ErrUnsupported }
